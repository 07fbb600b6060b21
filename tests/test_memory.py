"""A process that keeps what it freed asks the system for pages once, not at every step."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from vqtool.cli.options import set_threads

FAULTS = """
import resource, sys
import numpy as np
from vqtool.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()

def step():
    held = [np.empty(1 << 20, np.uint8) for _ in range(24)]
    for block in held:
        block[::4096] = 1

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

step()
before = faults()
step()
print(faults() - before)
"""


def test_commands_that_compute_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr("vqtool.memory.keep_freed_memory", lambda: asked.append(True))
    set_threads(None)
    assert asked


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this to be told")
def test_the_second_step_finds_the_pages_of_the_first() -> None:
    def counted(word: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert counted("keep") < 100 < 2000 < counted("not")
