"""What the methods minimize: tensors in, scalars out.

Know nothing of images on disk, of steps or of checkpoints.
"""
