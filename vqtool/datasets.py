"""Any HDF5 file that is not ours as clips of motion: each of its [T, D] or [T, J, 3] datasets of numbers is one."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vqtool.companions import Companions, some
from vqtool.errors import DataError, counted
from vqtool.hdf5 import attribute, check_dataset, damaged, has_numbers, open_hdf5, read_rows, walk
from vqtool.reading import check_columns, check_expansion
from vqtool.remote import RemotePath


def check_size(path: Path, dataset: h5py.Dataset) -> None:
    """DataError for what reading would take unbounded memory or time."""
    name = dataset.name
    check_columns(path, name, int(np.prod(dataset.shape[1:], dtype=object)))
    if dataset.id.get_create_plist().get_nfilters():
        size = int(np.prod(dataset.shape, dtype=object)) * dataset.dtype.itemsize
        check_expansion(path, name, size, dataset.id.get_storage_size())


class DatasetFile:
    """Such a file: every [T, D] or [T, J, 3] dataset of numbers is a clip, its path its name."""

    finite = False

    def __init__(self, path: Path, pattern: str | None) -> None:
        self.path = path
        self._h5 = open_hdf5(path)
        try:
            with damaged(path):
                self._open(pattern)
        except BaseException:
            self._h5.close()
            raise

    def _open(self, pattern: str | None) -> None:
        path = self.path
        self.names: list[str] = []
        lengths: list[int] = []
        self._last: tuple[int, h5py.Dataset | None] = (-1, None)
        rate_of: dict[str, Any] = {}  # of groups
        others: list[str] = []
        widths: dict[int, str] = {}
        rates: dict[float, str] = {}
        for dataset in walk(path, self._h5):
            name = dataset.name.lstrip("/")
            if pattern is not None and not _matches(name, pattern):
                others.append(f"{name} ({_described(dataset)})")
                continue
            if not has_numbers(dataset) or not _is_clip(dataset.shape):
                others.append(f"{name} ({_described(dataset)})")
                continue
            with damaged(path, name):
                check_dataset(path, dataset)
                check_size(path, dataset)
            self.names.append(name)
            lengths.append(len(dataset))
            widths.setdefault(int(np.prod(dataset.shape[1:])), name)
            if (rate := attribute(dataset, "fps")) is None:
                rate = _rate_of_group(dataset.parent, rate_of)
            if isinstance(rate, list) and len(rate) == 1:  # MATLAB and numpy write [30.0]
                rate = rate[0]
            if isinstance(rate, int | float) and not isinstance(rate, bool):
                rates.setdefault(float(rate), name)
        if not self.names:
            which = f"that matches --dataset {pattern!r}" if pattern else "of numbers"
            what = f"but {some(others)}" if others else "and no links are followed"
            raise DataError(f"holds no [T, D] dataset {which}, {what}", file=path)
        if len(widths) > 1:
            listed = ", ".join(f"{name} has {counted(width, 'columns')}" for width, name in list(widths.items())[:4])
            raise DataError(f"its datasets differ: {listed}; choose with --dataset 'PATTERN'", file=path)
        if len(rates) > 1:
            listed = ", ".join(f"{name} {rate:g}" for rate, name in list(rates.items())[:4])
            raise DataError(f"its clips differ in fps: {listed}; choose with --dataset 'PATTERN'", file=path)
        self.lengths = np.array(lengths, dtype=np.int64)
        self.dim = next(iter(widths))
        self.fps = next(iter(rates), None)
        self.layout = str(attribute(self._h5, "layout") or "raw")
        self.companions = Companions()

    def read(self, clip: int, start: int, stop: int) -> np.ndarray:
        """Frames [start, stop) of a clip, [n, D] float32."""
        # Only one is open at a time: HDF5 keeps some MB of chunks for each that is.
        if self._last[0] != clip:
            with damaged(self.path, self.names[clip]):
                self._last = clip, self._h5[self.names[clip]]
        rows = read_rows(self.path, self._last[1], start, stop)
        with np.errstate(over="ignore", invalid="ignore"):  # 1e300 becomes infinite, which `blocks` tells
            return rows.reshape(len(rows), self.dim).astype(np.float32, copy=False)

    def verify(self) -> None:
        """Nothing to compare with: such a file has no SHA-256."""

    def place(self, clip: int) -> str:
        """The dataset of a clip."""
        return f"/{self.names[clip]}"

    def identity(self) -> str:
        """Size and time of change: such a file has no SHA-256, and to read it all takes as long as some work on it."""
        stat = self.path.stat()
        return f"{stat.st_size} {stat.st_mtime_ns}" + (f" {stat.st_ino}" if isinstance(self.path, RemotePath) else "")

    def close(self) -> None:
        """Close the file."""
        self._last = (-1, None)
        self._h5.close()


def _rate_of_group(group: h5py.Group, known: dict[str, Any]) -> Any:
    """The attribute fps of a group or of the nearest around it that has one; None where there is none."""
    name = group.name
    if name not in known:
        rate = attribute(group, "fps")
        known[name] = rate if rate is not None or name == "/" else _rate_of_group(group.parent, known)
    return known[name]


def _described(dataset: h5py.Dataset) -> str:
    """Shape and type in a few letters; numpy has no word for some types."""
    try:
        kind = str(dataset.dtype)
    except (TypeError, ValueError):
        kind = "of an unknown type"
    shape = "empty" if dataset.shape is None else "x".join(map(str, dataset.shape)) or "scalar"
    return f"{shape} {kind}" if len(kind) <= 20 else f"{shape} of records"


def _matches(name: str, pattern: str) -> bool:
    """Whether a dataset's path fits a pattern, part by part: * and ? do not match a slash."""
    parts, wanted = name.split("/"), pattern.strip("/").split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _is_clip(shape: tuple[int, ...] | None) -> bool:
    """[T, D], or [T, J, 3] positions of J joints; None is an HDF5 dataset without any shape."""
    return shape is not None and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3))
