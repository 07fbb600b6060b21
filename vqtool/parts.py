"""What is done of a long output already: parts beside it that let the same command go on after a kill.

The parts of OUT stand in the folder `.OUT.parts`, one file of arrays each, with a SHA-256 and the key of the work
that made them. A part of other work, or one that was not written to its end, is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.errors import StorageError, VqtoolError, counted
from vqtool.tokenizer_file import pack, unpack

KEEP_AFTER = 20.0  # seconds that each kill may cost: before, parts are not kept, which would be half of the writing


class Parts:
    """Numbered parts of one output; made by `keep_parts`. `found` counts those taken from a run before.

    With `several` False the output has one part only, which is not kept.
    """

    def __init__(self, folder: Path, key: str, several: bool) -> None:
        self._folder, self._key, self.several = folder, key, several
        self.kept = self.found = 0
        self._begun = time.monotonic()

    def load(self, number: int) -> dict[str, np.ndarray] | None:
        """The arrays of a part that a run before made, None where it is to be made (again)."""
        try:
            arrays, header = unpack(self._path(number))
        except VqtoolError:  # absent, cut off by a kill, damaged
            return None
        if header.get("key") != self._key or header.get("part") != number:
            return None
        self.kept += 1
        self.found += 1
        return arrays

    def again(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a part that was loaded or saved before. DataError where it was damaged since."""
        return unpack(self._path(number))[0]

    def keep(self, number: int, arrays: dict[str, np.ndarray]) -> None:
        """Save a part, unless it is the only one or all work took less than KEEP_AFTER so far."""
        if self.several and time.monotonic() - self._begun >= KEEP_AFTER:
            self.save(number, arrays)

    def save(self, number: int, arrays: dict[str, np.ndarray]) -> None:
        """Write a part. StorageError where the disk is full."""
        # Neither renamed into place nor forced to the disk: its SHA-256 tells whether it is whole.
        try:
            self._folder.mkdir(exist_ok=True)
            self._path(number).write_bytes(pack(arrays, {"format": "vqtool.part", "key": self._key, "part": number}))
        except OSError as error:
            raise StorageError(f"could not be written ({error.strerror})", file=self._path(number)) from error
        self.kept += 1

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.safetensors"


@contextlib.contextmanager
def keep_parts(out: Path, key: Mapping[str, Any], *, several: bool) -> Iterator[Parts]:
    """Parts of the work that makes `out`, told from other work by `key` (plain JSON values).

    They are removed when the block ends well and stay where it does not; the error then says so. To be entered
    before `publish`, so that they go after the output has come; its lock keeps others out.
    """
    folder = out.with_name(f".{out.name}.parts")
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    parts = Parts(folder, digest, several)
    try:
        yield parts
    except VqtoolError as error:
        if parts.kept:
            error.what = (
                f"{error.what}; {counted(parts.kept, 'parts', 'are')} done: the same command goes on from there"
            )
        raise
    shutil.rmtree(folder, ignore_errors=True)
