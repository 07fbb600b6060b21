"""Interleaved timing: in every round each job runs once, so that a slow second of the machine meets all of them."""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Job = Callable[[], object]


def interleaved(jobs: Mapping[str, Job], rounds: int = 7, least: float = 0.0) -> dict[str, list[float]]:
    """Seconds of each job in each round, after one round that is not counted.

    A job shorter than `least` seconds is repeated in a round as often as it takes, and its mean counts.
    """
    repeats = {}
    for name, job in jobs.items():
        job()
        repeats[name] = max(1, round(least / max(1e-9, _seconds(job, 1)))) if least else 1
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, job in jobs.items():
                seconds[name].append(_seconds(job, repeats[name]))
    finally:
        gc.enable()
    return seconds


def _seconds(job: Job, repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        job()
    return (time.perf_counter() - begin) / repeats


def process(*words: object) -> Job:
    """A Python process with those arguments that must end well; what it prints is dropped.

    It keeps bytecode, as an installed vqtool does: without, a small command would compile the package each time.
    """
    line = [sys.executable, *map(str, words)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return lambda: subprocess.run(line, check=True, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@dataclass
class Row:
    """A line of a table: a ratio of times, round by round, and the goal that was set for it."""

    what: str
    against: str
    ratios: Sequence[float]
    goal: str = ""  # ">= 3" or "<= 2", in times
    note: str = ""

    @property
    def ratio(self) -> float:
        """The median."""
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the goal; None without one."""
        if not self.goal:
            return None
        sign, bound = self.goal.split()
        return self.ratio >= float(bound) if sign == ">=" else self.ratio <= float(bound)


def faster(seconds: Mapping[str, Sequence[float]], ours: str, theirs: str) -> list[float]:
    """How many times as fast ours is, round by round."""
    return [b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True)]


def slower(seconds: Mapping[str, Sequence[float]], ours: str, limit: str) -> list[float]:
    """How many times as long ours takes, round by round."""
    return [a / b for a, b in zip(seconds[ours], seconds[limit], strict=True)]


def milliseconds(seconds: Sequence[float]) -> str:
    """The median, for a note."""
    value = 1000 * statistics.median(seconds)
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| what | against | times | smallest..largest | goal | reached | note |", "|" + "---|" * 7]
    for row in rows:
        reached = {True: "yes", False: "**no**", None: ""}[row.reached]
        spread = f"{min(row.ratios):.2f}..{max(row.ratios):.2f}"
        cells = row.what, row.against, f"{row.ratio:.2f}", spread, row.goal, reached, row.note
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
