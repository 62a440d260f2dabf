"""`landscale publish`: upload exported weights to the Hugging Face hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from landscale.commands.command import AddCommand, print_result


def add_command(add: AddCommand) -> None:
    parser = add(
        "publish",
        _publish_weights,
        "upload exported weights to the Hugging Face hub",
        "landscale publish eca owner/eca",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder that `landscale export` wrote")
    parser.add_argument("repository", metavar="OWNER/NAME", help="repository on the hub; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to upload to; created if it does not exist")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _publish_weights(options: argparse.Namespace) -> int:
    from landscale.export.publish import publish_weights

    done = publish_weights(options.folder, options.repository, private=options.private, revision=options.revision)
    content = {"repository": done.repository, "commit": done.commit, "url": done.url, "name": done.name}
    return print_result(options, content, lambda: print(f"{done.url}\nto load it: {done.name}"))
