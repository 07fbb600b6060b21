"""The measures of decoded motion, by values worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from motion_samples import BODY, wild
from motion_samples import still as standing

from vqtool.body import find_body
from vqtool.features import joint_features, recover_positions
from vqtool.metrics import FEET, JointErrors, Measures, foot_joints, procrustes_distances
from vqtool.motion import column_groups
from vqtool.skeleton import Skeleton


def still(frames: int, joints: int = 3) -> np.ndarray:
    """Features of a body that stands: root 1 m high, the other joints 0.5 m to its left."""
    features = np.zeros((frames, 12 * joints - 1), np.float32)
    features[:, 3] = 1.0
    features[:, 4 : 4 + 3 * (joints - 1)] = np.tile([0.5, 1.0, 0.0], joints - 1)
    return features


def measured(
    truth: np.ndarray, decoded: np.ndarray, layout: str = "joints", fps: float = 10, feet: tuple[int, ...] = ()
) -> dict[str, float | None]:
    found = JointErrors(layout, truth.shape[1], fps, feet)
    found.add(0, truth, decoded)
    assert found.frames == len(truth)
    return {name: total / count if count else None for name, (total, count) in found.sums().items()}


def errors(truth: np.ndarray, decoded: np.ndarray, layout: str = "joints") -> tuple[float | None, ...]:
    found = measured(truth, decoded, layout)
    return found["mpjpe_mm"], found["mpjpe_aligned_mm"], found["mpjpe_pose_mm"]


def test_a_root_that_drifts_counts_along_the_path_only() -> None:
    decoded = still(3)
    decoded[:, 1] = 0.01  # 10 mm a frame: 0, 10 and 20 mm
    assert errors(still(3), decoded) == pytest.approx((10, 0, 0), abs=1e-4)


def test_a_joint_that_is_off_counts_everywhere() -> None:
    decoded = still(2)
    decoded[:, 4] += 0.03  # of three joints one is 30 mm off
    assert errors(still(2), decoded) == pytest.approx((10, 10, 10), rel=1e-4)


def test_a_wrong_heading_is_no_error_of_the_pose() -> None:
    decoded = still(2)
    decoded[0, 0] = np.pi / 2  # half of the turn: two joints, 0.5 m out, swing to the other side in frame 1
    assert errors(still(2), decoded) == pytest.approx((1000 / 3, 1000 / 3, 0), abs=1e-2)


def test_positions_are_compared_as_they_are() -> None:
    truth = np.zeros((4, 6), np.float32)
    decoded = truth + np.array([0.1, 0, 0, 0.1, 0, 0.02], np.float32)
    along = (100 + np.hypot(100, 20)) / 2
    assert errors(truth, decoded, "positions") == pytest.approx((along, 10, 10), rel=1e-4)


def test_kit_ml_is_in_millimetres_already() -> None:
    decoded = still(2)
    decoded[:, 4] += 0.03
    assert errors(still(2), decoded, "kit") == pytest.approx((0.01, 0.01, 0.01), rel=1e-4)


def test_velocity_and_acceleration_are_differences_of_the_places_in_the_world() -> None:
    truth = np.zeros((4, 3), np.float32)
    decoded = truth.copy()
    decoded[:, 0] = [0, 0.01, 0.03, 0.03]  # 10 frames a second: 100, 200, 0 mm/s; 1000, -2000 mm/s^2
    found = measured(truth, decoded, "positions")
    assert found["velocity_error_mm_s"] == pytest.approx(100, rel=1e-6)
    assert found["acceleration_error_mm_s2"] == pytest.approx(1500, rel=1e-6)


def test_what_both_clips_do_is_no_error_of_velocity() -> None:
    truth = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    found = measured(truth, truth + np.float32(1), "positions")
    assert found["velocity_error_mm_s"] == pytest.approx(0, abs=1e-2)
    assert found["mpjpe_mm"] == pytest.approx(1000 * np.sqrt(3), rel=1e-4)


@pytest.mark.parametrize(("frames", "velocities", "accelerations"), [(1, 0, 0), (2, 1, 0), (3, 2, 1)])
def test_a_short_clip_has_no_acceleration(frames: int, velocities: int, accelerations: int) -> None:
    found = JointErrors("positions", 6, 30)
    found.add(0, np.zeros((frames, 6), np.float32), np.zeros((frames, 6), np.float32))
    assert found.sums()["velocity_error_mm_s"][1] == 2 * velocities
    assert found.sums()["acceleration_error_mm_s2"][1] == 2 * accelerations


def test_a_pose_that_is_turned_moved_and_scaled_fits_after_procrustes() -> None:
    truth = np.random.default_rng(0).normal(size=(5, 7, 3))
    turn = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(procrustes_distances(truth, 3 * truth @ turn + [1, 2, 3]), 0, atol=1e-7)


def test_procrustes_distances_of_a_square_that_is_stretched() -> None:
    # Corners (+-1, +-1) against (+-2, +-1): no turn, scale (2 + 1) / (4 + 1) = 0.6, so (+-1.2, +-0.6) is left.
    square = np.array([[[1, 1, 0], [1, -1, 0], [-1, -1, 0], [-1, 1, 0]]], float)
    expected = np.full((1, 4), np.hypot(0.2, 0.4))
    np.testing.assert_allclose(procrustes_distances(square, square * [2, 1, 1]), expected, rtol=1e-9)


def test_procrustes_does_not_mirror() -> None:
    tetrahedron = np.array([[[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]], float)
    # Turned at best, one of three axes stays wrong: scale 1/3, and what is left of the squares is 12 (1 - 1/9).
    left = np.square(procrustes_distances(tetrahedron, tetrahedron * [-1, 1, 1])).sum()
    assert left == pytest.approx(12 * 8 / 9)


def test_joints_all_in_one_place_have_a_procrustes_distance() -> None:
    truth = np.array([[[1.0, 0, 0], [-1, 0, 0]]])
    np.testing.assert_allclose(procrustes_distances(truth, np.zeros((1, 2, 3))), 1)
    np.testing.assert_allclose(procrustes_distances(np.zeros((1, 2, 3)), truth), 0)


def test_a_foot_skates_where_the_true_contacts_say_ground() -> None:
    truth = still(4, joints=5)
    contacts = column_groups("joints", truth.shape[1])["contacts"]
    truth[:, contacts] = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    decoded = still(4, joints=5)  # its own contacts say nothing
    decoded[:, 4] += [0, 0.01, 0.03, 0.5]  # joint 1, the left ankle: 10 and 20 mm, and then off the ground
    decoded[:, 5] += [0, 0.3, 0.3, 0.3]  # up is no slide
    found = measured(truth, decoded, feet=(1, 2, 3, 4))
    assert found["foot_skate_mm_s"] == pytest.approx((100 + 200) / 2, rel=1e-4)
    assert found["foot_skate_true_mm_s"] == pytest.approx(0, abs=1e-6)


def test_without_contact_or_known_feet_there_is_no_foot_skate() -> None:
    assert measured(still(4, 5), still(4, 5), feet=(1, 2, 3, 4))["foot_skate_mm_s"] is None
    assert measured(still(4, 5), still(4, 5))["foot_skate_mm_s"] is None


def test_drift_is_where_root_and_heading_end() -> None:
    decoded = still(3)
    decoded[:, 2] = [0.03, 0.04, 9.0]  # the last frame's way is that to a frame that is not there
    decoded[:, 0] = [np.radians(-85), np.radians(-10), 1.0]  # half turns: 190 degrees, which are 170 the other way
    found = measured(still(3), decoded)
    assert found["drift_degrees"] == pytest.approx(170, rel=1e-4)
    # 30 mm straight on after 170 degrees, 40 mm after 190.
    first, second = np.radians([170, 190])
    way = np.hypot(30 * np.sin(first) + 40 * np.sin(second), 30 * np.cos(first) + 40 * np.cos(second))
    assert found["drift_mm"] == pytest.approx(way, rel=1e-4)


def test_pieces_in_any_order_and_long_clips_give_the_measures_of_the_whole() -> None:
    truth, decoded = (joint_features(wild(1500, seed), find_body(BODY)) for seed in (0, 1))
    truth[:, column_groups("joints", truth.shape[1])["contacts"]] = np.random.default_rng(0).random((1500, 4)) > 0.5
    feet = foot_joints("joints", truth.shape[1], BODY)
    found = JointErrors("joints", truth.shape[1], 30, feet)
    edges = [0, 1, 2, 700, 701, 703, 1499, 1500]
    for piece in (6, 3, 0, 2, 5, 1, 4):
        cut = slice(edges[piece], edges[piece + 1])
        found.add(cut.start, truth[cut], decoded[cut])
    whole = measured(truth, decoded, fps=30, feet=feet)
    assert found.frames == 1500
    for name, (total, count) in found.sums().items():
        assert total / count == pytest.approx(whole[name], rel=1e-9), name
    places, places_decoded = recover_positions(truth), recover_positions(decoded)
    expected = np.linalg.norm(places_decoded - places, axis=2).mean()
    assert whole["mpjpe_mm"] == pytest.approx(1000 * expected, rel=1e-9)
    step = np.linalg.norm(np.diff(places_decoded - places, 2, axis=0), axis=2).mean()
    assert whole["acceleration_error_mm_s2"] == pytest.approx(1000 * 900 * step, rel=1e-9)
    slide = np.linalg.norm(np.diff(places[:, list(feet)][..., [0, 2]], axis=0), axis=2)
    touching = truth[:-1, column_groups("joints", truth.shape[1])["contacts"]] > 0.5
    assert whole["foot_skate_true_mm_s"] == pytest.approx(1000 * 30 * slide[touching].mean(), rel=1e-9)


def test_the_feet_are_those_of_the_contact_columns() -> None:
    dim = 12 * len(BODY.names) - 1
    names = [BODY.names[joint] for joint in foot_joints("joints", dim, BODY)]
    assert names == ["LeftFoot", "LeftToe", "RightFoot", "RightToe"]
    assert foot_joints("humanml3d", 263, None) == FEET["humanml3d"]
    assert foot_joints("kit", 251, None) == FEET["kit"]


def test_feet_that_nobody_knows_are_none() -> None:
    crane = Skeleton(("base", "arm", "hook"), (-1, 0, 1), np.eye(3))
    assert foot_joints("joints", 35, crane) == ()
    assert foot_joints("joints", 35, None) == ()
    assert foot_joints("positions", 3 * len(BODY.names), BODY) == ()
    assert foot_joints("raw", 263, BODY) == ()
    assert foot_joints("humanml3d", 35, None) == ()  # three joints


def test_raw_columns_have_no_joint_errors() -> None:
    assert not JointErrors.known("raw", 12)
    assert JointErrors.known("positions", 12)
    assert not JointErrors.known("positions", 13)
    assert JointErrors.known("humanml3d", 263)


Add = Callable[[int, int, np.ndarray, np.ndarray], None]


def measures(layout: str, moving: list[bool], lengths: list[int]) -> tuple[Measures, Add]:
    """Measures of columns with mean 0 and standard deviation 1, and how to add to them."""
    found = Measures(layout, 30, np.zeros(len(moving)), np.ones(len(moving)), np.array(moving), lengths)

    def add(clip: int, start: int, truth: np.ndarray, decoded: np.ndarray) -> None:
        error = decoded - truth
        found.add(clip, start, truth, decoded, np.square(error).sum(0), np.abs(error).sum(0))

    return found, add


def test_a_clip_has_its_own_errors_and_all_clips_those_of_their_frames() -> None:
    found, add = measures("raw", [True, True, False], [1, 3, 0])
    add(0, 0, np.zeros((1, 3)), np.array([[2.0, 0, 9]]))  # 4 / 2; the column that never moves does not count
    add(1, 2, np.zeros((1, 3)), np.array([[0.0, 1, 0]]))
    add(1, 0, np.zeros((2, 3)), np.array([[1.0, 0, 0], [0, 0, 0]]))
    assert found.of_clip(0) == {"nmse": 2, "nmae": 1}
    assert found.of_clip(1) == {"nmse": 2 / 6, "nmae": 2 / 6}
    assert found.of_clip(2) == {"nmse": None, "nmae": None}
    assert found.of_all() == {"nmse": 6 / 8, "nmae": 4 / 8}
    assert found.worst_first() == [0, 1, 2]


def test_groups_of_columns_have_their_own_errors() -> None:
    moving = np.ones(35, bool)
    moving[31:] = False  # the contacts
    found, add = measures("joints", moving.tolist(), [2])
    decoded = still(2).astype(float)
    decoded[:, 3] += 2  # of four root columns
    add(0, 0, still(2).astype(float), decoded)
    means = found.of_all()
    assert (means["nmse_root"], means["nmae_root"]) == (1, 0.5)
    assert (means["nmse_positions"], means["nmse_contacts"]) == (0, None)
    assert means["nmse"] == pytest.approx(4 / 31)
    assert list(means)[-10:] == list(JointErrors.NAMES)


def test_the_mean_drift_is_that_of_the_clips_and_other_means_are_those_of_the_frames() -> None:
    found, add = measures("positions", [True] * 3, [1, 3])
    add(0, 0, np.zeros((1, 3)), np.full((1, 3), [0.4, 0, 0]))
    add(1, 0, np.zeros((3, 3)), np.zeros((3, 3)))
    means = found.of_all()
    assert means["drift_mm"] == pytest.approx(200)
    assert means["mpjpe_mm"] == pytest.approx(100)
    assert means["drift_degrees"] is None


def test_clips_are_listed_worst_first_and_in_their_order_where_they_are_alike() -> None:
    found, add = measures("raw", [True], [1] * 5)
    for clip, error in enumerate([1.0, 3, 0, 3, 2]):
        add(clip, 0, np.zeros((1, 1)), np.full((1, 1), error))
    assert found.worst_first() == [1, 3, 4, 0, 2]


def test_a_body_that_stands_has_feet_that_stand() -> None:
    motion = standing(5)
    features = joint_features(motion, find_body(BODY))
    found = measured(features, features, feet=foot_joints("joints", features.shape[1], BODY))
    assert found["foot_skate_true_mm_s"] == pytest.approx(0, abs=1e-6)
