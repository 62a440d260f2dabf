"""Explain a classifier on a store: heat maps of chosen patches, the deletion test and the importance of bands, as one folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from landscale.distributed import Ranks, local_device
from landscale.errors import LandscaleError, UnknownName
from landscale.explain.bands import COLUMNS, band_importance
from landscale.explain.deletion import Deletion, delete
from landscale.explain.examples import KINDS, PICKS, Example, Pick, choose_examples, decisions
from landscale.explain.files import write_heat_map
from landscale.explain.folder import SUMMARY, check_folder
from landscale.explain.heat_maps import heat_maps
from landscale.explain.page import Section, page
from landscale.inference.evaluate import infer
from landscale.loading import Native, batches, evaluation_steps, labelled_patches, targets_by_name
from landscale.loading.resize import resize
from landscale.models.classifier import Classifier
from landscale.models.encoders import find_encoder, load_encoder
from landscale.models.input_units import compare_units, convert, store_source
from landscale.report.true_colour import RGB, true_colour
from landscale.runtime.documents import write_json
from landscale.runtime.files import atomic_folder
from landscale.runtime.progress import print_notes, progress_bar
from landscale.store import PatchStore, open_store

MOST_REPEATS = 10


@dataclass(frozen=True)
class Choices:
    """What is computed.

    classes: names of the classes with heat maps; none: all. patches: examples of each kind for each class, at least 0. pick:
    `confident` or `random` (`examples.choose_examples`). band_patches: number of patches, drawn from the split, from which the
    importance of bands is computed, 0 or at least 2. repeats: of the permutation of a band, 1 to 10. seed: of everything
    random. batch: patches per batch.
    """

    classes: Sequence[str] = ()
    patches: int = 2
    pick: Pick = "confident"
    band_patches: int = 256
    repeats: int = 5
    seed: int = 0
    batch: int = 32

    def check(self, known: Sequence[str]) -> None:
        """Raises: LandscaleError, if a number is outside its range. UnknownName: there is no such class or choice."""
        for name, value, least in (("patches", self.patches, 0), ("batch", self.batch, 1), ("seed", self.seed, 0)):
            if value < least:
                raise LandscaleError(f"--{name}: found {value}, expected at least {least}")
        if self.band_patches < 0 or self.band_patches == 1:
            raise LandscaleError(f"--band-patches: found {self.band_patches}, expected 0 or at least 2")
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise LandscaleError(f"--repeats: found {self.repeats}, expected 1 to {MOST_REPEATS}")
        for name in self.classes:
            if name not in known:
                raise UnknownName("class", name, known)
        if self.pick not in PICKS:
            raise UnknownName("way to pick", self.pick, PICKS)


def explain(
    model: Classifier | str | Path,
    store: PatchStore | str | Path,
    out: str | Path,
    split: str | None = None,
    choices: Choices | None = None,
    *,
    show: bool = True,
) -> dict[str, Any]:
    """Write which pixels and which bands decide, as a folder.

        landscale.explain("runs/eca", "ben.h5", "explained")

    The folder holds `index.html`, a page that loads nothing else; `heat_maps/0000.tif` and so on, float32 in units of the logit,
    with a place where the store has one; `heat_maps.csv`, their patches and classes; `bands.csv`, the importance of bands; and
    `explanation.json`, the summary that is returned.

    Args:
        model: a classifier, which is used on the device it is on, or the name of weights.
        store: a store, or its path.
        out: the folder: a new or empty one, or an older result of this function, which is replaced.
        split: name of the split; None: test if the store has it, else val.
        choices: what is computed.
        show: whether to show progress.

    Returns:
        The summary: `split`, `patches`, `examples` by kind, `deletion` (areas under the curves; None without a found class) and
        `bands` (importance for all classes by band and method).

    Raises:
        BadInput: the weights cannot be read, the store's unit cannot be converted into theirs, or `out` is an input or holds
            something else. BadStore: the store cannot be read, or lacks the split, a band or a class.
        LandscaleError: the weights have no classes, the network has no maps of features, or a choice is out of range.
    """
    out, choices = Path(out), choices or Choices()
    opened = open_store(store) if isinstance(store, str | Path) else store
    split = split or ("test" if opened.has_split("test") else "val")
    opened.patches(split)
    inputs = [opened.path] if isinstance(model, Classifier) else [opened.path, Path(model), find_encoder(model)]
    check_folder(out, [path for path in inputs if path.exists()])
    classifier = model if isinstance(model, Classifier) else load_encoder(model).to(local_device(None))
    classifier.check_patches("explain")
    classifier.eval()
    d = classifier.description
    choices.check(d.classes)
    rows = labelled_patches(opened, split, d.classes)
    opened.planes_for(d.bands, d.stored)
    compared = compare_units(d, store_source(opened, d.bands, rows, stored=d.stored))
    print_notes(compared.notes)
    targets = targets_by_name(opened, d.classes)[rows].astype(bool)
    probabilities = infer(classifier, opened, rows, Ranks(), choices.batch, show=show, factors=compared.factors)
    found = decisions(probabilities, d.thresholds, multi_label=d.multi_label)
    wanted = [d.classes.index(name) for name in choices.classes] or list(range(len(d.classes)))
    examples = choose_examples(probabilities, targets, found, wanted, choices.patches, choices.pick, choices.seed)
    pixels = _Pixels(classifier, opened, compared.factors)
    heat, deletion = _heat(pixels, rows, examples, choices, show=show)
    importance = _importance(pixels, rows, targets, choices, show=show)
    summary: dict[str, Any] = {
        "kind": "explanation",
        "model": d.model,
        "weights": classifier.digest(),
        "store": opened.fingerprint(),
        "split": split,
        "patches": len(rows),
        "pick": choices.pick,
        "seed": choices.seed,
        "examples": {kind: sum(e.kind == kind for e in examples) for kind in KINDS},
        "deletion": deletion.summary() if deletion else None,
        "bands": [row for row in importance if row["class"] == "all classes"],
        "landscale": version("landscale"),
    }
    sections = _sections(opened, rows, examples, heat, targets, d.classes)
    names = opened.column("name")[rows]
    listed = [
        {
            "file": f"heat_maps/{k:04d}.tif",
            "patch": names[e.place],
            "class": d.classes[e.wanted],
            "kind": e.kind,
            "probability": e.probability,
        }
        for k, e in enumerate(examples)
    ]
    with atomic_folder(out) as folder:
        (folder / "heat_maps").mkdir()
        for entry, example, values in zip(listed, examples, heat, strict=True):
            write_heat_map(folder / entry["file"], values, opened, int(rows[example.place]), entry)
        pd.DataFrame(listed, columns=["file", "patch", "class", "kind", "probability"]).to_csv(
            folder / "heat_maps.csv", index=False
        )
        pd.DataFrame(importance, columns=list(COLUMNS)).to_csv(folder / "bands.csv", index=False)
        (folder / "index.html").write_text(page(summary, sections, deletion, importance), encoding="utf-8")
        write_json(folder / SUMMARY, summary)
    return summary


@dataclass(frozen=True)
class _Pixels:
    """A store's pixels as a classifier gets them. factors: as for `input_units.convert`."""

    classifier: Classifier
    store: PatchStore
    factors: Mapping[str, float]

    def planes(self, rows: NDArray[np.int64], batch: int) -> Iterable[tuple[int, Native]]:
        """Number of patches and their planes, batch by batch."""
        d, empty = self.classifier.description, np.empty((len(self.store.states), 0), np.uint8)
        steps = evaluation_steps(rows, batch)
        for part in batches(self.store, d.bands, empty, steps, self.classifier.device, upsampled=d.stored):
            yield len(part.rows), convert(part.planes, self.factors)


