"""`vqtool play`: what is in the pictures, how the files are made, and what is refused."""

import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from motion_samples import BODY, smooth
from PIL import Image

from vqtool.body import find_body
from vqtool.cli import main
from vqtool.companions import Companions
from vqtool.features import features_and_start
from vqtool.pictures import COLOURS, Stage, make_panels, shown_frames
from vqtool.scene import Camera, Figure, Shot, frame_range
from vqtool.store import MotionSet, create_motion


def motion_file(path: Path, *, noise: float = 0.0, layout: str = "joints", fps: float = 30, clips: int = 2) -> Path:
    """Clips walk0 and walk1 of BODY, 60 frames each."""
    draws = np.random.default_rng(7)
    starts = []
    with create_motion(path, dim=12 * len(BODY.names) - 1, fps=fps, layout=layout) as writer:
        for number in range(clips):
            features, start = features_and_start(smooth(60, number), find_body(BODY))
            starts.append(start)
            writer.append(f"walk{number}", features + noise * draws.normal(size=features.shape))
        if layout == "joints":
            body_of = np.zeros(clips, dtype=np.int64)
            writer.companions = Companions(starts=np.array(starts), bodies=(BODY,), body_of=body_of)
    return path


def raw_file(path: Path, columns: int = 3) -> Path:
    with create_motion(path, dim=columns, fps=20) as writer:
        writer.append("curve", np.random.default_rng(0).normal(size=(30, columns)))
    return path


def figure(way: float = 0.0, frames: int = 40) -> Figure:
    """A pole of 1 m that goes along Z."""
    positions = np.zeros((frames, 2, 3))
    positions[:, 1, 1] = 1.0
    positions[:, :, 2] = np.linspace(0, way, frames)[:, None]
    return Figure(positions, (-1, 0), frozenset(), None)


def count(picture: Image.Image, colour: tuple[int, ...]) -> int:
    """Pixels of a colour."""
    return int((np.asarray(picture.convert("RGB")) == colour).all(axis=2).sum())


# what is seen


@pytest.mark.parametrize("follow", [True, False])
@pytest.mark.parametrize("turn", [0.0, 90.0, 200.0])
def test_every_joint_is_in_the_picture_in_every_frame(follow: bool, turn: float) -> None:
    walker = figure(4.0)
    camera = Camera([walker], 30, 400, 300, follow=follow, turn=turn)
    seen = np.concatenate([camera.project(pose, frame) for frame, pose in enumerate(walker.positions)])
    assert seen[:, 0].min() >= 0 and seen[:, 0].max() <= 400
    assert seen[:, 1].min() >= 0.1 * 300 and seen[:, 1].max() <= 0.9 * 300
    assert max(np.ptp(seen[:, 0]) / 400, np.ptp(seen[:, 1]) / 300) > 0.7  # and not small


def test_a_figure_goes_to_the_right_and_stands_upright() -> None:
    walker = figure(4.0)
    camera = Camera([walker], 30, 400, 300, follow=False)
    first, last = camera.project(walker.pose(0), 0), camera.project(walker.pose(39), 39)
    assert last[0, 0] > first[0, 0] + 100
    assert first[1, 1] < first[0, 1] - 50  # pixels count from the top


def test_a_long_path_is_followed_and_a_short_one_seen_whole() -> None:
    assert Camera([figure(4.0)], 30, 400, 300).follows
    assert not Camera([figure(0.5)], 30, 400, 300).follows


def test_original_and_decoded_stand_side_by_side_or_over_each_other(tmp_path: Path) -> None:
    one, other = motion_file(tmp_path / "m.h5"), motion_file(tmp_path / "d.h5", noise=0.02)
    blue, orange = COLOURS[0][0], COLOURS[1][0]
    with MotionSet([one]) as motion, MotionSet([other]) as decoded:
        beside = Stage(make_panels(motion, decoded, ["walk0"], ":", overlay=False, curves=False), 30, 120, 160)
        over = Stage(make_panels(motion, decoded, ["walk0"], ":", overlay=True, curves=False), 30, 120, 160)
    assert beside.size == (240, 160)
    left, right = beside.panel(0, 3), beside.panel(1, 3)
    assert count(left, blue) > 50 and count(left, orange) == 0
    assert count(right, orange) > 50 and count(right, blue) == 0
    assert over.size == (120, 160)
    assert count(over.panel(0, 3), blue) > 0 and count(over.panel(0, 3), orange) > 50  # which lies above


@pytest.mark.parametrize("way", [0.5, 4.0])
def test_what_is_beside_it_is_seen_in_the_same_view(way: float) -> None:
    camera = Camera([figure(way)], 30, 400, 300, beside=[figure(0.8 * way)])
    other = camera.of(figure(0.8 * way), 30)
    assert other.pixels_a_body == camera.pixels_a_body
    seen = camera.project(figure(way).pose(20), 20), other.project(figure(0.8 * way).pose(20), 20)
    assert seen[0][:, 1] == pytest.approx(seen[1][:, 1], abs=8)  # as high in the picture
    assert (abs(seen[0][0, 0] - seen[1][0, 0]) < 2) == (way > 1)  # followed each by its own, else where it strayed to


