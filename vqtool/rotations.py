"""Rotations as matrices [..., 3, 3] in float64, and to and from Euler angles, quaternions and 6-D.

A matrix takes column vectors of the joint's own frame to its parent's: `parent = R @ own`. Angles: radians.
"""

from __future__ import annotations

import numpy as np


def euler_to_matrix(angles: np.ndarray, order: str) -> np.ndarray:
    """Turns about the joint's own axes, one after the other: [..., 3] with order "zxy" gives Rz @ Rx @ Ry.

    `order` is a permutation of "xyz"; `angles[..., n]` belongs to `order[n]`. Returns [..., 3, 3].
    """
    i, j, k, sign = _axes(order)
    sin, cos = np.sin(angles), np.cos(angles)
    sa, sb, sc = sign * sin[..., 0], sign * sin[..., 1], sign * sin[..., 2]
    ca, cb, cc = cos[..., 0], cos[..., 1], cos[..., 2]
    matrix = np.empty((*angles.shape[:-1], 3, 3))
    matrix[..., i, i] = cb * cc
    matrix[..., i, j] = -cb * sc
    matrix[..., i, k] = sb
    matrix[..., j, i] = ca * sc + sa * sb * cc
    matrix[..., j, j] = ca * cc - sa * sb * sc
    matrix[..., j, k] = -sa * cb
    matrix[..., k, i] = sa * sc - ca * sb * cc
    matrix[..., k, j] = sa * cc + ca * sb * sc
    matrix[..., k, k] = ca * cb
    return matrix


def matrix_to_euler(matrix: np.ndarray, order: str) -> np.ndarray:
    """The angles [..., 3] that `euler_to_matrix` turns into `matrix`, the middle one within +-90 degrees.

    Where the middle angle is +-90 degrees only the sum of the others is known: the last is then 0.
    """
    i, j, k, sign = _axes(order)
    flat = np.hypot(matrix[..., i, i], matrix[..., i, j])
    locked = flat < 1e-9
    first = np.arctan2(-matrix[..., j, k], matrix[..., k, k])
    first = np.where(locked, np.arctan2(matrix[..., k, j], matrix[..., j, j]), first)
    last = np.where(locked, 0.0, np.arctan2(-matrix[..., i, j], matrix[..., i, i]))
    return sign * np.stack([first, np.arctan2(matrix[..., i, k], flat), last], axis=-1)


def _axes(order: str) -> tuple[int, int, int, float]:
    """Axis numbers of an order, and +1.0 for a cyclic one, -1.0 for the others."""
    i, j, k = ("xyz".index(axis) for axis in order)
    return i, j, k, 1.0 if (j - i) % 3 == 1 else -1.0


def quaternion_to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """[..., 4] unit quaternions (w, x, y, z) to [..., 3, 3]."""
    w, x, y, z = np.moveaxis(quaternion, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def matrix_to_quaternion(matrix: np.ndarray) -> np.ndarray:
    """[..., 3, 3] to unit quaternions [..., 4] (w, x, y, z) with w >= 0."""
    xx, yy, zz = matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 2, 2]
    xw, yw, zw = (matrix[..., b, a] - matrix[..., a, b] for a, b in ((1, 2), (2, 0), (0, 1)))
    xy, yz, zx = (matrix[..., b, a] + matrix[..., a, b] for a, b in ((0, 1), (1, 2), (2, 0)))
    # Four times the outer product of the quaternion with itself: its longest row is the quaternion, scaled.
    outer = [
        [1 + xx + yy + zz, xw, yw, zw],
        [xw, 1 + xx - yy - zz, xy, zx],
        [yw, xy, 1 - xx + yy - zz, yz],
        [zw, zx, yz, 1 - xx - yy + zz],
    ]
    rows = np.stack([np.stack(row, axis=-1) for row in outer], axis=-2)
    longest = np.argmax(np.diagonal(rows, axis1=-2, axis2=-1), axis=-1)
    quaternion = np.take_along_axis(rows, longest[..., None, None], axis=-2)[..., 0, :]
    signed = np.where(quaternion[..., :1] < 0, -1.0, 1.0)
    unit: np.ndarray = quaternion * (signed / np.linalg.norm(quaternion, axis=-1, keepdims=True))
    return unit


