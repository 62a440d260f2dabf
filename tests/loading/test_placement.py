"""Placed splits: batches equal those read from the disk in every placement, and no shared memory remains afterwards."""

from __future__ import annotations

import json
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from landscale.distributed import Ranks
from landscale.errors import BadStore, LandscaleError
from landscale.loading import PlacedSplit, batches, epoch_order, filling, place, placement, targets_by_name, train_steps
from landscale.loading.filling import positions
from landscale.loading.free_memory import FreeMemory, cgroup_limits, free_memory
from landscale.loading.on_device import routes
from landscale.loading.placement import choose
from landscale.store import SUPER, PatchStore, Plane, open_store
from landscale.testing import make_store, rgbn_plane, sentinel_planes
from launchers import codes_of, run_script, start_ranks
from lmdbs import write as write_lmdb

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
LOCATIONS = ["memory", "device", pytest.param("gpu", marks=needs_gpu)]
SPLITS = {"val": 5, "train": 19, "test": 3}


def place_train_split(
    store: PatchStore, location: str, bands: tuple[str, ...], upsampled: bool = False
) -> tuple[torch.device, PlacedSplit]:
    device = torch.device("cuda", 0) if location == "gpu" else CPU
    requested = "device" if location == "gpu" else location
    placed = place(store, bands, upsampled, store.patches("train"), Ranks(), device, requested)
    assert placed is not None
    return device, placed


def assert_batches_equal_those_from_disk(
    store: PatchStore, location: str, bands: tuple[str, ...], upsampled: bool = False
) -> None:
    """Compare two epochs, whose last step is shorter, on every rank of 1, 3 and 6; the last step has fewer rows than ranks."""
    device, placed = place_train_split(store, location, bands, upsampled)
    targets = targets_by_name(store, store.layout.classes)
    patches = store.patches("train")
    steps = [order[k : k + 8] for order in (epoch_order(patches, 0, e) for e in (0, 1)) for k in range(0, 19, 8)]
    steps.append(np.repeat(patches[-1:], 5))
    for world in (1, 3, 6):
        for rank in range(world):
            options = {"upsampled": upsampled, "ranks": Ranks(rank, world)}
            expected = batches(store, bands, targets, steps, CPU, **options)
            found = batches(store, bands, targets, steps, device, **options, placed=placed)
            for a, b in zip(expected, found, strict=True):
                assert np.array_equal(a.rows, b.rows)
                assert list(a.planes) == list(b.planes)
                assert torch.equal(a.targets, b.targets.cpu())
                for names, pixels in a.planes.items():
                    assert pixels.dtype == b.planes[names].dtype
                    assert np.array_equal(pixels.numpy(), b.planes[names].cpu().numpy())


@pytest.fixture
def small_parts(monkeypatch):
    """Copy parts of a few patches in pieces of one patch, so that a small split has several parts and pieces."""
    monkeypatch.setattr(filling, "_PART", 12_000)
    monkeypatch.setattr(filling, "_PIECE", 3_000)


@pytest.mark.parametrize("location", LOCATIONS)
@pytest.mark.parametrize("dtype", ["uint16", "uint8", "float32"])
@pytest.mark.parametrize("bands", [("B04", "B03", "B02"), ("B01", "B8A", "B02"), ("B12",)])
def test_patches_in_every_location_equal_those_on_the_disk(location, dtype, bands, tmp_path, small_parts):
    store = make_store(tmp_path / "s.h5", planes=sentinel_planes(12, dtype), splits=SPLITS, bad=(9, 23))
    assert_batches_equal_those_from_disk(store, location, bands)


@pytest.mark.parametrize("location", LOCATIONS)
def test_patches_of_any_number_of_bytes_equal_those_on_the_disk(location, tmp_path):
    for side, dtype in ((3, "uint8"), (3, "uint16"), (5, "uint8"), (1, "float32")):
        plane = Plane("data_10m", ("B02",) if side == 3 else ("B02", "B03"), side, 10, dtype)
        assert_batches_equal_those_from_disk(
            make_store(tmp_path / f"{side}-{dtype}.h5", planes=[plane], splits=SPLITS), location, ("B02",)
        )


