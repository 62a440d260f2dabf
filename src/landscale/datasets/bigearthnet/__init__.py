"""BigEarthNet v1 and v2: folders, archives, Sentinel-1 and the published LMDB."""
