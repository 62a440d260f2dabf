"""The options that networks and heads may be given: a list of names, each with its type and range.

Options come from recipes and from the `config.json` of weights, which come from other people. timm takes many more arguments:
some read files or URLs (`checkpoint_path`, `pretrained_cfg`), others name parts to build (`norm_layer`). Only what is listed
here reaches timm: rates of dropout, and what changes the shape of a network. A network that has no option of that name
refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from landscale.errors import LandscaleError, UnknownName

Rate = Annotated[float, Meta(ge=0, le=1)]
Size = Annotated[int, Meta(ge=1, le=8192)]
Factor = Annotated[float, Meta(gt=0, le=64)]
Repeats = Annotated[int, Meta(ge=1, le=512)] | Factor  # a number of layers, or a factor by which it is multiplied
Sizes = Annotated[tuple[Size, ...], Meta(min_length=1, max_length=64)]
Pair = Annotated[tuple[Size, ...], Meta(min_length=2, max_length=2)]  # msgspec 0.23 crashes on `int | tuple[int, int]`
Word = Annotated[str, Meta(max_length=32, pattern="^[a-z_0-9]*$")]  # the network looks it up in a table of its own

_DROPOUT = dict.fromkeys(
    (
        "drop_rate",
        "drop_path_rate",
        "drop_block_rate",
        "attn_drop_rate",
        "proj_drop_rate",
        "pos_drop_rate",
        "patch_drop_rate",
        "conv_drop_rate",
        "encoder_drop_rate",
    ),
    Rate,
)
_SIZES = dict.fromkeys(
    (
        *("patch_size", "embed_dim", "heads", "token", "token_mlp", "channel_mlp", "parts", "copies"),
        *("cardinality", "base_width", "stem_width", "growth_rate", "num_blocks"),
    ),
    Size,
)
_LISTS = dict.fromkeys(
    (
        "depths",
        "dims",
        "num_heads",
        "layers",
        "block_config",
        "strides",
        "convolutions",
        "dense",
        "gsd",
        "kernel_sizes",
    ),
    Size | Sizes,
)
_SWITCHES = dict.fromkeys(
    (
        *("qkv_bias", "qk_norm", "class_token", "no_embed_class", "dynamic_img_size", "dynamic_img_pad"),
        *("strict_img_size", "pre_norm", "final_norm", "fc_norm", "use_grn", "conv_mlp", "avg_down"),
        *("block_reduce_first", "replace_stem_pool", "always_partition"),
    ),
    bool,
)
NETWORK_OPTIONS: dict[str, Any] = {
    **_DROPOUT,
    **_SIZES,
    **_LISTS,
    **_SWITCHES,
    "img_size": Size | Pair,
    "window_size": Size | Pair,
    "width": Size | Factor,
    "depth": Repeats,
    "mlp_ratio": Factor,
    "reg_tokens": Annotated[int, Meta(ge=0, le=64)],
    "init_values": Rate | None,
    "ls_init_value": Rate | None,
    "output_stride": Literal[8, 16, 32],
    "global_pool": Literal["", "avg", "max", "avgmax", "catavgmax", "token", "map"],
    "attention": Word,
    "conv": Word,
    "stem_type": Literal["", "deep", "deep_tiered"],
}
HEAD_OPTIONS: dict[str, Any] = {
    "layers": Annotated[int, Meta(ge=1, le=64)],
    "width": Size,
    "heads": Size,
    "groups": Size,
    "drop_rate": Rate,
}


def check_options(owner: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse options that are not in a list, or whose values are of another type or out of range.

    Args:
        owner: what has the options, for the message, such as "model 'vit_20'".
        options: values by name.
        known: types by name.

    Raises:
        UnknownName: an option is not in the list. LandscaleError: a value is wrong.
    """
    for name, value in options.items():
        if name not in known:
            raise UnknownName(f"option of {owner}", name, known)
        try:
            msgspec.convert(value, known[name])
        except msgspec.ValidationError as error:
            problem = str(error).replace("`", "")
            raise LandscaleError(f"{owner}: option {name}: found {value!r}: {problem}") from None
