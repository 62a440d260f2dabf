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
from landscale.models.headed_network import HeadedNetwork
from landscale.models.pretrained_files import Pretrained
from landscale.models.pretrained_head import describe_head, query_head, rows_by_name
from landscale.models.registry import fixed_side
from landscale.models.shared_tensors import with_shared
from landscale.models.stages import names_in_config

_NAMED = 3  # tensors that an error message names


def begin_from(classifier: Classifier, found: Pretrained) -> dict[str, Any]:
    """Load pre-trained weights into a classifier's network; after an error, the network is unchanged.

    The first convolution is adapted to the bands (see `first_convolution`). In the last layer, classes keep their weights if the
    weights were written by landscale for a class of the same name; all others begin with random ones. All other parameters
    must exist with the same name and shape. Position embeddings are resampled by timm's `checkpoint_filter_fn` if there is one.

    Args:
        classifier: its description has the normalisation of the encoder already (`encoder_input`).
        found: what `pretrained_files.find_pretrained` returned.

    Returns:
        A record of what was done, ready for JSON: `init`, `digest` (SHA-256 of the file), `done` (lines to print) and, for
        weights written by landscale, their `provenance`.

    Raises:
        LandscaleError: there are no such weights, or they do not fit the network.
    """
    d, init, encoder = classifier.description, found.name, found.description()
    whole = classifier.network
    network: nn.Module = whole.trunk if isinstance(whole, HeadedNetwork) else whole
    found, queries = _split_head(found, encoder, d, whole)
    own = network.state_dict()
    tensors, done = _resampled(found, network, d.model)
    first, heads = names_in_config(network, "first_conv"), names_in_config(network, "classifier")
    ours = channel_names(d.bands, d.scale)
    theirs, note = _channels(found.name, encoder, tensors, own, first, ours)
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

    prefixes = tuple(f"{head}." for head in heads)
    last = {key for key in own if key.startswith(prefixes)}
    classes = encoder.classes if encoder else ()
    kept = rows_by_name({key: own[key] for key in last}, tensors, d.classes, classes) if last else {}
    tensors = {key: t for key, t in tensors.items() if not key.startswith(prefixes)} | kept
    if network is not whole:  # modules that a query head does not use were removed from its trunk
        idle = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, nn.Identity) and name)
        tensors = {key: t for key, t in tensors.items() if key in own or not key.startswith(idle)}
    if d.classes:
        done.append(describe_head(d.classes, classes, kept=bool(kept or queries)))
    # These may keep their initial values: the last layer, and the counters of batch norms, which old files lack.
    fresh = {k: t for k, t in own.items() if (k in last and not kept) or k.endswith("num_batches_tracked")}
    tensors = fresh | with_shared(network, tensors)
    _check_fit(init, d, encoder, tensors, own)
    network.load_state_dict(tensors)
    if queries:
        whole.head.load_state_dict(queries)  # type: ignore[union-attr]
    record: dict[str, Any] = {"init": init, "digest": found.digest, "done": done}
    if found.is_landscale:
        record["provenance"] = {k: v for k, v in dict(found.config.get("provenance", {})).items() if k != "scores"}
    return record


def _split_head(
    found: Pretrained, encoder: Description | None, d: Description, whole: nn.Module
) -> tuple[Pretrained, dict[str, Tensor]]:
    """Split weights with an added head into those of the trunk and, if our head has the same options, of the head."""
    if encoder is None or encoder.head == "linear":
        return found, {}
    trunk, head = (
        {key.removeprefix(part): t for key, t in found.tensors.items() if key.startswith(part)}
        for part in ("trunk.", "head.")
    )
    queries = {}
    if d.classes and encoder.classes and (d.head, d.head_options) == (encoder.head, encoder.head_options):
        own: dict[str, Tensor] = whole.head.state_dict()  # type: ignore[union-attr,operator]
        if not d.pixels:
            queries = query_head(own, head, d.classes, encoder.classes)
        elif d.classes == encoder.classes and {k: t.shape for k, t in own.items()} == {
            k: t.shape for k, t in head.items()
        }:
            queries = head
    return replace(found, tensors=trunk), queries


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
    name: str,
    encoder: Description | None,
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    first: Sequence[str],
    ours: Sequence[str],
) -> tuple[tuple[str, ...], list[str]]:
    """Names of the channels that the weights were trained on, and lines about assumptions made."""
    if encoder is not None:
        return channel_names(encoder.bands, encoder.scale), []
    known = [key for key in (f"{name}.weight" for name in first) if key in tensors and key in own]
    if not known:  # the weights lack this convolution; missing tensors are reported later
        return tuple(ours), []
    channels = tensors[known[0]].shape[1] * len(ours) / own[known[0]].shape[1]
    if channels == len(RGB):
        return RGB, []
    if channels == len(ours):
        return tuple(ours), [f"its {len(ours)} channels have no names: taken for {', '.join(ours)}"]
    raise BadInput(
        name,
        f"sees {channels:g} channels of unknown bands; expected 3 (RGB), our {len(ours)}, or landscale's weights",
    )


def _adapted(init: str, name: str, weight: Tensor, matrix: Tensor) -> Tensor:
    try:
        return adapt_weights(weight, matrix)
    except ValueError as error:
        raise BadInput(init, f"{name}: {error}") from None


def _check_fit(
    init: str,
    d: Description,
    encoder: Description | None,
    tensors: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
) -> None:
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
    if encoder and problems["differs in shape in"] and encoder.side != d.side and fixed_side(d.model):
        lines.append(f"it was trained at {encoder.side} px, expected {d.side} px; use --side {encoder.side}")
    if lines:
        raise BadInput(init, f"does not fit {d.model}: {'; '.join(lines)}")
