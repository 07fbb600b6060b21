"""Files of other people as bytes: plain files only, since a pipe waits and /dev/zero never ends, and never too many."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vqtool.errors import DataError, MissingInputError, StorageError, counted

MAX_COLUMNS = 1 << 20  # of a frame: a row is always read whole
LARGE_BYTES = 64 << 20  # smaller data may shrink as far as it likes;
MAX_EXPANSION = 200  # larger data that grows more than so many times when it is read is no motion


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read; MissingInputError, StorageError, and DataError for a folder, a device, a pipe or a socket.

    An OSError within the block is a StorageError too.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise DataError("is a folder; name a file", file=path)
        if not stat.S_ISREG(mode):
            raise DataError("is not a file but a device, a pipe or a socket; name a file", file=path)
        with open(path, "rb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError):
        raise MissingInputError("no such file", file=path) from None
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror or error})", file=path) from error


def first_bytes(path: Path, count: int = 4096) -> bytes:
    """The beginning of a file."""
    with opened(path) as file:
        return file.read(count)


def read_bytes(path: Path, limit: int) -> bytes:
    """The whole file; DataError where it has more than `limit` bytes."""
    with opened(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DataError(f"is larger than {limit:,} bytes, the most that is read of such a file", file=path)
    return data


def read_text(path: Path, limit: int) -> bytes:
    """The whole file with every line end a newline; DataError where it is UTF-16."""
    data = read_bytes(path, limit)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("is UTF-16 text; save it as UTF-8", file=path)
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def check_columns(path: Path, dataset: str | None, columns: int) -> None:
    """DataError for more columns than a row may have."""
    if columns > MAX_COLUMNS:
        what = f"has {counted(columns, 'columns')}; motion has at most {MAX_COLUMNS:,}"
        raise DataError(what, file=path, dataset=dataset)


def check_expansion(path: Path, dataset: str, size: int, stored: int) -> None:
    """DataError for much data that takes next to nothing in its file, as no motion does but a bomb."""
    if size > LARGE_BYTES and size > MAX_EXPANSION * stored:
        what = f"would grow from {stored:,} to {size:,} bytes, as only zeros do; write it again without compression"
        raise DataError(what, file=path, dataset=dataset)
