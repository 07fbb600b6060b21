"""Whatever kills a command or fails under it, its outputs are whole or absent, and running it again is exact.

A sample of the points of tests/faults.py; `-m slow` tries them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faults
import pytest
from faults import ERRORS, Ended, Job, Point, Tree, put, tree

SAMPLED = ["encode replacing", "export bvh replacing", "train resumed"]
EVERY = [
    *(f"{command} {case}" for command in ("encode", "decode", "import") for case in ("fresh", "replacing")),
    *(f"export {format} {case}" for format in ("bvh", "robomimic") for case in ("fresh", "replacing")),
    *(f"train {case}" for case in ("fresh", "resumed", "replacing")),
]


@pytest.fixture(scope="session")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Job]:
    """jobs("encode fresh") is that job, prepared once a session."""
    if reason := faults.why_not():
        pytest.skip(f"no process can be traced here ({reason}): commands are not killed at every system call")
    made: dict[str, Job] = {}

    def get(name: str) -> Job:
        if name not in made:
            found = faults.build_jobs(tmp_path_factory.mktemp("faults"), SAMPLED if name in SAMPLED else [name])
            made.update((job.name, job) for job in found)
        return made[name]

    return get


def sample(points: list[Point]) -> list[Point]:
    """The last point of each call."""
    return list({point.call: point for point in points}.values())


def broken(tries: list[faults.Tried]) -> list[str]:
    assert tries
    return [str(tried) for tried in tries if tried.wrong]


@pytest.mark.parametrize("name", SAMPLED)
def test_a_killed_command_leaves_all_or_nothing_and_goes_on_exactly(jobs: Callable[[str], Job], name: str) -> None:
    job = jobs(name)
    assert broken([job.kill(point) for point in sample(job.points())]) == []


@pytest.mark.parametrize("name", SAMPLED)
def test_a_call_that_fails_is_one_line_and_the_old_output_stays(jobs: Callable[[str], Job], name: str) -> None:
    job = jobs(name)
    tries = [job.fail(point, ERRORS[number % 5]) for number, point in enumerate(sample(job.points()))]
    assert broken(tries) == []
    assert 74 in {tried.ended.code for tried in tries}


@pytest.mark.parametrize("name", SAMPLED)
def test_a_full_disk_is_one_line_and_the_old_output_stays(jobs: Callable[[str], Job], name: str) -> None:
    job = jobs(name)
    try:
        tried = job.fill_disk(0)
    except PermissionError as error:
        pytest.skip(f"no small file system can be mounted here ({error})")
    assert broken([tried]) == []
    assert tried.ended.code == 74


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_call_may_be_the_last(jobs: Callable[[str], Job], name: str) -> None:
    job = jobs(name)
    assert broken([job.kill(point) for point in job.points()]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_every_call_may_fail(jobs: Callable[[str], Job], name: str) -> None:
    job = jobs(name)
    assert broken([job.fail(point, error) for point in job.points() for error in ERRORS]) == []


@dataclass
class Pretender:
    """A shell whose command leaves one thing when something goes wrong, and another when it is run again."""

    folder: Path
    ended: Ended
    first: Tree
    again: Tree

    def run(self, words: list[str], *strace: str) -> Ended:
        put(self.folder / "out", self.first if strace else self.again)
        return self.ended if strace else Ended(0, "", "")


OLD: Tree = {".": None, "a.h5": b"old"}
NEW: Tree = {".": None, "a.h5": b"new"}
TOLD = "vqtool: error: {}/out/a.h5: could not be written; nothing was changed\n"


@pytest.mark.parametrize(
    ("code", "said", "first", "again", "wrong"),
    [
        (74, TOLD, OLD, NEW, []),
        (74, TOLD, {".": None, "a.h5": b"ne"}, NEW, ["partial a.h5", "says that nothing was changed"]),
        (74, TOLD, NEW, NEW, ["says that nothing was changed"]),
        (74, "vqtool: error: a\n" + TOLD, OLD, NEW, ["stderr is not one line"]),
        (74, "vqtool: error: disk full\n", OLD, NEW, ["stderr names no file of the output"]),
        (70, TOLD, OLD, NEW, ["exit code"]),
        (-11, "", OLD, NEW, ["crash by signal 11"]),
        (0, "", OLD, NEW, ["exit 0 without the whole output"]),
        (74, TOLD, OLD, NEW | {".a.h5.part": b""}, ["litter ['.a.h5.part']"]),
        (74, TOLD, OLD, OLD, ["differs ['a.h5']"]),
    ],
)
def test_a_broken_promise_is_seen(
    tmp_path: Path, code: int, said: str, first: Tree, again: Tree, wrong: list[str]
) -> None:
    point = Point("write", 1, "")
    ended = Ended(code, said.format(tmp_path), f"1 write(3<{tmp_path}/out/a.h5>) = -1 (INJECTED)")
    shell = Pretender(tmp_path, ended, first, again)
    job = Job("pretended", [], shell, ["a.h5"], before=OLD, whole=NEW)  # type: ignore[arg-type]
    assert job.fail(point, "EIO").wrong == wrong


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    content: Tree = {".": None, "a": None, "a/b": b"1", "c": b""}
    put(tmp_path / "x", content)
    put(tmp_path / "x", content)
    assert tree(tmp_path / "x") == content
    assert tree(tmp_path / "none") == {}
