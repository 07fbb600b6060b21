r"""Joint features [T, 12 J - 1] of any skeleton's motion, and joint positions and rotations back.

The columns are those of HumanML3D (263 for J = 22 joints, https://arxiv.org/abs/2204.14109) with the same
conventions, so that what recovers positions from the one does so from the other:

    J = 22     what                                                                          unit
    0          half the turn of the facing direction to the next frame, clockwise seen from  rad/frame
               above (the angle of the quaternion that undoes it)
    1:3        root's way to the next frame along x and z of that frame's facing frame       m/frame
    3          root's height                                                                 m
    4:67       the other J - 1 joints as seen from the root's ground point, facing frame     m
    67:193     rotations of the other J - 1 joints in their parents' frames: the first two
               columns of each matrix
    193:259    ways of all J joints to the next frame, in the facing frame                   m/frame
    259:263    contact of left ankle, left toe, right ankle, right toe                       0 or 1

    seen from above, the eye at +Y:       Z                         z = facing
                                  facing  ^                         ^
                                       \  |               left <----o----> right
                                        \ |                 x   root's ground point
                              X <---------o

Heading is the angle from Z towards X. Facing: at right angles to the line from the right hip and shoulder to
the left ones, smoothed over time by a Gaussian of 1 s, as HumanML3D does (20 frames at 20 a second).

HumanML3D has one frame less than its source, for want of a next one. Here T frames give T frames: in the
last one, everything that tells of the next frame repeats the frame before (zeros in a clip of one frame).
Recovery does not read these, so it is exact.

Features do not say where on the ground a clip begins and which way it faces: `recover` starts it at `start`.
They do not hold the root's own tilt either. But the other joints' rotations say where they are as seen from
the root, and their positions where they are as seen from the ground: the rotation that best takes one to the
other (least squares over all joints) is the root's. Where all joints lie on one line, what is left open is
settled by the smallest tilt. So rotations come back exactly, and those of a decoded motion, in which
positions and rotations do not quite agree, come back as well as they can.
"""

from __future__ import annotations

import numpy as np

from vqtool.body import Body
from vqtool.errors import MismatchError
from vqtool.motion import column_groups
from vqtool.rotations import about_y, fit_orthogonal, matrix_from_6d, matrix_to_6d
from vqtool.skeleton import Skeleton, SkeletonMotion, forward_kinematics, with_offsets

SMOOTH_FACING_S = 1.0  # standard deviation of the Gaussian over the facing direction
CONTACT_HEIGHT = 0.06  # of the body's height
CONTACT_SPEED = 0.5  # body heights a second
Start = tuple[float, float, float]


def joint_features(motion: SkeletonMotion, body: Body) -> np.ndarray:
    """Features [T, 12 J - 1] in float64, columns as above; `body` comes from `find_body`."""
    return features_and_start(motion, body)[0]


def features_and_start(motion: SkeletonMotion, body: Body) -> tuple[np.ndarray, Start]:
    """Those features, and where recovery has to start to give the same positions."""
    frames, joints = motion.translations.shape[:2]
    positions, _ = motion.forward()
    facing = heading(positions, body, motion.fps)
    to_facing = about_y(-facing)
    ahead = np.minimum(np.arange(frames) + 1, frames - 1)  # the next frame
    turns = (facing[ahead] - facing + np.pi) % (2 * np.pi) - np.pi
    steps = positions[ahead] - positions
    ground = positions[:, :1] * [1.0, 0.0, 1.0]

    features = np.empty((frames, 12 * joints - 1))
    groups = column_groups("joints", features.shape[1])
    features[:, 0] = -turns / 2
    features[:, 1:3] = _turned(to_facing[ahead], steps[:, :1])[:, 0, ::2]
    features[:, 3] = positions[:, 0, 1]
    features[:, groups["positions"]] = _turned(to_facing, positions - ground)[:, 1:].reshape(frames, 3 * joints - 3)
    features[:, groups["rotations"]] = matrix_to_6d(motion.rotations[:, 1:]).reshape(frames, 6 * joints - 6)
    features[:, groups["velocities"]] = _turned(to_facing, steps).reshape(frames, 3 * joints)
    features[:, groups["contacts"]] = _contacts(motion, positions, steps, body)
    if frames > 1:
        for of_next in (slice(0, 3), groups["velocities"], groups["contacts"]):
            features[-1, of_next] = features[-2, of_next]
    if not frames:
        return features, (0.0, 0.0, 0.0)
    return features, (positions[0, 0, 0].item(), positions[0, 0, 2].item(), facing[0].item())


