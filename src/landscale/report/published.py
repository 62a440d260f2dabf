"""Published figures beside those of a run: which they are, and why they cannot be compared with the run's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from landscale.inference.pixel_scores import PixelScores
from landscale.inference.scores import Scores
from landscale.models.catalogue import stored_rows
from landscale.report.finished_run import FinishedRun
from landscale.vocabulary.bands import BAND_SETS
from landscale.vocabulary.headline import headline
from landscale.vocabulary.nomenclatures import BEN19, CLC43
from landscale.vocabulary.published import SEDONA, SEDONA_SOURCE, sedona_class

_ALL_BANDS, _RGB = set(BAND_SETS["s2-12"].names), set(BAND_SETS["rgb"].names)


@dataclass(frozen=True)
class PublishedClasses:
    """A column of F1 by class name from a paper; `differences` are the reasons why it cannot be compared with the run's."""

    title: str
    f1: dict[str, float]
    source: str
    differences: list[str]


@dataclass(frozen=True)
class PublishedScores:
    """Scores of a network by other authors: the keys of `figures` are those of the headline figures."""

    network: str
    source: str
    figures: dict[str, float]


def published_classes(run: FinishedRun, scores: Scores | PixelScores) -> PublishedClasses | None:
    """F1 of Sedona et al. 2019 for the classes of a run, with red, green and blue if the run has only these.

    None if the paper has none of the classes, or the run has one class for each patch or pixel.
    """
    if isinstance(scores, PixelScores):
        return None
    rgb = set(run.config["bands"]) == _RGB
    rows = {row["name"]: sedona_class(row["name"]) for row in scores.counts}
    f1 = {name: row.rgb if rgb else row.multispectral for name, row in rows.items() if row is not None}
    if not f1 or not run.config["multi_label"]:
        return None
    return PublishedClasses(f"F1, {SEDONA}", f1, SEDONA_SOURCE, _differences(run, scores, rgb=rgb))


def _differences(run: FinishedRun, scores: Scores, *, rgb: bool) -> list[str]:
    found = [*_other_data(run, "v1")]
    classes, bands = run.config["classes"], run.config["bands"]
    if set(classes) != set(CLC43.names):
        found.append(f"{len(classes)} classes instead of {len(CLC43.names)}")
    if not rgb and set(bands) != _ALL_BANDS:
        found.append(f"{len(bands)} bands ({', '.join(bands)}) instead of {len(_ALL_BANDS)}")
    if scores.split != "test":
        found.append(f"the split {scores.split} instead of test")
    return found


def authors_parameters(run: FinishedRun) -> int | None:
    """Parameters of the run's network in the code of Papoutsis et al. 2022, with 10 bands and 19 classes."""
    authors = stored_rows().get(run.config["model"], {}).get("authors")
    return int(authors["parameters"]) if authors else None


def published_scores(run: FinishedRun) -> list[PublishedScores]:
    """Scores of networks on the 19 classes of BigEarthNet, from the zoo's table; empty for a run on other classes."""
    if set(run.config["classes"]) != set(BEN19.names):
        return []
    return [
        PublishedScores(row["name"], source, headline(figures))
        for row in stored_rows().values()
        for source, figures in row["published"].items()
        if "BigEarthNet" in source and headline(figures)
    ]


def data_set_note(run: FinishedRun, split: str) -> str:
    """A sentence: how the data of a run differ from the test splits of BigEarthNet v1 and v2."""
    found = _other_data(run, "v1", "v2") + ([] if split == "test" else [f"the split {split} instead of test"])
    return f"Not comparable with this run, which has {'; '.join(found)}." if found else ""


def _other_data(run: FinishedRun, *versions: str) -> list[str]:
    if run.synthetic:
        return ["synthetic data"]
    store: dict[str, Any] = run.config.get("provenance", {}).get("store", {})
    if store.get("source") == "bigearthnet" and store.get("version") in versions:
        return []
    words: Sequence[str] = [str(store[key]) for key in ("source", "version") if key in store]
    data_set = f"the data set {' '.join(words)}" if words else "a data set that is not recorded"
    return [f"{data_set} instead of BigEarthNet {' or '.join(versions)}"]
