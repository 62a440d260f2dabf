"""DSen2: super-resolution of all bands of a scene to 10 m (Lanaras et al. 2018, ISPRS J. 146:305)."""
