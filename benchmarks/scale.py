"""What many small clips cost: time and memory of stats, encode, shards, merge and inspect-codebook. What workers gain.

    python benchmarks/scale.py [CLIPS] [SHARDS]
    python benchmarks/scale.py --workers 2 RUN MOTION [SOURCE]

Makes CLIPS (100,000) clips of 8 to 31 frames of 6 columns, random walks, in a folder of the current one that is removed
at the end, trains a small tokenizer on some of them, and runs each command in a process of its own. The merged shards
(4) must be the bytes of the serial run.

With --workers N: encode, decode and evaluate of MOTION, and import of SOURCE, by one process with one thread, by one
with N threads (where there are as many cores), and by N workers with a thread each; in every round each once, one after
the other. Told are the seconds and CPU seconds (medians), and how many times as long one process with one thread takes
(median, smallest and largest of the rounds). What the workers make must be the bytes, or the numbers, of one process
with one thread.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
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


@dataclass
class Ran:
    """A command that ended well: its seconds, those of CPU with its workers', the largest one's memory, its stdout."""

    seconds: float
    cpu: float
    megabytes: float
    said: bytes


def ran(*words: object) -> Ran:
    """Run a command in a process of its own."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([sys.executable, "-m", "vqtool", *map(str, words)], stdout=said)
        _, status, usage = os.wait4(process.pid, 0)  # with the children that it waited for
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, (words, process.returncode)
        said.seek(0)
        cpu = usage.ru_utime + usage.ru_stime
        return Ran(time.monotonic() - begin, cpu, usage.ru_maxrss / 1024, said.read())


def run(name: str, *words: object) -> None:
    """Run a command and print what it took."""
    took = ran(*words)
    print(f"{name:18} {took.seconds:7.1f} s  {took.cpu:7.1f} s of CPU  peak {took.megabytes:6,.0f} MB", flush=True)


def figures(said: bytes) -> dict[str, object]:
    """What --json printed, without what differs from run to run."""
    return {key: value for key, value in json.loads(said).items() if key not in ("output", "files", "seconds")}


def shared(count: int, rounds: int, run_folder: str, motion: str, source: str | None) -> None:
    """Compare one process and several workers."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        commands = {
            "encode": ["encode", run_folder, motion],
            "decode": ["decode", run_folder, folder / "encode.1.h5"],
            "evaluate": ["evaluate", run_folder, motion],
        } | ({} if source is None else {"import": ["import", source]})
        for command, words in commands.items():
            threads: list[object] = ["--threads", count] if command != "import" else []
            ways = {"1 process": ["--threads", 1] if threads else []}
            if threads and len(os.sched_getaffinity(0)) >= count:
                ways[f"1 process, {count} threads"] = threads
            ways[f"{count} workers"] = [*threads, "--workers", count]
            found: dict[str, list[Ran]] = {way: [] for way in ways}
            for _ in range(rounds):
                for number, (way, more) in enumerate(ways.items(), 1):
                    output = ["-o", folder / f"{command}.{number}.h5", "--force"] * (command != "evaluate")
                    found[way].append(ran(*words, *more, *output, "--json", "-q"))
            first, last = f"{command}.1.h5", f"{command}.{len(ways)}.h5"
            same = figures(found["1 process"][0].said) == figures(found[f"{count} workers"][0].said)
            assert same, command
            assert command == "evaluate" or filecmp.cmp(folder / first, folder / last, shallow=False), command
            for way, took in found.items():
                seconds, cpu = (statistics.median(getattr(one, name) for one in took) for name in ("seconds", "cpu"))
                gains = [one.seconds / this.seconds for one, this in zip(found["1 process"], took, strict=True)]
                gain = f"{statistics.median(gains):5.2f} times as fast ({min(gains):.2f}..{max(gains):.2f})"
                print(f"{command:9} {way:20} {seconds:7.1f} s  {cpu:7.1f} s of CPU  {gain}", flush=True)


def many_clips(clips: int, shards: int) -> None:
    """Make the clips and run the commands."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        motion, few, model = folder / "motion.h5", folder / "few.h5", folder / "run"
        write_clips(few, 1000)
        begin = time.monotonic()
        frames = write_clips(motion, clips)
        seconds, size = time.monotonic() - begin, motion.stat().st_size / 1e6
        print(f"{clips:,} clips, {frames:,} frames, {size:,.0f} MB, made in {seconds:.1f} s", flush=True)
        small = ["--set", "model.width=32", "--set", "model.depth=1", "--set", "bottleneck.codebook_size=64"]
        run("train (1,000)", "train", few, "-o", model, "--steps", 20, *small, "-q")
        run("stats", "stats", motion)
        run("encode", "encode", model, motion, "-o", folder / "whole.h5", "-q")
        paths = [folder / f"{index}.h5" for index in range(shards)]
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


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORD", help="CLIPS and SHARDS; with --workers RUN, MOTION, SOURCE")
    parser.add_argument("--workers", type=int, metavar="N", help="compare one process and N workers")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if asked.workers is None:
        clips, shards = [*asked.words, *["100000", "4"][len(asked.words) :]]
        many_clips(int(clips), int(shards))
    else:
        shared(asked.workers, asked.rounds, *[*asked.words, None][:3])


if __name__ == "__main__":
    main()
