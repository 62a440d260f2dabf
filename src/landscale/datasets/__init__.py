"""Data sets: which patches each of them holds (a `Survey`), and how to read them."""
