"""TorchGeo's ClassificationTask takes an exported folder. Skipped without torchgeo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import landscale
from landscale.models.classifier import Classifier, Description


def test_a_classification_task_takes_exported_weights(tmp_path: Path) -> None:
    pytest.importorskip("torchgeo")
    from torchgeo.trainers import ClassificationTask

    bands = ("B02", "B03", "B04", "B08")
    statistics = dict.fromkeys(bands, (400.0, 100.0))
    torch.manual_seed(0)
    ours = Classifier(Description("resnet18", bands, ("a", "b", "c"), "custom", False, statistics, 32, 320)).eval()
    folder = landscale.export_model(ours, tmp_path / "w")
    values = torch.randn(2, 4, 32, 32)
    with torch.inference_mode():
        task = ClassificationTask(f"local-dir:{folder}", weights=True, in_channels=4, num_classes=3).eval()
        torch.testing.assert_close(task(values), ours.network(values))
        other = ClassificationTask(
            f"local-dir:{folder}", weights=True, in_channels=4, num_classes=7
        ).eval()  # classes of its own
        torch.testing.assert_close(other.model.forward_features(values), ours.network.forward_features(values))