def vector_to_matrix(vector: np.ndarray) -> np.ndarray:
    """[..., 3] rotation vectors (axis times angle in radians) to [..., 3, 3]."""
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    # sin(angle / 2) / angle, which tends to 1/2
    scale = np.where(angle < 1e-8, 0.5, np.sin(angle / 2) / np.maximum(angle, 1e-8))
    return quaternion_to_matrix(np.concatenate([np.cos(angle / 2), scale * vector], axis=-1))


def slerp(start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The rotation that lies `weight` (0 to 1, broadcast over [...]) of the shorter way from start to end.

    Both are matrices [..., 3, 3], and so is the result.
    """
    a, b = matrix_to_quaternion(start), matrix_to_quaternion(end)
    dot = np.sum(a * b, axis=-1, keepdims=True)
    b, dot = np.where(dot < 0, -b, b), np.minimum(np.abs(dot), 1.0)
    angle = np.arccos(dot)
    sin = np.sin(angle)
    close = sin < 1e-6  # a straight line is as good there, and does not divide by nothing
    weight = np.asarray(weight)[..., None]
    safe = np.where(close, 1.0, sin)
    near = np.where(close, 1 - weight, np.sin((1 - weight) * angle) / safe)
    far = np.where(close, weight, np.sin(weight * angle) / safe)
    mixed = near * a + far * b
    return quaternion_to_matrix(mixed / np.linalg.norm(mixed, axis=-1, keepdims=True))


def matrix_to_6d(matrix: np.ndarray) -> np.ndarray:
    """The first two columns of each matrix, one after the other: [..., 3, 3] to [..., 6]."""
    return np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)


def matrix_from_6d(columns: np.ndarray) -> np.ndarray:
    """The rotation nearest to two columns [..., 6] that need be neither of length 1 nor at right angles.

    The first column keeps its direction. Columns that name no rotation (zero, or parallel) still give one.
    """
    columns = np.asarray(columns, dtype=np.float64)
    first, second = columns[..., :3], columns[..., 3:]
    first = _unit(first, np.array([1.0, 0.0, 0.0]))
    second = second - np.sum(first * second, axis=-1, keepdims=True) * first
    spare = np.eye(3)[np.argmin(np.abs(first), axis=-1)]
    spare = spare - np.sum(first * spare, axis=-1, keepdims=True) * first
    second = _unit(second, spare / np.linalg.norm(spare, axis=-1, keepdims=True))
    return np.stack([first, second, np.cross(first, second)], axis=-1)


def _unit(vectors: np.ndarray, instead: np.ndarray) -> np.ndarray:
    """Vectors of length 1; `instead` for those that have no direction."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    tiny = length < 1e-9
    return np.where(tiny, instead, vectors / np.where(tiny, 1.0, length))


def about_y(angle: np.ndarray) -> np.ndarray:
    """Turns about the vertical: [...] radians to [..., 3, 3]; +90 degrees takes +Z to +X."""
    sin, cos = np.sin(angle), np.cos(angle)
    zero, one = np.zeros_like(sin), np.ones_like(sin)
    rows = [[cos, zero, sin], [zero, one, zero], [-sin, zero, cos]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def fit_orthogonal(covariance: np.ndarray, prefer: np.ndarray) -> np.ndarray:
    """The orthogonal matrix R that best takes points a to b; covariance [..., 3, 3] is the sum of b a^T.

    R has the determinant of `prefer` (+1 a rotation, -1 a mirror image). What the points leave open (all on
    one line, or none at all) is settled by `prefer`, an orthogonal [..., 3, 3], to which R stays as near as
    it can. Kabsch's algorithm with a weak prior.
    """
    size = np.linalg.norm(covariance, axis=(-2, -1), keepdims=True)
    u, _, vt = np.linalg.svd(covariance + (1e-9 * size + 1e-30) * prefer)
    wrong = np.linalg.det(u @ vt) * np.linalg.det(prefer) < 0
    flip = np.where(wrong[..., None] & (np.arange(3) == 2), -1.0, 1.0)
    fitted: np.ndarray = (u * flip[..., None, :]) @ vt
    return fitted
