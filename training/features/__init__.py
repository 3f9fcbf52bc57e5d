"""What frozen networks say of images, computed once and kept."""
