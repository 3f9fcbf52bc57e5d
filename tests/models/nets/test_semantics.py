"""The network of SAN: shapes at any size, semantics that reach the pixels, one ONNX graph for all sizes."""

import numpy as np
import pytest
import torch

from models.nets.backbone import CnnBackbone
from models.nets.build import build
from models.nets.semantics import SanEncoder, SemanticAttention, SemanticEncoder
from training.data.preprocess import input_spec
from training.evaluation.exported import Exported
from training.export.onnx import Deployed, to_onnx


@pytest.fixture(scope="module")
def network() -> SanEncoder:
    torch.manual_seed(0)
    backbone = build("test_resnet", "random", levels=3, neck=32)
    assert isinstance(backbone, CnnBackbone)
    return SanEncoder(backbone, SemanticEncoder(5, 32, 2), dim=32, temperature=0.1).eval()


@torch.inference_mode()
def test_pixels_at_stride_four_and_one_embedding_per_query(network: SanEncoder) -> None:
    for height, width in ((64, 64), (48, 112), (16, 16)):
        code, semantics = network.see(torch.randn(2, 3, height, width))
        assert code.shape == (2, 32, height // 4, width // 4)
        assert semantics.shape == (2, 5, 32)
    assert network.stride == 4


@torch.inference_mode()
def test_semantics_see_the_whole_image_and_each_image_alone(network: SanEncoder) -> None:
    images = torch.randn(2, 3, 64, 64)
    before = network.semantics(images)
    changed = images.clone()
    changed[0, :, -4:, -4:] += 3
    after = network.semantics(changed)
    assert float((before[0] - after[0]).abs().max()) > 1e-3
    assert torch.allclose(before[1], after[1], atol=1e-5)
    # … and through SEAT a far corner reaches every pixel.
    far = (network.code(images)[0] - network.code(changed)[0]).abs().amax(0)
    assert float(far.min()) > 0


def test_attention_takes_from_the_semantics_a_pixel_is_close_to() -> None:
    attention = SemanticAttention(2, temperature=0.01)
    with torch.no_grad():
        attention.value.weight.copy_(torch.eye(2))
        refined = attention(torch.tensor([[[[3.0, 0.0]], [[0.0, 5.0]]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]))
    assert torch.allclose(refined, torch.tensor([[[[4.0, 0.0]], [[0.0, 6.0]]]]))


def test_onnx_is_torch_at_every_batch_and_size(network: SanEncoder) -> None:
    spec = input_spec(network, 64)
    deployed = Deployed(network, torch.randn(5, 32, generator=torch.Generator().manual_seed(1))).eval()
    session = Exported(to_onnx(deployed, spec))
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in [(1, 2, 3), (3, 4, 2), (1, 1, 7), (1, 1, 1)]:
        size = (batch, height * spec.multiple, width * spec.multiple, 3)
        pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
        with torch.inference_mode():
            scores, _ = deployed(pixels)
        np.testing.assert_allclose(session(pixels.numpy()).scores, scores.numpy(), atol=2e-4, rtol=1e-4)
