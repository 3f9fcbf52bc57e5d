"""Why there is no release, and whether who asked can mend it."""


class Refusal(Exception):
    """`code` is 2 where the checkout or the machine is not ready for a release, 1 where what was built is wrong."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