@pytest.mark.parametrize("way", [0.5, 4.0])
def test_a_jump_beside_a_walk_stays_in_the_picture(way: float) -> None:
    jump = figure(way)
    jump.positions[15:25, :, 1] += 0.3
    camera = Camera([figure(way)], 30, 400, 300, beside=[jump])
    assert camera.of(jump, 30).project(jump.pose(20), 20)[:, 1].min() > 0


def test_the_second_clip_bears_the_name_of_its_file_and_a_distance_where_it_is_as_long(tmp_path: Path) -> None:
    one, other = motion_file(tmp_path / "m.h5"), motion_file(tmp_path / "d.h5", noise=0.02)
    with MotionSet([one]) as motion, MotionSet([other]) as decoded:
        panels = make_panels(motion, decoded, ["walk0"], ":", overlay=False, curves=False)
        assert [panel.title for panel in panels] == ["walk0", "d.h5"]
        short = replace(panels[1], shots=(replace(panels[1].shots[0], frames=panels[1].shots[0].frames[:30]),))
        drawn = [Stage([panels[0], panel], 30, 240, 240).panel(1, 3) for panel in (panels[1], short)]
    corner = (120, 200, 240, 240)
    assert np.asarray(drawn[0].crop(corner)).min() < np.asarray(drawn[1].crop(corner)).min()


def test_decoded_motion_begins_where_the_original_does(tmp_path: Path) -> None:
    one, other = motion_file(tmp_path / "m.h5"), motion_file(tmp_path / "d.h5")
    with MotionSet([one]) as motion, MotionSet([other]) as decoded:
        decoded.companions = Companions()  # as of a model's own tokens: no skeleton, no start
        panels = make_panels(motion, decoded, ["walk1"], ":", overlay=False, curves=False)
    first, second = (panel.shots[0].figure for panel in panels)
    assert first is not None and second is not None
    assert np.array_equal(first.positions, second.positions)


def test_a_part_of_a_clip_is_where_it_is_on_the_whole_path(tmp_path: Path) -> None:
    with MotionSet([motion_file(tmp_path / "m.h5")]) as motion:
        whole, part = (
            make_panels(motion, None, ["walk0"], span, overlay=False, curves=False)[0].shots[0].figure
            for span in (":", "20:30")
        )
    assert whole is not None and part is not None
    assert np.array_equal(part.positions, whole.positions[20:30])


def test_humanml3d_is_drawn_by_the_tree_of_its_layout(tmp_path: Path) -> None:
    with create_motion(tmp_path / "h.h5", dim=263, fps=20, layout="humanml3d") as writer:
        writer.append("clip", np.random.default_rng(0).normal(size=(9, 263)))
    with MotionSet([tmp_path / "h.h5"]) as motion:
        shot = make_panels(motion, None, ["clip"], ":", overlay=False, curves=False)[0].shots[0]
    assert shot.figure is not None
    assert shot.figure.positions.shape == (9, 22, 3)


def test_motion_without_joints_is_drawn_as_curves_with_a_cursor(tmp_path: Path) -> None:
    with MotionSet([raw_file(tmp_path / "r.h5")]) as motion:
        panels = make_panels(motion, None, ["curve"], ":", overlay=False, curves=False)
    stage = Stage(panels, 20, 200, 160, columns=[(0, "c0"), (1, "c1")])
    assert count(stage.picture(0), COLOURS[0][0]) > 20
    assert stage.picture(3).tobytes() != stage.picture(20).tobytes()


def test_a_clip_that_ends_waits_for_the_others() -> None:
    short = Shot("a", np.zeros((5, 1)), figure(1.0, 5))
    assert np.array_equal(short.figure.pose(30), short.figure.pose(4))  # type: ignore[union-attr]


# time


def test_frames_are_shown_in_real_time() -> None:
    assert shown_frames(60, 30, 15) == list(range(0, 60, 2))
    assert shown_frames(60, 30, 30) == list(range(60))
    assert len(shown_frames(100, 120, 20)) == 17


@pytest.mark.parametrize(
    ("text", "span"), [(":", (0, None)), ("5:9", (5, 9)), ("1s:1.5s", (30, 45)), ("7:", (7, None)), (":2s", (0, 60))]
)
def test_a_range_is_of_frames_or_seconds(text: str, span: tuple[int, int | None]) -> None:
    assert frame_range(text, 30) == span


# files


def test_a_gif_lasts_as_long_as_the_motion(tmp_path: Path) -> None:
    out = tmp_path / "w.gif"
    assert main(["play", str(motion_file(tmp_path / "m.h5")), "-o", str(out), "--size", "96", "-q"]) == 0
    with Image.open(out) as picture:
        assert picture.n_frames == 30 and picture.size == (96, 96)
        times = []
        for frame in range(picture.n_frames):
            picture.seek(frame)
            times.append(picture.info["duration"])
    assert sum(times) == 2000
    assert set(times) == {60, 70}  # of 66.7 ms