@pytest.mark.parametrize("location", LOCATIONS)
def test_upsampled_patches_equal_those_on_the_disk(location, tmp_path):
    native = sentinel_planes(12)
    every = tuple(band for plane in native for band in plane.bands)
    store = make_store(tmp_path / "s.h5", planes=(*native, Plane(SUPER, every, 12, 10)), splits=SPLITS)
    _, placed = place_train_split(store, location, ("B02", "B12"), upsampled=True)
    assert placed.description.endswith("(6.57e-05 GB)")  # 19 · 12 · 12² · 2 bytes
    assert_batches_equal_those_from_disk(store, location, ("B02", "B12"), upsampled=True)
    assert_batches_equal_those_from_disk(store, location, ("B02", "B12"))


@pytest.mark.parametrize("location", LOCATIONS)
def test_patches_of_an_lmdb_equal_those_on_the_disk(location, tmp_path):
    store = open_store(write_lmdb(tmp_path / "Encoded"))
    rows = store.patches("train")
    device, placed = place_train_split(store, location, ("B02", "B12"))
    expected = store.pixels("data_20m", rows[::-1])
    (batch,) = batches(store, ("B02", "B12"), store.classes, [rows[::-1]], device, placed=placed)
    found = batch.planes[next(p.bands for p in store.layout.planes if p.key == "data_20m")]
    assert np.array_equal(found.cpu().numpy(), expected)


@pytest.mark.parametrize("location", LOCATIONS)
def test_the_store_is_not_read_again_after_placing(location, tmp_path, monkeypatch):
    store = make_store(tmp_path / "s.h5", splits=SPLITS)
    device, placed = place_train_split(store, location, store.layout.bands)
    monkeypatch.setattr(type(store), "gather", None)
    patches = store.patches("train")
    parts = list(batches(store, store.layout.bands, store.classes, train_steps(patches, 4), device, placed=placed))
    assert [len(b.rows) for b in parts] == [4] * 4
    with pytest.raises(ValueError, match="not in the split"):
        next(batches(store, store.layout.bands, store.classes, [np.arange(4)], device, placed=placed))


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_batch_stays_valid_until_the_next_is_taken(location, tmp_path):
    store = make_store(tmp_path / "s.h5", splits=SPLITS)
    device, placed = place_train_split(store, location, store.layout.bands)
    steps = [epoch_order(store.patches("train"), 0, e)[:8] for e in range(8)]
    addresses = set()
    for batch, rows in zip(
        batches(store, store.layout.bands, store.classes, steps, device, placed=placed), steps, strict=True
    ):
        (pixels,) = batch.planes.values()
        time.sleep(0.002)
        assert np.array_equal(pixels.cpu().numpy(), store.pixels("data_10m", rows))
        addresses.add(pixels.data_ptr())
    assert len(addresses) <= 3  # buffers are reused


@pytest.mark.parametrize("location", ["memory", "device"])
def test_a_rank_reports_progress_while_it_copies_patches(location, tmp_path, small_parts):
    store = make_store(tmp_path / "s.h5", splits=SPLITS)
    reports = []
    assert place(
        store, store.layout.bands, False, store.patches("train"), Ranks(report_progress=reports.append), CPU, location
    )
    assert reports == [-1] * 10  # 19 patches in parts of two


# ---- free memory


def free_of_ranks(*machines: tuple[int, int, int | None], ranks: int = 1) -> list[FreeMemory]:
    """The free memory of `ranks` ranks on each machine: (memory, shared, GPU) in GB."""
    return [
        FreeMemory(f"n{k}", memory * 10**9, shared * 10**9, None if gpu is None else gpu * 10**9)
        for k, (memory, shared, gpu) in enumerate(machines)
        for _ in range(ranks)
    ]


GB43 = 43 * 10**9


@pytest.mark.parametrize(
    ("requested", "free", "location"),
    [
        ("auto", free_of_ranks((200, 100, 80)), "device"),
        ("auto", free_of_ranks((200, 100, 70)), "memory"),  # 43 GB are more than 60% of the GPU
        ("device", free_of_ranks((200, 100, 70)), "device"),
        ("auto", free_of_ranks((200, 100, 40), ranks=4), "sharded"),
        ("device", free_of_ranks((200, 100, 40), ranks=4), "sharded"),
        (
            "auto",
            free_of_ranks((200, 100, 80), (200, 100, 40), ranks=4),
            "sharded",
        ),  # the location is the same on all machines
        ("auto", free_of_ranks((200, 100, 80), (200, 100, 10), ranks=4), "memory"),
        ("auto", free_of_ranks((200, 60, 10), ranks=4), "disk"),  # too little memory can be shared
        ("auto", free_of_ranks((200, 60, 10)), "memory"),  # one rank does not need shared memory
        ("auto", free_of_ranks((70, 70, 10), ranks=4), "disk"),
        ("memory", free_of_ranks((70, 70, 80), ranks=4), "memory"),
        ("device", free_of_ranks((200, 0, None), ranks=4), "device"),
        (
            "device",
            free_of_ranks((100, 0, None), ranks=4),
            "sharded",
        ),  # on CPUs, the processes of a machine divide its memory
    ],
)
def test_the_location_is_chosen_by_the_least_free_memory_of_all_ranks(requested, free, location):
    assert choose(requested, GB43, free) == location


