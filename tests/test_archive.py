"""Published archives, streamed into a store: the same patches as from the folders, and nothing but them."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import tarballs
from archives import Patch, metadata, write_patch, write_v1, write_v2
from conftest import DATA, Answer, Cli, command, outcome
from landscale.errors import LandscaleError
from landscale.labels import CLC43
from landscale.prepare import plan
from landscale.sources import tarball
from landscale.sources.bigearthnet_archive import Patches, Stream
from landscale.store import WHOLE, PatchStore, open_store
from landscale.store.planes import SENTINEL2
from tarballs import PACKERS, Files, files, member, pack, patch_of, radar_name, shuffled, tar, write_radar

S2 = {"v1": "BigEarthNet-v1.0", "v2": "BigEarthNet-S2"}
S1 = {"v1": "BigEarthNet-S1-v1.0", "v2": "BigEarthNet-S1"}
PATCHES = [Patch(k) for k in range(9)]
COLUMNS = ("split", "snow", "cloud", "tile", "date", "country", "crs", "origin", "moments", "checksum", "state")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both halves of both versions, as folders."""
    found = {}
    for version, write in (("v1", write_v1), ("v2", write_v2)):
        root = tmp_path_factory.mktemp(version)
        found[version] = write_radar(write(root, PATCHES), PATCHES, version)
    return found


