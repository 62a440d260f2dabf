"""A recipe: a typed, complete description of a training. Shipped recipes are YAML files; every key is also a flag.

The docstring of each key is its help text (`landscale train --keys`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from landscale.errors import LandscaleError, UnknownName
from landscale.runtime.yaml_files import read_yaml_object
from landscale.training.objective import check_objective

set_parsing_settings(docstring_parse_attribute_docstrings=True)


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    name: str = "custom"
    """name of the recipe, after its paper"""
    objective: Literal["labels", "vicreg"] = "labels"
    """what is learnt. labels: the classes of the store; vicreg: features without labels (Bardes et al. 2022), so the weights have
    no classes"""
    task: Literal["patches", "pixels"] = "patches"
    """what has a class. patches: each patch, one or several; pixels: each pixel, by the reference maps of the store, with a light
    head on the network's maps of features in place of its own"""
    model: str = "resnet50"
    """name of a model: one listed by `landscale models`, or any of timm; encoder: the network of --init with its options and
    head, which is what --init without --model means"""
    options: dict[str, Any] = field(default_factory=dict)
    """keyword arguments of the model; if --model replaces the recipe's model, only drop_rate is kept"""
    head: Literal["linear", "ml_decoder", "query"] = "linear"
    """classification head. linear: the model's own; ml_decoder: a query for each class attends to the last feature map; query:
    the queries also attend to each other"""
    head_options: dict[str, Any] = field(default_factory=dict)
    """options of the head: layers, width, heads, drop_rate of ml_decoder and query, groups of ml_decoder; if --head replaces
    the recipe's head, none is kept"""
    init: str | None = None
    """initial weights: `imagenet` (timm's for this model), a safetensors file, a run, a folder of weights, a name on the Hugging
    Face hub (`owner/name`), or another name of an encoder; they are adapted to other bands and classes, and bands that they were
    trained on are normalised as in their training. None: random weights from the seed"""
    freeze: int | Literal["all"] = 0
    """number of stages of the network, counted from its input (the stem is the first), that keep the weights of --init: without
    gradient, and with fixed statistics of batch norms; all: everything but the head"""
    unfreeze_every: float = 0.0
    """epochs after which the last stage that is still frozen is trained too, after as many again the one before it, and so on;
    with --epochs it is scaled like `warmup_epochs`. 0: the stages stay frozen to the end"""
    lora: int = 0
    """rank of low-rank adapters (Hu et al. 2022) that are trained instead of the weights of --init, in all dense layers and
    ungrouped convolutions before the head; they are merged into the weights that are saved. 0: none. Needs landscale[lora]"""
    layer_decay: float = 1.0
    """factor by which the learning rate of a layer is lower than that of the next one, in 0.01…1; the head has the whole rate. 1:
    all layers have the same"""
    bands: str = "s2-12"
    """band set or list of bands, in the order of the network's input channels"""
    labels: str | None = None
    """nomenclature of the classes to learn, if it is coarser than the store's; patches without any of its classes are left out.
    None: the store's own"""
    side: int | None = None
    """pixels a side of the network's input; None: that of the store's finest bands"""
    upsample: Literal["bilinear", "bicubic", "nearest", "stored"] = "bilinear"
    """how bands are resampled to `side`: bilinear and nearest where they are enlarged, bicubic also where they shrink; stored:
    read from the store's data_super; k_branch uses nearest"""
    scale: Literal["linear", "log", "both"] = "linear"
    """input values: linear digital numbers, their logarithms, or both, in twice as many channels"""

    epochs: int = 30
    """passes over all training patches; with --max-time, the largest number of passes"""
    batch: int = 128
    """patches in a batch of each process"""
    accumulate: int = 1
    """number of batches whose gradients are added up for one update of the weights"""
    optimizer: str = "adamw"
    """any optimiser of timm: sgd (Nesterov), adam, adamw, lamb, lars …"""
    rate: float = 1e-3
    """highest learning rate"""
    rate_batch: int | None = None
    """global batch size for which `rate` holds, by the rules linear and sqrt. None: the rate is the same for every batch size"""
    rate_rule: Literal["linear", "workers", "sqrt"] = "linear"
    """how the learning rate grows. linear: in proportion to the global batch (Goyal et al. 2017, for SGD); sqrt: with its square
    root (Malladi et al. 2022, for Adam and AdamW); workers: `rate` times the number of processes, whatever their batch"""
    momentum: float = 0.9
    """momentum of SGD"""
    weight_decay: float = 0.05
    """weight decay of convolutions and dense layers; normalisation layers and biases have none"""
    schedule: Literal["cosine", "step", "polynomial", "constant"] = "cosine"
    """how the learning rate falls after the warm-up"""
    milestones: list[float] = field(default_factory=list)
    """for the schedule `step`: epochs, counted from the start of the training, after which the rate is divided by ten; with
    --epochs they are scaled like `warmup_epochs`"""
    warmup_epochs: float = 0.0
    """epochs at the start in which the learning rate rises linearly from nearly 0; if --epochs replaces the recipe's epochs, this
    is scaled in proportion, unless it is given as well"""
    progressive: list[list[float]] = field(default_factory=list)
    """pairs of a fraction of the training, in 0…1, and the side in pixels to which patches are shrunk until then"""
    clip_grad: float | None = None
    """largest norm of the gradient; a gradient of larger norm is scaled down to it. None: no limit"""
    sync_norms: bool = False
    """compute batch normalisation over the batches of all processes"""
    compress: Literal["none", "bf16", "powersgd"] = "none"
    """how gradients are sent between processes: as float32, as bf16, or as low-rank factors (Vogels et al. 2019)"""

    loss: str = "bce"
    """loss of a multi-label store: bce (binary cross-entropy), asymmetric (Ridnik et al. 2021), focal (Lin et al. 2017), or one
    that is registered; a single-label store is trained with cross-entropy, and so are pixels"""
    smoothing: float = 0.0
    """label smoothing, in 0…1"""
    balance: float = 0.0
    """exponent of class weights from the counts of the train split: positive labels of a multi-label store are weighted by
    negatives/positives, the classes of a single-label store by 1/patches; 0: no weights, 1: these ratios themselves"""
    balance_beta: float | None = None
    """replaces counts n in those weights by the effective number of samples (1 − βⁿ)/(1 − β), with β in 0.9 … 0.9999 (Cui et al.
    2019); None: the counts themselves"""
    oversample: float = 0.0
    """exponent by which patches with rare classes are drawn more often: in proportion to (1 / the fraction of patches with their
    rarest class) to this power; the number of patches in an epoch stays the same. 0: every patch once"""
    turns: bool = True
    """augmentation: each patch in a random one of the 8 rotations and reflections"""
    shift: int = 0
    """augmentation: largest random shift, in pixels of the input"""
    zoom: float = 0.0
    """augmentation: largest fraction of the side that a random crop cuts away before it is resized back, in 0…1"""
    jitter: float = 0.0
    """augmentation: standard deviation of a random gain and offset of each band, in standard deviations of the band"""
    drop_bands: float = 0.0
    """augmentation: probability that a band of a patch is replaced by its mean over the train split"""
    mixup: float = 0.0
    """augmentation: parameter of mixup's beta distribution; 0: no mixup"""
    cutmix: float = 0.0
    """augmentation: parameter of cutmix's beta distribution; 0: no cutmix"""
    augment_until: float = 1.0
    """fraction of the training, in 0…1, after which zoom, jitter, drop_bands, mixup and cutmix are off and only turns and shift
    remain, so that the network ends with patches as they are"""
    ema: float = 0.0
    """decay of an exponential moving average of the weights, which is evaluated and saved; 0: no average"""
    expander: int = 1024
    """width of the three dense layers between the features and the loss of the objective vicreg; they are not saved with the
    weights"""

    views: Literal[1, 2, 4, 8] = 1
    """number of rotations and reflections of a patch over which probabilities are averaged in evaluation and prediction"""
    thresholds: Literal["half", "one", "smooth", "per_class"] = "one"
    """decision thresholds. half: 0.5; one: the best on the val split, the same for all classes; smooth: the same, from a smoothed
    score, for small val splits; per_class: one for each class"""
    select: Literal["micro_f1", "macro_f1", "micro_ap", "macro_ap", "accuracy", "mean_iou", "last"] = "last"
    """score on the val split by which the best epoch is chosen; last: the last epoch"""
    evaluate_every: int = 1
    """epochs between evaluations, counted from the first epoch; after the first and the last there always is one"""

    seed: int = 0
    """seed of initial weights, order of patches, augmentation and dropout"""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """number format of the computation. auto: bf16 on devices that compute it fast, else fp32"""
    compile: Literal["auto", "on", "off"] = "auto"
    """whether to compile the network and its input stage with torch.compile; auto: on GPUs"""
    placement: Literal["auto", "disk", "memory", "device"] = "auto"
    """where the train split is kept during the training: on the disk, in memory shared by the processes of a machine, or on the
    GPU, spread over the machine's GPUs if it is too large for one; auto: the GPU if it fits, else memory; on CPUs the disk"""
    on_divergence: Literal["stop", "backoff"] = "stop"
    """what to do when the loss explodes or is not finite: stop, or go back to the last checkpoint and halve the rate"""
    save_minutes: float = 5.0
    """minutes between checkpoints within an epoch; there is also one at the end of each epoch"""
    keep: int = 1
    """checkpoints to keep: the last one, and older ones named by their step"""


