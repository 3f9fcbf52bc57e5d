"""Files to pixels and pixels to files."""

import logging

# What these packages find wrong with a client's file is an answer to that client, in our words: not a line of our log.
# The level is for the loggers below theirs, the filter for those that set their own level when they are imported.
for _package in ("PIL", "tifffile", "pydicom", "imagecodecs", "rasterio"):
    logging.getLogger(_package).setLevel(logging.CRITICAL)
    logging.getLogger(_package).addFilter(lambda record: record.levelno >= logging.CRITICAL)
