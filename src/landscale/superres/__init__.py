"""DSen2: every band of a scene at 10 m (Lanaras et al. 2018, ISPRS J. 146:305)."""
