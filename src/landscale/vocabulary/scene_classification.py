"""Codes of the scene classification (SCL), a band of Level-2A products, by which clouds and snow are known.

The codes that have no name here are ground that can be seen: 2 dark area, 4 vegetation, 5 bare soil, 6 water, 7 unclassified.
Source: ESA, Sentinel-2 Level-2A Algorithm Theoretical Basis Document.
"""

NODATA = 0
SATURATED = 1  # or defective
SHADOW = 3  # of a cloud
CLOUD_MEDIUM, CLOUD_HIGH = 8, 9  # by its probability
CIRRUS = 10
SNOW = 11  # or ice; the largest code
CLOUDS = (CLOUD_MEDIUM, CLOUD_HIGH, CIRRUS)
