import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion_samples import BODY, real_data, still, wild

from vqtool.body import Body, find_body, mirror
from vqtool.errors import MismatchError
from vqtool.features import heading, joint_features, recover, recover_positions
from vqtool.formats.bvh import read_bvh, write_bvh
from vqtool.motion import column_groups
from vqtool.rotations import about_y, euler_to_matrix
from vqtool.skeleton import Skeleton, SkeletonMotion, resample, with_offsets

HERE = find_body(BODY)
GROUPS = column_groups("joints", 12 * 15 - 1)


def walk(path: np.ndarray, headings: np.ndarray) -> SkeletonMotion:
    """A stiff body whose root follows x and z of a path, turned about the vertical."""
    motion = still(len(path))
    rotations = motion.rotations.copy()
    rotations[:, 0] = about_y(headings)
    translations = motion.translations.copy()
    translations[:, 0, ::2] = path
    return replace(motion, rotations=rotations, translations=translations)


def start_of(motion: SkeletonMotion, body: Body) -> tuple[float, float, float]:
    positions, _ = motion.forward()
    return positions[0, 0, 0], positions[0, 0, 2], heading(positions, body, motion.fps)[0]


def test_features_of_22_joints_have_the_263_columns_of_humanml3d():
    skeleton = Skeleton(tuple(map(str, range(22))), tuple(range(-1, 21)), np.ones((22, 3)))
    assert joint_features(still(3, skeleton), Body((), ())).shape == (3, 263)


def test_walking_forward_is_a_velocity_along_z_wherever_that_is():
    steps = np.arange(5)[:, None] * [0.1, 0.0]  # along the world's x
    features = joint_features(walk(steps, np.full(5, np.pi / 2)), HERE)
    np.testing.assert_allclose(features[:, :4], np.tile([0, 0, 0.1, 0.85], (5, 1)), atol=1e-12)
    velocities = features[:, GROUPS["velocities"]].reshape(5, 15, 3)
    np.testing.assert_allclose(velocities, np.tile([0, 0, 0.1], (5, 15, 1)), atol=1e-12)


def test_stepping_to_the_left_is_a_velocity_along_x():
    features = joint_features(walk(np.arange(3)[:, None] * [0.2, 0.0], np.zeros(3)), HERE)
    np.testing.assert_allclose(features[:, 1:3], np.tile([0.2, 0], (3, 1)), atol=1e-12)


def test_turning_to_the_left_is_half_the_angle_below_zero():
    turning = np.arange(200) * 0.02  # steady, so that smoothing leaves it alone but at the ends
    features = joint_features(walk(np.zeros((200, 2)), turning), HERE)
    np.testing.assert_allclose(features[80:121, 0], -0.01, atol=1e-3)


def test_turning_past_180_degrees_does_not_jump():
    features = joint_features(walk(np.zeros((600, 2)), np.arange(600) * 0.02), HERE)
    assert np.abs(features[:, 0]).max() < 0.011


def test_positions_are_seen_from_the_roots_ground_point():
    features = joint_features(walk(np.full((2, 2), 7.0), np.full(2, 1.0)), HERE)
    rest = BODY.rest_positions()[1:] + np.array([0, 0.85, 0])
    np.testing.assert_allclose(features[0, GROUPS["positions"]], rest.ravel(), atol=1e-12)


def test_rotations_are_the_first_two_columns_in_the_parents_frame():
    motion = wild(2, 3)
    columns = motion.rotations[:, 1:, :, :2].swapaxes(2, 3).reshape(2, -1)
    np.testing.assert_allclose(joint_features(motion, HERE)[:, GROUPS["rotations"]], columns, atol=1e-12)


def test_the_last_frame_repeats_what_the_one_before_tells_of_the_next():
    features = joint_features(wild(4, 0), HERE)
    for group in (slice(0, 3), GROUPS["velocities"], GROUPS["contacts"]):
        np.testing.assert_array_equal(features[3, group], features[2, group])


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_short_clips_have_as_many_features_as_frames(frames):
    motion = wild(frames, 0)
    features = joint_features(motion, HERE)
    assert features.shape == (frames, 179)
    assert np.isfinite(features).all()
    assert len(recover(features, BODY, 30.0)) == len(recover_positions(features)) == frames


def test_a_clip_of_one_frame_stands_still():
    features = joint_features(wild(1, 0), HERE)
    assert not features[0, :3].any() and not features[0, GROUPS["velocities"]].any()


