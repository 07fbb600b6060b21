"""A training watched: what metrics.jsonl tells, the panel, `inspect-codebook --watch`, and trackers."""

import io
import json
import signal
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vqtool.cli import main
from vqtool.cli.codebook_view import Drawing
from vqtool.cli.training_view import LivePanel, _lines
from vqtool.config import build_config, to_toml
from vqtool.errors import DataError, UsageError
from vqtool.monitor import Monitor, new_records, told
from vqtool.nn.trackers import make_trackers, scalars
from vqtool.publish import lock

SMALL = ["--set", "model.width=8", "--set", "model.depth=1", "--set", "model.latent_dim=8", "--threads", "1"]
TRAIN = ["train", "sample_data/humanoid.h5", "--model", "vq", "--steps", "4", *SMALL]
TRAIN += ["--set", "bottleneck.codebook_size=8"]


def val(step: int, nmse: float, usage: float = 0.9, perplexity: float = 100.0) -> dict[str, Any]:
    return {"step": step, "split": "val", "nmse": nmse, "nmae": 0.1, "usage": [usage], "perplexity": [perplexity]}


def loss(step: int, value: float = 0.5) -> dict[str, Any]:
    return {"step": step, "split": "train", "lr": 1e-3, "loss": value}


def monitor(*records: dict[str, Any]) -> Monitor:
    found = Monitor(1000, 100)
    for record in records:
        found.add(record)
    return found


# what is known


@pytest.mark.parametrize(
    ("records", "status"),
    [
        ([loss(50)], "too early"),
        ([val(100, 0.5), val(200, 0.4)], "healthy"),
        ([val(100, 0.5, 0.9, 200), val(200, 0.4, 0.4, 90)], "collapsing"),
        ([val(100, 0.5, 0.1, 20)], "few codes used"),
        ([val(100, 0.3), val(200, 0.5)], "over-fitting"),
    ],
)
def test_the_verdict_of_a_training(records: list[dict[str, Any]], status: str) -> None:
    assert monitor(*records).verdict[0] == status


def test_time_left_is_that_of_the_speed_of_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 200.0, 210.0])
    monkeypatch.setattr("vqtool.monitor.time.monotonic", lambda: next(clock))
    found = Monitor(1000, 100)
    for step in (10, 20, 30, 50):
        found.stepped(step, 0.5)
    assert found.steps_per_second == pytest.approx(20 / 10)  # of the last minute: 30 to 50
    assert found.seconds_left == pytest.approx(950 / 2)


def test_a_step_that_was_seen_counts_once() -> None:
    found = Monitor(100, 50)
    found.stepped(50, 0.3)
    found.add(loss(50, 0.3))
    assert found.losses == [0.3]


def test_only_whole_lines_are_read_and_each_once(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    assert new_records(metrics, 0) == ([], 0)
    metrics.write_text(json.dumps(loss(50)) + "\n" + '{"step": 1')
    records, position = new_records(metrics, 0)
    assert records == [loss(50)]
    metrics.write_text(json.dumps(loss(50)) + "\n" + json.dumps(val(100, 0.5)) + "\n")
    assert new_records(metrics, position)[0] == [val(100, 0.5)]
    metrics.write_text(json.dumps(loss(1)) + "\n")  # begun anew
    assert new_records(metrics, position + 200)[0] == [loss(1)]


def test_lines_of_others_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"loss": 3}\n')
    with pytest.raises(DataError, match="not vqtool's"):
        new_records(tmp_path / "metrics.jsonl", 0)


# the panel


@pytest.mark.parametrize("width", [44, 60, 80, 120])
def test_the_panel_has_a_line_for_each_layer_that_fits(width: int) -> None:
    found = monitor(*(loss(step) for step in range(1, 90)), val(100, 0.5, 0.9, 200.0), val(200, 0.4, 0.8, 150.0))
    console = Console(file=io.StringIO(), width=500)
    draw = Drawing(Console(file=io.StringIO(), width=width))
    console.print(*_lines(found, "runs/x", draw), sep="\n", soft_wrap=True)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    (layer,) = (line for line in lines if line.startswith("layer 0"))
    assert "80 % used, perplexity 150" in layer


def test_a_pipe_and_a_dumb_terminal_get_no_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LivePanel.on(io.StringIO(), build_config({}), Path("runs/x")) is None
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert LivePanel.on(screen, build_config({}), Path("runs/x")) is None


def test_a_terminal_gets_a_panel_and_notes_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    panel = LivePanel.on(screen, build_config({"train.steps": 100}), Path("runs/x"))
    assert panel is not None
    panel.write("a note")
    panel.stepped(7, 0.25)
    panel.close()
    text = screen.getvalue()
    assert "a note" in text and "7 of 100" in text and "0.2500" in text


# --watch


def run_folder(path: Path) -> Path:
    path.mkdir()
    (path / "config.toml").write_text(to_toml(build_config({"train.steps": 100})))
    (path / "metrics.jsonl").write_text(json.dumps(loss(50)) + "\n")
    return path


