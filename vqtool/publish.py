"""Whole-or-absent output: write beside the final path, fsync, rename; one writer at a time.

A reader never sees a partial file at the final path, and a file that was there stays as it is until the new
one is complete, whatever kills the writer. The sibling `.NAME.part` of a killed run is overwritten by the next.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from vqtool.errors import LockedError, OutputError, StorageError, UsageError

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not POSIX: outputs are still atomic, but two writers are not told apart
    fcntl = None


class LatchingFile(io.FileIO):
    """A binary file that remembers its first OSError and swallows every later write.

    HDF5 crashes when a write fails under it (h5py on a full disk: 5 of 5). Given this file it closes cleanly,
    and `commit` raises what really happened.
    """

    def __init__(self, path: Path) -> None:
        self.failure: OSError | None = None
        super().__init__(path, "w+")

    def write(self, data: Any) -> int:
        """Write all of `data` (HDF5 ignores short writes), or remember why not."""
        view = memoryview(data).cast("B")
        done = 0
        while self.failure is None and done < len(view):
            try:
                done += super().write(view[done:])
            except OSError as error:
                self.failure = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Resize, or remember why not."""
        if self.failure is None:
            try:
                return super().truncate(size)
            except OSError as error:
                self.failure = error
        return size or 0

    def commit(self) -> None:
        """Force everything to the disk; raises the first OSError that any write met."""
        if self.failure is not None:
            raise self.failure
        os.fsync(self.fileno())


def remove_leftovers(path: Path) -> None:
    """Remove what a killed writer of `path` left beside it; only for who knows that nobody is writing it now."""
    for left in path.with_name(path.name + ".lock"), _part(path):
        with contextlib.suppress(OSError):
            left.unlink(missing_ok=True)


def check_output(path: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse, before any work, an output that cannot or must not be written.

    Raises OutputError when it exists (unless `force`), is a folder or a device, or has no parent folder;
    UsageError when it is one of `inputs`.
    """
    if str(path) == "-":
        raise UsageError("HDF5 cannot be written to stdout; name a file with -o")
    try:
        parent, exists = path.parent.is_dir(), path.exists()
    except OSError as error:
        raise OutputError(f"cannot be created ({error.strerror})", file=path) from error
    if not parent:
        raise OutputError(f"the folder {path.parent} does not exist; create it first", file=path)
    if path.is_dir():
        raise OutputError("is a folder; name a file", file=path)
    if exists:
        if not path.is_file():  # renaming over /dev/null would take it from every program
            raise OutputError("is a device or pipe; name a file", file=path)
        if any(other.exists() and path.samefile(other) for other in inputs):
            raise UsageError("is both input and output; choose another -o", file=path)
        if not force:
            raise OutputError("exists already; choose another -o or add --force", file=path)


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `PATH.lock` while writing `path`; a second writer gets LockedError at once."""
    if fcntl is None:
        yield
        return
    name = path.with_name(path.name + ".lock")
    while True:
        try:
            handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot be created ({error.strerror})", file=path) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise LockedError("another process is writing it; wait for that or choose another -o", file=path) from error
        except OSError:
            pass  # a file system without locks: as on a system without them
        # The holder before us may have removed the file between our open and our lock.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(name)):
                break
        os.close(handle)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether a process holds this lock file; False where the platform has no locks."""
    if fcntl is None:
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def sync(path: Path) -> None:
    """Make a file's content durable, or of a folder its renames and removals."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do that
            raise
    finally:
        os.close(handle)


def remove_folder(path: Path) -> None:
    """Remove a folder if it is there; a killed run leaves it whole or gone. StorageError where it must stay."""
    old = _old(path)
    shutil.rmtree(old, ignore_errors=True)
    try:
        os.rename(path, old)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"could not be removed ({error.strerror or error})", file=path) from error
    shutil.rmtree(old, ignore_errors=True)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _storage_error(path: Path, error: OSError) -> StorageError:
    return StorageError(f"could not be written ({error.strerror or error}); nothing was changed", file=path)


def _confirm(path: Path) -> None:
    """Make the rename that brought `path` to its place durable."""
    try:
        sync(path.parent)
    except OSError as error:
        what = f"is written, but might not survive a power cut ({error.strerror or error}); check the disk"
        raise StorageError(what, file=path) from error


@contextlib.contextmanager
def publish(path: Path, *, force: bool = False) -> Iterator[LatchingFile]:
    """Give a file to write; when the block ends well it becomes `path`, else nothing changes.

    Raises OutputError or LockedError before the block runs, StorageError when the disk failed.
    """
    with lock(path):
        check_output(path, force=force)
        part = _part(path)
        try:
            file = LatchingFile(part)
        except OSError as error:
            raise OutputError(f"cannot be created ({error.strerror})", file=path) from error
        try:
            with file:
                yield file
                _commit(file, part, path)
        except BaseException as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            if file.failure is not None:
                raise _storage_error(path, file.failure) from error
            raise
        _confirm(path)


def _commit(file: LatchingFile, part: Path, path: Path) -> None:
    try:
        file.commit()
        os.replace(part, path)
    except OSError as error:
        raise _storage_error(path, error) from error


def publish_bytes(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a small file whole or not at all."""
    with publish(path, force=force) as file:
        file.write(data)


@contextlib.contextmanager
def publish_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill with files and folders; when the block ends well it becomes `path`.

    Any OSError becomes a StorageError, those of the block too.
    """
    part, old = _part(path), _old(path)
    try:
        if old.is_dir() and not path.exists():  # a run was killed when the older folder had been moved away
            os.rename(old, path)
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        for file in part.rglob("*"):
            sync(file)
        sync(part)
        if path.is_dir():  # moved away whole: removed file by file, a killed run would leave half of it
            os.rename(path, old)
        os.rename(part, path)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not path.exists():
            try:
                os.rename(old, path)
            except OSError as second:
                what = f"could not be written ({second.strerror or second}); what was there is {old} now"
                raise StorageError(what, file=path) from error
        if isinstance(error, OSError):
            raise _storage_error(path, error) from error
        raise
    _confirm(path)
    shutil.rmtree(old, ignore_errors=True)