@pytest.mark.parametrize(
    ("requested", "free", "found"),
    [
        ("memory", free_of_ranks((40, 40, 80)), "found|40 GB of memory"),
        ("memory", free_of_ranks((200, 30, 80), ranks=2), r"30 GB of memory that can be shared \(/dev/shm\)"),
        ("device", free_of_ranks((200, 30, 40)), "40 GB on a device, 40 GB on all of a machine"),
        ("device", free_of_ranks((200, 30, 10), ranks=4), "10 GB on a device, 40 GB on all of a machine"),
    ],
)
def test_a_requested_location_with_too_little_memory_is_refused(requested, free, found):
    with pytest.raises(
        LandscaleError, match=rf"^--placement {requested}: the train split takes 43 GB, .*90%.*({found})[^\n]*$"
    ):
        choose(requested, GB43, free)


def test_missing_bands_and_too_little_memory_are_refused_and_a_cpu_reads_from_the_disk(tmp_path, monkeypatch):
    store = make_store(tmp_path / "s.h5", planes=rgbn_plane(6), splits=SPLITS)
    rows, bands = store.patches("train"), store.layout.bands
    assert place(store, bands, False, rows, Ranks(), CPU, "auto") is None  # on a CPU the page cache suffices
    assert place(store, bands, False, rows, Ranks(), torch.device("cuda", 0), "disk") is None
    with pytest.raises(BadStore, match="lacks B12"):
        place(store, ("B12",), False, rows, Ranks(), CPU, "memory")
    monkeypatch.setattr(placement, "free_memory", lambda device: FreeMemory("host", 1000, 1000, None))
    for requested in ("memory", "device"):
        with pytest.raises(LandscaleError, match=f"--placement {requested}: the train split takes 5.47e-06 GB"):
            place(store, bands, False, rows, Ranks(), CPU, requested)


def test_free_memory_respects_the_limits_of_the_jobs_cgroups(tmp_path):
    free = free_memory(CPU)
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < free.memory < total
    assert 0 < free.shared <= free.memory
    assert free.gpu is None
    files = {"job_7/step_0": "max", "job_7": "64000", "memory/uid_0/job_7": "32000"}
    for folder, limit in files.items():
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        name = "memory.limit_in_bytes" if "uid" in folder else "memory.max"
        (tmp_path / folder / name).write_text(f"{limit}\n")
    groups = tmp_path / "cgroup"
    groups.write_text("0::/job_7/step_0/task_0\n")
    assert list(cgroup_limits(groups, tmp_path)) == [64_000]
    groups.write_text("4:memory:/uid_0/job_7/step_0\n3:cpu:/uid_0\n0::/\n")
    assert list(cgroup_limits(groups, tmp_path)) == [32_000]
    assert list(cgroup_limits(tmp_path / "none", tmp_path)) == []


# ---- exchange


@given(st.data())
def test_every_rank_receives_the_patches_of_its_batch_in_order(data):
    """For any distribution of ranks over machines and any step, also with repeated rows and fewer rows than ranks."""
    hosts = data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=7))
    patches = data.draw(st.integers(1, 30))
    at = np.array(data.draw(st.lists(st.integers(0, patches - 1), max_size=25)), np.int64)
    world = len(hosts)
    machines = [[rank for rank, host in enumerate(hosts) if host == h] for h in sorted(set(hosts))]
    for peers in machines:
        shards = [np.arange(patches)[k :: len(peers)] for k in range(len(peers))]
        ways = [routes(at, Ranks(rank, world), peers) for rank in peers]
        sent = [
            np.split(shard[way.send_positions], np.cumsum(way.sends)[:-1])
            for shard, way in zip(shards, ways, strict=True)
        ]
        for peer, (rank, way) in enumerate(zip(peers, ways, strict=True)):
            assert way.receives == [len(parts[peer]) for parts in sent]
            received = np.concatenate([parts[peer] for parts in sent])
            assert np.array_equal(received[way.order], at[rank::world])