# Keys that do not change the result of a training: a resumed training may have other values.
RESUMABLE_CHANGES = ("placement", "on_divergence", "save_minutes", "keep")


def shipped() -> dict[str, Path]:
    """The YAML files of the shipped recipes, by name."""
    folder = files("landscale.training") / "recipes"
    return {path.stem: path for path in sorted(Path(str(folder)).glob("*.yaml"))}


@cache
def parser() -> ArgumentParser:
    """The command-line parser with a flag for each key of a recipe."""
    p = ArgumentParser(exit_on_error=False, add_help=False)
    p.add_class_arguments(Recipe, as_group=True)
    return p


def load_recipe(name: str | None, overrides: list[str]) -> Recipe:
    """The recipe of a shipped name or YAML file, with `--key value` overrides.

    Raises:
        UnknownName: no such recipe, key or loss. BadInput: a file that is not a recipe. LandscaleError: a value of the wrong
            type or out of range.
    """
    content: dict[str, Any] = {}
    source = ""
    if name is not None:
        path = shipped().get(name, Path(name))
        source = f"{path}: "
        if not path.is_file():
            raise UnknownName("recipe", name, shipped())
        content = read_yaml_object(path, "a recipe")
    keys = Recipe.__dataclass_fields__
    flags = [word[2:].split("=")[0].split(".")[0] for word in overrides if word.startswith("--")]
    for key in [*map(str, content), *flags]:
        if key.replace("-", "_") not in keys:
            raise UnknownName("recipe key", key, keys)
    p = parser()
    try:
        settings: Namespace = p.parse_object(content, defaults=True)
    except (ArgumentError, TypeError, ValueError) as error:
        raise LandscaleError(f"{source}{_first_line(error)}") from None
    epochs = settings.epochs  # of the recipe; flags may replace it
    try:
        settings = p.parse_args([_underscored(word) for word in overrides], namespace=settings)
    except (ArgumentError, TypeError, ValueError) as error:
        raise LandscaleError(_first_line(error)) from None
    recipe = _with_encoder(Recipe(**settings.as_dict()), content, {flag.replace("-", "_") for flag in flags})
    _check_finite(recipe)
    if recipe.model != content.get("model", recipe.model) and "options" not in flags:
        # The recipe's options are those of its own model; only drop_rate is an option of every network.
        recipe = replace(recipe, options={k: v for k, v in recipe.options.items() if k == "drop_rate"})
    if recipe.head != content.get("head", recipe.head) and not {"head_options", "head-options"} & set(flags):
        recipe = replace(recipe, head_options={})
    if epochs and epochs > 0:
        recipe = _with_scaled_schedule(recipe, epochs, {flag.replace("-", "_") for flag in flags})
    _check_ranges(recipe)
    _check_schedule(recipe)
    _check_transfer(recipe)
    _check_loss(recipe)
    check_objective(recipe)
    return recipe


