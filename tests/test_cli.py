"""The command line: what it loads, what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, vqtool, waves, write_motion

from vqtool.cli.command import COMMANDS as NAMES
from vqtool.cli.options import Meter
from vqtool.store import MotionSet, create_motion
from vqtool.tokenizer_file import read_tokenizer

Trained = Callable[[str], Path]
COMMANDS = [name for name in NAMES if name != "edit"]  # whose help names its own commands
ROOT = Path(__file__).parents[1]
SMALL_RUN = ["--set", "model.width=16", "--set", "model.latent_dim=8", "--set", "bottleneck.codebook_size=16"]


def loaded_by(*words: str) -> set[str]:
    """The top-level modules that a command line loads."""
    code = (
        "import sys; from vqtool.cli import main; main(sys.argv[1:]); "
        "print('MODULES', *{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, timeout=60)
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["encode", "-h"], ["inspect-codebook", "--help"]])
def test_help_loads_neither_torch_nor_h5py_nor_numpy(words: list[str]) -> None:
    assert not loaded_by(*words) & {"torch", "h5py", "numpy", "matplotlib"}


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import vqtool, sys; print(sorted({'torch', 'h5py', 'numpy', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_inspecting_tokens_loads_no_torch(trained: Trained, motion_path: Path, tmp_path: Path) -> None:
    assert vqtool("encode", trained("rvq"), motion_path, "-o", tmp_path / "t.h5").returncode == 0
    found = loaded_by("inspect-codebook", str(tmp_path / "t.h5"))
    assert "h5py" in found
    assert "torch" not in found


@pytest.mark.parametrize("command", ["train", "encode RUN", "evaluate RUN"])
def test_motion_with_a_nan_is_refused_before_torch_is_loaded(
    command: str, trained: Trained, with_a_nan: Path, tmp_path: Path
) -> None:
    words = command.replace("RUN", str(trained("vq"))).split()
    output = [] if words[0] == "evaluate" else ["-o", str(tmp_path / "out")]
    assert vqtool(*words, with_a_nan, *output).returncode == 65
    assert "torch" not in loaded_by(*words, str(with_a_nan), *output)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_ends_its_help_with_an_example_and_stands_in_the_docs(command: str) -> None:
    page = vqtool(command, "--help")
    assert f"Example: vqtool {command} " in " ".join(page.stdout.split())
    docs = "".join(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))
    assert f"## vqtool {command}\n" in docs


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("encode", "RUN MOTION..."),
        ("play", "MOTION"),
        ("inspect-codebook", "RUN|TOKENS [RUN|TOKENS]"),
        ("edit splice", "TOKENS RANGE..."),
    ],
)
def test_the_usage_names_arguments_as_manuals_do(command: str, usage: str) -> None:
    assert vqtool(*command.split(), "--help").stdout.startswith(f"Usage: vqtool {command} [OPTIONS] {usage}\n")


def test_an_option_without_its_value_leads_to_the_help_of_its_command() -> None:
    done = vqtool("import", "a.bvh", "-o")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "vqtool import --help" in done.stderr


@pytest.mark.parametrize("word", ["0", "maybe"])
def test_only_a_yes_in_the_variable_asks_for_a_traceback(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQTOOL_DEBUG", word)
    done = vqtool("--nosuch")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("model", ["vae", "vq", "rvq", "fsq", "product"])
def test_a_motion_file_becomes_tokens_and_motion_again(model: str, run: Run, tmp_path: Path) -> None:
    motion = write_motion(tmp_path / "motion.h5", [0, 1, 30, 90, 150])
    small = SMALL_RUN if model in ("vq", "rvq", "product") else SMALL_RUN[:4]

    def result(*words: object) -> dict[str, object]:
        code, out, errors = run(*words, "--json")
        assert code == 0, errors
        found = json.loads(out)
        assert found["schema_version"] == 1
        return found

    assert result("train", motion, "-o", "runs/r", "--model", model, "--steps", 20, "-q", *small)["steps"] == 20
    encoded = result("encode", "runs/r", motion, "-o", "tokens.h5", "-q")
    assert (encoded["clips"], encoded["frames"]) == (5, 271)
    result("inspect-codebook", "tokens.h5")
    result("inspect-codebook", "runs/r")
    assert result("decode", "runs/r", "tokens.h5", "-o", "decoded.h5", "-q")["frames"] == 271
    found = result("evaluate", "runs/r", motion, "-q")
    scale = read_tokenizer(Path("runs/r")).tensors["model.normalizer.scale"]
    with MotionSet([motion]) as before, MotionSet([tmp_path / "decoded.h5"]) as after:
        assert before.names == after.names
        errors = [((before.read(i) - after.read(i)) / scale)[:, :4] for i in range(5)]
    assert np.square(np.concatenate(errors)).mean() == pytest.approx(found["nmse"], rel=1e-4)


def test_any_hdf5_file_can_be_trained_on_and_encoded(run: Run) -> None:
    import h5py

    with h5py.File("robot.hdf5", "w") as file:
        for number in range(3):
            file[f"data/demo_{number}/actions"] = waves(60, seed=number).astype(np.float64)
            file[f"data/demo_{number}/obs/eef"] = waves(60, dim=3, seed=number)
    where = ["--dataset", "data/*/actions", "--fps", "20"]
    assert run("train", "robot.hdf5", "-o", "run", "--steps", "5", "-q", *where, *SMALL_RUN)[0] == 0
    assert "3 clips, 180 frames -> 45 token frames" in run("encode", "run", "robot.hdf5", "-o", "t.h5", *where)[1]


def check_error(done: tuple[int, str, str], code: int, pattern: str) -> None:
    """One line on stderr, the right code, nothing on stdout."""
    found, out, errors = done
    assert found == code, errors
    assert re.fullmatch(rf"vqtool: error: .*{pattern}.*\n", errors), errors
    assert out == ""


@pytest.mark.parametrize(
    ("words", "code", "pattern"),
    [
        (["encode", "RUN", "MOTION", "--output"], 2, "requires an argument"),
        (["encode", "RUN", "MOTION", "-o", "t.h5", "--nonsense"], 2, "--nonsense"),
        (["frobnicate"], 2, "frobnicate"),
        (["encode", "RUN", "MOTION", "-o", "t.h5", "--numerics", "exact"], 2, "stable, fast, bfloat16, float64"),
        (["encode", "RUN", "MOTION", "-o", "t.h5", "--num-quantizers", "9"], 2, "has 3 layers"),
        (["encode", "RUN", "MOTION", "-o", "MOTION"], 2, "both input and output"),
        (["encode", "RUN", "MOTION", "-o", "t.h5", "--device", "abacus"], 2, "--device auto"),
        (["encode", "RUN", "RUN/config.toml", "-o", "t.h5"], 65, "not a readable HDF5 file"),
        (["encode", "RUN", "none.h5", "-o", "t.h5"], 66, "none.h5: no such file"),
        (["encode", "none", "MOTION", "-o", "t.h5"], 66, "none: no such file"),
        (["encode", "RUN", "MOTION", "-o", "no/such/t.h5"], 73, "does not exist; create it"),
        (["encode", "RUN", "MOTION", "-o", "RUN"], 73, "is a folder"),
        (["decode", "RUN", "MOTION", "-o", "out.h5"], 65, "vqtool.motion"),
        (["train", "MOTION", "-o", "run", "--set", "train.stpes=3"], 2, "did you mean 'train.steps'"),
        (["train", "MOTION", "-o", "run", "--model", "gan"], 2, "vae, vq, rvq, fsq"),
        (["train", "MOTION", "-o", "run", "--set", "bottleneck.codebok_size=3"], 2, "it takes num_quantizers"),
        (["train", "MOTION", "-o", "RUN"], 73, "--resume"),
        (["inspect-codebook", "none.h5"], 66, "no such file"),
        (["evaluate", "RUN", "MOTION", "--split", "test"], 65, "has no clip in split 'test'"),
        (["stats", "MOTION", "--split", "test"], 65, "leave --split out"),
        (["report", "RUN", "MOTION", "-o", "r.pdf"], 2, "a report is a .html page"),
    ],
)
def test_a_mistake_is_one_clear_line_and_its_own_exit_code(
    words: list[str], code: int, pattern: str, trained: Trained, motion_path: Path, run: Run, tmp_path: Path
) -> None:
    places = {"RUN": str(trained("rvq")), "MOTION": str(motion_path)}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    check_error(run(*words), code, pattern)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_is_refused_and_stays(trained: Trained, motion_path: Path, run: Run) -> None:
    Path("t.h5").write_text("mine")
    check_error(run("encode", trained("vq"), motion_path, "-o", "t.h5"), 73, "add --force")
    assert Path("t.h5").read_text() == "mine"


@pytest.fixture
def with_a_nan(tmp_path: Path) -> Path:
    with create_motion(tmp_path / "bad.h5", dim=5, fps=30) as writer:
        writer.append("good", waves(40))
        frames = waves(40)
        frames[11, 2] = np.nan
        writer.append("walk/bad", frames)
    return tmp_path / "bad.h5"


def test_a_nan_stops_encoding_naming_clip_and_frame(trained: Trained, with_a_nan: Path, run: Run) -> None:
    done = run("encode", trained("rvq"), with_a_nan, "-o", "t.h5")
    check_error(done, 65, r"bad.h5:frames clip walk/bad frame 11: column 2 is nan")
    assert not Path("t.h5").exists()


def test_on_error_skip_encodes_the_rest_and_says_so(trained: Trained, with_a_nan: Path, run: Run) -> None:
    code, out, errors = run("encode", trained("rvq"), with_a_nan, "-o", "t.h5", "--on-error", "skip")
    assert code == 3
    assert "skipped: " in errors
    assert "1 clip, 40 frames -> 10 token frames" in out


def test_tokens_of_another_run_are_refused_with_76(trained: Trained, motion_path: Path, run: Run) -> None:
    assert run("encode", trained("vq"), motion_path, "-o", "t.h5")[0] == 0
    check_error(run("decode", trained("rvq"), "t.h5", "-o", "out.h5"), 76, "was made by tokenizer")


def test_flipped_bits_in_tokens_are_refused(trained: Trained, motion_path: Path, run: Run) -> None:
    assert run("encode", trained("vq"), motion_path, "-o", "t.h5")[0] == 0
    import h5py

    with h5py.File("t.h5", "r+") as file:
        codes = file["codes"][:]
        codes[3, 0] ^= 1
        file["codes"][:] = codes
    check_error(run("decode", trained("vq"), "t.h5", "-o", "o.h5"), 65, "SHA-256")


def test_a_closed_pipe_ends_quietly(trained: Trained) -> None:
    command = f"{sys.executable} -m vqtool inspect-codebook {trained('rvq')} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in which vqtool stands for the command line."""
    command = command.replace("vqtool", f"{sys.executable} -m vqtool")
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, timeout=60)