def test_half_speed_takes_twice_as_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["play", str(motion_file(tmp_path / "m.h5")), "-o", str(tmp_path / "w.gif"), "--size", "96", "-q"]
    assert main([*arguments, "--speed", "0.5", "--rate", "10", "--frames", "0:30", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 20


def test_a_contact_sheet_has_a_row_for_each_panel(tmp_path: Path) -> None:
    one, out = motion_file(tmp_path / "m.h5"), tmp_path / "w.png"
    arguments = ["play", str(one), "--against", str(one), "-o", str(out), "--size", "200", "--poses", "8", "-q"]
    assert main(arguments) == 0
    with Image.open(out) as picture:
        assert picture.size == (6 * 76, 4 * 100)  # 8 poses in rows of 6, original and decoded


def test_two_clips_stand_side_by_side(tmp_path: Path) -> None:
    out = tmp_path / "w.gif"
    arguments = ["--clip", "walk1", "--clip", "walk0", "--frames", "0:4", "--size", "96", "-q"]
    assert main(["play", str(motion_file(tmp_path / "m.h5")), "-o", str(out), *arguments]) == 0
    with Image.open(out) as picture:
        assert picture.size == (144, 96)


def fake_ffmpeg(folder: Path, script: str) -> None:
    folder.mkdir()
    (folder / "ffmpeg").write_text(f"#!{sys.executable}\nimport sys\n{script}")
    (folder / "ffmpeg").chmod(0o755)


def test_a_video_gets_every_frame_and_is_what_ffmpeg_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "pixels = sys.stdin.buffer.read()\nopen(sys.argv[-1], 'w').write(f'{len(pixels)} {sys.argv}')\n"
    fake_ffmpeg(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    out = tmp_path / "w.mp4"
    assert main(["play", str(motion_file(tmp_path / "m.h5")), "-o", str(out), "--size", "96", "-q"]) == 0
    size, _, words = out.read_text().partition(" ")
    assert int(size) == 60 * 96 * 96 * 3
    assert "'96x96', '-r', '30'" in words


def test_what_ffmpeg_says_is_told_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_ffmpeg(tmp_path / "bin", "sys.exit('no encoder found')\n")
    monkeypatch.setenv("PATH", str(tmp_path / "bin") + os.pathsep + os.environ["PATH"])
    one = motion_file(tmp_path / "m.h5")
    assert main(["play", str(one), "-o", str(tmp_path / "w.mp4"), "--size", "96", "-q"]) == 73
    assert "no encoder found" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "m.h5"]


# what is refused


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-o", "w.avi"], 2, "none of .gif, .mp4 and .png"),
        (["-o", "w.gif", "--clip", "walk7"], 2, "did you mean walk"),
        (["-o", "w.gif", "--frames", "90:"], 2, "has the frames 0:60 (2.00 s)"),
        (["-o", "w.gif", "--frames", "x"], 2, "is no range"),
        (["-o", "w.gif", "--camera", "orbit"], 2, "--camera is auto, follow, path"),
        (["-o", "w.gif", "--against", "raw.h5"], 76, "has columns 3"),
        (["-o", "w.gif", "--against", "short.h5", "--clip", "walk1"], 76, "has no clip 'walk1'"),
        (["-o", "w.gif", "--against", "fast.h5"], 76, "60 frames a second"),
        (["-o", "m.h5.gif/w.gif"], 73, "does not exist"),
        (["-o", "there.gif"], 73, "exists already"),
        (["-o", "w.gif", "--columns", "hands"], 2, "no columns 'hands'"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    motion_file(Path("m.h5"))
    motion_file(Path("short.h5"), clips=1)
    motion_file(Path("fast.h5"), fps=60)
    raw_file(Path("raw.h5"))
    Path("there.gif").write_text("mine")
    assert main(["play", "m.h5", *arguments]) == code
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not Path("w.gif").exists() and Path("there.gif").read_text() == "mine"


def test_without_pillow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    assert main(["play", str(raw_file(tmp_path / "r.h5")), "-o", str(tmp_path / "w.gif")]) == 2
    assert "pip install 'vqtool[plot]'" in capsys.readouterr().err


def test_without_ffmpeg_a_video_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["play", str(tmp_path / "none.h5"), "-o", str(tmp_path / "w.mp4")]) == 2
    assert "ffmpeg" in capsys.readouterr().err


def test_a_gif_that_would_take_all_memory_is_refused_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with create_motion(tmp_path / "long.h5", dim=1, fps=20) as writer:
        writer.append("long", np.arange(3000, dtype=float)[:, None])
    assert main(["play", str(tmp_path / "long.h5"), "-o", str(tmp_path / "w.gif"), "-q"]) == 2
    assert "choose 60 s with --frames" in capsys.readouterr().err


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    one = motion_file(tmp_path / "m.h5")
    for name in ("a.gif", "b.gif"):
        assert main(["play", str(one), "-o", str(tmp_path / name), "--frames", ":8", "--size", "96", "-q"]) == 0
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    assert Image.open(io.BytesIO((tmp_path / "a.gif").read_bytes())).n_frames == 4  # type: ignore[attr-defined]
