"""Tensors out of anybody's checkpoint; nothing in it is run."""
