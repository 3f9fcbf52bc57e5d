"""The encoder: exactly the network that is exported.

Knows nothing of clusters or of ONNX: uint8 pixels in, code out, normalization inside.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.nets.backbone import Backbone, CnnBackbone
from models.nets.heads import FPNHead


class Encoder(nn.Module):
    """Pixels uint8 [B, H, W, 3] to code float32 [B, D, h, w]: the backbone's normalization, backbone, head.

    normalize     code of length 1 per pixel (PiCIE)
    position      over 0: the code is brought to length 1 and two columns, position × (row, column) in −1..1,
                  are appended, so that where something lies counts as well
    flip_average  the mean with the mirrored image's mirrored code (STEGO's and CAUSE's test time)
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: Backbone,
        head: nn.Module,
        *,
        normalize: bool = False,
        position: float = 0.0,
        flip_average: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.normalize = normalize
        self.position = position
        self.flip_average = flip_average
        self.average = Average()
        pixels = backbone.normalization
        self.register_buffer("mean", 255 * torch.tensor(pixels.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(pixels.std).view(1, 3, 1, 1), persistent=False)

    @property
    def stride(self) -> int:
        """Pixels per cell of the code's grid."""
        if isinstance(self.head, FPNHead) and isinstance(self.backbone, CnnBackbone):
            return self.backbone.pyramid_stride
        return self.backbone.stride

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels uint8 [B, H, W, 3] → [B, D, h, w]."""
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        return self.finish(self.code(x), x)

    def code(self, x: Tensor) -> Tensor:
        """The head's answer to normalized pixels float32 [B, 3, H, W], before anything is done to it."""
        if isinstance(self.head, FPNHead) and isinstance(self.backbone, CnnBackbone):
            return self.head(self.backbone.pyramid(x))  # type: ignore[no-any-return]
        return self.head(self.backbone(x))  # type: ignore[no-any-return]

    def finish(self, code: Tensor, x: Tensor) -> Tensor:
        """Flip averaging, length and position, as this encoder is told."""
        if self.flip_average:
            code = self.average(code, self.code(x.flip(-1)).flip(-1))
        if self.normalize or self.position:
            code = F.normalize(code, dim=1)
        if self.position:
            code = torch.cat([code, self.position * positions(code)], dim=1)
        return code


class Average(nn.Module):
    """The mean of two codes; a module, so that export can name what goes in and what comes out."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Two [B, D, h, w] → [B, D, h, w]."""
        return (one + other) / 2


def positions(code: Tensor) -> Tensor:
    """Row and column of every cell's center, −1..1: [B, 2, h, w] for a code [B, D, h, w]."""
    height, width = code.shape[-2:]
    rows = (torch.arange(height, device=code.device, dtype=code.dtype) + 0.5) * 2 / height - 1
    columns = (torch.arange(width, device=code.device, dtype=code.dtype) + 0.5) * 2 / width - 1
    grid = torch.stack([rows[:, None].expand(height, width), columns[None].expand(height, width)])
    return grid[None].expand(code.shape[0], -1, -1, -1)
