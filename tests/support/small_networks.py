"""A network that takes milliseconds: its description, and weights of it without classes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from landscale.models.classifier import Classifier, Description
from landscale.models.weights import save_weights
from landscale.store import PatchStore


def small_description(store: PatchStore, bands: tuple[str, ...], **changes: Any) -> Description:
    """A wide ResNet of 6,000 parameters without classes, for patches of 12 px, with the statistics of a store."""
    description = Description(
        model="wide_resnet",
        bands=bands,
        classes=(),
        nomenclature="custom",
        multi_label=True,
        statistics={band: store.statistics[band] for band in bands},
        side=12,
        ground=120,
        options={"width": 0.5},
        units=dict.fromkeys(bands, "digital number"),
        level="L2A",
    )
    return replace(description, **changes)


def save_small_encoder(folder: Path, store: PatchStore, bands: tuple[str, ...], seed: int = 0, **changes: Any) -> Path:
    """Write untrained weights to a folder; returns it. `changes`: of the description."""
    torch.manual_seed(seed)
    save_weights(folder, Classifier(small_description(store, bands, **changes)), {})
    return folder