def recover_positions(features: np.ndarray, start: Start = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Joint positions [T, J, 3] in metres (of "kit" in millimetres), of layout "joints", "humanml3d" or "kit".

    `start`: the root's x and z and its heading in the first frame.
    """
    return place_joints(_places(features), start)[0]


def recover(features: np.ndarray, skeleton: Skeleton, fps: float, start: Start = (0.0, 0.0, 0.0)) -> SkeletonMotion:
    """The motion of a skeleton, its bones as long as at rest, from features of layout "joints".

    Raises MismatchError where the features are of another number of joints.
    """
    joints = len(skeleton.names)
    if features.shape[1] != 12 * joints - 1:
        raise MismatchError(
            f"{features.shape[1]} features are not those of this skeleton, whose {joints} joints have "
            f"{12 * joints - 1}; give the skeleton that the motion was imported with"
        )
    positions, facing = place_joints(_places(features), start)
    columns = features[:, column_groups("joints", features.shape[1])["rotations"]]
    rotations = np.repeat(np.eye(3)[None, None], len(features), axis=0).repeat(joints, axis=1)
    rotations[:, 1:] = matrix_from_6d(columns.reshape(len(features), joints - 1, 6))
    from_root, _ = forward_kinematics(
        skeleton.parents, with_offsets(skeleton.offsets, np.zeros((len(features), 3))), rotations
    )
    seen = positions - positions[:, :1]
    rotations[:, 0] = fit_orthogonal(seen.swapaxes(1, 2) @ from_root, about_y(facing))
    return SkeletonMotion(skeleton, with_offsets(skeleton.offsets, positions[:, 0]), rotations, fps)


def heading(positions: np.ndarray, body: Body, fps: float) -> np.ndarray:
    """The facing direction [T], radians from Z towards X, of positions [T, J, 3].

    Smoothed as said above. Held where the body lies on its side; 0 for a body without facing joints.
    """
    frames = len(positions)
    if not frames or not body.facing:
        return np.zeros(frames)
    left, right = np.array(body.facing).T
    across = np.sum(positions[:, left] - positions[:, right], axis=1)
    across = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-9)
    forward = np.stack([-across[:, 2], across[:, 0]], axis=1)  # x and z of across x up
    spread = SMOOTH_FACING_S * fps
    reach = int(4 * spread + 0.5)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    padded = np.pad(forward, ((reach, reach), (0, 0)), mode="edge")
    x, z = (np.convolve(padded[:, axis], weights / weights.sum(), mode="valid") for axis in (0, 1))
    clear = np.hypot(x, z) > 1e-6
    latest = np.maximum.accumulate(np.where(clear, np.arange(frames), np.argmax(clear)))
    angles: np.ndarray = np.arctan2(x, z)[latest]
    return angles


def place_joints(columns: np.ndarray, start: Start = (0.0, 0.0, 0.0)) -> tuple[np.ndarray, np.ndarray]:
    """Joint positions [T, J, 3] and headings [T], from the first 3 J + 1 columns: root and positions."""
    columns = np.asarray(columns, dtype=np.float64)
    frames, joints = len(columns), columns.shape[1] // 3
    x, z, first = start
    facing = first + _summed(-2 * columns[:, 0])
    to_world = about_y(facing)
    way = np.zeros((frames, 1, 3))
    way[1:, 0, 0], way[1:, 0, 2] = columns[:-1, 1], columns[:-1, 2]
    ground = np.array([x, 0.0, z]) + np.cumsum(_turned(to_world, way), axis=0)
    root = np.zeros((frames, 1, 3))
    root[:, 0, 1] = columns[:, 3]
    others = columns[:, 4:].reshape(frames, joints - 1, 3)
    return ground + _turned(to_world, np.concatenate([root, others], axis=1)), facing


def _places(features: np.ndarray) -> np.ndarray:
    """The columns of root and positions, [T, 3 J + 1]."""
    return features[:, : column_groups("joints", features.shape[1])["positions"].stop]


def _summed(steps: np.ndarray) -> np.ndarray:
    """Where steps [T] to the next frame lead, from 0: [T]."""
    return np.concatenate([[0.0], np.cumsum(steps)])[: len(steps)]


def _turned(frames: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors [T, n, 3] each turned by its frame's matrix [T, 3, 3]."""
    turned: np.ndarray = vectors @ frames.swapaxes(1, 2)
    return turned


def _contacts(motion: SkeletonMotion, positions: np.ndarray, steps: np.ndarray, body: Body) -> np.ndarray:
    """[T, 4] of 0 and 1: the joint is slow, and near the lowest place it has in the clip.

    Slow: under half a body height a second. Near: within 6 % of the body's height of the 5th percentile.
    """
    if not body.feet or not len(positions):
        return np.zeros((len(positions), 4))
    feet = list(body.feet)
    size = motion.skeleton.size()
    height = positions[:, feet, 1]
    low = height - np.percentile(height, 5, axis=0) < CONTACT_HEIGHT * size
    slow = np.linalg.norm(steps[:, feet], axis=2) * motion.fps < CONTACT_SPEED * size
    touching: np.ndarray = low & slow
    return touching.astype(np.float64)
