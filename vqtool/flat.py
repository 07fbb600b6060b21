"""The flat layout that motion.h5, tokens.h5 and latents.h5 share.

```
/<rows>    (F, W)  one or more datasets of the same F rows: all clips end to end
/offsets   (N+1,)  int64: clip i is rows[offsets[i]:offsets[i+1]]
/names     (N,)    utf-8, unique
/<others>          small arrays (splits, num_frames, codebooks/0, ...)
attrs      format, format_version, complete = N, sha256, ...
```
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from vqtool import signals
from vqtool.errors import DataError, counted
from vqtool.hdf5 import MAX_ARRAY_BYTES, attribute, block_rows, damaged, find, open_hdf5, read_array, read_rows, walk
from vqtool.publish import LatchingFile
from vqtool.remote import RemotePath

MAX_CLIPS = 100_000_000
MAX_NAME_BYTES = 4096
MAX_TEXT_BYTES = 1 << 16
CHUNK_ROWS = 16384
LONG_TEXTS = 1 << 16  # bytes of an array of texts from which it is compressed


class FlatWriter:
    """Write the flat layout: `extend` rows, `array` small things, `close` with names and offsets.

    rows     name -> (dtype, width) of each dataset of rows
    total    number of rows, if known; else rows wait in a nameless file beside the output until it is
    compress gzip 4 + shuffle, for small integers

    The same rows give the same bytes, in whatever blocks they come: rows wait until there are some MB of them, or those
    that are compressed until their chunk is full, so that it is written once.

    Datasets that are not compressed are contiguous: windows of them read three to four times faster than from
    chunks, through a memory map.
    """

    def __init__(
        self,
        file: LatchingFile,
        kind: str,
        rows: Mapping[str, tuple[np.dtype, int]],
        *,
        total: int | None = None,
        compress: bool = False,
    ) -> None:
        assert all(width > 0 for _, width in rows.values()), rows
        self._file = file
        self._kind = kind
        self._total = total
        self.num_rows = 0
        self._types = dict(rows)
        self._rows: dict[str, h5py.Dataset] = {}
        self._kept: dict[str, LatchingFile] = {}
        self._waiting: dict[str, list[np.ndarray]] = {name: [] for name in rows}
        self._written = dict.fromkeys(rows, 0)
        self._step = {
            name: CHUNK_ROWS if compress else block_rows(width, dtype.itemsize) for name, (dtype, width) in rows.items()
        }
        self._hashes = {name: hashlib.sha256() for name in rows}
        self._arrays: dict[str, np.ndarray] = {}
        self._h5 = h5py.File(file, "w")
        try:
            self._create(rows, compress)
        except BaseException:
            self._h5.close()
            raise

    def _create(self, rows: Mapping[str, tuple[np.dtype, int]], compress: bool) -> None:
        for name, (dtype, width) in rows.items():
            if compress:
                self._rows[name] = self._h5.create_dataset(
                    name,
                    (0, width),
                    dtype=dtype,
                    chunks=(CHUNK_ROWS, width),
                    maxshape=(None, width),
                    compression="gzip",
                    compression_opts=4,
                    shuffle=True,
                )
            elif self._total is None:
                self._kept[name] = _nameless(self._file)
            else:
                self._rows[name] = self._h5.create_dataset(name, (self._total, width), dtype=dtype)

    def extend(self, **rows: np.ndarray) -> None:
        """Append the same number of rows to every dataset of rows."""
        assert rows.keys() == self._types.keys(), (rows.keys(), self._types.keys())
        count = {len(block) for block in rows.values()}
        assert len(count) == 1, count
        stop = self.num_rows + count.pop()
        for name, (dtype, _) in self._types.items():  # in one order: HDF5 places a dataset when it is first written
            data = np.ascontiguousarray(rows[name], dtype=dtype)
            self._hashes[name].update(data.data)
            if name in self._kept:
                self._kept[name].write(data.tobytes())
                continue
            self._waiting[name].append(data)
            step, whole = self._step[name], self._rows[name].chunks is not None
            if stop - self._written[name] >= step:
                self._write_waiting(name, stop // step * step if whole else stop)
            else:
                self._waiting[name][-1] = data.copy()  # the caller's own may change
        self.num_rows = stop

    def _write_waiting(self, name: str, stop: int) -> None:
        """Write the rows that wait, up to `stop`."""
        dataset, waiting, start = self._rows[name], self._waiting[name], self._written[name]
        blocks = waiting[-1:]
        if dataset.chunks is not None:
            dataset.resize(stop, axis=0)
            blocks = [np.concatenate(waiting)]
        elif len(waiting) > 1:  # the last may be large and is not copied
            blocks = [np.concatenate(waiting[:-1]), waiting[-1]]
        for data in blocks:
            rows = min(len(data), stop - start)
            dataset[start : start + rows] = data[:rows]
            start += rows
        self._waiting[name] = [data[rows:].copy()]
        self._written[name] = stop

    def _place_kept(self) -> None:
        """Write the rows of the nameless files, whose number is known now."""
        for name, kept in self._kept.items():
            dtype, width = self._types[name]
            self._file.failure = self._file.failure or kept.failure
            dataset = self._h5.create_dataset(name, (self.num_rows, width), dtype=dtype)
            kept.seek(0)
            step = block_rows(width, dtype.itemsize)
            for start in range(0, 0 if kept.failure else self.num_rows, step):
                signals.check()
                stop = min(start + step, self.num_rows)
                dataset[start:stop] = np.fromfile(kept, dtype, (stop - start) * width).reshape(-1, width)
            kept.close()

    def array(self, name: str, value: np.ndarray) -> None:
        """Write one small array; DataError where it is larger than any that is read back."""
        if value.nbytes > MAX_ARRAY_BYTES:
            what = f"would take more than {MAX_ARRAY_BYTES >> 30} GiB, which is not read back; make several files"
            raise DataError(what, dataset=name)
        self._arrays[name] = value
        text = value.dtype.kind == "S"
        stored = value.astype(h5py.string_dtype("utf-8", value.dtype.itemsize)) if text else value
        # Texts are padded to the longest: 90,000 captions of 30 to 740 bytes took 67 MB, and 3.4 MB deflated.
        packed = {"compression": "gzip", "shuffle": False} if text and value.nbytes > LONG_TEXTS else {}
        self._h5.create_dataset(name, data=stored, **packed)

    def close(self, names: Sequence[str], offsets: np.ndarray, attrs: Mapping[str, Any]) -> None:
        """Write names, offsets and attributes, and finish the file.

        Raises DataError for a name that is empty, repeated, too long or holds a NUL.
        """
        assert self.num_rows == int(offsets[-1]) and len(offsets) == len(names) + 1
        assert self._total is None or self.num_rows == self._total
        self._place_kept()
        for name in self._rows:
            if self._written[name] < self.num_rows:
                self._write_waiting(name, self.num_rows)
        self.array("offsets", np.asarray(offsets, dtype="<i8"))
        self.array("names", encode_names(names))
        attrs = {"format": f"vqtool.{self._kind}", "format_version": 1, **attrs, "complete": len(names)}
        digest = content_digest({n: h.hexdigest() for n, h in self._hashes.items()}, self._arrays, attrs)
        for key, value in {**attrs, "sha256": digest}.items():
            if isinstance(value, str):
                # Of a fixed length: a flipped bit in HDF5's heap of variable strings makes it hang or crash.
                data = value.encode("utf-8", "surrogateescape")
                self._h5.attrs.create(key, data, dtype=h5py.string_dtype("utf-8", max(1, len(data))))
            else:
                self._h5.attrs[key] = value
        self._h5.close()

    def __enter__(self) -> FlatWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        """Let go of the file before it is closed under HDF5, which crashes otherwise."""
        for kept in self._kept.values():
            kept.close()
        if self._h5:
            self._h5.close()


def _nameless(beside: LatchingFile) -> LatchingFile:
    """A file in the folder of another that is gone as soon as it is closed, however the program ends."""
    path = Path(f"{os.fsdecode(beside.name)}.rows")
    file = LatchingFile(path)
    path.unlink()
    return file


def encode_names(names: Sequence[str]) -> np.ndarray:
    """Names as fixed-length UTF-8 [N]; DataError for an empty, repeated or too long name or one with a NUL."""
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DataError("two clips have this name; rename one", clip=twice)
    raw = []
    for name in names:
        data = name.encode("utf-8", "surrogatepass")
        with contextlib.suppress(UnicodeEncodeError):  # a file name that is not UTF-8, as Python reads it
            data = name.encode("utf-8", "surrogateescape")
        if not data or b"\0" in data or len(data) > MAX_NAME_BYTES:
            raise DataError(f"a clip name has 1 to {MAX_NAME_BYTES} bytes and no NUL; rename it", clip=name[:80])
        if data.decode("utf-8", "surrogateescape") != name:
            raise DataError("a clip name must be valid Unicode; rename it", clip=name[:80])
        raw.append(data)
    return np.array(raw, dtype=f"S{max(map(len, raw), default=1)}")


def encode_texts(texts: Sequence[str]) -> np.ndarray:
    """Texts as fixed-length UTF-8 [N], without any NUL; DataError for one of more than 64 kB."""
    raw = [text.replace("\0", "").encode("utf-8", "surrogateescape") for text in texts]
    if any(len(text) > MAX_TEXT_BYTES for text in raw):
        long = next(text for text in texts if len(text.encode("utf-8", "surrogateescape")) > MAX_TEXT_BYTES)
        raise DataError(f"the text {long[:40]!r}... has more than {MAX_TEXT_BYTES:,} bytes; shorten it")
    return np.array(raw, dtype=f"S{max(1, *map(len, raw))}" if raw else "S1")


def content_digest(rows: Mapping[str, str], arrays: Mapping[str, np.ndarray], attrs: Mapping[str, Any]) -> str:
    """SHA-256 over everything in a flat file: the digests of its rows, its small arrays and its attributes."""
    digest = hashlib.sha256()
    for name in sorted(rows):
        digest.update(f"{name} {rows[name]}\n".encode())
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
        digest.update(value.tobytes())
    plain = {key: np.asarray(value).tolist() for key, value in attrs.items() if key != "sha256"}
    digest.update(json.dumps(plain, sort_keys=True).encode())
    return digest.hexdigest()


class FlatReader:
    """Read the flat layout. Opening reads names and offsets only; rows are read when asked for."""

    def __init__(self, path: Path, kind: str, rows: Sequence[str]) -> None:
        self.path = path
        self._h5 = open_hdf5(path)
        self._digests: dict[str, str] = {}
        self._maps: dict[str, np.ndarray | None] = {}
        try:
            with damaged(path):
                self._open(kind, rows)
        except BaseException:
            self.close()
            raise

    def _open(self, kind: str, rows: Sequence[str]) -> None:
        path = self.path
        self.attrs: dict[str, Any] = {key: attribute(self._h5, key) for key in self._h5.attrs if isinstance(key, str)}
        found, version = self.attrs.get("format"), self.attrs.get("format_version")
        if found != f"vqtool.{kind}":
            what = f"a {found} file" if isinstance(found, str) else "no vqtool file"
            raise DataError(f"is {what}; a vqtool.{kind} file was expected", file=path)
        if version != 1:
            raise DataError(f"has format version {version}; this vqtool reads 1, so update vqtool", file=path)
        self.rows = {name: find(path, self._h5, name, ndim=2) for name in rows}
        offsets = find(path, self._h5, "offsets", ndim=1, kinds="iu")
        names = find(path, self._h5, "names", ndim=1, kinds="S")
        if len(offsets) > MAX_CLIPS or len(offsets) != len(names) + 1:
            what = f"has {len(offsets)} entries for {counted(len(names), 'names')}; the file is damaged"
            raise DataError(what, file=path, dataset="offsets")
        self.offsets: np.ndarray = read_array(path, offsets).astype(np.int64)
        self.names = [name.decode("utf-8", "surrogateescape") for name in read_array(path, names).tolist()]
        counts = {len(dataset) for dataset in self.rows.values()}
        falls = self.offsets[1:] < self.offsets[:-1]  # differences could overflow
        if counts != {int(self.offsets[-1])} or self.offsets[0] != 0 or bool(falls.any()):
            raise DataError("does not fit the rows; the file is damaged", file=path, dataset="offsets")
        if self.attrs.get("complete") != len(self.names):
            raise DataError("was not written to its end; make it again", file=path)

    def array(self, name: str, *, ndim: int, kinds: str = "fiu") -> np.ndarray:
        """A small array, whole."""
        dataset = find(self.path, self._h5, name, ndim=ndim, kinds=kinds)
        return read_array(self.path, dataset)

    def texts(self, name: str) -> list[str]:
        """A small array of texts, whole."""
        return [text.decode("utf-8", "surrogateescape") for text in self.array(name, ndim=1, kinds="S").tolist()]

    def has(self, name: str) -> bool:
        """Whether the file has an object of that name, or a link, which `find` then refuses."""
        with damaged(self.path, name):
            node: Any = self._h5
            for part in name.split("/"):
                if not isinstance(node, h5py.Group) or not node.id.links.exists(part.encode()):
                    return False
                if node.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
                    break
                node = node[part]
            return True

    def blocks(self, name: str, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """The rows [start, stop) of one dataset in blocks of a few MB."""
        dataset = self.rows[name]
        stop = len(dataset) if stop is None else stop
        step = block_rows(dataset.shape[1], dataset.dtype.itemsize)
        for first in range(start, stop, step):
            signals.check()
            yield read_rows(self.path, dataset, first, min(first + step, stop))

    def hashed_blocks(self, name: str) -> Iterator[np.ndarray]:
        """All rows of one dataset in blocks, whose digest `verify` then knows: one pass reads and verifies."""
        digest = hashlib.sha256()
        little = self.rows[name].dtype.newbyteorder("<")
        for block in self.blocks(name):
            digest.update(np.ascontiguousarray(block, dtype=little).data)
            yield block
        self._digests[name] = digest.hexdigest()

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of one dataset, for many small pieces: from a map of the file where it can be."""
        if name not in self._maps:
            self._maps[name] = self._map(name)
        if (mapped := self._maps[name]) is not None:
            return np.array(mapped[start:stop])
        return read_rows(self.path, self.rows[name], start, stop)

    def _map(self, name: str) -> np.ndarray | None:
        """The rows as a read-only memory map, None where they are chunked, compressed, not native or not here."""
        dataset = self.rows[name]
        if isinstance(self.path, RemotePath):
            return None
        plist = dataset.id.get_create_plist()
        offset = dataset.id.get_offset()
        if plist.get_layout() != h5py.h5d.CONTIGUOUS or offset is None or not dataset.dtype.isnative:
            return None
        if dataset.size == 0 or offset + dataset.size * dataset.dtype.itemsize > self.path.stat().st_size:
            return None
        # As a plain array: each slice of a memmap object takes several times as long.
        return np.asarray(np.memmap(self.path, dataset.dtype, "r", offset, dataset.shape))

    def verify(self) -> None:
        """Read everything and compare with the stored SHA-256; DataError when a bit has changed.

        Rows that were taken to their end from `hashed_blocks` are not read again.
        """
        for name in self.rows.keys() - self._digests.keys():
            for _ in self.hashed_blocks(name):
                pass
        small = {"offsets": np.asarray(self.offsets, dtype="<i8"), "names": encode_names(self.names)}
        for dataset in walk(self.path, self._h5):
            name = dataset.name.lstrip("/")
            if name not in self.rows and name not in small:
                small[name] = self.array(name, ndim=max(1, dataset.ndim), kinds="fiuS")
        with damaged(self.path):
            digest = content_digest(self._digests, small, self.attrs)
        if digest != self.attrs.get("sha256"):
            raise DataError("does not match its SHA-256: it was damaged or edited; make it again", file=self.path)

    def close(self) -> None:
        """Close the file."""
        self._maps.clear()
        self._h5.close()
