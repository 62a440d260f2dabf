"""Maps of whole scenes: probabilities of every pixel, and the files that are written."""
