"""Training over growing numbers of ranks: measured, and predicted by a cost model."""
