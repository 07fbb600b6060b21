"""A few hundred mutants of each kind of file: read, or refused in one line. tests/fuzz.py runs thousands."""

from __future__ import annotations

import ctypes
import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import fuzz
import numpy as np
import pytest

from vqtool.errors import VqtoolError

SAMPLES = {"hdf5": 51, "safetensors": 300, "bvh": 150, "toml": 150, "npy": 100, "npz": 100, "csv": 100}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_damaged_file_is_read_or_refused_in_one_line(kind: str) -> None:
    tally = fuzz.fuzz(kind, SAMPLES[kind], seed=1)
    assert tally.findings == [] and tally.mutants == SAMPLES[kind]
    assert sum(tally.went.values()) - tally.went["ok"] > tally.mutants / 4, tally.went
    assert tally.went["ok"] > 0, tally.went


def test_a_mutant_is_always_the_same_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    one, two = (fuzz.Fuzz("hdf5", 3, folder) for folder in folders)
    mutants = [[runner.mutant(index)[1] for index in range(34)] for runner in (one, two)]
    assert mutants[0] == mutants[1]
    assert sum(data == seed.data for data, seed in zip(mutants[0], one.seeds * 2, strict=False)) < 5


# ---- the net itself has no holes


def crash(path: Path) -> None:
    ctypes.string_at(1)


def spin(path: Path) -> None:
    while True:
        pass


def gorge(path: Path) -> None:
    np.ones(100 << 20, np.uint8)


def fail(path: Path) -> None:
    raise IndexError("list index out of range")


def internal(path: Path) -> None:
    raise VqtoolError("a fault of vqtool itself")


@pytest.mark.parametrize(
    ("reader", "what"),
    [
        (crash, "crash: SIGSEGV"),
        (spin, "took over 1 s"),
        (gorge, "took 10. MB"),
        (fail, "IndexError at test_fuzz\\.py"),
        (internal, "AssertionError .*exit code 70"),
    ],
)
def test_what_no_reader_may_do_is_found_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: Callable[[Path], None], what: str
) -> None:
    def bad_third(path: Path) -> None:
        if path.stem == "2":
            reader(path)

    monkeypatch.setattr(fuzz, "CPU_SECONDS", 1)
    monkeypatch.setattr(fuzz, "MEMORY", 50 << 20)
    monkeypatch.setitem(fuzz.READERS, "csv", [bad_third])
    runner = fuzz.Fuzz("csv", 0, tmp_path)
    runner.originals()
    tally = runner.run(list(range(5)), save=tmp_path / "found")
    assert [found.index for found in tally.findings] == [2] and tally.mutants == 5 and tally.went == {"ok": 4}
    assert re.match(what, tally.findings[0].what)
    assert {path.name for path in (tmp_path / "found").iterdir()} == {"csv-0-2.txt", "csv-0-2-tabs.csv"}


def test_a_changed_content_that_passes_as_whole_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(path: Path) -> str:
        return fuzz.digest_of(path.read_bytes())

    monkeypatch.setitem(fuzz.READERS, "safetensors", [careless])
    runner = fuzz.Fuzz("safetensors", 0, tmp_path)
    runner.originals()
    tally = runner.run([0])
    assert [found.what[:14] for found in tally.findings] == ["silent garbage"]
    assert dataclasses.asdict(tally.findings[0])["seed"] == "tokenizer.safetensors"
