"""The command `landscale download`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from landscale.commands.command import AddCommand, print_result


def add_command(add: AddCommand) -> None:
    from landscale.download.catalogue import ARCHIVES, format_size

    p = add(
        "download",
        _download,
        "download an official archive and check its digests; run the same command again to resume",
        "landscale download eurosat-rgb --root data",
    )
    names = ", ".join(f"{name} ({format_size(archive.size)})" for name, archive in ARCHIVES.items())
    p.add_argument("archive", metavar="NAME", help=names)
    p.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder for the files")
    p.add_argument("--mirror", metavar="URL", help="URL of a folder with files of the same names")
    p.add_argument("--json", action="store_true")


def _download(options: argparse.Namespace) -> int:
    from landscale.download.archive import download
    from landscale.download.catalogue import find_archive, format_size

    archive = find_archive(options.archive)
    files = download(archive, options.root, options.mirror)
    content = {
        "name": options.archive,
        "root": str(options.root),
        "bytes": sum(file.size for file in files),
        "files": [
            {"path": str(file.path), "bytes": file.size, "digest": file.digest, "state": file.state} for file in files
        ],
    }

    def text() -> None:
        for file in files:
            print(f"{file.path}: {file.state}, {format_size(file.size)}, {file.digest.replace(':', ' ')} as expected")
        for command in archive.then:
            print(f"next: {command.format(root=shlex.quote(str(options.root)))}")

    return print_result(options, content, text)
