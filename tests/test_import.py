"""vqtool import: every format in, one motion.h5 out; what is kept, what is refused, and under which names."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from motion_samples import BODY, TWO_JOINTS, real_clips, real_data, smooth, wild, write
from worker_tasks import Backwards, Dangerous

from vqtool import signals
from vqtool.body import find_body
from vqtool.errors import InterruptedRun, StorageError
from vqtool.features import joint_features, recover, recover_positions
from vqtool.formats import FORMATS
from vqtool.formats.bvh import read_bvh
from vqtool.formats.humanml3d import block_means
from vqtool.importing import ImportOptions, import_motion
from vqtool.rotations import vector_to_matrix
from vqtool.signals import StopRequest
from vqtool.skeleton import Skeleton, SkeletonMotion, resample, with_offsets
from vqtool.splits import hashed_splits
from vqtool.store import MotionSet
from vqtool.workers import Processes


def opened(path: str = "m.h5") -> MotionSet:
    motion = MotionSet([Path(path)])
    motion.verify()
    return motion


def test_a_folder_of_bvh_becomes_joint_features_under_sorted_names(run: Run, mocap: Path) -> None:
    code, out, _ = run("import", mocap, "-o", "m.h5")
    assert code == 0
    assert "5 clips" in out and "layout joints" in out
    with opened() as motion:
        assert motion.names == ["day0/walk.0", "day0/walk.2", "day0/walk.4", "day1/walk.1", "day1/walk.3"]
        assert (motion.dim, motion.fps, motion.layout) == (179, 30.0, "joints")
        clip = read_bvh(mocap / "day0" / "walk.2.bvh")
        expected = joint_features(clip, find_body(clip.skeleton)).astype(np.float32)
        np.testing.assert_array_equal(motion.read(1), expected)


def test_features_and_start_give_the_positions_of_the_file(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "m.h5")[0] == 0
    with opened() as motion:
        expected, _ = read_bvh(mocap / "day1" / "walk.3.bvh").forward()
        found = recover_positions(motion.read(4), motion.companions.start(4))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_same_import_gives_the_same_bytes(run: Run, mocap: Path) -> None:
    for name in ("a.h5", "b.h5"):
        assert run("import", mocap, "-o", name)[0] == 0
    assert Path("a.h5").read_bytes() == Path("b.h5").read_bytes()


def test_globs_and_lists_name_the_same_clips(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "a.h5")[0] == 0
    assert run("import", f"{mocap}/**/*.bvh", "-o", "b.h5")[0] == 0
    Path("list.txt").write_text("# all of it\nmocap/day1\n\nmocap/day0\n")
    assert run("import", "@list.txt", "-o", "c.h5")[0] == 0
    with opened("a.h5") as a, opened("b.h5") as b, opened("c.h5") as c:
        assert a.names == b.names == c.names


def test_resampling_is_by_slerp_to_the_rate_asked_for(run: Run, tmp_path: Path) -> None:
    clip = smooth(121, fps=60.0)
    write(tmp_path / "walk.bvh", clip)
    assert run("import", "walk.bvh", "-o", "m.h5", "--fps", "20")[0] == 0
    with opened() as motion:
        assert motion.fps == 20 and motion.names == ["walk"]
        expected, _ = resample(clip, 20).forward()
        np.testing.assert_allclose(recover_positions(motion.read(0), motion.companions.start(0)), expected, atol=1e-4)


def test_clips_of_another_rate_are_refused_with_the_option_that_helps(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.bvh", smooth(20, fps=60.0))
    write(tmp_path / "in" / "b.bvh", smooth(20, fps=30.0))
    code, _, errors = run("import", "in", "-o", "m.h5")
    assert code == 65
    assert "b.bvh" in errors and "--fps 30" in errors
    assert not Path("m.h5").exists()


def test_bodies_of_other_size_are_kept_apart(run: Run, tmp_path: Path) -> None:
    child = Skeleton(BODY.names, BODY.parents, BODY.offsets * [0.7, 0.8, 0.9])
    write(tmp_path / "in" / "adult.bvh", smooth(30))
    write(tmp_path / "in" / "child.bvh", smooth(30, 1, child))
    assert run("import", "in", "-o", "m.h5", "--units", "cm")[0] == 0
    with opened() as motion:
        assert len(motion.companions.bodies) == 2
        body = motion.companions.body(1)
        assert body is not None
        found, _ = recover(motion.read(1), body, 30, motion.companions.start(1)).forward()
    expected, _ = read_bvh(tmp_path / "in" / "child.bvh", metres_per_unit=0.01).forward()
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.fixture
def two_skeletons(tmp_path: Path) -> Path:
    write(tmp_path / "in" / "a.bvh", smooth(20))
    renamed = Skeleton((*BODY.names[:-1], "Claw"), BODY.parents, BODY.offsets)
    write(tmp_path / "in" / "b.bvh", smooth(20, 1, renamed))
    write(tmp_path / "in" / "c.bvh", smooth(20, 2))
    return tmp_path / "in"


def test_another_skeleton_is_refused_naming_what_differs(run: Run, two_skeletons: Path) -> None:
    code, _, errors = run("import", two_skeletons, "-o", "m.h5", "-q")
    assert code == 65
    assert "b.bvh" in errors and "lacks RightHand" in errors and "adds Claw" in errors
    assert errors.count("\n") == 1


def test_group_by_skeleton_gives_each_a_file(run: Run, two_skeletons: Path) -> None:
    assert run("import", two_skeletons, "-o", "m.h5", "--group-by-skeleton")[0] == 0
    with opened("m-1.h5") as first, opened("m-2.h5") as second:
        assert (first.names, second.names) == (["a", "c"], ["b"])
    assert not Path("m.h5").exists()


def test_a_bad_file_stops_the_import_with_its_name_or_is_skipped_and_listed(run: Run, mocap: Path) -> None:
    (mocap / "day0" / "cut.bvh").write_text(TWO_JOINTS[:200])
    code, _, errors = run("import", mocap, "-o", "m.h5")
    assert code == 65 and "cut.bvh" in errors and not Path("m.h5").exists()
    code, out, errors = run("import", mocap, "-o", "m.h5", "--on-error", "skip")
    assert code == 3 and "skipped: " in errors and "cut.bvh" in errors and "5 clips" in out


def test_mirrored_clips_are_known_and_fall_into_the_split_of_their_original(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "m.h5", "--mirror", "--split", "0.4,0.3,0.3")[0] == 0
    with opened() as motion:
        assert len(motion) == 10
        of = motion.companions.mirror_of
        assert of is not None and motion.splits is not None
        for clip, original in enumerate(of.tolist()):
            if original >= 0:
                assert motion.names[clip] == motion.names[original] + "_mirrored"
                assert motion.splits[clip] == motion.splits[original]
        assert (of >= 0).sum() == 5
        assert set(motion.splits.tolist()) == {0, 1, 2}


def test_the_held_out_clips_are_those_of_training_on_a_file_without_splits() -> None:
    names = [f"clip {n}" for n in range(400)]
    three, two = hashed_splits(names, 0.05, 0.1), hashed_splits(names, 0.05)
    np.testing.assert_array_equal(three == 1, two == 1)
    assert 25 < (three == 2).sum() < 60
    assert hashed_splits(["a"], 0.5, 0.4).tolist() == [0]
    assert sorted(hashed_splits(["a", "b", "c"], 0.01, 0.01)) == [0, 1, 2]


def test_statistics_of_all_frames_are_in_the_file(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "m.h5")[0] == 0
    with opened() as motion:
        frames = np.concatenate([motion.read(clip) for clip in range(5)]).astype(np.float64)
        np.testing.assert_allclose(motion.array("stats/mean"), frames.mean(0), atol=1e-6)
        np.testing.assert_allclose(motion.array("stats/std"), frames.std(0), atol=1e-6)
        assert motion.array("stats/count").tolist() == [len(frames)]


def test_flipped_bits_in_a_skeleton_are_refused(run: Run, mocap: Path) -> None:
    import h5py

    assert run("import", mocap, "-o", "m.h5")[0] == 0
    with h5py.File("m.h5", "r+") as file:
        file["skeleton/offsets"][0, 3, 1] += 0.01
    with pytest.raises(Exception, match="SHA-256"):
        opened()


def test_positions_and_raw_channels_can_be_had_instead(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "p.h5", "--layout", "positions")[0] == 0
    assert run("import", mocap, "-o", "r.h5", "--layout", "raw")[0] == 0
    clip = read_bvh(mocap / "day0" / "walk.0.bvh")
    with opened("p.h5") as positions, opened("r.h5") as raw:
        np.testing.assert_allclose(positions.read(0).reshape(40, 15, 3), clip.forward()[0], atol=1e-6)
        assert (raw.layout, raw.dim) == ("raw", 48)


# HumanML3D


def vectors(frames: int, seed: int, dim: int = 263) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(frames, dim)) * np.linspace(0.1, 3, dim)).astype(np.float32)


@pytest.fixture
def humanml(tmp_path: Path) -> Path:
    folder = tmp_path / "HumanML3D"
    for name in ("new_joint_vecs", "texts"):
        (folder / name).mkdir(parents=True)
    clips = {name: vectors(30 + n, n) for n, name in enumerate(("000000", "000001", "M000000", "M000001", "000002"))}
    clips["000002"] = clips["000002"].astype(np.float64)
    for name, frames in clips.items():
        np.save(folder / "new_joint_vecs" / f"{name}.npy", frames)
    (folder / "texts" / "000000.txt").write_text(
        "a man walks.#a/DET man/NOUN walk/VERB#0.0#0.0\nhe stops#he/PRON stop/VERB#0.5#1.25\n"
    )
    (folder / "train.txt").write_text("000000\nM000000\n")
    (folder / "val.txt").write_text("000002\n")
    (folder / "test.txt").write_text("000001\nM000001\n")
    frames = np.concatenate([clip.astype(np.float64) for clip in clips.values()])
    np.save(folder / "Mean.npy", frames.mean(0).astype(np.float32))
    np.save(folder / "Std.npy", block_means(frames.std(0), "humanml3d").astype(np.float32))
    return folder


def test_humanml3d_comes_with_splits_captions_and_mirror_images(run: Run, humanml: Path) -> None:
    assert run("import", humanml, "-o", "m.h5")[0] == 0
    with opened() as motion:
        assert motion.names == ["000000", "000001", "000002", "M000000", "M000001"]
        assert (motion.layout, motion.fps, motion.dim) == ("humanml3d", 20.0, 263)
        assert motion.splits is not None and motion.splits.tolist() == [0, 2, 1, 0, 2]
        assert motion.companions.mirror_of is not None
        assert motion.companions.mirror_of.tolist() == [-1, -1, -1, 0, 1]
        first, second = motion.companions.captions
        assert (first.clip, first.text, first.start_s, first.end_s) == (0, "a man walks.", 0.0, 0.0)
        assert (second.text, second.start_s, second.end_s) == ("he stops", 0.5, 1.25)
        assert second.words == "he/PRON stop/VERB"
        assert motion.attribute("source_stats_convention") == "plain"


def test_std_divided_by_25_is_recognised(run: Run, humanml: Path) -> None:
    std = np.load(humanml / "Std.npy")
    std[np.r_[0:4, 259:263]] /= 25
    np.save(humanml / "Std.npy", std)
    assert run("import", humanml, "-o", "m.h5")[0] == 0
    with opened() as motion:
        assert motion.attribute("source_stats_convention") == "divided by 25"


def test_humanml3d_float32_comes_back_bit_for_bit(run: Run, humanml: Path) -> None:
    assert run("import", humanml, "-o", "m.h5")[0] == 0
    assert run("export", "m.h5", "-o", "out", "--format", "humanml3d")[0] == 0
    for name in ("new_joint_vecs/000000.npy", "new_joint_vecs/M000001.npy", "Mean.npy", "Std.npy", "texts/000000.txt"):
        assert (Path("out") / name).read_bytes() == (humanml / name).read_bytes(), name
    assert Path("out/test.txt").read_text() == "000001\nM000001\n"
    assert np.load("out/new_joint_vecs/000002.npy").dtype == np.float32


def test_kit_ml_has_251_columns_at_12_5_frames_a_second(run: Run, tmp_path: Path) -> None:
    (tmp_path / "kit" / "new_joint_vecs").mkdir(parents=True)
    np.save(tmp_path / "kit" / "new_joint_vecs" / "00001.npy", vectors(20, 0, 251))
    assert run("import", "kit", "-o", "m.h5")[0] == 0
    with opened() as motion:
        assert (motion.layout, motion.fps) == ("kit", 12.5)


def published_recover_from_ric(data: np.ndarray, joints: int) -> np.ndarray:
    """Positions as https://github.com/EricGuo5513/HumanML3D computes them, by quaternions; written anew."""

    def rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
        w, axis = quaternion[..., :1], quaternion[..., 1:]
        t = 2 * np.cross(axis, vector)
        return vector + w * t + np.cross(axis, t)

    half = np.concatenate([[0.0], np.cumsum(data[:-1, 0])])
    inverse = np.stack([np.cos(half), 0 * half, -np.sin(half), 0 * half], axis=1)  # conj of (cos, 0, sin, 0)
    step = np.zeros((len(data), 3))
    step[1:, [0, 2]] = data[:-1, 1:3]
    root = np.cumsum(rotate(inverse, step), axis=0)
    root[:, 1] = data[:, 3]
    local = data[:, 4 : 4 + 3 * (joints - 1)].reshape(len(data), joints - 1, 3)
    others = rotate(np.repeat(inverse[:, None], joints - 1, axis=1), local)
    others[..., [0, 2]] += root[:, None, [0, 2]]
    return np.concatenate([root[:, None], others], axis=1)


