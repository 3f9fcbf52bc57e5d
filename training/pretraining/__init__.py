"""Weights for the backbone, where no hub has them."""