@given(st.lists(st.integers(0, 99), unique=True, min_size=1, max_size=30), st.lists(st.integers(0, 99), max_size=9))
def test_positions_are_found_for_rows_of_the_split_and_others_are_refused(split, rows):
    split, rows = np.array(sorted(split)), np.array(rows, np.int64)
    if set(rows) <= set(split):
        assert np.array_equal(split[positions(split, rows)], rows)
    else:
        with pytest.raises(ValueError, match="not in the split"):
            positions(split, rows)


# ---- several processes

SCRIPT = """
import json, os, resource, sys, time
from pathlib import Path
import numpy as np
import torch
import torch.distributed as dist
from landscale.loading import batches, epoch_order, filling, place, placement
from landscale.loading.free_memory import FreeMemory
from landscale.distributed import Ranks, start_process_group, end_process_group
from landscale.errors import BadStore, LandscaleError
from landscale.store import open_store

torch.set_num_threads(1)
folder = Path(sys.argv[1])
store = open_store(folder / "s.h5")
rows, bands = store.patches("train"), ("B04", "B12", "B01")
SPLIT = sum(filling.bytes_per_patch(p) for p in store.planes_for(bands)) * len(rows)
filling._PART, filling._PIECE = SPLIT // 4, SPLIT // 12
results = []


def shared():  # inodes of the unnamed files in /dev/shm that this process maps
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sorted({line.split()[4] for line in lines if "/dev/shm/#" in line})


def compare(ranks, placed):
    steps = [epoch_order(rows, 5, e)[:size] for e, size in enumerate((8, 7, 8, 3, 2, 1, 6))]
    steps.append(np.repeat(rows[3:4], 8))
    for step, a, b in zip(
        steps,
        batches(store, bands, store.classes, steps, torch.device("cpu"), ranks=ranks),
        batches(store, bands, store.classes, steps, torch.device("cpu"), ranks=ranks, placed=placed),
        strict=True,
    ):
        assert np.array_equal(a.rows, step[ranks.rank :: ranks.world]) and np.array_equal(a.rows, b.rows)
        assert torch.equal(a.targets, b.targets) and list(a.planes) == list(b.planes)
        for names, pixels in a.planes.items():
            assert np.array_equal(pixels.numpy(), b.planes[names].numpy()), names


def case(ranks, requested, free=None, host="one"):
    if free is not None:
        placement.free_memory = lambda device: FreeMemory(host, free, free, None)
    result = {"world": ranks.world, "requested": requested}
    try:
        placed = place(store, bands, False, rows, ranks, torch.device("cpu"), requested)
    except LandscaleError as error:
        result["refused"] = str(error)
    else:
        compare(ranks, placed)
        result["description"] = placed.description
        result["held"] = sum(t.nbytes for t in placed.shards.values()) / SPLIT if requested == "device" else 0
    results.append(result | {"maps": shared()})


def all_cases(ranks):
    host = "one" if ranks.rank < 2 else "two"
    case(ranks, "memory")  # with the real free memory
    case(ranks, "device", 2 * SPLIT)  # all on one machine, with too little memory for a whole split on each rank
    case(ranks, "memory", 2 * SPLIT, host)
    case(ranks, "device", 2 * SPLIT, host)
    case(ranks, "memory", SPLIT // (2 if ranks.rank == 1 else 1) * 3)
    case(ranks, "memory", SPLIT // (2 if ranks.rank == 1 else 1))  # too little on one machine
    if ranks.rank == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SPLIT // 2, resource.RLIM_INFINITY))
    case(ranks, "memory", 10 * SPLIT)  # more free memory is reported than can be written
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    gather = type(store).gather
    if ranks.first:
        def damaged(self, rows, into):
            raise BadStore("s.h5", "is damaged")
        type(store).gather = damaged
    case(ranks, "memory")
    case(ranks, "device", 2 * SPLIT)
    type(store).gather = gather


def write_result(name, content):
    part = folder / f".{name}.{os.getpid()}"
    part.write_text(json.dumps(content))
    part.rename(folder / name)


ranks = start_process_group("gloo")
all_cases(ranks)
end_process_group()
if ranks.rank < 2:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=ranks.rank, world_size=2)
    ranks = Ranks(ranks.rank, 2, ranks.rank)
    all_cases(ranks)
    write_result(f"results-{ranks.rank}", results)

    def slow(self, rows, into):  # replaces the method of the rank that copies
        write_result("filling", {"pid": os.getpid(), "maps": shared()})
        time.sleep(300)
    type(store).gather = slow
    write_result(f"pid-{ranks.rank}", os.getpid())
    case(ranks, "memory")
else:
    write_result(f"results-{ranks.rank}", results)
"""