def quaternion_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array(
        [
            a[0] * b[0] - a[1:] @ b[1:],
            *(a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])),
        ]
    )


def recover_as_humanml3d_says(features: np.ndarray, joints: int) -> np.ndarray:
    """Frame by frame with quaternions: the angle is summed, undone on the way and on every joint."""
    angle, place, result = 0.0, np.zeros(3), []
    for t, row in enumerate(features):
        if t:
            angle += features[t - 1, 0]
        undo = np.array([np.cos(angle), 0, -np.sin(angle), 0])

        def turned(vector: np.ndarray, undo: np.ndarray = undo) -> np.ndarray:
            back = undo * [1, -1, -1, -1]
            return quaternion_product(quaternion_product(undo, np.array([0, *vector])), back)[1:]

        if t:
            place = place + turned(np.array([features[t - 1, 1], 0, features[t - 1, 2]]))
        others = [turned(p) + place for p in row[4 : 4 + 3 * (joints - 1)].reshape(-1, 3)]
        result.append([np.array([place[0], row[3], place[2]]), *others])
    return np.array(result)


def test_positions_are_those_that_humanml3ds_own_rule_gives():
    features = np.random.default_rng(0).normal(size=(20, 263)) * 0.3
    np.testing.assert_allclose(recover_positions(features), recover_as_humanml3d_says(features, 22), atol=1e-9)


@given(seed=st.integers(0, 10_000), frames=st.integers(1, 40))
def test_positions_and_path_come_back_exactly(seed, frames):
    motion = wild(frames, seed)
    found = recover_positions(joint_features(motion, HERE), start_of(motion, HERE))
    np.testing.assert_allclose(found, motion.forward()[0], atol=1e-9)


@given(seed=st.integers(0, 10_000), frames=st.integers(1, 40))
def test_rotations_come_back_with_the_roots_tilt(seed, frames):
    motion = wild(frames, seed)
    found = recover(joint_features(motion, HERE), BODY, motion.fps, start_of(motion, HERE))
    np.testing.assert_allclose(found.rotations, motion.rotations, atol=1e-6)
    np.testing.assert_allclose(found.translations, motion.translations, atol=1e-9)


def test_without_a_start_the_clip_begins_at_the_origin_facing_z():
    motion = walk(np.full((40, 2), 5.0), np.full(40, 1.2))
    positions = recover_positions(joint_features(motion, HERE))
    np.testing.assert_allclose(positions, still(40).forward()[0], atol=1e-9)


def test_a_body_on_one_line_gets_the_smallest_tilt():
    skeleton = Skeleton(("a", "b", "c"), (-1, 0, 1), np.array([[0, 0, 0], [0, 1.0, 0], [0, 1.0, 0]]))
    rotations = np.tile(np.eye(3), (3, 3, 1, 1))
    rotations[:, 0] = euler_to_matrix(np.array([0.5, 0.3, 1.0]), "zxy")  # the last, about the line, cannot be seen
    motion = SkeletonMotion(skeleton, with_offsets(skeleton.offsets, np.zeros((3, 3))), rotations, 30.0)
    found = recover(joint_features(motion, Body((), ())), skeleton, 30.0)
    np.testing.assert_allclose(found.forward()[0], motion.forward()[0], atol=1e-6)
    np.testing.assert_allclose(found.rotations[:, 0, 0, 2], found.rotations[:, 0, 2, 0], atol=1e-6)  # no twist


def test_bones_that_change_length_keep_their_positions_in_the_features():
    motion = wild(5, 2)
    translations = motion.translations.copy()
    translations[:, 4] *= np.arange(1, 6)[:, None]
    motion = replace(motion, translations=translations)
    found = recover_positions(joint_features(motion, HERE), start_of(motion, HERE))
    np.testing.assert_allclose(found, motion.forward()[0], atol=1e-9)


def test_features_that_a_network_spoilt_still_give_rotations():
    features = joint_features(wild(9, 1), HERE)
    spoilt = features + np.random.default_rng(1).normal(size=features.shape)
    spoilt[0] = 0
    rotations = recover(spoilt, BODY, 30.0).rotations
    np.testing.assert_allclose(rotations @ rotations.swapaxes(2, 3), np.tile(np.eye(3), (9, 15, 1, 1)), atol=1e-9)


