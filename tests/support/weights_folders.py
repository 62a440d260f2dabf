"""Folders of weights with other entries in `config.json`: sealed again, or of the formats 1 and 2."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from landscale.runtime.sealed_config import ENTRY, write_sealed

SEALS = ("landscale_format", "files", "digest")


def entries(folder: Path) -> dict[str, Any]:
    """What landscale has in `config.json`."""
    own: dict[str, Any] = json.loads((folder / "config.json").read_text())[ENTRY]
    return own


def seal(folder: Path, **changes: Any) -> None:
    """Give `config.json` other values, and digests that fit the folder as it is."""
    config = json.loads((folder / "config.json").read_text())
    own = {key: value for key, value in config.pop(ENTRY).items() if key not in SEALS}
    write_sealed(folder, own | changes, config)


def write_format_1(folder: Path, **changes: Any) -> None:
    """Make `config.json` one of format 1, which has no digest of itself."""
    own = {key: value for key, value in entries(folder).items() if key not in (*SEALS, "licence", "exported")}
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps({"landscale_format": 1, "digest": digest, **own} | changes))


def write_format_2(folder: Path) -> None:
    """Make `config.json` one of format 2, with a digest of its values."""
    write_format_1(folder, landscale_format=2)
    config = json.loads((folder / "config.json").read_text())
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config | {"config_digest": digest}))
