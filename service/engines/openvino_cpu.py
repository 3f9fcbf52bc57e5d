"""OpenVINO on the CPU: in float32, faster than onnxruntime at equal labels, or in bfloat16 where the processor has it.

The library keeps the weights as they came beside those it lays out for the processor. They are therefore mapped from
a file without a name, and once the first images have run, their pages are dropped: 214 MB instead of 293 for a ViT-S.

Knows nothing of other engines.
"""

import io
import tempfile
from typing import Any, Literal

import numpy as np

from models import hardware
from models.bundle import Bundle, BundleError
from models.extras import brings
from models.inference import Prediction
from models.types import Array
from service.engines.base import CpuEngine, EngineError, Kind, Ports, check, unreadable
from service.settings import Settings

_SETTLED = 3  # runs after which every weight is laid out; the golden image and the warm-up are two of them
_TYPES = {"u8": "uint8", "f32": "float32"}


class OpenVino(CpuEngine):
    """A network in OpenVINO. Raises BundleError when it is no network, or not the manifest's."""

    def __init__(
        self, bundle: Bundle, network: bytes, settings: Settings, name: str, precision: Literal["f32", "bf16"]
    ) -> None:
        super().__init__(name)
        import openvino

        core = openvino.Core()
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError(
                "TESSERA_ENGINE=openvino-bf16: this processor has no bfloat16 (AVX512_BF16 or AMX);"
                " set TESSERA_ENGINE=openvino, or auto"
            )
        properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": settings.threads or hardware.cores(),
        }
        with tempfile.TemporaryDirectory(prefix="tessera-openvino-", ignore_cleanup_errors=True) as self._folder:
            try:
                model = core.read_model(io.BytesIO(network))
                check(bundle, _ports(model.inputs), _ports(model.outputs))
                openvino.serialize(model, f"{self._folder}/network.xml")
                model = core.read_model(f"{self._folder}/network.xml")
                self._request: Any = core.compile_model(model, "CPU", properties).create_infer_request()
            except BundleError:
                raise
            except Exception as error:
                raise unreadable(bundle, error) from None
            del model
        self._runs = 0
        hardware.trim()

    def close(self) -> None:
        """Gives the network's memory back."""
        self._request = None
        hardware.trim()

    def _run(self, pixels: Array, code: bool) -> Prediction:
        self._request.infer({"pixels": pixels}, share_inputs=True, share_outputs=True)
        if self._runs < _SETTLED:
            self._runs += 1
            hardware.drop_mapped(self._folder)
            hardware.trim()
        # Copied, because the next image's answer is written where this one's is.
        scores = np.array(self._request.get_tensor("scores").data, np.float32)
        return Prediction(scores, np.array(self._request.get_tensor("code").data, np.float32) if code else None)


def _ports(ends: Any) -> Ports:
    return {
        end.get_any_name(): (
            _TYPES.get(kind := end.get_element_type().get_type_name(), kind),
            [n.get_length() if n.is_static else None for n in end.get_partial_shape()],
        )
        for end in ends
    }


def _open_f32(bundle: Bundle, settings: Settings) -> OpenVino:
    return OpenVino(bundle, bundle.encoder_bytes(), settings, "openvino", "f32")


def _open_bf16(bundle: Bundle, settings: Settings) -> OpenVino:
    return OpenVino(bundle, bundle.encoder_bytes(), settings, "openvino-bf16", "bf16")


_EXTRA = f"the `openvino` extra ({brings('openvino')})"
KINDS = [
    Kind("openvino", True, ("openvino",), _EXTRA, _open_f32),
    Kind("openvino-bf16", False, ("openvino",), _EXTRA, _open_bf16),
]