@pytest.fixture(scope="module")
def folder_stores(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, PatchStore]:
    """The stores made from the folders: what an archive's store has to be. Keys: v1, v2, v1+s1, v2+s1."""
    from landscale.prepare import prepare
    from landscale.sources import bigearthnet

    stores = {}
    for version, root in roots.items():
        for key, where in ((version, root / S2[version]), (f"{version}+s1", root)):
            path = tmp_path_factory.mktemp("stores") / "folders.h5"
            prepare(bigearthnet.survey([(None, where)]), path)
            stores[key] = open_store(path)
    return stores


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few patches are several batches, and members lie across blocks."""
    monkeypatch.setattr(plan, "CHUNK", 4)
    monkeypatch.setattr(tarball, "_BLOCK", 100_000)
    monkeypatch.setattr(tarball, "_PROBED", 200_000)


def place(root: Path, folder: Path) -> Path:
    """A folder for archives with the lists or metadata of `root` beside them."""
    folder.mkdir(exist_ok=True)
    for name in ("metadata", "metadata.parquet"):
        path = root / name
        if path.is_dir():
            shutil.copytree(path, folder / name)
        elif path.exists():
            shutil.copy(path, folder / name)
    return folder


def same(found: Path | PatchStore, expected: PatchStore) -> None:
    """Every patch of a store is the one of that name in another, and so are the statistics."""
    store = found if isinstance(found, PatchStore) else open_store(found)
    assert {p.key: p for p in store.layout.planes} == {p.key: p for p in expected.layout.planes}
    names, others = store.column("name").tolist(), expected.column("name").tolist()
    assert sorted(names) == sorted(others)
    rows = [others.index(name) for name in names]
    for key, plane in store.planes.items():
        assert np.array_equal(plane, expected.planes[key][rows]), key
    for key in ("classes", *COLUMNS):
        assert np.array_equal(store.column(key), expected.column(key)[rows], equal_nan=key == "origin"), key
    for band, figures in expected.statistics.items():
        assert store.statistics[band] == pytest.approx(figures, rel=1e-12)
    assert not any(damaged for _, damaged in store.damaged())


def occupied(path: Path) -> float:
    """How much more than its data a store takes on the disk."""
    store = open_store(path)
    return path.stat().st_blocks * 512 / sum(p.nbytes for p in store.planes.values())


class TestTheFoldersPatches:
    @pytest.mark.parametrize("suffix", PACKERS)
    @pytest.mark.parametrize("version", S2)
    def test_packed(
        self,
        suffix: str,
        version: str,
        roots: dict[str, Path],
        folder_stores: dict[str, PatchStore],
        tmp_path: Path,
        cli: Cli,
    ) -> None:
        archive = pack(place(roots[version], tmp_path / "a") / f"archive{suffix}", files(roots[version], S2[version]))
        store = tmp_path / "s.h5"
        answer = cli("prepare", "bigearthnet", archive, store, "--json")
        assert answer.code == 0, answer.lines
        assert answer.json["written"] == answer.json["patches"] == 9
        same(store, folder_stores[version])
        assert list(store.parent.glob("*.h5*")) == [store]
        assert cli("verify", store).code == 0
        assert cli("info", store, "--json").json["splits"] == folder_stores[version].split_sizes()
        again = cli("prepare", "bigearthnet", archive, store)
        assert "complete already" in again.out

    @pytest.mark.parametrize("how", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
    @pytest.mark.parametrize("version", S2)
    def test_headers(
        self,
        how: int,
        version: str,
        roots: dict[str, Path],
        folder_stores: dict[str, PatchStore],
        tmp_path: Path,
        prepared: Callable[..., Path],
    ) -> None:
        """Names of v2 are longer than the 100 bytes of a header."""
        found = shuffled(files(roots[version], S2[version]))
        assert version == "v1" or max(len(name) for name, _ in found) > 150
        archive = pack(place(roots[version], tmp_path / "a") / "x.tgz", found, how=how, folders=True)
        store = prepared("bigearthnet", archive)
        same(store, folder_stores[version])
        order = list(dict.fromkeys(patch_of(name) for name, _ in found))
        assert open_store(store).column("name").tolist() == order

    def test_by_tar_itself(
        self,
        roots: dict[str, Path],
        folder_stores: dict[str, PatchStore],
        tmp_path: Path,
        prepared: Callable[..., Path],
    ) -> None:
        folder = place(roots["v2"], tmp_path / "a")
        subprocess.run(["tar", "czf", folder / "x.tar.gz", "-C", roots["v2"], "./BigEarthNet-S2"], check=True)
        same(prepared("bigearthnet", folder / "x.tar.gz"), folder_stores["v2"])

    @pytest.mark.parametrize("s1_first", [False, True])
    @pytest.mark.parametrize("version", S2)
    def test_both_halves(
        self,
        version: str,
        s1_first: bool,
        roots: dict[str, Path],
        folder_stores: dict[str, PatchStore],
        tmp_path: Path,
        prepared: Callable[..., Path],
    ) -> None:
        folder = place(roots[version], tmp_path / "a")
        s2 = pack(folder / "s2.tar.gz", shuffled(files(roots[version], S2[version]), 1))
        s1 = pack(folder / "s1.tar.zst", shuffled(files(roots[version], S1[version]), 2))
        same(prepared("bigearthnet", *([s1, s2] if s1_first else [s2, s1])), folder_stores[f"{version}+s1"])

    @pytest.mark.parametrize("with_radar", [False, True])
    def test_with_all_bands_at_10_m(
        self, with_radar: bool, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]
    ) -> None:
        folder, root = place(roots["v2"], tmp_path / "a"), roots["v2"]
        halves = (S2["v2"], S1["v2"]) if with_radar else (S2["v2"],)
        archives = [pack(folder / f"{half}.tar.zst", shuffled(files(root, half), 3)) for half in halves]
        how = ("--upsample", "bicubic")
        expected = prepared("bigearthnet", root if with_radar else root / S2["v2"], name="folders.h5", options=how)
        same(prepared("bigearthnet", *archives, options=how), open_store(expected))

    def test_bands_at_10_m_are_made_once(
        self,
        roots: dict[str, Path],
        tmp_path: Path,
        prepared: Callable[..., Path],
        cli: Cli,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What was made before an interruption is in the store; only the rest is made after it."""
        from landscale.superres.stored import Upsampling

        archive = pack(place(roots["v1"], tmp_path / "a") / "s2.tar", files(roots["v1"], S2["v1"]))
        how = ("--upsample", "bilinear")
        expected = prepared("bigearthnet", archive, name="unbroken.h5", options=how)
        made: list[int] = []
        true = Upsampling.__call__

        def make(self: Upsampling, planes: Mapping[str, NDArray[np.generic]]) -> None:
            made.append(len(planes["data_10m"]))
            if made == [4, 4, 1]:
                time.sleep(0.3)  # the first is written by then, if not both
                raise KeyboardInterrupt
            true(self, planes)

        monkeypatch.setattr(Upsampling, "__call__", make)
        assert cli("prepare", "bigearthnet", archive, tmp_path / "s.h5", *how).code == 130
        assert made == [4, 4, 1]
        store = prepared("bigearthnet", archive, name="s.h5", options=how)
        assert made[3:] in ([1], [4, 1])
        assert store.read_bytes() == expected.read_bytes()

    def test_the_published_patches(self, tmp_path: Path, prepared: Callable[..., Path]) -> None:
        root = DATA / "bigearthnet-v1"
        folder = place(root, tmp_path / "a")
        store = prepared("bigearthnet", *[pack(folder / f"{f}.tar.gz", files(root, f)) for f in (S2["v1"], S1["v1"])])
        same(store, open_store(prepared("bigearthnet", root, name="folders.h5")))

    def test_files_that_are_not_plain(
        self, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]
    ) -> None:
        root = tmp_path / "compressed"
        for patch in PATCHES[:3]:
            write_patch(
                root / S2["v2"] / patch.product / patch.v2,
                patch,
                compress="deflate",
                tiled=True,
                blockxsize=16,
                blockysize=16,
            )
        metadata(PATCHES[:3]).to_parquet(root / "metadata.parquet")
        archive = pack(root / "x.tar.zst", files(root, S2["v2"]))
        same(prepared("bigearthnet", archive), open_store(prepared("bigearthnet", root, name="folders.h5")))

    def test_lists_elsewhere_and_nineteen_classes(
        self, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]
    ) -> None:
        for version, lists in (("v1", roots["v1"] / "metadata"), ("v2", roots["v2"])):
            archive = pack(tmp_path / f"{version}.tar", files(roots[version], S2[version]))
            words = ("--lists", lists, "--labels", "ben19")
            store = prepared("bigearthnet", archive, *words, name=f"{version}.h5")
            folders = (roots[version] / S2[version], "--labels", "ben19")
            same(store, open_store(prepared("bigearthnet", *folders, name=f"{version}-folders.h5")))

    def test_a_split_of_its_own(self, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]) -> None:
        archive = pack(place(roots["v2"], tmp_path / "a") / "x.tar", files(roots["v2"], S2["v2"]))
        assert open_store(prepared("bigearthnet", f"test={archive}")).split_sizes() == {"test": 9}

    def test_a_store_takes_no_more_space_than_its_data(
        self, tmp_path: Path, many: Path, prepared: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan, "CHUNK", 64)
        assert occupied(prepared("bigearthnet", many)) < 1.01


