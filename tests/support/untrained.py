"""Encoders with random weights, for probes."""

from __future__ import annotations

from pathlib import Path

import torch

from landscale.models.classifier import Classifier, Description
from landscale.models.weights import save_weights
from landscale.store import PatchStore

BANDS = ("B04", "B03", "B02", "B08")


def weights_in(folder: Path, store: PatchStore, seed: int = 0, width: float = 0.5) -> Path:
    """An untrained encoder without a head, with the normalisation of a store whose patches have 12 px a side."""
    torch.manual_seed(seed)
    description = Description(
        model="wide_resnet",
        bands=BANDS,
        classes=(),
        nomenclature="custom",
        multi_label=True,
        statistics={band: store.statistics[band] for band in BANDS},
        side=12,
        ground=120,
        options={"width": width},
        units=dict.fromkeys(BANDS, "digital number"),
        level="L2A",
    )
    path = folder / (f"weights-{seed}" if width == 0.5 else f"weights-{seed}-{width:g}")
    save_weights(path, Classifier(description), {})
    return path