@pytest.mark.parametrize(("dim", "joints"), [(263, 22), (251, 21)])
def test_recovered_positions_are_those_of_the_published_computation(dim: int, joints: int) -> None:
    frames = vectors(60, 3, dim).astype(np.float64)
    np.testing.assert_allclose(recover_positions(frames), published_recover_from_ric(frames, joints), atol=1e-9)


# AMASS


def smpl_rest() -> Skeleton:
    from vqtool.formats.amass import _PARENTS

    names = tuple(_PARENTS)
    parents = tuple(names.index(parent) if parent else -1 for parent in _PARENTS.values())
    return Skeleton(names, parents, np.random.default_rng(0).normal(0, 0.2, (22, 3)))


def save_amass(path: Path, width: int, frames: int = 12, fps: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(width)
    poses, trans = rng.normal(0, 0.5, (frames, width)), rng.normal(0, 1, (frames, 3))
    np.savez(path, poses=poses, trans=trans, mocap_framerate=fps, gender="male", betas=np.zeros(16))
    return poses, trans


@pytest.mark.parametrize("width", [72, 156, 165])
def test_amass_poses_turn_the_joints_of_the_rest_skeleton_with_y_up(width: int, run: Run, tmp_path: Path) -> None:
    rest = smpl_rest()
    still = SkeletonMotion(rest, with_offsets(rest.offsets, np.zeros((1, 3))), np.tile(np.eye(3), (1, 22, 1, 1)), 30)
    write(tmp_path / "rest.bvh", still)
    poses, trans = save_amass(tmp_path / "walk_poses.npz", width)
    words = ["--skeleton", "rest.bvh", "--units", "cm", "--layout", "positions"]
    assert run("import", "walk_poses.npz", "-o", "m.h5", *words)[0] == 0
    # By hand: the chain of rotations in AMASS's own frame, then (x, y, z) to (x, z, -y).
    turns = vector_to_matrix(poses.reshape(12, -1, 3)[:, :22])
    world, places = [turns[:, 0]], [trans + rest.offsets[0]]  # the root's OFFSET is its place in the model
    for joint in range(1, 22):
        parent = rest.parents[joint]
        places.append(places[parent] + world[parent] @ rest.offsets[joint])
        world.append(world[parent] @ turns[:, joint])
    expected = np.stack(places, axis=1)[..., [0, 2, 1]] * [1, 1, -1]
    with opened() as motion:
        assert motion.fps == 60 and motion.names == ["walk_poses"]
        order = [rest.names.index(name) for name in motion.companions.bodies[0].names]
        np.testing.assert_allclose(motion.read(0).reshape(12, 22, 3), expected[:, order], atol=1e-4)


def test_amass_without_a_skeleton_says_how_to_give_one(run: Run, tmp_path: Path) -> None:
    save_amass(tmp_path / "walk.npz", 156)
    code, _, errors = run("import", "walk.npz", "-o", "m.h5")
    assert code == 2 and "--skeleton rest.bvh" in errors
    assert run("import", "walk.npz", "-o", "m.h5", "--layout", "raw")[0] == 0
    with opened() as motion:
        assert motion.dim == 159


# Arrays, CSV, HDF5, LeRobot


def test_npy_files_of_numbers_and_of_positions(run: Run, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).normal(size=(20, 4, 3))
    np.save(tmp_path / "a.npy", frames)
    np.save(tmp_path / "b.npy", frames.reshape(20, 12))
    assert run("import", "a.npy", "-o", "a.h5", "--fps", "25")[0] == 0
    assert run("import", "b.npy", "-o", "b.h5", "--fps", "25")[0] == 0
    with opened("a.h5") as a, opened("b.h5") as b:
        assert (a.layout, b.layout) == ("positions", "raw")
        np.testing.assert_array_equal(a.read(0), b.read(0))
        np.testing.assert_array_equal(a.read(0), frames.reshape(20, 12).astype(np.float32))


def test_an_npz_holds_a_clip_in_each_array_and_may_say_its_rate(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", one=np.ones((5, 3)), two=np.zeros((6, 3)), fps=50)
    assert run("import", "x.npz", "-o", "m.h5")[0] == 0
    with opened() as motion:
        assert (motion.names, motion.fps) == (["x/one", "x/two"], 50.0)


def test_a_missing_rate_is_asked_for(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((5, 3)))
    code, _, errors = run("import", "a.npy", "-o", "m.h5")
    assert code == 2 and "--fps" in errors


def test_pickles_are_refused(run: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    code, _, errors = run("import", "a.npy", "-o", "m.h5", "--fps", "30")
    assert code == 65 and "a.npy" in errors


@pytest.mark.slow  # test_fuzz reads some as well
@pytest.mark.parametrize("name", ["a.npy", "b.npz", "c.npz", "d.csv", "e.hdf5"])
def test_a_damaged_file_is_read_or_is_one_clear_line(name: str, run: Run, tmp_path: Path) -> None:
    import h5py

    rng = np.random.default_rng(0)
    np.save("a.npy", rng.normal(size=(20, 3)))
    np.savez("b.npz", x=rng.normal(size=(20, 3)), fps=30.0)
    np.savez_compressed("c.npz", poses=rng.normal(size=(5, 72)), trans=rng.normal(size=(5, 3)), mocap_framerate=30.0)
    Path("d.csv").write_text("time,x,y\n0,1,2\n0.1,2,3\n0.2,2,4\n")
    with h5py.File("e.hdf5", "w") as file:
        file["data/demo_0/actions"] = np.ones((9, 4))
    good = Path(name).read_bytes()
    for _ in range(60):
        data = bytearray(good)
        for place in rng.integers(0, min(len(data), 400), 3):
            data[place] = rng.integers(256)
        Path(name).write_bytes(data[: rng.integers(len(data) // 2, 2 * len(data))])
        code, _, errors = run("import", name, "-o", "m.h5", "--fps", "10", "--layout", "raw", "--force", "-q")
        assert code in (0, 2, 65) and errors.count("\n") == (code != 0), errors


def test_nan_is_refused_with_its_frame(run: Run, tmp_path: Path) -> None:
    frames = np.ones((9, 3))
    frames[4, 1] = np.nan
    np.save(tmp_path / "a.npy", frames)
    code, _, errors = run("import", "a.npy", "-o", "m.h5", "--fps", "30")
    assert code == 65 and "a.npy frame 4: column 1 is nan" in errors


def test_csv_with_and_without_names_and_times(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,x,y\n0,1,2\n0.02,3,4\n0.04,5,6\n")
    (tmp_path / "b.csv").write_text("1;2\r\n3;4\r\n5;6\r\n")
    assert run("import", "a.csv", "b.csv", "-o", "m.h5", "--fps", "50")[0] == 0
    with opened() as motion:
        assert motion.fps == 50
        for clip in range(2):
            np.testing.assert_array_equal(motion.read(clip), [[1, 2], [3, 4], [5, 6]])


def test_a_crooked_csv_is_refused_with_its_line(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n3\n")
    code, _, errors = run("import", "a.csv", "-o", "m.h5", "--fps", "50")
    assert code == 65 and "a.csv: line 3" in errors


def test_robomimic_gives_its_actions(run: Run, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "demos.hdf5", "w") as file:
        for number in range(3):
            file[f"data/demo_{number}/actions"] = np.full((10, 7), number)
            file[f"data/demo_{number}/obs/eef"] = np.zeros((10, 3))
    assert run("import", "demos.hdf5", "-o", "m.h5", "--fps", "20")[0] == 0
    with opened() as motion:
        assert motion.names == [f"demos/data/demo_{number}/actions" for number in range(3)]
        assert motion.read(2)[0, 0] == 2


def test_our_own_files_are_refused(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "m.h5")[0] == 0
    code, _, errors = run("import", "m.h5", "-o", "n.h5")
    assert code == 65 and "already" in errors


def test_lerobot_episodes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "robot" / "meta").mkdir(parents=True)
    (tmp_path / "robot" / "data" / "chunk-000").mkdir(parents=True)
    (tmp_path / "robot" / "meta" / "info.json").write_text(json.dumps({"fps": 10}))
    file = tmp_path / "robot" / "data" / "chunk-000" / "file-000.parquet"
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        file.write_bytes(b"PAR1")
        code, _, errors = run("import", "robot", "-o", "m.h5")
        assert code == 2 and "pip install 'vqtool[parquet]'" in errors
        return
    rows = pa.array([[float(n), 2.0] for n in range(5)], type=pa.list_(pa.float32(), 2))
    parquet.write_table(pa.table({"action": rows, "episode_index": [0, 0, 0, 1, 1]}), file)
    assert run("import", "robot", "-o", "m.h5")[0] == 0
    with opened() as motion:
        assert (motion.names, motion.fps) == (["episode_000000", "episode_000001"], 10.0)
        np.testing.assert_array_equal(motion.read(1), [[3, 2], [4, 2]])


def test_several_formats_in_one_folder_are_to_be_chosen_from(run: Run, mocap: Path) -> None:
    (mocap / "labels.csv").write_text("1,2\n")
    code, _, errors = run("import", mocap, "-o", "m.h5")
    assert code == 2 and "5 bvh, 1 csv" in errors and "--format bvh" in errors
    assert run("import", mocap, "-o", "m.h5", "--format", "bvh")[0] == 0


@pytest.mark.parametrize(
    ("words", "code", "pattern"),
    [
        (["none"], 66, "no such file"),
        (["none/*.bvh"], 66, "matches no file"),
        (["@none.txt"], 66, "no such list"),
        (["mocap", "--format", "fbx"], 2, "there are auto, humanml3d"),
        (["mocap", "--layout", "polar"], 2, "--layout is one of"),
        (["mocap", "--layout", "kit"], 2, "--layout joints"),
        (["mocap", "--split", "0.9,0.2,0.1"], 2, "add up to 1"),
        (["mocap", "--facing", "LeftUpLeg,Nose"], 2, "no joint 'Nose'"),
        (["mocap", "--units", "furlong"], 2, "furlong"),
        (["mocap", "--on-error", "hope"], 2, "stop or skip"),
    ],
)
def test_a_mistake_is_one_clear_line(words: list[str], code: int, pattern: str, run: Run, mocap: Path) -> None:
    found, out, errors = run("import", *words, "-o", "m.h5")
    assert found == code and pattern in errors and errors.count("\n") == 1 and out == ""
    assert not Path("m.h5").exists()


def test_a_clip_of_any_pose_keeps_its_rotations(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "wild.bvh", wild(20, 5))
    assert run("import", "wild.bvh", "-o", "m.h5", "--drop-first-frame", "no", "--units", "cm")[0] == 0
    assert run("export", "m.h5", "-o", "out", "--format", "bvh")[0] == 0
    before, after = (
        read_bvh(tmp_path / "wild.bvh", drop_first_frame="no"),
        read_bvh(Path("out/wild.bvh"), drop_first_frame="no"),
    )
    np.testing.assert_allclose(after.forward()[0], before.forward()[0], atol=1e-4)


# Workers


def test_workers_of_which_one_is_killed_import_the_bytes_of_the_serial_run(mocap: Path, tmp_path: Path) -> None:
    options = ImportOptions(mirror=True)
    told: list[int] = []
    done = import_motion([str(mocap)], tmp_path / "one.h5", options)
    team = Dangerous("name", "day0/walk.2", tmp_path / "died")
    found = import_motion([str(mocap)], tmp_path / "two.h5", options, workers=team, progress=told.append)
    assert (tmp_path / "two.h5").read_bytes() == (tmp_path / "one.h5").read_bytes()
    assert (found.notes, found.warnings, sum(told)) == (done.notes, done.warnings, 5)
    assert team.said == ["a worker died (SIGKILL); another one makes clip day0/walk.2 again"]


def test_a_file_at_which_two_workers_die_is_named_or_left_out(mocap: Path, tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"walk.2.bvh: two workers died \(SIGKILL\) at clip day0/walk.2; .* fewer --w"
    ):
        import_motion([str(mocap)], tmp_path / "m.h5", ImportOptions(), workers=Dangerous("name", "day0/walk.2"))
    assert not (tmp_path / "m.h5").exists()
    skip = ImportOptions(on_error="skip")
    done = import_motion([str(mocap)], tmp_path / "m.h5", skip, workers=Dangerous("name", "day0/walk.2"))
    assert [line.partition(": ")[0] for line in done.skipped] == [str(mocap / "day0" / "walk.2.bvh")]
    (mocap / "day0" / "walk.2.bvh").unlink()
    import_motion([str(mocap)], tmp_path / "without.h5", ImportOptions())
    assert (tmp_path / "m.h5").read_bytes() == (tmp_path / "without.h5").read_bytes()


def test_a_signal_ends_an_import_by_workers_and_leaves_nothing(mocap: Path, tmp_path: Path) -> None:
    def stop(count: int) -> None:
        signals.check()
        signal.raise_signal(signal.SIGTERM)

    with StopRequest(), pytest.raises(InterruptedRun):
        import_motion([str(mocap)], tmp_path / "m.h5", ImportOptions(), workers=Processes(2), progress=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mocap"]


def spoilt(folder: Path) -> None:
    """Among good clips some that are refused, for a reason of their own or beside the first, and odd ones."""
    good = (folder / "day0" / "walk.0.bvh").read_text()
    (folder / "day0" / "a.bvh").write_text(good.replace("Frames: 40", "Frames: 39"))
    (folder / "day0" / "cut.bvh").write_text(TWO_JOINTS[:200])
    (folder / "day0" / "walk.1.bvh").write_text(TWO_JOINTS)
    (folder / "day1" / "nan.bvh").write_text(good.rstrip().rpartition(" ")[0] + " nan\n")
    (folder / "day1" / "other.bvh").write_text(good.replace("Frames: 40", "Frames: 41"))
    (folder / "zz.bvh").write_bytes(b"HIERARCHY\0")


@pytest.mark.parametrize(
    "options", [[], ["--on-error", "skip"], ["--on-error", "skip", "--pairs", "Head:Nose", "--mirror"]]
)
def test_workers_tell_and_refuse_what_the_serial_run_does_in_its_order(
    options: list[str], run: Run, mocap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqtool.workers.Processes", Backwards)
    spoilt(mocap)
    words = ["import", "mocap", "-o", "m.h5", "--json", *options]
    serial, shared = (run(*words, "--force", *more) for more in ([], ["--workers", 3]))
    assert (shared[0], shared[2]) == (serial[0], serial[2])
    assert shared[1].partition('"seconds"')[0] == serial[1].partition('"seconds"')[0]
    if options == ["--on-error", "skip"]:
        assert serial[0] == 3 and serial[2].count("skipped: ") > 2 and serial[2].count("warning: ") > 0


def test_a_source_that_cannot_be_listed_is_refused_after_those_before_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqtool.workers.Processes", Backwards)
    np.savez(tmp_path / "a.npz", x=np.full((5, 3), np.nan))
    np.savez(tmp_path / "b.npz", name=np.array(["nothing to read"]))
    words = ["import", "a.npz", "b.npz", "-o", "m.h5", "--fps", "30"]
    serial, shared = run(*words), run(*words, "--workers", 2)
    assert serial == shared and "a.npz:x frame 0: column 0 is nan" in serial[2]
    serial, shared = (run(*words, "--on-error", "skip", *more) for more in ([], ["--workers", 2]))
    assert serial == shared and serial[0] == 65


def make_sources(kind: str, folder: Path) -> list[str]:
    """Sources of a format, of three clips, in a folder that is not there yet; words for import."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    words = [str(folder), "--format", kind, "--fps", "30"]
    if kind == "bvh":
        for number in range(3):
            write(folder / f"{number}.bvh", smooth(20, number))
    elif kind == "humanml3d":
        (folder / "new_joint_vecs").mkdir()
        for number in range(3):
            np.save(folder / "new_joint_vecs" / f"{number}.npy", vectors(20, number))
        return words[:3]
    elif kind == "amass":
        for number in range(3):
            save_amass(folder / f"{number}.npz", 72 + 84 * (number > 0), fps=30.0)
        return [*words, "--layout", "raw", "--on-error", "skip"]
    elif kind == "npz":
        np.savez(folder / "a.npz", **{f"clip{number}": rng.normal(size=(9, 3)) for number in range(3)})
    elif kind == "npy":
        for number in range(3):
            np.save(folder / f"{number}.npy", rng.normal(size=(9, 7)))
    elif kind == "csv":
        for number in range(3):
            (folder / f"{number}.csv").write_text(f"time,x,y\n0,1,{number}\n0.1,2,3\n0.2,2,4\n")
    elif kind == "lerobot":
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        (folder / "meta").mkdir()
        (folder / "data").mkdir()
        (folder / "meta" / "info.json").write_text("{}")
        rows = pa.array(rng.normal(size=(9, 2)).tolist())
        parquet.write_table(
            pa.table({"action": rows, "episode_index": [0, 0, 1, 1, 1, 2, 2, 2, 2]}), folder / "data" / "a.parquet"
        )
    else:
        import h5py

        with h5py.File(folder / "a.hdf5", "w") as file:
            for number in range(3):
                file[f"data/demo_{number}/actions"] = rng.normal(size=(9, 3))
    return words


@pytest.mark.parametrize("kind", FORMATS)
def test_clips_of_every_format_can_be_read_by_workers(
    kind: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqtool.workers.Processes", Backwards)
    words = make_sources(kind, tmp_path / "in")
    codes = [run("import", *words, "-o", name, "-q", *more)[0] for name, *more in (["1.h5"], ["2.h5", "--workers", 3])]
    assert codes == ([3, 3] if kind == "amass" else [0, 0])
    assert Path("1.h5").read_bytes() == Path("2.h5").read_bytes()


# Real motion


def test_real_cmu_clips_come_back_as_bvh_within_a_hundredth_of_a_millimetre(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cmu").mkdir()
    files = real_clips("cmu_98.tar.gz", tmp_path / "cmu")
    assert run("import", "cmu", "-o", "m.h5", "--fps", "30")[0] == 0
    assert run("export", "m.h5", "-o", "out", "--format", "bvh")[0] == 0
    for file in files:
        before, _ = resample(read_bvh(file), 30).forward()
        after, _ = read_bvh(Path("out") / file.name, drop_first_frame="no").forward()
        np.testing.assert_allclose(after, before, atol=1e-5)


def test_the_zoo_of_awkward_files_is_read(run: Run) -> None:
    zoo = real_data("bvh_zoo")
    options = ["--layout", "positions", "--group-by-skeleton", "--fps", "30", "-q"]
    code, out, errors = run("import", zoo, "-o", "m.h5", *options)
    assert code == 0, errors
    assert out.count(" 1 clip ") == len(list(zoo.glob("*.bvh")))