def test_watching_ends_with_the_run_and_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    run = tmp_path / "run"
    assert main([*TRAIN, "-o", str(run), "-q"]) == 0
    capsys.readouterr()
    assert main(["inspect-codebook", str(run), "--watch", "--top", "0"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("step 4: loss ")
    assert "step 4: validation nMSE" in said
    assert "nobody trains" not in said
    assert "verdict" in said


def test_watching_ends_at_a_signal_as_other_commands_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []
    monkeypatch.setattr("vqtool.cli._die_by", lambda signum, message: ended.append(signum) or 128 + signum)
    run = run_folder(tmp_path / "run")
    threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]).start()
    begin = time.monotonic()
    assert main(["inspect-codebook", str(run), "--watch"]) == 130
    assert ended == [signal.SIGINT] and time.monotonic() - begin < 30


@pytest.mark.parametrize("held", [True, False])
def test_watching_tells_once_that_nobody_trains(
    held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("vqtool.cli._die_by", lambda signum, message: 128 + signum)
    monkeypatch.setattr("vqtool.cli.training_view.WATCH_SECONDS", 0.1)
    run = run_folder(tmp_path / "run")
    threading.Timer(0.8, signal.raise_signal, [signal.SIGINT]).start()
    if held:
        with lock(run):
            main(["inspect-codebook", str(run), "--watch"])
    else:
        main(["inspect-codebook", str(run), "--watch"])
    assert capsys.readouterr().out.count("nobody trains this run now") == (0 if held else 1)


def test_what_is_no_run_cannot_be_watched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect-codebook", str(tmp_path), "--watch"]) == 66
    assert main(["inspect-codebook", str(tmp_path), "--watch", "--json"]) == 2
    assert "metrics.jsonl" in capsys.readouterr().err


# trackers


def test_a_line_becomes_a_number_for_each_layer() -> None:
    found = dict(scalars({"step": 5, "split": "val", "nmse": 0.5, "usage": [0.9, 0.8]}))
    assert found == {"val/nmse": 0.5, "val/usage/layer0": 0.9, "val/usage/layer1": 0.8}
    assert told({**loss(5), "loss": 0.25}) == "step 5: loss 0.2500"


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_whose_package_is_missing_is_one_line_before_training(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setitem(sys.modules, name, None)
    assert main([*TRAIN, "-o", str(tmp_path / "run"), "-q", "--log-to", name]) == 2
    said = capsys.readouterr().err
    assert f"pip install 'vqtool[{name}]'" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="tensorboard or wandb, not 'neptune'"):
        make_trackers(["neptune"], tmp_path, build_config({}), resume=False)


class FakeRun:
    """What wandb.init gives."""

    id = "abc"

    def __init__(self, told: list[Any]) -> None:
        self.told = told

    def log(self, values: dict[str, float], step: int) -> None:
        self.told.append((step, sorted(values)))

    def finish(self) -> None:
        self.told.append("finished")


def test_wandb_gets_every_line_offline_and_a_resumed_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.delenv("WANDB_MODE", raising=False)
    begun: list[dict[str, Any]] = []
    got: list[Any] = []
    fake = types.ModuleType("wandb")

    def init(**options: Any) -> FakeRun:
        (Path(options["dir"]) / "wandb").mkdir(exist_ok=True)
        begun.append(options)
        return FakeRun(got)

    fake.init, fake.Settings = init, lambda **options: options  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    arguments = [*TRAIN, "-o", str(tmp_path / "run"), "-q", "--log-to", "wandb"]
    assert main(arguments) == 0
    assert [one[0] for one in got[:-1]] == [4, 4] and got[-1] == "finished"
    assert "train/loss" in got[0][1] and "val/perplexity/layer0" in got[1][1]
    assert begun[0]["mode"] == "offline" and begun[0]["id"] is None
    (tmp_path / "run" / "tokenizer.safetensors").unlink()
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        (folder / "state.safetensors").unlink()
    assert main([*arguments, "--resume"]) == 0
    assert begun[1]["id"] == "abc" and begun[1]["resume"] == "allow"


def test_a_tracker_that_fails_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))  # has no init
    assert main([*TRAIN, "-o", str(tmp_path / "run"), "-q", "--log-to", "wandb"]) == 0
    assert "training goes on without it" in capsys.readouterr().err
    assert (tmp_path / "run" / "tokenizer.safetensors").exists()


def test_tensorboard_gets_what_metrics_jsonl_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(Path(__file__).parents[1])
    run = tmp_path / "run"
    assert main([*TRAIN, "-o", str(run), "-q", "--log-to", "tensorboard"]) == 0
    found = EventAccumulator(str(run / "tensorboard")).Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    wanted = {name: value for line in lines for name, value in scalars(line)}
    assert {tag: found.Scalars(tag)[-1].value for tag in found.Tags()["scalars"]} == pytest.approx(wanted, rel=1e-6)
    assert main([*TRAIN, "-o", str(run), "-q", "--log-to", "tensorboard", "--force"]) == 0
    assert len(list((run / "tensorboard").iterdir())) == 1  # the old one went with the old run
