"""Work for workers in tests, apart from them: a worker imports the file of its work, and torch takes long."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqtool.errors import DataError


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
