"""An onnxruntime session as an Encoder.

Knows nothing of clusters, batches or HTTP: pixels in, scores out, on CUDA where that works and on the CPU
where it does not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import onnxruntime as ort

from models.assign import Array
from models.bundle import Bundle, BundleError, Encoded

log = logging.getLogger("tessera")

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# CUDA's arena never shrinks: grow it by what is asked, not by powers of two (onnxruntime#22297).
_CUDA_OPTIONS = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC"}
_REMEMBERED_SHAPES = 64


class Runtime:
    """The network of one bundle, ready to run.

    provider  "cuda" or "cpu": what really runs it
    shapes    (H, W) it has run at, in order

    Raises BundleError when the file is no network, or its inputs and outputs are not the manifest's.
    """

    name = "onnxruntime"
    note: str | None = None

    def __init__(self, bundle: Bundle, *, provider: Literal["auto", "cpu", "cuda"] = "auto", threads: int = 0) -> None:
        self._name = bundle.ref
        self._network = bundle.encoder_bytes()
        self._threads = threads
        self.shapes: dict[tuple[int, int], None] = {}
        self.provider = "cpu"
        self._session = self._open(provider)
        self._check(bundle)
        if self.provider == "cpu":
            self._network = b""  # kept only for the way back from a lost GPU

    def __call__(self, pixels: Array, *, code: bool = False) -> Encoded:
        """uint8 [B, H, W, 3] → scores float32 [B, K, h, w] and, when asked for, code [B, D, h, w]."""
        outputs = ["scores", "code"] if code else ["scores"]
        try:
            answer = self._session.run(outputs, {"pixels": pixels})
        except Exception as error:
            if self.provider == "cpu":
                raise
            log.error("%s: CUDA failed (%s); the CPU goes on", self._name, _first_line(error))
            self._session = self._cpu()
            answer = self._session.run(outputs, {"pixels": pixels})
        if len(self.shapes) < _REMEMBERED_SHAPES:
            self.shapes[(int(pixels.shape[1]), int(pixels.shape[2]))] = None
        arrays = [np.asarray(array, np.float32) for array in answer]
        return Encoded(arrays[0], arrays[1] if code else None)

    def warm(self, shapes: Iterable[tuple[int, int]]) -> None:
        """Runs once at each (H, W)."""
        for height, width in shapes:
            self(np.zeros((1, height, width, 3), np.uint8))

    def close(self) -> None:
        """Gives the network's memory back."""
        del self._session

    def _open(self, provider: Literal["auto", "cpu", "cuda"]) -> ort.InferenceSession:
        if provider != "cpu" and CUDA in ort.get_available_providers():
            try:
                session = self._new([(CUDA, _CUDA_OPTIONS), CPU])
                # A missing CUDA library is only a warning in onnxruntime: the session then has the CPU alone.
                if CUDA in session.get_providers():
                    self.provider = "cuda"
                    return session
                reason = "the provider did not start; see onnxruntime's own message above"
            except Exception as error:
                reason = _first_line(error)
            log.warning("%s: CUDA is offered but does not work (%s); the CPU serves", self._name, reason)
        elif provider == "cuda":
            log.warning("%s: this onnxruntime has no CUDA; install the `gpu` extra. The CPU serves", self._name)
        return self._cpu()

    def _cpu(self) -> ort.InferenceSession:
        self.provider = "cpu"
        return self._new([CPU])

    def _new(self, providers: list[Any]) -> ort.InferenceSession:
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 3
        try:
            return ort.InferenceSession(self._network, options, providers=providers)
        except Exception as error:
            if providers != [CPU]:
                raise
            raise BundleError(f"{self._name}: encoder.onnx cannot be opened: {_first_line(error)}") from None

    def _check(self, bundle: Bundle) -> None:
        k, d = len(bundle.manifest.clusters), bundle.manifest.code.dim
        inputs = {i.name: (i.type, i.shape) for i in self._session.get_inputs()}
        outputs = {o.name: (o.type, o.shape) for o in self._session.get_outputs()}
        wanted = {"pixels": ("tensor(uint8)", 3, 3), "scores": ("tensor(float)", 1, k), "code": ("tensor(float)", 1, d)}
        if list(inputs) != ["pixels"] or set(outputs) != {"scores", "code"}:
            raise BundleError(
                f"{self._name}: encoder.onnx takes {sorted(inputs)} and gives {sorted(outputs)};"
                " it has to take ['pixels'] and give ['code', 'scores']"
            )
        for name, (kind, axis, length) in wanted.items():
            got, shape = {**inputs, **outputs}[name]
            if got != kind or len(shape) != 4 or (isinstance(shape[axis], int) and shape[axis] != length):
                raise BundleError(
                    f"{self._name}: encoder.onnx: {name} is {got} {shape};"
                    f" {kind} with {length} on axis {axis} is needed"
                )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
