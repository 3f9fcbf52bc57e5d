"""What is inside an exported graph, and the network with and without flip averaging."""

import numpy as np
import onnx
import pytest
import torch

from models.errors import UsageError
from models.nets.encoder import Encoder
from models.preprocess import InputSpec, fit
from tests.tiny import mean_color_onnx, write_tiny_bundle
from tests.training.export.test_write_bundle import deployed
from training.data.synthetic import street
from training.evaluation.exported import (
    Exported,
    equivariant,
    flip_averaged,
    mirrors,
    open_networks,
    values,
    without_averaging,
)
from training.export.onnx import Deployed, to_onnx

Built = tuple[Deployed, InputSpec, bytes]


@pytest.fixture(scope="module")
def built() -> dict[str, Built]:
    found = {}
    for kind in ("neck", "position", "flip"):
        network, spec = deployed(kind)
        found[kind] = (network, spec, to_onnx(network, spec))
    return found


def pixels_of(spec: InputSpec) -> np.ndarray:
    return fit(street((70, 110), seed=1), spec).pixels


@torch.inference_mode()
def code_of(encoder: Encoder, pixels: np.ndarray) -> np.ndarray:
    return encoder(torch.tensor(pixels)[None])[0].numpy()


def test_values_inside_are_named_and_are_no_outputs(built: dict[str, Built]) -> None:
    for kind, averaged in (("neck", False), ("position", False), ("flip", True)):
        model = onnx.load_from_string(built[kind][2])
        assert [output.name for output in model.graph.output] == ["scores", "code"]
        assert "features" in values(model)
        assert ({"code_once", "code_mean"} <= values(model)) == averaged
        assert mirrors(model) == averaged


@torch.inference_mode()
def test_features_are_the_backbones(built: dict[str, Built]) -> None:
    network, spec, file = built["neck"]
    pixels, encoder = pixels_of(spec), network.encoder
    x = (torch.tensor(pixels)[None].permute(0, 3, 1, 2).float() - encoder.mean) / encoder.std
    answer = Exported(file, features=True).answer(pixels)
    np.testing.assert_allclose(answer.features, encoder.backbone(x)[0].numpy(), atol=1e-4)
    assert Exported(file).answer(pixels).features is None


def test_the_averaging_can_be_taken_out(built: dict[str, Built]) -> None:
    network, spec, file = built["flip"]
    pixels, encoder = pixels_of(spec), network.encoder
    once = without_averaging(file)
    assert once is not None
    onnx.checker.check_model(onnx.load_from_string(once))
    averaged = code_of(encoder, pixels)
    encoder.flip_average = False
    alone = code_of(encoder, pixels)
    encoder.flip_average = True
    assert np.abs(averaged - alone).max() > 1e-3
    np.testing.assert_allclose(Exported(once).answer(pixels).code, alone, atol=1e-5)
    np.testing.assert_allclose(Exported(file).answer(pixels).code, averaged, atol=1e-5)
    assert equivariant(Exported(file).answer, spec)
    assert not equivariant(Exported(once).answer, spec)
    assert without_averaging(built["position"][2]) is None


def test_averaging_outside_the_graph_is_averaging_inside(built: dict[str, Built]) -> None:
    network, spec, file = built["neck"]  # nothing follows its head: the two are the same sum
    pixels, encoder = pixels_of(spec), network.encoder
    centroids = network.get_buffer("centroids")[:, :, 0, 0].numpy()
    answer = flip_averaged(Exported(file, features=True).answer, centroids)(pixels)
    encoder.flip_average = True
    wanted = code_of(encoder, pixels)
    inside = Exported(to_onnx(network, spec)).answer(pixels)
    encoder.flip_average = False
    np.testing.assert_allclose(answer.code, wanted, atol=1e-5)
    np.testing.assert_allclose(answer.scores, inside.scores, atol=1e-4)
    assert answer.features is not None


def test_position_columns_are_not_mirrored(built: dict[str, Built]) -> None:
    network, spec, file = built["position"]
    pixels, plain = pixels_of(spec), Exported(file).answer
    averaged = flip_averaged(plain, network.get_buffer("centroids")[:, :, 0, 0].numpy())(pixels)
    assert (averaged.code[-2:] == plain(pixels).code[-2:]).all()
    assert (averaged.code[:-2] != plain(pixels).code[:-2]).any()


def test_an_older_bundle_says_what_it_cannot_show(built: dict[str, Built], tmp_path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    opened = open_networks(bundle, flip=True, features=True, device="cpu")
    assert not opened.served  # color alone is the same in a mirror, but nothing in the graph mirrors
    assert sorted(opened.networks) == [False, True]
    assert not opened.exported.features
    model = onnx.load_from_string(mean_color_onnx())
    with_mirror = averaging(model)
    older = write_tiny_bundle(tmp_path / "older", encoder_onnx=with_mirror)
    opened = open_networks(older, flip=True, features=False, device="cpu")
    assert opened.served
    assert list(opened.networks) == [True]
    assert "exported anew" in opened.notes[0]


def averaging(model: onnx.ModelProto) -> bytes:
    """The tiny network with a mean over the mirrored code, and no names inside."""
    graph = model.graph
    for name, value in {"last": [-1], "end": [-(2**31)], "width": [3], "back": [-1]}.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, np.int64), name))
    at = next(i for i, node in enumerate(graph.node) if "code" in node.output)
    graph.node[at].output[0] = "upright"
    added = [
        onnx.helper.make_node("Slice", ["upright", "last", "end", "width", "back"], ["mirrored"]),
        onnx.helper.make_node("Slice", ["mirrored", "last", "end", "width", "back"], ["again"]),
        onnx.helper.make_node("Mean", ["upright", "again"], ["code"]),
    ]
    for n, node in enumerate(added):
        graph.node.insert(at + 1 + n, node)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def test_cuda_that_is_not_there_is_refused() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(UsageError, match="has no CUDA"):
        Exported(mean_color_onnx(), device="cuda")
