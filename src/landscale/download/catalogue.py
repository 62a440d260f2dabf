"""The official archives: URLs, sizes and digests of their files.

Sizes and digests are those of the publishers, from these sources:

- Zenodo records 12687186 (BigEarthNet v1), 10891137 (v2) and 7711810 (EuroSAT) list md5 and size; they are copied from
  public programs that quote the listings. TorchGeo (`bigearthnet.py`) has the md5 of the large archives too, TensorFlow Datasets
  (`bigearthnet/checksums.tsv`) the size of v1's Sentinel-2. The digests of both Parquet files of v2 were
  checked on the files (TorchGeo's md5 of `metadata.parquet`, b2d7…, differs from that of the file).
- The splits of v1 and of EuroSAT: md5 in TorchGeo (`bigearthnet.py`, `eurosat.py`), addresses pinned to a commit.
- The lists of snow and cloud of v1: their authors' repository, pinned to a commit; size and md5 computed from the files.

Where no size is published it is None, and the server's is used.
"""

from __future__ import annotations

from dataclasses import dataclass

from landscale.errors import UnknownName


@dataclass(frozen=True)
class RemoteFile:
    """A published file. `path` is relative to the download folder, `size` in bytes, `digest` as "md5:…" or "sha256:…"."""

    path: str
    url: str
    digest: str
    size: int | None = None


