"""What is wrong with somebody's data. Knows nothing else."""

from models.errors import UsageError


class DataError(UsageError):
    """A folder, an image, a label map or a table of classes that cannot be used; the message names it."""