class TestWhatIsThere:
    def test_patches_that_the_metadata_lack_are_left_out(
        self, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]
    ) -> None:
        folder = place(roots["v2"], tmp_path / "a")
        table = pd.read_parquet(folder / "metadata.parquet")
        table.iloc[2:6].to_parquet(folder / "metadata.parquet")
        archive = pack(folder / "x.tar.gz", files(roots["v2"], S2["v2"]))
        assert sorted(open_store(prepared("bigearthnet", archive)).column("name")) == sorted(table["patch_id"][2:6])

    def test_metadata_may_know_more_than_the_archive(
        self, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]
    ) -> None:
        folder = place(roots["v2"], tmp_path / "a")
        some = [PATCHES[k].v2 for k in (7, 1, 4)]
        found = [f for f in files(roots["v2"], S2["v2"]) if patch_of(f[0]) in some]
        store = open_store(prepared("bigearthnet", pack(folder / "x.tar.gz", found)))
        assert sorted(store.column("name")) == sorted(some)
        assert len(store) == len(store.states) == 3

    def test_other_files_do_not_matter(
        self,
        roots: dict[str, Path],
        folder_stores: dict[str, PatchStore],
        tmp_path: Path,
        prepared: Callable[..., Path],
    ) -> None:
        found = files(roots["v1"], S2["v1"])
        name = PATCHES[0].v1
        others = [(f"{S2['v1']}/README.txt", b"x"), (f"{S2['v1']}/{name}/._{name}_B01.tif", b"x"), ("a/b", b"")]
        others += [(f"{S2['v1']}/{name}/{name}_B10.tif", b"x")]
        first = [f for f in found if patch_of(f[0]) == name]
        rest = [f for f in found if patch_of(f[0]) != name]
        archive = pack(place(roots["v1"], tmp_path / "a") / "x.tar", first + others + rest)
        same(prepared("bigearthnet", archive), folder_stores["v1"])

    def test_there_may_be_more_than_was_expected(
        self,
        roots: dict[str, Path],
        folder_stores: dict[str, PatchStore],
        tmp_path: Path,
        prepared: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(Stream, "most", lambda _: 5)
        folder = place(roots["v2"], tmp_path / "a")
        archives = [pack(folder / f"{half}.tar.gz", files(roots["v2"], half)) for half in (S2["v2"], S1["v2"])]
        same(prepared("bigearthnet", *archives), folder_stores["v2+s1"])


def refusal(answer: Answer) -> str:
    """The one line by which a command refuses."""
    assert answer.code == 2, answer
    assert len(answer.lines) == 1, answer.lines
    assert answer.lines[0].startswith("landscale: ")
    return answer.lines[0]


class TestRefusals:
    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            (member("../../escape_B01.tif"), "not safe"),
            (member("/etc/cron.d/x"), "not safe"),
            (member("BigEarthNet-v1.0/../../x/x_B01.tif"), "not safe"),
            (member("BigEarthNet-v1.0/x/x_B01.tif", tarfile.SYMTYPE, link="/etc/passwd"), "a link"),
            (member("BigEarthNet-v1.0/x/x_B01.tif", tarfile.LNKTYPE, link="x"), "a link"),
            (member("BigEarthNet-v1.0/x", tarfile.CHRTYPE), "of the kind"),
            (member("BigEarthNet-v1.0/x", tarfile.FIFOTYPE), "of the kind"),
            (member("BigEarthNet-v1.0/x/x_B01.tif", tarfile.GNUTYPE_SPARSE), "of the kind"),
            (member("BigEarthNet-v1.0/x/x_B01.tif", size=(1 << 20) + 1), "expected at most 1048576"),
            (member("BigEarthNet-v1.0/" + 70_000 * "x"), "expected at most 65536"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_members(
        self, extra: tarfile.TarInfo, words: str, roots: dict[str, Path], tmp_path: Path, cli: Cli
    ) -> None:
        archive = pack(tmp_path / "x.tar.gz", files(roots["v1"], S2["v1"]), extra=[extra])
        line = refusal(cli("prepare", "bigearthnet", archive, tmp_path / "s.h5"))
        assert words in line
        assert line.startswith(f"landscale: {archive}: ")

    @pytest.mark.parametrize("content", [b"", b"PK\3\4 this is a zip", bytes(10240), b"\x1f\x8b", b"\x28\xb5\x2f\xfd1"])
    def test_no_tar(self, content: bytes, tmp_path: Path, cli: Cli) -> None:
        (tmp_path / "x.tar.gz").write_bytes(content)
        assert str(tmp_path / "x.tar.gz") in refusal(
            cli("prepare", "bigearthnet", tmp_path / "x.tar.gz", tmp_path / "s")
        )

    def test_other_archives(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        def run(*archives: Path) -> str:
            return refusal(
                cli("prepare", "bigearthnet", *archives, tmp_path / "s.h5", "--lists", roots["v1"] / "metadata")
            )

        v1, s1 = (pack(tmp_path / f"{f}.tar", files(roots["v1"], f)) for f in (S2["v1"], S1["v1"]))
        s1_v2 = pack(tmp_path / "v2.tar", files(roots["v2"], S1["v2"]))
        assert "no such file" in run(tmp_path / "none.tar.gz").lower()
        assert "is no BigEarthNet archive" in run(pack(tmp_path / "x.tar", [("some/thing/else", b"")]))
        assert "Sentinel-1 half only" in run(s1)
        assert "one of each kind" in run(v1, v1)
        assert "another version" in run(v1, s1_v2)

    def test_no_metadata(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        archive = pack(tmp_path / "x.tar.gz", files(roots["v2"], S2["v2"]))
        assert "metadata.parquet: no such file" in refusal(cli("prepare", "bigearthnet", archive, tmp_path / "s.h5"))

    def test_metadata_of_other_patches(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        folder = place(roots["v2"], tmp_path / "a")
        table = pd.read_parquet(folder / "metadata.parquet")
        table.assign(patch_id="x" + table["patch_id"]).to_parquet(folder / "metadata.parquet")
        archive = pack(folder / "x.tar.gz", files(roots["v2"], S2["v2"]))
        assert "holds no patch" in refusal(cli("prepare", "bigearthnet", archive, tmp_path / "s.h5"))

    def test_a_patch_in_two_places(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        found = files(roots["v1"], S2["v1"])
        archive = pack(tmp_path / "x.tar.gz", found + found[:13])
        assert f"{PATCHES[0].v1} in two places" in refusal(cli("prepare", "bigearthnet", archive, tmp_path / "s.h5"))

    def test_another_store(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        archive = pack(tmp_path / "x.tar.gz", files(roots["v1"], S2["v1"]))
        assert cli("prepare", "bigearthnet", archive, tmp_path / "s.h5").code == 0
        other = pack(tmp_path / "y.tar.gz", files(roots["v1"], S2["v1"])[:26])
        assert "prepared from something else" in refusal(cli("prepare", "bigearthnet", other, tmp_path / "s.h5"))

    @pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
    def test_truncated_anywhere(self, suffix: str, roots: dict[str, Path], tmp_path: Path) -> None:
        data = pack(tmp_path / f"x{suffix}", files(roots["v1"], S2["v1"])[:30]).read_bytes()
        rng = random.Random(0)
        end = len(data) if suffix != ".tar" else len(data.rstrip(b"\0")) - 600  # its padding does not matter
        for length in [*range(0, 2000, 61), *rng.sample(range(end), 40), end - 1]:
            path = tmp_path / f"y{suffix}"
            path.write_bytes(data[:length])
            with pytest.raises(LandscaleError):
                contents(path)


def contents(path: Path) -> list[tuple[object, ...]]:
    """Everything that an archive of v1 says."""
    found: list[tuple[object, ...]] = []
    with closing(Patches(path, SENTINEL2, CLC43)) as patches:
        while True:
            planes = {p.key: np.zeros(p.shape, p.dtype) for p in SENTINEL2}
            classes = np.zeros(43, np.uint8)
            patch = patches.read(planes, classes)
            if patch is None:
                return found
            bad = isinstance(patch.found, LandscaleError)
            found.append((patch.name, bad or patch.found, *(p.tobytes() for p in planes.values()), classes.tobytes()))


@pytest.mark.parametrize(("suffix", "count"), [(".tar.gz", 1000), (".tar", 500), (".tar.zst", 500)])
def test_mutations(suffix: str, count: int, roots: dict[str, Path], tmp_path: Path) -> None:
    """No crash, no error of another kind; and where checksums cover the bytes, all or nothing is right."""
    path = pack(tmp_path / f"x{suffix}", files(roots["v1"], S2["v1"])[:26])
    data, expected = path.read_bytes(), contents(path)
    rng = random.Random(suffix)
    refused = 0
    for _ in range(count):
        mutated = bytearray(data)
        at = rng.choice([rng.randrange(len(data)), rng.randrange(min(len(data), 3000)), rng.randrange(30)])
        mutated[at] ^= 1 << rng.randrange(8)
        path.write_bytes(mutated)
        try:
            found = contents(path)
        except LandscaleError:
            refused += 1
            continue
        if suffix == ".tar.gz":
            assert found == expected, at
        assert all(len(patch[0]) < 200 for patch in found)  # type: ignore[arg-type]
    assert refused > count / 20


class TestDamagedPatches:
    def run(self, cli: Cli, roots: dict[str, Path], found: Files, tmp_path: Path, name: str) -> tuple[str, PatchStore]:
        """The refusal, and the store of the same archive with --skip-bad, which lacks the patch `name` only."""
        archive = pack(place(roots["v1"], tmp_path / "a") / "x.tar.gz", found)
        words = ("prepare", "bigearthnet", archive, tmp_path / "s.h5")
        line = refusal(cli(*words))
        assert "--skip-bad" in line
        answer = cli(*words, "--skip-bad", "--json")
        assert answer.code == 0
        assert answer.json["skipped"] == [name]
        assert any(f"skipped {name}: " in one for one in answer.lines)
        store = open_store(tmp_path / "s.h5")
        assert len(store) == 8
        assert cli("verify", tmp_path / "s.h5").code == 0
        return line, store

    def test_a_missing_band(
        self, roots: dict[str, Path], tmp_path: Path, cli: Cli, prepared: Callable[..., Path]
    ) -> None:
        name = PATCHES[5].v1
        found = [f for f in files(roots["v1"], S2["v1"]) if not f[0].endswith(f"{name}_B11.tif")]
        line, store = self.run(cli, roots, found, tmp_path, name)
        assert f"patch {name}: lacks B11.tif" in line
        copied = tmp_path / "copy"
        shutil.copytree(roots["v1"], copied)
        (copied / S2["v1"] / name / f"{name}_B11.tif").unlink()
        same(store, open_store(prepared("bigearthnet", copied / S2["v1"], "--skip-bad", name="f.h5")))

    @pytest.mark.parametrize("how", ["cut", "twice", "elsewhere", "json", "deep", "labels", "size"])
    def test_a_damaged_file(self, how: str, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        name = PATCHES[2].v1
        found: Files = []
        for path, data in files(roots["v1"], S2["v1"]):
            changed = data
            if path.endswith(f"{name}_B08.tif"):
                other = PATCHES[4].v1
                elsewhere = (roots["v1"] / S2["v1"] / other / f"{other}_B08.tif").read_bytes()
                wrong_size = (roots["v1"] / S2["v1"] / name / f"{name}_B05.tif").read_bytes()
                changed = {"cut": data[:-7], "elsewhere": elsewhere, "size": wrong_size}.get(how, data)
                found += [(path, data)] if how == "twice" else []
            if path.endswith(f"{name}_labels_metadata.json"):
                unknown = data.replace(b'labels": ["', b'labels": ["Un')
                changed = {"json": data[:-1], "deep": b"[" * 10**5, "labels": unknown}.get(how, data)
            found.append((path, changed))
        line, _ = self.run(cli, roots, found, tmp_path, name)
        assert f"x.tar.gz: member {S2['v1']}/{name}/{name}_" in line

    @pytest.mark.parametrize("version", S2)
    def test_radar(
        self, version: str, roots: dict[str, Path], tmp_path: Path, cli: Cli, folder_stores: dict[str, PatchStore]
    ) -> None:
        """One patch has no partner, another a damaged one."""
        lonely, damaged = (radar_name(PATCHES[k], version) for k in (3, 6))
        found = [f for f in files(roots[version], S1[version]) if patch_of(f[0]) != lonely]
        found = [(n, d[:-1] if n.endswith(f"{damaged}_VH.tif") else d) for n, d in found]
        folder = place(roots[version], tmp_path / "a")
        archives = [pack(folder / "s2.tar", files(roots[version], S2[version])), pack(folder / "s1.tar", found)]
        words = ("prepare", "bigearthnet", *archives, tmp_path / "s.h5")
        assert f"{damaged}_VH.tif" in refusal(cli(*words))
        answer = cli(*words, "--skip-bad", "--json")
        assert answer.code == 0, answer.lines
        names = [PATCHES[k].v1 if version == "v1" else PATCHES[k].v2 for k in (3, 6)]
        assert sorted(answer.json["skipped"]) == sorted(names)
        assert any(f"{names[0]}: has no Sentinel-1 partner in {archives[1]}" in line for line in answer.lines)
        store = open_store(tmp_path / "s.h5")
        bad = store.states != WHOLE
        assert sorted(store.column("name")[bad]) == sorted(names)
        assert not any(plane[bad].any() for plane in store.planes.values())
        assert cli("verify", tmp_path / "s.h5").code == 0
        expected = folder_stores[f"{version}+s1"].column("checksum")[~bad]
        assert sorted(store.column("checksum")[~bad]) == sorted(expected)

    def test_a_wrong_partner(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        folder = place(roots["v2"], tmp_path / "a")
        table = pd.read_parquet(folder / "metadata.parquet")
        table["s1_name"] = np.roll(table["s1_name"], 2)
        table.to_parquet(folder / "metadata.parquet")
        archives = [pack(folder / f"{half}.tar", files(roots["v2"], half)) for half in (S2["v2"], S1["v2"])]
        assert "lies at" in refusal(cli("prepare", "bigearthnet", *archives, tmp_path / "s.h5"))


@pytest.fixture(scope="module")
def many(roots: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of 400 patches of v2, hard to compress, and that of their radar half beside it."""
    folder = tmp_path_factory.mktemp("many")
    table = pd.read_parquet(roots["v2"] / "metadata.parquet")
    models = {half: files(roots["v2"], half) for half in (S2["v2"], S1["v2"])}
    packed: dict[str, Files] = {half: [] for half in models}
    rows = []
    for k in range(400):
        row = table.iloc[k % 9].to_dict()
        new = {"patch_id": f"{row['patch_id']}{k:03}", "s1_name": f"{row['s1_name']}{k:03}"}
        for half, key in ((S2["v2"], "patch_id"), (S1["v2"], "s1_name")):
            of_one = [f for f in models[half] if patch_of(f[0]) == row[key]]
            packed[half] += [(name.replace(row[key], new[key]), data) for name, data in of_one]
        rows.append(row | new)
    pd.DataFrame(rows).to_parquet(folder / "metadata.parquet")
    pack(folder / "s1.tar.gz", shuffled(packed[S1["v2"]]))
    return pack(folder / "s2.tar.gz", packed[S2["v2"]])


@pytest.fixture(scope="module")
def unbroken(many: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    store = tmp_path_factory.mktemp("unbroken") / "s.h5"
    answer = outcome(command("prepare", "bigearthnet", many, many.with_name("s1.tar.gz"), store))
    assert answer.code == 0, answer.lines
    return store.read_bytes()


class TestInterruptions:
    def test_killed_again_and_again(self, many: Path, unbroken: bytes, tmp_path: Path) -> None:
        store = tmp_path / "s.h5"
        words = ("prepare", "bigearthnet", many, many.with_name("s1.tar.gz"), store)
        journals = [tmp_path / f"s.h5.partial.{half}" for half in ("s2", "s1")]

        def size() -> int:
            return sum(path.stat().st_size for path in journals if path.exists())

        rng = random.Random(0)
        kills = 0
        for _ in range(8):
            process = command(*words)
            begun, reach = size(), rng.choice([0, 20_000, 60_000])
            while process.poll() is None and size() <= begun + reach:
                time.sleep(0.001)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.communicate()
            assert store.exists() == (process.returncode == 0)
            if store.exists():
                break
        assert kills >= 3
        answer = outcome(command(*words, "--json"))
        assert answer.code == 0, answer.lines
        assert answer.json["written"] < 400
        assert store.read_bytes() == unbroken
        assert list(tmp_path.glob("*")) == [store]

    def test_a_full_disk(self, many: Path, unbroken: bytes, tmp_path: Path) -> None:
        store = tmp_path / "s.h5"
        words = ("prepare", "bigearthnet", many, many.with_name("s1.tar.gz"), store)
        limit = 60_000_000
        full = command(*words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
        line = refusal(outcome(full))
        assert f"{store}.partial: cannot be written (File too large)" in line
        answer = outcome(command(*words))
        assert answer.code == 0, answer.lines
        assert store.read_bytes() == unbroken

    def test_what_a_damaged_archive_left_is_not_trusted(
        self, roots: dict[str, Path], tmp_path: Path, cli: Cli, prepared: Callable[..., Path]
    ) -> None:
        """gzip's checksum comes last: by then, patches of a damaged archive are in the beginning of the store."""
        found: Files = []
        for k in range(3):
            found += [(n.replace("_MSIL2A_", f"_MSIL2A{k}_"), d) for n, d in files(roots["v1"], S2["v1"])]
        data = tarballs.gzipped(tar(found), level=0)
        archive = tmp_path / "x.tar.gz"
        middle = bytearray(data)
        middle[len(data) // 2] ^= 1
        archive.write_bytes(middle)
        words = ("prepare", "bigearthnet", archive, tmp_path / "s.h5")
        line = refusal(cli(*words))
        assert "CRC" in line or "damaged" in line
        assert (tmp_path / "s.h5.partial.s2").stat().st_size > 1000
        archive.write_bytes(data)
        answer = cli(*words, "--json")
        assert 0 < answer.json["written"] < 27
        same(tmp_path / "s.h5", open_store(prepared("bigearthnet", archive, name="other.h5")))

    def test_two_at_once(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        from landscale.files import held

        archive = pack(tmp_path / "x.tar.gz", files(roots["v1"], S2["v1"]))
        with held(tmp_path / "s.h5.partial.s2"):
            assert "another process" in refusal(cli("prepare", "bigearthnet", archive, tmp_path / "s.h5"))

    def test_a_torn_journal(self, many: Path, tmp_path: Path, cli: Cli) -> None:
        """As after a power failure: what is left of it counts, up to the damage."""
        words = ("prepare", "bigearthnet", many, tmp_path / "s.h5")
        assert outcome(command(*words)).code == 0
        whole = (tmp_path / "s.h5").read_bytes()
        (tmp_path / "s.h5").unlink()
        process = command(*words)
        journal = tmp_path / "s.h5.partial.s2"
        while process.poll() is None and (not journal.exists() or journal.stat().st_size < 30_000):
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        data = bytearray(journal.read_bytes())
        data[20_000] ^= 1
        journal.write_bytes(data[:-5])
        assert cli(*words).code == 0
        assert (tmp_path / "s.h5").read_bytes() == whole

    def test_the_beginning_of_something_else(
        self, many: Path, roots: dict[str, Path], tmp_path: Path, cli: Cli
    ) -> None:
        partial = tmp_path / "s.h5.partial"
        partial.write_bytes(b"something")
        words = ("prepare", "bigearthnet", many, tmp_path / "s.h5")
        assert "is the beginning of another preparation" in refusal(cli(*words))
        (tmp_path / "s.h5.partial.s2").write_bytes(b"x" * 1000)
        assert "is the beginning of another preparation" in refusal(cli(*words))
