"""Stop requests: SIGINT and SIGTERM set a flag that long work looks at between steps, never inside one."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType

from vqtool.errors import InterruptedRun


class StopRequest:
    """Within this context the first SIGINT or SIGTERM only sets `signum`; a second one kills as usual."""

    def __init__(self) -> None:
        self.signum: int | None = None
        self._before: dict[int, object] = {}

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self.signum = signum
        signal.signal(signum, signal.SIG_DFL)

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def check(self) -> None:
        """Raise InterruptedRun where a stop was asked for: the output in progress is then dropped, whole."""
        if self.signum is not None:
            raise InterruptedRun("interrupted; nothing was written", signum=self.signum)
