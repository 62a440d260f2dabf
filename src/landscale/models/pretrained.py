"""Load pre-trained weights of the same architecture into a network with other bands and other classes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import timm
from torch import Tensor, nn

from landscale.errors import BadInput, reason
from landscale.models.classifier import Classifier, Description
from landscale.models.first_convolution import RGB, adapt_weights, channel_names, describe_mapping, map_channels
from landscale.models.heads import HeadedNetwork
from landscale.models.pretrained_files import Pretrained, find_pretrained
from landscale.models.shared_tensors import with_shared
from landscale.vocabulary.units import conversion, differ

_NAMED = 3  # tensors that an error message names


def begin_from(classifier: Classifier, init: str) -> dict[str, Any]:
    """Load pre-trained weights into a classifier's network; after an error, the network is unchanged.

    The first convolution is adapted to the bands (see `first_convolution`). The last layer is loaded if the weights were
    written by landscale for the same class names, in any order; otherwise it keeps its random weights. All other parameters
    must exist with the same name and shape. Position embeddings are resampled by timm's `checkpoint_filter_fn` if there is one.

    Args:
        init: `imagenet`, a path, or a name on the Hugging Face hub, as `pretrained_files.find_pretrained` takes it.

    Returns:
        A record of what was done, ready for JSON: `init`, `digest` (SHA-256 of the file), `done` (lines to print) and, for
        weights written by landscale, their `provenance`.

    Raises:
        LandscaleError: there are no such weights, or they do not fit the network.
    """
    d = classifier.description
    whole = classifier.network
    network: nn.Module = whole.trunk if isinstance(whole, HeadedNetwork) else whole
    found = find_pretrained(init, d.model)
    found, queries = _split_head(found, d)
    own = network.state_dict()
    tensors, done = _resampled(found, network, d.model)
    first, heads = _module_names(network, "first_conv"), _module_names(network, "classifier")
    ours = channel_names(d.bands, d.scale)
    theirs, note = _channels(found, tensors, own, first, ours)
    done += note
    if theirs != ours:
        if not first:
            raise BadInput(
                init, f"{d.model} has no list of the layers that see its bands: only weights of the same bands fit"
            )
        matrix = map_channels(ours, theirs)
        for name in first:
            if f"{name}.weight" in tensors:
                tensors[f"{name}.weight"] = _adapted(init, name, tensors[f"{name}.weight"], matrix)
        done.append(f"first convolution: {describe_mapping(ours, matrix, theirs)}")

    done += _differing_units(found, d)
    prefixes = tuple(f"{head}." for head in heads)
    last = {key for key in own if key.startswith(prefixes)}
    kept = _kept_head(found, tensors, d.classes, last)
    tensors = {key: t for key, t in tensors.items() if not key.startswith(prefixes)} | kept
    if network is not whole:  # modules that a query head does not use were removed from its trunk
        idle = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, nn.Identity) and name)
        tensors = {key: t for key, t in tensors.items() if key in own or not key.startswith(idle)}
    stays = "kept, its classes by name" if kept or queries else f"fresh, {len(d.classes)} classes"
    done.append(f"last layer: {stays}")
    # These may keep their initial values: the last layer, and the counters of batch norms, which old files lack.
    fresh = {k: t for k, t in own.items() if (k in last and not kept) or k.endswith("num_batches_tracked")}
    tensors = fresh | with_shared(network, tensors)
    _check_fit(init, d.model, tensors, own)
    network.load_state_dict(tensors)
    if queries:
        whole.head.load_state_dict(queries)  # type: ignore[union-attr]
    record: dict[str, Any] = {"init": init, "digest": found.digest, "done": [f"begins from {found.name}", *done]}
    if found.is_landscale:
        record["provenance"] = {k: v for k, v in dict(found.config.get("provenance", {})).items() if k != "scores"}
    return record


def _split_head(found: Pretrained, d: Description) -> tuple[Pretrained, dict[str, Tensor]]:
    """Split weights with a query head into those of the trunk and, if the heads are equal, of the head."""
    if found.config.get("head", "linear") == "linear" or not found.is_landscale:
        return found, {}
    trunk, head = (
        {key.removeprefix(part): t for key, t in found.tensors.items() if key.startswith(part)}
        for part in ("trunk.", "head.")
    )
    own_head = (d.head, dict(d.head_options), list(d.classes))  # the order of the classes matters to a query head
    same = own_head == tuple(found.config.get(key) for key in ("head", "head_options", "classes"))
    return replace(found, tensors=trunk), head if same else {}


def _module_names(network: nn.Module, key: str) -> tuple[str, ...]:
    """Names of modules, none or several, under a key of timm's configuration of a network."""
    cfg: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    names: str | Sequence[str] | None = cfg.get(key)
    return (names,) if isinstance(names, str) else tuple(names or ())


