"""Batch norm over the batch of all processes: its statistics are theirs together, on any device.

Knows nothing of networks or stages. torch's own SyncBatchNorm does this on GPUs alone.

Source: Ioffe and Szegedy (arXiv:1502.03167); Chan et al. (1979) for the sums of several parts.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from models.errors import TesseraError
from training import distributed


def synchronize(module: nn.Module) -> None:
    """Has every batch norm of a network use the statistics of all processes; of one process it stays as it is.

    Parameters, buffers and their names stay. Raises TesseraError for a kind of batch norm that is not known here.
    """
    if distributed.world() == 1:
        return
    for part in module.modules():
        if type(part) in (nn.BatchNorm1d, nn.BatchNorm2d):
            part.__class__ = GlobalBatchNorm
        elif type(part).__name__ == "BatchNormAct2d":
            part.__class__ = GlobalBatchNormAct
        elif isinstance(part, _BatchNorm) and not isinstance(part, GlobalBatchNorm):
            raise TesseraError(
                f"{type(part).__name__} cannot be trained by several processes: leave torchrun out, or take another"
                " backbone.name"
            )


class GlobalBatchNorm(_BatchNorm):
    """nn.BatchNorm1d or 2d whose batch is that of all processes."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any: float [B, C, ...]."""

    def forward(self, x: Tensor) -> Tensor:
        """float [B, C, ...] in and out."""
        return _together(self, x) if self.training else super().forward(x)


class GlobalBatchNormAct(GlobalBatchNorm):
    """timm's batch norm with its activation, whose batch is that of all processes."""

    drop: nn.Module
    act: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """float [B, C, H, W] in and out."""
        answer: Tensor = self.act(self.drop(super().forward(x)))
        return answer


def _together(norm: _BatchNorm, x: Tensor) -> Tensor:
    answer, mean, variance, count = _Normalize.apply(x, norm.weight, norm.bias, norm.eps)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked += 1
        rate = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        norm.running_mean.lerp_(mean.to(norm.running_mean), rate)
        norm.running_var.lerp_(unbiased.to(norm.running_var), rate)
    return answer  # type: ignore[no-any-return]


class _Normalize(Function):
    """(x − mean) / √(variance + eps) · weight + bias, with mean and variance over all processes, which come along."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.float()
        over = [0, *range(2, x.ndim)]
        variance, mean = torch.var_mean(wide, over, correction=0)
        own = torch.stack([torch.full_like(mean, wide.numel() / len(mean)), mean, variance])
        counts, means, variances = distributed.share(distributed.world()).gather(own[None]).unbind(1)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale, count)
        ctx.mark_non_differentiable(mean, variance, count)
        factor = scale if weight is None else scale * weight
        shift = -mean * factor if bias is None else bias - mean * factor
        return (wide * _channels(x, factor) + _channels(x, shift)).to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        slope, over = gradients[0].float(), [0, *range(2, x.ndim)]
        unit = (x.float() - _channels(x, mean)) * _channels(x, scale)
        own = torch.stack([slope.sum(over), (slope * unit).sum(over)])
        total = distributed.all_reduce_(own.clone()) / count
        back = slope - _channels(x, total[0]) - unit * _channels(x, total[1])
        back = back * _channels(x, scale if weight is None else scale * weight)
        return back.to(x.dtype), None if weight is None else own[1], own[0] if weight is not None else None, None


def _channels(x: Tensor, values: Tensor) -> Tensor:
    """One value a channel, in the shape that meets x [B, C, ...]."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
