"""Which rank of how many this process is, as torchrun tells it; without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping

from vqtool.errors import UsageError

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launched(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, number of ranks); (0, 1) for a process that nothing like torchrun started."""
    if not all(environment.get(name) for name in NAMES):
        return 0, 1
    try:
        rank, count = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    except ValueError:
        rank, count = -1, 0
    if not 0 <= rank < count:
        told = ", ".join(f"{name}={environment[name]}" for name in NAMES[:2])
        raise UsageError(f"{told} say no rank of a number of ranks; start it with torchrun, or unset them")
    return rank, count


def share(count: int, rank: int, ranks: int) -> range:
    """The part of range(count) that is a rank's: all of them are as long as each other, up to one."""
    return range(count * rank // ranks, count * (rank + 1) // ranks)
