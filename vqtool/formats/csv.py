"""CSV files: a frame in each row, a column in each field, with or without a line of names.

A first column called time, timestamp or t, in seconds, is not motion: it gives the frame rate.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqtool.errors import DataError
from vqtool.formats.base import MAX_CLIP_BYTES, Clip, ReadOptions, Recording, clip_file, first_bytes
from vqtool.motion import column_names

if TYPE_CHECKING:
    from vqtool.store import MotionSet

TIMES = ("time", "timestamp", "t", "time_s", "seconds")


def is_csv(path: Path) -> bool:
    """Whether one of its first two lines is numbers."""
    lines = first_bytes(path).decode("utf-8-sig", "replace").splitlines()[:2]
    return any(_numbers(line, _delimiter(lines[0])) is not None for line in lines)


def csv_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """The one clip of a CSV file."""
    yield Clip(name, path, lambda: read_csv(path))


def read_csv(path: Path) -> Recording:
    """Read one clip; DataError with the line where a row is not numbers or has another length."""
    if path.stat().st_size > MAX_CLIP_BYTES // 4:
        raise DataError("is too large to read whole; cut it into clips", file=path)
    text = path.read_bytes().decode("utf-8-sig", "replace")
    lines = text.splitlines()
    if not lines:
        raise DataError("is empty", file=path)
    delimiter = _delimiter(lines[0])
    names = None if _numbers(lines[0], delimiter) is not None else [word.strip() for word in lines[0].split(delimiter)]
    body = lines[1:] if names is not None else lines
    try:
        values = np.loadtxt(io.StringIO("\n".join(body)), delimiter=delimiter, ndmin=2, comments=None)
    except ValueError:
        raise _bad_line(path, lines, delimiter, names) from None
    if not any(line.strip() for line in body):
        values = np.zeros((0, len(lines[0].split(delimiter))))
    fps = None
    if names is not None and names[0].lower() in TIMES and values.shape[1] > 1:
        steps = np.diff(values[:, 0])
        if not (steps > 0).all():
            raise DataError(f"its times do not rise at row {int(np.argmin(steps > 0)) + 2}", file=path)
        if len(steps):
            rate = 1 / float(np.median(steps))
            fps = float(round(rate)) if abs(rate - round(rate)) < 1e-3 * rate else rate
        values = values[:, 1:]
    return Recording(values, fps, "raw")


def _bad_line(path: Path, lines: list[str], delimiter: str, names: list[str] | None) -> DataError:
    width = len(lines[0].split(delimiter))
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and names is not None):
            continue
        words = line.split(delimiter)
        if len(words) != width:
            return DataError(f"line {number}: has {len(words)} fields, not {width}", file=path)
        if _numbers(line, delimiter) is None:
            return DataError(f"line {number}: is not all numbers", file=path)
    return DataError("cannot be read as numbers", file=path)


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _numbers(line: str, delimiter: str) -> list[float] | None:
    try:
        return [float(word) for word in line.split(delimiter)]
    except ValueError:
        return None


def write_csv(folder: Path, motion: MotionSet, clips: Sequence[int], stems: Sequence[str]) -> None:
    """STEM.csv of each clip: a line of names, a column of times, and numbers that come back as they were."""
    body = motion.companions.bodies[0] if motion.companions.bodies else None
    names = column_names(motion.layout, motion.dim, body.names if body else None)
    header = ",".join(["time", *(re.sub(r'[\s,;"]', "_", name) for name in names)])
    for clip, stem in zip(clips, stems, strict=True):
        with clip_file(folder, stem, ".csv").open("w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(header + "\n")
            row = ",".join(["%.9g"] * motion.dim)
            for number, frame in enumerate(motion.read_all(clip).tolist()):
                file.write(f"{number / motion.fps:.9g},{row % tuple(frame)}\n")
