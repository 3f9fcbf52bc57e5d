"""onnxruntime with the weights of matrix products in 8 bits: about twice as fast, for labels that differ a little.

Weights are quantized per channel when the network is opened, activations while it runs, image by image. Convolutions
stay in float32 (8-bit ones are slower here), so a network without matrix products gains nothing.

Knows nothing of how far the labels differ: `autoselect.py` measures it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from models import hardware
from models.bundle import Bundle
from service.engines import quantize
from service.engines.base import EngineError, Kind, first_line
from service.engines.onnxruntime_cpu import OnnxRuntime
from service.settings import Settings

# Without these instructions products of 8 bits are summed in 16, which overflow: weights then get 7 bits.
_WIDE_SUMS = {"avx512_vnni", "avx_vnni", "asimddp"}
_PATIENCE_S = 600


def quantized(network: bytes) -> bytes:
    """The network with 8-bit matrix products. Raises EngineError where it cannot be made.

    Done by a process of its own: the libraries it takes keep 0.3 GB, which the server has no further use for.
    """
    bits = "8" if hardware.flags() & _WIDE_SUMS else "7"
    with tempfile.TemporaryDirectory(prefix="tessera-int8-") as folder:
        source, target = Path(folder, "f32.onnx"), Path(folder, "int8.onnx")
        source.write_bytes(network)
        command = [sys.executable, "-P", quantize.__file__, str(source), str(target), bits]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EngineError(f"TESSERA_ENGINE=onnxruntime-int8: quantizing failed: {first_line(error)}") from None
        if done.returncode:
            last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
            raise EngineError(
                f"TESSERA_ENGINE=onnxruntime-int8: quantizing failed: {last[:200]}; set TESSERA_ENGINE=auto"
            )
        return target.read_bytes()


def _open(bundle: Bundle, settings: Settings) -> OnnxRuntime:
    return OnnxRuntime(bundle, quantized(bundle.encoder_bytes()), settings, "onnxruntime-int8")


KINDS = [Kind("onnxruntime-int8", False, ("onnxruntime", "onnx"), "the `cpu` extra and `onnx`", _open)]