def _heat(
    pixels: _Pixels, rows: NDArray[np.int64], examples: Sequence[Example], choices: Choices, *, show: bool
) -> tuple[list[NDArray[np.float32]], Deletion | None]:
    """The heat map of every example, at the side of the store, and the deletion test of those whose class was found."""
    classifier, found, curves = pixels.classifier, [], []
    chosen = np.array([rows[e.place] for e in examples], np.int64)
    with progress_bar("explain", len(examples), visible=show) as advance:
        done = 0
        for n, planes in pixels.planes(chosen, choices.batch):
            part = examples[done : done + n]
            heat = heat_maps(classifier, planes, [e.wanted for e in part])
            tested = [k for k, e in enumerate(part) if e.kind != "false negative"]
            if tested:
                values = classifier.inputs(planes)[tested]
                wanted = [part[k].wanted for k in tested]
                curves.append(delete(classifier, values, heat[tested], wanted, choices.seed + done))
            found += list(resize(heat[:, None], pixels.store.layout.side, "bilinear")[:, 0].cpu().numpy())
            done += n
            advance(n)
    if not curves:
        return found, None
    return found, Deletion({order: np.concatenate([c.curves[order] for c in curves]) for order in curves[0].curves})


def _importance(
    pixels: _Pixels, rows: NDArray[np.int64], targets: NDArray[np.bool_], choices: Choices, *, show: bool
) -> list[dict[str, Any]]:
    if not choices.band_patches or len(rows) < 2:
        return []
    rng = np.random.default_rng(choices.seed)
    drawn = np.sort(rng.permutation(len(rows))[: choices.band_patches])
    parts: list[Tensor] = []
    with torch.inference_mode():
        parts += [pixels.classifier.inputs(planes).cpu() for _, planes in pixels.planes(rows[drawn], choices.batch)]
    return band_importance(
        pixels.classifier,
        torch.cat(parts),
        targets[drawn],
        repeats=choices.repeats,
        seed=choices.seed,
        batch=choices.batch,
        show=show,
    )


def _sections(
    store: PatchStore,
    rows: NDArray[np.int64],
    examples: Sequence[Example],
    heat: Sequence[NDArray[np.float32]],
    targets: NDArray[np.bool_],
    classes: Sequence[str],
) -> list[Section]:
    """What the page shows of each example."""
    if not examples:
        return []
    places = sorted({e.place for e in examples})
    bands = RGB if set(RGB) <= set(store.layout.bands) else store.layout.bands[:1] * 3
    pictures = dict(zip(places, true_colour(store, rows[places], bands), strict=True))
    names = store.column("name")[rows]
    return [
        Section(
            name=str(names[e.place]),
            wanted=classes[e.wanted],
            kind=e.kind,
            probability=e.probability,
            labels=[name for name, own in zip(classes, targets[e.place], strict=True) if own],
            picture=pictures[e.place],
            heat=values,
        )
        for e, values in zip(examples, heat, strict=True)
    ]
