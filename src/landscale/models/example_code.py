"""The example code of a model card: how weights are used with landscale, and their bare network with timm alone."""

from __future__ import annotations

from math import inf

from landscale.models.classifier import Description
from landscale.models.input_stage import LOG_FLOOR, LOG_RANGE, MOST_DEVIATIONS
from landscale.models.timm_config import divides_by_255
from landscale.vocabulary.units import unit_name


def landscale_example(d: Description) -> str:
    """Code that loads a folder of weights and applies it to pixels; `FOLDER` stands for the folder."""
    apply, comment = (
        ("probabilities", "in the order of model.description.classes") if d.classes else ("features", "one row a patch")
    )
    return f"""import landscale
import torch

model = landscale.load_model("FOLDER")
bands = model.description.bands
pixels = torch.full((1, {len(d.bands)}, {d.side}, {d.side}), {_typical(d)!r})  # {_unit(d)}; here all the same
{apply} = model.{apply}({{bands: pixels}})  # {comment}"""


def timm_example(d: Description) -> str:
    """Code that loads the bare network with timm and applies it to pixels; `FOLDER` stands for the folder."""
    lines = [
        *(["from math import inf", ""] if d.limits else []),
        "import timm",
        "import torch",
        "",
        'network = timm.create_model("local-dir:FOLDER", pretrained=True).eval()',
        'mean, std = (torch.tensor(network.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))',
        f"# {_unit(d)}, all bands resampled to one side; here all the same",
        f"pixels = torch.full((1, {len(d.bands)}, {d.side}, {d.side}), {_typical(d)!r})",
    ]
    values = "pixels / 255" if divides_by_255(d) else "pixels"
    if d.limits:
        edges = [d.limits.get(band, (-inf, inf)) for band in d.bands]
        lines.append(f"low, high = torch.tensor({[list(pair) for pair in edges]}).T[:, :, None, None]")
        lines.append("pixels = pixels.clamp(low, high)")
    if d.scale != "linear":
        logarithm = f"(pixels.clamp({LOG_RANGE[0]:g}, {LOG_RANGE[1]:g}) + {LOG_FLOOR:g}).log()"
        lines.append(f"values = {logarithm}" if d.scale == "log" else f"values = torch.cat([pixels, {logarithm}], 1)")
        values = "values"
    clamp = f".clamp(-{MOST_DEVIATIONS:g}, {MOST_DEVIATIONS:g})" if d.scale != "linear" else ""
    normalised = f"(({values} - mean) / std){clamp}"
    lines += ["with torch.inference_mode():", f"    logits = network({normalised if clamp else normalised[1:-1]})"]
    if not d.classes:
        return "\n".join([*lines[:-1], lines[-1].replace("logits", "features")])
    scaled = "logits" if d.temperature == 1 else f"(logits / {d.temperature!r})"
    return "\n".join([*lines, f"probabilities = {scaled}.{'sigmoid()' if d.multi_label else 'softmax(-1)'}"])


def _typical(d: Description) -> float:
    """A plausible value of a pixel: the mean of the first band, if it is in the statistics."""
    return float(f"{d.statistics[d.bands[0]][0]:.3g}") if d.bands[0] in d.statistics else 1000.0


def _unit(d: Description) -> str:
    units = sorted({unit_name(d.units.get(band, "unknown")) for band in d.bands})
    return f"pixels: {', '.join(units)}"
