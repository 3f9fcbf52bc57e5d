"""The one base class of everything Tessera refuses.

Knows nothing of HTTP: the service maps these classes to status codes in one table.
"""


class TesseraError(Exception):
    """A refusal a person can act on: its message says what is wrong and what to change."""
