"""onnxruntime on an NVIDIA GPU, with TensorRT in front where it is asked for; the CPU where that does not work.

Batches are filled up to 1, 2, 4, 8 or 16 images, so that the device meets few shapes and its memory stays flat; what
was filled up is cut off again. The images' own scores do not depend on the filling, but a device may choose another
kernel for another batch size: equal bit for bit is promised on the CPU alone. TF32 is off: scores are float32's.

Not measured on a GPU yet, and left out until it is: CUDA graphs, and page-locked host memory (an image at the
network's size is 0.3 MB; onnxruntime's Python interface has no way to lock it).

Knows nothing of how many images wait.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from models.bundle import Bundle, BundleError
from models.inference import Prediction
from models.types import Array
from service.engines.base import Engine, Kind, Shape, check, first_line, joined, remember
from service.engines.onnxruntime_cpu import CPU, OnnxRuntime, ports, session
from service.settings import Settings

log = logging.getLogger("tessera")

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"
SIZES = (1, 2, 4, 8, 16)
DEVICE = "cuda"
_BUFFERS = 16
_NO_MEMORY = ("failed to allocate memory", "out of memory", "alloc_failed", "available memory of")


class Cuda:
    """A network on the GPU; on the CPU from the moment the GPU fails, and `provider` and `name` say so.

    Raises whatever onnxruntime raises where the device does not start, BundleError where the network is not the
    manifest's. The network's bytes stay in memory for the way back.
    """

    batch = SIZES[-1]
    note: str | None = None
    exact = True

    def __init__(self, bundle: Bundle, network: bytes, settings: Settings, name: str) -> None:
        self.name, self.provider = name, "cuda"
        self.shapes: dict[Shape, None] = {}
        self._bundle, self._network, self._settings = bundle, network, settings
        self._turn = threading.Lock()
        self._cpu: OnnxRuntime | None = None
        self._buffers: OrderedDict[tuple[int, int, int], tuple[Array, Any]] = OrderedDict()
        self._session = session(network, settings, [*_providers(settings, name), CPU])
        # A missing CUDA library is only a warning in onnxruntime: the session then has the CPU alone.
        if CUDA not in self._session.get_providers():
            raise RuntimeError("the provider did not start; see onnxruntime's own message above")
        check(bundle, *ports(self._session))

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        """uint8 [B, H, W, 3] → scores float32 [B, K, h, w] and, when asked for, code [B, D, h, w].

        Raises MemoryError where the device has no room for this batch.
        """
        remember(self.shapes, pixels)
        with self._turn:
            if self._cpu is None:
                try:
                    return self._batches(pixels, code)
                except Exception as error:
                    if isinstance(error, MemoryError) or _is_out_of_memory(error):
                        self._buffers.clear()
                        raise MemoryError(f"{self._bundle.ref}: the GPU has no room for this batch") from None
                    self._cpu = self._lost(error)
        return self._cpu(pixels, code=code)

    def warm(self, shapes: Iterable[Shape]) -> None:
        """Runs at each (H, W), with every size of batch that the settings allow."""
        most = self._settings.max_batch_size or SIZES[-1]
        for height, width in shapes:
            for size in (s for s in SIZES if s <= most):
                try:
                    self(np.zeros((size, height, width, 3), np.uint8))
                except MemoryError:
                    log.warning("%s: no room on the GPU for %d images of %d×%d", self.name, size, height, width)
                    break

    def close(self) -> None:
        """Gives the network's memory back, on the device too."""
        self._buffers.clear()
        self._session, self._network = None, b""
        if self._cpu is not None:
            self._cpu.close()

    def _batches(self, pixels: Array, code: bool) -> Prediction:
        return joined([self._run(part, code) for part in _parts(pixels)])

    def _run(self, pixels: Array, code: bool) -> Prediction:
        count, height, width = pixels.shape[:3]
        size = next(size for size in SIZES if size >= count)
        host, device = self._buffer((size, height, width))
        if count < size:
            host[:count], host[count:] = pixels, 0
            device.update_inplace(host)
        else:
            device.update_inplace(np.ascontiguousarray(pixels))
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("pixels", device)
        for name in ("scores", "code") if code else ("scores",):
            binding.bind_output(name, DEVICE)
        self._session.run_with_iobinding(binding)
        answer = [np.asarray(array[:count], np.float32) for array in binding.copy_outputs_to_cpu()]
        return Prediction(answer[0], answer[1] if code else None)

    def _buffer(self, key: tuple[int, int, int]) -> tuple[Array, Any]:
        """The host's and the device's memory for a batch of this size and shape; the least used make room."""
        import onnxruntime as ort

        if key not in self._buffers:
            if len(self._buffers) == _BUFFERS:
                self._buffers.popitem(last=False)
            device = ort.OrtValue.ortvalue_from_shape_and_type((*key, 3), np.uint8, DEVICE)
            self._buffers[key] = np.zeros((*key, 3), np.uint8), device
        self._buffers.move_to_end(key)
        return self._buffers[key]

    def _lost(self, error: Exception) -> OnnxRuntime:
        reason = first_line(error)
        log.error("%s: CUDA failed (%s); the CPU goes on", self._bundle.ref, reason)
        engine = OnnxRuntime(self._bundle, self._network, self._settings)
        self.name, self.provider = engine.name, engine.provider
        self.note = f"CUDA failed while serving ({reason}); the CPU goes on"
        self._buffers.clear()
        self._session, self._network = None, b""
        return engine


