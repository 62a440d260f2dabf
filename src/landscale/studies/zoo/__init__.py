"""All networks compared on one machine: their speed and memory, and whether they learn."""
