"""What the machine is, and how fast it can at best multiply, copy and read."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def best(job: Callable[[], object], rounds: int = 5) -> float:
    """Seconds of the quickest of several rounds."""
    job()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def processor() -> str:
    """Its name where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def description() -> list[str]:
    """Lines of Markdown."""
    size, wide = 2048, 1 << 26
    a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    flops = 2 * size**3 / best(lambda: torch.mm(a, b, out=out)) / 1e9
    source, target = torch.zeros(wide), torch.empty(wide)
    copied = 2 * 4 * wide / best(lambda: target.copy_(source)) / 1e9
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "raw"
        np.zeros(1 << 26, np.float32).tofile(path)
        read = 4 * (1 << 26) / best(lambda: np.fromfile(path, np.float32)) / 1e9
    capability = torch.backends.cpu.get_cpu_capability()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    threads = f"{os.cpu_count()} cores, {capability}, {torch.get_num_threads()} threads"
    return [
        f"- {processor()}, {threads}; {platform.system()}, {versions}",
        f"- matrix product of 2048 x 2048 float32: {flops:.0f} GFLOP/s",
        f"- copying 256 MiB in memory: {copied:.1f} GB/s read and written",
        f"- reading a raw file of 256 MiB that the system has in memory: {read:.1f} GB/s",
    ]
