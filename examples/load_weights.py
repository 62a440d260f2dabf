"""Load weights of `landscale train` and classify the first patches of a store.

python examples/load_weights.py RUN_OR_WEIGHTS STORE.h5
"""

import sys
from pathlib import Path

import torch

import landscale

model = landscale.load_model(sys.argv[1])
store = landscale.open_store(Path(sys.argv[2]))

# Tensors of raw digital numbers at native resolution, (n, bands, side, side), by the names of their bands.
planes = {p.bands: torch.from_numpy(store.pixels(p.key, range(4))) for p in store.layout.planes}
for name, row in zip(store.column("name"), model.probabilities(planes), strict=False):
    likely = sorted(zip(row.tolist(), model.description.classes, strict=True), reverse=True)[:3]
    print(name, *(f"{label} {probability:.2f}" for probability, label in likely), sep="\n  ")

# The features before the classification head, by timm's method `forward_features`.
features = model.network.forward_features(model.inputs(planes))  # type: ignore[operator]
print("features", tuple(features.shape))
