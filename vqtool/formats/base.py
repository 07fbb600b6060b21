"""What every format gives to import: a list of clips, each of which can be read by itself."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from vqtool.errors import DataError, counted
from vqtool.reading import check_columns
from vqtool.skeleton import Skeleton, SkeletonMotion

if TYPE_CHECKING:
    from vqtool.store import MotionSet

MAX_CLIP_BYTES = 4 << 30  # that one clip may take in memory
MAX_TEXT_BYTES = 1 << 30  # of a file of text
BLOCK_BYTES = 1 << 20  # of text that is read at a time; no line may be longer


@dataclass(frozen=True)
class ReadOptions:
    """How files are read, as `vqtool import` was told."""

    metres_per_unit: float | None = None  # None: guessed
    up: str = "y"
    drop_first_frame: str = "auto"
    skeleton: Skeleton | None = None  # --skeleton: of files that hold rotations only
    dataset: str | None = None  # which datasets, arrays or columns are clips
    raw: bool = False  # the numbers as they are in the file


@dataclass(frozen=True)
class Recording:
    """One clip: a body's motion, or numbers [T, D] of a layout. `fps` is None where the file does not say."""

    frames: SkeletonMotion | np.ndarray
    fps: float | None
    layout: str = ""
    captions: tuple[tuple[str, float, float, str], ...] = ()  # text, start and end in seconds, tagged words
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Clip:
    """A clip that `read` reads. `split` 0, 1, 2 or 255 where the files say; `mirror_of` names the one it mirrors.

    `dataset` is its place in a file that may hold several.
    """

    name: str
    path: Path
    read: Callable[[], Recording]
    split: int | None = None
    mirror_of: str = ""
    dataset: str | None = None


class Listing(Protocol):
    """List the clips of one file or folder under names that begin with `name`."""

    def __call__(self, path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
        """`name`: a file's own, or of a folder what its clips' names begin with."""


FolderWriter = Callable[[Path, "MotionSet", Sequence[int], Sequence[str]], None]
FileWriter = Callable[[BinaryIO, "MotionSet", Sequence[int]], None]


@dataclass(frozen=True)
class Format:
    """A kind of file: how to know it, and how to list its clips.

    suffixes  of its files; () for a format whose unit is a folder
    sniff     whether a file with one of those suffixes (or a folder) is of this kind
    write     write clips into an empty folder, each under its stem, a path relative to that folder (or
              `write_file`: all into one file)
    apart     whether a clip can be read by another process: `read` pickles, and needs no file that the listing keeps
              open
    extras    small arrays and attributes that motion.h5 keeps of a folder, given the deviations and the layout of
              its clips
    """

    about: str
    suffixes: tuple[str, ...]
    sniff: Callable[[Path], bool]
    clips: Listing
    write: FolderWriter | None = None
    write_file: FileWriter | None = None
    apart: bool = True
    extras: Callable[[Path, np.ndarray, str], tuple[dict[str, np.ndarray], dict[str, str]]] | None = None


def number_rows(
    body: bytes, *, line: int, columns: int, why: str, delimiter: str | None = None, largest: float = math.inf
) -> np.ndarray:
    """The numbers [T, columns] of lines of text, the first of which is the file's line number `line`.

    Read a block at a time, so that neither a line without end nor the search for a bad line takes long. `why` says
    where `columns` comes from, as "the channels need". Raises DataError naming the line that is not as many numbers,
    or holds one that is not within `largest`; NaN passes where that is infinite.
    """
    blocks = []
    start = 0
    while start < len(body):
        stop = body.find(b"\n", start + BLOCK_BYTES) + 1 or len(body)
        block = body[start:stop]
        if stop - start > 2 * BLOCK_BYTES:
            line += block.rstrip(b"\n").count(b"\n")
            raise DataError(f"line {line}: is longer than {BLOCK_BYTES:,} bytes; the file is damaged")
        if not block.isspace():
            try:
                values = np.loadtxt(io.BytesIO(block), comments=None, delimiter=delimiter, ndmin=2, encoding="latin-1")
            except ValueError:
                values = np.zeros((0, 0))
            if values.shape[1] != columns or not (largest == math.inf or (np.abs(values) < largest).all()):
                last = not body[stop:].strip()
                raise _bad_row(block.decode("latin-1"), line, columns, why, delimiter, largest, last)
            blocks.append(values)
        line += block.count(b"\n")
        start = stop
    return np.concatenate([np.zeros((0, columns)), *blocks])


def _bad_row(
    block: str, first_line: int, columns: int, why: str, delimiter: str | None, largest: float, last: bool
) -> DataError:
    """Says what is wrong with the first bad row of a block; `last`: nothing comes behind it."""
    lines = block.rstrip().split("\n")
    for number, text in enumerate(lines, start=first_line):
        words = text.split(delimiter)
        if text.strip() and len(words) != columns:
            short = last and number == first_line + len(lines) - 1 and len(words) < columns
            end = "; was the file cut short?" if short else ""
            return DataError(f"line {number}: has {counted(len(words), 'numbers')}, but {why} {columns}{end}")
        for word in words if text.strip() else []:
            try:
                value = float(word) if "_" not in word else None
            except ValueError:
                value = None
            if value is None or not (largest == math.inf or abs(value) < largest):
                what = f"{word.strip()[:40]!r} is not a number to use here"
                return DataError(f"line {number}: {what}; mend it or leave the file out")
    return DataError(f"line {first_line}: cannot be read as numbers; mend it or leave the file out")


def clip_file(folder: Path, stem: str, suffix: str) -> Path:
    """The file of a clip in a folder, whose own folders are made."""
    path = folder / (stem + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def as_frames(array: np.ndarray, path: Path, dataset: str | None = None) -> tuple[np.ndarray, str]:
    """[T, D] and its layout, of numbers [T, D] ("raw") or positions [T, J, 3] ("positions")."""
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        shape = "x".join(map(str, array.shape)) or "scalar"
        what = f"holds {shape} {array.dtype}; [T, D] or [T, J, 3] numbers were expected"
        raise DataError(what, file=path, dataset=dataset)
    width = math.prod(array.shape[1:])
    check_columns(path, dataset, width)
    if width == 0:
        raise DataError("has no columns", file=path, dataset=dataset)
    return array.reshape(len(array), width), "raw" if array.ndim == 2 else "positions"
