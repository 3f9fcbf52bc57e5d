"""Four backbones that are neither plain ViTs nor CNNs: from 24 photos and a file of weights to labels over HTTP."""

import io
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from models.bundle import Bundle
from models.inference import segment
from tests.service.server import server_of
from tests.training.few_steps import few_steps
from training import train
from training.data.synthetic import street
from training.evaluation.exported import Exported

# name: how its images are brought to the network, which is whether its graph takes any size
FAMILIES = {
    "vit_small_patch16_dinov3": "short_side",
    "eva02_tiny_patch14_224": "short_side",
    "swin_tiny_patch4_window7_224": "short_side",
    "hiera_tiny_224": "stretch",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for i in range(24):
        Image.fromarray(street((96, 128), seed=i)).save(folder / f"{i}.png")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_from_photos_to_labels(name: str, photos: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    save_file(timm.create_model(name, num_classes=0).state_dict(), tmp_path / "weights.safetensors")
    side = 112 if "patch14" in name else 96
    given = [
        f"backbone.name={name}", f"backbone.weights={tmp_path / 'weights.safetensors'}", f"input.train_size={side}",
        f"input.size={side}", "clusters.k=4", *few_steps("stego"),
    ]  # fmt: skip
    train.command(out=tmp_path / "run", data=photos, method="stego", override=given, device="cpu")
    bundle = Bundle.load(tmp_path / "run" / "bundle")
    assert bundle.manifest.input.resize == FAMILIES[name]
    assert bundle.report()["onnx"]["labels_equal"] >= 0.999  # against torch, on real images and turned ones
    image, png = street((80, 120), seed=99), io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    with server_of(bundle.path, tmp_path)() as client:
        answer = client.post("/segment?format=png", content=png.getvalue())
    with Image.open(io.BytesIO(answer.content)) as labels:
        assert (np.asarray(labels) == segment(bundle, Exported(bundle.encoder_bytes()), image)).all()
