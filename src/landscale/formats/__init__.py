"""File formats, independent of Sentinel-2: GeoTIFF, tar, compressed streams, folders and zip files."""
