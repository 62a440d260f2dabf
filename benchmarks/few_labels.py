"""The recipe `few_labels` and classical classifiers on statistics of the bands: trained on the train split, scored on val.

    python benchmarks/few_labels.py STORE.h5

The recipe was tuned on the val split of BigEarthNet v2 patches for which the committed result was measured. The classical
classifiers were not tuned.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from command_line import evaluated, figures, landscale, occurring
from rounds import record
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from landscale.inference.metrics import compute_scores
from landscale.store import PatchStore, open_store

TUNED_ON = "the val split scored here"
KEYS = ("micro_f1_at_half", "macro_f1_at_half", "micro_ap", "macro_ap")


def statistics(store: PatchStore, rows: np.ndarray) -> np.ndarray:
    """Mean, standard deviation and three quantiles of every band (n, 5·bands)."""
    found = []
    for plane in store.layout.planes:
        pixels = store.pixels(plane.key, rows).reshape(len(rows), len(plane.bands), -1).astype(np.float64)
        quantiles = np.quantile(pixels, [0.1, 0.5, 0.9], axis=2)
        found += [pixels.mean(2), pixels.std(2), *quantiles]
    return np.concatenate(found, axis=1)


def main(path: Path) -> None:
    store = open_store(path)
    train, val = store.patches("train"), store.patches("val")
    x, y = statistics(store, train), store.classes[train]
    seen = np.flatnonzero((y.sum(0) > 0) & (y.sum(0) < len(y)))
    logistic = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(C=1.0, max_iter=5000)))
    forest = RandomForestClassifier(500, random_state=0, n_jobs=-1)
    results = {}
    for name, model in (("random_forest", forest), ("logistic_regression", logistic)):
        model.fit(x, y[:, seen])
        given = model.predict_proba(statistics(store, val))
        if isinstance(given, list):  # a random forest returns one array a class
            given = np.stack([part[:, 1] for part in given], axis=1)
        probabilities = np.zeros((len(val), y.shape[1]))
        probabilities[:, seen] = given
        scores = compute_scores(
            probabilities, store.classes[val], store.layout.classes, 0.5, multi_label=True, split="val"
        )
        results[name] = figures(scores, KEYS)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        seconds = landscale("train", "--recipe", "few_labels", "--store", path.resolve(), "--run", run)
        scores = evaluated(run, path.resolve(), "val")
    results["few_labels"] = figures(scores, (*KEYS, "micro_f1", "macro_f1"))
    content = {
        "store": path.name,
        "patches": {"train": len(train), "val": len(val)},
        "classes_with_support": occurring(scores),
        "recipe_tuned_on": TUNED_ON,
        "seconds": seconds,
        "val": results,
    }
    record("few_labels", content)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
