"""FSQ: finite scalar quantization, arXiv 2309.15505. Each of a few channels is rounded to a few levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.errors import UsageError
from vqtool.nn.bottlenecks.base import Bottleneck, BottleneckOutput, full_precision

# Levels whose product is close to the wanted number of codes, as many channels with >= 5 levels as fit.
LEVELS = {
    2**8: (8, 6, 5),
    2**9: (8, 8, 8),
    2**10: (8, 5, 5, 5),
    2**11: (8, 8, 6, 5),
    2**12: (7, 5, 5, 5, 5),
    2**13: (8, 8, 5, 5, 5),
    2**14: (8, 8, 8, 6, 5),
    2**15: (8, 8, 8, 8, 8),
    2**16: (8, 8, 8, 5, 5, 5),
}


class FSQ(Bottleneck):
    """No codebook to learn and none to collapse: project to len(levels) channels, bound, round, project back.

    codebook_size  2^8 .. 2^16: levels from the table (their product is near, not always equal); else 512
    levels         or say them yourself
    bound          "tanh": tanh(z); "sigmoid": 2 sigmoid(1.6 z) - 1 (arXiv 2601.17124), which uses levels more evenly

    A channel with n levels takes the values -1, -1 + 2/(n-1), ..., 1: symmetric for odd and for even n (the paper
    shifts even ones by half a step, which the projection undoes). Codes count the first channel fastest.
    """

    steps: Tensor
    basis: Tensor

    def __init__(
        self,
        latent_dim: int,
        *,
        codebook_size: int | None = None,
        levels: Sequence[int] | None = None,
        bound: str = "tanh",
    ) -> None:
        super().__init__(latent_dim)
        levels = self.resolve({"codebook_size": codebook_size, "levels": levels})["levels"]
        if not levels or min(levels) < 2:
            raise UsageError(f"each FSQ level is at least 2, not {list(levels)}")
        if bound not in ("tanh", "sigmoid"):
            raise UsageError(f"bound is 'tanh' or 'sigmoid', not {bound!r}")
        self.slope = 1.0 if bound == "tanh" else 0.8  # 2 sigmoid(1.6 z) - 1 = tanh(0.8 z)
        self.codebook_sizes = (math.prod(levels),)
        self.register_buffer("steps", torch.tensor(levels, dtype=torch.float32) - 1, persistent=False)
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        self.register_buffer("basis", torch.tensor(basis, dtype=torch.int64), persistent=False)
        self.project_in = nn.Linear(latent_dim, len(levels))
        self.project_out = nn.Linear(len(levels), latent_dim)

    @staticmethod
    def resolve(options: dict[str, Any]) -> dict[str, Any]:
        """The levels that a codebook_size means: a file must not depend on the table of the vqtool that reads it."""
        size, levels = options["codebook_size"], options["levels"]
        if levels is None:
            size = 512 if size is None else size
            if size not in LEVELS:
                known = ", ".join(map(str, LEVELS))
                raise UsageError(f"no FSQ levels for codebook_size {size}; take one of {known}, or set levels")
            levels = LEVELS[size]
        elif size is not None and LEVELS.get(size) != tuple(levels):
            raise UsageError(f"codebook_size {size} does not mean the levels {list(levels)}; give one of the two")
        return {**options, "codebook_size": None, "levels": list(levels)}

    @torch.no_grad()
    def start(self, spread: Tensor) -> None:
        """Begin with the first channels, one for each of `levels`, at unit spread: tanh then uses most levels."""
        used = min(len(self.steps), int((spread > 0).sum()))
        for weight in (self.project_in.weight, self.project_in.bias, self.project_out.weight, self.project_out.bias):
            weight *= 0.1
        self.project_in.weight[:used] = torch.diag(1 / spread.clamp_min(1e-6))[:used]
        self.project_out.weight[:, :used] = 1.5 * torch.diag(spread)[:, :used]  # 1.5 tanh(z) is z, in the mean

    def _positions(self, x: Tensor) -> Tensor:
        """Where latents [B, L, C] fall between the levels, [B, L, channels] in 0 .. n-1."""
        return (torch.tanh(self.slope * self.project_in(x)) + 1) / 2 * self.steps

    def _codes(self, positions: Tensor) -> Tensor:
        return (positions.round().long() * self.basis).sum(-1, keepdim=True)

    def forward(self, latents: Tensor, mask: Tensor | None = None) -> BottleneckOutput:
        """Quantize latents [B, L, C]; mask [B, L] is True on valid tokens. There is no loss of its own."""
        with torch.autocast(latents.device.type, enabled=False):
            positions = self._positions(full_precision(latents))
            codes = self._codes(positions)
            straight = positions.round().detach() + (positions - positions.detach())
            output = self.project_out(straight / self.steps * 2 - 1)
            valid = torch.ones_like(codes[..., 0], dtype=torch.bool) if mask is None else mask
            counts = torch.bincount(codes[..., 0][valid], minlength=self.codebook_sizes[0])[None]
            output = torch.where(valid.unsqueeze(-1), output, 0.0)
            return BottleneckOutput(output, codes.masked_fill(~valid.unsqueeze(-1), -1), {}, counts)

    def search(
        self, latents: Tensor, num_quantizers: int | None = None, tolerance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Codes [B, L, 1], and the tokens [B, L] that the steepest way could take to the next level."""
        self.layers_asked(num_quantizers)
        with torch.autocast(latents.device.type, enabled=False):
            positions = self._positions(full_precision(latents))
        away = 0.5 - (positions - positions.round()).abs()
        steepness = self.slope * self.steps / 2 * self.project_in.weight.norm(dim=1)
        reach = 0.0 if tolerance is None else tolerance.unsqueeze(-1) * steepness
        return self._codes(positions), (away <= reach).any(-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Latents [B, L, C] of codes [B, L, 1]."""
        self.check_codes(codes)
        with torch.autocast(codes.device.type, enabled=False):
            return self.project_out(self._values(codes[..., 0]))

    def _values(self, codes: Tensor) -> Tensor:
        """Level values in -1..1 of codes [...]: [..., channels]."""
        levels = self.steps.long() + 1
        digits = codes.unsqueeze(-1) // self.basis % levels
        return digits.to(self.steps.dtype) / self.steps * 2 - 1

    def codebooks(self) -> list[Tensor]:
        """All combinations of levels, [K, channels]."""
        return [self._values(torch.arange(self.codebook_sizes[0], device=self.steps.device))]
