"""The features of patches: what the last layer of a network gets, for probes, searches and maps of similarity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landscale.distributed import Ranks, local_device
from landscale.errors import BadStore, Diverged, LandscaleError, UnknownName
from landscale.inference.features_file import read_about, write_features
from landscale.loading import batches, evaluation_steps
from landscale.models.classifier import Classifier
from landscale.models.encoders import find_encoder, load_encoder
from landscale.models.input_units import compare_units, convert, store_source
from landscale.runtime.outputs import check_output
from landscale.runtime.parts import Parts, resumable_parts
from landscale.runtime.progress import print_notes, progress_bar
from landscale.store import SPLITS, WHOLE, PatchStore, open_store

PART = 1024  # patches whose features are computed and kept at once, rounded up to whole batches


@dataclass(frozen=True)
class Embedding:
    """What `embed` wrote.

    Attributes:
        file: path of the file of features (`inference.features_file`); `read_features`, pandas and GeoPandas read it.
        patches: number of patches.
        width: features of a patch.
        weights: digest of the classifier.
        splits: number of patches by split.
    """

    file: str
    patches: int
    width: int
    weights: str
    splits: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """The attributes by name."""
        return asdict(self)


def embed(
    model: Classifier | str | Path,
    store: PatchStore | str | Path,
    out: str | Path,
    splits: Sequence[str] = SPLITS,
    *,
    ranks: Ranks | None = None,
    batch: int = 64,
    show: bool = True,
) -> Embedding:
    """Write the features of a store's patches, with labels and footprints. After an interruption, the same call resumes.

        landscale.embed("runs/eca", "ben.h5", "features.parquet")
        geopandas.read_parquet("features.parquet").plot("split")

    The features are those of one view of each patch (`Classifier.features`). Memory does not grow with their number, and the
    file is the same for any number of ranks. If `out` holds these features already, nothing is computed.

    Args:
        model: a classifier, which is used on the device it is on, or the name of an encoder (`models.encoders`).
        store: a store, or its path.
        out: the Parquet file to write.
        splits: names of the splits whose patches are embedded; by default all, and patches without a split.
        ranks: the processes that share the work; each of them calls this function.
        batch: patches per batch.
        show: whether to show a progress bar.

    Raises:
        BadInput: the weights cannot be read, the store's unit cannot be converted into theirs, or `out` is an input, or exists
            and holds something else.
        BadStore: the store cannot be read, lacks a band, or has no patch of these splits.
        UnknownName: no split or encoder has this name.
        Diverged: features are not finite.
    """
    out, ranks = Path(out), ranks or Ranks()
    opened = open_store(store) if isinstance(store, str | Path) else store
    inputs = [opened.path] if isinstance(model, Classifier) else [opened.path, find_encoder(model)]
    check_embedding_output(out, inputs)
    rows = embedded_rows(opened, splits)
    classifier = model if isinstance(model, Classifier) else load_encoder(model).to(local_device(ranks))
    d = classifier.description
    opened.planes_for(d.bands, d.stored)
    compared = compare_units(d, store_source(opened, d.bands, rows, stored=d.stored))
    if ranks.first:
        print_notes(compared.notes)
    counts = np.bincount(opened.splits[rows], minlength=len(SPLITS))
    about: dict[str, Any] = {
        "weights": classifier.digest(),
        "model": d.model,
        "bands": list(d.bands),
        "units": {band: d.units.get(band, "unknown") for band in d.bands},
        "level": d.level,
        "converted": dict(compared.factors),
        "side": d.side,
        "store": opened.fingerprint(),
        "splits": {name: int(n) for name, n in zip(SPLITS, counts, strict=True) if n},
        "batch": batch,
        "landscale": version("landscale"),
    }
    width = ranks.broadcast(_width_of(out, about) if ranks.first else 0)
    if not width:
        with resumable_parts(out, about) if ranks.first else nullcontext() as parts:
            width = _compute(classifier, opened, rows, ranks, batch, parts, compared.factors, show=show)
            if parts is not None:
                found = (_kept(parts, k) for k in range(len(_parts(rows, batch))))
                write_features(out, opened, rows, found, width, about)
            ranks.broadcast(None)
    return Embedding(str(out), len(rows), width, about["weights"], about["splits"])


def check_embedding_output(out: Path, inputs: Iterable[str | Path]) -> None:
    """Raises: BadInput, if `embed` may not write to a path (`runtime.outputs.check_output`)."""
    check_output(out, "a file of features", read_about, inputs)


def embedded_rows(store: PatchStore, splits: Sequence[str]) -> NDArray[np.int64]:
    """The rows of the whole patches of some splits, in the order of the store.

    Raises:
        BadStore: there are none. UnknownName: no split has this name.
    """
    for split in splits:
        if split not in SPLITS:
            raise UnknownName("split", split, SPLITS)
    chosen = [SPLITS.index(split) for split in splits]
    rows = np.flatnonzero(np.isin(store.splits, chosen) & (store.states == WHOLE))
    if not len(rows):
        held = ", ".join(f"{n} {name}" for name, n in store.split_sizes().items()) or "none at all"
        raise BadStore(store.path, f"holds no patch of the splits {', '.join(splits)}; it has {held}")
    return rows


def _width_of(out: Path, about: Mapping[str, Any]) -> int:
    """The width of the features in `out`, if they are those that `about` describes; else 0."""
    try:
        found = read_about(out)
    except LandscaleError:
        return 0
    width = found.pop("width", 0)
    return int(width) if found == {"kind": "features", **about} else 0


def _parts(rows: NDArray[np.int64], batch: int) -> list[NDArray[np.int64]]:
    size = -(-PART // batch) * batch
    return [rows[k : k + size] for k in range(0, len(rows), size)]


def _kept(parts: Parts, number: int) -> NDArray[np.float32]:
    found = parts.get(str(number))
    assert found is not None  # all parts have been computed
    return found


def _compute(
    classifier: Classifier,
    store: PatchStore,
    rows: NDArray[np.int64],
    ranks: Ranks,
    batch: int,
    done: Parts | None,
    factors: Mapping[str, float],
    *,
    show: bool,
) -> int:
    """Compute the features of the parts that the first rank does not have yet, and keep them there; returns their width.

    In each round, every rank computes one part. Batches lie within parts, so that they are the same for any number of ranks.
    """
    parts = _parts(rows, batch)
    missing = [k for k in range(len(parts)) if done is not None and done.get(str(k)) is None]
    missing = ranks.broadcast(missing)
    left = sum(len(parts[k]) for k in missing)
    with progress_bar("embed", left, visible=show and ranks.first) as advance:
        for start in range(0, len(missing), ranks.world):
            current = missing[start : start + ranks.world]
            own = parts[current[ranks.rank]] if ranks.rank < len(current) else rows[:0]
            computed = ranks.gather(part_features(classifier, store, own, batch, factors, ranks))
            for k, values in zip(current, computed, strict=False):
                if done is not None:
                    done.put(str(k), values)
                advance(len(values))
    return ranks.broadcast(_kept(done, 0).shape[1] if done is not None else 0)


def part_features(
    classifier: Classifier,
    store: PatchStore,
    rows: NDArray[np.int64],
    batch: int,
    factors: Mapping[str, float],
    ranks: Ranks,
) -> NDArray[np.float32]:
    """Features (n, F) of some patches, batch by batch, on this rank alone.

    Raises:
        Diverged: some are not finite.
    """
    d = classifier.eval().description
    device = next(classifier.network.parameters()).device
    no_targets = np.empty((len(store.states), 0), np.uint8)
    found = []
    for part in batches(store, d.bands, no_targets, evaluation_steps(rows, batch), device, upsampled=d.stored):
        found.append(classifier.features(convert(part.planes, factors)).cpu().numpy())
        if not np.isfinite(found[-1]).all():
            row = part.rows[~np.isfinite(found[-1]).all(axis=1)][0]
            raise Diverged(f"{store.path}: the features of patch {store.column('name')[row]} are not finite")
        ranks.report_progress(-1)
    return np.concatenate(found) if found else np.empty((0, 0), np.float32)
