"""Let a child process with limits meet what a damaged file does to libhdf5: a crash there is one line here."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import mmap
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from vqtool.errors import DataError, StorageError
from vqtool.remote import RemotePath

resource: ModuleType | None
try:
    import resource
except ImportError:  # not POSIX: a crash is still met, but only time is limited
    resource = None

CPU_SECONDS = 5  # for one object, and one more for each 256 MiB of the file, whose indices may be as large
STALL_SECONDS = 120  # in which an object may keep the process waiting for the disk
MEMORY_BYTES = 1 << 30  # beyond what this process has; three times as much is refused to the child
OUT_OF_MEMORY = 9  # exit code

At = Callable[[str], None]
Examine = Callable[[Path, At], None]
_survived: set[tuple[int, ...]] = set()


def probe(path: Path, examine: Examine) -> None:
    """Call `examine(path, at)` in a child process; DataError where it crashes, runs without end or takes all memory.

    `at(name)` says which object comes next: the limit of time is for each. What `examine` raises is left to the
    caller, who meets it again. A file that was survived once is not examined again until it changes.

    On Linux the child is a fork, which takes milliseconds. That is safe with threads: h5py holds its lock across a
    fork, the child calls nothing but h5py and numpy's copies (no torch, no OpenMP), collects no garbage (which could
    close files of its parent's) and leaves by _exit. Elsewhere, where it may not be (macOS), or where there is no
    memory for a fork, or for a URL, whose library has threads of its own, the child is a fresh interpreter, which takes
    a third of a second.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise StorageError(f"cannot be read ({error.strerror})", file=path) from error
    key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    if key in _survived:
        return
    try:
        status, place = _in_child(path, examine)
    except OSError as error:
        raise StorageError(f"no process to examine it in ({error.strerror})", file=path) from error
    if status != 0:
        raise _error(path, place or None, status)
    _survived.add(key)


def _error(path: Path, place: str | None, status: int) -> DataError | StorageError:
    """What a child's end means: its exit code, or less the signal that killed it."""
    name = f"exit code {status}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-status).name
    if name == "SIGALRM":
        what = f"was not read within {STALL_SECONDS} s; look after the disk that it is on"
        return StorageError(what, file=path, dataset=place)
    if name == "SIGKILL":
        what = "was not read: the system killed the process that examined it, probably for want of memory"
        return StorageError(what, file=path, dataset=place)
    what = f"crashes HDF5 ({name})"
    if name == "SIGXCPU":
        what = "makes HDF5 run without end"
    if 0 < status < 256 and status != OUT_OF_MEMORY:
        return StorageError(f"was not read: the process that examined it failed ({name})", file=path, dataset=place)
    if status == OUT_OF_MEMORY:
        what = f"makes HDF5 take more than {MEMORY_BYTES >> 30} GiB of memory"
    return DataError(f"{what}; the file is damaged, so copy or make it again", file=path, dataset=place)


def _in_child(path: Path, examine: Examine) -> tuple[int, str]:
    """How the child ended, and the object that it was at where that is known."""
    if sys.platform == "linux" and (not isinstance(path, RemotePath) or path.url.startswith("memory:")):
        with contextlib.suppress(OSError):
            return _in_fork(path, examine)
    return _in_interpreter(path, examine), ""


def _in_fork(path: Path, examine: Examine) -> tuple[int, str]:
    page = mmap.mmap(-1, mmap.PAGESIZE)  # shared: whether the child came to its end, then where it is
    faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL}
    # The child keeps all other signals blocked: they are for its parent, whose handlers must not run in it.
    others = signal.valid_signals() - faults - {signal.SIGXCPU, signal.SIGALRM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, others)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            child = os.fork()
        if child == 0:
            _fork(path, examine, page)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    except ChildProcessError:  # this process ignores SIGCHLD: nobody keeps the status
        status = 0 if page[0] else -signal.SIGSEGV
    except BaseException:  # a handler raised, such as that of Ctrl-C
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    return status, bytes(page[1:]).rstrip(b"\0").decode("utf-8", "replace")


def _fork(path: Path, examine: Examine, page: mmap.mmap) -> None:
    """What the child does: it does not return."""
    status = 1
    try:
        gc.disable()
        faulthandler.disable()
        for number in (signal.SIGXCPU, signal.SIGALRM, signal.SIGABRT):
            signal.signal(number, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):  # glibc says why it aborts
            os.dup2(null, stream)

        def note(name: str) -> None:
            raw = name.encode("utf-8", "surrogateescape")[: len(page) - 1]
            page[1:] = raw.ljust(len(page) - 1, b"\0")

        status = run(path, examine, note)
        page[0] = 1
    finally:
        os._exit(status)


def _in_interpreter(path: Path, examine: Examine) -> int:
    module, name = examine.__module__, examine.__name__
    code = f"""
import os, sys
from {module} import {name}
from vqtool.probe import run
from vqtool.remote import located
os._exit(run(located(sys.argv[1]), {name}))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    null = subprocess.DEVNULL
    command = [sys.executable, "-c", code, os.fspath(path)]
    return subprocess.run(command, env=environment, stdin=null, stdout=null, stderr=null, check=False).returncode


def run(path: Path, examine: Examine, note: At | None = None) -> int:
    """In the child: examine under the limits; 0 or OUT_OF_MEMORY. `note` is told of every object."""
    seconds = CPU_SECONDS + path.stat().st_size // (256 << 20)
    before = _most_memory()
    if resource is not None:
        _limit(resource.RLIMIT_CORE, 0)
        if before:
            _limit(resource.RLIMIT_AS, before + 3 * MEMORY_BYTES)

    def at(name: str) -> None:
        if resource is not None:
            _limit(resource.RLIMIT_CPU, int(time.process_time()) + seconds)
            signal.alarm(STALL_SECONDS)
        if note is not None:
            note(name)

    at("")
    try:
        examine(path, at)
    except MemoryError:
        return OUT_OF_MEMORY
    except Exception:
        pass
    # HDF5 does not say whether it failed for want of memory. A buffer that doubles passes through this range.
    return OUT_OF_MEMORY if _most_memory() - before > MEMORY_BYTES else 0


def _most_memory() -> int:
    """The most address space that this process has had, in bytes; 0 where the system does not tell (macOS)."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmPeak:\s*(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) << 10 if found else 0
    return 0


def _limit(what: int, value: int) -> None:
    """Set a limit of this process, as far as it may."""
    assert resource is not None
    hard = resource.getrlimit(what)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(what, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
