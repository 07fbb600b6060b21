"""Which clips are held out: by a hash of their names, so that the same clip always falls the same way."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vqtool.errors import DataError, UsageError

SPLITS = {"train": 0, "val": 1, "test": 2}
NO_SPLIT = 255  # of a clip that is in none


def hashed_splits(names: Sequence[str], val: float, test: float = 0.0, seed: int = 0) -> np.ndarray:
    """The split of each name, [N] uint8, with about those shares in val and test.

    Equal names (of a clip and its mirror image) fall alike. Val and test get one name at least where their share
    is above 0, as long as one is left to train on.
    """
    hashes = {name: _hash(name, seed) for name in names}
    order = sorted(hashes, key=lambda name: hashes[name])
    split = dict.fromkeys(names, SPLITS["train"])
    first = 0
    for number, start, share in ((SPLITS["val"], 0.0, val), (SPLITS["test"], val, test)):
        inside = sum(start <= value < start + share for value in hashes.values())
        count = min(max(1, inside), len(order) - 1 - first) if share > 0 else 0
        split |= dict.fromkeys(order[first : first + max(0, count)], number)
        first += max(0, count)
    return np.array([split[name] for name in names], dtype=np.uint8)


def held_out(names: Sequence[str], fraction: float, seed: int) -> np.ndarray | None:
    """The splits that training gives a file without any, [N] uint8; None where it trains on all of it."""
    return None if len(set(names)) == 1 or fraction == 0 else hashed_splits(names, fraction, seed=seed)


def selected(splits: np.ndarray | None, clips: int, split: str | None, file: Path) -> list[int]:
    """Clip numbers of a split ("train", "val", "test"), or of all N clips of a file.

    Raises UsageError for an unknown split, DataError where the file has none or no clip is in it.
    """
    if split is None:
        return list(range(clips))
    if split not in SPLITS:
        raise UsageError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    if splits is None:
        raise DataError("does not say which clips are train, val and test; leave --split out", file=file)
    chosen: list[int] = np.flatnonzero(splits == SPLITS[split]).tolist()
    if not chosen:
        raise DataError(f"has no clip in split {split!r}", file=file)
    return chosen


def _hash(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on name and seed alone."""
    digest = hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
