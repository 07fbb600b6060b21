import io
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from motion_samples import BODY, TWO_JOINTS, real_clips, real_data, still, wild

from vqtool.errors import DataError, MissingInputError, UsageError
from vqtool.formats.bvh import read_bvh, write_bvh
from vqtool.skeleton import SkeletonMotion


@pytest.fixture
def read(tmp_path):
    """Reads a text, its units taken as metres and no frame dropped unless said otherwise."""

    def read(text: str | bytes, metres_per_unit: float | None = 1.0, drop: str = "no", up: str = "y") -> SkeletonMotion:
        path = tmp_path / "clip.bvh"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_bvh(path, metres_per_unit=metres_per_unit, drop_first_frame=drop, up=up)

    return read


def written(motion: SkeletonMotion) -> str:
    file = io.BytesIO()
    write_bvh(file, motion)
    return file.getvalue().decode()


def test_joints_and_positions_are_those_of_the_hand_calculation(read):
    motion = read(TWO_JOINTS)
    assert (motion.skeleton.names, motion.skeleton.parents, motion.fps) == (("Hips", "Head"), (-1, 0), 25.0)
    positions, _ = motion.forward()
    np.testing.assert_allclose(positions, [[[0, 90, 0], [0, 100, 0]], [[0, 90, 0], [-10, 90, 0]]], atol=1e-9)


def test_position_channels_replace_the_offset_in_every_joint(read):
    text = TWO_JOINTS.replace("CHANNELS 3 Zrotation", "CHANNELS 6 Xposition Yposition Zposition Zrotation")
    head, _, _ = text.partition("0 90 0")
    motion = read(head + "0 90 0 0 0 0 0 10 0 0 0 0\n0 91 0 0 0 0 0 10 0 0 0 0\n")
    np.testing.assert_allclose(motion.forward()[0][0, 1], [0, 100, 0])
    np.testing.assert_array_equal(motion.skeleton.offsets[1], [0, 10, 0])


def test_a_joint_that_is_always_elsewhere_than_its_offset_has_that_place_as_offset(read):
    text = TWO_JOINTS.replace("CHANNELS 3 Zrotation", "CHANNELS 4 Yposition Zrotation")
    head, _, _ = text.partition("0 90 0")
    motion = read(head + "0 90 0 0 0 0 12 0 0 0\n0 90 0 0 0 0 12 0 0 0\n")
    np.testing.assert_allclose(motion.skeleton.offsets[1], [0, 12, 0])
    assert motion.warnings == ()


def test_a_joint_that_moves_in_its_parent_is_followed_and_warned_of(read):
    text = TWO_JOINTS.replace("CHANNELS 3 Zrotation", "CHANNELS 4 Yposition Zrotation")
    head, _, _ = text.partition("0 90 0")
    motion = read(head + "0 90 0 0 0 0 12 0 0 0\n0 90 0 0 0 0 14 0 0 0\n")
    np.testing.assert_allclose(motion.forward()[0][:, 1, 1], [102, 104])
    np.testing.assert_array_equal(motion.skeleton.offsets[1], [0, 10, 0])
    assert motion.warnings == ("1 joint moves within its parent (Head; up to 20 % of the longest bone)",)


UNDER_A_ROOT = """\
HIERARCHY
ROOT joint_Root
{
OFFSET 0 0 0
CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
JOINT Hips
{
OFFSET 7 7 7
CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation
JOINT Head
{
OFFSET 0 1 0
CHANNELS 3 Zrotation Xrotation Yrotation
}
}
}
MOTION
Frames: 2
Frame Time: 0.1
"""


def test_the_root_is_the_topmost_joint_that_moves(read):
    rows = "0 0 0 0 0 0 1 2 3 0 0 0 0 0 0\n0 0 0 0 -0 0 2 2 3 0 0 0 0 0 0\n"
    motion = read(UNDER_A_ROOT + rows)
    assert motion.skeleton.names == ("Hips", "Head")
    np.testing.assert_allclose(motion.translations[:, 0], [[1, 2, 3], [2, 2, 3]])
    assert "the root is Hips: joint_Root above it never moves" in motion.notes


def test_a_joint_above_the_root_still_places_and_turns_it(read):
    motion = read(UNDER_A_ROOT + "10 0 0 90 0 0 1 2 3 0 0 0 0 0 0\n10 0 0 90 0 0 1 2 3 0 0 0 0 0 0\n")
    np.testing.assert_allclose(motion.forward()[0][0], [[8, 1, 3], [7, 1, 3]], atol=1e-12)


