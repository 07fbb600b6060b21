"""Motion behind URLs is read as motion on the disk is."""

from __future__ import annotations

import copy
import http.server
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
from conftest import Run

from vqtool.errors import DataError, MissingInputError, StorageError, UsageError
from vqtool.remote import RemotePath, located
from vqtool.store import MotionSet


@pytest.fixture
def in_memory(motion_path: Path) -> Iterator[str]:
    """The URL of a copy of `motion_path` in fsspec's memory."""
    system = fsspec.filesystem("memory")
    system.pipe_file("/set/motion.h5", motion_path.read_bytes())
    yield "memory://set/motion.h5"
    system.rm("/set", recursive=True)


def test_a_url_stays_as_it_is_and_has_the_name_of_a_path() -> None:
    path = located("s3://bucket/walks/m.h5")
    assert (str(path), path.name, path.stem, path.suffix) == ("s3://bucket/walks/m.h5", "m.h5", "m", ".h5")
    for other in (copy.copy(path), pickle.loads(pickle.dumps(path))):
        assert isinstance(other, RemotePath) and other.url == "s3://bucket/walks/m.h5"
    assert not isinstance(located("walks/m.h5"), RemotePath)


def test_motion_behind_a_url_is_that_of_the_file(in_memory: str, motion_path: Path) -> None:
    with MotionSet([in_memory]) as remote, MotionSet([motion_path]) as local:
        assert remote.names == local.names and remote.identity == local.identity
        assert remote.usable() == local.usable()
        assert all(np.array_equal(remote.read(clip), local.read(clip)) for clip in range(len(local)))
        again = pickle.loads(pickle.dumps(remote))
        assert np.array_equal(again.read(3), local.read(3))
        again.close()


def test_tokens_of_motion_behind_a_url_are_those_of_the_file(
    in_memory: str, motion_path: Path, trained: Callable[[str], Path], run: Run
) -> None:
    assert run("encode", trained("rvq"), motion_path, "-o", "local.h5", "-q")[0] == 0
    assert run("encode", trained("rvq"), in_memory, "-o", "remote.h5", "-q")[0] == 0
    assert Path("local.h5").read_bytes() == Path("remote.h5").read_bytes()


def test_another_file_at_the_url_is_another_identity() -> None:
    system = fsspec.filesystem("memory")
    for rows in (3, 4):
        with system.open("/any.h5", "wb") as target, h5py.File(target, "w") as file:
            file.attrs["fps"] = 30.0
            file["a"] = np.zeros((rows, 2))
        with MotionSet(["memory://any.h5"]) as motion:
            identity = motion.identity
            if rows == 3:
                before = pickle.dumps(motion)
    assert identity
    with pytest.raises(DataError, match=r"memory://any.h5: changed while it was read"):
        pickle.loads(before)


def test_what_is_not_there_is_told_with_its_url() -> None:
    with pytest.raises(MissingInputError, match=r"memory://nowhere/m.h5: no such file"):
        MotionSet(["memory://nowhere/m.h5"])


def test_a_store_that_fsspec_does_not_know_is_told() -> None:
    with pytest.raises(UsageError, match=r"nosuch://a/m.h5: cannot be opened \(.*\); pip install 'vqtool\[remote\]'"):
        MotionSet(["nosuch://a/m.h5"])


def test_a_damaged_file_behind_a_url_is_refused(in_memory: str) -> None:
    system = fsspec.filesystem("memory")
    system.pipe_file("/set/motion.h5", system.cat_file("/set/motion.h5")[:3000])
    with pytest.raises(DataError, match=r"memory://set/motion.h5: is not a readable HDF5 file"):
        MotionSet([in_memory])


# HTTP


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves one file, whole or in ranges."""

    data = b""
    broken = False

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_GET(self) -> None:
        if self.broken:
            self.send_error(503)
            return
        found = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, stop = (int(found[1]), int(found[2] or len(self.data) - 1) + 1) if found else (0, len(self.data))
        part = self.data[start:stop]
        self.send_response(206 if found else 200)
        self.send_header("Content-Length", str(len(part)))
        if found:
            self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(self.data)}")
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """The URL of a file that a server on this machine gives."""
    pytest.importorskip("aiohttp", reason="needs the extra remote: pip install 'vqtool[remote]'")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ranges) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}/motion.h5"
        listening.shutdown()
        thread.join()


def test_motion_over_http_is_that_of_the_file(server: str, motion_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranges, "data", motion_path.read_bytes())
    with MotionSet([server]) as remote, MotionSet([motion_path]) as local:
        assert remote.usable() == local.usable()
        assert all(np.array_equal(remote.read(clip), local.read(clip)) for clip in range(len(local)))


def test_a_server_that_fails_is_not_taken_for_a_damaged_file(
    server: str, motion_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ranges, "data", motion_path.read_bytes())
    monkeypatch.setattr(Ranges, "broken", True)
    with pytest.raises(StorageError, match=r"motion.h5: cannot be read \(.*503"):
        MotionSet([server])


def test_a_server_that_fails_later_gives_no_zeros(
    server: str, motion_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ranges, "data", motion_path.read_bytes())
    with MotionSet([server]) as remote:
        assert remote.read(9).any()
        remote.paths[0].failure = "the network is down"  # type: ignore[attr-defined]
        with pytest.raises(StorageError, match=r"motion.h5:/frames: cannot be read \(the network is down\)"):
            remote.read(9)
