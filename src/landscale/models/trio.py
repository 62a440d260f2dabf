"""An ensemble of small, different networks that are trained together: for stores of a few hundred patches.

Three kinds of members: convolutional networks of two depths, pooled into means, standard deviations and maxima, and a spectral
member that uses single pixels and the statistics of the bands, as classical classifiers do. The loss is the mean over the
members, so that each learns to classify on its own; a shared classifier would let members rely on each other. Their
probabilities are averaged.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscale.errors import LandscaleError
from landscale.models import family
from landscale.models.registry import ZooEntry


def pool_statistics(x: Tensor, kinds: str) -> Tensor:
    """(n, c, h, w) → (n, c·len(kinds)) float32, statistics over the pixels: a(verage), s(tandard deviation), m(aximum)."""
    x = x.float()
    mean = x.mean((2, 3))
    found = {"a": mean}
    if "s" in kinds:
        found["s"] = ((x - mean[:, :, None, None]).square().mean((2, 3)) + 1e-4).sqrt()
    if "m" in kinds:
        found["m"] = x.amax((2, 3))
    return torch.cat([found[kind] for kind in kinds], dim=1)


class PreActivationBlock(nn.Module):
    """BN–ReLU–conv–BN–ReLU–conv plus a shortcut (He et al. 2016, Identity mappings in deep residual networks)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        project = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, bias=False) if project else None
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.bn1(x))
        short = x
        if self.shortcut is not None:
            short = self.shortcut(F.avg_pool2d(inner, self.stride, ceil_mode=True) if self.stride > 1 else inner)
        out: Tensor = short + self.conv2(F.relu(self.bn2(self.conv1(inner))))
        return out


class SpatialMember(nn.Module):
    """A short residual network of `depth` blocks; the stem and every block but the first halve the resolution."""

    def __init__(self, bands: int, depth: int, kinds: str, width: int = 32) -> None:
        super().__init__()
        channels = [width, *(width * 2 ** min(k, 2) for k in range(depth))]
        self.stem = nn.Conv2d(bands, width, 3, 2, 1, bias=False)
        self.blocks = nn.Sequential(
            *(PreActivationBlock(i, o, 2 if k else 1) for k, (i, o) in enumerate(pairwise(channels)))
        )
        self.norm = nn.BatchNorm2d(channels[-1])
        self.kinds, self.features = kinds, channels[-1] * len(kinds)

    def forward(self, x: Tensor) -> Tensor:
        return pool_statistics(F.relu(self.norm(self.blocks(self.stem(x)))), self.kinds)


class SpectralMember(nn.Module):
    """Features: mean and standard deviation of the bands, and statistics over pixels of an embedding of each spectrum."""

    def __init__(self, bands: int, width: int = 64) -> None:
        super().__init__()

        def layer(inputs: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]

        self.pixel = nn.Sequential(*layer(bands), *layer(width))
        self.features = 2 * bands + 3 * width

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([pool_statistics(x, "as"), pool_statistics(self.pixel(F.avg_pool2d(x, 2)), "asm")], dim=1)


class Trio(nn.Module):
    """`copies` of three members for each of `parts` equal parts of the channels.

    Input (n, bands, h, w), best at about 60 px for 1.2 km.
    Output: in eval mode the logits (n, classes) of the members' mean probability; in training mode the logits of every
    member (n, members, classes), so that each member has its own loss.
    """

    def __init__(
        self, in_chans: int = 12, num_classes: int = 19, drop_rate: float = 0.3, parts: int = 1, copies: int = 1
    ) -> None:
        super().__init__()
        if in_chans % parts:
            raise LandscaleError(f"model 'trio' cannot cut {in_chans} channels into {parts} equal parts")
        self.parts = parts
        bands = in_chans // parts
        kinds = (
            lambda: SpatialMember(bands, 2, "asm"),
            lambda: SpatialMember(bands, 3, "am"),
            lambda: SpectralMember(bands),
        )
        self.members = nn.ModuleList(make() for _ in range(parts) for _ in range(copies) for make in kinds)
        self.sizes = [int(member.features) for member in self.members]  # type: ignore[arg-type]
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in self.sizes)
        self.num_features = self.head_hidden_size = sum(self.sizes)
        self.drop_rate = drop_rate
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, **_: Any) -> None:
        self.num_classes = num_classes
        self.fc: nn.Module = nn.Identity()
        if num_classes:
            self.fc = nn.Linear(self.num_features, num_classes, device=next(self.parameters()).device)
            nn.init.normal_(self.fc.weight, std=1e-3)
            nn.init.constant_(self.fc.bias, -1.5)  # most classes are absent from most patches

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:  # noqa: ARG002  the interface of timm
        """Patterns of timm's `group_parameters`: the stems of all members, then their blocks; `coarse` makes no difference."""
        stem = r"^members\.\d+\.(?:stem|pixel\.[01]\.)"
        second = (r"^members\.\d+\.pixel", (0,))  # of a spectral member
        norms = (r"^members\.\d+\.norm|^norms", (99999,))  # belong to the last blocks
        return {"stem": stem, "blocks": [(r"^members\.\d+\.blocks\.(\d+)", None), second, norms]}

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward_features(self, x: Tensor) -> Tensor:
        """(n, features): the normalised features of the members, concatenated."""
        parts = [part for part in x.chunk(self.parts, dim=1) for _ in range(len(self.members) // self.parts)]
        found = [norm(m(part).float()) for m, norm, part in zip(self.members, self.norms, parts, strict=True)]
        return torch.cat(found, dim=1)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        features = F.dropout(features, self.drop_rate, self.training)
        if pre_logits or not isinstance(self.fc, nn.Linear):
            return features
        pairs = zip(torch.split(features, self.sizes, 1), torch.split(self.fc.weight, self.sizes, 1), strict=True)
        logits = torch.stack([F.linear(f, w, self.fc.bias) for f, w in pairs], dim=1).float()
        if self.training:
            return logits
        return torch.logit(logits.sigmoid().mean(1), eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


family.add_network(
    Trio,
    ZooEntry("trio", "trio", "landscale, for stores of a few hundred patches", 60),
    {},
    first_conv=(),
    classifier="fc",
)
