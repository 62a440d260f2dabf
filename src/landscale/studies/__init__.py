"""Studies that run many trainings or measurements."""