@dataclass(frozen=True)
class Archive:
    """Files that belong together, and the commands to run `then`, with {root} for the download folder."""

    files: tuple[RemoteFile, ...]
    then: tuple[str, ...] = ()

    @property
    def size(self) -> int | None:
        """Bytes of all files; None if one size is unknown."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)


V1 = "https://zenodo.org/records/12687186/files"
V2 = "https://zenodo.org/records/10891137/files"
EUROSAT = "https://zenodo.org/records/7711810/files"
V1_SPLITS = "https://git.tu-berlin.de/rsim/BigEarthNet-MM_19-classes_models/-/raw/9a5be07346ab0884b2d9517475c27ef9db9b5104/splits"
V1_QUALITY = "https://raw.githubusercontent.com/kai-tub/bigearthnet-pipeline"
EUROSAT_SPLITS = "https://huggingface.co/datasets/torchgeo/eurosat/resolve/1ce6f1bfb56db63fd91b6ecc466ea67f2509774c"

ARCHIVES = {
    "bigearthnet-v1": Archive(
        (
            RemoteFile(
                "BigEarthNet-S2-v1.0.tar.gz",
                f"{V1}/BigEarthNet-S2-v1.0.tar.gz",
                "md5:5a64e9ce38deb036a435a7b59494924c",
                70_032_164_579,
            ),
        ),
        then=(
            "landscale download bigearthnet-v1-lists --root {root}",
            "landscale prepare bigearthnet {root}/BigEarthNet-S2-v1.0.tar.gz ben.h5 --lists {root}/metadata",
        ),
    ),
    "bigearthnet-v1-s1": Archive(
        (
            RemoteFile(
                "BigEarthNet-S1-v1.0.tar.gz",
                f"{V1}/BigEarthNet-S1-v1.0.tar.gz",
                "md5:94ced73440dea8c7b9645ee738c5a172",
            ),
        ),
    ),
    "bigearthnet-v1-lists": Archive(  # in the folder `metadata`, where prepare expects them
        (
            RemoteFile("metadata/train.csv", f"{V1_SPLITS}/train.csv", "md5:623e501b38ab7b12fe44f0083c00986d"),
            RemoteFile("metadata/val.csv", f"{V1_SPLITS}/val.csv", "md5:22efe8ed9cbd71fa10742ff7df2b7978"),
            RemoteFile("metadata/test.csv", f"{V1_SPLITS}/test.csv", "md5:697fb90677e30571b9ac7699b7e5b432"),
            RemoteFile(
                "metadata/patches_with_seasonal_snow.csv",
                f"{V1_QUALITY}/d60a92c83176c17ee42ef28e59e62de2c0a8948f/tracked-artifacts/patches_with_seasonal_snow.csv",
                "md5:7219803bde2ab2925ded75c5109450f5",
                2_065_439,
            ),
            RemoteFile(
                "metadata/patches_with_cloud_and_shadow.csv",
                f"{V1_QUALITY}/289cfeba4ae78d6c5230358726220c7653d83369/tracked-artifacts/patches_with_cloud_and_shadow.csv",
                "md5:7388ec3bee2d519846f01ecb9f95cc4d",
                313_331,
            ),
        ),
        then=("landscale prepare bigearthnet {root}/BigEarthNet-S2-v1.0.tar.gz ben.h5 --lists {root}/metadata",),
    ),
    "bigearthnet-v2": Archive(
        (
            RemoteFile("metadata.parquet", f"{V2}/metadata.parquet", "md5:55687065e77b6d0b0f1ff604a6e7b49c", 3_616_349),
            RemoteFile(
                "metadata_for_patches_with_snow_cloud_or_shadow.parquet",
                f"{V2}/metadata_for_patches_with_snow_cloud_or_shadow.parquet",
                "md5:fe31856f4986d446c9468b59d6387c91",
                710_162,
            ),
            RemoteFile(
                "BigEarthNet-S2.tar.zst",
                f"{V2}/BigEarthNet-S2.tar.zst",
                "md5:2245ed2d1a93f6ce637d839bc856396e",
                63_251_710_377,
            ),
        ),
        then=("landscale prepare bigearthnet {root}/BigEarthNet-S2.tar.zst ben.h5",),
    ),
    "bigearthnet-v2-s1": Archive(
        (
            RemoteFile(
                "BigEarthNet-S1.tar.zst",
                f"{V2}/BigEarthNet-S1.tar.zst",
                "md5:a55eaa2cdf6a917e296bd6601ec1e348",
                54_439_153_171,
            ),
        ),
    ),
    "bigearthnet-v2-maps": Archive(
        (
            RemoteFile(
                "Reference_Maps.tar.zst",
                f"{V2}/Reference_Maps.tar.zst",
                "md5:95d85a222fa983faddcac51a19f28917",
                282_391_301,
            ),
        ),
    ),
    "eurosat-rgb": Archive(
        (
            RemoteFile(
                "EuroSAT_RGB.zip", f"{EUROSAT}/EuroSAT_RGB.zip", "md5:f46e308c4d50d4bf32fedad2d3d62f3b", 94_658_721
            ),
        ),
        then=("landscale prepare eurosat {root}/EuroSAT_RGB.zip eurosat.h5",),
    ),
    "eurosat-ms": Archive(
        (
            RemoteFile(
                "EuroSAT_MS.zip", f"{EUROSAT}/EuroSAT_MS.zip", "md5:091174add3c8e680a49244acf185b9f0", 2_065_402_329
            ),
        ),
        then=("landscale prepare eurosat {root}/EuroSAT_MS.zip eurosat.h5",),
    ),
    "eurosat-lists": Archive(  # in a folder of their own, as the lists of v1 may be in the same root
        tuple(
            RemoteFile(f"eurosat-lists/eurosat-{split}.txt", f"{EUROSAT_SPLITS}/eurosat-{split}.txt", f"md5:{md5}")
            for split, md5 in (
                ("train", "908f142e73d6acdf3f482c5e80d851b1"),
                ("val", "95de90f2aa998f70a3b2416bfe0687b4"),
                ("test", "7ae5ab94471417b6e315763121e67c5f"),
            )
        ),
        then=("landscale prepare eurosat {root}/EuroSAT_MS.zip eurosat.h5 --lists {root}/eurosat-lists",),
    ),
}


def find_archive(name: str) -> Archive:
    """The archive of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in ARCHIVES:
        raise UnknownName("archive", name, ARCHIVES)
    return ARCHIVES[name]


def format_size(size: int | None) -> str:
    """A size as text, in decimal units, as publishers use them."""
    if size is None:
        return "size unknown"
    for unit, bytes_of_it in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_of_it:
            return f"{size / bytes_of_it:.1f} {unit}"
    return f"{size} bytes"