@pytest.mark.parametrize(
    ("command", "code", "errors"),
    [
        ("vqtool stats MOTION > /dev/full", 74, "vqtool: error: output: No space left on device\n"),
        ("vqtool stats MOTION --json > /dev/full", 74, "vqtool: error: output: No space left on device\n"),
        ("vqtool stats MOTION >&-", 0, ""),
        ("vqtool stats MOTION <&- >&- 2>&-", 0, ""),
        ("vqtool stats none.h5 2>&-", 66, ""),
        ("vqtool stats none.h5 2>/dev/full", 66, ""),
    ],
)
def test_closed_and_full_streams_end_in_one_line_at_most(
    command: str, code: int, errors: str, motion_path: Path
) -> None:
    done = shell(command.replace("MOTION", str(motion_path)))
    assert (done.returncode, done.stderr) == (code, errors)


def test_work_goes_on_when_nobody_reads_its_progress(trained: Trained, motion_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.h5"
    done = shell(
        f"vqtool encode {trained('vq')} {motion_path} -o {out} 2>&1 >/dev/null | true; echo ${{PIPESTATUS[0]}}"
    )
    assert (done.stdout, out.exists()) == ("0\n", True)


@pytest.mark.parametrize("variable", ["GITHUB_ACTIONS", "FORCE_COLOR"])
def test_a_pipe_gets_no_colour(variable: str, trained: Trained) -> None:
    for words in (["--help"], ["inspect-codebook", trained("rvq")]):
        done = vqtool(*words, **{variable: "1"})
        assert done.returncode == 0
        assert "\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_training_with_its_state_saved(number: signal.Signals, tmp_path: Path) -> None:
    motion = write_motion(tmp_path / "m.h5", [60, 90])
    words = ["train", motion, "-o", tmp_path / "run", "--steps", "100000", *SMALL_RUN]
    process = subprocess.Popen(
        [sys.executable, "-m", "vqtool", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == -number
    assert "with --resume goes on" in errors
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*"))) == 1


def test_version_names_torch_and_hdf5() -> None:
    assert re.fullmatch(r"vqtool \S+ \(torch \S+, h5py \S+, HDF5 \S+, Python \S+\)\n", vqtool("--version").stdout)


def test_a_bare_command_shows_help_and_fails() -> None:
    done = vqtool()
    assert done.returncode == 2
    assert "inspect-codebook" in done.stdout


def test_dry_run_of_train_shows_the_plan_and_writes_nothing(motion_path: Path, run: Run, tmp_path: Path) -> None:
    assert "parameters" in run("train", motion_path, "-o", "run", "--dry-run")[1]
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_encode_counts_tokens(trained: Trained, motion_path: Path, run: Run, tmp_path: Path) -> None:
    assert "413 token frames x 3 layers" in run("encode", trained("rvq"), motion_path, "-o", "t.h5", "--dry-run")[1]
    assert list(tmp_path.iterdir()) == []


def test_settings_come_from_file_then_environment_then_set_then_option(
    motion_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("c.toml").write_text("[train]\nsteps = 9\nlr = 0.009\nwindow = 16\nbatch_size = 4\n")
    monkeypatch.setenv("VQTOOL_TRAIN_WINDOW", "32")
    monkeypatch.setenv("VQTOOL_TRAIN_LR", "0.2")
    words = ["train", motion_path, "-o", "run", "--config", "c.toml", "--steps", "2", "--set", "train.lr=0.001"]
    assert run(*words, "-q", *SMALL_RUN)[0] == 0
    train = tomllib.loads(Path("run/config.toml").read_text())["train"]
    assert (train["steps"], train["lr"], train["window"], train["batch_size"]) == (2, 0.001, 32, 4)


@pytest.mark.parametrize("words", [["inspect-codebook", "RUN"], ["evaluate", "RUN", "MOTION", "-q"]])
def test_json_never_holds_nan(words: list[str], trained: Trained, motion_path: Path, run: Run) -> None:
    words = [word.replace("RUN", str(trained("vae"))).replace("MOTION", str(motion_path)) for word in words]
    json.loads(run(*words, "--json")[1], parse_constant=lambda text: pytest.fail(text))


def test_motion_of_another_skeleton_is_refused_though_it_has_as_many_columns(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "m.h5", "-q")[0] == 0
    assert run("train", "m.h5", "-o", "run", "--steps", "2", "-q", *SMALL_RUN)[0] == 0
    assert run("encode", "run", "m.h5", "-o", "t.h5", "-q")[0] == 0
    for path in mocap.rglob("*.bvh"):
        path.write_text(path.read_text().replace("JOINT Spine", "JOINT Belly"))
    assert run("import", mocap, "-o", "other.h5", "-q")[0] == 0
    pattern = "other.h5: has another skeleton than the tokenizer was trained on: .*Spine.*Belly"
    check_error(run("encode", "run", "other.h5", "-o", "o.h5", "-q"), 76, pattern)
    check_error(run("evaluate", "run", "other.h5", "-q"), 76, pattern)


def test_time_left_counts_neither_the_start_nor_what_was_done_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter(100, "step", quiet=False)
    now[0] = 60.0  # loading and statistics
    meter.add(39)  # of a run before
    meter.add(1)
    for _ in range(10):
        now[0] += 2.0
        meter.add(1)
    assert capsys.readouterr().err.splitlines() == ["vqtool:  46%  46 steps, 0.6 a second, 93 s left"]
