"""The terms that training minimises, each a mean over valid elements."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from vqtool.config import LossConfig
from vqtool.motion import column_groups, resolve_columns
from vqtool.nn.bottlenecks.base import masked_mean
from vqtool.nn.model import Normalizer

ELEMENTWISE = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}


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

    def __call__(self, output: Tensor, motion: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Unweighted terms of output [B, T, D], normalised, against motion [B, T, D] in raw units; mask [B, T]."""
        kind, target = self.config.reconstruction, self.normalizer(motion)
        terms = {
            "reconstruction": reconstruction(kind, output, target, mask, self.weights),
            "velocity": velocity(kind, output, target, mask, self.weights),
        }
        if "positions" in self.active:
            own = torch.ones_like(self.weights).masked_fill(self.normalizer.constant, 0.0)[self.positions]
            pair = output[..., self.positions], target[..., self.positions]
            terms["positions"] = reconstruction(kind, *pair, mask, own / own.mean())
        if "joints" in self.active:
            terms["joints"] = joint_distance(self.normalizer.inverse(output), motion, mask) / self.size
        return terms


def reconstruction(kind: str, output: Tensor, target: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """Loss of `kind` between [B, T, D] tensors on the frames of mask [B, T]; column weights [D] have mean 1."""
    return masked_mean(ELEMENTWISE[kind](output, target, reduction="none") * weights, mask)


def velocity(kind: str, output: Tensor, target: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
    """The same on differences of neighbouring frames; a difference is valid where both frames are."""
    pairs = mask[:, 1:] & mask[:, :-1]
    return reconstruction(kind, output.diff(dim=1), target.diff(dim=1), pairs, weights)


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
