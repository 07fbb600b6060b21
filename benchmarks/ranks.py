"""What a training step costs on several ranks, and how far the losses come apart.

    python benchmarks/ranks.py MOTION [--ranks 1 2] [--steps 40] [--rounds 3] [--set KEY=VALUE ...]

Trains by torchrun on each number of ranks, a thread each, with twice as many steps and with four times: what the second
training takes more, by its further steps, is a step, without the start. Each in every round once, one after the other.
Told are the medians of seconds, of CPU seconds of all ranks, and of the memory of the largest rank; how many times as
fast a step is as on the first number of ranks (median, smallest and largest of the rounds); and the loss at the last
step. Ranks fill cores: with fewer cores than ranks look at the CPU seconds only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Training:
    """What one took: seconds, CPU seconds of all ranks, MB of the largest process; and its last loss."""

    seconds: float
    cpu: float
    megabytes: float
    loss: float


def trained(ranks: int, steps: int, motion: str, settings: list[str], folder: Path) -> Training:
    """A training in processes of its own."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "-m", "vqtool"]
    words = ["train", motion, "-o", str(folder / "run"), "--steps", str(steps), "--threads", "1", "--force", "-q"]
    words += ["--set", "train.eval_every=1000000", *(word for one in settings for word in ("--set", one))]
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, *launcher, *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (ranks, process.returncode)
    records = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    loss = [record["loss"] for record in records if record["split"] == "train"][-1]
    return Training(time.monotonic() - begin, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, loss)


def main() -> None:
    """Read the command line, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("motion")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    asked = parser.parse_args()
    few, many = 2 * asked.steps, 4 * asked.steps
    found: dict[int, list[tuple[float, float, Training]]] = {ranks: [] for ranks in asked.ranks}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(asked.rounds):
            for ranks in asked.ranks:
                short, long = (trained(ranks, steps, asked.motion, asked.settings, Path(name)) for steps in (few, many))
                each = [(getattr(long, what) - getattr(short, what)) / (many - few) for what in ("seconds", "cpu")]
                found[ranks].append((each[0], each[1], long))
    base = found[asked.ranks[0]]
    for ranks, rounds in found.items():
        seconds, cpu = (1000 * statistics.median(one[place] for one in rounds) for place in (0, 1))
        memory = statistics.median(one[2].megabytes for one in rounds)
        gains = [first[0] / this[0] for first, this in zip(base, rounds, strict=True)]
        gain = f"{statistics.median(gains):.2f} times as fast ({min(gains):.2f}..{max(gains):.2f})"
        losses = ", ".join(sorted({f"{one[2].loss:.6f}" for one in rounds}))
        print(
            f"{ranks} ranks  {seconds:6.0f} ms a step  {cpu:6.0f} ms of CPU  {memory:5,.0f} MB  {gain}  "
            f"loss after {many} steps {losses}",
            flush=True,
        )


if __name__ == "__main__":
    main()
