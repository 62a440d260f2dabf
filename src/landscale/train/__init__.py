"""A recipe and a store → a trained classifier: `training` tells the story, the other files are its parts."""

from landscale.train.training import Trainer, train

__all__ = ["Trainer", "train"]
