import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from motion_samples import BODY, still, wild

from vqtool.body import Body, find_body, left_right_pairs, mirror
from vqtool.errors import DataError, UsageError
from vqtool.rotations import euler_to_matrix
from vqtool.skeleton import Skeleton, SkeletonMotion, forward_kinematics, resample, with_offsets


def named(*names: str) -> Skeleton:
    """A chain of joints, each at another place."""
    offsets = np.arange(3.0 * len(names)).reshape(-1, 3)
    return Skeleton(names, tuple(range(-1, len(names) - 1)), offsets)


def test_a_bent_arm_is_where_the_hand_calculation_says():
    quarter = euler_to_matrix(np.array([np.pi / 2, 0, 0]), "zxy")  # x to y
    translations = np.array([[[0, 1, 0], [2, 0, 0], [3, 0, 0]]], dtype=float)
    rotations = np.array([[quarter, quarter, np.eye(3)]])
    positions, turned = forward_kinematics((-1, 0, 1), translations, rotations)
    np.testing.assert_allclose(positions[0], [[0, 1, 0], [0, 3, 0], [-3, 3, 0]], atol=1e-12)
    np.testing.assert_allclose(turned[0, 2], quarter @ quarter, atol=1e-12)


def test_the_size_of_a_body_is_its_longest_way_over_1_4():
    arms = 0.4 + 0.2062 + 0.5
    leg = 0.1 + 0.4 + 0.4 + 0.1581
    assert BODY.size() == pytest.approx((arms + leg) / 1.4, abs=1e-4)


@pytest.mark.parametrize("parents", [(-1, 1), (0, 0), (-1, -1), (-1, 2), (-1,)])
def test_parents_that_make_no_tree_are_refused(parents):
    with pytest.raises(DataError, match="parent"):
        Skeleton(("a", "b"), parents, np.zeros((2, 3)))


def test_a_joint_name_given_twice_is_refused():
    with pytest.raises(DataError, match="'a' appears twice"):
        named("a", "a")


def test_an_unknown_joint_is_answered_with_those_there_are():
    with pytest.raises(UsageError, match="no joint 'Elbow'; the skeleton has Hips, Head"):
        named("Hips", "Head").index("Elbow")


def test_a_quarter_of_the_rate_takes_every_fourth_frame():
    motion = wild(14, 0, fps=120.0)
    slow = resample(motion, 30.0)
    assert (len(slow), slow.fps) == (4, 30.0)
    np.testing.assert_allclose(slow.rotations, motion.rotations[::4], atol=1e-12)
    np.testing.assert_allclose(slow.translations, motion.translations[::4], atol=1e-12)


def test_twice_the_rate_puts_a_frame_halfway_between_two():
    motion = still(2)
    there = euler_to_matrix(np.array([1.0, 0, 0]), "yxz")
    rotations = motion.rotations.copy()
    rotations[1, 0] = there
    translations = motion.translations.copy()
    translations[1, 0, 0] = 4.0
    fast = resample(SkeletonMotion(BODY, translations, rotations, 30.0), 60.0)
    assert len(fast) == 3
    assert fast.translations[1, 0, 0] == pytest.approx(2.0)
    np.testing.assert_allclose(fast.rotations[1, 0], euler_to_matrix(np.array([0.5, 0, 0]), "yxz"), atol=1e-12)


@given(st.integers(0, 40), st.sampled_from([24.0, 29.97, 30.0, 60.0, 120.0]), st.sampled_from([20.0, 30.0, 25.0]))
def test_resampling_never_reaches_past_the_last_frame(frames, fps, wanted):
    count = len(resample(still(frames, fps=fps), wanted))
    assert count == 0 if frames == 0 else (count - 1) / wanted <= (frames - 1) / fps + 1e-5 < count / wanted + 1e-4


def test_resampling_to_nonsense_is_refused():
    with pytest.raises(UsageError, match="positive"):
        resample(still(2), 0.0)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("LeftFoot", "RightFoot"),
        ("mixamorig:LeftFoot", "mixamorig:RightFoot"),
        ("foot.L", "foot.R"),
        ("Foot_L", "Foot_R"),
        ("lfoot", "rfoot"),
        ("LHipJoint", "RHipJoint"),
        ("Bip01 L Foot", "Bip01 R Foot"),
        ("J_Bip_L_Foot", "J_Bip_R_Foot"),
        ("left_foot", "right_foot"),
        ("LEFTFOOT", "RIGHTFOOT"),
    ],
)
def test_left_and_right_are_known_by_name(left, right):
    assert left_right_pairs(("Hips", left, "lowerback", right)) == ((1, 3),)


def body_of(names: str) -> list[str]:
    skeleton = named(*names.split())
    body = find_body(skeleton)
    pairs = [name for pair in body.facing for name in pair]
    return [skeleton.names[n] if isinstance(n, int) else n for n in (*pairs, *body.feet)]


