"""How good are the features of an encoder? Frozen probes and fine-tuning on some or all labels of a store.

The frozen protocols are those of torchgeo-bench 0.4 (`neighbours`, `linear`, `intervals`; read in its sources of mid-2026, of
which `src/torchgeo_bench/main.py` is commit 94b1a60850c9 and `knn.py` and `linear.py` are 241b178e1a02):

- Features are taken from one view of each patch, as they are: neither standardised nor normalised.
- `knn`: the 5 nearest training patches by Euclidean distance, each with one vote.
- `linear`: logistic regression by L-BFGS; of 40 strengths C from 1e-6 to 1e4 the first one of highest score on val; then the
  same with train and val together.
- The score is the accuracy of a single-label store and the micro average precision of a multi-label one, on the test split,
  with the 2.5th and 97.5th percentile of 200 bootstrap samples of the patches.

What it does not have, and is added here: fewer labels (`drawing`), training (`training`), further figures, and intervals over
seeds. With fewer labels than the train split has, val is not joined to it at the end, because that would be many more labels.
"""

from landscale.probing.study import Probe, probe

__all__ = ["Probe", "probe"]
