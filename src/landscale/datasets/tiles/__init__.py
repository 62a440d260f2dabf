"""Patches cut from whole Sentinel-2 products, with labels from CORINE Land Cover."""
