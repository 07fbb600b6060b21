"""Shared fixtures: small motion files, and one small trained run of each model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

# Before torch starts: the networks of the tests are so small that a second thread only waits for the first.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from motion_samples import smooth, write

from vqtool.cli import main
from vqtool.config import Config, build_config
from vqtool.store import MotionSet, create_motion

Run = Callable[..., tuple[int, str, str]]

SMALL = {
    "model.width": 16,
    "model.latent_dim": 8,
    "model.depth": 2,
    "train.steps": 40,
    "train.batch_size": 8,
    "train.window": 32,
    "train.eval_every": 20,
    "train.checkpoint_every": 20,
}
CODES = {"bottleneck.codebook_size": 16}
OPTIONS = {
    "vae": {"bottleneck.dim": 4},
    "vq": CODES,
    "rvq": {**CODES, "bottleneck.num_quantizers": 3},
    "fsq": {"bottleneck.codebook_size": 256},
    "product": {**CODES, "bottleneck.num_quantizers": 4, "model.parts": {"arm": "0:3", "hand": "3:5"}},
}


def waves(length: int, dim: int = 5, seed: int = 0) -> np.ndarray:
    """Smooth motion [length, dim] float32 whose last column does not move."""
    random = np.random.default_rng(seed)
    time = np.arange(length)[:, None] / 30
    frequency, phase = random.uniform(0.2, 2.0, dim), random.uniform(0, 6, dim)
    motion = np.sin(time * frequency * 6 + phase) * random.uniform(0.5, 20, dim) + random.normal(0, 5, dim)
    motion[:, -1] = 7.25
    return motion.astype(np.float32)


def write_motion(path: Path, lengths: Sequence[int], dim: int = 5, fps: float = 30) -> Path:
    """A motion.h5 of clips of those lengths."""
    with create_motion(path, dim=dim, fps=fps, total_frames=sum(lengths)) as writer:
        for number, length in enumerate(lengths):
            writer.append(f"clip_{number:02d}", waves(length, dim, seed=number))
    return path


def small_config(model: str, **changes: object) -> Config:
    """The config of a training that takes a second; changes as train__steps=5."""
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return build_config(SMALL, OPTIONS[model], {"model.bottleneck": model}, given)


class Silent:
    """A training report that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.records: list[object] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.notes.append(text)

    def stepped(self, step: int, steps: int, loss: float) -> None:
        self.steps.append(step)

    def evaluated(self, record: object) -> None:
        self.records.append(record)

    def logged(self, record: object) -> None: ...


@pytest.fixture(scope="session", autouse=True)
def quick_starts() -> Iterator[None]:
    """Components and k-means see no more than they need: drawing 16,384 takes longer than the rest of a training."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vqtool.nn.learner.INIT_SAMPLES", 1)
        yield


@pytest.fixture(scope="session")
def motion_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips, among them ones of 0, 1 and 3 frames."""
    lengths = [0, 1, 3, 40, 41, 64, 65, 130, 200, 260, 333, 500]
    return write_motion(tmp_path_factory.mktemp("motion") / "motion.h5", lengths)


@pytest.fixture(scope="session")
def trained(motion_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """trained("rvq") is the run folder of a small model, trained once a session."""
    folder = tmp_path_factory.mktemp("runs")

    def get(model: str) -> Path:
        from vqtool.nn.trainer import train

        run = folder / model
        if not run.exists():
            with MotionSet([motion_path]) as motion:
                train(small_config(model), motion, run, Silent(), device="cpu")
        return run

    return get


@pytest.fixture(scope="session")
def walks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of three layers, and the motion of layout joints that it was trained on."""
    from vqtool.nn.trainer import train

    folder = tmp_path_factory.mktemp("walks")
    for number in range(5):
        write(folder / "mocap" / f"walk.{number}.bvh", smooth(40 + 30 * number, number))
    assert main(["import", str(folder / "mocap"), "-o", str(folder / "motion.h5"), "-q"]) == 0
    with MotionSet([folder / "motion.h5"]) as motion:
        train(small_config("rvq"), motion, folder / "run", Silent(), device="cpu")
    return folder / "run", folder / "motion.h5"


def vqtool(*words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "vqtool", *map(str, words)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """run("encode", ...) in this process, in tmp_path: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def mocap(tmp_path: Path) -> Path:
    """A folder of five BVH clips in two subfolders, and a file that is none."""
    for number in range(5):
        write(tmp_path / "mocap" / f"day{number % 2}" / f"walk.{number}.bvh", smooth(40 + number, number))
    (tmp_path / "mocap" / "readme.txt").write_text("not motion")
    return tmp_path / "mocap"
