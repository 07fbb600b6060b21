"""Signals as flags that long work looks at between steps, never inside one.

SIGINT and SIGTERM ask it to stop, SIGUSR1 asks training for a checkpoint. Readers and loops call `check()`; outside
of a `StopRequest` (a library's caller) it does nothing, and signals do what they did before.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType, TracebackType

from vqtool.errors import InterruptedRun

_active: list[StopRequest] = []
_deferred: list[None] = []


class StopRequest:
    """Within this context the first SIGINT or SIGTERM only sets `signum`; a second one kills as usual.

    SIGUSR1 sets `checkpoint`. A signal that was ignored before (nohup, a shell's background job) stays ignored.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self.checkpoint = False
        self._before: dict[int, object] = {}

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, signal.SIG_DFL)

    def _keep(self, signum: int, frame: FrameType | None) -> None:
        self.checkpoint = True

    def __enter__(self) -> StopRequest:
        _active.append(self)
        handlers = {name: self._stop for name in ("SIGINT", "SIGTERM")} | {"SIGUSR1": self._keep}
        with contextlib.suppress(ValueError):  # not in the main thread: signals go elsewhere
            for name, handler in handlers.items():
                number = getattr(signal, name, None)  # Windows has no SIGUSR1
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _active.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


def check() -> None:
    """Raise InterruptedRun where a stop was asked for: the output in progress is then dropped, whole."""
    if not _deferred:
        stop(stop_asked())


def stop_asked() -> int:
    """The signal that asked to stop; 0 where none did."""
    return (_active[-1].signum or 0) if _active else 0


def stop(signum: int) -> None:
    """Raise InterruptedRun for that signal, nothing for 0."""
    if signum:
        raise InterruptedRun("interrupted; nothing was written", signum=signum)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within it `check` does nothing: for what processes do together, and which none of them may leave."""
    _deferred.append(None)
    try:
        yield
    finally:
        _deferred.pop()


def checkpoint_asked() -> bool:
    """Whether SIGUSR1 came since this was last asked."""
    if not _active or not _active[-1].checkpoint:
        return False
    _active[-1].checkpoint = False
    return True
