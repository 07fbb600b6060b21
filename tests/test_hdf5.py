"""The door to HDF5: a crash, an endless loop or a huge demand is one line, whatever else the process is doing."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import h5py
import numpy as np
import pytest

from vqtool import hdf5
from vqtool.errors import DataError, StorageError
from vqtool.hdf5 import attribute, find, open_hdf5, walk
from vqtool.probe import At, probe
from vqtool.store import MotionSet, create_motion


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["g/x"] = np.ones((4, 3), "f4")
        file.attrs["fps"] = 30.0
    return tmp_path / "f.h5"


def crash(path: Path, at: At) -> None:
    at("/g/x")
    ctypes.string_at(1)


def abort(path: Path, at: At) -> None:
    at("/g/x")
    os.abort()


def spin(path: Path, at: At) -> None:
    at("/g/x")
    while True:
        pass


def gorge(path: Path, at: At) -> None:
    at("/g/x")
    np.ones(400 << 20, np.uint8)


@pytest.mark.parametrize(
    ("examine", "what"),
    [
        (crash, r"crashes HDF5 \(SIGSEGV\)"),
        (abort, r"crashes HDF5 \(SIGABRT\)"),
        (spin, "makes HDF5 run without end"),
        (gorge, "makes HDF5 take more than .* GiB of memory"),
    ],
)
def test_what_ends_the_child_is_an_error_that_names_the_object(
    path: Path, monkeypatch: pytest.MonkeyPatch, examine: Callable[[Path, At], None], what: str
) -> None:
    monkeypatch.setattr("vqtool.probe.CPU_SECONDS", 1)
    monkeypatch.setattr("vqtool.probe.MEMORY_BYTES", 100 << 20)
    with pytest.raises(DataError, match=rf"f\.h5:/g/x: {what}; the file is damaged, so copy or make it again$"):
        probe(path, examine)


def test_a_disk_that_does_not_answer_is_not_called_damage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqtool.probe.STALL_SECONDS", 1)
    with pytest.raises(StorageError, match="was not read within 1 s; look after the disk"):
        probe(path, lambda path, at: time.sleep(60))


def test_a_child_that_the_system_kills_is_not_called_damage(path: Path) -> None:
    with pytest.raises(StorageError, match="the system killed the process that examined it"):
        probe(path, lambda path, at: os.kill(os.getpid(), signal.SIGKILL))


def test_what_only_raises_is_left_to_the_reader(path: Path) -> None:
    def fail(path: Path, at: At) -> None:
        raise DataError("told by the reader")

    probe(path, fail)


def test_a_file_is_examined_once_until_it_changes(path: Path) -> None:
    ledger = path.with_suffix(".txt")

    def examine(path: Path, at: At) -> None:
        with ledger.open("a") as file:
            file.write("x")

    for _ in range(3):
        probe(path, examine)
    assert ledger.read_text() == "x"
    path.write_bytes(path.read_bytes() + b"0")
    probe(path, examine)
    assert ledger.read_text() == "xx"


def test_a_file_that_crashed_the_child_is_refused_again(path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DataError, match="crashes HDF5"):
            probe(path, crash)


def test_every_reader_meets_the_probe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "_examine", crash)
    with pytest.raises(DataError, match=r"f\.h5:/g/x: crashes HDF5"):
        MotionSet([path])


# ---- signals and threads


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_whole_group_is_the_parents_alone(path: Path, signum: int) -> None:
    got = []
    before = signal.signal(signum, lambda number, frame: got.append((number, os.getpid())))
    try:

        def examine(path: Path, at: At) -> None:
            os.kill(os.getppid(), signum)
            os.kill(os.getpid(), signum)

        probe(path, examine)
        assert got == [(signum, os.getpid())]
    finally:
        signal.signal(signum, before)


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def test_a_handler_that_raises_takes_the_child_along(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGALRM, interrupt)
    children: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(child := fork()) or child)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            probe(path, lambda path, at: time.sleep(60))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], os.WNOHANG)


def test_the_mask_of_signals_is_as_it_was(path: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    open_hdf5(path).close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize("examine", [crash, None])
def test_a_process_that_ignores_its_children_still_learns_of_a_crash(
    path: Path, examine: Callable[[Path, At], None] | None
) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        if examine is None:
            open_hdf5(path).close()
        else:
            with pytest.raises(DataError, match="crashes HDF5"):
                probe(path, examine)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_threads_that_read_hdf5_do_not_lock_the_child(path: Path, tmp_path: Path) -> None:
    stop = threading.Event()

    def read() -> None:
        with h5py.File(path, "r") as file:
            while not stop.is_set():
                file["g/x"][:]

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(15):
            other = tmp_path / f"{number}.h5"
            other.write_bytes(path.read_bytes())
            with open_hdf5(other) as file:
                assert [dataset.name for dataset in walk(other, file)] == ["/g/x"]
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_file_that_is_being_written_does_not_suffer_from_a_child(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    with create_motion(out, dim=3, fps=30) as writer:
        writer.append("a", np.ones((5, 3), "f4"))
        open_hdf5(path).close()
        writer.append("b", np.ones((5, 3), "f4"))
    with MotionSet([out]) as motion:
        motion.verify()
        assert motion.names == ["a", "b"]


# ---- where there is no fork


@pytest.fixture
def no_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)


def test_without_a_fork_a_new_interpreter_examines(path: Path, no_fork: None) -> None:
    with open_hdf5(path) as file:
        assert file.attrs["fps"] == 30.0
    path.touch()
    with pytest.raises(DataError, match=r"f\.h5: crashes HDF5 \(SIGSEGV\)"):
        probe(path, crash)


def test_an_interpreter_that_cannot_start_is_not_called_damage(
    path: Path, no_fork: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StorageError, match="the process that examined it failed"):
        open_hdf5(path)
    monkeypatch.setattr(sys, "executable", "/none/python")
    with pytest.raises(StorageError, match="no process to examine it in"):
        open_hdf5(path)


# ---- what a small file can ask for


def declare(path: Path, shape: tuple[int, ...], chunks: tuple[int, ...]) -> Path:
    """A dataset of which only the shape is in the file."""
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 30.0
        file.create_dataset("x", shape, "u1", chunks=chunks, compression="gzip")
    return path


def test_a_row_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = declare(tmp_path / "f.h5", (2, 20 << 20), (2, 4 << 20))
    with pytest.raises(DataError, match=r"f\.h5:/x: has rows of 20 MiB; at most 16 MiB are read"):
        MotionSet([path])


def test_a_chunk_beyond_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = declare(tmp_path / "f.h5", (1 << 30, 1), (160 << 20, 1))
    with pytest.raises(DataError, match=r"f\.h5:/x: has chunks of 160 MiB; at most 128 MiB are read.*h5repack"):
        MotionSet([path])


def test_rows_and_chunks_of_just_the_limit_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_ROW_BYTES", 1000)
    monkeypatch.setattr(hdf5, "MAX_CHUNK_BYTES", 2000)
    path = declare(tmp_path / "f.h5", (2, 1000), (2, 1000))
    with h5py.File(path, "r+") as file:
        file["x"][:] = 1
    with MotionSet([path]) as motion:
        assert motion.dim == 1000


def test_an_array_beyond_the_limit_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.h5"
    with create_motion(path, dim=2, fps=30) as writer:
        for number in range(100):
            writer.append(f"clip {number:03}", np.ones((1, 2), "f4"))
    monkeypatch.setattr(hdf5, "MAX_ARRAY_BYTES", 800)
    with pytest.raises(DataError, match=r"m\.h5:/offsets: has .* MiB; at most .* MiB are read"):
        MotionSet([path])
    monkeypatch.setattr(hdf5, "MAX_ARRAY_BYTES", 808)
    with MotionSet([path]) as motion:
        motion.verify()


def test_an_array_that_could_not_be_read_back_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqtool.flat.MAX_ARRAY_BYTES", 100)
    with (
        pytest.raises(DataError, match=r"names: would take more than .* GiB, which is not read back"),
        create_motion(tmp_path / "m.h5", dim=2, fps=30) as writer,
    ):
        writer.append("n" * 101, np.ones((1, 2), "f4"))
    assert list(tmp_path.iterdir()) == []


def test_a_chunk_that_unpacks_to_more_than_it_declares_is_met_by_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zlib

    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file.attrs["fps"] = 30.0
        dataset = file.create_dataset("x", (1024, 1024), "u1", chunks=(1024, 1024), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(200 << 20), 1)[: 1 << 20])
    monkeypatch.setattr("vqtool.probe.MEMORY_BYTES", 100 << 20)
    with pytest.raises(DataError, match=r"f\.h5.*: makes HDF5 take more than .* of memory"):
        MotionSet([path])


def damaged_index(path: Path) -> Path:
    """H5Oget_info of /g/x closes a tree that it could not open: any flipped bit in its header is a crash."""
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("g/x", data=np.ones((50, 6), "f4"), maxshape=(None, None))
    data = bytearray(path.read_bytes())
    assert data.count(b"BTHD") == 1
    data[data.index(b"BTHD") + 8] ^= 1
    path.write_bytes(data)
    return path


def test_a_flipped_bit_in_the_index_of_chunks_is_met_by_the_probe(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"f\.h5:/g: crashes HDF5 \(SIGSEGV\)|cannot be listed"):
        MotionSet([damaged_index(tmp_path / "f.h5")], fps=30)


def test_attributes_that_cannot_be_listed_hide_no_crash_behind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(attributes: h5py.AttributeManager) -> None:
        raise RuntimeError("Can't iterate over attributes")

    monkeypatch.setattr(h5py.AttributeManager, "__iter__", fail)
    test_a_flipped_bit_in_the_index_of_chunks_is_met_by_the_probe(tmp_path)


def test_a_heap_of_texts_that_never_ends_is_met_by_the_probe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["about"] = "text of variable length"
    data = path.read_bytes()
    assert data.count(b"GCOL") == 1
    first = data.index(b"GCOL") + 16  # its first object: number 1, and eight bytes on its size
    assert data[first : first + 2] == b"\1\0" and data[first + 8] == 23
    path.write_bytes(data[:first] + bytes(16) + data[first + 16 :])  # free space of no size: libhdf5 stands still
    monkeypatch.setattr("vqtool.probe.CPU_SECONDS", 1)
    with pytest.raises(DataError, match=r"f\.h5: makes HDF5 run without end; the file is damaged"):
        MotionSet([path])


@pytest.mark.parametrize(
    "value",
    [
        np.array(["text"] * 1000, dtype=h5py.string_dtype()),
        np.zeros(2 << 20, "u1").reshape(2, -1)[:, : 1 << 20],
        np.zeros(2, [("a", "i4")]),
        np.array([None], dtype=h5py.vlen_dtype("i4")),
    ],
    ids=["many texts", "long", "compound", "sequence"],
)
def test_an_attribute_that_could_take_much_memory_is_not_read(tmp_path: Path, value: np.ndarray) -> None:
    with h5py.File(tmp_path / "f.h5", "w", libver="latest") as file:
        if value.dtype == object and value[0] is None:
            value[0] = np.arange(3, dtype="i4")
        file.attrs.create("fps", value, dtype=value.dtype)
        assert attribute(file, "fps") is None


def test_a_text_of_variable_length_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file.attrs["layout"], file.attrs["fps"] = "joints", [30.0]
        assert (attribute(file, "layout"), attribute(file, "fps")) == ("joints", [30.0])


def test_names_of_variable_length_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["names"] = np.array(["a"], dtype=h5py.string_dtype())
        with pytest.raises(DataError, match="names: has the type object"):
            find(tmp_path / "f.h5", file, "names", ndim=1, kinds="S")
