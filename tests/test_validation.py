"""vqtool validate and vqtool stats."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Run, waves

from vqtool.store import create_motion


def save(path: str, layout: str = "raw", fps: float = 30, **clips: np.ndarray) -> Path:
    first = next(iter(clips.values()))
    with create_motion(Path(path), dim=first.shape[1], fps=fps, layout=layout) as writer:
        for name, frames in clips.items():
            writer.append(name, frames)
    return Path(path)


def moving(frames: int, seed: int = 0) -> np.ndarray:
    return waves(frames, 6, seed)[:, :5]


def test_good_motion_has_no_problems(run: Run) -> None:
    code, out, _ = run("validate", save("m.h5", a=moving(50)))
    assert code == 0 and out == "50 frames, no problems\n"


def test_each_problem_is_a_line_and_the_exit_code_65(run: Run) -> None:
    bad = moving(30)
    bad[7, 2] = np.inf
    path = save("m.h5", good=moving(40), empty=moving(0), short=moving(3), bad=bad)
    code, out, errors = run("validate", path)
    assert code == 65 and errors == ""
    assert out.splitlines() == [
        "m.h5 clip empty: is empty",
        "m.h5 clip short: has 3 frames, fewer than 8",
        "m.h5:frames clip bad frame 7: column 2 is inf; mend the file or leave the clip out",
    ]


def test_columns_that_never_move_are_listed(run: Run) -> None:
    assert "m.h5: 1 of 5 columns never moves: 4 (c4)" in run("validate", save("m.h5", a=waves(40)))[1]


@pytest.mark.parametrize("half", [180.0, np.pi])
def test_angles_that_wrap_are_found_in_raw_numbers(half: float, run: Run) -> None:
    frames = moving(200)
    frames[:, 1] = (np.arange(200) * 0.05 * half + half) % (2 * half) - half
    out = run("validate", save("m.h5", a=frames))[1]
    assert "clip a frame 20: " in out and "full turn in columns 1" in out


def test_a_root_that_teleports_is_found(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "m.h5")[0] == 0
    from vqtool.store import MotionSet

    with MotionSet([Path("m.h5")]) as motion:
        frames = motion.read(0)
    frames[20, 1] = 2.0  # metres in a thirtieth of a second
    assert "clip a frame 20: the root moves at 60 m/s" in run("validate", save("t.h5", "joints", a=frames))[1]


def test_damage_is_found_by_the_sha256(run: Run) -> None:
    path = save("m.h5", a=moving(50))
    with h5py.File(path, "r+") as file:
        file["frames"][3, 1] += 1
    code, out, _ = run("validate", path)
    assert code == 65 and "SHA-256" in out


def test_files_that_do_not_go_together_are_told(run: Run) -> None:
    code, out, _ = run("validate", save("a.h5", walk=moving(50)), save("b.h5", fps=60, walk=moving(60, 1)))
    assert code == 65
    assert "b.h5: clips of the same names are in a.h5: walk" in out
    assert "b.h5: has fps 60.0, but a.h5 has 30.0" in out


def test_problems_as_json(run: Run) -> None:
    code, out, _ = run("validate", save("m.h5", a=moving(2)), "--json")
    assert code == 65
    (problem,) = [one for one in json.loads(out)["problems"] if one["clip"]]
    assert problem["file"] == "m.h5" and problem["clip"] == "a" and "2 frames" in problem["what"]


def test_stats_count_clips_frames_minutes_and_lengths(run: Run) -> None:
    path = save("m.h5", fps=10, a=moving(0), b=moving(5), c=moving(7), d=moving(1188))
    found = json.loads(run("stats", path, "--json")[1])
    assert (found["clips"], found["frames"], found["minutes"]) == (4, 1200, 2.0)
    counted = {(one["from"], one["to"]): one["clips"] for one in found["lengths"]}
    assert (counted[0, 0], counted[4, 7], counted[1024, 2047], sum(counted.values())) == (1, 2, 1, 4)
    frames = np.concatenate([moving(5), moving(7), moving(1188)]).astype(np.float64)
    assert [one["mean"] for one in found["columns"]] == pytest.approx(frames.mean(0).tolist())
    out = run("stats", path)[1]
    assert "1,200 at 10 fps, 2.0 minutes" in out and "4-7" in out and "c3" in out


def test_stats_of_joints_have_a_line_for_each_group_or_column(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "m.h5")[0] == 0
    short, full = run("stats", "m.h5")[1], run("stats", "m.h5", "--columns")[1]
    assert "rotations" in short and "LeftFoot" not in short
    assert "LeftFoot.rotation.x0" in full


def test_stats_of_nothing_hold_no_nan(run: Run) -> None:
    path = save("m.h5", a=moving(0))
    json.loads(run("stats", path, "--json")[1], parse_constant=lambda text: pytest.fail(text))
    assert run("stats", path)[0] == 0
