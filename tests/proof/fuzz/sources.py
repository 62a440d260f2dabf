"""Data sets and scenes: files that are damaged, crafted or of another kind, for `landscale prepare` and `landscale predict`.

What has a checksum in its own format, or must fit something else that is read, may not be accepted with another meaning. The
formats here have few checksums: pixels of an uncompressed GeoTIFF, the values of a table or list, and the words of a JSON may
change to others that are just as valid, which no program can see. These are counted as `valid`. Other pixels, names, labels or
splits are `silent` if the altered file is of a format that has checksums (PNG, gzip, zip, bzip2), if a file is missing, or if
the case is crafted so that it must be refused.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

import damage
from archives import Patch, write_eurosat, write_eurosat_ms, write_v1, write_v2
from landscale.datasets.synthetic.products_and_map import write_country
from landscale.models.classifier import Classifier
from landscale.models.weights import save_weights
from landscale.store import open_store
from outcomes import Case
from products import noise
from sharpening import write_scene
from tarballs import files, pack
from watched import Bait, run
from weights import DESCRIPTION

_PATCHES = [Patch(k) for k in (0, 1, 3, 4)]
_CHECKED = (".png", ".zip", ".gz", ".bz2", ".zst")  # formats in which a changed byte is noticed


@dataclass(frozen=True)
class Made:
    """Unaltered sources by name, the words that prepare each, and a digest of what comes out."""

    sources: dict[str, Path]
    words: dict[str, list[str]]
    digests: dict[str, str]
    weights: Path
    bait: Bait


def make(root: Path, bait: Bait) -> Made:
    sources = {}
    sources["v1"] = write_v1(root / "v1" / "in", _PATCHES)
    sources["v2"] = write_v2(root / "v2" / "in", _PATCHES)
    (root / "tar" / "in").mkdir(parents=True)
    pack(root / "tar" / "in" / "BigEarthNet-S2.tar.gz", files(sources["v2"], "BigEarthNet-S2"))
    shutil.copy(sources["v2"] / "metadata.parquet", root / "tar" / "in")
    sources["tar"] = root / "tar" / "in"
    sources["eurosat"] = write_eurosat(root / "eurosat" / "in", each=1).parent
    sources["eurosat_ms"] = write_eurosat_ms(root / "eurosat_ms" / "in", each=1)
    sources["pictures"] = _pictures(root / "pictures" / "in")
    (root / "zip" / "in").mkdir(parents=True)
    shutil.make_archive(str(root / "zip" / "in" / "pictures"), "zip", sources["pictures"])
    sources["zip"] = root / "zip" / "in"
    sources["scene"] = write_scene(root / "scene" / "in", noise(60))
    sources["tiles"] = root / "tiles" / "in"
    write_country(sources["tiles"], tiles=1, side=240)
    weights = root / "weights"
    torch.manual_seed(0)
    save_weights(weights, Classifier(DESCRIPTION), {"recipe": "tiny", "scores": {}})
    words = {
        "v1": ["prepare", "bigearthnet", "in"],
        "v2": ["prepare", "bigearthnet", "in"],
        "tar": ["prepare", "bigearthnet", "in/BigEarthNet-S2.tar.gz"],
        "eurosat": ["prepare", "eurosat", "in"],
        "eurosat_ms": ["prepare", "eurosat", "in"],
        "pictures": ["prepare", "folder", "in"],
        "zip": ["prepare", "folder", "in/pictures.zip"],
        "tiles": ["prepare", "tiles", "in", "out.h5", "--corine", "in/CLC.tif", "--workers", "1"],
        "scene": ["predict", str(weights), "in", "out.tif"],
    }
    for name in words:
        if words[name][0] == "prepare" and name != "tiles":
            words[name] += ["out.h5", "--workers", "1"]
    _bait(bait)
    digests = {}
    for name, command in words.items():
        here = root / "first"
        shutil.copytree(sources[name], here / "in")
        ended = run(command, here, bait)
        assert ended.code == 0, (name, ended)
        digests[name] = _digest(here)
        shutil.rmtree(here)
    return Made(sources, words, digests, weights, bait)


def _pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("forest", "lake", "town"):
        (folder / name).mkdir(parents=True)
        for k in range(4):
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(folder / name / f"{name}_{k}.png")
    return folder


def _bait(bait: Bait) -> None:
    write_scene(bait.folder / "scene", noise(60))
    (bait.folder / "secret.txt").write_text("secret")


def _digest(folder: Path) -> str:
    """Of all pixels and columns of the store, or of the map."""
    total = hashlib.sha256()
    if (folder / "out.tif").exists():
        return hashlib.sha256((folder / "out.tif").read_bytes()).hexdigest()
    store = open_store(folder / "out.h5")
    order = np.argsort(store.column("name"))
    for key in ("name", "split", "crs", "origin", "state", "country", "date"):
        total.update(np.ascontiguousarray(store.column(key)[order]).tobytes())
    total.update(store.classes[order].tobytes() + json.dumps(store.layout.to_json()).encode())
    for plane in store.layout.planes:
        total.update(store.pixels(plane.key)[order].tobytes())
    return total.hexdigest()


def alter(rng: random.Random, made: Made, folder: Path) -> Case:
    name = rng.choice(sorted(made.sources))
    source = folder / "in"
    shutil.copytree(made.sources[name], source)
    victims = [path for path in sorted(source.rglob("*")) if path.is_file()]
    listing = [path for path in victims if path.suffix in (".parquet", ".csv", ".bz2", ".json", ".xml", ".txt")]
    file = rng.choice(listing if listing and rng.random() < 0.4 else victims)
    way = rng.choice((_bytes,) * 4 + (_file, _kind, _kind, _crafted, _crafted, _content, _content, _tree))
    what, judged = way(rng, file, made)

    def accepted(out: str) -> str:
        if judged == "refused":
            return "silent"
        try:
            same = _digest(folder) == made.digests[name]
        except Exception:  # a result that cannot be read is wrong, for whatever reason
            return "silent"
        return "same" if same else "valid" if judged == "allowed" else "silent"

    words = made.words[name]
    return Case(f"{name}: {way.__name__[1:]}: {file.relative_to(source)}: {what}", words, accepted)


Judged = tuple[str, str]  # what was done; `forbidden`: the same result or a refusal; `allowed`: others too; `refused`


def _bytes(rng: random.Random, file: Path, made: Made) -> Judged:
    content, what = damage.of_bytes(rng, file.read_bytes())
    file.write_bytes(content)
    return what, "forbidden" if file.suffix in _CHECKED else "allowed"


def _file(rng: random.Random, file: Path, made: Made) -> Judged:
    # Without a picture of a folder, or a list, a data set is a smaller one.
    optional = file.suffix in (".png", ".jpg", ".bz2", ".tif")
    return damage.of_file(rng, file), "allowed" if optional else "forbidden"


def _kind(rng: random.Random, file: Path, made: Made) -> Judged:
    """Another format under the name of this one, which reads or fetches something else if it is opened."""
    bait = made.bait.folder
    band = bait / "scene" / "B02.tif"
    vrt = (
        '<VRTDataset rasterXSize="120" rasterYSize="120"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="0">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    ways: dict[str, bytes] = {
        "a VRT of another file": vrt.format(band).encode(),
        "a VRT of a URL": vrt.format(f"/vsicurl/{made.bait.url}").encode(),
        "a VRT that is Python": vrt.format(band)
        .replace("<VRTRasterBand", '<VRTRasterBand subClass="VRTDerivedRasterBand"', 1)
        .replace(
            "<SimpleSource>",
            f"<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode>"
            f"open('{bait}/ran','w')</PixelFunctionCode><SimpleSource>",
        )
        .encode(),
        "an EPS": f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n({bait}/ran) (w) file\nshowpage\n%%EOF\n".encode(),
        "a WMS description": (
            f'<GDAL_WMS><Service name="TMS"><ServerUrl>{made.bait.url}</ServerUrl></Service></GDAL_WMS>'.encode()
        ),
        "an SVG": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{made.bait.url}"/></svg>'.encode(),
        "XML with an entity": f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{bait}/secret.txt">]><x>&e;</x>'.encode(),
        "a billion laughs": b"<!DOCTYPE x [<!ENTITY a 'xxxxxxxxxx'>"
        + b"".join(f"<!ENTITY {chr(98 + k)} '{f'&{chr(97 + k)};' * 10}'>".encode() for k in range(12))
        + b"]><x>&m;</x>",
        "a picture of 60000 px": _large_png(),
        "text": b"hello\n",
        "HDF5": bytes([137]) + b"HDF\r\n\x1a\n" + bytes(200),
        "a URL": made.bait.url.encode(),
        "a path": str(band).encode(),
    }
    name = rng.choice(sorted(ways))
    file.write_bytes(ways[name])
    table = file.suffix in (".csv", ".txt", ".bz2", ".json", ".xml")
    return name, "forbidden" if table else "refused"


def _large_png() -> bytes:
    import io
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(60_000 * 3 + 1) * 40)
    out = io.BytesIO()
    out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return out.getvalue()


def _crafted(rng: random.Random, file: Path, made: Made) -> Judged:
    """An archive or link that would read or write elsewhere."""
    bait, source = made.bait.folder, file
    while source.name != "in":
        source = source.parent
    archives = [path for path in source.iterdir() if path.suffix in (".zip", ".gz")]
    if not archives:
        file.unlink()
        target = rng.choice(("/proc/self/environ", "/dev/random", str(source), ".."))
        file.symlink_to(target)
        return f"a link to {target}", "allowed" if target in (
            str(source),
            "..",
        ) else "refused"  # a folder may be anywhere
    archive = archives[0]
    if archive.suffix == ".gz":
        kind = rng.choice(("symlink", "hardlink", "absolute", "parent", "device", "huge", "pipe", "repeated"))
        with tarfile.open(archive, "w:gz") as tar:
            info = tarfile.TarInfo("BigEarthNet-S2/x/x_1_1/x_1_1_B02.tif")
            info.size = 0
            if kind in ("symlink", "hardlink"):
                info.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
                info.linkname = str(bait / "secret.txt")
            elif kind in ("absolute", "parent"):
                info.name = str(bait / "ran") if kind == "absolute" else "../../bait/ran"
            elif kind in ("device", "pipe"):
                info.type = tarfile.CHRTYPE if kind == "device" else tarfile.FIFOTYPE
            tar.addfile(info)
        if kind == "huge":
            with tarfile.open(archive, "w:gz") as tar:
                info.size = 1 << 40
                tar.fileobj.write(info.tobuf())  # type: ignore[union-attr]
        return f"tar: {kind}", "refused"
    kind = rng.choice(("parent", "absolute", "bomb", "link", "size", "encrypted flag", "same name"))
    with zipfile.ZipFile(archive, "a" if kind == "same name" else "w", zipfile.ZIP_DEFLATED) as zipped:
        name = {"parent": "../../bait/ran.png", "absolute": f"{bait}/ran.png"}.get(kind, "forest/x.png")
        info = zipfile.ZipInfo("forest/forest_0.png" if kind == "same name" else name)
        info.compress_type = zipfile.ZIP_DEFLATED
        if kind == "link":
            info.external_attr = 0o120777 << 16
        with zipped.open(info, "w") as member:
            for _ in range(300 if kind == "bomb" else 1):
                member.write(bytes(1 << 20))
    if kind in ("size", "encrypted flag"):
        content = bytearray(archive.read_bytes())
        at = content.index(b"PK\1\2")
        if kind == "size":
            content[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
        else:
            content[at + 8] |= 1
        archive.write_bytes(content)
    return f"zip: {kind}", "refused"


def _content(rng: random.Random, file: Path, made: Made) -> Judged:
    """Values in a table, list or JSON; other files get other bytes."""
    if file.suffix == ".parquet":
        return _table(rng, file)
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        what = damage.of_values(rng, content)
        file.write_text(json.dumps(content), errors="surrogatepass")
        return what, "allowed"
    return _bytes(rng, file, made)


def _table(rng: random.Random, file: Path) -> Judged:
    table = pd.read_parquet(file)
    column, row = rng.choice(list(table.columns)), rng.randrange(len(table))
    ways: dict[str, Callable[[], pd.DataFrame]] = {
        "without a column": lambda: table.drop(columns=column),
        "a column twice": lambda: pd.concat([table, table[[column]].add_suffix("x")], axis=1),
        "a row twice": lambda: pd.concat([table, table.iloc[[row]]]),
        "no rows": lambda: table.iloc[:0],
        "a column of numbers": lambda: table.assign(**{column: range(len(table))}),
        "a column of nothing": lambda: table.assign(**{column: None}),
        "a column of text": lambda: table.assign(**{column: "x" * rng.choice((1, 100_000))}),
        "a column of lists": lambda: table.assign(**{column: [["x"]] * len(table)}),
        "a million rows": lambda: pd.concat([table.iloc[[row]]] * 1_000_000),
        "capitals": lambda: table.rename(columns={column: str(column).upper()}),
        "names with paths": lambda: table.assign(patch_id=[f"../../bait/{k}" for k in range(len(table))]),
    }
    name = rng.choice(sorted(ways))
    ways[name]().to_parquet(file, index=False)
    return f"{name} {column}", "refused" if name in ("a row twice", "names with paths", "a million rows") else "allowed"


def _tree(rng: random.Random, file: Path, made: Made) -> Judged:
    """Names and folders."""
    kind = rng.choice(
        ("renamed", "moved", "copied", "not UTF-8", "long", "deep", "hidden", "a line break", "folder loop")
    )
    if kind == "renamed":
        file.rename(file.with_name(f"x{file.name}"))
    elif kind == "moved":
        file.rename(file.parent.parent / f"y{file.name}")
    elif kind == "copied":
        shutil.copy(file, file.with_name(f"copy{file.name}"))
    elif kind == "not UTF-8":
        file.rename(file.with_name(f"\udcff{file.suffix}"))  # the byte 255
    elif kind == "long":
        file.rename(file.with_name("z" * 200 + file.suffix))
    elif kind == "deep":
        folder = file.parent.joinpath(*"a" * 200)
        folder.mkdir(parents=True)
        file.rename(folder / file.name)
    elif kind == "hidden":
        file.rename(file.with_name(f".{file.name}"))
    elif kind == "a line break":
        file.rename(file.with_name(f"a\nb[red]{file.suffix}"))
    else:
        (file.parent / "loop").symlink_to(file.parent)
    return kind, "allowed"
