"""The one door to HDF5: by hard links only, never through external files, virtual datasets or filter plugins.

A damaged file can make libhdf5 crash, run without end or take all memory. So a file that this process has not seen is
first examined by a child process with limits (probe.py), in which all of that is a DataError.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before HDF5 starts: a filter plugin is code that a data file could choose.
os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")

import h5py
import numpy as np

from vqtool import remote
from vqtool.errors import DataError, MissingInputError, StorageError, counted
from vqtool.probe import At, probe

MAX_DEPTH = 32
MAX_ATTRIBUTE_BYTES = 1 << 20
MAX_ROW_BYTES = 16 << 20  # of one frame or token frame: four million columns
MAX_CHUNK_BYTES = 128 << 20  # HDF5 holds a whole chunk in memory, several times over
MAX_ARRAY_BYTES = 1 << 30  # of an array that is read whole: names, offsets, codebooks, captions
SAFE_FILTERS = {"gzip", "shuffle", "fletcher32", "lzf"}
READ_BYTES = 8 << 20
MAX_RATIO = 1100  # deflate makes nothing smaller than 1/1032
PROBE_BYTES = 16 << 20  # of a file are read in its probe; beyond, the first and the last row of each dataset
ATTRIBUTE_TYPES = (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)
# What h5py raises where libhdf5 stumbles over damaged bytes.
DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)


@contextlib.contextmanager
def damaged(file: Path, dataset: str | None = None) -> Iterator[None]:
    """Within this block, what libhdf5 cannot make sense of is a DataError; a StorageError where a network failed it."""
    try:
        yield
        remote.check(file, dataset)
    except DAMAGE as error:
        remote.check(file, dataset)
        raise DataError("cannot be read; the file is damaged", file=file, dataset=dataset) from error


def open_hdf5(path: Path) -> h5py.File:
    """Open a file for reading; MissingInputError where there is none, DataError where it is not HDF5."""
    try:
        if not path.exists():
            raise MissingInputError("no such file", file=path)
        if path.is_dir():
            raise DataError("is a folder; name an HDF5 file (vqtool import makes one of BVH and others)", file=path)
        if not path.is_file():  # opening a pipe would wait for its writer
            raise DataError("is a device or pipe; name an HDF5 file", file=path)
        with path.open("rb"):
            pass
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror})", file=path) from error
    probe(path, _examine)
    try:
        return _opened(path)
    except DAMAGE as error:
        remote.check(path)
        what = "is not a readable HDF5 file (damaged, cut off, or another format, as vqtool import reads)"
        raise DataError(what, file=path) from error


def _opened(path: Path) -> h5py.File:
    """The file, unexamined."""
    if isinstance(path, remote.RemotePath):
        return h5py.File(path.open("rb"), "r")
    return h5py.File(path, "r", locking=False)


def _filters(plist: h5py.h5p.PropDCID) -> set[str]:
    names = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
    found = (plist.get_filter(i)[0] for i in range(plist.get_nfilters()))
    return {names.get(number, f"number {number}") for number in found}


def check_dataset(file: Path, dataset: h5py.Dataset, *, kinds: str = "fiu") -> None:
    """Refuse a dataset that reaches outside its file, needs a plugin, or has no numbers.

    `kinds` are the allowed numpy type kinds. Raises DataError naming file and dataset.
    """
    name = dataset.name
    plist = dataset.id.get_create_plist()
    if plist.get_external_count() > 0 or plist.get_layout() == h5py.h5d.VIRTUAL:
        raise DataError("keeps its data in another file; copy it into this one (h5repack)", file=file, dataset=name)
    if unknown := _filters(plist) - SAFE_FILTERS:
        what = f"needs the filter {', '.join(sorted(unknown))}; rewrite it with gzip (h5repack -f GZIP=4)"
        raise DataError(what, file=file, dataset=name)
    dtype, shape = dataset.dtype, dataset.shape or ()
    if dtype.kind not in kinds:
        raise DataError(f"has the type {dtype}; numbers were expected", file=file, dataset=name)
    declared = math.prod(shape) * dtype.itemsize
    if (row := math.prod(shape[1:]) * dtype.itemsize) > MAX_ROW_BYTES:
        raise DataError(f"has rows of {_size(row)}; at most {_size(MAX_ROW_BYTES)} are read", file=file, dataset=name)
    ratio = 1
    if plist.get_layout() == h5py.h5d.CHUNKED:
        if (whole := math.prod(dataset.chunks) * dtype.itemsize) > MAX_CHUNK_BYTES:
            what = f"has chunks of {_size(whole)}; at most {_size(MAX_CHUNK_BYTES)} are read, so rewrite it (h5repack)"
            raise DataError(what, file=file, dataset=name)
        chunks = math.prod(-(-size // chunk) for size, chunk in zip(shape, dataset.chunks, strict=True))
        if dataset.id.get_num_chunks() < chunks:  # they would read as zeros
            raise DataError("has parts that were never written; write it again", file=file, dataset=name)
        if plist.get_nfilters():
            ratio = MAX_RATIO
            # libhdf5 crashes on a compressed chunk of no bytes, and takes the memory that another one asks for.
            most = whole + whole // 8 + 4096
            # Its own loop returns what the function returns.
            if chunks and dataset.id.chunk_iter(lambda chunk: None if 0 < chunk.size <= most else True):
                raise DataError(
                    "has an empty chunk, or one of a size that cannot be; the file is damaged", file=file, dataset=name
                )
    if plist.get_layout() != h5py.h5d.COMPACT and dataset.id.get_storage_size() * ratio < declared:
        raise DataError("declares more data than the file holds; the file is damaged", file=file, dataset=name)


def _size(count: int) -> str:
    """A number of bytes for people, as 16 MiB."""
    return f"{count / (1 << 30):.4g} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.4g} MiB"


def walk(file: Path, group: h5py.Group) -> Iterator[h5py.Dataset]:
    """Every dataset below `group` by hard links, in name order; each object once, no link followed elsewhere.

    Raises DataError for a damaged file, a name that is not UTF-8, and groups nested deeper than MAX_DEPTH.
    """
    return (node for node in _objects(file, group) if isinstance(node, h5py.Dataset))


def _objects(file: Path, group: h5py.Group) -> Iterator[h5py.Group | h5py.Dataset]:
    """As `walk`, and the groups too, each before what is in it."""
    seen: set[tuple[int, int]] = set()

    def met(node: h5py.Group | h5py.Dataset) -> bool:
        info = h5py.h5o.get_info(node.id)
        before = (info.fileno, info.addr) in seen
        seen.add((info.fileno, info.addr))
        return before

    def visit(group: h5py.Group, depth: int) -> Iterator[h5py.Group | h5py.Dataset]:
        if met(group):
            return
        if depth > MAX_DEPTH:
            raise DataError(f"has groups more than {MAX_DEPTH} deep", file=file, dataset=group.name)
        yield group
        for name in group:
            if isinstance(name, bytes):
                raise DataError(f"has a name that is not UTF-8 ({name!r}); rename it", file=file, dataset=group.name)
            if group.id.links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
                continue
            child = group[name]
            if isinstance(child, h5py.Group):
                yield from visit(child, depth + 1)
            elif isinstance(child, h5py.Dataset) and not met(child):
                yield child

    try:
        yield from visit(group, 0)
    except DAMAGE as error:
        raise DataError("cannot be listed; the file is damaged", file=file) from error


def has_numbers(dataset: h5py.Dataset) -> bool:
    """Whether it holds integers or floats; asked of HDF5, since numpy has no word for some of its types."""
    return dataset.id.get_type().get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT)


def find(file: Path, root: h5py.File, name: str, *, ndim: int, kinds: str = "fiu") -> h5py.Dataset:
    """The dataset `name`, reached by hard links and checked; DataError when it is missing or of another shape."""
    node: Any = root
    with damaged(file, name):
        for part in name.split("/"):
            # Not `part in node`: that follows an external link.
            if not isinstance(node, h5py.Group) or not node.id.links.exists(part.encode()):
                raise DataError("is missing; the file is damaged or of another kind", file=file, dataset=name)
            if node.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
                raise DataError("is a link; vqtool follows no links", file=file, dataset=name)
            node = node[part]
        if not isinstance(node, h5py.Dataset):
            raise DataError("is a group where a dataset was expected", file=file, dataset=name)
        check_dataset(file, node, kinds=kinds)
        if node.ndim != ndim:
            raise DataError(f"has {counted(node.ndim, 'dimensions')}, not {ndim}", file=file, dataset=name)
    return node


def read_rows(file: Path, dataset: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    """dataset[start:stop]; a damaged chunk is a DataError naming the dataset."""
    with damaged(file, dataset.name):
        rows: np.ndarray = dataset[start:stop]
    return rows


def read_array(file: Path, dataset: h5py.Dataset) -> np.ndarray:
    """All of a dataset; DataError where that is more than MAX_ARRAY_BYTES."""
    if (size := math.prod(dataset.shape) * dataset.dtype.itemsize) > MAX_ARRAY_BYTES:
        what = f"has {_size(size)}; at most {_size(MAX_ARRAY_BYTES)} are read"
        raise DataError(what, file=file, dataset=dataset.name)
    return read_rows(file, dataset, 0, len(dataset))


def attribute(node: h5py.Group | h5py.Dataset, name: str) -> Any:
    """An attribute as a plain Python value (str, int, float, list).

    None where there is none, or it is unreadable, larger than any that vqtool writes, or neither numbers nor text.
    """
    try:
        stored = h5py.h5a.open(node.id, name.encode())
        count, kind = math.prod(stored.shape or ()), stored.get_type()
        if count * kind.get_size() > MAX_ATTRIBUTE_BYTES or kind.get_class() not in ATTRIBUTE_TYPES:
            return None
        if count > 1 and kind.get_class() == h5py.h5t.STRING and kind.is_variable_str():
            return None  # each may be as large as the file
        value = node.attrs[name]
    except DAMAGE:
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return value


def block_rows(width: int, itemsize: int) -> int:
    """How many rows make a block of a few MB."""
    return max(1, math.ceil(READ_BYTES / max(1, width * itemsize)))


def _examine(path: Path, at: At) -> None:
    """Touch everything in a file that vqtool reads of one, but of large datasets only the first and the last row.

    What cannot be read is passed over, and the rest examined: the reader may not come by the same way.
    """
    left = PROBE_BYTES
    passed = contextlib.suppress(DataError, *DAMAGE)
    with _opened(path) as root:  # and closed: that can crash too
        with passed:
            for key in root.attrs:
                attribute(root, key)
        with passed:
            for node in _objects(path, root):
                with passed:
                    at(node.name)
                    attribute(node, "fps")
                    if isinstance(node, h5py.Dataset):
                        left -= _touch(path, node, left)
        at("/")


def _touch(path: Path, dataset: h5py.Dataset, left: int) -> int:
    """Read all of a dataset of at most `left` bytes, else its first and last row; how many of `left` that took."""
    check_dataset(path, dataset, kinds="fiuS")
    if not dataset.shape:
        return 0
    size: int = math.prod(dataset.shape) * dataset.dtype.itemsize
    if size <= left:
        dataset[:]
        return size
    dataset[:1], dataset[-1:]
    return 0
