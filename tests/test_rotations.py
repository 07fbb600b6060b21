from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqtool.rotations import (
    about_y,
    euler_to_matrix,
    fit_orthogonal,
    matrix_from_6d,
    matrix_to_6d,
    matrix_to_euler,
    matrix_to_quaternion,
    quaternion_to_matrix,
    slerp,
)

ORDERS = ["".join(order) for order in permutations("xyz")]
angle = st.floats(-np.pi, np.pi)
angles = st.tuples(angle, angle, angle).map(np.array)


def elementary(axis: str, angle: float) -> np.ndarray:
    """A turn about one axis, written out."""
    s, c = np.sin(angle), np.cos(angle)
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


@given(angles, st.sampled_from(ORDERS))
def test_euler_angles_are_turns_about_one_axis_after_the_other(angles, order):
    a, b, c = (elementary(axis, value) for axis, value in zip(order, angles, strict=True))
    np.testing.assert_allclose(euler_to_matrix(angles, order), a @ b @ c, atol=1e-12)


@given(angles, st.sampled_from(ORDERS))
def test_euler_angles_of_a_matrix_give_that_matrix(angles, order):
    matrix = euler_to_matrix(angles, order)
    np.testing.assert_allclose(euler_to_matrix(matrix_to_euler(matrix, order), order), matrix, atol=1e-7)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("middle", [np.pi / 2, -np.pi / 2])
def test_gimbal_lock_gives_the_same_rotation_with_a_last_angle_of_zero(order, middle):
    matrix = euler_to_matrix(np.array([0.3, middle, 0.5]), order)
    found = matrix_to_euler(matrix, order)
    assert found[2] == 0
    np.testing.assert_allclose(euler_to_matrix(found, order), matrix, atol=1e-9)


@given(angles)
def test_a_matrix_to_quaternion_and_back_is_unchanged(angles):
    matrix = euler_to_matrix(angles, "xyz")
    np.testing.assert_allclose(quaternion_to_matrix(matrix_to_quaternion(matrix)), matrix, atol=1e-12)


def test_half_a_turn_about_z_is_the_quaternion_0001():
    np.testing.assert_allclose(matrix_to_quaternion(elementary("z", np.pi)), [0, 0, 0, 1], atol=1e-12)


def test_slerp_a_third_of_the_way_turns_a_third_as_far():
    found = slerp(np.eye(3), elementary("x", 1.2), np.array(1 / 3))
    np.testing.assert_allclose(found, elementary("x", 0.4), atol=1e-12)


def test_slerp_takes_the_shorter_way_across_180_degrees():
    found = slerp(elementary("y", 3.0), elementary("y", -3.0), np.array(0.5))
    np.testing.assert_allclose(found, elementary("y", np.pi), atol=1e-12)


def test_slerp_between_equal_rotations_stays():
    matrix = elementary("z", 0.7)
    np.testing.assert_allclose(slerp(matrix, matrix, np.array(0.5)), matrix, atol=1e-12)


def test_6d_is_the_first_column_then_the_second():
    np.testing.assert_array_equal(matrix_to_6d(np.arange(9.0).reshape(3, 3)), [0, 3, 6, 1, 4, 7])


@given(angles)
def test_a_matrix_to_6d_and_back_is_unchanged(angles):
    matrix = euler_to_matrix(angles, "yzx")
    np.testing.assert_allclose(matrix_from_6d(matrix_to_6d(matrix)), matrix, atol=1e-12)


@pytest.mark.parametrize(
    "columns", [[0] * 6, [1, 0, 0, 2, 0, 0], [0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 0], [2, 0, 0, 1, 3, 0]]
)
def test_any_six_numbers_give_a_rotation(columns):
    matrix = matrix_from_6d(np.array(columns, dtype=float))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_a_quarter_turn_about_y_takes_z_to_x():
    np.testing.assert_allclose(about_y(np.array(np.pi / 2)) @ [0, 0, 1], [1, 0, 0], atol=1e-12)


@given(angles)
def test_a_fit_finds_the_rotation_between_points(angles):
    points = np.random.default_rng(0).normal(size=(5, 3))
    turned = points @ euler_to_matrix(angles, "xyz").T
    np.testing.assert_allclose(fit_orthogonal(turned.T @ points, np.eye(3)), euler_to_matrix(angles, "xyz"), atol=1e-7)


def test_a_fit_to_one_direction_stays_as_near_to_the_preferred_as_it_can():
    covariance = np.outer([1, 0, 0], [0, 1, 0])  # takes y to x: shortest about z
    np.testing.assert_allclose(fit_orthogonal(covariance, np.eye(3)), elementary("z", -np.pi / 2), atol=1e-6)


def test_a_fit_to_nothing_is_the_preferred():
    np.testing.assert_allclose(fit_orthogonal(np.zeros((3, 3)), elementary("x", 1.0)), elementary("x", 1.0))


def test_a_fit_that_prefers_a_mirror_image_is_one():
    fitted = fit_orthogonal(np.outer([-1, 2, 3], [1, 2, 3]), np.diag([-1.0, 1, 1]))
    np.testing.assert_allclose(fitted @ [1, 2, 3], [-1, 2, 3], atol=1e-6)
    assert np.linalg.det(fitted) == pytest.approx(-1)
