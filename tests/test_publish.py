"""Publishing: an output is whole or absent, whatever kills the writer or fills the disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import vqtool
from vqtool import publish as module
from vqtool.errors import LockedError, OutputError, StorageError, UsageError
from vqtool.publish import check_output, publish, publish_bytes, publish_folder, remove_folder, remove_leftovers
from vqtool.store import MotionSet, create_motion

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(vqtool.__file__).parent.parent)}

# Writes argv[1] as bytes and exits as the command line would.
WRITE = """
import sys
from collections.abc import Callable
from pathlib import Path
from vqtool.errors import VqtoolError
from vqtool.publish import publish_bytes
try:
    publish_bytes(Path(sys.argv[1]), b"new" * 1000, force=True)
except VqtoolError as error:
    sys.exit(f"{type(error).__name__} {error}")
"""

# Says "writing" in the middle of the block and waits to be killed.
STALL = """
import sys, time
from pathlib import Path
from vqtool.publish import publish
with publish(Path(sys.argv[1]), force=True) as file:
    file.write(b"half")
    print("writing", flush=True)
    time.sleep(60)
"""

# Writes a motion.h5 of 400 kB at each limit on a file's size, and prints what came of it.
LIMITED = """
import json, resource, sys
from pathlib import Path
import numpy as np
from vqtool.errors import VqtoolError
from vqtool.store import create_motion
path, total, done = Path(sys.argv[1]), json.loads(sys.argv[2]), []
for limit in json.loads(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))
    try:
        with create_motion(path, dim=10, fps=30, total_frames=total, force=True) as motion:
            for clip in range(10):
                motion.append(str(clip), np.ones((1000, 10), "f4"))
        done.append("written")
    except VqtoolError as error:
        done.append(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
print(json.dumps(done))
"""


def python(code: str, *arguments: object, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [*before, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A place for an output, in a folder of its own."""
    return tmp_path / "out.bin"


def listing(path: Path) -> list[str]:
    return sorted(os.listdir(path.parent))


def test_a_block_that_ends_well_gives_the_file_and_nothing_else(path: Path) -> None:
    with publish(path) as file:
        file.write(b"one")
        file.write(b"two")
    assert path.read_bytes() == b"onetwo" and listing(path) == ["out.bin"]


def test_nothing_is_at_the_path_until_the_block_ends(path: Path) -> None:
    with publish(path) as file:
        file.write(b"one")
        assert not path.exists()


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_an_exception_in_the_block_leaves_the_old_file_and_no_litter(path: Path, error: BaseException) -> None:
    path.write_bytes(b"old")
    with pytest.raises(type(error)), publish(path, force=True) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old" and listing(path) == ["out.bin"]


def test_an_exception_in_the_block_leaves_nothing_where_nothing_was(path: Path) -> None:
    with pytest.raises(ValueError, match="x"), publish(path) as file:
        file.write(b"new")
        raise ValueError("x")
    assert listing(path) == []


def test_an_existing_output_is_refused_and_stays(path: Path) -> None:
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"out\.bin: exists already; choose another -o or add --force"):
        publish_bytes(path, b"new")
    assert path.read_bytes() == b"old" and listing(path) == ["out.bin"]


def test_force_replaces_an_existing_output(path: Path) -> None:
    path.write_bytes(b"old")
    publish_bytes(path, b"new", force=True)
    assert path.read_bytes() == b"new" and listing(path) == ["out.bin"]


def test_a_reader_of_the_old_file_keeps_it(path: Path) -> None:
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        publish_bytes(path, b"new", force=True)
        assert reader.read() == b"old"


def test_a_new_output_has_the_mode_that_the_umask_gives(path: Path) -> None:
    before = os.umask(0o027)
    try:
        publish_bytes(path, b"new")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_missing_parent_folder_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"the folder .*none does not exist; create it first"):
        check_output(tmp_path / "none" / "out.bin", force=False)


def test_publish_into_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be created"):
        publish_bytes(tmp_path / "none" / "out.bin", b"")


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_as_output_is_refused(tmp_path: Path, force: bool) -> None:
    with pytest.raises(OutputError, match="is a folder; name a file"):
        check_output(tmp_path, force=force)


def test_a_device_or_pipe_is_never_replaced(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OutputError, match="is a device or pipe; name a file"):
        publish_bytes(path, b"", force=True)
    assert path.is_fifo()
    with pytest.raises(OutputError, match="is a device or pipe"):
        check_output(Path(os.devnull), force=True)


