"""The commands: what a user says → one call of a room. Each file adds its own and imports a room when its command runs."""
