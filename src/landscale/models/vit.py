"""The small vision transformers of Papoutsis et al. 2022: tokens of 6 to 40 px and a dense head over all of them.

Dosovitskiy et al. 2021 (An image is worth 16×16 words) without a class token: after the encoder the tokens are
flattened, so the head depends on their positions and has nearly all parameters. A network fits one input side.
Parameters compared with the authors' code: their position embedding is a linear map of the token's index (64 weights),
which puts all positions on one line; ours is learned, 64 weights a token. The rest is equal.

`vit_m20` is OUR RECONSTRUCTION: the paper has a larger ViT/20 and does not give its size. Ours doubles the width, the
heads and the MLP and has 12 blocks instead of 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from timm.layers import Attention, to_2tuple
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from landscale.errors import LandscaleError
from landscale.models import family
from landscale.models.family import BANDS, CLASSES
from landscale.models.registry import PATCH_SIDE, ZooEntry

HEAD_WIDTH = 64  # of a query, key and value


def check_sides(img_size: int | tuple[int, int], token: int) -> None:
    """Raise LandscaleError unless the side `img_size`, or height and width, are multiples of `token`, all in pixels."""
    for side in to_2tuple(img_size):
        if side < token or side % token:
            raise LandscaleError(f"input side {side} px is not a multiple of the token side, {token} px")


class WideAttention(Attention):
    """timm's attention with 64 channels per head for any width of the tokens."""

    def __init__(self, dim: int, **options: Any) -> None:
        super().__init__(dim, attn_head_dim=HEAD_WIDTH, **options)


class FlatViT(VisionTransformer):
    """A transformer whose tokens are flattened into dense layers; T = (img_size / token)² tokens.

    Args:
        num_classes: width of the output; 0 leaves the classifier out.
        in_chans: number of bands.
        img_size: input side in pixels, or height and width: multiples of `token`.
        token: side of a token in pixels.
        width: channels of a token.
        depth: number of blocks.
        heads: number of attention heads, 64 channels each.
        mlp_ratio: hidden width of a block's MLP, as a multiple of `width`.
        dense: widths of the dense layers before the classifier.
        drop_rate: dropout around the dense layers.
        encoder_drop_rate: dropout of attention weights and after every layer of a block.
        drop_path_rate: stochastic depth, growing from 0 at the first block to this at the last.

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
        token: int = 6,
        width: int = 64,
        depth: int = 8,
        heads: int = 4,
        mlp_ratio: float = 2.0,
        dense: Sequence[int] = (2048, 1024),
        drop_rate: float = 0.5,
        encoder_drop_rate: float = 0.1,
        drop_path_rate: float = 0.0,
    ) -> None:
        check_sides(img_size, token)
        super().__init__(
            img_size,
            token,
            in_chans,
            num_classes,
            global_pool="",
            embed_dim=width,
            depth=depth,
            num_heads=heads,
            mlp_ratio=mlp_ratio,
            class_token=False,
            proj_drop_rate=encoder_drop_rate,
            attn_drop_rate=encoder_drop_rate,
            drop_path_rate=drop_path_rate,
            attn_layer=WideAttention,
        )
        self.drop_rate = drop_rate
        self.dense: nn.Module = nn.Sequential(nn.Flatten(1), nn.Dropout(drop_rate))
        widths = [self.patch_embed.num_patches * width, *dense]
        for inputs, outputs in pairwise(widths):
            layer = nn.Linear(inputs, outputs)
            nn.init.xavier_uniform_(
                layer.weight
            )  # timm's standard deviation of 0.02 suits inputs as wide as one token, but not as all tokens together
            nn.init.zeros_(layer.bias)
            self.dense.extend([layer, nn.GELU(), nn.Dropout(drop_rate)])
        self.head_hidden_size = widths[-1]
        self.reset_classifier(num_classes)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, T, width) → (N, num_classes), or the output of the last dense layer (N, 1024)."""
        x = self.dense(x)
        out: Tensor = x if pre_logits else self.head(x)
        return out

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for `num_classes` (0: none). `global_pool=""` also takes the dense layers away.

        Raises:
            LandscaleError: any other pooling; this network flattens its tokens.
        """
        if global_pool == "":  # timm does so to make a backbone that returns feature maps
            self.dense = nn.Identity()
            self.head_hidden_size = self.embed_dim
        elif global_pool is not None:
            raise LandscaleError(f"a ViT that flattens its tokens has no pooling '{global_pool}'")
        self.num_classes = num_classes
        with next(self.parameters()).device:
            self.head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def set_input_size(self, *_: Any, **__: Any) -> None:
        """Raise LandscaleError: the dense layers fit one number of tokens."""
        raise LandscaleError("a ViT that flattens its tokens keeps its input side; create it with another img_size")


_SOURCE = "Dosovitskiy et al. 2021, An image is worth 16×16 words; Papoutsis et al. 2022"
_LARGER = {"width": 128, "depth": 12, "heads": 8}
for _name, _options in (
    *((f"vit_{token}", {"token": token}) for token in (6, 12, 20, 30, 40)),
    ("vit_m20", {"token": 20, **_LARGER}),
):
    family.add_network(
        FlatViT,
        ZooEntry(_name, "vit", f"{_SOURCE} (size reconstructed)" if _name == "vit_m20" else _SOURCE),
        _options,
        first_conv="patch_embed.proj",
        classifier="head",
        fixed_side=True,
        features={"feature_cls": "getter", "out_indices": 3},
        counts={"vit_6": 55_237_395, "vit_12": 15_984_915, "vit_20": 7_760_147},
    )

__all__ = ["FlatViT", "WideAttention", "check_sides"]  # set last, because timm appends every entry point to it
