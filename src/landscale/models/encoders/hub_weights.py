"""Weights on the Hugging Face hub: folders of weights that landscale wrote, and reBEN's classifiers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from landscale.errors import BadInput, reason
from landscale.models.encoders import reben
from landscale.models.encoders.conversion import save_converted
from landscale.models.encoders.entry import Entry
from landscale.models.encoders.hub import hub_file
from landscale.runtime.documents import read_json_object
from landscale.runtime.files import sha256_of

KIND = "hf-hub"
_NAME = re.compile(r"hf-hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_TENSORS, _CONFIG = "model.safetensors", "config.json"
_STATED = {
    "timm_model_name": "model",
    "channels": "bands",
    "classes": "classes",
}  # what ConfigILM's config.json may say


def parse(name: str) -> tuple[str, str | None]:
    """The repository and the revision, or None, of a name.

    Raises:
        BadInput: the name has another form.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise BadInput(
            name, "is not the name of weights on the hub, expected hf-hub:owner/name or hf-hub:owner/name@revision"
        )
    return match[1], match[2]


def fetch_folder(name: str) -> Path:
    """A folder of weights in the hub's cache, with all files that its config.json lists, downloaded if they are not there.

    Raises:
        LandscaleError: the hub cannot be reached, or the repository holds no weights of landscale.
    """
    repository, revision = parse(name)
    config = hub_file(repository, _CONFIG, revision)
    content = read_json_object(config, "a description of landscale weights")
    own = content.get("landscale", content)
    if not isinstance(own, dict) or "landscale_format" not in own:
        raise BadInput(
            name, "holds no weights of landscale; `landscale train --init` takes those of timm as a beginning"
        )
    files = own.get("files")
    listed = [file for file in files if file != _CONFIG] if isinstance(files, dict) else [_TENSORS]
    for file in listed:
        if Path(file).name != file:
            raise BadInput(config, f"lists the file {file!r}, expected a plain name")
        hub_file(repository, file, config.parent.name)  # the folder is called like the commit that the revision meant
    return config.parent


def save_reben(entry: Entry, revision: str | None, folder: Path) -> None:
    """Fetch a classifier of reBEN and write a folder of weights.

    Raises:
        LandscaleError: it cannot be fetched, or is not the classifier that the entry describes.
    """
    repository, _ = parse(entry.name)
    config = hub_file(repository, _CONFIG, revision)
    path = hub_file(repository, _TENSORS, config.parent.name)
    _check_config(config, entry)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(path, f"is not a complete safetensors file ({reason(error)})") from None
    save_converted(folder, entry, tensors, path, sha256_of(path), revision=config.parent.name)


def _check_config(path: Path, entry: Entry) -> None:
    """Refuse a config.json that says something else than the entry about network, bands or classes."""
    expected = {"model": entry.model, "bands": len(entry.inputs.bands), "classes": len(entry.classes)}
    for key, value in _pairs(read_json_object(path, "a description of a classifier of reBEN")):
        if key in _STATED:
            found = value.partition(".")[0] if isinstance(value, str) else value
            if found != expected[_STATED[key]]:
                raise BadInput(path, f"{key} is {value!r}, expected {expected[_STATED[key]]!r} for {entry.name}")


def _pairs(content: Any) -> Iterator[tuple[str, Any]]:
    """All keys and values of a JSON object and of the objects in it."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield key, value
            yield from _pairs(value)


def find_reben(name: str) -> tuple[Entry, str | None] | None:
    """The entry and revision of a classifier of reBEN; None if the name is another one."""
    bare, _, revision = name.partition("@")
    entry = reben.find(bare)
    return (entry, revision or None) if entry else None
