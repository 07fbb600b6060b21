"""What is measured on: seeded synthetic motion, for speed does not ask what moves, and tokenizers trained one step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.config import Config, build_config
from vqtool.nn.trainer import train
from vqtool.presets import preset
from vqtool.store import MotionSet, create_motion

DIM = 251  # of 21 joints


class Silent:
    """A report of training that nobody reads."""

    def note(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def stepped(self, step: int, steps: int, loss: float) -> None: ...
    def evaluated(self, record: Mapping[str, Any]) -> None: ...

    def logged(self, record: Mapping[str, Any]) -> None: ...


def write_motion(path: Path, clips: int, dim: int = DIM, shortest: int = 38, longest: int = 410) -> Path:
    """Smooth random clips of uniformly drawn lengths, 30 fps; each column a few slow waves and a little noise."""
    random = np.random.default_rng(0)
    lengths = random.integers(shortest, longest + 1, clips)
    time = np.arange(longest, dtype=np.float32)[:, None] / 30
    with create_motion(path, dim=dim, fps=30.0, total_frames=int(lengths.sum()), force=True) as writer:
        for clip, length in enumerate(lengths.tolist()):
            speed, phase, size = random.uniform(0.3, 3, (3, dim)).astype(np.float32)
            frames = size * np.sin(speed * time[:length] + phase * 2)
            frames += 0.05 * random.standard_normal(frames.shape, np.float32)
            writer.append(f"clip_{clip:06d}", frames)
    return path


def config_of(model: str, **options: Any) -> Config:
    """Settings of a bottleneck's default model or of a preset, 64 windows a step."""
    chosen = preset(model) if model in ("t2m-gpt", "momask", "mld-vae") else {"model.bottleneck": model}
    return build_config(chosen, {"train.batch_size": 64, "train.continuous": 0.0} | options)


def tokenizer_of(model: str, motion: Path, folder: Path, **options: Any) -> Path:
    """The run folder of a model after one step of training: random weights, codebooks that fit them."""
    run = folder / f"run-{model}"
    with MotionSet([motion]) as clips:
        train(config_of(model, **{"train.steps": 1} | options), clips, run, Silent(), force=True, device="cpu")
    return run
