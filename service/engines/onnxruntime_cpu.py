"""onnxruntime on the CPU: the engine every other one is held against.

The session's own copy of the network's bytes is dropped once it is open, and what loading left over goes back to the
system: 167 MB instead of 273 for a ViT-S, at the same speed.

Knows nothing of GPUs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from models import hardware
from models.bundle import Bundle
from models.inference import Prediction
from models.types import Array
from service.engines.base import CpuEngine, Kind, Ports, check, unreadable
from service.settings import Settings

CPU = "CPUExecutionProvider"
_TYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


class OnnxRuntime(CpuEngine):
    """A network in onnxruntime, on the CPU. Raises BundleError when it is no network, or not the manifest's."""

    def __init__(self, bundle: Bundle, network: bytes, settings: Settings, name: str = "onnxruntime") -> None:
        super().__init__(name)
        try:
            self._session = session(network, settings, [CPU])
        except Exception as error:
            raise unreadable(bundle, error) from None
        check(bundle, *ports(self._session))
        hardware.trim()

    def close(self) -> None:
        """Gives the network's memory back."""
        self._session = None
        hardware.trim()

    def _run(self, pixels: Array, code: bool) -> Prediction:
        answer = self._session.run(["scores", "code"] if code else ["scores"], {"pixels": pixels})
        return Prediction(np.asarray(answer[0], np.float32), np.asarray(answer[1], np.float32) if code else None)


def session(network: bytes, settings: Settings, providers: Sequence[Any]) -> Any:
    """An onnxruntime session over bytes, which it does not keep."""
    import onnxruntime as ort

    ort.disable_telemetry_events()  # for Windows, and see __init__.py
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads or (hardware.cores() if hardware.restricted() else 0)
    options.log_severity_level = 3
    # Threads that find no work spin for 50 µs, then sleep. The default spins on: 1.4 times the processor time on a busy
    # machine, taken from decoding and encoding. Not spinning at all costs an image alone 4 %.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "50")
    # A plan of memory for every shape met costs more than it saves: 138 MB instead of 121 after 90 random shapes.
    options.enable_mem_pattern = False
    # Without `enable_fallback` a provider's failure is an error, not a printed line and another session.
    opened = ort.InferenceSession(network, options, providers=list(providers), enable_fallback=0)
    opened._model_bytes = None  # kept only for set_providers, which nobody calls
    return opened


def ports(opened: Any) -> tuple[Ports, Ports]:
    """The inputs and outputs of a session."""

    def read(ends: Any) -> Ports:
        return {
            end.name: (_TYPES.get(end.type, end.type), [n if isinstance(n, int) else None for n in end.shape])
            for end in ends
        }

    return read(opened.get_inputs()), read(opened.get_outputs())


def _open(bundle: Bundle, settings: Settings) -> OnnxRuntime:
    return OnnxRuntime(bundle, bundle.encoder_bytes(), settings)


KINDS = [Kind("onnxruntime", True, ("onnxruntime",), "the `cpu` extra", _open)]
