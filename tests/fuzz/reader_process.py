"""Pictures are read in a process of its own: what a codec of outside software does to it is told by format only.

Knows nothing of how the files were made.
"""
