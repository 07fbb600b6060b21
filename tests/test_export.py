"""vqtool export: decoded motion as other people's files, wherever the clips' names would lead."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Run, waves
from hypothesis import given
from hypothesis import strategies as st

from vqtool.exporting import safe_stems
from vqtool.formats.bvh import read_bvh
from vqtool.store import MotionSet, create_motion
from vqtool.tokens import TokenSet

SMALL = ["--model", "fsq", "--set", "model.width=16", "--set", "model.latent_dim=8"]  # no k-means


@pytest.fixture
def imported(run: Run, mocap: Path) -> Path:
    assert run("import", mocap, "-o", "m.h5", "--mirror")[0] == 0
    return Path("m.h5")


def test_decoded_tokens_become_bvh_of_the_same_bodies_at_the_same_place(run: Run, imported: Path, mocap: Path) -> None:
    assert run("train", imported, "-o", "run", "--steps", "5", "-q", *SMALL)[0] == 0
    assert run("encode", "run", imported, "-o", "t.h5", "-q")[0] == 0
    with TokenSet(Path("t.h5")) as tokens, MotionSet([imported]) as motion:
        tokens.verify()
        assert tokens.companions.to_arrays().keys() == motion.companions.to_arrays().keys()
    assert run("decode", "run", "t.h5", "-o", "out.h5", "-q")[0] == 0
    with MotionSet([Path("out.h5")]) as decoded, MotionSet([imported]) as motion:
        decoded.verify()
        for name, value in motion.companions.to_arrays().items():
            np.testing.assert_array_equal(decoded.companions.to_arrays()[name], value)
    assert run("export", "out.h5", "-o", "out", "--format", "bvh")[0] == 0
    before = read_bvh(mocap / "day0" / "walk.2.bvh")
    after = read_bvh(Path("out/day0/walk.2.bvh"), drop_first_frame="no")
    assert (after.skeleton.names, len(after), after.fps) == (before.skeleton.names, len(before), before.fps)
    assert after.skeleton.bvh.hierarchy.split() == before.skeleton.bvh.hierarchy.split()
    np.testing.assert_allclose(after.translations[0, 0, ::2], before.translations[0, 0, ::2], atol=1e-4)


def test_what_a_model_wrote_becomes_bvh_by_what_the_refusal_of_it_without_a_skeleton_advises(
    run: Run, imported: Path
) -> None:
    assert run("train", imported, "-o", "run", "--steps", "1", "-q", *SMALL)[0] == 0
    assert run("encode", "run", imported, "-o", "t.h5", "-q")[0] == 0
    assert run("export", "t.h5", "-o", "t.jsonl", "--format", "text", "-q")[0] == 0
    Path("lm.txt").write_text(json.loads(Path("t.jsonl").read_text().splitlines()[0])["text"] + "\n")
    assert run("decode", "run", "lm.txt", "-o", "out.h5", "-q")[0] == 0
    code, _, errors = run("export", "out.h5", "-o", "out", "--format", "bvh")
    assert code == 2 and "out.h5: carries no skeleton, which BVH needs; decode or import what a model wrote" in errors
    assert "with --like TOKENS (a tokens.h5 of the run), sample with --like MOTION\n" in errors
    assert run("decode", "run", "lm.txt", "--like", "t.h5", "-o", "decoded.h5", "-q")[0] == 0
    assert run("import", "lm.txt", "--like", "t.h5", "-o", "lm.h5", "-q")[0] == 0
    assert run("decode", "run", "lm.h5", "-o", "imported.h5", "-q")[0] == 0
    for motion in ("decoded", "imported"):
        assert run("export", f"{motion}.h5", "-o", motion, "--format", "bvh")[0] == 0
        assert len(list(Path(motion).rglob("*.bvh"))) == 1


def test_selected_clips_keep_what_is_theirs(imported: Path) -> None:
    with MotionSet([imported]) as motion:
        names, along = motion.names, motion.companions
        chosen = [names.index("day1/walk.3_mirrored"), names.index("day1/walk.3"), names.index("day0/walk.0_mirrored")]
        some = along.select(chosen)
        assert some.mirror_of is not None and some.starts is not None and along.starts is not None
        assert some.mirror_of.tolist() == [1, -1, 2]  # the last one's original was left behind
        np.testing.assert_array_equal(some.starts, along.starts[chosen])


def test_export_json_lists_every_clip_and_its_file(run: Run, imported: Path) -> None:
    assert run("export", imported, "-o", "out", "--format", "npy", "--split", "train")[0] == 0
    listed = json.loads(Path("out/export.json").read_text())
    with MotionSet([imported]) as motion:
        chosen = motion.select("train")
        assert [clip["name"] for clip in listed["clips"]] == [motion.names[clip] for clip in chosen]
        for clip, entry in zip(chosen, listed["clips"], strict=True):
            np.testing.assert_array_equal(np.load(f"out/{entry['file']}.npy"), motion.read(clip))


@pytest.mark.parametrize("format", ["csv", "npy"])
def test_arrays_come_back_bit_for_bit(format: str, run: Run, imported: Path) -> None:
    assert run("export", imported, "-o", "out", "--format", format)[0] == 0
    assert run("import", "out", "-o", "again.h5", "--fps", "30")[0] == 0
    with MotionSet([imported]) as motion, MotionSet([Path("again.h5")]) as again:
        for name in again.names:
            np.testing.assert_array_equal(again.read(again.names.index(name)), motion.read(motion.names.index(name)))
        assert len(again) == len(motion)


def test_csv_names_its_columns_by_joint(run: Run, imported: Path) -> None:
    assert run("export", imported, "-o", "out", "--format", "csv")[0] == 0
    header = Path("out/day0/walk.0.csv").read_text().splitlines()[0].split(",")
    assert header[:5] == ["time", "root.turn", "root.velocity.x", "root.velocity.z", "root.height"]
    assert "LeftFoot.position.y" in header and len(header) == len(set(header)) == 180


def test_robomimic_holds_clips_as_actions_with_masks(run: Run, imported: Path) -> None:
    assert run("export", imported, "-o", "out.hdf5", "--format", "robomimic")[0] == 0
    with h5py.File("out.hdf5") as file, MotionSet([imported]) as motion:
        assert len(file["data"]) == len(motion)
        np.testing.assert_array_equal(file["data/demo_3/actions"][:], motion.read(3))
        assert file["data/demo_3"].attrs["name"] == motion.names[3]
        assert int(file["data"].attrs["total"]) == int(motion.lengths.sum())
        assert len(file["mask/train"]) == len(motion.select("train"))
    assert run("import", "out.hdf5", "-o", "again.h5")[0] == 0


def test_an_output_in_use_is_left_alone(run: Run, imported: Path) -> None:
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("precious")
    for force in ([], ["--force"]):
        code, _, errors = run("export", imported, "-o", "mine", "--format", "npy", *force)
        assert code == 73 and "no vqtool export made" in errors
    assert Path("mine/thesis.txt").read_text() == "precious"
    assert run("export", imported, "-o", "out", "--format", "npy")[0] == 0
    assert run("export", imported, "-o", "out", "--format", "csv")[0] == 73
    assert run("export", imported, "-o", "out", "--format", "csv", "--force")[0] == 0
    assert not list(Path("out").rglob("*.npy"))


def test_a_failed_export_leaves_nothing(run: Run, tmp_path: Path) -> None:
    with create_motion(tmp_path / "bad.h5", dim=5, fps=30) as writer:
        writer.append("good", waves(40))
        writer.append("bad", np.full((3, 5), np.nan, np.float32))
    assert run("export", "bad.h5", "-o", "out", "--format", "npy")[0] == 65
    assert [path.name for path in tmp_path.iterdir()] == ["bad.h5"]


@pytest.mark.parametrize("format", ["bvh", "humanml3d"])
def test_what_a_layout_cannot_give_is_refused(format: str, run: Run, motion_path: Path) -> None:
    code, _, errors = run("export", motion_path, "-o", "out", "--format", format)
    assert code == 2 and "layout raw" in errors
    assert not Path("out").exists()


def test_names_that_would_escape_stay_inside(run: Run, tmp_path: Path) -> None:
    names = ["../../escape", "/etc/passwd", "a/./b", "A/./B", "c:\\d", "..", "x" * 300, "\x1b[2J", "con.bvh/deep"]
    (tmp_path / "deep").mkdir()
    with create_motion(tmp_path / "deep" / "m.h5", dim=5, fps=30) as writer:
        for name in names:
            writer.append(name, waves(4))
    assert run("export", "deep/m.h5", "-o", "deep/out", "--format", "npy")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"m.h5", "out"}
    assert len(list((tmp_path / "deep" / "out").rglob("*.npy"))) == len(names)


@given(st.lists(st.text(min_size=1, max_size=20), unique=True, max_size=20))
def test_stems_are_different_relative_and_plain_whatever_the_names(names: list[str]) -> None:
    stems = safe_stems(names)
    assert len({stem.casefold() for stem in stems}) == len(names)
    files = {f"{stem}.npy".casefold() for stem in stems}
    for stem in stems:
        assert stem and not Path(stem).is_absolute() and stem.isprintable()
        assert not {"", ".", ".."} & set(stem.split("/"))
        assert not {str(parent).casefold() for parent in Path(stem).parents} & files
