"""How well our defaults and the published recipes give motion back, at equal compute and at equal steps.

    python benchmarks/reconstruction.py bandai.h5 -o results --core-minutes 60
    python benchmarks/reconstruction.py bandai.h5 -o results --steps 2000 --only vq t2m-gpt

Every tenth clip by name is held out. All models see the same windows, 64 of 64 frames a step (the recipes' own batch of
256 would leave them a quarter of the steps). With --core-minutes each model gets as many steps as fit into that much
processor time, data loading included: 60 are 30 minutes on two cores. Processor time, so that several may run side by
side, each with `--threads 1`. Each result becomes a line of OUTPUT/results.jsonl, and what is there already is not
trained again; the table of all is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vqtool.config import Config, build_config
from vqtool.nn.codec import load
from vqtool.nn.evaluation import Evaluation, evaluate
from vqtool.nn.trainer import train
from vqtool.presets import preset
from vqtool.splits import SPLITS
from vqtool.store import MotionSet, create_motion

OURS: dict[str, dict[str, Any]] = {
    "vq": {"model.bottleneck": "vq"},
    "rvq": {"model.bottleneck": "rvq"},
    "rvq 2": {"model.bottleneck": "rvq", "bottleneck.num_quantizers": 2},
    "rvq 4": {"model.bottleneck": "rvq", "bottleneck.num_quantizers": 4},
    "product 6": {"model.bottleneck": "product", "bottleneck.groups": 6},
    "fsq": {"model.bottleneck": "fsq"},
    "vae": {"model.bottleneck": "vae"},
}
THEIRS = {name: preset(name) for name in ("t2m-gpt", "momask", "mld-vae")}
MODELS = OURS | THEIRS
MEASURES = ("mpjpe_pose_mm", "mpjpe_aligned_mm", "mpjpe_mm", "velocity_error_mm_s")
TRIAL = 20  # steps by which the time of one is measured


class Quiet:
    """A report of training that prints now and then."""

    def note(self, text: str) -> None:
        """Nothing."""

    def warn(self, text: str) -> None:
        """Nothing."""

    def stepped(self, step: int, steps: int, loss: float) -> None:
        """A line every 100 steps."""
        if step % 100 == 0:
            print(f"  step {step} of {steps}, loss {loss:.4f}", flush=True)

    def evaluated(self, record: Mapping[str, Any]) -> None:
        """Nothing."""

    def logged(self, record: Mapping[str, Any]) -> None:
        """Nothing."""


@contextmanager
def held_out(path: Path) -> Iterator[Path]:
    """A copy of a motion file in which every tenth clip by name is for validation, and the others for training."""
    with tempfile.TemporaryDirectory() as folder, MotionSet([path]) as motion:
        rank = {name: number for number, name in enumerate(sorted(motion.names))}
        copy = Path(folder) / path.name
        frames = int(motion.lengths.sum())
        with create_motion(copy, dim=motion.dim, fps=motion.fps, layout=motion.layout, total_frames=frames) as writer:
            writer.companions = replace(motion.companions, splits=None)
            for clip, name in enumerate(motion.names):
                writer.append(name, motion.read(clip), SPLITS["train" if rank[name] % 10 else "val"])
        yield copy


def config_of(name: str, steps: int, seed: int = 0) -> Config:
    """The settings of a model for that many steps; a recipe's rise of the learning rate is cut to a tenth of them."""
    theirs = {"train.batch_size": 64, "train.lr_warmup": steps // 10} if name in THEIRS else {}
    common = {"train.steps": steps, "train.seed": seed, "train.eval_every": 10**9, "train.checkpoint_every": 10**9}
    return build_config(MODELS[name], theirs, common)


def trained(config: Config, motion: MotionSet, folder: Path, name: str) -> tuple[Evaluation, float]:
    """Errors on the clips held out, and the processor time of training, in seconds."""
    begin = time.process_time()
    train(config, motion, folder / name, Quiet(), force=True, device="cpu")
    seconds = time.process_time() - begin
    codec = load(folder / name, device="cpu", numerics="fast")
    return evaluate(codec, motion, motion.select("val"), measured=True), seconds


def steps_for(name: str, motion: MotionSet, folder: Path, seconds: float) -> int:
    """How many steps fit into so much processor time."""
    times = []
    for steps in (1, 1, 1 + TRIAL):  # the first time reads files that the others find in memory
        config = config_of(name, steps)
        config.train.continuous = 0.0
        begin = time.process_time()
        train(config, motion, folder / name, Quiet(), force=True, device="cpu")
        times.append(time.process_time() - begin)
    fixed, each = times[1], max(1e-3, (times[2] - times[1]) / TRIAL)
    return max(1, int((seconds - fixed) / each))


def row_of(found: Evaluation) -> dict[str, Any]:
    """What is told of a result."""
    assert found.measures is not None
    measures = found.measures.of_all()
    return {
        "nmse": found.nmse,
        **{name: measures[name] for name in MEASURES},
        "usage": [layer["used"] / layer["codebook_size"] for layer in found.layers],
        "perplexity": [layer["perplexity"] for layer in found.layers],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The results as a table in Markdown."""
    head = ["data", "budget", "model", "seed", "steps", "core min", "nMSE", "pose", "root-aligned", "path", "velocity"]
    lines = [[*head, "usage", "perplexity"], ["---"] * 13]
    for row in rows:
        usage = ", ".join(f"{share:.1%}" for share in row["usage"])
        used = ", ".join(f"{value:.0f}" for value in row["perplexity"])
        measures = [f"{row[name]:.1f}" for name in MEASURES]
        cells = [
            row["data"],
            row["budget"],
            row["model"],
            str(row.get("seed", 0)),
            f"{row['steps']:,}",
            f"{row['core_seconds'] / 60:.1f}",
        ]
        lines.append([*cells, f"{row['nmse']:.4f}", *measures, usage, used])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("motion", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--core-minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=["vq", "t2m-gpt", "rvq", "momask"])
    parser.add_argument("--seed", type=int, default=0, help="of weights, windows and codebooks")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    if (asked.core_minutes is None) == (asked.steps is None):
        parser.error("give --core-minutes or --steps")
    torch.set_num_threads(asked.threads)
    asked.output.mkdir(exist_ok=True)
    results = asked.output / "results.jsonl"
    budget = f"{asked.core_minutes:g} core minutes" if asked.steps is None else f"{asked.steps} steps"
    with held_out(asked.motion) as path, MotionSet([path]) as motion:
        for name in asked.only:
            done = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
            this = (name, budget, path.stem, asked.seed)
            if any((row["model"], row["budget"], row["data"], row.get("seed", 0)) == this for row in done):
                continue
            steps = asked.steps or steps_for(name, motion, asked.output, 60 * asked.core_minutes)
            print(f"{name}: {steps} steps", flush=True)
            found, seconds = trained(config_of(name, steps, asked.seed), motion, asked.output, name)
            row = {"model": name, "data": path.stem, "budget": budget, "seed": asked.seed, "steps": steps}
            row["core_seconds"] = round(seconds)
            with results.open("a") as file:
                file.write(json.dumps(row | row_of(found)) + "\n")
    print(table([json.loads(line) for line in results.read_text().splitlines()]))


if __name__ == "__main__":
    main()
