"""Workers make the parts that one process would have made, to the same bytes, though some of them are killed."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import vqtool as command
from worker_tasks import Backwards, DiesOnce, Doubled

import vqtool
from vqtool import signals
from vqtool.errors import DataError, InterruptedRun, StorageError, UsageError
from vqtool.nn import codec as codec_module
from vqtool.nn.files import decode_file, encode_file
from vqtool.ray_workers import RayActors
from vqtool.signals import StopRequest
from vqtool.store import MotionSet
from vqtool.tokens import TokenSet
from vqtool.workers import AHEAD, Processes, Workers


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """About ten parts of the motion of `motion_path`."""
    monkeypatch.setattr(codec_module, "CHUNK_TOKENS", 40)
    monkeypatch.setattr(codec_module, "PART_TOKENS", 40)
    monkeypatch.setattr("vqtool.parts.KEEP_AFTER", 0.0)


def made(work: Callable[[int], int], said: list[str]) -> dict[int, int]:
    tasks = [(number, number + 100) for number in range(9)]
    return {number: result for number, _, result in Processes(2, said.append).run(work, tasks)}


def test_a_killed_worker_costs_its_task_once(tmp_path: Path) -> None:
    said: list[str] = []
    assert made(Doubled(104, tmp_path / "died"), said) == {number: 2 * (number + 100) for number in range(9)}
    assert said == ["a worker died (SIGKILL); another one makes part 4 again"]


def test_a_task_at_which_two_workers_die_ends_the_work() -> None:
    with pytest.raises(StorageError, match=r"two workers died \(SIGKILL\) at part 4; .* take fewer --workers"):
        made(Doubled(104), [])


def test_what_a_worker_raises_comes_as_it_is() -> None:
    with pytest.raises(DataError, match="clip 103: is wrong"):
        made(Doubled(wrong=103), [])


def test_a_task_at_which_two_workers_die_can_be_done_without() -> None:
    def lost(error: StorageError) -> int:
        return len(str(error))

    said: list[str] = []
    team = Processes(2, said.append)
    found = dict(team.in_order(Doubled(104), range(102, 107), name=lambda number, task: f"\x1b{task}", lost=lost))
    error = "two workers died (SIGKILL) at \\x1b104; for want of memory, take fewer --workers"
    assert found == {102: 204, 103: 206, 104: len(error), 105: 210, 106: 212}
    assert list(found) == sorted(found)
    assert said == ["a worker died (SIGKILL); another one makes \\x1b104 again"]


@pytest.mark.parametrize("dies_at", [-1, 0, 5])
def test_results_come_in_the_order_of_the_tasks_and_few_wait(dies_at: int) -> None:
    taken: list[int] = []
    team = Backwards(3, dies_at=dies_at)
    found = []
    for task, made in team.in_order(Doubled(), (taken.append(task) or task for task in range(100))):  # type: ignore[func-returns-value]
        assert len(taken) - len(found) <= 3 * AHEAD + 1
        found.append((task, made))
    assert found == [(task, 2 * task) for task in range(100)]
    assert team.given == 100 + (dies_at >= 0)


def test_a_signal_ends_the_workers() -> None:
    with StopRequest(), pytest.raises(InterruptedRun):
        for _ in Processes(2).run(Doubled(), ((number, 0) for number in range(99))):
            signal.raise_signal(signal.SIGTERM)


class Dying(Processes):
    """Processes of which one is killed."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag
        self.said: list[str] = []
        super().__init__(2, self.said.append)

    def run(self, work: Callable[..., Any], tasks: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any, Any]]:
        return super().run(DiesOnce(work, self.flag), tasks)


