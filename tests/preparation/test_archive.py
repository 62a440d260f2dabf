"""Stores from published archives have the same patches as stores from the unpacked folders."""

from __future__ import annotations

import subprocess
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from archives import metadata, write_patch
from conftest import Cli
from landscale.datasets.bigearthnet.archive import OpticalArchiveV2
from landscale.preparation import plan
from landscale.store import PatchStore, open_store
from streamed import PATCHES, S1, S2, occupied, place, same
from surveys import dataset
from tarballs import PACKERS, files, pack, patch_of, radar_name, shuffled

pytestmark = pytest.mark.usefixtures("small_chunks")


class TestSameAsFromFolders:
    @pytest.mark.parametrize("suffix", PACKERS)
    @pytest.mark.parametrize("version", S2)
    def test_every_compression(
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
    def test_every_tar_format(
        self,
        how: int,
        version: str,
        roots: dict[str, Path],
        folder_stores: dict[str, PatchStore],
        tmp_path: Path,
        prepared: Callable[..., Path],
    ) -> None:
        """Member names of v2 are longer than the 100 bytes that a plain tar header has for them."""
        found = shuffled(files(roots[version], S2[version]))
        assert version == "v1" or max(len(name) for name, _ in found) > 150
        archive = pack(place(roots[version], tmp_path / "a") / "x.tgz", found, how=how, folders=True)
        store = prepared("bigearthnet", archive)
        same(store, folder_stores[version])
        order = list(dict.fromkeys(patch_of(name) for name, _ in found))
        assert open_store(store).column("name").tolist() == order

    def test_an_archive_made_by_tar(
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
    def test_sentinel2_and_sentinel1(
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
    def test_with_upsampled_bands(
        self, with_radar: bool, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]
    ) -> None:
        folder, root = place(roots["v2"], tmp_path / "a"), roots["v2"]
        halves = (S2["v2"], S1["v2"]) if with_radar else (S2["v2"],)
        archives = [pack(folder / f"{half}.tar.zst", shuffled(files(root, half), 3)) for half in halves]
        how = ("--upsample", "bicubic")
        expected = prepared("bigearthnet", root if with_radar else root / S2["v2"], name="folders.h5", options=how)
        same(prepared("bigearthnet", *archives, options=how), open_store(expected))

    def test_upsampled_bands_are_not_computed_again_after_an_interruption(
        self,
        roots: dict[str, Path],
        tmp_path: Path,
        prepared: Callable[..., Path],
        cli: Cli,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The bands of the batches that were written are read back from the store; only the others are computed."""
        from landscale.superres.stored import Upsampling

        archive = pack(place(roots["v1"], tmp_path / "a") / "s2.tar", files(roots["v1"], S2["v1"]))
        how = ("--upsample", "bilinear")
        expected = prepared("bigearthnet", archive, name="unbroken.h5", options=how)
        made: list[int] = []
        original_call = Upsampling.__call__

        def make(self: Upsampling, planes: Mapping[str, NDArray[np.generic]]) -> None:
            made.append(len(planes["data_10m"]))
            if made == [4, 4, 1]:
                time.sleep(0.3)  # by then the first batch is written, or the first two
                raise KeyboardInterrupt
            original_call(self, planes)

        monkeypatch.setattr(Upsampling, "__call__", make)
        assert cli("prepare", "bigearthnet", archive, tmp_path / "s.h5", *how).code == 130
        assert made == [4, 4, 1]
        store = prepared("bigearthnet", archive, name="s.h5", options=how)
        assert made[3:] in ([1], [4, 1])
        assert store.read_bytes() == expected.read_bytes()

    def test_compressed_tiled_geotiffs(
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

    def test_lists_in_another_folder_and_nineteen_classes(
        self, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]
    ) -> None:
        for version, lists in (("v1", roots["v1"] / "metadata"), ("v2", roots["v2"])):
            archive = pack(tmp_path / f"{version}.tar", files(roots[version], S2[version]))
            words = ("--lists", lists, "--labels", "ben19")
            store = prepared("bigearthnet", archive, *words, name=f"{version}.h5")
            folders = (roots[version] / S2[version], "--labels", "ben19")
            same(store, open_store(prepared("bigearthnet", *folders, name=f"{version}-folders.h5")))

    def test_one_split_for_all_patches(
        self, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]
    ) -> None:
        archive = pack(place(roots["v2"], tmp_path / "a") / "x.tar", files(roots["v2"], S2["v2"]))
        assert open_store(prepared("bigearthnet", f"test={archive}")).split_sizes() == {"test": 9}

    def test_the_store_takes_no_more_disk_space_than_its_data(
        self, tmp_path: Path, many: Path, prepared: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan, "CHUNK", 64)
        assert occupied(prepared("bigearthnet", many)) < 1.01


class TestMembers:
    def test_patches_outside_the_metadata_are_left_out(
        self, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path]
    ) -> None:
        folder = place(roots["v2"], tmp_path / "a")
        table = pd.read_parquet(folder / "metadata.parquet")
        table.iloc[2:6].to_parquet(folder / "metadata.parquet")
        archive = pack(folder / "x.tar.gz", files(roots["v2"], S2["v2"]))
        assert sorted(open_store(prepared("bigearthnet", archive)).column("name")) == sorted(table["patch_id"][2:6])

    def test_the_metadata_may_list_more_patches_than_the_archive(
        self, roots: dict[str, Path], tmp_path: Path, prepared: Callable[..., Path], cli: Cli
    ) -> None:
        folder = place(roots["v2"], tmp_path / "a")
        some = [PATCHES[k].v2 for k in (7, 1, 4)]
        found = [f for f in files(roots["v2"], S2["v2"]) if patch_of(f[0]) in some]
        archive = pack(folder / "x.tar.gz", found)
        store = open_store(prepared("bigearthnet", archive))
        assert sorted(store.column("name")) == sorted(some)
        note = f"{archive}: has 3 of the {len(PATCHES)} patches that its metadata list"
        assert cli("prepare", "bigearthnet", archive, folder / "s.h5", "--json").json["notes"] == [note]
        assert len(store) == len(store.states) == 3

    @pytest.mark.parametrize("halves", [1, 2])
    def test_an_archive_of_one_patch(
        self,
        halves: int,
        roots: dict[str, Path],
        folder_stores: dict[str, PatchStore],
        tmp_path: Path,
        prepared: Callable[..., Path],
    ) -> None:
        """Its smallest plane has fewer bytes than the blocks in which HDF5 places small datasets."""
        names = {S2["v1"]: PATCHES[2].v1, S1["v1"]: radar_name(PATCHES[2], "v1")}
        folder, archives = place(roots["v1"], tmp_path / "a"), []
        for half in (S2["v1"], S1["v1"])[:halves]:
            one = [f for f in files(roots["v1"], half) if patch_of(f[0]) == names[half]]
            archives.append(pack(folder / f"{half}.tar", one))
        store = open_store(prepared("bigearthnet", *archives))
        assert store.column("name").tolist() == [PATCHES[2].v1]
        expected = folder_stores["v1+s1" if halves == 2 else "v1"]
        row = expected.column("name").tolist().index(PATCHES[2].v1)
        assert dataset(store, "checksum")[0] == dataset(expected, "checksum")[row]
        assert not any(damaged for _, damaged in store.damaged())

    def test_other_files_are_ignored(
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

    def test_more_patches_than_estimated(
        self,
        roots: dict[str, Path],
        folder_stores: dict[str, PatchStore],
        tmp_path: Path,
        prepared: Callable[..., Path],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(OpticalArchiveV2, "capacity", lambda _: 5)
        folder = place(roots["v2"], tmp_path / "a")
        archives = [pack(folder / f"{half}.tar.gz", files(roots["v2"], half)) for half in (S2["v2"], S1["v2"])]
        same(prepared("bigearthnet", *archives), folder_stores["v2+s1"])