def test_features_of_another_skeleton_are_refused():
    with pytest.raises(MismatchError, match="263 features are not those of this skeleton, whose 15 joints have 179"):
        recover(np.zeros((3, 263)), BODY, 30.0)


def test_facing_is_smoothed_over_a_second():
    turned = np.where(np.arange(400) < 200, 0.0, 1.0)
    positions, _ = walk(np.zeros((400, 2)), turned).forward()
    facing = heading(positions, HERE, 30.0)
    assert facing[199:201].mean() == pytest.approx(0.5, abs=0.02)
    # One standard deviation (30 frames) on, a Gaussian step is 84 % done.
    part = np.arctan2(0.8413 * np.sin(1), 0.1587 + 0.8413 * np.cos(1))
    assert facing[229] == pytest.approx(part, abs=0.02)


def test_facing_is_held_where_the_body_lies_on_its_side():
    motion = still(3)
    rotations = motion.rotations.copy()
    rotations[:, 0] = about_y(np.array(0.7)) @ euler_to_matrix(np.array([np.pi / 2, 0, 0]), "zxy")
    positions, _ = replace(motion, rotations=rotations).forward()
    assert np.isfinite(heading(positions, HERE, 30.0)).all()


def test_a_body_without_facing_joints_keeps_the_worlds_axes():
    motion = wild(5, 0)
    features = joint_features(motion, Body((), HERE.feet))
    assert not features[:, 0].any()
    np.testing.assert_allclose(recover_positions(features), motion.forward()[0] - motion.forward()[0][0, 0] * [1, 0, 1])


def test_standing_feet_touch_the_ground():
    assert joint_features(still(10), HERE)[:, GROUPS["contacts"]].all()


def test_a_raised_foot_and_a_fast_foot_do_not_touch_the_ground():
    motion = still(100)
    rotations = motion.rotations.copy()
    rotations[50:, 1] = euler_to_matrix(np.array([-1.0, 0, 0]), "xyz")  # the left leg goes up
    raised = joint_features(replace(motion, rotations=rotations), HERE)[:, GROUPS["contacts"]]
    np.testing.assert_array_equal(raised[60], [0, 0, 1, 1])
    sliding = joint_features(walk(np.arange(10)[:, None] * [0.0, 0.05], np.zeros(10)), HERE)  # 1.5 m/s
    assert not sliding[:, GROUPS["contacts"]].any()


def test_a_body_without_feet_has_no_contacts():
    assert not joint_features(still(4), Body(HERE.facing, ()))[:, GROUPS["contacts"]].any()


def test_a_mirrored_clip_turns_the_other_way():
    motion = walk(np.arange(60)[:, None] * [0.02, 0.03], np.arange(60) * 0.02)
    features, mirrored = joint_features(motion, HERE), joint_features(mirror(motion), HERE)
    np.testing.assert_allclose(mirrored[:, :4], features[:, :4] * [-1, -1, 1, 1], atol=1e-6)


@pytest.mark.parametrize(
    "name", ["20tab_mocapbank_crlf.bvh", "assimp_boxing_toes.bvh", "cmu_3dsmax_131_01.bvh", "bvhio_example.bvh"]
)
def test_real_motion_comes_back_from_float32_features_within_a_hundredth_of_a_millimetre(name, tmp_path):
    motion = read_bvh(real_data("bvh_zoo") / name)
    body = find_body(motion.skeleton)
    positions, _ = motion.forward()
    features = joint_features(motion, body).astype(np.float32)
    np.testing.assert_allclose(recover_positions(features, start_of(motion, body)), positions, atol=1e-5)
    file = io.BytesIO()
    write_bvh(file, recover(features, motion.skeleton, motion.fps, start_of(motion, body)))
    (tmp_path / name).write_bytes(file.getvalue())
    again = read_bvh(tmp_path / name, drop_first_frame="no")
    np.testing.assert_allclose(again.forward()[0], positions, atol=1e-5)


def test_real_motion_stands_on_its_feet_at_thirty_frames_a_second():
    motion = resample(read_bvh(real_data("bvh_zoo") / "cmu_3dsmax_131_01.bvh"), 30.0)
    features = joint_features(motion, find_body(motion.skeleton))
    contacts = features[:, column_groups("joints", features.shape[1])["contacts"]]
    assert 0.2 < contacts.mean() < 0.9
    assert 0.7 < features[:, 3].mean() < 1.1  # hips of an adult, metres
