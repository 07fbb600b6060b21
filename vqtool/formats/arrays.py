"""npy and npz files of [T, D] numbers or [T, J, 3] positions; no pickles. An npz holds a clip in each such array."""

from __future__ import annotations

import errno
import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from vqtool.companions import some
from vqtool.errors import DataError, StorageError
from vqtool.formats.base import MAX_CLIP_BYTES, Clip, ReadOptions, Recording, as_frames, clip_file
from vqtool.reading import check_columns, check_expansion, first_bytes, opened

if TYPE_CHECKING:
    from vqtool.store import MotionSet

# What numpy raises on headers that are not its own.
DAMAGE = (
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
)
REASONS = "damaged, cut off, or of another kind; save it again as numbers"
RATES = ("fps", "framerate", "frame_rate", "mocap_framerate", "mocap_frame_rate")  # scalars of an npz


def is_npy(path: Path) -> bool:
    """Whether it begins as a npy file does."""
    return first_bytes(path, 6) == b"\x93NUMPY"


def is_npz(path: Path) -> bool:
    """Whether it begins as a zip file does."""
    return first_bytes(path, 4)[:2] == b"PK"


def npy_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """The one clip of a npy file."""
    yield Clip(name, path, partial(_read_npy, path))


def _read_npy(path: Path) -> Recording:
    frames, layout = as_frames(load_npy(path), path)
    return Recording(frames, None, layout)


def load_npy(path: Path) -> np.ndarray:
    """The array of a npy file; DataError where it is damaged, a pickle or larger than can be held."""
    try:
        with opened(path) as file:
            if file.read(2) == b"PK":
                raise DataError("is not a npy file; name it .npz", file=path)
            file.seek(0)
            shape, dtype = _header(file)
            if dtype.hasobject:
                raise DataError("holds Python objects, which may run code; save it as numbers", file=path)
            if math.prod(shape) * dtype.itemsize > path.stat().st_size:
                raise DataError(f"declares {_plain(shape)} {dtype}, but ends before; copy it again", file=path)
            check_columns(path, None, math.prod(shape[1:]))
            if math.prod(shape) * dtype.itemsize > MAX_CLIP_BYTES:
                raise DataError(f"is larger than {MAX_CLIP_BYTES >> 30} GiB; cut it into clips", file=path)
            file.seek(0)
            return _array(file)
    except DAMAGE as error:
        raise DataError(f"is not a readable npy file ({REASONS})", file=path) from error


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type that a npy file declares."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    with warnings.catch_warnings(action="ignore"):  # of files of Python 2, which are read all the same
        shape, _, dtype = read(file)
    if any(size < 0 for size in shape):
        raise ValueError(shape)
    return tuple(shape), dtype


def _array(file: IO[bytes]) -> np.ndarray:
    with warnings.catch_warnings(action="ignore"):
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _plain(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))[:80] or "scalar"


def write_npy(folder: Path, motion: MotionSet, clips: Sequence[int], stems: Sequence[str]) -> None:
    """STEM.npy of each clip: [T, D], or of layout positions [T, J, 3]."""
    for clip, stem in zip(clips, stems, strict=True):
        frames = motion.read_all(clip)
        if motion.layout == "positions":
            frames = frames.reshape(len(frames), -1, 3)
        np.save(clip_file(folder, stem, ".npy"), frames)


def npz_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """The arrays of a npz file that are motion: the file's name if it is one, else with the array's name behind."""
    with open_npz(path) as arrays:
        fps = frame_rate(arrays, path)
        keys = [key for key, shape in arrays.items() if len(shape) in (2, 3)]
        listed = [f"{key} ({_plain(shape)})" for key, shape in arrays.items()]
        listed += [f"{key} (Python objects)" for key in arrays.objects]
    keys = [key for key in keys if options.dataset is None or fnmatchcase(key, options.dataset)]
    if not keys:
        which = f" that matches --dataset {options.dataset!r}" if options.dataset is not None else ""
        what = f"holds no array [T, D] or [T, J, 3] of numbers{which}; it holds {some(listed) or 'no array'}"
        raise DataError(what, file=path)
    for key in keys:
        clip = name if len(keys) == 1 else f"{name}/{key}"
        yield Clip(clip, path, partial(_read_array, path, key, fps), dataset=key)


def _read_array(path: Path, key: str, fps: float | None) -> Recording:
    with open_npz(path) as arrays:
        frames, layout = as_frames(arrays.read(key), path, key)
    return Recording(frames, fps, layout)


class Arrays(Mapping[str, tuple[int, ...]]):
    """The arrays of an open npz file by name: their shapes at once, their numbers when read."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        self._path, self._file = path, file
        shapes = {
            info.filename.removesuffix(".npy"): self._shape(info)
            for info in file.infolist()
            if info.filename.endswith(".npy")
        }
        self.objects = [key for key, shape in shapes.items() if shape is None]
        self._shapes = {key: shape for key, shape in shapes.items() if shape is not None}

    def _shape(self, info: zipfile.ZipInfo) -> tuple[int, ...] | None:
        """Of an array of Python objects None."""
        with self._file.open(info) as file:
            shape, dtype = _header(file)
        if dtype.hasobject:
            return None
        size = math.prod(shape) * dtype.itemsize
        name = info.filename.removesuffix(".npy")
        if size > info.file_size:
            what = f"declares {_plain(shape)} {dtype}, but ends before; the file is damaged"
            raise DataError(what, file=self._path, dataset=name)
        check_columns(self._path, name, math.prod(shape[1:]))
        check_expansion(self._path, name, size, info.compress_size)
        if size > MAX_CLIP_BYTES:
            what = f"is larger than {MAX_CLIP_BYTES >> 30} GiB; cut it into clips"
            raise DataError(what, file=self._path, dataset=name)
        return shape

    def __getitem__(self, key: str) -> tuple[int, ...]:
        return self._shapes[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def read(self, key: str) -> np.ndarray:
        """One array, whole."""
        with self._file.open(f"{key}.npy") as file:
            return _array(file)


@contextmanager
def open_npz(path: Path) -> Iterator[Arrays]:
    """The arrays of a npz file; DataError wherever it is damaged."""
    try:
        with opened(path) as raw, zipfile.ZipFile(raw) as file:
            yield Arrays(path, file)
    except (*DAMAGE, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(f"is not a readable npz file ({REASONS})", file=path) from error
    except StorageError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EINVAL:  # a damaged place to go to
            raise DataError(f"is not a readable npz file ({REASONS})", file=path) from error
        raise


def frame_rate(arrays: Arrays, path: Path) -> float | None:
    """Frames a second, where a scalar says so."""
    for key in RATES:
        if key in arrays and arrays[key] in ((), (1,)):
            value = arrays.read(key)
            if value.dtype.kind in "fiu" and 0 < float(value.reshape(())) < 1e6:
                return float(value.reshape(()))
            raise DataError(f"has {key} {value}; a positive number was expected", file=path)
    return None
