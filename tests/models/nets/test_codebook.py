"""The TR head beside torch's own layers, at sizes it was not trained at, and as ONNX."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from models.nets.build import build
from models.nets.codebook import MAX_TOKENS, Attention, CodebookDecoder, quantize
from models.nets.encoder import Encoder
from models.nets.tokens import TokenBackbone
from models.preprocess import InputSpec
from training.evaluation.exported import Exported
from training.export.onnx import Deployed, to_onnx


def decoder(grid: tuple[int, int] = (4, 4)) -> CodebookDecoder:
    torch.manual_seed(0)
    head = CodebookDecoder(12, 5, grid, concepts=7, hidden=24)
    head.codebook.normal_()
    return head.eval()


def test_nearest_by_cosine_and_rows_as_they_are():
    codebook = torch.tensor([[9.0, 0.0], [0.0, 0.1], [-1.0, -1.0]])
    x = torch.tensor([[[0.1, 3.0], [-5.0, -4.0]], [[1.0, 0.9], [0.0, 0.0]]])
    index, rows = quantize(x, codebook)
    assert index.tolist() == [[1, 2], [0, 0]]
    assert torch.equal(rows, codebook[index])
    assert torch.equal(quantize(x * 7, codebook * 0.3)[0], index)


def test_attention_is_torchs_with_one_head():
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 1, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    ours = Attention(12)
    ours.load_state_dict(theirs.state_dict())
    q, k, v = torch.randn(3, 2, 9, 12)
    assert torch.allclose(ours(q, k, v), theirs(q, k, v)[0], atol=1e-6)


def test_the_layer_without_positions_is_torchs_but_for_the_residual():
    """torch's layer gives x + norm3(…) its target's way; CAUSE adds the last norm to the memory."""
    torch.manual_seed(0)
    theirs = nn.TransformerDecoderLayer(12, 1, 24, dropout=0, batch_first=True)
    head = decoder()
    head.layer.load_state_dict(theirs.state_dict())
    target, memory = torch.randn(2, 2, 9, 12)
    ours = head.layer(target, memory, torch.zeros(1, 9, 12))
    assert torch.allclose(ours - memory, theirs(target, memory), atol=1e-5)


def test_positions_are_their_own_at_the_trained_size_and_resampled_at_others():
    head = decoder()
    features = torch.randn(2, 12, 4, 4)
    tokens = features.flatten(2).transpose(1, 2)
    out = head.layer(quantize(tokens, head.codebook)[1], tokens, head.positions[None])
    expected = head.projection(out.transpose(1, 2).unflatten(2, (4, 4)))
    assert torch.allclose(head(features), expected, atol=1e-6)
    for size in ((1, 1), (3, 7), (9, 2)):
        assert head(torch.randn(1, 12, *size)).shape == (1, 5, *size)
    with torch.no_grad():
        head.positions.copy_(head.positions[:1].expand(16, 12))  # the same everywhere, hence at every size
    zeros = head(torch.zeros(1, 12, 2, 3))
    assert torch.allclose(zeros.std(dim=(2, 3)), torch.zeros(5), atol=1e-5)


def test_every_token_sees_all_others_of_its_image_only():
    head = decoder()
    features = torch.randn(2, 12, 4, 4)
    moved = features.clone()
    moved[0, :, 0, 0] += 3
    change = (head(moved) - head(features)).abs().amax(1)
    assert change[0].min() > 0
    assert not change[1].any()


def test_dropout_is_asked_for_everywhere():
    asked = []

    def dropout(x: torch.Tensor) -> torch.Tensor:
        asked.append(tuple(x.shape))
        return x

    head = decoder()
    features = torch.randn(2, 12, 4, 4)
    assert torch.equal(head(features, dropout), head(features))
    hidden, attention, residual, maps = (2, 16, 24), (2, 16, 16), (2, 16, 12), (2, 12, 4, 4)
    assert sorted(asked) == sorted([attention] * 2 + [residual] * 3 + [hidden] + [maps] * 2)


def test_training_reaches_all_parameters_and_not_the_codebook():
    head = decoder()
    head(torch.randn(2, 12, 4, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    assert not head.codebook.requires_grad


def test_the_token_limit_is_never_under_the_trained_size():
    assert decoder().max_tokens == MAX_TOKENS
    assert CodebookDecoder(2, 2, (100, 100), concepts=2, hidden=2).max_tokens == 10000


@pytest.mark.parametrize("least_stride", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_onnx_is_torch_at_every_size(least_stride):
    torch.manual_seed(0)
    backbone = TokenBackbone(build("resnet10t", "random", levels=2), least_stride).eval()
    backbone.center.normal_(std=0.1)
    side = 80 // backbone.stride
    head = CodebookDecoder(backbone.channels, 12, (side, side), concepts=64, hidden=32)
    head.codebook.normal_()
    centroids = F.normalize(torch.randn(6, 12), dim=1)
    network = Deployed(Encoder(backbone, head, flip_average=True), centroids).eval()
    step = backbone.stride
    session = Exported(to_onnx(network, InputSpec(size=(64, 64), multiple=step, max_side_px=640)))
    for batch, rows, columns in ((1, side, side), (2, 2, 3), (3, 7, 1), (1, 11, 5)):
        pixels = torch.randint(0, 256, (batch, rows * step, columns * step, 3), dtype=torch.uint8)
        with torch.inference_mode():
            scores, code = network(pixels)
        got = session(pixels.numpy(), code=True)
        assert got.scores.shape == scores.shape == (batch, 6, rows, columns)
        np.testing.assert_allclose(got.scores, scores.numpy(), atol=2e-4, rtol=1e-4)
        np.testing.assert_allclose(got.code, code.numpy(), atol=2e-4, rtol=1e-4)


def test_fine_features_are_averaged_and_centered():
    torch.manual_seed(0)
    inner = build("resnet10t", "random", levels=3, neck=8).eval()
    pooled = TokenBackbone(inner, 8).eval()
    assert (pooled.stride, pooled.channels, inner.stride) == (8, 8, 4)
    pooled.center.fill_(2)
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        assert torch.allclose(pooled(x) + 2, F.avg_pool2d(inner(x), 2), atol=1e-6)
        assert torch.equal(TokenBackbone(inner, 4)(x), inner(x))
    assert TokenBackbone(inner, 9).stride == 12
