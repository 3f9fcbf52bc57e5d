"""What is wrong with somebody's data. Knows nothing else."""

from typing import ClassVar

from models.errors import UsageError


class DataError(UsageError):
    """A folder, an image, a label map or a table of classes that cannot be used; the message names it."""


class UnreadableImage(DataError):
    """An image that was read before and no longer can be: `name` below its folder, `reason`. Checkpoints are kept."""

    exit_code: ClassVar[int] = 1

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)  # both, as it comes out of processes
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.reason}. Checkpoints are kept: with the file as it was the run goes on from the last"
            " one; without it a new run can begin"
        )


def reason_of(error: Exception, *names: str) -> str:
    """Why something failed, without the paths it failed at: "permission denied"."""
    if isinstance(error, UnreadableImage):
        return error.reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    said = str(error)
    for name in names:
        said = said.replace(f"{name}: ", "")
    return said
