"""Training: what it leaves behind, resuming it bit for bit, and what it refuses."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import OPTIONS, Silent, small_config, waves, write_motion

import vqtool
from vqtool.errors import DataError, DivergedError, InterruptedRun, OutputError, ResumeError, UsageError
from vqtool.nn import learner, trainer
from vqtool.nn.bottlenecks import ema
from vqtool.nn.checkpoint import list_checkpoints
from vqtool.nn.evaluation import evaluate
from vqtool.nn.trainer import Trained, split_clips, train
from vqtool.signals import StopRequest
from vqtool.stats import column_stats
from vqtool.store import MotionSet, create_motion
from vqtool.tokenizer_file import pack, read_tokenizer, unpack

LENGTHS = [60, 80, 100, 20]


@pytest.fixture
def motion(tmp_path: Path) -> Path:
    return write_motion(tmp_path / "motion.h5", LENGTHS)


def run_training(
    motion: Path, run: Path, model: str = "rvq", report: Silent | None = None, **options: object
) -> Trained:
    """Train a small model; keyword arguments with __ are settings, others go to train()."""
    changes = {key: value for key, value in options.items() if "__" in key}
    given = {key: value for key, value in options.items() if "__" not in key}
    with MotionSet([motion]) as clips:
        config = small_config(model, **changes)
        return train(config, clips, run, report or Silent(), device="cpu", **given)  # type: ignore[arg-type]


class SignalAt(Silent):
    """Send this process a signal after a step."""

    def __init__(self, step: int, number: signal.Signals = signal.SIGTERM) -> None:
        super().__init__()
        self.step, self.number = step, number

    def stepped(self, step: int, steps: int, loss: float) -> None:
        super().stepped(step, steps, loss)
        if step == self.step:
            signal.raise_signal(self.number)


def stop_training(motion: Path, run: Path, model: str = "rvq", *, step: int, **options: object) -> None:
    """Train until a SIGTERM after a step."""
    with StopRequest(), pytest.raises(InterruptedRun, match=f"after step {step}"):
        run_training(motion, run, model, SignalAt(step), **options)


@pytest.mark.parametrize("model", OPTIONS)
@pytest.mark.parametrize("step", [2, 4, 17, 39])
def test_a_stopped_and_resumed_training_is_bit_equal_to_an_uninterrupted_one(
    model: str, step: int, motion: Path, tmp_path: Path
) -> None:
    run_training(motion, tmp_path / "whole", model)
    stop_training(motion, tmp_path / "parts", model, step=step)
    run_training(motion, tmp_path / "parts", model, resume=True)
    assert same(tmp_path / "whole", tmp_path / "parts") == list(FINAL)


FINAL = ("tokenizer.safetensors", "metrics.jsonl", "checkpoints/step-000040/state.safetensors")


def same(a: Path, b: Path) -> list[str]:
    """Which files of two finished runs are the same, byte for byte."""
    return [name for name in FINAL if (a / name).read_bytes() == (b / name).read_bytes()]


def gradient_of_a_step(motion: Path, clip_norm: float) -> float:
    """Its norm, as the optimizer gets it in the first step."""
    with MotionSet([motion]) as clips:
        everything = range(len(clips))
        config = small_config("rvq", train__clip_norm=clip_norm)
        found = learner.Learner(config, clips, everything, column_stats(clips, everything), torch.device("cpu"))
        found.step(0)
    return float(torch.nn.utils.get_total_norm([one.grad for one in found.model.parameters() if one.grad is not None]))


def test_a_gradient_is_shortened_to_the_largest_norm_and_no_other_is_changed(motion: Path) -> None:
    free = gradient_of_a_step(motion, 0.0)
    assert gradient_of_a_step(motion, free / 10) == pytest.approx(free / 10, rel=1e-4)
    assert gradient_of_a_step(motion, free * 10) == free


@pytest.mark.parametrize("what", ["a look at the validation set", "the last look at it", "k-means"])
def test_a_stop_in_the_middle_of_something_long_is_resumed_bit_for_bit(
    what: str, motion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_training(motion, tmp_path / "whole")
    step, name = {"a look at the validation set": (20, "evaluate"), "the last look at it": (40, "evaluate")}.get(
        what, (4, "kmeans")
    )
    module = trainer if name == "evaluate" else ema
    real, calls = getattr(module, name), []

    def interrupted(*arguments: object, **options: object) -> object:
        calls.append(name)
        if len(calls) == (2 if what in ("the last look at it", "k-means") else 1):
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments, **options)

    with monkeypatch.context() as patch, StopRequest(), pytest.raises(InterruptedRun, match=f"after step {step};"):
        patch.setattr(module, name, interrupted)
        run_training(motion, tmp_path / "parts")
    run_training(motion, tmp_path / "parts", resume=True)
    assert same(tmp_path / "whole", tmp_path / "parts") == list(FINAL)


def test_a_run_that_was_killed_before_it_wrote_its_tokenizer_is_finished_bit_for_bit(
    motion: Path, tmp_path: Path
) -> None:
    run_training(motion, tmp_path / "whole")
    run_training(motion, tmp_path / "killed")
    (tmp_path / "killed" / "tokenizer.safetensors").unlink()
    run_training(motion, tmp_path / "killed", resume=True)
    assert same(tmp_path / "whole", tmp_path / "killed") == list(FINAL)


@pytest.mark.parametrize("part", ["nothing", "optimizer", "averages", "codebook counts", "random state", "position"])
def test_a_checkpoint_without_any_part_of_the_state_would_be_noticed(part: str, motion: Path, tmp_path: Path) -> None:
    settings = {"bottleneck__revive_below": 0.9, "bottleneck__quantizer_dropout": 0.3}
    run_training(motion, tmp_path / "whole", **settings)
    stop_training(motion, tmp_path / "parts", step=17, **settings)
    path = tmp_path / "parts" / "checkpoints" / "step-000017" / "state.safetensors"
    state, header = unpack(path)
    for name, value in state.items():
        forgotten = {
            "optimizer": name.startswith("optimizer."),
            "averages": name.startswith("smooth."),
            "codebook counts": name.endswith(".counts"),
            "random state": name.endswith("draws.state"),
        }
        if forgotten.get(part):
            begun = state.get(name.replace("smooth.", "model.")) if part == "averages" else np.zeros_like(value)
            state[name] = begun
    if part == "position":
        header["step"] = 16
        path = path.parent.rename(path.parent.with_name("step-000016")) / path.name
    path.write_bytes(pack(state, header))
    run_training(motion, tmp_path / "parts", resume=True, **settings)
    assert (FINAL[0] in same(tmp_path / "whole", tmp_path / "parts")) == (part == "nothing")


def test_sigusr1_saves_a_checkpoint_and_training_goes_on_unchanged(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "whole", train__keep_checkpoints=9)
    report = SignalAt(7, signal.SIGUSR1)
    with StopRequest():
        run_training(motion, tmp_path / "asked", report=report, train__keep_checkpoints=9)
    assert [step for step, _ in list_checkpoints(tmp_path / "asked" / "checkpoints")] == [7, 20, 40]
    assert any("checkpoint after step 7" in note for note in report.notes)
    assert same(tmp_path / "whole", tmp_path / "asked") == list(FINAL)


def test_resume_goes_back_to_the_checkpoint_before_a_damaged_one(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "whole")
    stop_training(motion, tmp_path / "run", step=30)
    state = tmp_path / "run" / "checkpoints" / "step-000030" / "state.safetensors"
    damaged = bytearray(state.read_bytes())
    damaged[-100] ^= 1
    state.write_bytes(damaged)
    report = Silent()
    run_training(motion, tmp_path / "run", report=report, resume=True)
    assert any("SHA-256" in note for note in report.notes)
    whole = (tmp_path / "whole" / "tokenizer.safetensors").read_bytes()
    assert (tmp_path / "run" / "tokenizer.safetensors").read_bytes() == whole


def test_the_global_random_state_neither_matters_nor_changes(motion: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    run_training(motion, tmp_path / "a")
    torch.manual_seed(2)
    before = torch.get_rng_state()
    run_training(motion, tmp_path / "b")
    assert torch.equal(torch.get_rng_state(), before)
    files = [(tmp_path / run / "tokenizer.safetensors").read_bytes() for run in "ab"]
    assert files[0] == files[1]


def test_another_seed_gives_another_tokenizer(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "a")
    run_training(motion, tmp_path / "b", train__seed=1)
    assert read_tokenizer(tmp_path / "a").tokenizer_id != read_tokenizer(tmp_path / "b").tokenizer_id


def test_resume_with_another_config_names_what_differs(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "run")
    with pytest.raises(ResumeError, match=r"train.lr: 0.002 -> 0.003"):
        run_training(motion, tmp_path / "run", resume=True, train__lr=0.003)


def test_resume_with_other_motion_is_refused(motion: Path, tmp_path: Path) -> None:
    stop_training(motion, tmp_path / "run", step=5)
    other = write_motion(tmp_path / "other.h5", [60, 80, 100, 21])
    with pytest.raises(ResumeError, match="not what this run was begun with"):
        run_training(other, tmp_path / "run", resume=True)


def test_resume_of_a_finished_run_does_nothing(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    report = Silent()
    run_training(motion, tmp_path / "run", report=report, resume=True)
    assert report.steps == []
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_an_existing_run_is_refused(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "run")
    with pytest.raises(OutputError, match="--resume"):
        run_training(motion, tmp_path / "run")


def test_a_folder_that_is_no_run_is_never_touched(motion: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputError, match="no vqtool train made"):
        run_training(motion, tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"


def test_a_folder_in_which_a_run_was_killed_at_once_is_taken(motion: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.toml.part").write_text("[tr")
    (tmp_path / "run" / "config.toml.lock").touch()
    run_training(motion, tmp_path / "run", train__steps=5)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoints",
        "config.toml",
        "metrics.jsonl",
        "tokenizer.safetensors",
    ]


def test_force_begins_anew(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "a")
    run_training(motion, tmp_path / "b", train__seed=5)
    run_training(motion, tmp_path / "b", force=True)
    files = [(tmp_path / run / "tokenizer.safetensors").read_bytes() for run in "ab"]
    assert files[0] == files[1]


def test_only_the_newest_checkpoints_are_kept(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "run", train__checkpoint_every=10, train__keep_checkpoints=2)
    assert [step for step, _ in list_checkpoints(tmp_path / "run" / "checkpoints")] == [30, 40]


def test_a_loss_that_is_not_finite_stops_training_and_keeps_the_checkpoint(motion: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"smaller train\.lr"):
        run_training(motion, tmp_path / "run", train__lr=1e30, train__lr_warmup=0, train__checkpoint_every=1)
    assert list_checkpoints(tmp_path / "run" / "checkpoints")
    assert not (tmp_path / "run" / "tokenizer.safetensors").exists()


def test_training_learns(motion: Path, tmp_path: Path) -> None:
    done = run_training(motion, tmp_path / "run", train__steps=150, data__val_fraction=0.0)
    assert done.evaluation is not None
    assert done.evaluation.nmse < 0.8


def test_the_final_validation_is_that_of_the_saved_tokenizer(motion: Path, tmp_path: Path) -> None:
    done = run_training(motion, tmp_path / "run")
    codec = vqtool.load(tmp_path / "run", device="cpu")
    with MotionSet([motion]) as clips:
        found = evaluate(codec, clips, split_clips(clips, 0.05, 0).val)
    assert done.evaluation is not None
    assert found.nmse == pytest.approx(done.evaluation.nmse, rel=1e-5)
    assert [counts.tolist() for counts in found.counts] == [counts.tolist() for counts in done.evaluation.counts]


def test_the_tokenizer_keeps_the_validation_counts(motion: Path, tmp_path: Path) -> None:
    done = run_training(motion, tmp_path / "run")
    assert done.evaluation is not None
    stored = read_tokenizer(tmp_path / "run").tensors["usage.counts.1"]
    assert np.array_equal(stored, done.evaluation.counts[1])


def test_metrics_hold_training_and_validation_lines(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    val = [line for line in lines if line["split"] == "val"]
    assert [line["step"] for line in val] == [20, 40]
    assert len(val[0]["perplexity"]) == 3
    assert {"reconstruction", "velocity", "commitment", "lr"} <= lines[-2].keys()


def test_statistics_are_those_of_the_training_clips(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "run")
    with MotionSet([motion]) as clips:
        frames = np.concatenate([clips.read(clip) for clip in split_clips(clips, 0.05, 0).train])
    stored = read_tokenizer(tmp_path / "run").tensors
    assert np.allclose(stored["model.normalizer.mean"], frames.astype(np.float64).mean(0), rtol=1e-6)
    assert np.allclose(stored["model.normalizer.scale"][:-1], frames.astype(np.float64).std(0)[:-1], rtol=1e-6)


def test_constant_columns_are_reported_and_get_scale_one(motion: Path, tmp_path: Path) -> None:
    report = Silent()
    run_training(motion, tmp_path / "run", report=report)
    assert any("constant columns" in note and note.endswith(": 4") for note in report.notes)
    assert read_tokenizer(tmp_path / "run").tensors["model.normalizer.scale"][4] == 1


def test_motion_that_does_not_move_is_refused(tmp_path: Path) -> None:
    with create_motion(tmp_path / "still.h5", dim=2, fps=30) as writer:
        writer.append("still", np.ones((50, 2)))
    with pytest.raises(DataError, match="no column moves"):
        run_training(tmp_path / "still.h5", tmp_path / "run")


def test_a_nan_stops_training_before_the_first_step(tmp_path: Path) -> None:
    frames = waves(50)
    frames[7, 3] = np.inf
    with create_motion(tmp_path / "bad.h5", dim=5, fps=30) as writer:
        writer.append("jump", frames)
    with pytest.raises(DataError, match=r"clip jump frame 7: column 3 is inf"):
        run_training(tmp_path / "bad.h5", tmp_path / "run")


def test_clips_shorter_than_the_window_are_trained_on(tmp_path: Path) -> None:
    motion = write_motion(tmp_path / "short.h5", [5, 9, 3, 14])
    assert run_training(motion, tmp_path / "run").steps == 40


def test_a_codebook_that_stays_empty_is_warned_of_with_what_to_do(tmp_path: Path) -> None:
    motion = write_motion(tmp_path / "motion.h5", [2400])
    options = {"bottleneck__codebook_size": 512, "train__steps": 1, "train__start": "random"}
    done = run_training(motion, tmp_path / "run", "fsq", **options)
    assert any("of 512 codes" in text and "codebook_size" in text for text in done.warnings)


def test_the_same_clip_falls_into_the_same_split_whatever_else_is_there(tmp_path: Path) -> None:
    few, many = write_motion(tmp_path / "a.h5", [9] * 200), write_motion(tmp_path / "b.h5", [9] * 400)
    with MotionSet([few]) as a, MotionSet([many]) as b:
        held = {a.names[clip] for clip in split_clips(a, 0.2, 0).val}
        more = {b.names[clip] for clip in split_clips(b, 0.2, 0).val}
    assert held == {name for name in more if int(name[5:]) < 200}
    assert 20 < len(held) < 60


def test_splits_of_the_file_are_used(tmp_path: Path) -> None:
    with create_motion(tmp_path / "m.h5", dim=5, fps=30) as writer:
        for number, split in enumerate([0, 1, 2, 0]):
            writer.append(f"c{number}", waves(40, seed=number), split)
    with MotionSet([tmp_path / "m.h5"]) as clips:
        split = split_clips(clips, 0.5, 0)
    assert (split.train, split.val) == ([0, 3], [1])


def test_column_weights_change_what_is_learned_best(motion: Path, tmp_path: Path) -> None:
    options = {"train__steps": 100, "train__start": "random", "data__val_fraction": 0.0}
    plain = run_training(motion, tmp_path / "a", **options).evaluation
    heavy = run_training(motion, tmp_path / "b", **options, **{"loss__columns__0:1": 50.0}).evaluation
    assert plain is not None
    assert heavy is not None
    assert heavy.squared[0] < 0.8 * plain.squared[0]


def test_an_unknown_column_group_is_refused(motion: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no columns 'hand'"):
        run_training(motion, tmp_path / "run", loss__columns__hand=2.0)


@pytest.mark.parametrize("reconstruction", ["l1", "l2", "smooth_l1"])
def test_every_reconstruction_loss_trains(reconstruction: str, motion: Path, tmp_path: Path) -> None:
    done = run_training(motion, tmp_path / "run", loss__reconstruction=reconstruction)
    assert done.evaluation is not None
    assert done.evaluation.nmse < 1.2


def test_a_second_training_in_the_same_folder_is_refused(
    motion: Path,
    tmp_path: Path,
) -> None:
    from vqtool.errors import LockedError
    from vqtool.publish import lock

    with lock(tmp_path / "run"), pytest.raises(LockedError):
        run_training(motion, tmp_path / "run", resume=True)


def test_the_levels_of_fsq_are_written_out_and_the_same_command_resumes(motion: Path, tmp_path: Path) -> None:
    stop_training(motion, tmp_path / "run", "fsq", step=5)
    run_training(motion, tmp_path / "run", "fsq", resume=True)
    stored = read_tokenizer(tmp_path / "run").config["bottleneck"]
    assert stored == {"levels": [8, 6, 5], "bound": "tanh"}


def test_a_codebook_size_of_fsq_that_does_not_mean_its_levels_is_refused(motion: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"codebook_size 256 does not mean the levels \[4, 4\]; give one"):
        run_training(motion, tmp_path / "run", "fsq", bottleneck__levels=[4, 4])


def test_one_changed_frame_of_a_validation_clip_is_other_motion(motion: Path, tmp_path: Path) -> None:
    stop_training(motion, tmp_path / "run", step=5)
    with MotionSet([motion]) as clips:
        val = split_clips(clips, 0.05, 0).val
        frames = [clips.read(clip) for clip in range(len(clips))]
    frames[val[0]][3, 1] += 1e-3
    with create_motion(tmp_path / "other.h5", dim=5, fps=30) as writer:
        for number, rows in enumerate(frames):
            writer.append(f"clip_{number:02d}", rows)
    with pytest.raises(ResumeError, match="not what this run was begun with"):
        run_training(tmp_path / "other.h5", tmp_path / "run", resume=True)


def test_dropout_is_resumed_bit_for_bit_and_does_not_touch_what_is_encoded(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "whole", model__dropout=0.3)
    stop_training(motion, tmp_path / "run", step=17, model__dropout=0.3)
    run_training(motion, tmp_path / "run", resume=True, model__dropout=0.3)
    name = "tokenizer.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    codec = vqtool.load(tmp_path / "run", device="cpu")
    clip = waves(40)
    np.testing.assert_array_equal(codec.encode(clip), codec.encode(clip))


def learning_rates(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["lr"] for line in lines if line["split"] == "train"]


def test_the_learning_rate_drops_where_it_is_told_to(
    motion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    drops = {"train__lr_drops": [0.5, 0.75], "train__lr_drop": 0.1, "train__schedule": "constant"}
    run_training(motion, tmp_path / "run", train__lr=1.0e-2, train__lr_warmup=0, train__steps=8, **drops)
    assert learning_rates(tmp_path / "run") == pytest.approx([1e-2] * 4 + [1e-3] * 2 + [1e-4] * 2)


def test_terms_that_need_joints_are_warned_of_where_there_are_none(motion: Path, tmp_path: Path) -> None:
    done = run_training(motion, tmp_path / "run", train__steps=2, loss__positions=0.5)
    assert done.warnings[-1] == "loss.positions has no part: layout raw does not say where joints are"


def test_a_training_on_joint_features_logs_the_terms_of_the_joints(tmp_path: Path) -> None:
    path = tmp_path / "joints.h5"
    with create_motion(path, dim=23, fps=30, layout="joints") as writer:
        for number in range(4):
            writer.append(f"clip_{number}", waves(60, 23, seed=number) / 100)
    run_training(path, tmp_path / "run", train__steps=2, loss__positions=0.5, loss__joints=0.5)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["joints"] > 0
    assert line["positions"] > 0


def test_a_run_begun_before_networks_started_from_components_goes_on_as_it_was(motion: Path, tmp_path: Path) -> None:
    run_training(motion, tmp_path / "whole", train__start="random")
    stop_training(motion, tmp_path / "run", step=17, train__start="random")
    config = tmp_path / "run" / "config.toml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if not line.startswith("start =")))
    with pytest.raises(ResumeError, match=r"train\.start: 'random' -> 'components'"):
        run_training(motion, tmp_path / "run", resume=True)
    run_training(motion, tmp_path / "run", resume=True, train__start="random")
    name = "tokenizer.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("model", ["vq", "vae"])
def test_networks_in_bfloat16_train_weights_in_float32(model: str, motion: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        run_training(motion, tmp_path / precision, model, train__steps=6, train__precision=precision)
    one, two = (unpack(tmp_path / name / "tokenizer.safetensors")[0] for name in ("float32", "bfloat16"))
    name = "model.decoder.layers.0.conv.weight"
    assert two[name].dtype == np.float32
    assert not np.array_equal(one[name], two[name])
    np.testing.assert_allclose(two[name], one[name], atol=0.02)


@pytest.mark.parametrize("model", OPTIONS)
def test_a_step_in_parts_is_the_step_of_the_whole_batch(model: str, motion: Path, tmp_path: Path) -> None:
    options = {"train__steps": 6, "train__accumulate": 1, "train__ema_decay": 0.0}
    for run, parts in (("whole", 1), ("parts", 3)):
        run_training(motion, tmp_path / run, model, **options | {"train__accumulate": parts})
    lines = [json.loads((tmp_path / run / "metrics.jsonl").read_text().splitlines()[0]) for run in ("whole", "parts")]
    close = {"vae": 0.1}.get(model, 1e-5)  # a VAE draws other noise
    assert lines[0]["loss"] == pytest.approx(lines[1]["loss"], rel=close)
    if model != "vae":
        one, two = (unpack(tmp_path / run / "tokenizer.safetensors")[0] for run in ("whole", "parts"))
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_auto_precision_is_that_of_the_hardware(motion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for has, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(learner, "has_bfloat16", lambda device, has=has: has)
        for precision in ("auto", expected):
            run_training(motion, tmp_path / precision, "vae", train__steps=2, train__precision=precision)
        files = [(tmp_path / name / "tokenizer.safetensors") for name in ("auto", expected)]
        tensors = [unpack(file)[0] for file in files]
        assert all(np.array_equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
        shutil.rmtree(tmp_path / "auto")


@pytest.mark.parametrize(("downsampling", "alike"), [("fold", False), ("strided", True)])
def test_only_networks_that_fold_start_from_components(
    downsampling: str, alike: bool, motion: Path, tmp_path: Path
) -> None:
    options = {"train__steps": 1, "model__downsampling": downsampling}
    for start in ("components", "random"):
        run_training(motion, tmp_path / start, "vae", train__start=start, **options)
    one, two = (unpack(tmp_path / start / "tokenizer.safetensors")[0] for start in ("components", "random"))
    assert all(np.array_equal(one[name], two[name]) for name in one if name.startswith("model.")) == alike


def test_a_file_without_splits_has_those_that_training_gave_it(tmp_path: Path) -> None:
    path = write_motion(tmp_path / "motion.h5", [9] * 30)
    config: dict[str, dict[str, float]] = {"data": {"val_fraction": 0.2, "seed": 3}}
    tokenizer: Any = SimpleNamespace(config=config)
    with MotionSet([path]) as motion:
        train, val = motion.select("train", tokenizer), motion.select("val", tokenizer)
        assert val == split_clips(motion, 0.2, 3).val
        assert sorted(train + val) == list(range(30))
        with pytest.raises(DataError, match="has no clip in split 'test'"):
            motion.select("test", tokenizer)
        with pytest.raises(DataError, match="does not say which clips"):
            motion.select("val")
        config["data"]["val_fraction"] = 0
        with pytest.raises(DataError, match="does not say which clips"):
            motion.select("val", tokenizer)
