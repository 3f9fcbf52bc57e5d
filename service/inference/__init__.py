"""One image's way from bytes to label map."""
