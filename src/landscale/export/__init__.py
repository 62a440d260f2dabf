"""Weights for other people and programs: complete folders, and their publication on the Hugging Face hub."""
