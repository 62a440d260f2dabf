"""How good are the features of an encoder? Frozen probes and fine-tuning on some or all labels of a store.

The frozen protocols are those of torchgeo-bench 0.4.0 (https://github.com/torchgeo/torchgeo-bench; `evaluate_knn`,
`evaluate_logistic` and both bootstraps in its `main.py`, with the settings of its `conf/config.yaml`). On the same features,
score, interval and C are equal.

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
