"""Work for workers in tests, apart from them: a worker imports the file of its work, and torch takes long."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqtool.errors import DataError
from vqtool.workers import Died, Processes, Workers


@dataclass
class Doubled:
    """Twice the task; kills itself, or raises, at some tasks: as long as a file is not there, or always."""

    deadly: int = -1
    once: Path | None = None
    wrong: int = -1

    def __call__(self, task: int) -> int:
        if task == self.wrong:
            raise DataError("is wrong", clip=str(task))
        if task == self.deadly and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 2 * task


@dataclass
class DiesOnce:
    """The work, but the first process that does a part after the first two is killed in its midst."""

    work: Any
    flag: Path

    def __call__(self, task: Any) -> Any:
        found = self.work(task)
        if task[0].clip > 3 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return found


@dataclass
class DiesAt:
    """The work, but a process whose task has that attribute is killed: once, or always (no flag)."""

    work: Any
    attribute: str
    value: object
    flag: Path | None

    def __call__(self, task: Any) -> Any:
        if getattr(task, self.attribute) == self.value and not (self.flag and self.flag.exists()):
            if self.flag:
                self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.work(task)


class Dangerous(Processes):
    """Two processes, killed as `DiesAt` says; `said` is what is said of that."""

    def __init__(self, attribute: str, value: object, flag: Path | None = None) -> None:
        self.deadly = attribute, value, flag
        self.said: list[str] = []
        super().__init__(2, self.said.append)

    def run(self, work: Callable[..., Any], tasks: Iterable[Any], **more: Any) -> Iterator[Any]:
        return super().run(DiesAt(work, *self.deadly), tasks, **more)


class Job:
    """A worker of `Backwards`: its work, and what it has made of its task."""

    def __init__(self, work: bytes) -> None:
        self.work = work
        self.made: object = None


def sent(value: Any) -> Any:
    """A copy that went through pickle, its arrays read-only."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])


class Backwards(Workers[Job]):
    """Three workers in this process, of which the last to get a task is done first.

    All that they get and give pickles, and arrays come read-only, as with Ray. One may die with a task: that number.
    """

    def __init__(self, count: int = 3, say: Callable[[str], None] = lambda text: None, dies_at: int = -1) -> None:
        self.given, self.dies_at = 0, dies_at
        super().__init__(count, say)

    def _start(self, work: Callable[[Any], Any]) -> Job:
        return Job(pickle.dumps(work))

    def _give(self, worker: Job, task: Any) -> None:
        made: Any
        try:
            made = pickle.loads(worker.work)(sent(task))
        except Exception as error:
            made = error
        worker.made = sent(Died("killed") if self.given == self.dies_at else made)
        self.given += 1

    def _finished(self, workers: list[Job]) -> list[Job]:
        return workers[-1:]

    def _take(self, worker: Job) -> Any:
        return worker.made

    def _stop(self, workers: list[Job]) -> None:
        pass
