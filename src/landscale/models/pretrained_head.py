"""The last layer of pre-trained weights in a network with other classes: what belongs to a class of the same name is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

_NAMED = 3  # classes that a line names
_BY_CLASS = ("queries", "weight", "bias")  # of a query head with one query for each class


def rows_by_name(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], classes: Sequence[str], theirs: Sequence[str]
) -> dict[str, Tensor]:
    """The tensors of a last layer, in whose first axis each class has a row: the found rows where a class has one, else own ones.

    Args:
        own: the tensors of our layer by name.
        found: those of the pre-trained weights, among others.
        classes, theirs: names of our classes and of those of the weights, in the order of the rows.

    Returns:
        All tensors of our layer; none if no class has the same name or the layers have other shapes.
    """
    common = [name for name in classes if name in theirs]
    fit = all(k in found and found[k].shape == (len(theirs), *own[k].shape[1:]) for k in own)
    if not common or not fit:
        return {}
    to, source = ([names.index(name) for name in common] for names in (list(classes), list(theirs)))
    return {key: tensor.index_copy(0, torch.tensor(to), found[key][source].to(tensor)) for key, tensor in own.items()}


def query_head(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], classes: Sequence[str], theirs: Sequence[str]
) -> dict[str, Tensor]:
    """The same for a head of queries (`heads.QueryHead`) with the same options.

    Its tensors are those of the weights if the classes are the same in the same order, and else if each class has a query of
    its own.
    """
    if list(classes) == list(theirs):
        return dict(found)
    if any(t["weight"].shape[-1] != 1 for t in (own, found) if "weight" in t) or own.keys() != found.keys():
        return {}
    shared = {key: tensor for key, tensor in found.items() if key not in _BY_CLASS}
    if any(tensor.shape != own[key].shape for key, tensor in shared.items()):
        return {}
    rows = rows_by_name({key: own[key] for key in _BY_CLASS}, found, classes, theirs)
    return {**shared, **rows} if rows else {}


def describe_head(classes: Sequence[str], theirs: Collection[str], *, kept: bool) -> str:
    """A line about the last layer; `kept`: whether the rows of classes that are also `theirs` were kept."""
    common = [name for name in classes if name in theirs] if kept else []
    if len(common) == len(classes) and kept:
        return "last layer: kept, its classes by name"
    if not common:
        return f"last layer: fresh, {len(classes)} classes"
    more = f" and {len(common) - _NAMED} more" if len(common) > _NAMED else ""
    left = len(classes) - len(common)
    return f"last layer: kept for {', '.join(common[:_NAMED])}{more}, fresh for {left} other class{'es' * (left > 1)}"
