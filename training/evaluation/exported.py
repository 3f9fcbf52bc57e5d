"""A bundle's network opened again for measuring: values inside it, and itself with and without flip averaging.

Knows nothing of labels or scores. What the values inside are called is told by training/export/onnx.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper, load_from_string, numpy_helper

from models.bundle import Bundle
from models.errors import UsageError
from models.inference import Prediction
from models.preprocess import InputSpec, fit
from models.types import Array
from training.data.synthetic import street

Device = Literal["auto", "cpu", "cuda"]

_CUDA = "CUDAExecutionProvider"
_EQUIVARIANT = 1e-3  # of the code's scale


class Answer(NamedTuple):
    """What a network says of one image.

    scores    float32 [K, h, w];  code  float32 [D, h, w]
    features  float32 [C, h', w'] of the backbone, where they were asked for and the graph names them
    """

    scores: Array
    code: Array
    features: Array | None = None


Network = Callable[[Array], Answer]
"""pixels uint8 [H, W, 3] at the network's size → Answer."""


class Exported:
    """An ONNX file as a `Network`, and as a models.inference.Predictor.

    features  answer with the backbone's features too, where the graph names them
    threads   of one call; 0: as many as there are cores
    """

    def __init__(self, network: bytes, *, device: Device = "cpu", features: bool = False, threads: int = 0) -> None:
        self.features = features and "features" in values(model := load_from_string(network))
        if self.features:
            model.graph.output.append(helper.make_tensor_value_info("features", TensorProto.FLOAT, None))
            network = model.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(network, options, providers=_providers(device))

    def __call__(self, pixels: Array, *, code: bool = False) -> Prediction:
        """See models.inference.Predictor."""
        return Prediction(*self._session.run(["scores", "code"] if code else ["scores"], {"pixels": pixels}))

    def answer(self, pixels: Array) -> Answer:
        """See `Network`."""
        names = ["scores", "code", *(["features"] if self.features else [])]
        return Answer(*(array[0] for array in self._session.run(names, {"pixels": pixels[None]})))


@dataclass(frozen=True)
class Opened:
    """A bundle's network in the two ways it can be measured; one of them may be missing.

    networks  by whether codes are averaged with the mirrored image's
    served    which of them the service runs
    notes     what is missing and why, a sentence each
    """

    exported: Exported
    networks: Mapping[bool, Network]
    served: bool
    notes: tuple[str, ...] = ()


def open_networks(bundle: Bundle, *, flip: bool, features: bool, device: Device, threads: int = 0) -> Opened:
    """The bundle's network as it is served; with `flip` also the other way.

    Where the graph averages, the other way is the same graph with the averaging taken out; elsewhere it is two
    runs of it, averaged here.
    """
    network = bundle.encoder_bytes()
    exported = Exported(network, device=device, features=features, threads=threads)
    served = mirrors(load_from_string(network)) and equivariant(exported.answer, bundle.manifest.input)
    networks: dict[bool, Network] = {served: exported.answer}
    notes = []
    if flip and not served:
        networks[True] = flip_averaged(exported.answer, bundle.centroids)
    elif flip:
        once = without_averaging(network)
        if once is None:
            notes.append(
                "the network averages with the mirrored image and does not name its code before that: there is no"
                " row without; a bundle exported anew has one"
            )
        else:
            networks[False] = Exported(once, device=device, features=features, threads=threads).answer
    return Opened(exported, networks, served, tuple(notes))


def values(model: ModelProto) -> set[str]:
    """Names of everything that is computed inside a graph."""
    return {name for node in model.graph.node for name in node.output}


def without_averaging(network: bytes) -> bytes | None:
    """The same network without the mean over the mirrored image's code; None where the graph does not name it.

    The node that averages is replaced by one that hands the code through; what only fed it is never run.
    """
    model = load_from_string(network)
    known = values(model)
    if "code_once" not in known:
        return None
    mean = "code_mean" if "code_mean" in known else "code"
    nodes = model.graph.node
    at = next(i for i, node in enumerate(nodes) if mean in node.output)
    del nodes[at]
    nodes.insert(at, helper.make_node("Identity", ["code_once"], [mean], "code_once_alone"))
    return bytes(model.SerializeToString())


def flip_averaged(network: Network, centroids: Array) -> Network:
    """The mean over an image and its mirror image, for a network that does not average itself.

    centroids  float32 [K, D]: scores are linear in the code, and are taken from the mean code
    """

    def averaged(pixels: Array) -> Answer:
        upright, mirrored = network(pixels), network(np.ascontiguousarray(pixels[:, ::-1]))
        code = np.where(_unmoved(upright.code, mirrored.code), upright.code, _mean(upright.code, mirrored.code))
        scores = np.einsum("kd,dhw->khw", centroids, code, optimize=True)
        features = upright.features
        if features is not None and mirrored.features is not None:
            features = _mean(features, mirrored.features)
        return Answer(scores.astype(np.float32), code.astype(np.float32), features)

    return averaged


def mirrors(model: ModelProto) -> bool:
    """Whether a graph reads something backwards, as one that averages with the mirrored image has to."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    steps = [node.input[4] for node in model.graph.node if node.op_type == "Slice" and len(node.input) > 4]
    return any(numpy_helper.to_array(constants[name]).min() < 0 for name in steps if name in constants)


def equivariant(network: Network, spec: InputSpec) -> bool:
    """Whether a network gives a mirrored image the mirrored code: averaging makes that so, and so does color alone."""
    pixels = fit(street((120, 160), seed=3), spec).pixels
    upright, mirrored = network(pixels).code, network(np.ascontiguousarray(pixels[:, ::-1])).code
    off = np.where(_unmoved(upright, mirrored), 0, upright - mirrored[..., ::-1])
    return bool(np.abs(off).max() <= _EQUIVARIANT * np.abs(upright).max())


def _mean(upright: Array, mirrored: Array) -> Array:
    return (upright + mirrored[..., ::-1]) / 2


def _unmoved(upright: Array, mirrored: Array) -> Array:
    """bool [D, 1, 1]: channels that do not depend on the image at all (position columns): they are not mirrored."""
    same: Array = (upright == mirrored).all(axis=(1, 2), keepdims=True)
    return same


def _providers(device: Device) -> list[str]:
    has_cuda = _CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise UsageError(
            "--device cuda: this onnxruntime has no CUDA; install onnxruntime-gpu (the `gpu` extra) or leave --device"
            " out"
        )
    return [_CUDA, "CPUExecutionProvider"] if has_cuda and device != "cpu" else ["CPUExecutionProvider"]
