"""Compare preparing a store from a compressed archive with only decompressing the archive.

    python benchmarks/archive.py

The archives are synthetic and packed as BigEarthNet was published: v1 as `.tar.gz`, v2 as `.tar.zst`. They hold 24,000 patches
with the compression ratio of the real ones (about 1.5). `igzip` is the decompressor that landscale uses for gzip.
"""

from __future__ import annotations

import gzip
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from days import write_days
from isal import igzip
from rounds import interleaved, record

from landscale.datasets.bigearthnet.archive import survey_archives
from landscale.preparation import prepare_survey

PATCHES, DAYS = 6000, 4
ROUNDS = 5


def _packed(root: Path, packer: Literal["gzip", "zstd"]) -> tuple[Path, int, Path]:
    """Write an archive; returns its path, its size before compression, and the folder with the metadata of its patches."""
    patches = write_days(root, PATCHES, DAYS, "v1" if packer == "gzip" else "v2")
    plain, packed = root / "x.tar", root / ("x.tar.gz" if packer == "gzip" else "x.tar.zst")
    subprocess.run(["tar", "cf", plain, "--hard-dereference", "-C", patches.parent, patches.name], check=True)
    with packed.open("wb") as out:
        subprocess.run([packer, "-c", plain], stdout=out, check=True)
    size = plain.stat().st_size
    plain.unlink()
    return packed, size, patches.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        packed, plain, v1 = _packed(root / "v1", "gzip")
        zstd, plain_v2, v2 = _packed(root / "v2", "zstd")

        store = root / "store.h5"

        def prepare_from(path: Path, lists: Path) -> Callable[[], int]:
            def work() -> int:
                return prepare_survey(survey_archives([(None, path)], lists=lists), store).patches

            return work

        block = memoryview(bytearray(1 << 20))

        def decompress(opened: Callable[[], Any]) -> Callable[[], int]:
            def work() -> int:
                with opened() as file:
                    while file.readinto(block):
                        pass
                return PATCHES * DAYS

            return work

        def program(*words: str | Path) -> Callable[[], int]:
            def work() -> int:
                subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
                return PATCHES * DAYS

            return work

        def two_at_once() -> int:
            """Speed of one core while another core decompresses as well."""
            with subprocess.Popen(["zstd", "-dcq", zstd], stdout=subprocess.DEVNULL):
                return program("zstd", "-dcq", zstd)()

        def reset() -> None:
            """Remove the store, and read both archives, so that they are in the page cache."""
            store.unlink(missing_ok=True)
            for path in (packed, zstd):
                with path.open("rb", buffering=0) as file:
                    while file.readinto(block):
                        pass

        rates = interleaved(
            {
                "stream_tar_gz": prepare_from(packed, v1 / "metadata"),
                "igzip": decompress(partial(igzip.open, packed)),
                "python_gzip": decompress(partial(gzip.open, packed)),
                "gzip_dc": program("gzip", "-dc", packed),
                "stream_tar_zst": prepare_from(zstd, v2),
                "zstd_dc": program("zstd", "-dcq", zstd),
                "zstd_dc_beside_another": two_at_once,
            },
            ROUNDS,
            before=reset,
        )
        sizes = {".tar.gz": (plain, packed.stat().st_size), ".tar.zst": (plain_v2, zstd.stat().st_size)}
    ratios = {
        "stream_over_igzip": rates["stream_tar_gz"] / rates["igzip"],
        "stream_over_python_gzip": rates["stream_tar_gz"] / rates["python_gzip"],
        "stream_over_gzip_dc": rates["stream_tar_gz"] / rates["gzip_dc"],
        "stream_zst_over_zstd_dc": rates["stream_tar_zst"] / rates["zstd_dc"],
        "stream_zst_over_zstd_dc_beside_another": rates["stream_tar_zst"] / rates["zstd_dc_beside_another"],
    }
    record(
        "archive",
        {"patches": PATCHES * DAYS, "bytes_plain_and_packed": sizes, "patches_per_second": rates, "ratios": ratios},
    )


if __name__ == "__main__":
    main()
