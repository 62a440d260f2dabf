"""timm's weights, most of them trained on ImageNet, as encoders of red, green and blue.

They were trained on photographs of 8 bits. Digital numbers and reflectance are stretched to such pictures: 255 stands for a
reflectance of 0.3, as is usual for showing Sentinel-2. Pictures whose own stretch is not known are taken as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file

from landscale.errors import BadInput, reason
from landscale.models.encoders.conversion import save_converted
from landscale.models.encoders.entry import NOT_STATED, Entry, Inputs
from landscale.models.encoders.hub import hub_file
from landscale.models.registry import zoo
from landscale.runtime.files import sha256_of

KIND = "timm"
STRETCH = 3000  # digital number that becomes 255
_RGB = ("B04", "B03", "B02")
_UPSAMPLING = ("bilinear", "bicubic", "nearest")


def find(name: str) -> Entry:
    """The entry of a name, `timm:` and a network of timm that has weights on the hub.

    Raises:
        UnknownName: timm has no such network. BadInput: it has no weights for three channels on the hub.
    """
    model = name.removeprefix(f"{KIND}:")
    zoo(model)
    cfg = timm.get_pretrained_cfg(model)
    if cfg is None or not cfg.hf_hub_id or len(cfg.mean) != len(_RGB):
        raise BadInput(name, "timm has no weights of this network for red, green and blue on the hub")
    side = cfg.input_size[-1]
    return Entry(
        name=name,
        model=model,
        inputs=Inputs(
            bands=_RGB,
            statistics={b: (255 * m, 255 * s) for b, m, s in zip(_RGB, cfg.mean, cfg.std, strict=True)},
            units=dict.fromkeys(_RGB, "8-bit"),
            level="unknown",
            side=side,
            ground=10 * side,
            upsample=cfg.interpolation if cfg.interpolation in _UPSAMPLING else "bilinear",
            stretches=dict.fromkeys(_RGB, STRETCH),
        ),
        licence=cfg.license or NOT_STATED,
        citation=f"https://arxiv.org/abs/{_first(cfg.paper_ids)}" if cfg.paper_ids else str(cfg.origin_url or ""),
        source=f"https://huggingface.co/{cfg.hf_hub_id}",
        url=f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/{_file(cfg)}",
    )


def save_timm(entry: Entry, folder: Path) -> None:
    """Fetch the weights of an entry of `find` and write a folder of weights; timm removes the last layer and renames old keys.

    Raises:
        LandscaleError: the weights cannot be fetched, or are not those of the network.
    """
    cfg = timm.get_pretrained_cfg(entry.model)
    assert cfg is not None
    path = hub_file(str(cfg.hf_hub_id), _file(cfg))
    try:
        tensors = load_file(path)
        overlay = {"state_dict": tensors}
        network = timm.create_model(entry.model, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0)
    except (OSError, SafetensorError, RuntimeError, KeyError, AttributeError, ValueError, TypeError) as error:
        raise BadInput(path, f"does not fit {entry.model} ({reason(error)})") from None
    save_converted(folder, entry, network.state_dict(), path, sha256_of(path))


def _file(cfg: Any) -> str:
    named = cfg.hf_hub_filename or ""
    return str(named) if named.endswith(".safetensors") else "model.safetensors"


def _first(papers: str | tuple[str, ...]) -> str:
    return (papers if isinstance(papers, str) else papers[0]).removeprefix("arXiv:")
