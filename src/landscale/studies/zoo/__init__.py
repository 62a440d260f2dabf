"""The networks compared on one machine: speed, and whether they learn."""