# Keys that come with the network of `init`, unless they are given beside it.
_OF_NETWORK = ("options", "head", "head_options", "side", "upsample", "scale")


def _with_encoder(recipe: Recipe, content: Mapping[str, Any], flags: set[str]) -> Recipe:
    """The recipe with the network of `init`, if it is recorded there and no other is given beside it.

    Args:
        recipe: of the file and the flags.
        content: of the file. Its network and input do not belong to an `init` that is a flag.
        flags: keys that are flags.
    """
    given = flags | (content.keys() if "init" not in flags else set())
    if recipe.init is None or "model" in given:
        return recipe
    from landscale.models.pretrained_files import ENCODER, names_network  # imports torch

    if not names_network(recipe.init):
        return recipe
    default = Recipe()
    left = {key: getattr(default, key) for key in _OF_NETWORK if key not in given}
    return replace(recipe, model=ENCODER, **left)


def _with_scaled_schedule(recipe: Recipe, epochs: int, given: set[str]) -> Recipe:
    """The recipe with warm-up, milestones and `unfreeze_every` for `recipe.epochs` instead of the `epochs` of its file.

    So a shorter training keeps the shape of the schedule, as with --max-time. Keys that were `given` as flags are kept.
    """
    if recipe.epochs == epochs:
        return recipe
    scale = recipe.epochs / epochs
    if "warmup_epochs" not in given:
        recipe = replace(recipe, warmup_epochs=recipe.warmup_epochs * scale)
    if "unfreeze_every" not in given:
        recipe = replace(recipe, unfreeze_every=recipe.unfreeze_every * scale)
    if "milestones" not in given:
        recipe = replace(recipe, milestones=[epoch * scale for epoch in recipe.milestones])
    return recipe


