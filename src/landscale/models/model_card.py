"""The model card of weights, `README.md`, in the format of the Hugging Face hub: YAML for search and leaderboards, then text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from landscale.models.classifier import Description
from landscale.models.example_code import landscale_example, timm_example
from landscale.runtime.markdown import inline
from landscale.vocabulary.headline import HEADLINE_NAMES, headline, shortened, support_note
from landscale.vocabulary.units import unit_name

PICTURE = "example.png"
FEW_PATCHES = 5000  # patches in training, below which the card warns
_METRIC_TYPES = {"micro_f1": "f1", "macro_f1": "f1", "micro_ap": "average_precision", "macro_ap": "average_precision"}


def model_card(
    d: Description,
    provenance: Mapping[str, Any],
    parameters: int,
    *,
    loaded_by_timm: bool,
    licence: str | None = None,
    picture: bool = False,
) -> str:
    """The text of a model card.

    Args:
        d: what the weights are.
        provenance: of the weights; entries that are missing are reported as unknown.
        parameters: number of parameters.
        loaded_by_timm: whether `config.json` has timm's entries.
        licence: identifier of the licence of the weights, as the hub lists them.
        picture: whether the picture of examples is in the folder.
    """
    title = f"{d.model}, {len(d.bands)} bands, " + (
        f"{len(d.classes)} classes" if d.classes else "encoder without classes"
    )
    results = _results(provenance)
    head = yaml.safe_dump(
        _metadata(d, results, provenance, title, loaded_by_timm=loaded_by_timm, licence=licence),
        sort_keys=False,
        allow_unicode=True,
        width=1000,
    )
    sections = [
        f"# {inline(title)} ({inline(d.nomenclature)})",
        _warning(provenance),
        f"![Example patches in true colour with their labels and predictions]({PICTURE})" if picture else "",
        f"## Use\n\n{_use(d, loaded_by_timm=loaded_by_timm)}",
        f"## Input\n\n{_input(d)}",
        f"## Scores\n\n{_scores(d, results)}",
        f"## Training\n\n{_training(provenance, parameters)}",
        f"## Intended use\n\n{_intended_use(d)}",
        f"## Limits\n\n{_limits(d, provenance, results)}",
        f"## Licence\n\n{inline(licence) if licence else 'None is chosen yet.'} This covers the weights, not the training data.",
        f"## Classes\n\n{_classes(d)}",
    ]
    return f"---\n{head}---\n" + "\n\n".join(filter(None, sections)) + "\n"


def _results(provenance: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The scores in a provenance, test first."""
    return [scores for scores in (provenance.get("test_scores"), provenance.get("scores")) if scores]


def _source(provenance: Mapping[str, Any]) -> str:
    """The data set of the training with its version."""
    store = provenance.get("store")
    parts = [store.get("source"), store.get("version")] if isinstance(store, dict) else []
    return " ".join(part for part in parts if isinstance(part, str)) or "unknown"


def _metadata(
    d: Description,
    results: list[Mapping[str, Any]],
    provenance: Mapping[str, Any],
    title: str,
    *,
    loaded_by_timm: bool,
    licence: str | None,
) -> dict[str, Any]:
    kind = "multi-label" if d.multi_label else "single-label"
    source = _source(provenance)
    found = [
        {
            "task": {"type": "image-classification", "name": f"{kind} land-cover classification"},
            "dataset": {"type": source.split()[0], "name": source, "split": scores.get("split", "unknown")},
            "metrics": [
                {"type": _METRIC_TYPES.get(key, key), "name": HEADLINE_NAMES.get(key, key), "value": value}
                for key, value in headline(scores).items()
            ],
        }
        for scores in results
        if headline(scores)
    ]
    return {
        "library_name": "timm" if loaded_by_timm else "landscale",
        **({"license": licence} if licence else {}),
        "pipeline_tag": "image-classification" if d.classes else "image-feature-extraction",
        "tags": [
            "remote-sensing",
            "sentinel-2",
            "land-cover",
            kind,
            "landscale",
            *(["timm"] if loaded_by_timm else []),
        ],
        **({"model-index": [{"name": title, "results": found}]} if found else {}),
    }


def _warning(provenance: Mapping[str, Any]) -> str:
    return "**Trained on synthetic data: not usable on real scenes.**" if provenance.get("synthetic") else ""


def _use(d: Description, *, loaded_by_timm: bool) -> str:
    whole = f"""Raw pixels in, {"probabilities" if d.classes else "features"} out, with [landscale](https://pypi.org/project/landscale):

```python
{landscale_example(d)}
```"""
    if not loaded_by_timm:
        return f"{whole}\n\nThe network is part of landscale, so these weights cannot be loaded without it."
    return f"""{whole}

The bare network, with timm alone:

```python
{timm_example(d)}
```

`FOLDER` is this folder. When it is on the hub, `hf-hub:OWNER/NAME` takes the place of `local-dir:FOLDER`."""


