"""Files to pixels and pixels to files."""

import logging

# What these packages find wrong with a client's file is an answer to that client, in our words: not a line of our log.
for _package in ("PIL", "pydicom", "imagecodecs"):
    logging.getLogger(_package).setLevel(logging.CRITICAL)
