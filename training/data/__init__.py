"""Images and label maps of a run, found, read and cut."""
