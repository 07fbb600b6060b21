"""evaluate(): its measures and its command."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, write_motion
from motion_samples import BODY, smooth
from worker_tasks import Backwards, Dangerous

from vqtool.nn.codec import Codec, load
from vqtool.nn.evaluation import Evaluation, evaluate, evaluate_layers
from vqtool.store import MotionSet, create_motion

Trained = Callable[[str], Path]
SMALL = ["--set", "model.width=16", "--set", "model.latent_dim=8", "--set", "bottleneck.codebook_size=16"]


def read_csv(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(Path(path).read_text())))


def test_the_measures_of_each_clip_are_those_of_the_clip_alone(walks: tuple[Path, Path]) -> None:
    codec = load(walks[0], device="cpu")
    with MotionSet([walks[1]]) as motion:
        together = evaluate(codec, motion, [3, 1], measured=True).measures
        alone = evaluate(codec, motion, [1], measured=True).measures
        assert together is not None and alone is not None
        assert together.of_clip(1) == pytest.approx(alone.of_all(), rel=1e-4)
        assert together.of_clip(1)["drift_degrees"] is not None
        assert together.of_clip(1)["foot_skate_mm_s"] is not None


def test_the_errors_of_the_set_are_the_same_with_and_without_the_measures(walks: tuple[Path, Path]) -> None:
    codec = load(walks[0], device="cpu")
    with MotionSet([walks[1]]) as motion:
        plain, measured = (evaluate(codec, motion, [0, 1, 2], measured=wanted) for wanted in (False, True))
    assert plain.measures is None and measured.measures is not None
    assert plain.nmse == measured.nmse and plain.nmae == measured.nmae
    means = measured.measures.of_all()
    assert (means["nmse"], means["nmae"]) == pytest.approx((measured.nmse, measured.nmae))


def test_the_command_tells_joints_worst_clips_and_every_number_of_layers(walks: tuple[Path, Path], run: Run) -> None:
    code, out, errors = run("evaluate", *walks, "--by-layers", "--top", 2, "-q", "--json")
    assert (code, errors) == (0, "")
    found = json.loads(out)
    assert [point["layers"] for point in found["by_layers"]] == [1, 2, 3]
    last = found["by_layers"][-1]
    assert (last["nmse"], last["mpjpe_mm"]) == (found["nmse"], found["mpjpe_mm"])
    assert last["bits_per_second"] == found["bits_per_second"] == 30 / 4 * 3 * 4
    fewer = json.loads(run("evaluate", *walks, "--num-quantizers", 2, "-q", "--json")[1])
    assert found["by_layers"][1]["nmse"] == fewer["nmse"]
    assert fewer["by_layers"] == []
    assert len(found["worst_clips"]) == 2
    assert found["worst_clips"][0]["nmse"] >= found["worst_clips"][1]["nmse"] > found["nmse"] * 0.5
    assert set(found["groups"]) == set(found["groups_nmae"])
    assert found["frechet"] is None  # too few seconds


def test_the_table_fits_80_columns(walks: tuple[Path, Path], run: Run) -> None:
    out = run("evaluate", *walks, "--by-layers", "-q")[1]
    assert max(map(len, out.splitlines())) <= 80
    for words in ("pose alone", "PA-MPJPE", "foot skate", "degrees at the end", "worst clips", "layers"):
        assert words in out
    assert "worst clips" not in run("evaluate", *walks, "--top", 0, "-q")[1]


def test_the_csv_has_a_line_for_each_clip_worst_first(
    trained: Trained, motion_path: Path, walks: tuple[Path, Path], run: Run
) -> None:
    assert run("evaluate", *walks, "--csv", "clips.csv", "-q")[0] == 0
    lines = read_csv("clips.csv")
    values = [float(line["nmse"]) for line in lines]
    assert values == sorted(values, reverse=True)
    assert {line["name"] for line in lines} == {f"walk.{number}" for number in range(5)}
    for name in ("nmse_root", "nmae_velocities", "mpjpe_procrustes_mm", "drift_degrees", "foot_skate_true_mm_s"):
        assert float(lines[0][name]) >= 0
    assert run("evaluate", trained("vq"), motion_path, "--csv", "raw.csv", "-q")[0] == 0
    lines = read_csv("raw.csv")
    assert list(lines[0]) == ["name", "frames", "nmse", "nmae"]
    assert [line["frames"] for line in lines].count("0") == 1
    assert lines[-1] == {"name": "clip_00", "frames": "0", "nmse": "", "nmae": ""}


def test_a_csv_that_is_there_or_is_an_input_is_left_alone(walks: tuple[Path, Path], run: Run) -> None:
    Path("clips.csv").write_text("mine")
    code, out, errors = run("evaluate", *walks, "--csv", "clips.csv", "-q")
    assert (code, out) == (73, "")
    assert "clips.csv: exists already" in errors
    assert Path("clips.csv").read_text() == "mine"
    assert run("evaluate", *walks, "--csv", "clips.csv", "-q", "--force")[0] == 0
    assert len(read_csv("clips.csv")) == 5
    before = {path: path.read_bytes() for path in (walks[0] / "tokenizer.safetensors", walks[1])}
    for path in before:
        code, _, errors = run("evaluate", *walks, "--csv", path, "-q", "--force")
        assert (code, "both input and output" in errors) == (2, True)
    assert {path: path.read_bytes() for path in before} == before


def test_a_vae_has_no_layers_to_count(trained: Trained, motion_path: Path, run: Run) -> None:
    code, out, errors = run("evaluate", trained("vae"), motion_path, "--by-layers", "-q")
    assert (code, out) == (2, "")
    assert errors.count("\n") == 1 and "leave --by-layers out" in errors


def test_names_of_clips_are_printable_and_quoted(trained: Trained, run: Run) -> None:
    names = ['a,"b"', "line\nbreak \x1b[2J", "long/" * 20]
    with create_motion(Path("m.h5"), dim=5, fps=30) as writer:
        for number, name in enumerate(names):
            writer.append(name, np.random.default_rng(number).normal(size=(40, 5)).astype(np.float32))
    code, out, errors = run("evaluate", trained("vq"), "m.h5", "--csv", "clips.csv", "-q")
    assert code == 0, errors
    assert "\x1b" not in out and "line\\nbreak" in out
    assert max(map(len, out.splitlines())) <= 80
    with open("clips.csv", newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == set(names)


def test_positions_have_joint_errors_but_no_heading_and_no_contacts(run: Run) -> None:
    with create_motion(Path("m.h5"), dim=3 * len(BODY.names), fps=30, layout="positions") as writer:
        for number in range(3):
            positions, _ = smooth(90, number).forward()
            writer.append(f"walk{number}", positions.reshape(90, -1).astype(np.float32))
    assert run("train", "m.h5", "-o", "run", "--steps", "5", "-q", *SMALL)[0] == 0
    found = json.loads(run("evaluate", "run", "m.h5", "-q", "--json")[1])
    assert found["mpjpe_pose_mm"] == found["mpjpe_aligned_mm"] > found["mpjpe_procrustes_mm"] > 0
    assert found["drift_mm"] > 0 and found["velocity_error_mm_s"] > 0
    assert found["drift_degrees"] is None and found["foot_skate_mm_s"] is None
    out = run("evaluate", "run", "m.h5", "-q")[1]
    assert "at the end of a clip" in out and "degrees" not in out and "foot skate" not in out


def test_a_long_clip_is_measured_in_pieces(walks: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    codec: Codec = load(walks[0], device="cpu", numerics="float64")
    with MotionSet([walks[1]]) as motion:
        whole = evaluate(codec, motion, [4, 3], measured=True).measures
        monkeypatch.setattr("vqtool.nn.codec.CHUNK_TOKENS", 3)
        pieces = evaluate(codec, motion, [4, 3], measured=True).measures
    assert whole is not None and pieces is not None
    assert pieces.of_all() == pytest.approx(whole.of_all(), rel=1e-3)


def test_layers_of_a_product_are_told_group_by_group(trained: Trained, motion_path: Path, run: Run) -> None:
    out = run("evaluate", trained("product"), motion_path, "--by-layers", "-q", "--json")[1]
    found = json.loads(out)
    sizes = [point["layers"] for point in found["by_layers"]]
    groups = 2
    assert sizes == list(range(groups, len(found["layers"]) + 1, groups))
    assert len(sizes) > 1


def test_too_few_tokens_to_judge_the_codes_by_are_said_to_be(trained: Trained, tmp_path: Path, run: Run) -> None:
    for frames, expected in ((640, False), (636, True)):  # 16 codes, 4 frames a token: 160 tokens and 159
        path = write_motion(tmp_path / f"{frames}.h5", [frames])
        out = run("evaluate", trained("vq"), path, "-q")[1]
        assert ("159 token frames are few to judge codes by; 160 would do" in out) == expected


def numbers(found: Evaluation) -> list[object]:
    """All that an evaluation tells, for ==."""
    assert found.measures is not None
    arrays = [found.squared, found.absolute, *found.counts, found.kl, found.variance]
    rows = range(found.clips)
    told = [array if array is None else array.tolist() for array in arrays] + [found.frames, found.token_frames]
    told += [found.measures.of_all(), *map(found.measures.of_clip, rows), found.measures.worst_first()]
    return [*told, found.measures.distance.real_to_decoded(), found.measures.distance.real_to_real()]


@pytest.mark.parametrize("model", ["rvq", "vae"])
def test_workers_give_the_numbers_of_the_serial_run_to_the_last_bit(
    model: str, trained: Trained, motion_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqtool.frechet.MIN_SECONDS", 20)
    codec = load(trained(model), device="cpu")
    layers = [1, None] if model == "rvq" else [None]
    frames: list[int] = []
    with MotionSet([motion_path]) as motion:
        clips = [11, *range(11)]
        whole = evaluate(codec, motion, clips, measured=True)
        monkeypatch.setattr("vqtool.nn.codec.PART_TOKENS", 40)
        serial = evaluate_layers(codec, motion, clips, layers, measured=True)
        team = Backwards(dies_at=3)
        shared = evaluate_layers(codec, motion, clips, layers, measured=True, workers=team, progress=frames.append)
    assert team.given > 5 * len(layers)
    assert list(map(numbers, shared)) == list(map(numbers, serial))
    assert sum(frames) == len(layers) * whole.frames
    assert shared[-1].nmse == pytest.approx(whole.nmse, rel=1e-4)
    assert shared[-1].measures is not None and whole.measures is not None
    assert shared[-1].measures.of_all() == pytest.approx(whole.measures.of_all(), rel=1e-4)
    distances = [one.measures.distance for one in (shared[-1], whole)]  # type: ignore[union-attr]
    assert distances[0].real_to_decoded() == pytest.approx(distances[1].real_to_decoded(), rel=1e-3)
    assert distances[0].real_to_real() == pytest.approx(distances[1].real_to_real(), rel=1e-3)
    assert [count.tolist() for count in shared[-1].counts] == [count.tolist() for count in whole.counts]


def test_the_command_line_shares_clips_and_layers_among_workers(
    walks: tuple[Path, Path], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqtool.nn.codec.PART_TOKENS", 20)
    monkeypatch.setattr("vqtool.workers.Processes", Backwards)
    words = ["evaluate", *walks, "--by-layers", "--json", "-q", "--csv"]
    serial, shared = run(*words, "1.csv"), run(*words, "2.csv", "--workers", 2)
    assert serial == shared and serial[0] == 0
    assert Path("1.csv").read_bytes() == Path("2.csv").read_bytes()


@pytest.mark.slow
def test_a_worker_that_is_killed_changes_no_number(
    walks: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqtool.nn.codec.PART_TOKENS", 20)
    codec = load(walks[0], device="cpu")
    team = Dangerous("clips", range(4, 5), tmp_path / "died")
    with MotionSet([walks[1]]) as motion:
        (serial,) = evaluate_layers(codec, motion, range(5), [None], measured=True)
        (shared,) = evaluate_layers(codec, motion, range(5), [None], measured=True, workers=team)
    assert numbers(shared) == numbers(serial)
    assert team.said == ["a worker died (SIGKILL); another one makes part 3 again"]
