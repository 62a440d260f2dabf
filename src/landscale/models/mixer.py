"""The small MLP-Mixers of Papoutsis et al. 2022, on timm's: tokens of 12 px, mixed over tokens and over channels.

Tolstikhin et al. 2021 (MLP-Mixer: an all-MLP architecture for vision). Parameters compared with the authors': their blocks
normalise over tokens where the paper normalises over channels. Each of a block's two layer norms has two weights per channel
here, and two per token in the authors' code, with 100 tokens of 128 channels (64 in the tiny one) at 120 px.
"""

from __future__ import annotations

from typing import Any

from timm.models.mlp_mixer import MlpMixer

from landscale.models import family
from landscale.models.family import BANDS, CLASSES
from landscale.models.registry import PATCH_SIDE, ZooEntry
from landscale.models.vit import check_sides


class Mixer(MlpMixer):
    """timm's MLP-Mixer, with widths as absolute numbers instead of ratios; T = (img_size / token)² tokens.

    Args:
        num_classes: width of the output; 0 leaves the classifier out.
        in_chans: number of bands.
        img_size: input side in pixels, or height and width: multiples of `token`.
        token: side of a token in pixels.
        width: channels of a token.
        depth: number of blocks.
        token_mlp: hidden width of the MLP over tokens.
        channel_mlp: hidden width of the MLP over channels.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth, the same in every block.
        global_pool: `avg`, the mean of all tokens.

    Shapes: (N, in_chans, img_size, img_size) → (N, num_classes).

    Raises:
        LandscaleError: the side is not a multiple of the token side.
    """

    def __init__(
        self,
        num_classes: int = CLASSES,
        in_chans: int = BANDS,
        *,
        img_size: int | tuple[int, int] = PATCH_SIDE,
        token: int = 12,
        width: int = 128,
        depth: int = 4,
        token_mlp: int = 64,
        channel_mlp: int = 200,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        check_sides(img_size, token)
        sides: Any = img_size  # timm accepts height and width, but its annotation does not
        super().__init__(
            num_classes,
            sides,
            in_chans,
            token,
            depth,
            width,
            mlp_ratio=(
                (token_mlp + 0.5) / width,
                (channel_mlp + 0.5) / width,
            ),  # multiples of the width; timm rounds down
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            global_pool=global_pool,
        )
        self.drop_rate = drop_rate
        self.reset_classifier(
            num_classes
        )  # timm initialises it with 0, so earlier layers would get no gradient at first


_SOURCE = "Tolstikhin et al. 2021, MLP-Mixer: an all-MLP architecture for vision; Papoutsis et al. 2022"
for _name, _options in (
    ("mlp_mixer", {}),
    ("mlp_mixer_tiny", {"width": 64, "depth": 2, "token_mlp": 64, "channel_mlp": 64}),
):
    family.add_network(
        Mixer,
        ZooEntry(_name, "mlp_mixer", _SOURCE),
        _options,
        first_conv="stem.proj",
        classifier="head",
        fixed_side=True,
        features={"feature_cls": "getter", "out_indices": 2},
        counts={"mlp_mixer": 446_723, "mlp_mixer_tiny": 136_955},
    )

__all__ = ["Mixer"]  # set last, because timm appends every entry point to it
