"""Find and read pre-trained weights, on the disk or on the Hugging Face hub.

Only safetensors files are fetched. A pickled file is read only if the user gives its path (`encoders.pickled`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from landscale.errors import BadInput, LandscaleError, reason
from landscale.models.classifier import Description
from landscale.models.encoders import find_encoder, is_name
from landscale.models.encoders.hub import hub_file
from landscale.models.encoders.pickled import SUFFIXES, as_safetensors
from landscale.runtime.documents import read_json, typed
from landscale.runtime.sealed_config import check_folder, is_sealed, read_sealed_config, tensors_digest

IMAGENET, ENCODER = "imagenet", "encoder"
_PICKLED_HINT = "pickled weights are not fetched by name; download the file, and give its path"
_ON_HUB = re.compile(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True)
class Pretrained:
    """Pre-trained weights. `digest` is the SHA-256 of their file, `config` the content of their `config.json` or empty."""

    name: str
    tensors: Mapping[str, Tensor]
    digest: str
    config: Mapping[str, Any]

    @property
    def is_landscale(self) -> bool:
        """Whether landscale wrote them, so that the names of their bands and classes are known."""
        return "landscale_format" in self.config

    @property
    def model(self) -> str | None:
        """The name of their network; None if it is not recorded."""
        name = self.config.get("model" if self.is_landscale else "architecture")
        return None if name is None else str(name)

    def description(self) -> Description | None:
        """The description of the classifier that they are from; None if landscale did not write them.

        Raises:
            BadInput: `config.json` is not such a description.
        """
        if not self.is_landscale:
            return None
        known = {key: self.config[key] for key in Description.__dataclass_fields__.keys() & self.config.keys()}
        try:
            found = typed(Path(self.name), known, Description, "a description of landscale weights")
            found.check()
        except BadInput:
            raise
        except LandscaleError as error:
            raise BadInput(self.name, f"its config.json is not a description of landscale weights: {error}") from None
        return found


def names_network(init: str) -> bool:
    """Whether the network of the weights of this name is recorded with them: not for `imagenet` and single files."""
    path = Path(init)
    single = not is_name(init) and path.suffix in (*SUFFIXES, ".safetensors") and not path.is_dir()
    return init != IMAGENET and not (single and not path.with_name("config.json").is_file())


def find_pretrained(init: str, model: str) -> Pretrained:
    """Find and read weights for the network `model`.

    Args:
        init: `imagenet`: timm's weights of this network. A path: a safetensors file, a pickled file of tensors, a run, or a
            folder of `config.json` and `model.safetensors`, landscale's or timm's. A name on the hub: `hf-hub:owner/name` or
            `owner/name`, with an optional `@revision`. Or any other name that `encoders.find_encoder` takes.
        model: name of the network; `ENCODER`: that of the weights, whichever it is.

    Raises:
        LandscaleError: the weights do not exist, cannot be downloaded, are damaged, or are those of another network.
    """
    if init == IMAGENET:
        repository, file = _timm_repository(model)
        return _read(hub_file(repository, file, otherwise=_PICKLED_HINT), repository, {}, model)
    path = Path(init)
    on_hub = _ON_HUB.fullmatch(init)
    if on_hub and not path.exists() and path.suffix not in (*SUFFIXES, ".safetensors"):
        repository, revision = on_hub.groups()
        described = hub_file(repository, "config.json", revision)
        if not _is_timms(described):
            return _read_encoder(init if is_name(init) else f"hf-hub:{init}", model)
        tensors = hub_file(repository, "model.safetensors", revision, _PICKLED_HINT)
        return _read(tensors, init, _read_config(described), model)
    if not path.exists():
        if ":" in init:
            return _read_encoder(init, model)
        raise BadInput(init, "is neither a file nor a folder, nor a name on the hub (owner/name)")
    if path.is_dir() or (path.name == "model.safetensors" and path.with_name("config.json").is_file()):
        folder = _weights_folder(path if path.is_dir() else path.parent)
        return _read_folder(folder, init, model)
    return _read(as_safetensors(path) if path.suffix in SUFFIXES else path, init, {}, model)


def _timm_repository(model: str) -> tuple[str, str]:
    """Repository and file of timm's weights of a network."""
    cfg = timm.get_pretrained_cfg(model)
    if cfg is None or not (cfg.hf_hub_id or cfg.url or cfg.file):
        raise LandscaleError(
            f"--init {IMAGENET}: timm has no such weights of model '{model}'; give a run or weights of landscale, a safetensors"
            " file, or choose a --model that has them (timm.list_models(pretrained=True))"
        )
    if not cfg.hf_hub_id:
        raise LandscaleError(
            f"--init {IMAGENET}: timm has the weights of model '{model}' only at {cfg.url}; {_PICKLED_HINT}"
        )
    named = cfg.hf_hub_filename or ""
    return str(cfg.hf_hub_id), named if named.endswith(".safetensors") else "model.safetensors"


def _weights_folder(path: Path) -> Path:
    for folder in (path, path / "weights"):
        if (folder / "config.json").is_file():
            return folder
    begun = " (its training has not ended)" if (path / "recipe.yaml").exists() else ""
    raise BadInput(path, f"holds no weights: expected config.json and model.safetensors, or a finished run{begun}")


def _read_encoder(name: str, model: str) -> Pretrained:
    return _read_folder(find_encoder(name), name, model)


def _read_folder(folder: Path, name: str, model: str) -> Pretrained:
    config = _read_config(folder / "config.json")
    if is_sealed(config):
        check_folder(folder, config)
    return _read(folder / "model.safetensors", name, config, model)


def _is_timms(path: Path) -> bool:
    """Whether a `config.json` describes weights of timm that landscale did not write."""
    content = read_json(path)
    return isinstance(content, dict) and "architecture" in content and not is_sealed(content)


def _read_config(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or not (is_sealed(content) or "architecture" in content):
        raise BadInput(path, "describes neither weights of landscale nor of timm")
    return read_sealed_config(path, "a description of landscale weights") if is_sealed(content) else content


def _read(file: Path, name: str, config: Mapping[str, Any], model: str) -> Pretrained:
    holds = str(config.get("model" if "landscale_format" in config else "architecture"))
    # timm's names may end in a tag, after a dot
    if config and model not in (ENCODER, holds) and holds.partition(".")[0] != model.partition(".")[0]:
        raise BadInput(name, f"holds weights of model '{holds}', not of '{model}'")
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        _check(file, digest, config)
        return Pretrained(name, load_file(file), digest, config)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadInput(file, f"is not a complete safetensors file ({reason(error)})") from None


def _check(file: Path, digest: str, config: Mapping[str, Any]) -> None:
    """Compare digests: landscale's are in `config.json`, the hub's cache names the target of a link by its digest."""
    if "landscale_format" in config and tensors_digest(config) != digest:
        raise BadInput(file, "is damaged: its digest is not the one in config.json")
    linked = file.readlink().name if file.is_symlink() else ""
    if re.fullmatch(r"[0-9a-f]{64}", linked) and linked != digest:
        raise BadInput(file, "is damaged: its SHA-256 differs from that of the hub; remove it and try again")
