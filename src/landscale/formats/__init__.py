"""File formats without any Sentinel-2 in them: GeoTIFF, tar, compressed streams, folders and zip files."""
