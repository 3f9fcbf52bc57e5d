"""What an engine is, and what all of them do alike: one run at a time, on the CPU one image at a time, shapes kept.

Knows nothing of onnxruntime or OpenVINO.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata, util
from typing import Protocol

import numpy as np

from models.bundle import Bundle, BundleError
from models.errors import TesseraError
from models.inference import Prediction
from models.types import Array
from service.settings import Settings

Shape = tuple[int, int]
Ports = Mapping[str, tuple[str, list[int | None]]]  # name → element type and shape; None: any length
_REMEMBERED_SHAPES = 64


class EngineError(TesseraError):
    """An engine that this machine cannot run; the message says what to install or to name instead."""


class EngineNotInstalled(EngineError):
    """An engine that was named and is not there: a wrong setting."""

    exit_code = 2


class Engine(Protocol):
    """A Predictor that says what it is.

    name      the engine, as TESSERA_ENGINE names it
    provider  "cuda" or "cpu": what really runs it now
    shapes    (H, W) it has run at, in order
    note      a sentence: why this engine, and how far its labels agree with onnxruntime's; None: nothing to say
    exact     False where it was named although it computes less exactly: the golden image then asks for less
    batch     images it runs at once where the operator does not say
    """

    batch: int
    name: str
    provider: str
    shapes: dict[Shape, None]
    note: str | None
    exact: bool

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        """pixels uint8 [B, H, W, 3] → scores float32 [B, K, h, w] and, when asked for, code [B, D, h, w].

        Raises MemoryError where the device has no room for so large a batch.
        """
        ...

    def warm(self, shapes: Iterable[Shape]) -> None:
        """Runs at each (H, W), so that the first request there does not pay for it."""
        ...

    def close(self) -> None:
        """Gives the network's memory back; the engine is not called again."""
        ...


@dataclass(frozen=True)
class Kind:
    """One way to run a network.

    name       as TESSERA_ENGINE names it
    exact      computes in float32 on the CPU, so that `auto` may choose it
    modules    libraries it needs
    install    what brings them
    open       the engine of a bundle; raises BundleError where the network cannot be opened
    """

    name: str
    exact: bool
    modules: tuple[str, ...]
    install: str
    open: Callable[[Bundle, Settings], Engine]

    @property
    def versions(self) -> str | None:
        """`library version` of each module; None where one is not installed."""
        found = [version(module) for module in self.modules]
        return None if None in found else ", ".join(map(str, found))


class CpuEngine:
    """An engine on the CPU; a kind of it says how one image is run.

    Images of a batch run one after the other: on a CPU batches only cost (docs/performance.md), and an image's answer
    is then, bit for bit, the one it gets alone.
    """

    batch = 1
    provider = "cpu"
    note: str | None = None
    exact = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.shapes: dict[Shape, None] = {}
        self._turn = threading.Lock()  # several runs at once only cost memory

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        """uint8 [B, H, W, 3] → scores float32 [B, K, h, w] and, when asked for, code [B, D, h, w]."""
        pixels = np.ascontiguousarray(pixels)
        with self._turn:
            answers = [self._run(pixels[i : i + 1], code) for i in range(len(pixels))]
        remember(self.shapes, pixels)
        return joined(answers)

    def warm(self, shapes: Iterable[Shape]) -> None:
        """Runs once at each (H, W)."""
        for height, width in shapes:
            self(np.zeros((1, height, width, 3), np.uint8))

    def close(self) -> None:
        """Gives the network's memory back."""
        raise TypeError(f"{type(self).__name__} must define close()")

    def _run(self, pixels: Array, code: bool) -> Prediction:
        raise TypeError(f"{type(self).__name__} must define _run()")


def joined(answers: Sequence[Prediction]) -> Prediction:
    """The answers for the parts of a batch as one."""
    if len(answers) == 1:
        return answers[0]
    codes = [answer.code for answer in answers if answer.code is not None]
    return Prediction(np.concatenate([answer.scores for answer in answers]), np.concatenate(codes) if codes else None)


def remember(shapes: dict[Shape, None], pixels: Array) -> None:
    """Adds the shape of a batch to those an engine has run at."""
    if len(shapes) < _REMEMBERED_SHAPES:
        shapes[(int(pixels.shape[1]), int(pixels.shape[2]))] = None


def check(bundle: Bundle, inputs: Ports, outputs: Ports) -> None:
    """Raises BundleError where a network's inputs and outputs are not those of the manifest."""
    if list(inputs) != ["pixels"] or set(outputs) != {"scores", "code"}:
        raise BundleError(
            f"{bundle.ref}: encoder.onnx takes {sorted(inputs)} and gives {sorted(outputs)};"
            " it has to take ['pixels'] and give ['code', 'scores']"
        )
    wanted = {
        "pixels": ("uint8", 3, 3),
        "scores": ("float32", 1, len(bundle.manifest.clusters)),
        "code": ("float32", 1, bundle.manifest.code.dim),
    }
    for name, (kind, axis, length) in wanted.items():
        got, shape = {**inputs, **outputs}[name]
        if got != kind or len(shape) != 4 or shape[axis] not in (None, length):
            raise BundleError(
                f"{bundle.ref}: encoder.onnx: {name} is {got} {shape}; {kind} with {length} on axis {axis} is needed"
            )


def unreadable(bundle: Bundle, error: Exception) -> BundleError:
    """What is raised where a library cannot open a network."""
    return BundleError(f"{bundle.ref}: encoder.onnx cannot be opened: {first_line(error)}")


def first_line(error: Exception) -> str:
    """What an error says, without its stack."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__


def version(module: str) -> str | None:
    """`library version` of an importable module; None where it is not installed."""
    if util.find_spec(module) is None:
        return None
    for distribution in (module, f"{module}-gpu"):
        with suppress(metadata.PackageNotFoundError):
            return f"{module} {metadata.version(distribution)}"
    return f"{module} of unknown version"
