"""Weights as a user has them: a folder that knows its bands, its statistics and its classes.

python examples/load_weights.py RUN_OR_WEIGHTS STORE.h5
"""

import sys
from pathlib import Path

import torch

import landscale

model = landscale.load_model(sys.argv[1])
store = landscale.open_store(Path(sys.argv[2]))

# A plane is a tensor of raw digital numbers at native resolution; its key says which bands it holds.
planes = {p.bands: torch.from_numpy(store.pixels(p.key, range(4))) for p in store.layout.planes}
for name, row in zip(store.column("name"), model.probabilities(planes), strict=False):
    likely = [
        f"{c} {p:.2f}" for p, c in sorted(zip(row.tolist(), model.description.classes, strict=True), reverse=True)[:3]
    ]
    print(name, *likely, sep="\n  ")

# The trunk alone, as timm knows it: features of whatever the input stage makes of the planes.
features = model.network.forward_features(model.inputs(planes))
print("features", tuple(features.shape))
