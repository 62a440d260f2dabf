"""The scores of a classifier on a split, as a typed object and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypedDict

from landscale.errors import BadInput
from landscale.inference.pixel_scores import PixelScores
from landscale.runtime.documents import read_json
from landscale.vocabulary.headline import headline


class ClassScores(TypedDict):
    """Scores of one class. Counts are numbers of patches, the other figures are fractions in 0…1.

    `ap` is None for a class without support, `threshold` in a single-label classifier.
    """

    name: str
    tp: int
    fp: int
    fn: int
    tn: int
    support: int
    precision: float
    recall: float
    f1: float
    f2: float
    jaccard: float
    ap: float | None
    threshold: float | None


@dataclass(frozen=True)
class Scores:
    """The scores of N patches of one split. All figures are fractions in 0…1; none is NaN.

    Attributes:
        split: name of the split.
        patches: N.
        micro_f1, macro_f1: at the classifier's thresholds.
        micro_f1_at_half, macro_f1_at_half: at a threshold of 0.5 for every class.
        micro_ap, macro_ap: average precision, which needs no threshold.
        accuracy: fraction of patches with the right class; None in a multi-label classifier.
        subset_accuracy: fraction of patches for which the decision on every class is right.
        hamming_loss: fraction of wrong decisions among all N·C.
        averages: `micro`, `macro`, `weighted` and `samples` → precision, recall, f1, f2 and jaccard.
        counts: one entry per class, in the classifier's order.
        extra: figures of added metrics by name (`register_metric`).
        steps: `trained` and `planned` steps of a training that a time limit has cut to a part of its recipe; else None.
    """

    split: str
    patches: int
    micro_f1: float
    macro_f1: float
    micro_f1_at_half: float
    macro_f1_at_half: float
    micro_ap: float
    macro_ap: float
    accuracy: float | None
    subset_accuracy: float
    hamming_loss: float
    averages: dict[str, dict[str, float]]
    counts: list[ClassScores]
    extra: dict[str, float] = field(default_factory=dict)
    steps: dict[str, int] | None = None

    @property
    def classes_with_support(self) -> int:
        """The number of classes that occur in the split; macro averages are over these."""
        return sum(bool(row["support"]) for row in self.counts)

    def headline(self) -> dict[str, float]:
        """The main figures, for tables and reports: those of `HEADLINE` that exist, then those of added metrics."""
        return headline(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The content of scores.json: attributes and `classes_with_support`; `accuracy`, `extra` and `steps` if there are any."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        content["classes_with_support"] = self.classes_with_support
        for name in ("accuracy", "extra", "steps"):
            if content[name] in (None, {}):
                del content[name]
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Scores:
        """The inverse of `to_json`.

        Raises:
            ValueError: a figure is missing or unknown.
        """
        content = {key: value for key, value in content.items() if key != "classes_with_support"}
        names = {f.name for f in fields(cls)}
        missing = names - content.keys() - {"accuracy", "extra", "steps"}
        if missing or content.keys() - names:
            wrong = [f"without {name}" for name in sorted(missing)]
            wrong += [f"unknown {name}" for name in sorted(content.keys() - names)]
            raise ValueError(f"found scores {', '.join(wrong)}")
        return cls(**{"accuracy": None, **content})


def read_scores(path: Path) -> Scores | PixelScores | None:
    """Read a scores.json; None if it holds an empty object, which is written for a store without a val split.

    Raises:
        BadInput: the file is missing, damaged, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise BadInput(path, "holds no scores: expected a JSON object")
    try:
        kind = PixelScores if "confusion" in content else Scores
        return kind.from_json(content) if content else None
    except ValueError as error:
        raise BadInput(path, f"holds no scores ({error})") from None
