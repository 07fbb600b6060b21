"""Joint errors in mm, by values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from motion_samples import BODY, wild

from vqtool.body import find_body
from vqtool.features import joint_features, recover_positions
from vqtool.metrics import BLOCK, JointErrors


def still(frames: int, joints: int = 3) -> np.ndarray:
    """Features of a body that stands: root 1 m high, the other joints 0.5 m to its left."""
    features = np.zeros((frames, 12 * joints - 1), np.float32)
    features[:, 3] = 1.0
    features[:, 4 : 4 + 3 * (joints - 1)] = np.tile([0.5, 1.0, 0.0], joints - 1)
    return features


def errors(truth: np.ndarray, decoded: np.ndarray, layout: str = "joints") -> tuple[float, float, float]:
    found = JointErrors(layout, truth.shape[1])
    found.add(0, 0, len(truth), truth, decoded)
    assert found.mpjpe is not None and found.mpjpe_aligned is not None and found.mpjpe_pose is not None
    return found.mpjpe, found.mpjpe_aligned, found.mpjpe_pose


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


def test_pieces_in_any_order_and_long_clips_give_the_error_of_the_whole() -> None:
    truth, decoded = (joint_features(wild(BLOCK + 300, seed), find_body(BODY)) for seed in (0, 1))
    found = JointErrors("joints", truth.shape[1])
    for start in (BLOCK, 0, 1000):
        stop = {BLOCK: None, 0: 1000, 1000: BLOCK}[start]
        found.add(7, start, len(truth), truth[start:stop], decoded[start:stop])
    expected = np.linalg.norm(recover_positions(decoded) - recover_positions(truth), axis=2).mean()
    assert found.mpjpe == pytest.approx(1000 * expected, rel=1e-9)


def test_raw_columns_have_no_joint_errors() -> None:
    assert not JointErrors("raw", 12).known
