"""Every error that a person can cause or meet, each with the exit code that the command line ends with.

VqtoolError             70  a fault of vqtool itself when raised bare
├── UsageError           2  command line, option or config is wrong
├── DataError           65  a file's content is not usable
├── MissingInputError   66  an input file does not exist
├── OutputError         73  the output exists already or cannot be created
├── StorageError        74  the disk said no (full, read-only, I/O error)
├── LockedError         75  another process is writing this output
├── MismatchError       76  model, tokens and data do not belong together
├── DivergedError       77  training met a loss or gradient that is not finite
├── ResumeError         78  resume refused: config or data differ
└── InterruptedRun     130  (143 for SIGTERM) stopped by a signal, state saved
"""

from __future__ import annotations

import os

ONE = {"are": "is", "were": "was", "do": "does", "give": "gives", "move": "moves"}


def printable(text: str) -> str:
    """`text` with control characters escaped, so that one message stays one line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def counted(count: int, things: str, verb: str = "") -> str:
    """`1 clip`, `1,234 clips`; with a verb `1 clip is`, `1,234 clips are`. Both are given as of several."""
    words = f"{things} {verb}".strip() if count != 1 else f"{things.removesuffix('s')} {ONE.get(verb, verb)}".strip()
    return f"{count:,} {words}"


class VqtoolError(Exception):
    """`what` is wrong and what to do, at a place: file, dataset in it, clip, frame.

    str() gives `file:dataset clip name frame n: what`, always one line.
    """

    exit_code = 70

    def __init__(
        self,
        what: str,
        *,
        file: str | os.PathLike[str] | None = None,
        dataset: str | None = None,
        clip: str | None = None,
        frame: int | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.file = None if file is None else os.fspath(file)
        self.dataset = dataset
        self.clip = clip
        self.frame = frame

    def __str__(self) -> str:
        inside = "" if self.dataset is None else f":{self.dataset}"
        words = [(self.file or "") + inside] if self.file or inside else []
        if self.clip is not None:
            words.append(f"clip {self.clip}")
        if self.frame is not None:
            words.append(f"frame {self.frame}")
        return printable(f"{' '.join(words)}: {self.what}" if words else self.what)


class UsageError(VqtoolError):
    """Command line, option or config is wrong."""

    exit_code = 2


class DataError(VqtoolError):
    """A file's content is not usable."""

    exit_code = 65


class MissingInputError(VqtoolError):
    """An input file does not exist."""

    exit_code = 66


class OutputError(VqtoolError):
    """The output exists already or cannot be created."""

    exit_code = 73


class StorageError(VqtoolError):
    """Reading or writing failed in the operating system."""

    exit_code = 74


class LockedError(VqtoolError):
    """Another process is writing this output."""

    exit_code = 75


class MismatchError(VqtoolError):
    """Model, tokens and data do not belong together."""

    exit_code = 76


class DivergedError(VqtoolError):
    """Training met a loss or a gradient that is not finite."""

    exit_code = 77


class ResumeError(VqtoolError):
    """A run cannot go on with this config or data."""

    exit_code = 78


class InterruptedRun(VqtoolError):
    """A signal stopped the work after its state was saved; `signum` is that signal."""

    def __init__(self, what: str, *, signum: int) -> None:
        super().__init__(what)
        self.signum = signum
        self.exit_code = 128 + signum
