"""Small files with the structure of the published checkpoints, and what the papers do with the tensors in them.

Know nothing of our networks: timm's ViT and torchvision's ResNet, and the rest by hand.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models import resnet18

SIDE = 64  # of images, and of the size the ViTs' positions are for
K = 5
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


class AnyNode:
    """A value of a DictConfig."""

    def __init__(self, value: object) -> None:
        self._val = value


class DictConfig:
    """What a Lightning checkpoint holds besides: OmegaConf's object, of a package that is not here."""

    def __init__(self, **settings: object) -> None:
        self._metadata, self._parent = AnyNode(None), None
        self._content = {name: AnyNode(value) for name, value in settings.items()}


def save(value: object, path: Path, *, zipped: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


def pixels(image: NDArray[np.uint8]) -> Tensor:
    """RGB uint8 [H, W, 3] → normalized [1, 3, H, W]."""
    return (torch.tensor(image).permute(2, 0, 1)[None].float() / 255 - MEAN) / STD


def dino(channels: int = 128, depth: int = 2, heads: int | None = None) -> VisionTransformer:
    """A ViT in DINO's layout, patches of 8, with weights that tell pixels apart."""
    torch.manual_seed(channels)
    vit = VisionTransformer(
        img_size=SIDE, patch_size=8, embed_dim=channels, depth=depth, num_heads=heads or channels // 64, num_classes=0
    )
    for name, parameter in vit.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5 if name == "pos_embed" else 1.5 / math.sqrt(parameter[0].numel()))
    return vit.eval()