def test_a_joint_above_the_root_with_a_quaternion_is_written_as_not_turned(read):
    text = UNDER_A_ROOT.replace("6 Xposition Yposition Zposition Zrotation", "4 Wrotation Zrotation", 1)
    motion = read(text + "1 0 0 0 1 2 3 0 0 0 0 0 0\n1 0 0 0 2 2 3 0 0 0 0 0 0\n")
    np.testing.assert_allclose(read(written(motion)).forward()[0], motion.forward()[0], atol=1e-6)


def test_a_top_joint_that_moves_is_the_root(read):
    motion = read(UNDER_A_ROOT + "0 0 0 0 0 0 1 2 3 0 0 0 0 0 0\n5 0 0 0 0 0 1 2 3 0 0 0 0 0 0\n")
    assert motion.skeleton.names == ("joint_Root", "Hips", "Head")


def test_joints_above_the_root_are_written_back(read):
    motion = read(UNDER_A_ROOT + "10 0 0 90 0 0 1 2 3 0 0 0 0 0 0\n10 0 0 90 0 0 1 2 3 0 0 0 0 0 0\n")
    again = read(written(motion))
    assert written(motion).startswith(UNDER_A_ROOT.partition("MOTION")[0])
    np.testing.assert_allclose(again.forward()[0], motion.forward()[0], atol=1e-6)


def test_channels_may_come_in_any_order(read):
    text = TWO_JOINTS.replace(
        "Xposition Yposition Zposition Zrotation Xrotation Yrotation",
        "Yrotation Zposition Xrotation Yposition Zrotation Xposition",
    )
    head, _, _ = text.partition("0 90 0")
    motion = read(head + "90 3 90 2 0 1 0 0 0\n90 3 90 2 0 1 0 0 0\n")
    positions, turned = motion.forward()
    np.testing.assert_allclose(positions[0, 0], [1, 2, 3])
    np.testing.assert_allclose(turned[0, 0] @ [0, 1, 0], [1, 0, 0], atol=1e-12)  # Ry(90) @ Rx(90): y to z to x


