"""The one base class of everything Tessera refuses.

Knows nothing of HTTP: the service maps these classes to status codes in one table.
"""

from typing import ClassVar


class TesseraError(Exception):
    """A refusal a person can act on: its message says what is wrong and what to change.

    exit_code  of the command that it ends
    """

    exit_code: ClassVar[int] = 1


class UsageError(TesseraError):
    """What was asked for cannot be done: options, recipes or folders that do not fit."""

    exit_code = 2
