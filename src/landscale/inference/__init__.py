"""Uses of a trained classifier on a store: scores of a split, and features of patches."""