def test_a_name_too_long_for_the_file_system_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be created"):
        check_output(tmp_path / ("n" * 300), force=False)


@pytest.mark.parametrize("force", [False, True])
def test_an_output_that_is_an_input_is_refused(path: Path, force: bool) -> None:
    path.write_bytes(b"old")
    with pytest.raises(UsageError, match="is both input and output"):
        check_output(path, force=force, inputs=(path.parent / "other", path))


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_an_output_that_is_an_input_by_another_name_is_refused(path: Path, link: object) -> None:
    path.write_bytes(b"old")
    other = path.with_name("other")
    link(path, other)  # type: ignore[operator]
    with pytest.raises(UsageError, match="is both input and output"):
        check_output(other, force=True, inputs=(path,))


def test_check_output_leaves_no_trace(path: Path) -> None:
    check_output(path, force=False, inputs=(path.parent / "other",))
    assert listing(path) == []


def test_a_second_writer_is_refused_and_the_first_goes_on(path: Path) -> None:
    with publish(path) as file:
        file.write(b"first")
        with pytest.raises(LockedError, match=r"out\.bin: another process is writing it"):
            publish_bytes(path, b"second", force=True)
        file.write(b" writer")
    assert path.read_bytes() == b"first writer" and listing(path) == ["out.bin"]


def test_a_second_process_is_refused_at_once(path: Path) -> None:
    with publish(path) as file:
        found = python(WRITE, path)
        file.write(b"first")
    assert found.returncode == 1 and found.stderr.startswith("LockedError")
    assert path.read_bytes() == b"first"


def test_writers_of_different_outputs_do_not_meet(path: Path) -> None:
    with publish(path):
        publish_bytes(path.with_name("other"), b"x")
    assert listing(path) == ["other", "out.bin"]


