"""Pretrained models: finding, verifying and reading them, and loading their parameters into Flax models."""

from research.weights.checkpoint import Checkpoint, RandomInit, begin, head_labels, open, training_words
from research.weights.load import load, padded_batch

__all__ = ["Checkpoint", "RandomInit", "begin", "head_labels", "load", "open", "training_words", "padded_batch"]
