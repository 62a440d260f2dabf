"""Damaged archives and other files are refused in one line that names the member; no wrong patch is accepted."""

from __future__ import annotations

import random
import shutil
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import Cli
from landscale.datasets.bigearthnet.sequence import TarPatches
from landscale.errors import LandscaleError
from landscale.store import WHOLE, PatchStore, open_store
from landscale.store.planes import SENTINEL2
from landscale.vocabulary.nomenclatures import CLC43
from streamed import PATCHES, S1, S2, place, refusal, same
from surveys import dataset
from tarballs import Files, files, member, pack, patch_of, radar_name

pytestmark = pytest.mark.usefixtures("small_chunks")


class TestRefusals:
    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            (member("../../escape_B01.tif"), "unsafe name"),
            (member("/etc/cron.d/x"), "unsafe name"),
            (member("BigEarthNet-v1.0/../../x/x_B01.tif"), "unsafe name"),
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
    def test_unsafe_members(
        self, extra: tarfile.TarInfo, words: str, roots: dict[str, Path], tmp_path: Path, cli: Cli
    ) -> None:
        archive = pack(tmp_path / "x.tar.gz", files(roots["v1"], S2["v1"]), extra=[extra])
        line = refusal(cli("prepare", "bigearthnet", archive, tmp_path / "s.h5"))
        assert words in line
        assert line.startswith(f"landscale: {archive}: ")

    @pytest.mark.parametrize("content", [b"", b"PK\3\4 this is a zip", bytes(10240), b"\x1f\x8b", b"\x28\xb5\x2f\xfd1"])
    def test_files_that_are_no_tar(self, content: bytes, tmp_path: Path, cli: Cli) -> None:
        (tmp_path / "x.tar.gz").write_bytes(content)
        assert str(tmp_path / "x.tar.gz") in refusal(
            cli("prepare", "bigearthnet", tmp_path / "x.tar.gz", tmp_path / "s")
        )

    def test_archives_of_other_data_or_versions(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
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

    def test_missing_metadata(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
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

    def test_a_store_of_another_archive(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        archive = pack(tmp_path / "x.tar.gz", files(roots["v1"], S2["v1"]))
        assert cli("prepare", "bigearthnet", archive, tmp_path / "s.h5").code == 0
        other = pack(tmp_path / "y.tar.gz", files(roots["v1"], S2["v1"])[:26])
        assert "prepared from other data" in refusal(cli("prepare", "bigearthnet", other, tmp_path / "s.h5"))

    @pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.zst"])
    def test_truncated_anywhere(self, suffix: str, roots: dict[str, Path], tmp_path: Path) -> None:
        data = pack(tmp_path / f"x{suffix}", files(roots["v1"], S2["v1"])[:30]).read_bytes()
        rng = random.Random(0)
        end = len(data) if suffix != ".tar" else len(data.rstrip(b"\0")) - 600  # a loss in its padding is no damage
        for length in [*range(0, 2000, 61), *rng.sample(range(end), 40), end - 1]:
            path = tmp_path / f"y{suffix}"
            path.write_bytes(data[:length])
            with pytest.raises(LandscaleError):
                contents(path)


def contents(path: Path) -> list[tuple[object, ...]]:
    """Names, details, pixels and labels of all patches of an archive of v1."""
    found: list[tuple[object, ...]] = []
    with closing(TarPatches(path, SENTINEL2, CLC43)) as patches:
        while True:
            planes = {p.key: np.zeros(p.shape, p.dtype) for p in SENTINEL2}
            classes = np.zeros(43, np.uint8)
            patch = patches.read(planes, classes)
            if patch is None:
                return found
            bad = isinstance(patch.found, LandscaleError)
            found.append((patch.name, bad or patch.found, *(p.tobytes() for p in planes.values()), classes.tobytes()))


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("suffix", [".tar.gz", ".tar", ".tar.zst"])
def test_mutations(suffix: str, count: int, roots: dict[str, Path], tmp_path: Path) -> None:
    """One flipped bit: no crash. With gzip, whose checksum covers all bytes, what is accepted is unchanged."""
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
        """The error line without --skip-bad, and the store with it, in which only the patch `name` is damaged."""
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
    def test_a_missing_and_a_damaged_partner(
        self, version: str, roots: dict[str, Path], tmp_path: Path, cli: Cli, folder_stores: dict[str, PatchStore]
    ) -> None:
        """One Sentinel-2 patch has no Sentinel-1 partner, another a damaged one."""
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
        assert not any(store.pixels(plane.key)[bad].any() for plane in store.layout.planes)
        assert cli("verify", tmp_path / "s.h5").code == 0
        expected = dataset(folder_stores[f"{version}+s1"], "checksum")[~bad]
        assert sorted(dataset(store, "checksum")[~bad]) == sorted(expected)

    def test_a_partner_of_another_place(self, roots: dict[str, Path], tmp_path: Path, cli: Cli) -> None:
        folder = place(roots["v2"], tmp_path / "a")
        table = pd.read_parquet(folder / "metadata.parquet")
        table["s1_name"] = np.roll(table["s1_name"], 2)
        table.to_parquet(folder / "metadata.parquet")
        archives = [pack(folder / f"{half}.tar", files(roots["v2"], half)) for half in (S2["v2"], S1["v2"])]
        assert "lies at" in refusal(cli("prepare", "bigearthnet", *archives, tmp_path / "s.h5"))
