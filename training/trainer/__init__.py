"""The loop, its stages, its checkpoints."""
