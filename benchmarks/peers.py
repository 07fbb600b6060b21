"""What the field's research code does, written plainly: what the comparisons are against."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtool.nn import layers
from vqtool.nn.convolution import Window


def drawn(*shape: int) -> Tensor:
    """Seeded numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


class OneHot(torch.nn.Module):
    """A quantizer with moving averages as research code writes it: all distances, one-hot assignments, resets."""

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("codebook", drawn(size, dim))
        self.register_buffer("sums", drawn(size, dim))
        self.register_buffer("counts", torch.ones(size))

    def indices(self, x: Tensor) -> Tensor:
        """The nearest codes [N] of vectors [N, C]."""
        distance = x.square().sum(1, keepdim=True) - 2 * x @ self.codebook.T + self.codebook.square().sum(1)
        return distance.argmin(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [N, C] quantized straight-through, and the commitment loss."""
        index = self.indices(x)
        quantized = self.codebook[index]
        with torch.no_grad():
            onehot = torch.zeros(self.size, len(x)).scatter_(0, index[None], 1)
            self.sums.mul_(0.99).add_(onehot @ x, alpha=0.01)
            self.counts.mul_(0.99).add_(onehot.sum(1), alpha=0.01)
            alive = (self.counts >= 1)[:, None]
            fresh = x[torch.randperm(len(x))[: self.size]] if len(x) >= self.size else self.codebook
            self.codebook = torch.where(alive, self.sums / self.counts[:, None], fresh)
        return x + (quantized - x).detach(), (x - quantized.detach()).square().mean()


def vector_quantize_pytorch(dim: int, size: int) -> torch.nn.Module:
    """vector-quantize-pytorch with moving averages and revival, as T2M-GPT sets them."""
    from vector_quantize_pytorch import VectorQuantize

    module: torch.nn.Module = VectorQuantize(
        dim=dim, codebook_size=size, decay=0.99, threshold_ema_dead_code=1, commitment_weight=0.02
    )
    return module


def signals(x: Tensor, weight: Tensor, bias: Tensor, window: Window, filters: object) -> Tensor:
    """[B, T, C] -> [B, T', C'] by torch's convolution over signals."""
    signal = F.pad(x.transpose(1, 2), (window.left, window.right)) if window.left != window.right else x.transpose(1, 2)
    padding = 0 if window.left != window.right else window.left
    return F.conv1d(signal, weight, bias, window.stride, padding, window.dilation).transpose(1, 2)


@contextmanager
def plain_convolutions() -> Iterator[None]:
    """Within this block our networks convolve as research code does."""
    with mock.patch.object(layers, "convolve", signals):
        yield
