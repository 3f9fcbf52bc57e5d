"""Semantics of a whole image, and pixels that attend to them: the network of SAN.

Knows nothing of losses, of means over a batch or of how an image was cropped.

The paper's abstract names the parts (a CNN as pixel encoder, a ViT as semantic encoder, attention that brings
their features together); their sizes and formulas were not available, so everything below is our construction.

Source: Semantic Attention Network (arXiv:2211.14513), abstract.
"""

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from models.nets.backbone import CnnBackbone
from models.nets.encoder import Encoder
from models.nets.positions import resample_positions

HEAD_DIM = 32
_SHRINK = 4  # the semantic encoder sees the image at a quarter of its size,
_PATCH = 4  # in patches of so many pixels of that: 16 of the image
_GRID = 14  # side of the learned grid of positions


class SemanticEncoder(nn.Module):
    """A small ViT over the image, whose K learned queries come back as the image's K semantic embeddings.

    dim    of the embeddings and of every layer; a multiple of 32
    depth  layers
    """

    def __init__(self, k: int, dim: int, depth: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, _PATCH, _PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn(1, _GRID**2, dim))
        self.queries = nn.Parameter(nn.init.orthogonal_(torch.empty(k, dim))[None])
        self.blocks = nn.Sequential(*(Block(dim, dim // HEAD_DIM) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [B, 3, H, W], normalized pixels, H and W multiples of 16 → [B, K, D]."""
        tokens = self.patches(F.avg_pool2d(x, _SHRINK))
        height, width = tokens.shape[-2:]
        tokens = tokens.flatten(2).transpose(1, 2)
        tokens = tokens + resample_positions(self.positions, (_GRID, _GRID), height, width)
        queries = self.queries.expand(x.shape[0], -1, -1)
        tokens = self.blocks(torch.cat([queries, tokens], dim=1))
        found: Tensor = self.norm(tokens[:, : self.queries.shape[1]])
        return found


class SemanticAttention(nn.Module):
    """SEAT: every pixel attends to its image's semantics by cosine, and takes in what it finds.

    temperature  of the softmax over the K semantics
    """

    def __init__(self, dim: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, pixels: Tensor, semantics: Tensor) -> Tensor:
        """pixels [B, D, h, w], semantics [B, K, D] → refined pixels [B, D, h, w]."""
        flat = F.normalize(pixels.flatten(2), dim=1)
        weights = (F.normalize(semantics, dim=2) @ flat / self.temperature).softmax(dim=1)
        taken = self.value(semantics).transpose(1, 2) @ weights
        refined: Tensor = pixels + taken.reshape(pixels.shape)
        return refined


class SanEncoder(Encoder):
    """Pixel encoder (a CNN's pyramid, merged at its finest map), semantic encoder and SEAT: exported together.

    dim          D of pixel and semantic embeddings
    temperature  of SEAT
    """

    def __init__(self, backbone: CnnBackbone, semantics: SemanticEncoder, *, dim: int, temperature: float) -> None:
        super().__init__(backbone, nn.Sequential(nn.ReLU(), nn.Conv2d(backbone.channels, dim, 1)))
        self.semantics = semantics
        self.attention = SemanticAttention(dim, temperature)

    def code(self, x: Tensor) -> Tensor:
        """Refined pixel embeddings [B, D, h, w] of normalized pixels float32 [B, 3, H, W]."""
        return self.see(x)[0]

    def see(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Refined pixel embeddings [B, D, h, w] and the images' semantics [B, K, D]."""
        semantics: Tensor = self.semantics(x)
        code: Tensor = self.attention(super().code(x), semantics)
        return code, semantics
