"""Classification heads that use attention to the last feature map instead of pooling: ML-Decoder and query heads.

There is a learned query for every class or for a group of classes. By cross-attention it collects features from all
positions of the network's last map, and a linear layer for each query computes the logits of its classes:

    ml_decoder  Ridnik et al. 2023 (ML-Decoder): no attention among queries; `groups` of them may share the classes
    query       Liu et al. 2021 (Query2Label): the queries also attend to each other, so that evidence for one class
                influences the others

Layers are pre-normalised, and cross-attention to the map comes before attention among queries (as in Cheng et al. 2022,
Mask2Former), because the initial queries do not depend on the input. Positions are not encoded, because labels are those of whole
patches. timm's MLDecoder does not run with current versions of torch, has five million parameters at any width of the
network, and its queries are not trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import Attention, Mlp
from torch import Tensor, nn

from landscale.errors import LandscaleError, UnknownName
from landscale.models.headed_network import HeadedNetwork
from landscale.models.options import HEAD_OPTIONS, check_options
from landscale.models.pixel_head import PixelNetwork
from landscale.models.registry import create_model

HEADS: dict[str, dict[str, Any]] = {
    "linear": {},
    "ml_decoder": {"layers": 1, "groups": 100},
    "query": {"layers": 2, "among": True},
}
PIXELS = "pixels"  # the head of the task pixels (`pixel_head`); its only option is the width


class DecoderLayer(nn.Module):
    """Queries attend to the tokens of a map, then to each other if `among`, and pass through an MLP.

    Shapes: queries (N, Q, width), tokens (N, T, features) → (N, Q, width).
    """

    def __init__(self, features: int, width: int, heads: int, *, among: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.cross = nn.MultiheadAttention(width, heads, kdim=features, vdim=features, batch_first=True)
        self.among = nn.Sequential(nn.LayerNorm(width), Attention(width, heads, qkv_bias=True)) if among else None
        self.mlp = nn.Sequential(nn.LayerNorm(width), Mlp(width, 4 * width))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        queries = queries + self.cross(self.norm1(queries), tokens, tokens, need_weights=False)[0]
        if self.among is not None:
            queries = queries + self.among(queries)
        out: Tensor = queries + self.mlp(queries)
        return out


class QueryHead(nn.Module):
    """Learned queries that turn the tokens of a map into logits.

    Args:
        features: width of the tokens.
        classes: at least 1.
        layers: number of decoder layers.
        width: length of a query.
        heads: number of attention heads, a divisor of `width`.
        groups: largest number of queries; if there are more classes, each query gives the logits of ⌈classes / groups⌉.
        among: whether the queries attend to each other.
        drop_rate: dropout on the decoded queries.

    Shapes: (N, T, features) → (N, classes).

    Raises:
        LandscaleError: a size is below 1, or `heads` does not divide `width`.
    """

    def __init__(
        self,
        features: int,
        classes: int,
        *,
        layers: int = 1,
        width: int = 256,
        heads: int = 8,
        groups: int | None = None,
        among: bool = False,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if min(layers, width, heads, classes if groups is None else groups) < 1 or width % heads:
            found = f"layers {layers}, width {width}, heads {heads}, groups {groups}"
            raise LandscaleError(f"head: found {found}, expected at least 1 of each and a width that heads divide")
        per_query = -(-classes // min(groups or classes, classes))  # classes per query
        queries = -(-classes // per_query)
        self.num_classes = classes
        self.norm = nn.LayerNorm(features)
        self.queries = nn.Parameter(torch.randn(queries, width))
        self.layers = nn.ModuleList(DecoderLayer(features, width, heads, among=among) for _ in range(layers))
        self.decoded = nn.Sequential(nn.LayerNorm(width), nn.Dropout(drop_rate))
        self.weight = nn.Parameter(torch.empty(queries, width, per_query).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm(tokens)
        queries = self.queries.to(tokens.dtype).expand(len(tokens), -1, -1)
        for layer in self.layers:
            queries = layer(queries, tokens)
        logits = torch.einsum("nqw,qws->nqs", self.decoded(queries), self.weight)
        return logits.flatten(1)[:, : self.num_classes] + self.bias


class QueryNetwork(HeadedNetwork):
    """A network with a `QueryHead` on its last map or tokens: (N, bands, side, side) → logits (N, classes).

    Args:
        trunk, classes, shape: as for `HeadedNetwork`.
        options: arguments of `QueryHead`; `drop_rate` is that of the trunk by default.

    Raises:
        LandscaleError: the trunk returns neither a map nor tokens.
    """

    def __init__(self, trunk: nn.Module, classes: int, shape: tuple[int, int], **options: Any) -> None:
        self.options = {"drop_rate": getattr(trunk, "drop_rate", 0.0), **options}
        self.drop_rate = float(self.options["drop_rate"])
        super().__init__(trunk, classes, shape)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features → (N, num_classes), or their mean over tokens (N, num_features)."""
        out: Tensor = super().forward_head(x) if pre_logits or not self.num_classes else self.head(self.tokens(x))
        return out

    def make_head(self, classes: int) -> nn.Module:
        return QueryHead(self.num_features, classes, **self.options)

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay in timm's optimisers, besides norms and biases."""
        return {"head.queries", *super().no_weight_decay()}


def create_with_head(
    model: str,
    bands: int,
    classes: int,
    side: int,
    head: str = "linear",
    head_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """`create_model` with a head by name; `linear` is the network's own.

    Shapes: (N, bands, side, side) → (N, classes), or with the head `pixels` (N, classes, side, side).

    Raises:
        UnknownName: no such model or head. LandscaleError: the head has no such option, or the network returns no map.
    """
    if head not in (*HEADS, PIXELS):
        raise UnknownName("head", head, HEADS)
    given = dict(head_options or {})
    known: tuple[str, ...] = () if head == "linear" else ("width",)
    if HEADS.get(head):
        known += ("layers", "heads", "drop_rate", *HEADS[head].keys() - {"among"})
    if refused := sorted(given.keys() - set(known)):
        raise LandscaleError(f"head '{head}' takes no option '{refused[0]}'")
    check_options(f"head '{head}'", given, HEAD_OPTIONS)
    network = create_model(model, bands, 0 if head != "linear" else classes, side, **options)
    if head == "linear":
        return network
    try:
        dropout = {k: v for k, v in options.items() if k == "drop_rate"}  # not every network has it as an attribute
        if head == PIXELS:
            return PixelNetwork(network, classes, (bands, side), **given)
        return QueryNetwork(network, classes, (bands, side), **HEADS[head] | dropout | given)
    except LandscaleError as error:
        raise LandscaleError(
            f"{'--task' if head == PIXELS else '--head'} {head} with model '{model}': {error}"
        ) from None
