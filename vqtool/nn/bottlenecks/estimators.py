"""Gradient estimators: what lies between latents and the code vectors that replace them, forwards and backwards."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

ESTIMATORS = ("ste", "rotation", "diveq")
DIVEQ_VARIANCE = 1e-3  # of the noise, a channel


def bridge(latents: Tensor, codes: Tensor, estimator: str = "ste", generator: torch.Generator | None = None) -> Tensor:
    """Codes [..., C] in place of latents [..., C].

    ste       straight-through: the value is exactly the codes, the gradient passes as it comes
    rotation  arXiv 2410.06424: the same value; the gradient is turned and scaled as latents are to become codes
    diveq     arXiv 2509.26469: latents + |codes - latents| times a fixed direction, that of codes - latents with a
              little noise. So the value is near the codes, and the gradient reaches latents and codes
    """
    if estimator == "diveq":
        error = codes - latents
        noise = torch.randn(error.shape, generator=generator).to(error)
        direction = F.normalize(error.detach() + DIVEQ_VARIANCE**0.5 * noise, dim=-1)
        return latents + error.norm(dim=-1, keepdim=True) * direction
    moved = rotated(latents, codes.detach()) if estimator == "rotation" else latents
    return cast(Tensor, _InPlaceOf.apply(moved, codes.detach()))


class _InPlaceOf(torch.autograd.Function):
    """The value of one tensor with the gradient of another, of the same shape."""

    @staticmethod
    def forward(ctx: Any, moved: Tensor, codes: Tensor) -> Tensor:
        """Its value."""
        return codes.view_as(codes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Its gradient."""
        return grads[0], None


def rotated(latents: Tensor, codes: Tensor) -> Tensor:
    """Latents turned and scaled onto codes by a map that is constant to the gradient.

    With the unit vectors a of latents, b of codes and c of a + b the turn is x - 2 c (c x) + 2 b (a x).
    """
    a, b = F.normalize(latents.detach(), dim=-1), F.normalize(codes, dim=-1)
    c = F.normalize(a + b, dim=-1)
    turned = latents - 2 * c * (c * latents).sum(-1, keepdim=True) + 2 * b * (a * latents).sum(-1, keepdim=True)
    scale = codes.norm(dim=-1, keepdim=True) / latents.detach().norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return turned * scale
