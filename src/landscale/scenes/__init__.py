"""A Sentinel-2 product, read by windows."""

LAYOUTS = (
    ".SAFE folder or zip, folder of band rasters (B02.tif), GeoTIFF with named bands, STAC item (.json), or .mat file"
)