def _input(d: Description) -> str:
    has_limits = bool(d.limits)
    header = ["band", "mean", "standard deviation", "unit", *(["clipped to"] if has_limits else [])]
    rows = [header, ["---"] * len(header)]
    for name, (mean, deviation) in d.statistics.items():
        band = name.removeprefix("log ")
        row = [
            inline(name),
            f"{mean:.6g}",
            f"{deviation:.6g}",
            d.units.get(band, "unknown") if band == name else "logarithm",
        ]
        rows.append([*row, "{:g} … {:g}".format(*d.limits[band]) if band in d.limits else ""][: len(header)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    upsampled = {"stored": "at 10 m as the store has them"}.get(d.upsample, f"resampled to one side ({d.upsample})")
    return f"""Bands in this order: {inline(", ".join(d.bands))}; processing level: {d.level}.
A patch covers {d.ground:g} m × {d.ground:g} m and has {d.side} × {d.side} px; bands are {upsampled}, scale: {inline(d.scale)}.
Mean and standard deviation are those of the training pixels, by which each band is normalised:

{table}"""


def _scores(d: Description, results: list[Mapping[str, Any]]) -> str:
    tables = []
    for scores in results:
        rows = "\n".join(f"| {inline(key)} | {value:.4f} |" for key, value in headline(scores).items())
        note = support_note(scores)
        tables.append(
            f"Split `{inline(scores.get('split', '?'))}`, {scores.get('patches', 0)} patches:\n\n"
            f"| figure | value |\n|---|---|\n{rows}" + (f"\n\n{note.capitalize()}." if note else "")
        )
    if not tables:
        return "None were computed."
    decided = (
        "F1 is at the thresholds of this model, which were chosen on the split `val`"
        if d.thresholds
        else (
            "F1 is at a threshold of 0.5" if d.multi_label else "The class of the largest probability is the prediction"
        )
    )
    views = f"; probabilities are means over {d.views} rotations and reflections" if d.views > 1 else ""
    protocol = (
        f"Protocol: all labelled patches of the split, each once. {decided}{views}. Micro: over all decisions; macro: mean over"
        " classes."
    )
    return "\n\n".join([*tables, protocol])


def _training(provenance: Mapping[str, Any], parameters: int) -> str:
    splits = provenance.get("splits") or {}
    sizes = ", ".join(f"{size:,} {inline(name)}" for name, size in splits.items()) or "unknown"
    lines = [
        f"- Data set: {inline(_source(provenance))}; patches: {sizes}",
        f"- Parameters: {parameters:,}",
        f"- Recipe: {inline(str(provenance.get('recipe', 'unknown')))}, seed {inline(str(provenance.get('seed', 'unknown')))}",
    ]
    if steps := provenance.get("steps"):
        lines.append(f"- {shortened(steps).capitalize()}")
    if "encoder" in provenance:  # converted by `models.encoders`
        lines = [
            lines[1],
            f"- Trained by others and published as {inline(str(provenance['encoder']))}{_origin(provenance)}",
        ]
    init = provenance.get("init")
    if isinstance(init, dict) and isinstance(init.get("init"), str):
        lines.append(f"- Began from {inline(init['init'])}{_origin(init.get('provenance'))}")
    return "\n".join(lines)


def _origin(about: object) -> str:
    """Project, paper and licence of weights of other people, as `models.encoders` records them; empty if it does not."""
    if not isinstance(about, dict):
        return ""
    found = [f"{key} {inline(str(about[key]))}" for key in ("source", "citation", "licence") if about.get(key)]
    return f" ({', '.join(found)})" if "encoder" in about else ""


def _intended_use(d: Description) -> str:
    units = ", ".join(sorted({unit_name(d.units.get(band, "unknown")) for band in d.bands}))
    what = (
        f"Land cover of patches of {d.ground:g} m, {'any number of classes' if d.multi_label else 'one class'} a patch"
        if d.classes
        else "Features of patches"
    )
    return (
        f"{what}, from pixels of level {d.level} in {units}; and as a beginning for training on other classes or regions"
        " (`landscale train --init`)."
    )


def _limits(d: Description, provenance: Mapping[str, Any], results: list[Mapping[str, Any]]) -> str:
    lines = [
        "- Pixels of another unit, processing level, ground sampling distance or order of bands give wrong results.",
        "- Other regions, seasons and clouds than those of the training data are not covered by the scores.",
    ]
    trained = (provenance.get("splits") or {}).get("train")
    if trained is not None and trained < FEW_PATCHES:
        lines.append(f"- It was trained on only {trained:,} patches: do not expect these scores elsewhere.")
    if results and all(scores.get("split") == "val" for scores in results):
        chosen = "thresholds" if d.thresholds else "the best epoch"
        lines.append(
            f"- The scores are of the split `val`, on which {chosen} may have been chosen: they are optimistic."
        )
    if d.multi_label and d.classes:
        lines.append("- A label applies to a whole patch, not to its pixels.")
    return "\n".join(lines)


def _classes(d: Description) -> str:
    if not d.classes:
        return "None."
    thresholds = [f"{t:.3f}" for t in d.thresholds] or ["0.5" if d.multi_label else "–"] * len(d.classes)
    rows = [f"| {k} | {inline(name)} | {thresholds[k]} |" for k, name in enumerate(d.classes)]
    return "\n".join(["| output | class | threshold |", "|---|---|---|", *rows])