@pytest.mark.parametrize(
    ("names", "left_parts"),
    [
        ("Hips LeftUpLeg RightUpLeg LeftLeg RightLeg LeftFoot RightFoot LeftToeBase RightToeBase "
         "LeftShoulder RightShoulder LeftArm RightArm LeftForeArm RightForeArm",
         "UpLeg Arm Foot ToeBase"),
        ("Hips LeftCollar RightCollar LeftShoulder RightShoulder LeftElbow RightElbow LeftHip RightHip "
         "LeftAnkle RightAnkle",
         "Hip Shoulder Ankle Ankle"),
        ("pelvis left_hip right_hip left_ankle right_ankle left_foot right_foot left_collar right_collar "
         "left_shoulder right_shoulder",
         "_hip _shoulder _ankle _foot"),
        ("pelvis thigh_l thigh_r foot_l foot_r ball_l ball_r clavicle_l clavicle_r upperarm_l upperarm_r "
         "lowerarm_l lowerarm_r",
         "thigh_ upperarm_ foot_ ball_"),
    ],
)  # fmt: skip
def test_hips_shoulders_ankles_and_toes_are_found_in_common_skeletons(names, left_parts):
    hip, shoulder, ankle, toe = left_parts.split()
    found = body_of(names)
    for name, part in zip(found, [hip, hip, shoulder, shoulder, ankle, toe, ankle, toe], strict=True):
        assert part in name and not any(more in name for more in ("Fore", "lower"))
    assert [name.lower().replace("_", "")[0] == "l" or name.endswith("_l") for name in found] == [
        True, False, True, False, True, True, False, False,
    ]  # fmt: skip


def test_hip_joints_put_into_the_root_are_passed_over():
    names = ("Hips", "LHipJoint", "LeftHip", "RHipJoint", "RightHip", "LeftFoot", "RightFoot")
    offsets = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0], [-1, 0, 0], [0, -1, 0], [0, -1, 0]], float)
    body = find_body(Skeleton(names, (-1, 0, 1, 0, 3, 2, 4), offsets))
    assert body.facing == ((2, 4),)


def test_a_body_without_hips_says_which_option_names_them():
    with pytest.raises(DataError, match=r"no hips or shoulders found among the joints .*--facing"):
        find_body(named("base", "tip"))


def test_a_body_without_feet_says_which_option_names_them():
    with pytest.raises(DataError, match=r"no feet found among the joints .*--feet"):
        find_body(named("Hips", "LeftHip", "RightHip"))


def test_joints_may_be_named_or_said_not_to_be():
    skeleton = named("base", "a", "b")
    assert find_body(skeleton, facing=["a", "b"], feet=[]) == Body(((1, 2),), ())
    assert find_body(skeleton, facing=[], feet=["a", "a", "b", "b"]) == Body((), (1, 1, 2, 2))
    with pytest.raises(UsageError, match="4 joints"):
        find_body(skeleton, facing=[], feet=["a"])
    with pytest.raises(UsageError, match="pairs"):
        find_body(skeleton, facing=["a"], feet=[])


OTHER_SIDE = [0, 5, 6, 7, 8, 1, 2, 3, 4, 9, 10, 13, 14, 11, 12]  # of BODY, by hand


@given(st.integers(0, 10_000))
def test_a_mirrored_symmetric_body_is_the_mirror_image(seed):
    motion = wild(3, seed)
    positions, _ = motion.forward()
    mirrored, _ = mirror(motion).forward()
    np.testing.assert_allclose(mirrored, positions[:, OTHER_SIDE] * [-1, 1, 1], atol=1e-6)


@given(st.integers(0, 10_000))
def test_mirroring_twice_gives_the_clip_back(seed):
    motion = wild(3, seed)
    twice = mirror(mirror(motion))
    np.testing.assert_allclose(twice.rotations, motion.rotations, atol=1e-5)
    np.testing.assert_allclose(twice.translations, motion.translations, atol=1e-6)


def test_a_body_at_rest_is_its_own_mirror_image():
    mirrored = mirror(still(2))
    np.testing.assert_allclose(mirrored.rotations, still(2).rotations, atol=1e-6)


def test_mirroring_works_where_an_exporter_turns_the_right_side_about():
    names = ("Hips", "Leg_L", "Foot_L", "Leg_R", "Foot_R", "Head")
    offsets = np.array([[0, 0, 0], [0, -1, 0], [3, 0, 0], [0, 1, 0], [-3, 0, 0], [2, 0, 0]], float)
    skeleton = Skeleton(names, (-1, 0, 1, 0, 3, 0), offsets)
    motion = wild(4, 1, skeleton)
    positions, _ = motion.forward()
    mirrored, _ = mirror(motion).forward()
    np.testing.assert_allclose(mirrored, positions[:, [0, 3, 4, 1, 2, 5]] * [-1, 1, 1], atol=1e-6)


def test_mirroring_without_any_pair_is_refused():
    skeleton = named("base", "tip")
    motion = SkeletonMotion(skeleton, with_offsets(skeleton.offsets, np.zeros((1, 3))), np.eye(3)[None, None], 30.0)
    with pytest.raises(DataError, match="no left-right pairs"):
        mirror(motion)
