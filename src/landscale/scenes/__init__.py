"""A Sentinel-2 product, read by windows."""
