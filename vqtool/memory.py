"""Memory that is freed and soon asked for again."""

from __future__ import annotations

import contextlib
import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST = 32 << 20  # bytes of a block that glibc takes from its heap at most


def keep_freed_memory() -> None:
    """Let this process keep what it frees, in blocks of up to LARGEST: glibc gives the end of its heap back each time.

    Fresh pages took a twentieth of a training step (docs/log.md). The peak stays the same. Elsewhere nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no libc by that way, or another one
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
