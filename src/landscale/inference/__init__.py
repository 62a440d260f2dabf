"""Uses of a trained classifier: scores on a split, and maps of scenes."""
