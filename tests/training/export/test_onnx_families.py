"""ONNX computes what torch computes for every family of backbones: at any size where it can, else at one."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from models.nets.build import build
from models.nets.encoder import Encoder
from models.nets.heads import ProjectionHead
from training.data.preprocess import input_spec
from training.data.synthetic import street
from training.evaluation.exported import Exported
from training.export.onnx import AGREEMENT, Deployed, check, to_onnx

_FEW = {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 32}
_WINDOWS = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2), "img_size": 64}
FREE: dict[str, dict[str, Any]] = {
    "vit_small_patch16_dinov3": _FEW,
    "eva02_tiny_patch14_224": _FEW | {"img_size": 28},
    "vit_small_patch16_rope_mixed_224": _FEW,
    "test_convnext": {},
}
WINDOWS: dict[str, dict[str, Any]] = {
    "swin_tiny_patch4_window7_224": _WINDOWS,
    "swinv2_tiny_window8_256": _WINDOWS,
}
FIXED: dict[str, dict[str, Any]] = {
    "hieradet_small": {"embed_dim": 8, "stages": (1, 1, 2, 1), "global_att_blocks": (3,)},
    "beit_base_patch16_224": _FEW,
    "hiera_tiny_224": {"embed_dim": 8, "stages": (1, 1, 2, 1), "img_size": 64},
    "samvit_base_patch16": _FEW | {"global_attn_indexes": (0,)},
    "vit_relpos_small_patch16_224": _FEW,
    "test_maxvit": {"img_size": 64},
}
ALL = FREE | WINDOWS | FIXED
SLOW = (*WINDOWS, "hieradet_small", "test_maxvit", "vit_relpos_small_patch16_224")
NO_KEYS = ("test_convnext", "test_maxvit")
CASES = [
    pytest.param(name, features, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in ALL
    for features in ("tokens", "keys")
    if features == "tokens" or name not in NO_KEYS
]


@pytest.mark.parametrize(("name", "features"), CASES)
def test_onnx_is_torch(name: str, features: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda asked, **given: create(asked, **(ALL[name] | given)))
    backbone = build(name, "random", levels=3, features=features).eval()
    centroids = nn.functional.normalize(torch.randn(5, 12), dim=1)
    network = Deployed(Encoder(backbone, ProjectionHead(backbone.channels, 12)), centroids).eval()
    spec = input_spec(network.encoder, 96)
    assert (spec.resize == "short_side") == (name not in FIXED)
    graph = to_onnx(network, spec)
    session = Exported(graph)
    sides = [(3, 4), (5, 3)] if name not in FIXED else [(spec.size[0] // spec.multiple, spec.size[1] // spec.multiple)]
    for count, (tall, wide) in enumerate(sides, 1):
        size = (count, tall * spec.multiple, wide * spec.multiple, 3)
        pixels = torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(count))
        with torch.inference_mode():
            scores, _ = network(pixels)
        np.testing.assert_allclose(session(pixels.numpy()).scores, scores.numpy(), atol=2e-4, rtol=1e-4)
    assert check(network, graph, [street((60, 90))], spec).agreement >= AGREEMENT