def convolution(dim: int, channels: int) -> dict[str, Tensor]:
    return {"weight": torch.randn(dim, channels, 1, 1) / math.sqrt(channels), "bias": torch.randn(dim) / 10}


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def features(vit: VisionTransformer, x: Tensor) -> Tensor:
    """[1, C, h, w], at the size the positions are for."""
    tokens: Tensor = vit.forward_features(x)[:, 1:]
    return tokens.transpose(1, 2).unflatten(2, (SIDE // 8, SIDE // 8))


def keys(vit: VisionTransformer, x: Tensor) -> Tensor:
    """The keys of the last block's attention, [1, C, h, w], as STEGO's code cuts them for six heads."""
    tokens = vit.norm_pre(vit._pos_embed(vit.patch_embed(x)))
    for block in vit.blocks[:-1]:
        tokens = block(tokens)
    last = vit.blocks[-1]
    qkv = (
        last.attn.qkv(last.norm1(tokens)).reshape(1, tokens.shape[1], 3, last.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    )
    cut = qkv[1, :, :, 1:, :].reshape(1, 6, SIDE // 8, SIDE // 8, -1)
    return cut.permute(0, 1, 4, 2, 3).reshape(1, -1, SIDE // 8, SIDE // 8)


def conv(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"])


def by_cosine(code: Tensor, centers: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The papers' order: the code to the image's size, then the cosine of every pixel."""
    up = F.normalize(F.interpolate(code, size, mode="bilinear", align_corners=False), dim=1)
    scores = torch.einsum("kd,bdhw->bkhw", F.normalize(centers, dim=1), up)
    return scores[0].argmax(0).numpy().astype(np.uint8)


def stego(vit: VisionTransformer, dim: int = 7) -> dict[str, Tensor]:
    """A state_dict in STEGO's names."""
    channels = vit.embed_dim
    return {
        **under("net.model", vit.state_dict()),
        **under("net.cluster1.0", convolution(dim, channels)),
        **under("net.cluster2.0", convolution(channels, channels)),
        **under("net.cluster2.2", convolution(dim, channels)),
        "train_cluster_probe.clusters": torch.randn(K, dim),
        "cluster_probe.clusters": torch.randn(K, dim),
        **under("linear_probe", convolution(K, dim)),
        **under("decoder", convolution(channels, dim)),
    }


def lightning(state: dict[str, Tensor], **settings: object) -> dict[str, object]:
    return {
        "epoch": 3,
        "global_step": 5000,
        "pytorch-lightning_version": "1.5.0",
        "state_dict": OrderedDict(state),
        "callbacks": {AnyNode: {"best_model_score": torch.tensor(28.2), "best_model_path": "x.ckpt"}},
        "optimizer_states": [{"state": {0: {"step": 1, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 5e-4}]}],
        "hparams_name": "cfg",
        "hyper_parameters": {"n_classes": 27, "cfg": DictConfig(dim=7, dino_patch_size=8, **settings)},
    }


@torch.no_grad()
def stego_labels(
    vit: VisionTransformer,
    state: dict[str, Tensor],
    image: NDArray[np.uint8],
    seen_by: Callable[[VisionTransformer, Tensor], Tensor] = features,
) -> NDArray[np.uint8]:
    def code(x: Tensor) -> Tensor:
        seen = seen_by(vit, x)
        hidden = F.relu(conv(seen, state, "net.cluster2.0"))
        return conv(seen, state, "net.cluster1.0") + conv(hidden, state, "net.cluster2.2")

    x = pixels(image)
    mean = (code(x) + code(x.flip(-1)).flip(-1)) / 2
    return by_cosine(mean, state["cluster_probe.clusters"], image.shape[:2])


def picie() -> dict[str, object]:
    """A checkpoint in PiCIE's names."""
    torch.manual_seed(1)
    backbone = resnet18(weights=None).eval().state_dict()
    decoder = {
        f"layer{n}": convolution(128, channels) for n, channels in zip((4, 3, 2, 1), (64, 128, 256, 512), strict=True)
    }
    state = {f"module.backbone.{name}": tensor for name, tensor in backbone.items()}
    for layer, tensors in decoder.items():
        state |= under(f"module.decoder.{layer}", tensors)
    classifiers = [
        OrderedDict(
            {"module.weight": torch.randn(K, 128, 1, 1) * torch.rand(K, 1, 1, 1), "module.bias": torch.zeros(K)}
        )
        for _ in range(2)
    ]
    return {
        "epoch": 10,
        "args": DictConfig(),
        "state_dict": OrderedDict(state),
        "classifier1_state_dict": classifiers[0],
        "classifier2_state_dict": classifiers[1],
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
    }


@torch.no_grad()
def picie_labels(checkpoint: dict[str, object], image: NDArray[np.uint8], classifier: int) -> NDArray[np.uint8]:
    state: dict[str, Tensor] = checkpoint["state_dict"]  # type: ignore[assignment]
    net = resnet18(weights=None).eval()
    prefix = "module.backbone."
    net.load_state_dict({name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)})
    x = net.maxpool(net.relu(net.bn1(net.conv1(pixels(image)))))
    maps = []
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)
        maps.append(x)
    out = conv(maps[3], state, "module.decoder.layer1")
    for level, layer in ((2, "layer2"), (1, "layer3"), (0, "layer4")):
        out = F.interpolate(out, maps[level].shape[-2:], mode="bilinear", align_corners=False)
        out = out + conv(maps[level], state, f"module.decoder.{layer}")
    weight: Tensor = checkpoint[f"classifier{classifier}_state_dict"]["module.weight"]  # type: ignore[index]
    logits = F.conv2d(F.normalize(out, dim=1), weight)
    up = F.interpolate(logits, image.shape[:2], mode="bilinear", align_corners=False)
    return up[0].argmax(0).numpy().astype(np.uint8)


def cause_head(channels: int, *, tr: bool, dim: int = 6, hidden: int = 24) -> dict[str, Tensor]:
    """A segment file in CAUSE's names: student, its moving average, projections, linear probe."""

    def head(name: str) -> dict[str, Tensor]:
        parts = {
            **under("f1", convolution(dim, channels)),
            **under("f2.0", convolution(channels, channels)),
            **under("f2.2", convolution(dim, channels)),
        }
        if not tr:
            return under(name, parts)
        layer = nn.TransformerDecoderLayer(channels, 1, hidden).state_dict()
        positions = torch.randn((SIDE // 8) ** 2, channels)
        return {f"{name}.query_pos": positions, **under(f"{name}.tr", {**parts, **layer})}

    torch.manual_seed(2)
    return {
        **head("head"),
        **under("projection_head.f", convolution(16, dim)),
        **under("linear.f", convolution(K, dim)),
        **head("head_ema"),
        **under("projection_head_ema.f", convolution(16, dim)),
    }


def cause_cluster(channels: int, dim: int = 6, concepts: int = 9) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {"cluster_probe": torch.randn(K, dim), "codebook": torch.randn(concepts, channels)}


@torch.no_grad()
def cause_labels(
    vit: VisionTransformer, head: dict[str, Tensor], cluster: dict[str, Tensor], image: NDArray[np.uint8], *, tr: bool
) -> NDArray[np.uint8]:
    def attention(name: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        module = nn.MultiheadAttention(q.shape[-1], 1, batch_first=True).eval()
        prefix = f"head_ema.tr.{name}."
        module.load_state_dict({n.removeprefix(prefix): t for n, t in head.items() if n.startswith(prefix)})
        return module(q, k, v)[0]  # type: ignore[no-any-return]

    def norm(x: Tensor, n: int) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], head[f"head_ema.tr.norm{n}.weight"], head[f"head_ema.tr.norm{n}.bias"])

    def linear(x: Tensor, n: int) -> Tensor:
        return F.linear(x, head[f"head_ema.tr.linear{n}.weight"], head[f"head_ema.tr.linear{n}.bias"])

    def decoded(memory: Tensor) -> Tensor:
        book = cluster["codebook"]
        target = book[(F.normalize(memory, dim=-1) @ F.normalize(book, dim=-1).T).argmax(-1)]
        at = head["head_ema.query_pos"]
        one = norm(target + attention("self_attn", target + at, target + at, target), 1)
        two = norm(one + attention("multihead_attn", one + at, memory, memory), 2)
        return memory + norm(two + linear(F.relu(linear(two, 1)), 2), 3)

    def code(x: Tensor) -> Tensor:
        seen, inside = features(vit, x), "head_ema.tr" if tr else "head_ema"
        if tr:
            seen = decoded(seen.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, seen.shape[-2:])
        return conv(seen, head, f"{inside}.f1") + conv(
            F.relu(conv(seen, head, f"{inside}.f2.0")), head, f"{inside}.f2.2"
        )

    x = pixels(image)
    return by_cosine((code(x) + code(x.flip(-1)).flip(-1)) / 2, cluster["cluster_probe"], image.shape[:2])