@pytest.fixture(scope="module")
def results_folder(tmp_path_factory):
    """Run SCRIPT: three processes place a split in all ways, then two of them, which are killed while they copy."""
    folder = tmp_path_factory.mktemp("placement")
    make_store(folder / "s.h5", planes=sentinel_planes(12), splits=SPLITS)
    script = folder / "script.py"
    script.write_text(textwrap.dedent(SCRIPT))
    ranks = start_ranks(3, folder / "output", run_script, script, folder)
    end = time.monotonic() + 200
    while not (folder / "filling").exists() and ranks[0].is_alive() and time.monotonic() < end:
        time.sleep(0.05)
    pids = [read(path) for path in folder.glob("pid-*")]
    for rank in ranks:
        rank.kill()
    codes_of(ranks)
    assert len(pids) == 2, (folder / "output").read_text()[-4000:]
    return folder


def read(path):
    return json.loads(path.read_text())


def results_of(folder, world, requested):
    """For each case, the results of all ranks."""
    ranks = [
        [f for f in read(folder / f"results-{k}") if (f["world"], f["requested"]) == (world, requested)]
        for k in range(world)
    ]
    return list(zip(*ranks, strict=True))


@pytest.mark.parametrize("world", [3, 2])
def test_memory_is_shared_by_the_processes_of_a_machine(results_folder, world):
    """SCRIPT has already compared the patches with those on the disk."""
    real, machines, *_ = results_of(results_folder, world, "memory")
    assert {f["description"].split(" (")[0] for f in real} == {"train split in shared memory"}
    maps = [f["maps"] for f in real]
    assert len(maps[0]) == 1
    assert maps == [maps[0]] * world
    files = [f["maps"][0] for f in machines]  # the file of the first case no longer exists
    assert all(len(f["maps"]) == 1 for f in machines)
    assert files == [files[0], files[0], *[files[-1]] * (world - 2)]
    assert (files[-1] != files[0]) == (world == 3)  # on another machine


@pytest.mark.parametrize("world", [3, 2])
def test_a_split_is_spread_over_the_devices_of_a_machine(results_folder, world):
    together, machines, *_ = results_of(results_folder, world, "device")
    assert {f["description"].split(" (")[0] for f in together} == {f"train split sharded over {world} devices"}
    assert sum(f["held"] for f in together) == pytest.approx(1)
    assert max(f["held"] for f in together) < 1 / world + 0.06
    if world == 3:
        assert [f["description"].split(" (")[0].split("sharded ")[1] for f in machines] == [
            "over 2 devices",
            "over 2 devices",
            "over 1 devices",
        ]
        assert machines[2]["held"] == 1


@pytest.mark.parametrize("world", [3, 2])
def test_all_ranks_raise_the_error_of_one(results_folder, world):
    """If only one rank raised, the others would block in a collective."""
    *_, fits, small, full, damaged = results_of(results_folder, world, "memory")
    assert all("description" in f for f in fits)
    for refused, message in (
        (small, "--placement memory: the train split takes "),
        (full, "/dev/shm: cannot hold "),
        (damaged, "s.h5: is damaged"),
        (results_of(results_folder, world, "device")[-1], "s.h5: is damaged"),
    ):
        assert len({f["refused"] for f in refused}) == 1
        assert refused[0]["refused"].startswith(message)
        assert all(f["maps"] == [] for f in refused)


def test_no_shared_memory_is_left_by_processes_killed_while_they_copied(results_folder):
    (inode,) = read(results_folder / "filling")["maps"]
    assert not any(entry.stat().st_ino == int(inode) for entry in Path("/dev/shm").iterdir())
    mappings = []
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            mappings += [line for line in maps.read_text().splitlines() if f"/dev/shm/#{inode} " in line]
        except OSError:  # the process has ended, or its maps may not be read
            continue
    assert mappings == []  # an unnamed file that no process maps has been deleted by the system
