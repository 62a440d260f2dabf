"""The `config.json` of a folder of weights, which holds digests of everything in the folder.

Since format 3, the entry `landscale` of `config.json` has what landscale needs, and other libraries have entries beside it. Its
entry `files` has the SHA-256 of every other file of the folder, and its last entry, `digest`, is the SHA-256 of `config.json`
itself, computed while `digest` consists of zeros. So this one digest covers every byte of the folder. In formats 1 and 2,
landscale's entries are those of `config.json` itself. Format 2 has digests of `config.json` and `model.safetensors`, format 1
only of the latter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscale.errors import BadInput
from landscale.runtime.documents import MAX_BYTES, json_object, json_text, parse_json, read_bytes, typed
from landscale.runtime.files import sha256_of, write_text

FORMAT = 3
ENTRY = "landscale"
CONFIG, TENSORS = "config.json", "model.safetensors"
OF_OTHERS = (".git", ".gitattributes", ".cache")  # git and the client of the hub write these into a copy of the folder
MAX_TENSOR_BYTES = 1 << 36
BYTES_OF_PARAMETER = 16  # at most: 8 for float64, and as many again for buffers
MAX_HEADER = 1 << 26  # of model.safetensors
_UNSET = "0" * 64


def write_sealed(folder: Path, content: Mapping[str, Any], of_others: Mapping[str, Any] | None = None) -> None:
    """Write `config.json` into a folder that has all its other files already; format and digests are added.

    Args:
        folder: it has no folders inside.
        content: what landscale needs, as a JSON object.
        of_others: entries of `config.json` for other libraries.
    """
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.name != CONFIG}
    own = {"landscale_format": FORMAT, **content, "files": files, "digest": _UNSET}
    text = json_text({**(of_others or {}), ENTRY: own})
    before, _, after = text.rpartition(_UNSET)
    write_text(folder / CONFIG, before + hashlib.sha256(text.encode()).hexdigest() + after)


def is_sealed(config: Mapping[str, Any]) -> bool:
    """Whether the content of a `config.json` is that of landscale's weights."""
    return "landscale_format" in config or ENTRY in config


def read_sealed_config(file: Path, expected: str) -> dict[str, Any]:
    """Landscale's entries in a `config.json`, once it matches its own digest. Arguments and errors are those of `read_sealed`."""
    text = read_bytes(file, MAX_BYTES)
    config = json_object(file, parse_json(file, text), expected)
    own = json_object(file, config.get(ENTRY, config), expected, ("landscale_format", "digest"))
    found, digest = own["landscale_format"], own["digest"]
    if type(found) is not int or found < 1 or (found < FORMAT) != (own is config):
        raise BadInput(file, f"is not {expected}: landscale_format is {found!r}")
    if found > FORMAT:
        raise BadInput(file, f"has format {found}, this program reads up to {FORMAT}; update landscale")
    if type(digest) is not str or len(digest) != len(_UNSET):
        raise BadInput(file, f"is not {expected}: digest is {digest!r}")
    if found == FORMAT and digest != _digest_with_zeros(text, digest):
        raise BadInput(file, "is damaged or was edited: its content does not match its digest")
    if found == 2 and own.get("config_digest") != _digest_of_format_2(own):
        raise BadInput(file, "is damaged or was edited: its content does not match its config_digest")
    if found == FORMAT:
        json_object(file, typed(file, own.get("files"), dict[str, str], expected), expected, (TENSORS,))
    return own


def read_sealed(folder: Path, expected: str) -> tuple[dict[str, Any], bytes]:
    """Landscale's entries in `config.json` and the bytes of `model.safetensors`, once the whole folder matches its digests.

    Args:
        folder: the folder of weights.
        expected: what config.json should be, for the error message, such as "a description of landscale weights".

    Raises:
        BadInput: a file is missing, damaged, not listed in `config.json`, or of a newer format.
    """
    config = read_sealed_config(folder / CONFIG, expected)
    check_folder(folder, config)
    content = read_bytes(folder / TENSORS, _most_bytes(config))
    if hashlib.sha256(content).hexdigest() != tensors_digest(config):
        raise BadInput(folder / TENSORS, "is damaged: its digest is not the one in config.json")
    return config, content


def check_folder(folder: Path, config: Mapping[str, Any]) -> None:
    """Compare all files of a folder of weights but `model.safetensors` with what `read_sealed_config` returned.

    Raises:
        BadInput: a file is missing, damaged or not listed.
    """
    for name, digest in _listed_files(folder, config).items():
        if name != TENSORS and sha256_of(folder / name, MAX_BYTES) != digest:
            raise BadInput(folder / name, "is damaged: its digest is not the one in config.json")


def tensors_digest(config: Mapping[str, Any]) -> str:
    """The SHA-256 of `model.safetensors` in what `read_sealed_config` returned, in hexadecimal."""
    return str(config["digest"] if config["landscale_format"] < FORMAT else config["files"][TENSORS])


def names_in(folder: Path) -> set[str]:
    """The names of all files and folders in a folder of weights, without those that git or the hub's client wrote."""
    try:
        return {path.name for path in folder.iterdir()} - set(OF_OTHERS)
    except OSError as error:
        raise BadInput(folder, f"cannot be read ({error.strerror})") from None


def _listed_files(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The digests of all files but `config.json`, by name; none for older formats.

    Raises:
        BadInput: the folder lacks one of the files, or has others.
    """
    if config["landscale_format"] < FORMAT:
        return {}
    files: dict[str, str] = config["files"]
    there = names_in(folder) - {CONFIG}
    if missing := sorted(files.keys() - there):
        raise BadInput(folder / missing[0], "is missing: config.json lists it")
    if left_over := sorted(there - files.keys()):
        raise BadInput(
            folder / left_over[0], "is not part of these weights: config.json does not list it; move it away"
        )
    return files


def _digest_with_zeros(text: bytes, digest: str) -> str:
    """SHA-256 of a `config.json`, in hexadecimal, with zeros where its last `digest` is."""
    before, found, after = text.rpartition(digest.encode(errors="replace"))
    return hashlib.sha256(before + _UNSET.encode() + after).hexdigest() if found else ""


def _digest_of_format_2(config: Mapping[str, Any]) -> str:
    """SHA-256, in hexadecimal, of everything in a `config.json` but the entry `config_digest` itself."""
    described = {key: value for key, value in config.items() if key != "config_digest"}
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _most_bytes(config: Mapping[str, Any]) -> int:
    """Bytes that `model.safetensors` can have, so that a larger file is refused before it is read into memory."""
    parameters = config.get("parameters")
    if type(parameters) is not int or parameters < 0:
        return MAX_HEADER
    return min(MAX_TENSOR_BYTES, MAX_HEADER + BYTES_OF_PARAMETER * parameters)
