"""A recipe and a store → a trained classifier: `training` runs the epochs, the other files are its parts."""