def _resampled(found: Pretrained, network: nn.Module, model: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors after timm's filter for the network, which renames old keys and resamples position embeddings."""
    tensors = dict(found.tensors)
    convert = getattr(sys.modules[timm.model_entrypoint(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return tensors, []
    try:
        converted: dict[str, Tensor] = convert(dict(tensors), network)
    except (KeyError, AttributeError, IndexError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise BadInput(found.name, f"does not fit {model} ({reason(error)})") from None
    changed = [k for k, t in converted.items() if k in tensors and t.shape != tensors[k].shape]
    more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    return converted, [f"resampled: {', '.join(changed[:_NAMED])}{more}"] if changed else []


def _channels(
    found: Pretrained,
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    first: Sequence[str],
    ours: Sequence[str],
) -> tuple[tuple[str, ...], list[str]]:
    """Names of the channels that the weights were trained on, and lines about assumptions made."""
    if found.is_landscale:
        try:
            return channel_names(found.config["bands"], found.config.get("scale", "linear")), []
        except (KeyError, TypeError):
            raise BadInput(found.name, "its config.json lists no bands") from None
    known = [key for key in (f"{name}.weight" for name in first) if key in tensors and key in own]
    if not known:  # the weights lack this convolution; missing tensors are reported later
        return tuple(ours), []
    channels = tensors[known[0]].shape[1] * len(ours) / own[known[0]].shape[1]
    if channels == len(RGB):
        return RGB, []
    if channels == len(ours):
        return tuple(ours), [f"its {len(ours)} channels have no names: taken for {', '.join(ours)}"]
    raise BadInput(
        found.name,
        f"sees {channels:g} channels of unknown bands; expected 3 (RGB), our {len(ours)}, or landscale's weights",
    )


def _differing_units(found: Pretrained, d: Description) -> list[str]:
    """Lines about weights of landscale that were trained on other units or another level.

    They may still be a beginning, because the input stage normalises pixels by the statistics of their own store.
    """
    theirs, level = found.config.get("units"), found.config.get("level")
    pairs = (
        {(theirs[b], d.units.get(b, "unknown")) for b in d.bands if b in theirs} if isinstance(theirs, dict) else set()
    )
    lines = [f"its pixels were {a}, ours are {b}" for a, b in sorted(pairs) if conversion(a, b) is None]
    return lines + ([f"its pixels were of level {level}, ours are of {d.level}"] if differ(level, d.level) else [])


def _adapted(init: str, name: str, weight: Tensor, matrix: Tensor) -> Tensor:
    try:
        return adapt_weights(weight, matrix)
    except ValueError as error:
        raise BadInput(init, f"{name}: {error}") from None


def _kept_head(
    found: Pretrained, tensors: Mapping[str, Tensor], classes: Sequence[str], last: set[str]
) -> dict[str, Tensor]:
    """The last layer with rows in our order of classes; empty if the classes differ or are unknown."""
    theirs = list(found.config.get("classes", ())) if found.is_landscale else []
    if sorted(theirs) != sorted(classes) or not all(k in tensors and len(tensors[k]) == len(theirs) for k in last):
        return {}
    order = [theirs.index(name) for name in classes]
    return {key: tensors[key][order] for key in last}


def _check_fit(init: str, model: str, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    problems = {
        "lacks": [key for key in own if key not in tensors],
        "has the unexpected": [key for key in tensors if key not in own],
        "differs in shape in": [k for k in own if k in tensors and own[k].shape != tensors[k].shape],
        "is not finite in": [k for k, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()],
    }
    lines = [
        f"{what} {', '.join(keys[:_NAMED])}" + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
        for what, keys in problems.items()
        if keys
    ]
    if lines:
        raise BadInput(init, f"does not fit {model}: {'; '.join(lines)}")
