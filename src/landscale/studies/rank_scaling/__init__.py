"""Rank scaling: training on growing numbers of ranks, measured on this machine and predicted by a cost model."""
