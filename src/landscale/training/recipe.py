"""A recipe: one typed, complete description of a training. Shipped ones are YAML files, every key is a flag as well."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from landscale.errors import BadInput, LandscaleError, UnknownName, reason

set_parsing_settings(docstring_parse_attribute_docstrings=True)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    name: str = "custom"
    """what the recipe is called, after its paper"""
    model: str = "resnet50"
    """any model of `landscale models`, or of timm"""
    options: dict[str, Any] = field(default_factory=dict)
    """keyword arguments of the model; with another --model only the recipe's drop_rate stays"""
    head: Literal["linear", "ml_decoder", "query"] = "linear"
    """linear: the model's own; ml_decoder: attention looks for each class on the last map; query: they inform each other too"""
    head_options: dict[str, Any] = field(default_factory=dict)
    """of ml_decoder and query: layers, width, heads, drop_rate; groups of ml_decoder; with another --head none stays"""
    init: str | None = None
    """weights to begin from: `imagenet` (timm's own of this model), a safetensors file, a run or folder of weights, or a name on
    the Hugging Face hub (`owner/name`); other bands and classes are adapted. None: drawn from the seed"""
    bands: str = "s2-12"
    """band set or list of bands, in the order of the network's channels"""
    labels: str | None = None
    """nomenclature to learn, where it is coarser than the store's"""
    side: int | None = None
    """pixels a side of the network's input; by default the store's"""
    upsample: Literal["bilinear", "bicubic", "nearest", "stored"] = "bilinear"
    """how the 20 m and 60 m bands are brought to that side; stored: taken from the store's data_super; k_branch takes nearest"""
    scale: Literal["linear", "log", "both"] = "linear"
    """digital numbers, their logarithms, or both in twice as many channels"""

    epochs: int = 30
    """times that every patch is seen; with --max-time, the most of them"""
    batch: int = 128
    """patches that a process learns from at once"""
    accumulate: int = 1
    """batches whose gradients are added up for one step"""
    optimizer: str = "adamw"
    """any of timm's: sgd (Nesterov), adam, adamw, lamb, lars …"""
    rate: float = 1e-3
    """learning rate at its highest"""
    rate_batch: int | None = None
    """global batch for which `rate` holds: it grows in proportion to the batch; None: it never does"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 0.05
    """on weights of convolutions and dense layers, not on norms and biases"""
    schedule: Literal["cosine", "step", "polynomial", "constant"] = "cosine"
    """how the rate falls after the warm-up"""
    milestones: list[float] = field(default_factory=list)
    """for `step`: epochs after which the rate falls to a tenth"""
    warmup_epochs: float = 0.0
    """epochs in which the rate rises from nothing"""
    progressive: list[list[float]] = field(default_factory=list)
    """pairs of a share of the training and the side that patches are shrunk to until then"""
    clip_grad: float | None = None
    """largest norm of the gradient"""
    sync_norms: bool = False
    """batch norms over the batches of all processes"""
    compress: Literal["none", "bf16", "powersgd"] = "none"
    """gradients as they travel between processes: float32, bf16, or factors of low rank (Vogels et al. 2019)"""

    loss: Literal["bce", "asymmetric", "focal"] = "bce"
    """of a multi-label store: binary cross-entropy, asymmetric (Ridnik et al. 2021), focal (Lin et al. 2017); a single-label
    one has cross-entropy"""
    smoothing: float = 0.0
    """label smoothing"""
    balance: float = 0.0
    """weight of rare classes, from the train split's counts, to this power: of positive labels by negatives/positives, of the
    classes of a single-label store by 1/patches; 0: none, 1: in full"""
    balance_beta: float | None = None
    """counts n there become (1 − βⁿ)/(1 − β), the effective number of samples (Cui et al. 2019: 0.9 … 0.9999); None: n itself"""
    oversample: float = 0.0
    """how much more often patches with rare classes are seen: as often as 1 / the share of patches with their rarest class to
    this power, in an epoch of the same length; 0: every patch once"""
    turns: bool = True
    """each patch in one of the 8 rotations and reflections"""
    shift: int = 0
    """largest random shift in pixels of the input"""
    zoom: float = 0.0
    """largest share of the side that a random window leaves out before it is enlarged to the whole"""
    jitter: float = 0.0
    """standard deviation of a random gain and offset per band"""
    mixup: float = 0.0
    """parameter of mixup's beta distribution"""
    cutmix: float = 0.0
    """parameter of cutmix's beta distribution"""
    ema: float = 0.0
    """decay of the averaged weights that are evaluated and kept; 0: the weights themselves"""

    views: Literal[1, 2, 4, 8] = 1
    """turns of a patch whose probabilities are averaged in evaluation and prediction"""
    thresholds: Literal["half", "one", "smooth", "per_class"] = "one"
    """decision thresholds: 0.5, or chosen on the validation split"""
    select: Literal["micro_f1", "macro_f1", "micro_ap", "macro_ap", "accuracy", "last"] = "last"
    """validation figure whose best epoch is kept"""
    evaluate_every: int = 1
    """epochs between evaluations"""

    seed: int = 0
    """of initial weights, order, augmentation and dropout"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 where the device computes in it"""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the network and its input stage; auto: on GPUs"""
    placement: Literal["auto", "disk", "memory", "device"] = "auto"
    """where the train split lies meanwhile: mapped from the disk, in memory shared by the processes of a machine, or on the GPU,
    spread over the machine's GPUs where it is too large for one; auto: the GPU if it fits, else memory; on CPUs the disk"""
    on_divergence: Literal["stop", "backoff"] = "stop"
    """what to do when the loss is no longer finite: stop, or go back to the last checkpoint and halve the rate"""
    save_minutes: float = 5.0
    """minutes between checkpoints inside an epoch; each epoch ends with one"""
    keep: int = 1
    """checkpoints that are kept: the last one, and by their steps the ones before it"""


