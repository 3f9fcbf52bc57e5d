"""Names of what is handed around everywhere: arrays, and the part of a picture that something fills."""

from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Box = tuple[float, float, float, float]  # top, left, height, width: fractions of the whole

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
