"""What every format gives to import: a list of clips, each of which can be read by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from vqtool.errors import DataError, MissingInputError, StorageError
from vqtool.skeleton import Skeleton, SkeletonMotion

if TYPE_CHECKING:
    from vqtool.store import MotionSet

MAX_CLIP_BYTES = 4 << 30  # that one clip may take in memory


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
    """A clip that `read` reads. `split` 0, 1, 2 or 255 where the files say; `mirror_of` names the one it mirrors."""

    name: str
    path: Path
    read: Callable[[], Recording]
    split: int | None = None
    mirror_of: str = ""


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
    extras    small arrays and attributes that motion.h5 keeps of a folder, given the deviations and the layout of
              its clips
    """

    about: str
    suffixes: tuple[str, ...]
    sniff: Callable[[Path], bool]
    clips: Listing
    write: FolderWriter | None = None
    write_file: FileWriter | None = None
    extras: Callable[[Path, np.ndarray, str], tuple[dict[str, np.ndarray], dict[str, str]]] | None = None


def first_bytes(path: Path, count: int = 4096) -> bytes:
    """The beginning of a file; MissingInputError, StorageError where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(count)
    except FileNotFoundError:
        raise MissingInputError("no such file", file=path) from None
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror})", file=path) from error


def clip_file(folder: Path, stem: str, suffix: str) -> Path:
    """The file of a clip in a folder, whose own folders are made."""
    path = folder / (stem + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def as_frames(array: np.ndarray, path: Path, what: str = "") -> tuple[np.ndarray, str]:
    """[T, D] and its layout, of numbers [T, D] ("raw") or positions [T, J, 3] ("positions")."""
    if array.dtype.kind not in "fiu" or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        shape = "x".join(map(str, array.shape)) or "scalar"
        raise DataError(
            f"holds {shape} {array.dtype}; [T, D] or [T, J, 3] numbers were expected", file=path, dataset=what or None
        )
    layout = "raw" if array.ndim == 2 else "positions"
    return array.reshape(len(array), int(np.prod(array.shape[1:]))), layout
