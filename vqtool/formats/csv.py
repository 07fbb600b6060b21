"""CSV files: a frame in each row, a column in each field, with or without a line of names.

A first column called time, timestamp or t, in seconds, is not motion: it gives the frame rate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqtool.errors import DataError
from vqtool.formats.base import BLOCK_BYTES, MAX_TEXT_BYTES, Clip, ReadOptions, Recording, clip_file, number_rows
from vqtool.motion import column_names
from vqtool.reading import first_bytes, read_text

if TYPE_CHECKING:
    from vqtool.store import MotionSet

TIMES = ("time", "timestamp", "t", "time_s", "seconds")


def is_csv(path: Path) -> bool:
    """Whether one of its first two lines is numbers."""
    lines = first_bytes(path).decode("utf-8-sig", "replace").splitlines()[:2]
    return any(_numbers(line, _delimiter(lines[0])) is not None for line in lines)


def csv_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """The one clip of a CSV file."""
    yield Clip(name, path, partial(read_csv, path))


def read_csv(path: Path) -> Recording:
    """Read one clip; DataError with the line where a row is not numbers or has another length."""
    data = read_text(path, MAX_TEXT_BYTES)
    if (place := data.find(b"\0")) >= 0:
        line = data.count(b"\n", 0, place) + 1
        raise DataError(f"line {line}: holds a NUL; is this another kind of file, or UTF-16?", file=path)
    if not data.strip():
        raise DataError("is empty", file=path)
    line = 1 + len(data) - len(data.lstrip(b"\n"))
    first, _, body = data[line - 1 :].partition(b"\n")
    if len(first) > BLOCK_BYTES:
        raise DataError(f"line {line}: is longer than {BLOCK_BYTES:,} bytes; the file is damaged", file=path)
    head = first.decode("utf-8-sig", "replace")
    delimiter = _delimiter(head)
    names = None if _numbers(head, delimiter) is not None else [word.strip() for word in head.split(delimiter)]
    columns = len(head.split(delimiter))
    try:
        values = number_rows(
            head.encode() + b"\n" + body if names is None else body,
            line=line if names is None else line + 1,
            columns=columns,
            why=f"line {line} has",
            delimiter=delimiter,
        )
    except DataError as error:
        raise DataError(error.what, file=path) from None
    fps = None
    if names is not None and names[0].lower() in TIMES and values.shape[1] > 1:
        with np.errstate(invalid="ignore", over="ignore"):
            steps = np.diff(values[:, 0])
        rising = (steps > 0) & (steps < math.inf)
        if not rising.all():
            what = f"its times do not rise from row {int(np.argmin(rising)) + 1} to the next; sort or mend it"
            raise DataError(what, file=path)
        if len(steps):
            fps = 1 / float(np.median(steps))
            fps = float(round(fps)) if fps < 1e9 and abs(fps - round(fps)) < 1e-3 * fps else fps
        values = values[:, 1:]
    return Recording(values, fps, "raw")


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
