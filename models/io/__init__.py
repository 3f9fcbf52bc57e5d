"""Files to pixels and pixels to files."""
