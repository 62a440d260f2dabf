"""How a command behaves: whole files, progress, worker processes, resumable output, signals, tables on the terminal."""