def offered(provider: str = CUDA) -> bool:
    """Whether this onnxruntime was built for a GPU's provider; whether it works shows only when it is opened."""
    import onnxruntime as ort

    return provider in ort.get_available_providers()


def open_gpu(bundle: Bundle, settings: Settings, name: str = "cuda") -> Cuda | str:
    """The GPU's engine, or why there is none. Raises BundleError where the network is not the manifest's."""
    if not offered(TENSORRT if name == "tensorrt" else CUDA):
        if name == "tensorrt":
            return "this onnxruntime has no TensorRT; set TESSERA_ENGINE=cuda, or install one that has it"
        return "this onnxruntime has no CUDA; install the `gpu` extra"
    try:
        return Cuda(bundle, bundle.encoder_bytes(), settings, name)
    except BundleError:
        raise
    except Exception as error:
        return f"CUDA is offered but does not work ({first_line(error)})"


def _open(bundle: Bundle, settings: Settings, name: str = "cuda") -> Engine:
    """The GPU's engine; the CPU's, announced in the log and in its note, where the GPU does not work."""
    found = open_gpu(bundle, settings, name)
    if isinstance(found, Cuda):
        return found
    log.warning("%s: %s. The CPU serves", bundle.ref, found)
    engine = OnnxRuntime(bundle, bundle.encoder_bytes(), settings)
    engine.note = f"{found}; the CPU serves"
    return engine


def _parts(pixels: Array) -> Iterator[Array]:
    for start in range(0, len(pixels), SIZES[-1]):
        yield pixels[start : start + SIZES[-1]]


def _providers(settings: Settings, name: str) -> list[tuple[str, dict[str, str]]]:
    share = settings.gpu_bytes // max(1, len(settings.bundles))
    # CUDA's arena never shrinks: grow it by what is asked, not by powers of two (onnxruntime#22297).
    cuda = {"arena_extend_strategy": "kSameAsRequested", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}
    if share:
        cuda["gpu_mem_limit"] = str(share)
    if name != "tensorrt":
        return [(CUDA, cuda)]
    plans = settings.state / "tensorrt"  # building one takes minutes
    tensorrt = {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(plans), "trt_fp16_enable": "False"}
    if share:
        tensorrt["trt_max_workspace_size"] = str(share)
    return [(TENSORRT, tensorrt), (CUDA, cuda)]


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return any(sign in text for sign in _NO_MEMORY)


KINDS = [
    Kind("cuda", False, ("onnxruntime",), "the `gpu` extra", _open),
    Kind("tensorrt", False, ("onnxruntime",), "the `gpu` extra and TensorRT", partial(_open, name="tensorrt")),
]
