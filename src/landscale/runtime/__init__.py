"""How commands run: atomic files, JSON, output paths, resumable parts, progress, signals, workers, portability, tables."""
