"""The terms of the training loss, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtool import features
from vqtool.config import LossConfig
from vqtool.nn.losses import MotionLoss, column_weights, joint_distance, place_joints, reconstruction, velocity
from vqtool.nn.model import Normalizer

OUTPUT = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [9.0, 9.0]]])  # [1, 3, 2]
TARGET = torch.tensor([[[1.5, 0.0], [1.0, 0.0], [0.0, 0.0]]])
FIRST_TWO = torch.tensor([[True, True, False]])
ALL = torch.ones(1, 3, dtype=torch.bool)
ONES = torch.ones(2)
AWAY = OUTPUT - TARGET


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("l1", (0.5 + 2) / 4), ("l2", (0.25 + 4) / 4), ("smooth_l1", (0.5 * 0.25 + (2 - 0.5)) / 4)],
)
def test_reconstruction_is_a_mean_over_valid_frames_and_columns(kind: str, expected: float) -> None:
    assert reconstruction(kind, AWAY, FIRST_TWO, ONES).item() == pytest.approx(expected)


def test_a_frame_of_a_long_clip_weighs_as_much_as_one_of_a_short_clip() -> None:
    away = torch.zeros(2, 3, 1)
    away[0], away[1, 0] = 1.0, 5.0
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert reconstruction("l1", away, mask, torch.ones(1)) == (1 + 1 + 1 + 5) / 4


def test_reconstruction_weighs_columns() -> None:
    away = torch.tensor([[[1.0, 1.0]]])
    mask = torch.tensor([[True]])
    found = reconstruction("l1", away, mask, torch.tensor([0.5, 1.5]))
    assert found == (0.5 + 1.5) / 2


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("l1", 2.5 / 2), ("l2", 2.5**2 / 2), ("smooth_l1", (2.5 - 0.5) / 2)],
)
def test_velocity_compares_differences_of_neighbours_that_are_both_valid(kind: str, expected: float) -> None:
    # column 0 goes by +2 where the target goes by -0.5; column 1 stands still in both
    assert velocity(kind, AWAY, FIRST_TWO, ONES).item() == pytest.approx(expected)


def test_velocity_over_all_frames_by_hand() -> None:
    # column 0: (2, 6) against (-0.5, -1); column 1: (0, 9) against (0, 0)
    assert velocity("l1", AWAY, ALL, ONES).item() == pytest.approx((2.5 + 7 + 0 + 9) / 4)


def test_velocity_does_not_see_a_constant_offset() -> None:
    assert velocity("l2", torch.full_like(OUTPUT, 7), ALL, ONES) == 0


@pytest.mark.parametrize("loss", [reconstruction, velocity])
def test_a_batch_without_valid_frames_has_a_loss_and_gradient_of_zero(loss: object) -> None:
    away = AWAY.clone().requires_grad_()
    assert callable(loss)
    found: Tensor = loss("smooth_l1", away, torch.zeros(1, 3, dtype=torch.bool), ONES)
    found.backward()
    assert found == 0
    assert away.grad is not None
    assert (away.grad == 0).all()


def test_a_clip_of_one_frame_has_no_velocity() -> None:
    assert velocity("l1", AWAY[:, :1], ALL[:, :1], ONES) == 0


def test_masked_frames_get_no_gradient() -> None:
    away = AWAY.clone().requires_grad_()
    (reconstruction("l2", away, FIRST_TWO, ONES) + velocity("l2", away, FIRST_TWO, ONES)).backward()
    assert away.grad is not None
    assert (away.grad[0, 2] == 0).all()


@pytest.mark.parametrize("kind", ["l1", "l2", "smooth_l1"])
@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("loss", [reconstruction, velocity])
def test_the_gradient_is_that_of_the_plain_formula(loss: object, kind: str, frames: int) -> None:
    assert callable(loss)
    random = torch.Generator().manual_seed(0)
    away = 2 * torch.randn(3, frames, 4, generator=random, dtype=torch.float64)
    mask = torch.arange(frames) < torch.tensor([frames, (frames + 1) // 2, 0])[:, None]
    weights = torch.tensor([0.5, 0.0, 1.5, 2.0], dtype=torch.float64)

    def plain(x: Tensor) -> Tensor:
        valid = mask
        if loss is velocity:
            x, valid = x.diff(dim=1), mask[:, 1:] & mask[:, :-1]
        of = {"l1": F.l1_loss, "l2": F.mse_loss, "smooth_l1": F.smooth_l1_loss}[kind]
        values = of(x, torch.zeros_like(x), reduction="none") * weights
        return values[valid].sum() / max(1, valid.sum() * 4)

    found = []
    for way in (lambda x: loss(kind, x, mask, weights), plain):
        x = away.clone().requires_grad_()
        value = way(x)
        found += [value.detach(), *torch.autograd.grad(3 * value, x)]
    torch.testing.assert_close(found[:2], found[2:])


def test_column_weights_are_one_by_default() -> None:
    assert column_weights([], torch.zeros(4, dtype=torch.bool)).tolist() == [1, 1, 1, 1]


def test_column_weights_keep_their_ratio_and_have_mean_1() -> None:
    assert column_weights([(slice(0, 1), 5.0)], torch.zeros(4, dtype=torch.bool)).tolist() == [2.5, 0.5, 0.5, 0.5]


def test_a_constant_column_has_weight_0_and_the_loss_is_a_mean_over_the_others() -> None:
    weights = column_weights([], torch.tensor([False, False, True, True]))
    assert weights[2:].tolist() == [0, 0]
    away = torch.tensor([[[1.0, 3.0, 100.0, 100.0]]])
    found = reconstruction("l1", away, torch.tensor([[True]]), weights)
    assert found == (1 + 3) / 2


def test_a_later_column_weight_wins() -> None:
    weights = column_weights([(slice(0, 2), 3.0), (slice(1, 2), 1.0)], torch.zeros(2, dtype=torch.bool))
    assert weights.tolist() == [1.5, 0.5]


def test_weights_are_finite_when_no_column_moves() -> None:
    assert column_weights([], torch.ones(3, dtype=torch.bool)).tolist() == [0, 0, 0]


def random_features(frames: int, joints: int = 3, seed: int = 0) -> Tensor:
    noise = np.random.default_rng(seed).normal(0, 0.3, (1, frames, 12 * joints - 1))
    return torch.from_numpy(noise)


def normalizer(dim: int, scale: float = 1.0, constant: int | None = None) -> Normalizer:
    found = Normalizer(dim)
    found.scale.fill_(scale)
    if constant is not None:
        found.constant[constant] = True
    return found


def test_joints_are_placed_as_features_places_them() -> None:
    motion = random_features(50)
    expected, _ = features.place_joints(motion[0, :, :10].numpy())
    np.testing.assert_allclose(place_joints(motion)[0].numpy(), expected, atol=1e-12)


def test_a_wrong_step_moves_all_joints_of_all_frames_after_it() -> None:
    # 4 frames at rest; in frame 1 the root goes 3 m to one side and 4 m ahead: frames 2 and 3 are 5 m away
    target = torch.zeros(1, 4, 23, dtype=torch.float64)
    output = target.clone()
    output[0, 1, 1:3] = torch.tensor([3.0, 4.0])
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert joint_distance(output, target, mask).item() == pytest.approx((0 + 0 + 5 + 5) / 4, abs=1e-3)
    assert joint_distance(output, target, mask & (torch.arange(4) < 3)).item() == pytest.approx(5 / 3, abs=1e-3)


def test_a_wrong_turn_swings_what_is_away_from_the_root() -> None:
    # half a turn by pi / 4 is a turn of a right angle: a joint 1 m ahead comes to lie 1 m to the side, sqrt(2) m away
    target = torch.zeros(1, 2, 23, dtype=torch.float64)
    target[0, :, 6] = 1.0  # z of joint 1; joint 0 is the root
    output = target.clone()
    output[0, 0, 0] = torch.pi / 4
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert joint_distance(output, target, mask).item() == pytest.approx(2**0.5 / 4, abs=1e-3)


def test_the_distance_of_joints_has_a_finite_gradient_where_it_is_zero() -> None:
    output = random_features(5).requires_grad_()
    joint_distance(output, output.detach(), torch.ones(1, 5, dtype=torch.bool)).backward()
    assert output.grad is not None
    assert output.grad.isfinite().all()


def test_a_term_that_is_not_asked_for_is_not_worked_out() -> None:
    loss = MotionLoss(LossConfig(positions=0.0, joints=0.0), "joints", 23, normalizer(23))
    motion = random_features(4, joints=2).float()
    assert loss(motion, motion, torch.ones(1, 4, dtype=torch.bool)).keys() == {"reconstruction", "velocity"}


def test_the_positions_term_sees_the_positions_of_joint_features_alone() -> None:
    loss = MotionLoss(LossConfig(reconstruction="l1", positions=1.0, joints=0.0), "joints", 23, normalizer(23))
    motion = torch.zeros(1, 2, 23)
    output = motion.clone()
    output[..., 4] = 1.5  # of three columns, those of joint 1
    output[..., 7:] = 9.0
    assert loss(output, motion, torch.ones(1, 2, dtype=torch.bool))["positions"] == 0.5


def test_the_joints_term_is_in_units_of_the_spread_of_the_positions() -> None:
    motion = torch.zeros(1, 1, 23)
    output = motion.clone()
    output[..., 4] = 1.0  # normalised: 2 of 2 m of spread, in one of two joints
    loss = MotionLoss(LossConfig(positions=0.0, joints=1.0), "joints", 23, normalizer(23, scale=2.0))
    found = loss(output, motion, torch.ones(1, 1, dtype=torch.bool))
    assert found["joints"].item() == pytest.approx(1 / 2, abs=1e-3)


def test_where_the_layout_knows_no_joints_their_terms_are_idle() -> None:
    loss = MotionLoss(LossConfig(positions=0.5, joints=0.5), "raw", 23, normalizer(23))
    assert loss.active == []
    assert loss.idle == ["positions", "joints"]


def test_positions_have_no_path_to_walk_along() -> None:
    loss = MotionLoss(LossConfig(positions=0.5, joints=0.5), "positions", 6, normalizer(6))
    assert loss.active == ["positions"]
    assert loss.idle == ["joints"]


def test_a_constant_column_has_no_part_in_the_positions_term() -> None:
    loss = MotionLoss(
        LossConfig(reconstruction="l1", positions=1.0, joints=0.0), "positions", 3, normalizer(3, constant=0)
    )
    output = torch.tensor([[[100.0, 1.0, 3.0]]])
    assert loss(output, torch.zeros(1, 1, 3), torch.ones(1, 1, dtype=torch.bool))["positions"] == 2.0
