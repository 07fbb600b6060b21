"""The terms that training minimises, each a mean over valid elements of normalised motion."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtool.nn.bottlenecks.base import masked_mean

ELEMENTWISE = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


def reconstruction(kind: str, output: Tensor, target: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Loss of `kind` between [B, T, D] tensors on the frames of mask [B, T]; column weights [D] have mean 1."""
    return masked_mean(ELEMENTWISE[kind](output, target, reduction="none") * weights, mask)


def velocity(kind: str, output: Tensor, target: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """The same on differences of neighbouring frames; a difference is valid where both frames are."""
    pairs = mask[:, 1:] & mask[:, :-1]
    return reconstruction(kind, output.diff(dim=1), target.diff(dim=1), pairs, weights)


def column_weights(columns: Iterable[tuple[slice, float]], constant: Tensor) -> Tensor:
    """[D] weights with mean 1, later ones win. Constant columns get 0: the loss is a mean over those that move."""
    weights = torch.ones(len(constant))
    for where, weight in columns:
        weights[where] = weight
    weights = weights.masked_fill(constant, 0.0)
    return weights / weights.mean().clamp_min(1e-12)
