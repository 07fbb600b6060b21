"""What every bottleneck promises: latents [B, L, C] in, latents and codes [B, L, Q] out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from vqtool.errors import DataError, UsageError, counted
from vqtool.nn import distributed

Assigned = tuple[Tensor, Tensor]  # vectors [N, d] and the codes [N] that they took


@dataclass
class BottleneckOutput:
    """What a bottleneck made of latents [B, L, C].

    latents  [B, L, C] for the decoder, straight-through when quantized; zero where masked
    codes    [B, L, Q] int64, -1 where masked or dropped; None for a continuous bottleneck
    losses   "commitment", "codebook", "kl": scalars, unweighted means over valid elements
    counts   [Q, K] int64, how often this batch's valid tokens used each code; None likewise
    assigned for `follow`: what this batch assigned to each codebook, in training
    """

    latents: Tensor
    codes: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    counts: Tensor | None = None
    assigned: list[Assigned] = field(default_factory=list)


class Draws(nn.Module):
    """Random generators that belong to a module: the n-th is a function of (seed, n), and both are in the state.

    Buffer `state` is [seed, n]. Draws are made on the CPU, so that every device sees the same ones. Every rank of a
    training draws at the same moments: the same for what they share, `own` for the rows that each has for itself.
    """

    state: Tensor

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.register_buffer("state", torch.tensor([seed, 0], dtype=torch.int64))

    def generator(self, *, own: bool = False) -> torch.Generator:
        """The next generator; another one on each rank if it is for rows of its `own`."""
        rank = distributed.rank() if own else 0
        entropy = [*self.state.tolist(), *([rank] if rank else [])]
        seed = np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1)
        self.state[1] += 1
        return torch.Generator().manual_seed(int(seed))


class Bottleneck(nn.Module):
    """Base of all bottlenecks. `latent_dim` is C; `codebook_sizes` K per layer, () for a continuous one."""

    latent_dim: int
    codebook_sizes: tuple[int, ...] = ()

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.draws = Draws()

    @staticmethod
    def resolve(options: dict[str, Any]) -> dict[str, Any]:
        """All options with what they leave to a table written out; None is the same as absent."""
        return options

    @property
    def initialized(self) -> bool:
        """Whether it can be used; a codebook first needs `initialize`."""
        return True

    def initialize(self, latents: Tensor, batches: int = 1) -> None:
        """Fit the codebooks to encoder outputs [N, C] of that many batches."""

    def follow(self, outputs: Sequence[BottleneckOutput]) -> None:
        """Let the codebooks move after one training step, by what its batches on all ranks were assigned to."""
        layers = list(zip(*(output.assigned for output in outputs), strict=True))
        if layers:
            self._follow([layer[0] if len(layer) == 1 else _joined(layer) for layer in layers])

    def _follow(self, pairs: list[Assigned]) -> None:
        """`follow` with the batches of each codebook end to end."""

    @torch.no_grad()
    def start(self, spread: Tensor) -> None:
        """Begin as the identity on the first channels, as far as it goes; `spread` [C] is what the latents will have.

        For projections within a bottleneck; codebooks are fitted by `initialize`.
        """

    def codebook_keys(self) -> list[str]:
        """Names in the state dict of the code vectors of each layer; [] where they are implicit."""
        return []

    def codebooks(self) -> list[Tensor]:
        """The code vectors of each layer, [K, C]."""
        return []

    def search(
        self, latents: Tensor, num_quantizers: int | None = None, tolerance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Codes [B, L, q] of the first q layers, and which tokens [B, L] a move of their latent by `tolerance`
        [B, L] could change.
        """
        raise TypeError(f"{type(self).__name__} is continuous and has no codes")

    def encode(self, latents: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Codes [B, L, q] of latents [B, L, C], by the first q layers (all by default)."""
        return self.search(latents, num_quantizers)[0]

    def decode(self, codes: Tensor) -> Tensor:
        """Latents [B, L, C] of codes [B, L, q]; DataError for a code outside its codebook."""
        raise TypeError(f"{type(self).__name__} is continuous and has no codes")

    @property
    def prefixes(self) -> list[int]:
        """The numbers of columns of codes, counted from the first, that can be encoded and decoded."""
        return list(range(1, len(self.codebook_sizes) + 1))

    def layers_asked(self, num_quantizers: int | None) -> int:
        """How many layers that is, all for None; UsageError where there are not so many."""
        layers = len(self.codebook_sizes)
        if num_quantizers is not None and not 1 <= num_quantizers <= layers:
            raise UsageError(f"num_quantizers {num_quantizers}: this tokenizer has {counted(layers, 'layers')}")
        return layers if num_quantizers is None else num_quantizers

    def check_codes(self, codes: Tensor) -> None:
        """DataError at the first code outside its codebook, or with more layers than there are."""
        if not 1 <= codes.shape[-1] <= len(self.codebook_sizes):
            raise DataError(
                f"{counted(codes.shape[-1], 'layers')} of codes; this tokenizer has {len(self.codebook_sizes)}"
            )
        sizes = torch.tensor(self.codebook_sizes[: codes.shape[-1]], device=codes.device)
        bad = ((codes < 0) | (codes >= sizes)).nonzero()
        if len(bad):
            place = bad[0].tolist()
            value, layer = int(codes[tuple(place)]), place[-1]
            raise DataError(f"code {value} at token {place[-2]} of layer {layer} is outside 0..{int(sizes[layer]) - 1}")


def _joined(batches: Sequence[Assigned]) -> Assigned:
    return torch.cat([vectors for vectors, _ in batches]), torch.cat([codes for _, codes in batches])


def full_precision(latents: Tensor) -> Tensor:
    """float32 at least: bfloat16 search changes up to 1 % of the codes."""
    return latents if latents.dtype == torch.float64 else latents.float()


def squared_distance(x: Tensor, target: Tensor) -> Tensor:
    """|x - target|^2, summed over all elements; the gradient goes to x alone."""
    found = _SquaredDistance.apply(x, target.detach())
    assert isinstance(found, Tensor)
    return found


class _SquaredDistance(torch.autograd.Function):
    """F.mse_loss takes two more passes over memory: a fifth of the step of a quantizer of 512 channels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor) -> Tensor:
        """A scalar."""
        away = x - target
        ctx.save_for_backward(away)
        return torch.linalg.vector_norm(away, dim=-1).square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """The gradient of x."""
        return ctx.saved_tensors[0] * (2 * grads[0]), None


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of values [B, L, C] over the valid tokens of mask [B, L]; 0 where there is none."""
    if mask is None:
        return values.mean()
    weight = mask.unsqueeze(-1).to(values.dtype)
    return (values * weight).sum() / (weight.sum() * values.shape[-1]).clamp_min(1)
