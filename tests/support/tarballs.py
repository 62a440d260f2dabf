"""Sentinel-1 halves of the archives in `archives`, and archives packed as they are published."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import rasterio
from backports import zstd
from numpy.typing import NDArray

from archives import Patch, metadata, write_band

Files = list[tuple[str, bytes]]


def radar_name(patch: Patch, version: str = "v2") -> str:
    """The official names: tile, column and row are those of the Sentinel-2 patch."""
    name = str(metadata([patch])["s1_name"][0])
    return name.replace("S1B", "S1A") if version == "v1" else name


def decibels(k: int, band: str) -> NDArray[np.float32]:
    rng = np.random.default_rng([k, {"VV": 1, "VH": 2}[band]])
    return (rng.normal(-12.6 if band == "VV" else -19.3, 5, (120, 120))).astype(np.float32)


def write_radar(root: Path, patches: Sequence[Patch], version: str) -> Path:
    """`BigEarthNet-S1-v1.0` with its JSON, or `BigEarthNet-S1`, in the folder of the Sentinel-2 half of the same patches."""
    for patch in patches:
        name = radar_name(patch, version)
        inside = Path("BigEarthNet-S1-v1.0") if version == "v1" else Path("BigEarthNet-S1", name.rsplit("_", 3)[0])
        folder = root / inside / name
        folder.mkdir(parents=True)
        for band in ("VV", "VH"):
            write_band(folder / f"{name}_{band}.tif", decibels(patch.k, band), patch.corner, 10, patch.epsg)
        if version == "v1":
            content = {
                "labels": patch.clc,
                "projection": rasterio.CRS.from_epsg(patch.epsg).to_wkt(),
                "corresponding_s2_patch": patch.v1,
                "scene_source": "S1A_IW_GRDH_1SDV_20170613T165043_20170613T165108_017018_01C579_7EEC",
            }
            (folder / f"{name}_labels_metadata.json").write_text(json.dumps(content))
    return root


def files(root: Path, folder: str) -> Files:
    """Names and contents of all files of a folder, as they are in its archive."""
    return [(p.relative_to(root).as_posix(), p.read_bytes()) for p in sorted((root / folder).rglob("*")) if p.is_file()]


def patch_of(name: str) -> str:
    return name.split("/")[-2]


def shuffled(found: Files, seed: int = 0) -> Files:
    """The files with the patches, and the files of each patch, in another order."""
    rng = random.Random(seed)
    patches: dict[str, Files] = {}
    for name, data in found:
        patches.setdefault(patch_of(name), []).append((name, data))
    groups = list(patches.values())
    rng.shuffle(groups)
    for group in groups:
        rng.shuffle(group)
    return [file for group in groups for file in group]


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def tar(
    found: Iterable[tuple[str, bytes]],
    extra: Sequence[tarfile.TarInfo] = (),
    how: int = tarfile.GNU_FORMAT,
    folders: bool = False,
) -> bytes:
    """A tar archive of files, with other members after the first file."""
    buffer = io.BytesIO()
    seen: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=how) as archive:
        for number, (name, data) in enumerate(found):
            parent = name.rpartition("/")[0]
            if folders and parent not in seen:
                seen.add(parent)
                archive.addfile(member(parent, tarfile.DIRTYPE))
            archive.addfile(member(name, size=len(data)), io.BytesIO(data))
            for info in extra if number == 0 else ():
                archive.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def gzipped(data: bytes, level: int = 1) -> bytes:
    import zlib

    packer = zlib.compressobj(level, wbits=31)
    return packer.compress(data) + packer.flush()


def zstandard(data: bytes) -> bytes:
    """One frame without its content size, as `zstd` writes it from a pipe, and without a checksum."""
    packer = zstd.ZstdCompressor()
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzipped,
    ".tgz": gzipped,
    ".tar.zst": zstandard,
}


def pack(path: Path, found: Files, **how: object) -> Path:
    """Write an archive of files, compressed according to its suffix."""
    suffix = next(s for s in sorted(PACKERS, key=len, reverse=True) if path.name.endswith(s))
    path.write_bytes(PACKERS[suffix](tar(found, **how)))  # type: ignore[arg-type]
    return path
