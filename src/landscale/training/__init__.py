"""A recipe and a store → a trained classifier: `training` begins or resumes it, `trainer` runs the epochs.

The other files are parts of these two.
"""
