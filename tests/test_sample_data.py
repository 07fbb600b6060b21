"""The files in sample_data/: what they hold, their licences, and the script that makes them."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqtool.errors import DataError, MissingInputError
from vqtool.splits import SPLITS
from vqtool.store import MotionSet

FOLDER = Path(__file__).parent.parent / "sample_data"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
MAKE = runpy.run_path(str(FOLDER / "make_sample_data.py"))
QUATERNIONS = MAKE["QUATERNIONS"]


@pytest.fixture
def wrist() -> Iterator[MotionSet]:
    with MotionSet([FOLDER / "wrist_imu.h5"]) as motion:
        yield motion


@pytest.fixture
def humanoid() -> Iterator[MotionSet]:
    with MotionSet([FOLDER / "humanoid.h5"]) as motion:
        yield motion


def fields(motion: MotionSet) -> list[tuple[str, str, str]]:
    return [(label, subject, side) for label, subject, side in (name.split("_") for name in motion.names)]


def turn_about_z(degrees: float) -> np.ndarray:
    half = np.radians(degrees) / 2
    return np.array([[np.cos(half), 0.0, 0.0, np.sin(half)]])


def test_all_sample_data_are_under_5_mb() -> None:
    files = [file for file in FOLDER.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    assert sum(file.stat().st_size for file in files) < 5_000_000


@pytest.mark.parametrize("name", ["wrist_imu.h5", "humanoid.h5"])
def test_the_file_matches_its_sha256_and_holds_only_finite_numbers(name: str) -> None:
    with MotionSet([FOLDER / name]) as motion:
        motion.verify()
        assert sum(len(block) for clip in range(len(motion)) for block in motion.blocks(clip)) > 0


def test_wrist_motion_is_six_columns_at_50_fps(wrist: MotionSet) -> None:
    assert (len(wrist), int(wrist.lengths.sum()), wrist.dim, wrist.fps) == (105, 182_968, 6, 50.0)


def test_humanoid_motion_is_43_columns_at_30_fps(humanoid: MotionSet) -> None:
    assert (len(humanoid), int(humanoid.lengths.sum()), humanoid.dim, humanoid.fps) == (15, 1_019, 43, 30.0)


def test_a_wrist_at_rest_feels_about_1_g(wrist: MotionSet) -> None:
    frames = np.concatenate([wrist.read(clip) for clip in range(len(wrist))])
    still = np.linalg.norm(frames[:, 3:], axis=1) < 0.1
    assert np.median(np.linalg.norm(frames[still, :3], axis=1)) == pytest.approx(1.0, abs=0.05)


def test_every_exercise_of_every_subject_is_kept(wrist: MotionSet) -> None:
    labels, subjects, sides = (set(values) for values in zip(*fields(wrist), strict=True))
    assert labels == {"PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"}
    assert subjects == {f"s{number:02d}" for number in range(1, 11)}
    assert sides == {"left", "right"}
    assert len({(label, subject) for label, subject, _ in fields(wrist)}) == 70


def test_exercises_subjects_and_sides_are_balanced(wrist: MotionSet) -> None:
    for column in range(3):
        _, counts = np.unique([row[column] for row in fields(wrist)], return_counts=True)
        assert np.ptp(counts) <= 1


def test_no_subject_is_in_two_splits(wrist: MotionSet) -> None:
    rows = fields(wrist)
    subjects = [{rows[clip][1] for clip in wrist.select(split)} for split in SPLITS]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 10


@pytest.mark.parametrize(("split", "share"), [("train", 0.8), ("val", 0.1), ("test", 0.1)])
def test_each_split_has_its_share_and_every_exercise(wrist: MotionSet, split: str, share: float) -> None:
    clips = wrist.select(split)
    rows = fields(wrist)
    assert wrist.lengths[clips].sum() / wrist.lengths.sum() == pytest.approx(share, abs=0.02)
    assert len({rows[clip][0] for clip in clips}) == 7


def test_quaternions_have_norm_1(humanoid: MotionSet) -> None:
    frames = np.concatenate([humanoid.read(clip) for clip in range(len(humanoid))])
    for part in QUATERNIONS:
        np.testing.assert_allclose(np.linalg.norm(frames[:, part], axis=1), 1.0, atol=1e-6)


def test_no_quaternion_jumps_to_its_negative_within_a_clip(humanoid: MotionSet) -> None:
    for clip in range(len(humanoid)):
        frames = humanoid.read(clip)
        for part in QUATERNIONS:
            assert frames[0, part][0] >= 0
            assert ((frames[1:, part] * frames[:-1, part]).sum(axis=1) > 0).all()


def test_walk_goes_forward_at_hip_height(humanoid: MotionSet) -> None:
    root = humanoid.read(humanoid.names.index("walk"))[:, :3]
    assert root[-1, 0] - root[0, 0] == pytest.approx(1.24, abs=0.01)  # metres along x
    assert 0.8 < root[:, 1].min() < root[:, 1].max() < 0.9


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("seglearn.txt", ("Copyright (c) 2018, David M. Burns", "Redistributions in binary form")),
        ("pybullet.txt", ("zlib license", "Altered source versions must be plainly marked")),
    ],
)
def test_the_licence_of_each_source_is_there(name: str, words: tuple[str, ...]) -> None:
    text = (FOLDER / "LICENSES" / name).read_text(encoding="utf-8")
    assert all(word in text for word in words)
    assert f"LICENSES/{name}" in README


@pytest.mark.parametrize("name", ["wrist_imu.h5", "humanoid.h5"])
def test_the_readme_states_the_numbers_of_the_file(name: str) -> None:
    with MotionSet([FOLDER / name]) as motion:
        (row,) = (line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[2:4] == [str(len(motion)), f"{motion.lengths.sum():,}"]
        assert cells[5:7] == [str(motion.dim), f"{motion.fps:g}"]


def test_the_readme_lists_the_columns_that_the_script_writes() -> None:
    start = 0
    for part, width in MAKE["PARTS"].items():
        columns = f"{start}-{start + width - 1}" if width > 1 else f"{start}"
        assert f"| {columns} | {part} |" in README
        start += width
    assert start == 43


def test_the_readme_gives_the_length_of_each_humanoid_clip(humanoid: MotionSet) -> None:
    text = " ".join(README.split())
    for name, length in zip(humanoid.names, humanoid.lengths, strict=True):
        assert f"{name} {length}," in text or f"{name} {length}." in text


def test_slerp_goes_half_of_a_quarter_turn() -> None:
    half = MAKE["slerp"](turn_about_z(0), turn_about_z(90), np.array([0.5]))
    np.testing.assert_allclose(half, turn_about_z(45), atol=1e-12)


def test_slerp_takes_the_shorter_arc() -> None:
    half = MAKE["slerp"](turn_about_z(0), -turn_about_z(90), np.array([0.5]))
    np.testing.assert_allclose(half, turn_about_z(45), atol=1e-12)


def test_slerp_between_equal_rotations_stays_there() -> None:
    same = MAKE["slerp"](turn_about_z(30), turn_about_z(30), np.array([0.3]))
    np.testing.assert_allclose(same, turn_about_z(30), atol=1e-12)


def test_sign_jumps_are_removed_and_the_rotations_stay() -> None:
    smooth = np.concatenate([turn_about_z(10 * step) for step in range(5)])
    signs = np.array([[-1], [1], [1], [-1], [-1]])
    np.testing.assert_array_equal(MAKE["without_jumps"](signs * smooth), smooth)


def test_rounded_durations_are_read_as_the_rate_that_was_meant() -> None:
    np.testing.assert_allclose(MAKE["frame_times"](np.array([0.016666, 0.016666, 0.0])), [0, 1 / 60, 2 / 60])
    np.testing.assert_allclose(MAKE["frame_times"](np.array([0.041667, 0.0])), [0, 1 / 24])


def test_a_duration_of_no_rate_stays_as_it_is() -> None:
    np.testing.assert_allclose(MAKE["frame_times"](np.array([0.032666, 0.0])), [0, 0.032666])


def humanoid_frames(count: int) -> np.ndarray:
    """Root along x at 1 unit a frame, everything about z at 2 degrees a frame."""
    frames = np.zeros((count, 43))
    frames[:, 0] = np.arange(count)
    for part in QUATERNIONS:
        frames[:, part] = np.concatenate([turn_about_z(2 * frame) for frame in range(count)])
    return frames


def test_60_hz_motion_keeps_every_second_frame() -> None:
    frames = humanoid_frames(8)
    np.testing.assert_allclose(MAKE["resample"](np.arange(8) / 60, frames, 30), frames[::2], atol=1e-12)


def test_15_hz_motion_gets_frames_half_way() -> None:
    result = MAKE["resample"](np.arange(3) / 15, humanoid_frames(3), 30)
    np.testing.assert_allclose(result[:, 0], [0, 0.5, 1, 1.5, 2])
    np.testing.assert_allclose(result[1, 3:7], turn_about_z(1)[0], atol=1e-12)


def write_both(folder: Path) -> tuple[bytes, bytes]:
    random = np.random.default_rng(0)
    watch: dict[str, Any] = {
        "X": [random.normal(size=(5 + index, 6)) for index in range(4)],
        "y": np.array([0, 0, 1, 1]),
        "subject": np.array([9, 10, 1, 1]),
        "side": np.array([0.0, 1.0, 0.0, 1.0]),
        "y_labels": ["PEN", "ABD"],
    }
    durations = np.full((4, 1), 0.016666)
    clip = {"Loop": "none", "Frames": np.concatenate([durations, humanoid_frames(4)], axis=1).tolist()}
    folder.mkdir()
    MAKE["write_wrist"](folder / "wrist.h5", watch)
    MAKE["write_humanoid"](folder / "humanoid.h5", {"walk": clip})
    return (folder / "wrist.h5").read_bytes(), (folder / "humanoid.h5").read_bytes()


def test_the_script_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    assert write_both(tmp_path / "once") == write_both(tmp_path / "again")


def test_the_script_sorts_and_names_wrist_clips_by_subject(tmp_path: Path) -> None:
    write_both(tmp_path / "made")
    with MotionSet([tmp_path / "made" / "wrist.h5"]) as motion:
        assert motion.names == ["ABD_s01_left", "ABD_s01_right", "PEN_s09_left", "PEN_s10_right"]
        assert motion.splits is not None
        assert motion.splits.tolist() == [0, 0, 1, 2]


def test_source_data_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.npy").write_bytes(b"not the file")
    with pytest.raises(DataError, match="not of the version"):
        MAKE["read_members"](tmp_path, ["data.npy"], "0" * 64)


def test_a_folder_without_the_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"not a wheel or folder with data\.npy"):
        MAKE["read_members"](tmp_path, ["data.npy"])
