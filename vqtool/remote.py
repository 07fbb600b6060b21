"""Files behind URLs (s3://, gs://, https://, memory://) as paths to read; fsspec (the extra `remote`) opens them."""

from __future__ import annotations

import errno
import hashlib
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqtool.errors import StorageError, UsageError


@dataclass(frozen=True)
class _Stat:
    """What a store tells of a file, under the names of os.stat; `st_ino` changes when anything of it does."""

    st_size: int
    st_ino: int
    st_mode: int = stat.S_IFREG
    st_dev: int = -1
    st_mtime_ns: int = 0
    st_ctime_ns: int = 0


class RemotePath(type(Path())):  # type: ignore[misc]
    """A URL, of which name, stem and suffix are those of a path. `failure` is the last error in reading it."""

    url: str
    failure: str | None

    def __new__(cls, url: str) -> RemotePath:
        """Of the URL as it was given: a path would make one slash of two."""
        made: RemotePath = super().__new__(cls, url)
        made.url, made.failure = url, None
        return made

    def __str__(self) -> str:
        return self.url

    def __fspath__(self) -> str:
        return self.url

    def __reduce__(self) -> tuple[type[RemotePath], tuple[str]]:
        return RemotePath, (self.url,)

    def stat(self, **options: Any) -> Any:
        """Size and identity; OSError where there is no such file or the store does not answer."""
        found = self._ask(lambda system, path: system.info(path))
        seen = hashlib.sha256(repr(sorted(found.items(), key=str)).encode()).digest()
        if found.get("type") == "directory" or found.get("size") is None:
            raise OSError(errno.EIO, "is a folder, or of unknown size")
        return _Stat(int(found["size"]), int.from_bytes(seen[:7], "big"))

    def exists(self, **options: Any) -> bool:
        """Whether there is such a file."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_file(self, **options: Any) -> bool:
        """True: a store has files only."""
        return True

    def is_dir(self, **options: Any) -> bool:
        """False."""
        return False

    def open(self, mode: str = "rb", *rest: Any, **options: Any) -> Any:
        """A file object that seeks."""
        file = self._ask(lambda system, path: system.open(path, "rb"))
        return _Watched(file, self)

    def _ask(self, what: Any) -> Any:
        """Something of the store; UsageError where a library for it is missing."""
        try:
            import fsspec

            system, path = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            how = "pip install 'vqtool[remote]', and s3fs or gcsfs for these"
            raise UsageError(f"cannot be opened ({error}); {how}", file=self) from error
        try:
            return what(system, path)
        except FileNotFoundError:
            raise
        except Exception as error:  # of any library behind it
            raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


class _Watched:
    """A file object for HDF5, which crashes when a read fails under it: from the first failure on it reads zeros.

    The path keeps that failure, and `check` raises it.
    """

    def __init__(self, file: Any, path: RemotePath) -> None:
        self._file, self._path = file, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, as far as the file goes."""
        view = memoryview(buffer).cast("B")
        data = bytes(len(view))
        if self._path.failure is None:
            try:
                data = self._file.read(len(view))
            except Exception as error:  # of any library behind it
                # Its text only: its frames hold what HDF5 lets go of at the end of the process, when Python is no more.
                self._path.failure = str(error) or type(error).__name__
        view[: len(data)] = data
        return len(data)


def check(path: Path, dataset: str | None = None) -> None:
    """StorageError where reading a RemotePath failed; what was read since is not of the file."""
    if isinstance(path, RemotePath) and path.failure is not None:
        raise StorageError(f"cannot be read ({path.failure})", file=path, dataset=dataset)


def located(path: str | Path) -> Path:
    """The path, or a RemotePath of a URL."""
    if isinstance(path, Path):
        return path
    return RemotePath(path) if "://" in path else Path(path)
