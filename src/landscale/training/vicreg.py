"""Learning without labels: VICReg (Bardes, Ponce & LeCun 2022, arXiv:2105.04906).

Every patch of a batch is augmented twice. An expander, an MLP behind the network's features, maps both views to vectors. The loss
makes the two vectors of a patch equal (invariance), keeps the standard deviation of every component over the batch at 1
(variance), and keeps the components uncorrelated (covariance). Without the last two, all vectors could become the same.

There is no second network, no queue and no momentum, so a checkpoint holds nothing but the network, its expander and the
optimiser. The expander is left out of the weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from landscale.training.norms import sum_over_ranks
from landscale.training.step import Augment

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0  # weights of the three terms, those of the authors' code
_SMALL = 1e-4  # added to variances, so that the square root has a gradient at 0


class Expanded(nn.Module):
    """A network without classes and its expander: three dense layers, with batch norm and ReLU between them.

    Args:
        encoder: (n, channels, side, side) → features (n, F).
        features: F.
        width: outputs of each layer of the expander.

    Shapes: (n, channels, side, side) → (n, width).
    """

    def __init__(self, encoder: nn.Module, features: int, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.expander = nn.Sequential(
            *(nn.Linear(features, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
            nn.Linear(width, width, bias=False),
        )

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = self.expander(self.encoder(values).flatten(1))
        return found

    def no_weight_decay(self) -> set[str]:
        """Parameters without weight decay in timm's optimisers, besides norms and biases."""
        return {f"encoder.{name}" for name in getattr(self.encoder, "no_weight_decay", set)()}


def expanded(encoder: nn.Module, shape: tuple[int, int, int], width: int, seed: int) -> Expanded:
    """A network with a new expander on its device.

    Args:
        encoder: a network without classes.
        shape: channels, side and side of its input.
        width: of the expander. seed: of its initial weights.
    """
    device = next(encoder.parameters()).device
    training = encoder.training
    with torch.no_grad():
        features = encoder.eval()(torch.zeros(1, *shape, device=device)).flatten(1).shape[1]
    encoder.train(training)
    torch.manual_seed(seed)
    return Expanded(encoder, features, width).to(device)


def two_views(augment: Augment, values: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Augment each patch twice: values (n, …) → (2n, …), all first views and then all second ones. Targets are not changed."""
    views = [augment(values, targets)[0] for _ in range(2)]
    return torch.cat(views), targets


class VicReg:
    """The loss of a batch that is spread over `world` ranks; means, variances and covariances are those of the whole batch.

    The loss is the same on every rank. Its gradient is `world` times that with respect to a rank's own vectors, so that
    the mean over ranks, which DDP computes, is the gradient of the whole batch.
    """

    figures = ("invariance", "variance", "covariance", "deviation")
    """What is returned besides the loss: its three weighted terms, and the mean standard deviation of the vectors' components,
    which is near 1, and near 0 if all vectors have become the same."""

    def __init__(self, world: int = 1) -> None:
        self._world = world

    def __call__(self, vectors: Tensor, _targets: Tensor) -> Tensor:
        """Vectors (2n, D) as from `two_views` → (1 + figures,) float32; all but the first, the loss, have no gradient."""
        views = torch.stack(vectors.float().chunk(2))  # (2, n, D)
        width = views.shape[-1]
        difference = (views[0] - views[1]).square().sum()[None] / width
        count = views.new_full((1,), float(views.shape[1]))
        sums = self._sum(torch.cat([views.sum(1).flatten(), difference, count]))
        count = sums[-1].detach()
        means = sums[:-2].view(2, 1, width)
        centred = views - means / count
        covariances = self._sum(centred.mT @ centred) / (count - 1)  # (2, D, D)
        deviations = (covariances.diagonal(dim1=1, dim2=2) + _SMALL).sqrt()
        others = covariances.square().sum() - covariances.diagonal(dim1=1, dim2=2).square().sum()
        terms = torch.stack(
            [
                INVARIANCE * sums[-2] / count,
                VARIANCE * F.relu(1 - deviations).mean(),
                COVARIANCE * others / width,
            ]
        )
        return torch.cat([terms.sum()[None], terms.detach(), deviations.detach().mean()[None]])

    def _sum(self, values: Tensor) -> Tensor:
        return values if self._world == 1 else sum_over_ranks(values)
