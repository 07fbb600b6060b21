"""The Frechet distance and its features, by values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vqtool.frechet import DIRECTIONS, MIN_SECONDS, PARTS, Moments, MotionDistance, frechet_distance


def test_frechet_distance_of_two_normal_distributions_of_one_dimension() -> None:
    # (0 - 3)^2 + 1 + 4 - 2 sqrt(1 * 4)
    assert frechet_distance(np.zeros(1), np.eye(1), np.full(1, 3.0), np.full((1, 1), 4.0)) == pytest.approx(10)


def test_frechet_distance_of_covariances_that_do_not_commute() -> None:
    first, second = np.array([[2.0, 1], [1, 2]]), np.diag([4.0, 1])
    product = first @ second  # of a 2 x 2 matrix, trace sqrt(M) = sqrt(trace M + 2 sqrt(det M))
    root = np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    expected = 4 + 5 - 2 * root
    assert frechet_distance(np.zeros(2), first, np.zeros(2), second) == pytest.approx(expected)
    assert frechet_distance(np.zeros(2), second, np.zeros(2), first) == pytest.approx(expected)


def test_frechet_distance_of_singular_covariances_is_no_nan() -> None:
    flat = np.outer([1.0, 2, 3], [1.0, 2, 3])
    assert frechet_distance(np.zeros(3), flat, np.zeros(3), flat) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(np.zeros(3), flat, np.zeros(3), np.zeros((3, 3))) == pytest.approx(14)


def test_moments_bit_by_bit_are_those_of_all_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 4))
    first, second = Moments(4), Moments(4)
    first.add(rows[:20])
    second.add(rows[20:21])
    second.add(rows[21:])
    mean, covariance = (first + second).result()
    np.testing.assert_allclose(mean, rows.mean(0))
    np.testing.assert_allclose(covariance, np.cov(rows.T, bias=True))


def clips(count: int, seconds: int, seed: int = 0, size: float = 1.0) -> list[np.ndarray]:
    """Clips of 10 frames a second and 3 columns: each second at a level of its own, swinging by a width of its own."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        level, width = random.normal(size=(2, seconds, 1, 3))
        swing = np.sin(np.arange(10) * 0.6)[None, :, None]
        found.append((size * (level + width * swing)).reshape(-1, 3).astype(np.float32))
    return found


def distance(
    truth: list[np.ndarray], decoded: list[np.ndarray], moving: tuple[bool, bool, bool] = (True, True, True)
) -> MotionDistance:
    found = MotionDistance(len(truth), 10, np.zeros(3), np.ones(3), np.array(moving))
    for clip, (one, other) in enumerate(zip(truth, decoded, strict=True)):
        found.add(clip, 0, one, other)
    return found


def test_motion_that_comes_back_as_it_was_has_distance_0() -> None:
    truth = clips(20, 12)
    assert distance(truth, truth).real_to_decoded() == pytest.approx(0, abs=1e-6)


def test_the_mean_second_over_and_over_has_distance_1() -> None:
    truth = clips(20, 12)
    found = distance(truth, truth)
    features = found._features(np.concatenate(truth))
    mean, covariance = found._real[0].result()
    assert features.shape == (240, PARTS * DIRECTIONS)
    found._decoded = Moments(PARTS * DIRECTIONS)
    found._decoded.add(np.repeat(features.mean(0, keepdims=True), 240, axis=0))
    assert found.real_to_decoded() == pytest.approx(1, rel=1e-3)
    assert len(mean) == len(covariance) == PARTS * DIRECTIONS


def test_motion_that_moves_too_little_is_far_and_farther_the_less_it_moves() -> None:
    truth = clips(20, 12)
    found = [distance(truth, [one * np.float32(size) for one in truth]).real_to_decoded() for size in (0.9, 0.5, 0.1)]
    assert found == sorted(found, key=lambda value: value or 0)
    # Every feature shrinks with the motion: (1 - size)^2 of the mean of squares, which is at least the variance, 1.
    for value, size in zip(found, (0.9, 0.5, 0.1), strict=True):
        assert value is not None
        assert value > (1 - size) ** 2


def test_other_clips_of_the_same_kind_are_near_and_so_are_the_two_halves() -> None:
    found = distance(clips(60, 20), clips(60, 20, seed=1))
    near, halves = found.real_to_decoded(), found.real_to_real()
    assert near is not None and halves is not None
    assert 0 < near < halves < 0.1


def test_few_seconds_have_no_distance() -> None:
    assert MIN_SECONDS == 120
    assert distance(clips(2, 59), clips(2, 59)).real_to_decoded() is None
    enough = distance(clips(2, 60), clips(2, 60))
    assert enough.real_to_decoded() is not None and enough.real_to_real() is not None
    single = distance(clips(1, 240), clips(1, 240))
    assert single.real_to_decoded() is not None and single.real_to_real() is None


def test_seconds_are_counted_from_the_beginning_of_the_clip_whatever_the_pieces() -> None:
    (truth,) = clips(1, 130)
    whole, pieces = distance([truth], [truth * 2]), MotionDistance(1, 10, np.zeros(3), np.ones(3), np.ones(3, bool))
    for start, stop in ((640, 1300), (0, 640)):
        pieces.add(0, start, truth[start:stop], 2 * truth[start:stop])
    assert pieces.real_to_decoded() == pytest.approx(whole.real_to_decoded(), rel=1e-6)
    cut = MotionDistance(1, 10, np.zeros(3), np.ones(3), np.ones(3, bool))
    for start, stop in ((0, 5), (5, 643), (643, 1300)):
        cut.add(0, start, truth[start:stop], truth[start:stop])
    assert cut._decoded.count == 128  # of 130, the two that were cut


def test_columns_that_do_not_move_count_nowhere() -> None:
    truth = clips(20, 12)
    decoded = [one + np.array([0, 0, 100], np.float32) for one in truth]
    assert distance(truth, decoded, (True, True, False)).real_to_decoded() == pytest.approx(0, abs=1e-6)
    assert distance(truth, decoded).real_to_decoded() > 100


def test_motion_that_never_changes_has_a_distance() -> None:
    still = [np.zeros((1300, 3), np.float32)]
    assert distance(still, still).real_to_decoded() == 0