@pytest.mark.usefixtures("small_parts")
def test_workers_of_which_one_is_killed_write_the_bytes_of_the_serial_run(
    trained: Callable[[str], Path], motion_path: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained("vae"), device="cpu")
    frames: list[int] = []
    team = Dying(tmp_path / "died")
    with MotionSet([motion_path]) as motion:
        encode_file(codec, motion, tmp_path / "whole.h5")
        done = encode_file(codec, motion, tmp_path / "out.h5", workers=team, progress=frames.append)
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert len(team.said) == 1 and "SIGKILL" in team.said[0]
    assert sum(frames) == done.frames and done.parts_found == 0
    assert sorted(os.listdir(tmp_path)) == ["died", "out.h5", "whole.h5"]


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("model", ["rvq", "fsq", "vae"])
def test_workers_encode_and_decode_to_the_bytes_of_the_serial_run(
    model: str, trained: Callable[[str], Path], motion_path: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained(model), device="cpu")
    with MotionSet([motion_path]) as motion:
        encode_file(codec, motion, tmp_path / "whole.h5")
        encode_file(codec, motion, tmp_path / "out.h5", workers=Dying(tmp_path / "died"))
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    (tmp_path / "died").unlink()
    with TokenSet(tmp_path / "whole.h5") as tokens:
        decode_file(codec, tokens, tmp_path / "whole.back.h5")
        decode_file(codec, tokens, tmp_path / "back.h5", workers=Dying(tmp_path / "died"))
    assert (tmp_path / "back.h5").read_bytes() == (tmp_path / "whole.back.h5").read_bytes()


class Task:
    """What the worker of `Stopping` does, and then has done."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work, self.made = work, None


class Stopping(Workers[Task]):
    """One worker, in this process, and a SIGTERM after its third part."""

    def __init__(self) -> None:
        self.made = 0
        super().__init__(1)

    def _start(self, work: Callable[[Any], Any]) -> Task:
        return Task(work)

    def _give(self, worker: Task, task: Any) -> None:
        worker.made = worker.work(task)

    def _finished(self, workers: list[Task]) -> list[Task]:
        return workers

    def _take(self, worker: Task) -> Any:
        self.made += 1
        if self.made == 3 and signals._active:
            signal.raise_signal(signal.SIGTERM)
        return worker.made

    def _stop(self, workers: list[Task]) -> None:
        pass


@pytest.mark.usefixtures("small_parts")
def test_serial_and_parallel_runs_go_on_from_each_others_parts(
    trained: Callable[[str], Path], motion_path: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    with MotionSet([motion_path]) as motion:
        encode_file(codec, motion, tmp_path / "whole.h5")
        for out in (tmp_path / "serial.h5", tmp_path / "parallel.h5"):
            with StopRequest(), pytest.raises(InterruptedRun, match="3 parts are done"):
                encode_file(codec, motion, out, workers=Stopping())
            parallel = Stopping() if out.stem == "parallel" else None
            done = encode_file(codec, motion, out, workers=parallel)  # nobody listens to the signal
            assert done.parts_found == 3
            assert out.read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.slow
def test_the_command_line_shares_the_threads_among_workers(
    trained: Callable[[str], Path], motion_path: Path, tmp_path: Path
) -> None:
    words = ["encode", trained("rvq"), motion_path, "-q"]
    for name, more in (("one.h5", []), ("two.h5", ["--workers", "2"])):
        assert command(*words, "-o", tmp_path / name, *more).returncode == 0
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


# Ray


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_actors_of_ray_of_which_one_is_killed_write_the_bytes_of_the_serial_run(
    trained: Callable[[str], Path], motion_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("ray") is None:  # not imported: it would read its settings
        pytest.skip("needs the extra ray: pip install 'vqtool[ray]'")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])]))

    class DyingActors(RayActors):
        def run(self, work: Callable[..., Any], tasks: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any, Any]]:
            return super().run(DiesOnce(work, tmp_path / "died"), tasks)

    said: list[str] = []
    codec = vqtool.load(trained("rvq"), device="cpu")
    with MotionSet([motion_path]) as motion:
        encode_file(codec, motion, tmp_path / "whole.h5")
        encode_file(codec, motion, tmp_path / "out.h5", workers=DyingActors(2, say=said.append))
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert "with token authentication" in said[0]
    assert len(said) == 2 and "a worker died (ActorDiedError); another one makes part" in said[1]


def test_without_ray_an_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'vqtool\[ray\]'"):
        RayActors(2)
