"""A trained classifier at work: scores on a split, and maps of scenes."""
