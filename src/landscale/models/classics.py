"""Networks of both papers that timm keeps: rows of the zoo only."""

from __future__ import annotations

from landscale.models.registry import AUTHORS, ZooEntry, register

_HE = "He et al. 2016, Deep residual learning for image recognition"
_REBEN = "Clasen et al. 2024 (reBEN), BigEarthNet v2, S1+S2, test"
_AITLAS = "AiTLAS, BigEarthNet v1, 19 classes, RGB, from scratch"

for _row in (
    ZooEntry("resnet18", "resnet", _HE),
    ZooEntry(
        "resnet50",
        "resnet",
        _HE,
        published={
            AUTHORS: {"parameters": 23_595_475},  # with convolution biases, which timm's lacks
            _REBEN: {"micro_f1": 0.767, "macro_f1": 0.644, "micro_ap": 0.861, "macro_ap": 0.703},
            _AITLAS: {"micro_f1": 0.775, "macro_f1": 0.701},
        },
    ),
):
    register(_row)