MAX_SIDE = 4096  # px

# Smallest allowed values (of other keys: 0) and largest allowed values (of other keys: none).
_SMALLEST: dict[str, float] = dict.fromkeys(
    ("epochs", "batch", "accumulate", "keep", "side", "rate_batch", "evaluate_every", "expander"), 1
)
_SMALLEST |= {"layer_decay": 0.01}
_LARGEST: dict[str, float] = dict.fromkeys(("layer_decay", "momentum", "smoothing", "ema", "zoom", "augment_until"), 1)
_LARGEST |= dict.fromkeys(("drop_bands", "balance_beta"), 1) | dict.fromkeys(("mixup", "cutmix", "jitter"), 1000)
_LARGEST |= {"side": MAX_SIDE, "expander": 1 << 14, "seed": 2**63 - 1}


def _check_finite(recipe: Recipe) -> None:
    """Refuse keys without a value, and numbers that are infinite or not a number."""
    defaults = asdict(Recipe())
    for key, value in asdict(recipe).items():
        if value is None and defaults[key] is not None:
            raise LandscaleError(f"--{key}: has no value, expected one like {defaults[key]}")
        if infinite := [number for number in _numbers(value) if not math.isfinite(number)]:
            raise LandscaleError(f"--{key}: found {infinite[0]}, expected a finite number")


def _check_ranges(recipe: Recipe) -> None:
    for key, value in asdict(recipe).items():
        smallest, largest = _SMALLEST.get(key, 0), _LARGEST.get(key, math.inf)
        if isinstance(value, int | float) and not smallest <= value <= largest:
            limits = f"at least {smallest}" if largest == math.inf else f"{smallest} to {largest}"
            raise LandscaleError(f"--{key}: found {value}, expected {limits}")
    for pair in recipe.progressive:
        if len(pair) != 2 or not 0 <= pair[0] <= 1 or not 1 <= pair[1] <= MAX_SIDE:
            raise LandscaleError(
                f"--progressive: found {recipe.progressive}, expected pairs of a fraction in 0…1 and a side of 1 to"
                f" {MAX_SIDE} px"
            )


def _numbers(value: Any) -> Iterator[float]:
    """The number, or all numbers in a list or dict, which may contain others."""
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


def _check_schedule(recipe: Recipe) -> None:
    """Refuse keys of the schedule that would have no effect, or would take the whole training."""
    if recipe.warmup_epochs >= recipe.epochs:
        raise LandscaleError(
            f"--warmup-epochs: found {recipe.warmup_epochs:g}, expected less than the {recipe.epochs} epochs of the training"
        )
    late = [epoch for epoch in recipe.milestones if epoch >= recipe.epochs]
    if recipe.schedule == "step" and late:
        raise LandscaleError(
            f"--milestones: found {late[0]:g}, expected less than the {recipe.epochs} epochs of the training"
        )
    if recipe.rate_rule == "sqrt" and recipe.rate_batch is None:
        raise LandscaleError("--rate-rule sqrt: needs --rate-batch, the global batch size for which --rate holds")
    if recipe.rate_rule == "workers" and recipe.rate_batch is not None:
        raise LandscaleError(
            "--rate-rule workers: takes no --rate-batch, because the rate does not depend on the batch"
        )


def _check_transfer(recipe: Recipe) -> None:
    """Refuse keys of initial weights that contradict each other or would have no effect."""
    for key in ("freeze", "lora"):
        if (value := getattr(recipe, key)) and recipe.init is None:
            raise LandscaleError(f"--{key} {value}: needs --init, the weights to keep")
    if recipe.freeze and recipe.lora:
        raise LandscaleError("--lora with --freeze: adapters keep all weights of --init, so nothing is left to freeze")
    if recipe.unfreeze_every and not recipe.freeze:
        raise LandscaleError("--unfreeze-every: needs --freeze, the stages to unfreeze")
    if recipe.unfreeze_every >= recipe.epochs:
        raise LandscaleError(
            f"--unfreeze-every: found {recipe.unfreeze_every:g}, expected less than the {recipe.epochs} epochs of the training"
        )


def _check_loss(recipe: Recipe) -> None:
    from landscale.training.losses import LOSSES  # imports torch

    if recipe.loss not in LOSSES:
        raise UnknownName("loss", recipe.loss, LOSSES)


def _underscored(word: str) -> str:
    key, equals, value = word.partition("=")
    return key.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word


def _first_line(error: BaseException) -> str:
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3]) if lines else type(error).__name__


def as_yaml(recipe: Recipe) -> str:
    """A recipe as a YAML file that `load_recipe` reads."""
    return str(yaml.safe_dump(asdict(recipe), sort_keys=False, allow_unicode=True))
