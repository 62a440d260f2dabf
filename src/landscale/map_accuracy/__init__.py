"""How good a map is, how large its classes are, and what changed between two maps.

`class_map` opens a class map; `reference` compares it with another raster of classes, pixel by pixel; `points` with a sample of
reference points, from which `estimates` computes accuracy and areas; `sample` draws such a sample; `change` compares two maps.
"""