def test_a_file_system_without_locks_still_takes_outputs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(handle: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    assert module.fcntl is not None
    monkeypatch.setattr(module.fcntl, "flock", no_locks)
    publish_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_what_a_killed_run_left_does_not_hinder_the_next(path: Path) -> None:
    path.with_name(".out.bin.part").write_bytes(b"half of a longer file")
    path.with_name("out.bin.lock").write_bytes(b"")
    publish_bytes(path, b"new")
    assert path.read_bytes() == b"new" and listing(path) == ["out.bin"]


def test_what_a_killed_run_left_is_removed_and_the_output_stays(path: Path) -> None:
    for name in ("out.bin", ".out.bin.part", "out.bin.lock", "other.lock"):
        path.with_name(name).write_bytes(b"x")
    remove_leftovers(path)
    remove_leftovers(path.with_name("none"))
    assert listing(path) == ["other.lock", "out.bin"]


def test_a_killed_process_leaves_the_old_file_and_the_next_run_works(path: Path) -> None:
    path.write_bytes(b"old")
    command = [sys.executable, "-c", STALL, str(path)]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"writing\n"
        with pytest.raises(LockedError):
            publish_bytes(path, b"second", force=True)
        child.kill()
        child.wait()
    assert path.read_bytes() == b"old"
    publish_bytes(path, b"new", force=True)
    assert path.read_bytes() == b"new" and listing(path) == ["out.bin"]


@pytest.fixture(scope="session")
def strace(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = shutil.which("strace")
    if (
        found is None
        or subprocess.run([found, "-e", "trace=none", "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("strace cannot be had here: outputs are not killed at every system call")
    return found


def calls(path: Path, strace: str, inject: str) -> subprocess.CompletedProcess[str]:
    """Write over `path` in a process in which a system call goes wrong."""
    name = inject.partition(":")[0]
    before = (strace, "-qq", "-o", os.devnull, "-e", f"trace={name}", "-e", f"inject={inject}")
    return python(WRITE, path, before=before)


@pytest.mark.parametrize("call", ["flock", "write", "fsync", "rename", "unlink"])
def test_a_process_killed_at_any_system_call_leaves_the_old_file_or_the_new(path: Path, strace: str, call: str) -> None:
    for when in range(1, 9):
        path.write_bytes(b"old")
        found = calls(path, strace, f"{call}:signal=KILL:when={when}")
        assert path.read_bytes() in (b"old", b"new" * 1000)
        if found.returncode == 0:
            break
        assert found.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), found.stderr
        assert listing(path) != [] and python(WRITE, path).returncode == 0
        assert path.read_bytes() == b"new" * 1000 and listing(path) == ["out.bin"]
    assert when > 1 and found.returncode == 0, "the call was never met, or always"


@pytest.mark.parametrize("inject", ["write:error=ENOSPC", "fsync:error=EIO:when=1", "rename:error=EROFS"])
def test_a_system_call_that_fails_is_a_storage_error_and_the_old_file_stays(
    path: Path, strace: str, inject: str
) -> None:
    path.write_bytes(b"old")
    found = calls(path, strace, inject.replace("write:", "write:when=1:"))
    assert found.stderr.startswith("StorageError") and "could not be written" in found.stderr
    assert path.read_bytes() == b"old" and listing(path) == ["out.bin"]


def test_a_disk_that_fails_on_fsync_is_a_storage_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"old")

    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=r"out\.bin: could not be written \(Input/output error\); nothing was"):
        publish_bytes(path, b"new", force=True)
    assert path.read_bytes() == b"old" and listing(path) == ["out.bin"]


@pytest.fixture
def fsync_of_folders_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Call it with an errno."""
    fsync = os.fsync

    def set_error(number: int) -> None:
        def fail(handle: int) -> None:
            if stat.S_ISDIR(os.fstat(handle).st_mode):
                raise OSError(number, os.strerror(number))
            fsync(handle)

        monkeypatch.setattr(os, "fsync", fail)

    return set_error


def test_a_disk_that_fails_after_the_rename_is_told_without_saying_that_nothing_was_changed(
    path: Path, fsync_of_folders_fails: Callable[[int], None]
) -> None:
    fsync_of_folders_fails(errno.EIO)
    with pytest.raises(StorageError, match=r"out\.bin: is written, but might not survive a power cut \(Input/output"):
        publish_bytes(path, b"new")
    assert path.read_bytes() == b"new" and listing(path) == ["out.bin"]


def test_a_file_system_that_cannot_sync_folders_still_takes_outputs(
    path: Path, fsync_of_folders_fails: Callable[[int], None]
) -> None:
    fsync_of_folders_fails(errno.EINVAL)
    publish_bytes(path, b"new")
    fill(path.with_name("step"), a=b"1")
    assert path.read_bytes() == b"new" and listing(path) == ["out.bin", "step"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_write_to_a_full_device_is_a_storage_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"old")
    part = path.with_name(".out.bin.part")
    part.symlink_to("/dev/full")
    with pytest.raises(StorageError, match="No space left on device"):
        publish_bytes(path, b"new", force=True)
    assert path.read_bytes() == b"old" and listing(path) == ["out.bin"]


def test_a_failed_write_is_told_even_if_the_block_then_fails_otherwise(path: Path) -> None:
    with pytest.raises(StorageError, match="No space left"), publish(path) as file:
        file.failure = OSError(errno.ENOSPC, "No space left on device")
        file.write(b"swallowed")
        raise RuntimeError("HDF5 is confused")
    assert listing(path) == []


@pytest.mark.parametrize("total", ["null", "10000"])
def test_hdf5_on_a_full_disk_is_a_storage_error_and_no_crash(tmp_path: Path, total: str) -> None:
    path = tmp_path / "motion.h5"
    with create_motion(path, dim=2, fps=25) as motion:
        motion.append("old", np.zeros((3, 2), "f4"))
    before = path.read_bytes()
    limits = [0, 1, 96, 2048, 5000, 100_000, 399_000, 400_500]
    found = python(LIMITED, path, total, json.dumps(limits))
    assert found.returncode == 0 and found.stderr == "", (found.returncode, found.stderr)
    assert json.loads(found.stdout) == ["StorageError"] * len(limits)
    assert path.read_bytes() == before and listing(path) == ["motion.h5"]


def test_hdf5_within_the_limit_is_written(tmp_path: Path) -> None:
    found = python(LIMITED, tmp_path / "motion.h5", "10000", "[500000]")
    assert found.stdout.strip() == '["written"]', found.stderr
    with MotionSet([tmp_path / "motion.h5"]) as motion:
        motion.verify()


def test_hdf5_on_a_real_full_disk_is_a_storage_error_and_no_crash(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=256k tmpfs "$0" && cd "$0" && exec "$@"'
    before = ("unshare", "-rm", "sh", "-c", mount, str(tmp_path))
    if shutil.which("unshare") is None or python("", before=before).returncode:
        pytest.skip("no private tmpfs can be mounted here")
    code = LIMITED + "import os\nprint(os.listdir('.'))"
    found = python(code, "motion.h5", "null", "[-1, -1]", before=before)
    assert found.stdout.splitlines() == ['["StorageError", "StorageError"]', "[]"], found.stderr
    assert found.returncode == 0


def test_a_block_that_fails_in_hdf5_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="x"), create_motion(tmp_path / "m.h5", dim=3, fps=30) as motion:
        motion.append("a", np.zeros((5, 3), "f4"))
        raise ValueError("x")
    assert os.listdir(tmp_path) == []


def fill(path: Path, **files: bytes) -> None:
    with publish_folder(path) as part:
        for name, data in files.items():
            (part / name).write_bytes(data)


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    with publish_folder(tmp_path / "step") as part:
        (part / "a").write_bytes(b"1")
        assert not (tmp_path / "step").exists()
    assert contents(tmp_path / "step") == {"a": b"1"} and os.listdir(tmp_path) == ["step"]


def test_a_folder_replaces_an_older_one_whole(tmp_path: Path) -> None:
    fill(tmp_path / "step", a=b"1", b=b"2")
    fill(tmp_path / "step", a=b"3")
    assert contents(tmp_path / "step") == {"a": b"3"} and os.listdir(tmp_path) == ["step"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_whose_block_fails_leaves_the_old_one_and_no_litter(
    tmp_path: Path, error: type[BaseException]
) -> None:
    fill(tmp_path / "step", a=b"1")
    with pytest.raises(error), publish_folder(tmp_path / "step") as part:
        (part / "a").write_bytes(b"2")
        raise error
    assert contents(tmp_path / "step") == {"a": b"1"} and os.listdir(tmp_path) == ["step"]


def test_a_folder_that_cannot_be_renamed_is_a_storage_error_and_the_old_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "step", a=b"1")
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if source.name.endswith(".part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StorageError, match="No space left"):
        fill(tmp_path / "step", a=b"2")
    assert contents(tmp_path / "step") == {"a": b"1"} and os.listdir(tmp_path) == ["step"]


def test_a_folder_that_can_neither_be_renamed_nor_put_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "step", a=b"1")
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if target.name == "step":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(StorageError, match=r"what was there is .*\.step\.old now"):
        fill(tmp_path / "step", a=b"2")
    assert contents(tmp_path / ".step.old") == {"a": b"1"}


def test_an_older_folder_that_a_killed_run_moved_away_survives_another_failure(tmp_path: Path) -> None:
    fill(tmp_path / ".step.old", a=b"1")
    with pytest.raises(StorageError, match="could not be written"), publish_folder(tmp_path / "step"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert contents(tmp_path / "step") == {"a": b"1"} and os.listdir(tmp_path) == ["step"]


def test_a_disk_that_fails_after_a_folder_is_in_place_keeps_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "step", a=b"1")

    def fail(folder: Path) -> None:
        if folder == tmp_path:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module, "sync", fail)
    with pytest.raises(StorageError, match=r"step: is written, but might not survive"):
        fill(tmp_path / "step", a=b"2")
    assert contents(tmp_path / "step") == {"a": b"2"}


def test_a_folder_is_removed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "step", a=b"1")
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda *paths: (_ for _ in ()).throw(OSError(errno.EROFS, "read-only")))
    with pytest.raises(StorageError, match=r"step: could not be removed \(read-only\)"):
        remove_folder(tmp_path / "step")
    assert contents(tmp_path / "step") == {"a": b"1"}
    monkeypatch.setattr(os, "rename", rename)
    fill(tmp_path / ".step.old", a=b"0")
    remove_folder(tmp_path / "step")
    remove_folder(tmp_path / "step")
    assert os.listdir(tmp_path) == []


def test_what_a_killed_run_left_of_a_folder_is_not_in_the_next(tmp_path: Path) -> None:
    (tmp_path / ".step.part").mkdir()
    (tmp_path / ".step.part" / "stale").write_bytes(b"x")
    fill(tmp_path / "step", a=b"1")
    assert contents(tmp_path / "step") == {"a": b"1"} and os.listdir(tmp_path) == ["step"]


def test_an_older_folder_is_never_removed_file_by_file_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "step", a=b"1", b=b"2")
    removed = []
    rmtree = shutil.rmtree

    def watch(path: Path, ignore_errors: bool = False) -> None:
        removed.append(path)
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", watch)
    fill(tmp_path / "step", a=b"3")
    assert tmp_path / "step" not in removed
