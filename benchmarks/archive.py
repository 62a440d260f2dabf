"""An archive streamed into a store, against the time in which this machine decompresses it to nothing.

    python benchmarks/archive.py

The archive is synthetic, in the layout of BigEarthNet v1: 24,000 patches with as much to compress as the published ones have
(a ratio of about 1.5). `igzip` and `arrow_zstd` are the decompressors that landscale itself uses.
"""

from __future__ import annotations

import gzip
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from days import write_days
from isal import igzip
from rounds import interleaved, record

from landscale.prepare.streaming import prepare_stream
from landscale.sources.bigearthnet_archive import stream

PATCHES, DAYS = 6000, 4
ROUNDS = 3


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        patches = write_days(root, PATCHES, DAYS, "v1")
        plain, packed, zstd = (root / f"x.tar{suffix}" for suffix in ("", ".gz", ".zst"))
        subprocess.run(["tar", "cf", plain, "--hard-dereference", "-C", patches.parent, patches.name], check=True)
        for packer, path in (("gzip", packed), ("zstd", zstd)):
            with path.open("wb") as out:
                subprocess.run([packer, "-c", plain], stdout=out, check=True)

        store = root / "store.h5"

        def streamed(path: Path) -> Callable[[], int]:
            def work() -> int:
                return prepare_stream(stream([(None, path)], lists=patches.parent / "metadata"), store).patches

            return work

        block = memoryview(bytearray(1 << 20))

        def drained(opened: Callable[[], Any]) -> Callable[[], int]:
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
            """What a core gives when the others are at work too."""
            with subprocess.Popen(["zstd", "-dcq", zstd], stdout=subprocess.DEVNULL):
                return program("zstd", "-dcq", zstd)()

        rates = interleaved(
            {
                "stream_tar_gz": streamed(packed),
                "igzip": drained(partial(igzip.open, packed)),
                "python_gzip": drained(partial(gzip.open, packed)),
                "gzip_dc": program("gzip", "-dc", packed),
                "stream_tar_zst": streamed(zstd),
                "arrow_zstd": drained(partial(pa.input_stream, str(zstd), compression="zstd", buffer_size=0)),
                "zstd_dc": program("zstd", "-dcq", zstd),
                "zstd_dc_beside_another": two_at_once,
            },
            ROUNDS,
            before=lambda: store.unlink(missing_ok=True),
        )
        sizes = {path.suffix: path.stat().st_size for path in (plain, packed, zstd)}
    ratios = {
        "stream_over_igzip": rates["stream_tar_gz"] / rates["igzip"],
        "stream_over_python_gzip": rates["stream_tar_gz"] / rates["python_gzip"],
        "stream_over_gzip_dc": rates["stream_tar_gz"] / rates["gzip_dc"],
        "stream_zst_over_arrow_zstd": rates["stream_tar_zst"] / rates["arrow_zstd"],
        "stream_zst_over_zstd_dc": rates["stream_tar_zst"] / rates["zstd_dc"],
        "stream_zst_over_zstd_dc_beside_another": rates["stream_tar_zst"] / rates["zstd_dc_beside_another"],
    }
    record("archive", {"patches": PATCHES * DAYS, "bytes": sizes, "patches_per_second": rates, "ratios": ratios})


if __name__ == "__main__":
    main()
