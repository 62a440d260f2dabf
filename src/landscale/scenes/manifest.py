"""Read `manifest.safe`, in which a `.SAFE` product lists sizes and digests of its files, and check files against it.

A damaged JPEG 2000 file is often decoded without an error, so only its digest reveals the damage. (ESA, Sentinel-2 Products
Specification Document; SAFE: PGSI-GSEG-EOPG-FS-05-0001.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

from landscale.errors import BadInput, reason
from landscale.scenes.product_files import digest_of, read_metadata_text, size_of

_ALGORITHMS = {"MD5": "md5", "SHA3-256": "sha3_256", "SHA-256": "sha256"}


@dataclass(frozen=True)
class Manifest:
    """By file: size in bytes, algorithm of the digest (empty if unknown), hexadecimal digest. Empty without a manifest."""

    files: dict[Path, tuple[int, str, str]] = field(default_factory=dict)

    def check(self, path: Path) -> None:
        """Compare size and digest of a file with the manifest; files that are not listed pass.

        Raises:
            BadInput: the file is missing, or its size or digest differs.
        """
        if path not in self.files:
            return
        size, algorithm, digest = self.files[path]
        found = size_of(path)
        if found != size:
            raise BadInput(
                path, f"has {found} bytes, expected {size} by the product's manifest" if found >= 0 else "is missing"
            )
        if algorithm and digest_of(path, algorithm) != digest:
            raise BadInput(path, f"is damaged: its {algorithm} digest differs from the product's manifest")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a product; empty if there is none.

    Raises:
        BadInput: the manifest is damaged, no regular file, or lists files outside the product.
    """
    path = folder / "manifest.safe"
    if size_of(path) < 0:
        return Manifest()
    text, files = read_metadata_text(path), {}
    try:
        for stream in ElementTree.fromstring(text.encode()).iter("byteStream"):
            place, checksum = stream.find("fileLocation"), stream.find("checksum")
            if place is None or checksum is None:
                continue
            href = PurePosixPath(place.get("href", ""))
            if href.is_absolute() or ".." in href.parts:
                raise BadInput(path, f"lists {href}, which is outside the product")
            algorithm = _ALGORITHMS.get(checksum.get("checksumName", "").upper(), "")
            digest = (checksum.text or "").strip().lower()
            files[folder / href] = (int(stream.get("size", "")), algorithm, digest)
    except (ElementTree.ParseError, LookupError, ValueError, OSError) as error:
        raise BadInput(path, f"is not a valid product manifest ({reason(error)})") from None
    return Manifest(files)
