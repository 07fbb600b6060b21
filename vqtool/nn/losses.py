"""The terms that training minimises, each a mean over valid elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtool.config import LossConfig
from vqtool.motion import column_groups, resolve_columns
from vqtool.nn.bottlenecks.base import masked_mean
from vqtool.nn.model import Normalizer

# Each as a function of what an element differs by, with its slope.
ELEMENTWISE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "l1": (torch.abs, torch.sign),
    "l2": (torch.square, lambda x: 2 * x),
    "smooth_l1": (
        lambda x: F.smooth_l1_loss(x, x.new_zeros(()).expand_as(x), reduction="none"),
        lambda x: x.clamp(-1, 1),
    ),
}


class MotionLoss:
    """What a reconstruction differs from its motion by, as terms that `LossConfig` weighs.

    `idle` names the terms that have a weight and no part, since the layout does not say where joints are.
    """

    def __init__(self, config: LossConfig, layout: str, dim: int, normalizer: Normalizer) -> None:
        self.config, self.normalizer = config, normalizer
        constant = normalizer.constant.cpu()
        spread = normalizer.scale.cpu().masked_fill(constant, 0.0)
        groups = column_groups(layout, dim)
        chosen = [(resolve_columns(key, layout, dim), weight) for key, weight in config.columns.items()]
        self.weights = column_weights(chosen, constant).to(normalizer.mean.device)
        self.positions = groups.get("positions", slice(0, dim if layout == "positions" else 0))
        # Positions of joints are told in units of their own spread, so that a weight means the same for any skeleton.
        moving = spread[self.positions][spread[self.positions] > 0]
        self.size = float(moving.square().mean().sqrt()) if len(moving) else 0.0
        wanted = [name for name in ("positions", "joints") if getattr(config, name) > 0]
        usable = {"positions": self.size > 0, "joints": self.size > 0 and bool(groups)}
        self.active = [name for name in wanted if usable[name]]
        self.idle = [name for name in wanted if not usable[name]]

    def __call__(self, output: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Unweighted terms of output [B, T, D] against target [B, T, D], both normalised; mask [B, T]."""
        kind, away = self.config.reconstruction, output - target
        terms = {
            "reconstruction": reconstruction(kind, away, mask, self.weights),
            "velocity": velocity(kind, away, mask, self.weights),
        }
        if "positions" in self.active:
            own = torch.ones_like(self.weights).masked_fill(self.normalizer.constant, 0.0)[self.positions]
            terms["positions"] = reconstruction(kind, away[..., self.positions], mask, own / own.mean())
        if "joints" in self.active:
            raw = self.normalizer.inverse(output), self.normalizer.inverse(target)
            terms["joints"] = joint_distance(*raw, mask) / self.size
        return terms


def reconstruction(kind: str, away: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Loss of `kind` where motion is `away` [B, T, D], on the frames of mask [B, T]; column weights [D] have mean 1."""
    found = _Mean.apply(away, mask, weights, kind)
    assert isinstance(found, Tensor)
    return found


def velocity(kind: str, away: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """The same of differences of neighbouring frames; a difference is valid where both frames are."""
    change = _Change.apply(away)
    assert isinstance(change, Tensor)
    return reconstruction(kind, change, mask[:, 1:] & mask[:, :-1], weights)


class _Mean(torch.autograd.Function):
    """A loss whose gradient is made in three passes over it: the losses took a seventh of a step of a small network."""

    @staticmethod
    def forward(ctx: Any, away: Tensor, mask: Tensor, weights: Tensor, kind: str) -> Tensor:
        """Mean over valid elements; 0 where there is none."""
        scale = mask.to(away.dtype)
        scale = scale / (scale.sum() * away.shape[-1]).clamp_min(1)
        ctx.kind = kind
        ctx.save_for_backward(away, scale, weights)
        return ((ELEMENTWISE[kind][0](away) @ weights) * scale).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient of `away`."""
        away, scale, weights = ctx.saved_tensors
        slope = ELEMENTWISE[ctx.kind][1](away).mul_(weights)
        return slope.mul_((scale * grads[0]).unsqueeze(-1)), None, None, None


class _Change(torch.autograd.Function):
    """x[:, 1:] - x[:, :-1], whose gradient is made in two passes instead of six."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T - 1, D]."""
        return x.diff(dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """The gradient of `x`."""
        around = F.pad(grads[0], (0, 0, 1, 1))
        return around[:, :-1] - around[:, 1:]


def joint_distance(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean distance in metres between the joints of two motions [B, T, 12 J - 1] in raw units, along their paths."""
    away = place_joints(output) - place_joints(target)
    return masked_mean((away.square().sum(-1) + 1e-8).sqrt(), mask)  # a root has no gradient at 0


def place_joints(features: Tensor) -> Tensor:
    """Joint positions [B, T, J, 3] in metres of joint features, from the origin on; as `vqtool.features.place_joints`.

    What turn and way say of the next frame adds up along the window, and so do their errors.
    """
    joints = (features.shape[2] + 1) // 12
    turn, way_x, way_z = F.pad(features[:, :-1, :3], (0, 0, 1, 0)).unbind(-1)  # from the frame before
    facing = torch.cumsum(-2 * turn, 1)
    cos, sin = facing.cos(), facing.sin()
    root_x = torch.cumsum(cos * way_x + sin * way_z, 1)
    root_z = torch.cumsum(cos * way_z - sin * way_x, 1)
    others = features[:, :, 4 : 3 * joints + 1].unflatten(2, (joints - 1, 3))
    x, y, z = F.pad(others, (0, 0, 1, 0)).unbind(-1)  # [B, T, J], the root at 0
    y = torch.cat([features[:, :, 3:4], y[:, :, 1:]], 2)
    cos, sin = cos[..., None], sin[..., None]
    return torch.stack([root_x[..., None] + cos * x + sin * z, y, root_z[..., None] + cos * z - sin * x], -1)


def column_weights(columns: Iterable[tuple[slice, float]], constant: Tensor) -> Tensor:
    """[D] weights with mean 1, later ones win. Constant columns get 0: the loss is a mean over those that move."""
    weights = torch.ones(len(constant))
    for where, weight in columns:
        weights[where] = weight
    weights = weights.masked_fill(constant, 0.0)
    return weights / weights.mean().clamp_min(1e-12)
