"""A codebook, the nearest of a few learned rows in place of every token, and the head that asks it.

Know nothing of how the rows were learned.

Source: CAUSE (arXiv:2310.07379): the concept clusterbook and the TR segmentation head.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.nets.heads import ProjectionHead, unchanged
from models.nets.positions import resample_positions

MAX_TOKENS = 8192  # attention of each to each: 268 MB an image, as much as two heads of a ViT-S/8


def quantize(x: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest row by cosine: its number int64 [...] and the row itself [..., D], of the length it has.

    x  float [..., D];  codebook  float [K, D]
    """
    index = (x @ F.normalize(codebook, dim=-1).T).argmax(-1)  # a token's own length changes no order
    return index, F.embedding(index, codebook)


class Attention(nn.Module):
    """Attention with one head; weights under the names of torch's MultiheadAttention."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, dropout: Callable[[Tensor], Tensor] = unchanged) -> Tensor:
        """Each float [B, n, D] → [B, n, D]."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = (F.linear(*each) for each in zip((q, k, v), weights, biases, strict=True))
        attention = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1)
        out: Tensor = self.out_proj(dropout(attention) @ v)
        return out


class DecoderLayer(nn.Module):
    """Quantized tokens look at each other, then at the tokens themselves; the answer is added to the tokens.

    Names of the weights are those of torch's TransformerDecoderLayer (norms after, one head, ReLU). It is not that
    layer: positions go to queries and keys alone, and the residual at the end starts from the memory.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.self_attn, self.multihead_attn = Attention(dim), Attention(dim)
        self.linear1, self.linear2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(dim) for _ in range(3))

    def forward(
        self, target: Tensor, memory: Tensor, positions: Tensor, dropout: Callable[[Tensor], Tensor] = unchanged
    ) -> Tensor:
        """target, memory  float [B, n, D];  positions  float [1, n, D] → [B, n, D]."""
        at = target + positions
        x = self.norm1(target + dropout(self.self_attn(at, at, target, dropout)))
        x = self.norm2(x + dropout(self.multihead_attn(x + positions, memory, memory, dropout)))
        inner = self.linear2(dropout(F.relu(self.linear1(x))))
        out: Tensor = memory + self.norm3(x + dropout(inner))
        return out


class CodebookDecoder(nn.Module):
    """Features [B, C, h, w] to code [B, D, h, w]: one decoder layer over quantized tokens, then a ProjectionHead.

    grid      rows and columns of tokens it is trained at; at other sizes its positions are resampled
    concepts  rows of the codebook, a buffer [K, C] that is learned elsewhere
    hidden    width of the feed-forward part

    max_tokens is how many tokens h·w it may be given: attention takes memory with their square.

    Source: CAUSE-TR (arXiv:2310.07379). There it serves the training size alone.
    """

    codebook: Tensor

    def __init__(
        self, channels: int, dim: int, grid: tuple[int, int], *, concepts: int = 2048, hidden: int = 2048
    ) -> None:
        super().__init__()
        self.grid, self.max_tokens = grid, max(MAX_TOKENS, grid[0] * grid[1])
        self.register_buffer("codebook", torch.zeros(concepts, channels))
        self.positions = nn.Parameter(torch.randn(grid[0] * grid[1], channels))
        self.layer = DecoderLayer(channels, hidden)
        self.projection = ProjectionHead(channels, dim)

    def forward(self, features: Tensor, dropout: Callable[[Tensor], Tensor] = unchanged) -> Tensor:
        """dropout: drawn anew wherever it is applied: attention, residuals, feed-forward, both projections."""
        height, width = features.shape[-2:]
        tokens = features.flatten(2).transpose(1, 2)
        _, target = quantize(tokens, self.codebook)
        positions = resample_positions(self.positions[None], self.grid, height, width)
        out = self.layer(target, tokens, positions, dropout)
        # The shape is the features' own, batch included, so that it stays free in an exported graph.
        code: Tensor = self.projection(out.transpose(1, 2).reshape(features.shape), dropout)
        return code
