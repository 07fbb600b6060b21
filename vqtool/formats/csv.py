"""CSV files: a frame in each row, a column in each field, with or without a line of names.

A first column called time, timestamp or t, in seconds, is not motion: it gives the frame rate.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vqtool.errors import DataError
from vqtool.formats.base import MAX_CLIP_BYTES, Clip, ReadOptions, Recording, first_bytes

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
    return Recording(values.astype(np.float32), fps, "raw")


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


def write_csv(file: BinaryIO, frames: np.ndarray, fps: float, columns: Sequence[str]) -> None:
    """Write one clip [T, D], with a column of times; float32 comes back as it was."""
    quoted = ['"' + name.replace('"', '""') + '"' if set(name) & set(',"\n') else name for name in columns]
    file.write((",".join(["time", *quoted]) + "\n").encode())
    for number, frame in enumerate(frames.astype(np.float32)):
        file.write((f"{number / fps:.9g}," + ",".join(np.char.mod("%.9g", frame)) + "\n").encode())
