"""What many small clips cost: time and memory of stats, encode, shards, merge and inspect-codebook.

    python benchmarks/scale.py [CLIPS] [SHARDS]

Makes CLIPS (100,000) clips of 8 to 31 frames of 6 columns, random walks, in a folder of the current one that is removed
at the end, trains a small tokenizer on some of them, and runs each command in a process of its own. The merged shards
(4) must be the bytes of the serial run.
"""

from __future__ import annotations

import filecmp
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vqtool.store import create_motion

DIM = 6
BATCH = 10_000  # clips made at once


def write_clips(path: Path, count: int) -> int:
    """A motion.h5 of random walks; how many frames it has."""
    total = 0
    with create_motion(path, dim=DIM, fps=30) as writer:
        for first in range(0, count, BATCH):
            random = np.random.default_rng(first)
            lengths = random.integers(8, 32, min(BATCH, count - first))
            steps = np.cumsum(random.normal(size=(int(lengths.sum()), DIM)), axis=0).astype(np.float32)
            ends = np.cumsum(lengths)
            for clip, (start, stop) in enumerate(zip(ends - lengths, ends, strict=True), first):
                writer.append(f"take_{clip:07d}", steps[start:stop] - steps[start])
            total += len(steps)
    return total


def run(name: str, *words: object) -> None:
    """A command that ends well; prints its seconds, CPU seconds and peak memory."""
    begin = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "vqtool", *map(str, words)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, (words, process.returncode)
    seconds, cpu = time.monotonic() - begin, usage.ru_utime + usage.ru_stime
    print(f"{name:18} {seconds:7.1f} s  {cpu:7.1f} s of CPU  peak {usage.ru_maxrss / 1024:6,.0f} MB", flush=True)


def main(clips: str = "100000", shards: str = "4") -> None:
    """Make the clips and run the commands."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        motion, few, model = folder / "motion.h5", folder / "few.h5", folder / "run"
        write_clips(few, 1000)
        begin = time.monotonic()
        frames = write_clips(motion, int(clips))
        seconds, size = time.monotonic() - begin, motion.stat().st_size / 1e6
        print(f"{int(clips):,} clips, {frames:,} frames, {size:,.0f} MB, made in {seconds:.1f} s", flush=True)
        small = ["--set", "model.width=32", "--set", "model.depth=1", "--set", "bottleneck.codebook_size=64"]
        run("train (1,000)", "train", few, "-o", model, "--steps", 20, *small, "-q")
        run("stats", "stats", motion)
        run("encode", "encode", model, motion, "-o", folder / "whole.h5", "-q")
        paths = [folder / f"{index}.h5" for index in range(int(shards))]
        for index, path in enumerate(paths):
            run(f"shard {index}/{shards}", "encode", model, motion, "-o", path, "--shard", f"{index}/{shards}", "-q")
        run("merge", "merge", *paths, "-o", folder / "merged.h5", "-q")
        run("manifest", "merge", *paths, "-o", folder / "all.json", "-q")
        run("inspect, whole", "inspect-codebook", folder / "whole.h5")
        run("inspect, manifest", "inspect-codebook", folder / "all.json")
        same = filecmp.cmp(folder / "whole.h5", folder / "merged.h5", shallow=False)
        size = (folder / "whole.h5").stat().st_size / 1e6
        print(f"merged shards are the bytes of the serial run: {same}; {size:,.0f} MB of tokens")
        assert same


if __name__ == "__main__":
    main(*sys.argv[1:])