def test_a_hinge_has_one_rotation_channel(read):
    text = TWO_JOINTS.replace("CHANNELS 3 Zrotation Xrotation Yrotation", "CHANNELS 1 Xrotation")
    head, _, _ = text.partition("0 90 0")
    motion = read(head + "0 90 0 0 0 0 90\n" * 2)
    np.testing.assert_allclose(motion.rotations[0, 1] @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(read(written(motion)).rotations, motion.rotations, atol=1e-6)


def test_quaternion_channels_are_read_and_written(read):
    text = TWO_JOINTS.replace(
        "CHANNELS 3 Zrotation Xrotation Yrotation", "CHANNELS 4 Wrotation Xrotation Yrotation Zrotation"
    )
    head, _, _ = text.partition("0 90 0")
    motion = read(head + "0 90 0 0 0 0 2 2 0 0\n" * 2)  # a quarter turn about x, not of length 1
    np.testing.assert_allclose(motion.rotations[0, 1] @ [0, 1, 0], [0, 0, 1], atol=1e-12)
    assert "0.707107 0.707107 0.000000 0.000000" in written(motion)


@pytest.mark.parametrize(
    "text",
    [
        TWO_JOINTS.replace("\n", "\r\n"),
        TWO_JOINTS.replace("\n", "\r"),
        TWO_JOINTS.replace("\n", "\r\n", 9),
        TWO_JOINTS.replace("  ", "\t").replace("Frames: ", "Frames:\t"),
        TWO_JOINTS.removesuffix("\n"),
        TWO_JOINTS + "\n\n  \n",
        TWO_JOINTS.replace("MOTION\n", "MOTION\n\n \n"),
        TWO_JOINTS.replace("0 90 0", "-0 9E1 +0.0e-5"),
        TWO_JOINTS.replace("ROOT Hips\n  {", "ROOT Hips {"),
        "\ufeff" + TWO_JOINTS,
        TWO_JOINTS.replace("    End Site\n    {\n      OFFSET 0 5 0\n    }\n", ""),
        TWO_JOINTS.replace("OFFSET 0 5 0", "OFFSET 0 0 0"),
        TWO_JOINTS.replace("rotation", "ROTATION").replace("Xposition", "xposition"),
    ],
    ids=["crlf", "cr", "mixed", "tabs", "no-newline", "blank-end", "blank-lines", "exponents", "brace", "bom",
         "no-end-site", "zero-end-site", "case"],
)  # fmt: skip
def test_awkward_spellings_read_like_the_plain_file(read, text):
    plain, motion = read(TWO_JOINTS), read(text)
    np.testing.assert_array_equal(motion.forward()[0], plain.forward()[0])
    assert (motion.fps, motion.skeleton.names, motion.warnings) == (plain.fps, plain.skeleton.names, ())


@pytest.mark.parametrize(
    "name", ["spine.001", "mixamorig:Hips", "left-arm", "Bip01 L Thigh", "頭", "{x", "MOTION", "End"]
)
def test_names_hold_any_characters(read, name):
    motion = read(TWO_JOINTS.replace("JOINT Head", f"JOINT {name}"))
    assert motion.skeleton.names[1] == name
    assert f"JOINT {name}\n" in written(motion)


def test_a_name_that_is_not_utf8_is_read(read):
    assert read(TWO_JOINTS.encode().replace(b"Head", b"T\xeate")).skeleton.names[1] == "Tête"


def test_the_rows_count_where_the_declared_frames_disagree(read):
    motion = read(TWO_JOINTS.replace("Frames: 2", "Frames: 99999999999"))
    assert len(motion) == 2
    assert motion.warnings == ("says 99,999,999,999 frames but has 2 rows; the rows count",)


def test_a_file_without_rows_is_a_clip_of_no_frames(read):
    motion = read(TWO_JOINTS.partition("0 90 0")[0].replace("Frames: 2", "Frames: 0"))
    assert len(motion) == 0
    assert motion.warnings == ()
    assert len(read(written(motion))) == 0


@pytest.mark.parametrize(
    ("printed", "fps"),
    [(".0083333", 120), ("0.033", 30), ("0.0333333", 30), ("0.041667", 24), ("0.04", 25), ("8.3333e-3", 120)],
)
def test_the_frame_rate_is_the_whole_number_that_was_printed_short(read, printed, fps):
    assert read(TWO_JOINTS.replace("0.04", printed)).fps == fps


def test_a_frame_rate_that_is_no_whole_number_stays(read):
    motion = read(TWO_JOINTS.replace("0.04", "0.0417083750417"))
    assert motion.fps == pytest.approx(23.976, abs=1e-4)
    assert "Frame Time: 0.0417083750417\n" in written(motion)


@pytest.mark.parametrize(
    ("scale", "unit"), [(1, "m"), (100, "cm"), (1000, "mm"), (39.37, "inch"), (17.7165, "CMU unit")]
)
def test_the_unit_is_guessed_from_the_height_and_said(read, scale, unit):
    rows = written(still(2)).partition("MOTION")[2]
    head = "\n".join(
        " ".join([line.split()[0], *(str(float(x) / 100 * scale) for x in line.split()[1:])])
        if line.strip().startswith("OFFSET")
        else line
        for line in written(still(2)).partition("MOTION")[0].split("\n")
    )
    motion = read(f"{head}MOTION{rows}", metres_per_unit=None)
    assert motion.skeleton.size() == pytest.approx(BODY.size(), rel=1e-3)
    assert any(note.startswith(f"units taken as {unit}") and "1.55 m tall" in note for note in motion.notes)


def test_a_set_unit_is_taken_without_a_word(read):
    motion = read(TWO_JOINTS, metres_per_unit=0.01)
    np.testing.assert_allclose(motion.forward()[0][0], [[0, 0.9, 0], [0, 1.0, 0]])
    assert motion.notes == ()


def test_z_up_becomes_y_up_and_is_written_back_as_it_was(read):
    text = TWO_JOINTS.replace("0 90 0", "5 6 90")
    motion = read(text, up="z")
    np.testing.assert_allclose(motion.forward()[0][0], [[5, 90, -6], [5, 90, -16]], atol=1e-9)
    np.testing.assert_allclose(read(written(motion), up="z").forward()[0], motion.forward()[0], atol=1e-6)


def test_a_body_that_stands_along_z_is_warned_of(read):
    motion = still(3)
    rotations = motion.rotations.copy()
    rotations[:, 0] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    lying = SkeletonMotion(BODY, motion.translations, rotations, 30.0)
    assert any("--up z" in warning for warning in read(written(lying)).warnings)
    assert read(written(motion)).warnings == ()


def moving(first: float, rows: int = 14) -> str:
    """A head that turns by a degree a frame, from `first` degrees in frame 0."""
    head, _, _ = TWO_JOINTS.partition("0 90 0")
    return head + "".join(f"0 90 0 0 0 0 {first if n == 0 else 100 + n} 0 0\n" for n in range(rows))


def test_a_t_pose_first_frame_is_found_dropped_and_told(read):
    motion = read(moving(0), drop="auto")
    assert len(motion) == 13
    assert motion.notes == ("T-pose dropped: 1 frame, 101 degrees from the next",)


def test_a_first_frame_that_belongs_to_the_motion_stays(read):
    assert len(read(moving(100), drop="auto")) == 14


def test_a_fast_clip_keeps_its_first_frame(read):
    head, _, _ = TWO_JOINTS.partition("0 90 0")
    assert len(read(head + "".join(f"0 90 0 0 0 0 {50 * n} 0 0\n" for n in range(9)), drop="auto")) == 9


def test_the_first_frame_is_kept_or_dropped_as_asked(read):
    assert len(read(moving(0), drop="no")) == 14
    motion = read(moving(100), drop="yes")
    assert (len(motion), motion.notes) == (13, ("frame 0 dropped, as asked",))


def test_several_frames_at_rest_before_a_jump_are_dropped(read):
    text = moving(0).replace("0 90 0 0 0 0 0 0 0\n", "0 90 0 0 0 0 0 0 0\n" * 3)
    assert len(read(text, drop="auto")) == 13


@given(seed=st.integers(0, 1000), frames=st.integers(0, 4))
def test_what_is_written_reads_back_within_a_hundredth_of_a_millimetre(tmp_path_factory, seed, frames):
    motion = wild(frames, seed)
    path = tmp_path_factory.mktemp("bvh") / "clip.bvh"
    path.write_text(written(motion))
    again = read_bvh(path, metres_per_unit=0.01, drop_first_frame="no")
    assert (again.skeleton.names, again.skeleton.parents, again.fps) == (BODY.names, BODY.parents, motion.fps)
    np.testing.assert_allclose(again.forward()[0], motion.forward()[0], atol=1e-5)


def test_the_original_hierarchy_is_written_back_letter_by_letter(read):
    text = TWO_JOINTS.replace("\n", "\r\n")
    assert written(read(text)).partition("MOTION")[0] == TWO_JOINTS.partition("MOTION")[0]


def test_a_skeleton_of_other_joints_is_not_written_into_a_hierarchy(read):
    motion = read(TWO_JOINTS)
    other = SkeletonMotion(
        type(motion.skeleton)(("a", "b"), (-1, 0), motion.skeleton.offsets, motion.skeleton.bvh),
        motion.translations,
        motion.rotations,
        25.0,
    )
    with pytest.raises(DataError, match="not those of its BVH hierarchy"):
        written(other)


BAD = {
    "empty": ("", "no MOTION"),
    "not a bvh": ("hello\nMOTION\n", "line 1|does not begin with HIERARCHY"),
    "cut in the hierarchy": (TWO_JOINTS[:150], "no MOTION"),
    "open braces": (TWO_JOINTS.replace("}\nMOTION", "MOTION"), "1 joint open"),
    "no motion": (TWO_JOINTS.partition("MOTION")[0], "no MOTION"),
    "no frame time": (TWO_JOINTS.replace("Frame Time: 0.04\n", ""), "line 18: 'Frame Time: ...' was expected"),
    "nan": (TWO_JOINTS.replace("0 90 0 90", "0 90 nan 90"), "line 20: 'nan' is not a number to use"),
    "infinite": (TWO_JOINTS.replace("0 90 0 90", "0 90 1e999 90"), "line 20: '1e999' is not a number to use"),
    "a huge number": (TWO_JOINTS.replace("0 90 0 90", "0 1e300 0 90"), "line 20: '1e300' is not a number to use"),
    "a word": (TWO_JOINTS.replace("0 90 0 90", "0 90 x 90"), "line 20: 'x' is not a number to use"),
    "an underscore": (TWO_JOINTS.replace("0 90 0 90", "0 9_0 0 90"), "line 20: '9_0' is not a number to use"),
    "a hash": (TWO_JOINTS.replace("0 90 0 90", "0 90 0 # 90"), "line 20: "),
    "cut in a row": (TWO_JOINTS[:-5], "line 20: has 7 numbers, but the channels need 9; was the file cut short?"),
    "a number too many": (TWO_JOINTS.replace("0 90 0 0", "0 90 0 0 0", 1), "line 19: has 10 numbers"),
    "all rows short": (TWO_JOINTS.replace("0 90 0", "90 0"), "line 19: has 8 numbers"),
    "offset not a number": (
        TWO_JOINTS.replace("OFFSET 0 10 0", "OFFSET 0 inf 0"),
        "line 8: 'inf' is not a number to use",
    ),
    "no offset": (TWO_JOINTS.replace("    OFFSET 0 10 0\n", ""), "joint 'Head' has no OFFSET"),
    "no channels": (
        "HIERARCHY\nROOT a\n{\nOFFSET 0 0 0\n}\nMOTION\nFrames: 1\nFrame Time: 1\n",
        "has no channels",
    ),
    "unknown channel": (TWO_JOINTS.replace("Xposition", "Wposition"), "line 5: no channel is called 'wposition'"),
    "channel twice": (TWO_JOINTS.replace("Xposition", "Yposition"), "line 5: channel 'yposition' appears twice"),
    "half a quaternion": (TWO_JOINTS.replace("3 Zrotation", "3 Wrotation"), "line 9: a quaternion needs"),
    "many channels": (TWO_JOINTS.replace("CHANNELS 6", "CHANNELS 99999999"), "line 5: '99999999' channels"),
    "two roots": (TWO_JOINTS.replace("}\nMOTION", "}\nROOT b\n{\n}\nMOTION"), "line 16: ROOT 'b' is out of place"),
    "joint in an end site": (TWO_JOINTS.replace("End Site", "End Site\n{\nJOINT x"), "line 12: JOINT 'x' is out"),
    "same name twice": (TWO_JOINTS.replace("JOINT Head", "JOINT Hips"), "line 6: joint name 'Hips' appears twice"),
    "negative frames": (TWO_JOINTS.replace("Frames: 2", "Frames: -2"), "line 17: '-2' frames"),
    "huge frames": (TWO_JOINTS.replace("Frames: 2", "Frames: " + "9" * 5000), "line 17: Frames '9+'... is too long"),
    "zero frame time": (TWO_JOINTS.replace("0.04", "0"), "line 18: a frame time of 0 s"),
    "an endless frame time": (
        TWO_JOINTS.replace("0.04", "4e-" + "0" * 5000 + "2"),
        "line 18: Frame Time '4e-0+'... is too long",
    ),
    "binary": (bytes(range(256)) * 10, "no MOTION"),
    "binary rows": (TWO_JOINTS.encode() + bytes(range(128, 256)), "line 21: "),
    "a NUL": (TWO_JOINTS.replace("0 90 0 90", "0 90 0\0 90"), "line 20: "),
}


@pytest.mark.parametrize(("text", "message"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_one_data_error_with_file_and_line(read, text, message):
    with pytest.raises(DataError, match=message) as caught:
        read(text)
    assert str(caught.value).count("\n") == 0
    assert "clip.bvh: " in str(caught.value)


def test_a_quaternion_of_zeros_is_refused(read):
    text = TWO_JOINTS.replace(
        "CHANNELS 3 Zrotation Xrotation Yrotation", "CHANNELS 4 Wrotation Xrotation Yrotation Zrotation"
    )
    with pytest.raises(DataError, match=r"row 2 .* quaternion of zeros"):
        read(text.partition("0 90 0")[0] + "0 90 0 0 0 0 1 0 0 0\n0 90 0 0 0 0 0 0 0 0\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("HIERARCHY\nROOT a\n{\n" + "JOINT b\n{\n" * 200_000 + "MOTION\n", "appears twice"),
        ("HIERARCHY\nROOT a\n{\n" + "".join(f"JOINT b{n}\n{{\n" for n in range(9000)) + "MOTION\n", "more than 4096"),
        (TWO_JOINTS.partition("0 90 0")[0] + "\n" * 6_000_000, "more than 5000000 frames"),
        ("HIERARCHY\nROOT " + " " * 3_000_000 + "x" + " " * 3_000_000 + "y\nMOTION\n", "was expected"),
        ("\n" * 9_000_000 + "MOTION\n", "HIERARCHY is larger"),
        (TWO_JOINTS.replace("Frames: 2", "Frames: " + " " * 5_000_000 + "x"), "frames; a number was expected"),
    ],
    ids=["depth", "joints", "rows", "spaces", "lines", "setting"],
)
def test_a_bomb_is_refused_at_once(read, text, message):
    start = time.perf_counter()
    with pytest.raises(DataError, match=message):
        read(text)
    assert time.perf_counter() - start < 5


@settings(max_examples=300)
@given(data=st.data())
def test_a_damaged_file_reads_or_is_a_data_error(tmp_path_factory, data):
    text = bytearray(TWO_JOINTS.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 8))
        text[at : at + cut] = data.draw(
            st.sampled_from([b"", b"{", b"}", b"\n", b"e9", b"-", b" 7 ", b"\xff", b"JOINT"])
        )
    path = tmp_path_factory.mktemp("bvh") / "clip.bvh"
    path.write_bytes(bytes(text))
    try:
        motion = read_bvh(path)
    except DataError:
        return
    assert np.isfinite(motion.forward()[0]).all()


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(MissingInputError, match=r"no\.bvh: no such file"):
        read_bvh(tmp_path / "no.bvh")


@pytest.mark.parametrize("wrong", [{"drop_first_frame": "maybe"}, {"up": "x"}, {"metres_per_unit": 0.0}])
def test_an_option_that_makes_no_sense_is_refused(tmp_path, wrong):
    with pytest.raises(UsageError):
        read_bvh(tmp_path / "no.bvh", **wrong)


# Joints, rows, frames a second, metres a unit, and where bvhio 1.5.4 has the last joint in a late frame.
ZOO = {
    "20tab_mocapbank_crlf.bvh": (19, 455, 30, 0.01, 454, (-49.630112, 10.709148, 231.579102)),
    "assimp_boxing_toes.bvh": (21, 3070, 100, 0.01, 3068, (45.856655, 1.351356, -5.943127)),
    "bvhio_example.bvh": (18, 2, 30, 0.0254, 1, (17.149368, 4.642423, 86.000168)),
    "cmu_3dsmax_131_01.bvh": (31, 994, 120, 0.05644, 993, (-7.888418, 24.333370, 13.789008)),
    "fairmotion_sinusoidal_no_endsite.bvh": (4, 120, 60, 0.05644, 119, (-8.000000, 12.454430, 2.376141)),
    "pybvh_full_precision_frame_time.bvh": (2, 3, 23.976, 0.05644, 2, (1.447214, 103.941772, 3.043321)),
    "pybvh_rotation_first_root.bvh": (4, 4, 25, 0.05644, 3, (16.083073, 45.354675, -17.209057)),
    "reactidle_003_genuine.bvh": (19, 918, 24, 1, 917, (-0.095533, -0.670952, -0.037820)),
}


@pytest.mark.parametrize("name", ZOO)
def test_a_file_of_the_zoo_agrees_with_an_independent_reader(name):
    joints, frames, fps, unit, late, last = ZOO[name]
    motion = read_bvh(real_data("bvh_zoo") / name, metres_per_unit=1.0, drop_first_frame="no")
    assert (len(motion.skeleton.names), len(motion), motion.fps) == (joints, frames, pytest.approx(fps))
    np.testing.assert_allclose(motion.forward()[0][late, -1] * unit, np.array(last) * unit, atol=1e-5)


def test_every_file_of_the_zoo_comes_back_within_a_hundredth_of_a_millimetre(tmp_path):
    for source in sorted(real_data("bvh_zoo").glob("*.bvh")):
        motion = read_bvh(source, drop_first_frame="no")
        path = Path(tmp_path / source.name)
        path.write_bytes(written(motion).encode())
        again = read_bvh(path, drop_first_frame="no")
        np.testing.assert_allclose(again.forward()[0], motion.forward()[0], atol=1e-5)
        assert again.skeleton.bvh == motion.skeleton.bvh


def test_bandais_body_is_not_doubled_and_its_root_is_hips(tmp_path):
    for path in real_clips("bandai2_train.tar.xz", tmp_path):
        motion = read_bvh(path)
        positions, _ = motion.forward()
        assert (motion.skeleton.names[0], len(motion.skeleton.names), motion.fps) == ("Hips", 21, 30.0)
        assert 1.0 < np.ptp(positions[0, :, 1]) < 1.5  # standing, to the head joint
        assert not any("T-pose" in note for note in motion.notes)


def test_cmus_t_poses_are_dropped_and_its_unit_is_known(tmp_path):
    for path in real_clips("cmu_98.tar.gz", tmp_path):
        motion = read_bvh(path)
        assert any(note.startswith("T-pose dropped") for note in motion.notes)
        assert (len(motion.skeleton.names), motion.fps) == (31, 120.0)
        assert 1.4 < motion.skeleton.size() < 1.8
