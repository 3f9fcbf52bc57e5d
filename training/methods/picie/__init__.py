"""PiCIE."""

from training.methods.picie.method import METHOD

__all__ = ["METHOD"]
