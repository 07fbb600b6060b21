"""Workers that make the parts of a result, while the process that asked for them puts it together.

A worker that dies costs the part that it was at: another one is started in its place, once for each part, and makes it
again. What a worker raises ends all.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from vqtool import signals
from vqtool.errors import StorageError, printable
from vqtool.memory import keep_freed_memory

Task = TypeVar("Task")
Made = TypeVar("Made")
Handle = TypeVar("Handle")

PATIENCE = 0.2  # seconds between two looks at signals
AHEAD = 4  # tasks for each worker that `in_order` has in the making or done before the first of them is taken


class Died:
    """What came back of a task whose worker is gone, with how it ended."""

    def __init__(self, how: str) -> None:
        self.how = how


class Workers(ABC, Generic[Handle]):
    """Up to `count` workers; `say` is told of those that died."""

    def __init__(self, count: int, say: Callable[[str], None] = lambda text: None) -> None:
        self.count, self._say = count, say

    def run(
        self,
        work: Callable[[Task], Made],
        tasks: Iterable[tuple[int, Task] | None],
        *,
        name: Callable[[int, Task], str] = lambda number, task: f"part {number}",
        lost: Callable[[StorageError], Made] | None = None,
    ) -> Iterator[tuple[int, Task, Made]]:
        """work(task) of each numbered task, as they come; `work` and tasks must pickle.

        Tasks are taken when a worker has time for one; None among them says that the next one has to wait for what is
        in the making. Raises what a worker raised, and StorageError where two workers died at one task: or yields what
        `lost` makes of that.
        """
        idle: list[Handle] = []
        busy: dict[Handle, tuple[int, Task]] = {}
        again: list[tuple[int, Task]] = []  # of workers that died
        seen: set[int] = set()  # their numbers
        waiting = iter(tasks)
        try:
            while True:
                while len(busy) < self.count:
                    task = again.pop() if again else next(waiting, None)
                    if task is None:
                        break
                    worker = idle.pop() if idle else self._start(work)
                    self._give(worker, task[1])
                    busy[worker] = task
                if not busy:
                    break
                signals.check()
                for worker in self._finished(list(busy)):
                    number, given = busy.pop(worker)
                    found = self._take(worker)
                    if isinstance(found, Exception):
                        raise found
                    if not isinstance(found, Died):
                        idle.append(worker)
                        yield number, given, found
                        continue
                    at = printable(name(number, given))
                    if number in seen:
                        what = f"two workers died ({found.how}) at {at}; for want of memory, take fewer --workers"
                        if lost is None:
                            raise StorageError(what)
                        yield number, given, lost(StorageError(what))
                        continue
                    seen.add(number)
                    again.append((number, given))
                    self._say(f"a worker died ({found.how}); another one makes {at} again")
        finally:
            self._stop([*idle, *busy])

    def in_order(
        self,
        work: Callable[[Task], Made],
        tasks: Iterable[Task],
        *,
        name: Callable[[int, Task], str] = lambda number, task: f"part {number}",
        lost: Callable[[StorageError], Made] | None = None,
    ) -> Iterator[tuple[Task, Made]]:
        """Each task and work(task), in the order of the tasks, of which at most AHEAD for each worker are held."""
        held: dict[int, tuple[Task, Made]] = {}
        first = 0

        def near() -> Iterator[tuple[int, Task] | None]:
            for number, task in enumerate(tasks):
                while number >= first + AHEAD * self.count:
                    yield None
                yield number, task

        for number, task, made in self.run(work, near(), name=name, lost=lost):
            held[number] = task, made
            while first in held:
                yield held.pop(first)
                first += 1

    @abstractmethod
    def _start(self, work: Callable[[Any], Any]) -> Handle:
        """A worker for that work."""

    @abstractmethod
    def _give(self, worker: Handle, task: Any) -> None:
        """Let an idle worker do a task."""

    @abstractmethod
    def _finished(self, workers: list[Handle]) -> list[Handle]:
        """Those that have done their task or died; [] after a moment."""

    @abstractmethod
    def _take(self, worker: Handle) -> Any:
        """What work(task) returned, the exception that it raised, or Died."""

    @abstractmethod
    def _stop(self, workers: list[Handle]) -> None:
        """End these workers, whatever they are at."""


class _Process:
    """A process, and the pipe to it."""

    def __init__(self, process: Any, pipe: Connection) -> None:
        self.process, self.pipe = process, pipe


class Processes(Workers[_Process]):
    """Processes on this machine, started afresh (spawn): torch's threads do not survive a fork."""

    def _start(self, work: Callable[[Any], Any]) -> _Process:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        worker = _Process(process, mine)
        self._give(worker, work)
        return worker

    def _give(self, worker: _Process, task: Any) -> None:
        with contextlib.suppress(OSError):  # it died: `_take` will meet that
            worker.pipe.send(task)

    def _finished(self, workers: list[_Process]) -> list[_Process]:
        ready = wait([worker.pipe for worker in workers], timeout=PATIENCE)
        return [worker for worker in workers if worker.pipe in ready]

    def _take(self, worker: _Process) -> Any:
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            worker.pipe.close()
            return Died(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def _stop(self, workers: list[_Process]) -> None:
        for worker in workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in workers:
            worker.process.join()
            worker.process.close()


def _serve(pipe: Connection) -> None:
    """A worker's life: first the work comes, then one task after the other, until nobody asks any more."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal and SLURM send them to all; the parent ends its workers
        signal.signal(number, signal.SIG_IGN)
    keep_freed_memory()
    with contextlib.suppress(EOFError, OSError):
        try:
            work = pipe.recv()
        except Exception as error:  # it cannot open its input, for one
            pipe.recv()
            pipe.send(error)
            return
        while True:
            task = pipe.recv()
            try:
                made = work(task)
            except Exception as error:
                made = error
            pipe.send(made)
