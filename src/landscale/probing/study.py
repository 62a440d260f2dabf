"""A probe of an encoder on a store: features once, then every cell, into a folder from which it is resumed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from landscale.distributed import local_device
from landscale.errors import BadInput, BadStore, Diverged
from landscale.inference.embed import embed, embedded_rows
from landscale.inference.features_file import read_features
from landscale.loading import labelled_patches, targets_by_name
from landscale.models.classifier import Classifier
from landscale.models.encoders import find_encoder, load_encoder
from landscale.probing.cells import TRAINED, Cell, CellResult, amounts_of, cell_file, planned_cells, read_cell
from landscale.probing.intervals import Resampling, figure_names
from landscale.probing.linear import choose_strength, fit_linear
from landscale.probing.neighbours import neighbour_probabilities
from landscale.probing.results import Row, seed_rows, summary_rows, write_chart, write_tables
from landscale.probing.training import cell_recipe, check_packages, probe_recipe, trained_probabilities
from landscale.runtime.documents import read_json_object, write_json
from landscale.runtime.files import named_lock
from landscale.runtime.progress import console
from landscale.store import PatchStore, open_store
from landscale.training.recipe import Recipe
from landscale.vocabulary.nomenclatures import nomenclature

SPLITS = ("train", "val", "test")
_ABOUT = "probe.json"


@dataclass(frozen=True)
class Probe:
    """The results of a probe.

    Attributes:
        folder: where tables, chart and features are.
        figures: names of the figures, the main one first.
        summary: a row for each protocol and amount of labels (`results.summary_rows`).
        seeds: a row for each of these and each seed (`results.seed_rows`).
    """

    folder: str
    figures: tuple[str, ...]
    summary: list[Row]
    seeds: list[Row]

    def to_json(self) -> dict[str, Any]:
        """The attributes by name."""
        return asdict(self)


def probe(
    model: str | Path,
    store: PatchStore | str | Path,
    out: str | Path | None = None,
    protocols: Sequence[str] = ("knn", "linear"),
    *,
    fractions: Sequence[float] = (),
    shots: Sequence[int] = (),
    seeds: int = 1,
    recipe: Recipe | None = None,
) -> Probe:
    """Score an encoder on the test split of a store, with classifiers that are fitted to some or all labels of its train split.

        found = landscale.probe("runs/eca", "eurosat.h5", fractions=[0.1, 1], seeds=5)
        pandas.DataFrame(found.summary)

    The folder gets `features.parquet` (see `embed`), `probe.parquet` and `probe.csv` (the summary), `seeds.csv`, and
    `label_efficiency.png`. After an interruption, or with more protocols, amounts or seeds, only what is missing is computed.

    Args:
        model: the name of an encoder (`models.encoders`): a run, a folder of weights, …
        store: a store with the splits train, val and test, or its path.
        out: folder of the results; by default `probes/STORE-DIGEST` with the digest of the weights.
        protocols: of `cells.PROTOCOLS`: knn and linear on frozen features; fine-tune, lora and scratch train the network.
        fractions: of the labels of the train split, each above 0 and at most 1; by default 1, if there are no `shots`.
        shots: patches of each class.
        seeds: number of draws of the patches, and of trainings, from 0.
        recipe: how networks are trained (`training.probe_recipe`); its `labels` are the classes of all protocols.

    Raises:
        LandscaleError: the weights or the store cannot be used (as `embed`), a number is out of range, or the folder holds
            something else.
        UnknownName: no such protocol or encoder.
    """
    opened = open_store(store) if isinstance(store, str | Path) else store
    amounts = amounts_of(fractions, shots)
    # The number of seeds and the protocols are checked before the weights are read.
    planned_cells(tuple(protocols), amounts, seeds, frozenset())
    check_packages(protocols)
    weights = find_encoder(model)
    classifier = load_encoder(weights).to(local_device())
    recipe = recipe or probe_recipe(classifier.description)
    digest = classifier.digest()
    folder = Path("probes") / f"{opened.path.stem}-{digest[:12]}" if out is None else Path(out)
    data = probe_data(opened, recipe, protocols, folder)  # a missing split is found before the features are computed
    about = {"weights": digest, "store": opened.fingerprint(), "classes": list(data.classes)}
    _begin(folder, about)
    with named_lock(folder / ".lock", folder, "is being probed"):
        write_json(folder / _ABOUT, about)
        whole = frozenset(amount for amount in amounts if amount.is_whole(data.targets("train")))
        cells = planned_cells(tuple(protocols), amounts, seeds, whole)
        results: dict[Cell, CellResult] = {}
        for number, cell in enumerate(cells, 1):
            file = cell_file(folder, cell)
            if not file.exists():
                _compute(cell, data, classifier, weights, recipe, joins_val=cell.amount in whole).write(file)
            results[cell] = read_cell(file)
            _check_recipe(file, cell, results[cell], recipe, weights)
            main = data.figures[0]
            console.print(
                f"{number}/{len(cells)}: {cell.name}: {main} {results[cell].figures[main]:.4f}", highlight=False
            )
        summary, by_seed = summary_rows(results), seed_rows(results)
        write_tables(folder, summary, by_seed)
        title = str(model) if len(str(model)) <= 30 else f"…{str(model)[-29:]}"
        write_chart(folder / "label_efficiency.png", summary, data.figures[0], title)
    return Probe(str(folder), data.figures, summary, by_seed)


@dataclass
class ProbeData:
    """Patches, targets and features of the three splits, each in the order of the store.

    store: the store. classes: names of the classes; patches with none of them are left out. folder: where the features are kept.
    """

    store: PatchStore
    classes: tuple[str, ...]
    folder: Path
    _features: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def multi_label(self) -> bool:
        return self.store.layout.multi_label

    @property
    def figures(self) -> tuple[str, ...]:
        return figure_names(multi_label=self.multi_label)

    @cached_property
    def _targets(self) -> NDArray[np.uint8]:
        return targets_by_name(self.store, self.classes)

    def rows(self, split: str) -> NDArray[np.int64]:
        """Rows of the patches in the store."""
        return labelled_patches(self.store, split, self.classes)

    def targets(self, split: str) -> NDArray[np.uint8]:
        """(n, C), 0 or 1."""
        return self._targets[self.rows(split)]

    def features(self, split: str, classifier: Classifier) -> NDArray[np.float32]:
        """(n, F), computed when they are first needed, and kept in `features.parquet`."""
        if not self._features:
            splits = [name for name in SPLITS if self.store.has_split(name)]
            file = self.folder / "features.parquet"
            embed(classifier, self.store, file, splits)
            values, embedded = read_features(file).values, embedded_rows(self.store, splits)
            for name in splits:
                self._features[name] = values[np.searchsorted(embedded, self.rows(name))]
        return self._features[split]


def probe_data(store: PatchStore, recipe: Recipe, protocols: Collection[str], folder: Path) -> ProbeData:
    """The patches of a probe, whose features are kept in `folder`.

    Raises:
        BadStore: the store has no classes, or lacks a split that a protocol needs.
    """
    classes = store.layout.classes if recipe.labels is None else nomenclature(recipe.labels).names
    if not classes:
        raise BadStore(store.path, "has no classes, which a probe learns; use a store with labels")
    data = ProbeData(store, classes, folder)
    for split in SPLITS if "linear" in protocols else ("train", "test"):
        data.rows(split)
    return data


def _begin(folder: Path, about: dict[str, Any]) -> None:
    """Create the folder, or check that it holds a probe of the same weights, store and classes.

    Raises:
        BadInput: it holds something else.
    """
    if not (folder / _ABOUT).exists():
        if folder.exists() and (not folder.is_dir() or any(not p.name.startswith(".") for p in folder.iterdir())):
            raise BadInput(folder, "is neither an empty folder nor a probe; choose another --out")
        folder.mkdir(parents=True, exist_ok=True)
        return
    before = read_json_object(folder / _ABOUT, "a description of a probe", about)
    for key, value in about.items():
        if before[key] != value:
            raise BadInput(folder, f"holds a probe of other {key}; choose another --out")


def _check_recipe(file: Path, cell: Cell, found: CellResult, recipe: Recipe, weights: Path) -> None:
    """Raises: BadInput, if the result of a training is that of another recipe."""
    if cell.protocol not in TRAINED:
        return
    for key, value in asdict(cell_recipe(recipe, cell, weights, found.drawn)).items():
        if key == "init":  # a path to the weights, whose digest is that of the whole probe
            continue
        if (before := (found.recipe or {}).get(key)) != value:
            raise BadInput(file, f"is the result of a training with {key} {before}, not {value}; choose another --out")


def _compute(
    cell: Cell, data: ProbeData, classifier: Classifier, weights: Path, recipe: Recipe, *, joins_val: bool
) -> CellResult:
    """Fit and score one cell. joins_val: whether the linear probe is fitted to train and val together in the end."""
    drawn = cell.amount.draw(data.targets("train"), cell.seed)
    fitted, c, used = len(drawn), None, None
    device = local_device()
    if cell.protocol in TRAINED:
        used = cell_recipe(recipe, cell, weights, len(drawn))
        run = data.folder / "runs" / cell.name
        found = trained_probabilities(used, data.store, data.rows("train")[drawn], run)
    else:
        train = (data.features("train", classifier)[drawn], data.targets("train")[drawn])
        test = data.features("test", classifier)
        if cell.protocol == "knn":
            found = neighbour_probabilities(*train, test, device)
        else:
            found, c, fitted = _linear(train, data, classifier, test, device, joins_val=joins_val)
    resampling = Resampling(found, data.targets("test"), multi_label=data.multi_label)
    samples = {
        name: [None if np.isnan(v) else v for v in values.tolist()] for name, values in resampling.samples().items()
    }
    return CellResult(
        drawn=len(drawn),
        fitted=fitted,
        c=c,
        recipe=None if used is None else asdict(used),
        test=len(found),
        figures=resampling.figures(np.ones(len(found), np.int64)),
        samples=samples,
    )


def _linear(
    train: tuple[NDArray[np.float32], NDArray[np.uint8]],
    data: ProbeData,
    classifier: Classifier,
    test: NDArray[np.float32],
    device: torch.device,
    *,
    joins_val: bool,
) -> tuple[NDArray[np.float32], float, int]:
    """Probabilities of the test patches, C, and the number of patches that the probe was fitted to."""
    val = (data.features("val", classifier), data.targets("val"))
    c = choose_strength(train, val, device, multi_label=data.multi_label)
    if joins_val:
        train = (np.concatenate([train[0], val[0]]), np.concatenate([train[1], val[1]]))
    fitted = fit_linear(*train, c, device, multi_label=data.multi_label)
    found = fitted.probabilities(test)
    if not np.isfinite(found).all():
        raise Diverged(f"the linear probe with C = {c:.3g} gives probabilities that are not finite")
    return found, c, len(train[0])