# How a training is run, not what it learns: these may change when it goes on.
CONDUCT = ("placement", "on_divergence", "save_minutes", "keep")


def shipped() -> dict[str, Path]:
    folder = files("landscale.training") / "recipes"
    return {path.stem: path for path in sorted(Path(str(folder)).glob("*.yaml"))}


def parser() -> ArgumentParser:
    """The flags of all keys of a recipe."""
    p = ArgumentParser(exit_on_error=False, add_help=False)
    p.add_class_arguments(Recipe, as_group=True)
    return p


def load_recipe(name: str | None, overrides: list[str]) -> Recipe:
    """The recipe of a shipped name or YAML file, with `--key value` overrides.

    Raises:
        UnknownName: no such recipe or key. BadInput: a file that is no recipe. LandscaleError: a value of a wrong type.
    """
    content: dict[str, Any] = {}
    where = ""
    if name is not None:
        path = shipped().get(name, Path(name))
        where = f"{path}: "
        if not path.is_file():
            raise UnknownName("recipe", name, shipped())
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise BadInput(path, f"is not valid YAML ({reason(error)})") from None
        if not isinstance(content, dict):
            raise BadInput(path, "is no recipe: expected keys and values")
    keys = Recipe.__dataclass_fields__
    flags = [word[2:].split("=")[0].split(".")[0] for word in overrides if word.startswith("--")]
    for key in [*map(str, content), *flags]:
        if key.replace("-", "_") not in keys:
            raise UnknownName("recipe key", key, keys)
    p = parser()
    try:
        settings: Namespace = p.parse_object(content, defaults=True)
    except (ArgumentError, TypeError, ValueError) as error:
        raise LandscaleError(f"{where}{_first_line(error)}") from None
    try:
        settings = p.parse_args([_underscored(word) for word in overrides], namespace=settings)
    except (ArgumentError, TypeError, ValueError) as error:
        raise LandscaleError(_first_line(error)) from None
    recipe = Recipe(**settings.as_dict())
    if recipe.model != content.get("model", recipe.model) and "options" not in flags:
        # A recipe's options are those of its own model; dropout is what every network knows.
        recipe = replace(recipe, options={k: v for k, v in recipe.options.items() if k == "drop_rate"})
    if recipe.head != content.get("head", recipe.head) and not {"head_options", "head-options"} & set(flags):
        recipe = replace(recipe, head_options={})
    _check_ranges(recipe)
    return recipe


_LEAST = dict.fromkeys(
    ("epochs", "batch", "accumulate", "keep", "side", "rate_batch", "evaluate_every"), 1
)  # of others it is 0
_MOST = dict.fromkeys(("momentum", "smoothing", "ema", "zoom", "balance_beta"), 1)


def _check_ranges(recipe: Recipe) -> None:
    for key, value in asdict(recipe).items():
        least, most = _LEAST.get(key, 0), _MOST.get(key, math.inf)
        if isinstance(value, int | float) and not least <= value <= most:
            limits = f"at least {least}" if most == math.inf else f"{least} to {most}"
            raise LandscaleError(f"--{key}: found {value}, expected {limits}")
    for pair in recipe.progressive:
        if len(pair) != 2 or not 0 <= pair[0] <= 1 or pair[1] < 1:
            raise LandscaleError(
                f"--progressive: found {recipe.progressive}, expected pairs of a share in 0…1 and a side"
            )


def _underscored(word: str) -> str:
    key, equals, value = word.partition("=")
    return key.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word


def _first_line(error: BaseException) -> str:
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines else type(error).__name__


def as_yaml(recipe: Recipe) -> str:
    return str(yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True))
