"""Checkpoints: whole or not there, the newest first, and what exact resume depends on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from vqtool.errors import ResumeError, StorageError
from vqtool.nn import checkpoint as module
from vqtool.nn.checkpoint import STATE, list_checkpoints, newest_checkpoint, save_checkpoint


def save(folder: Path, *steps: int, keep: int = 9) -> None:
    for step in steps:
        save_checkpoint(folder, step, {"step": np.array(step)}, keep)


def damage(folder: Path, step: int) -> None:
    path = folder / f"step-{step:06d}" / STATE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def steps(folder: Path) -> list[int]:
    return [step for step, _ in list_checkpoints(folder)]


def test_the_newest_checkpoint_is_found(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 2, 10, 4)
    found = newest_checkpoint(tmp_path / "checkpoints")
    assert found is not None
    assert (found[0], int(found[1]["step"]), found[2]) == (10, 10, [])


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "checkpoints") is None


def test_all_but_the_newest_are_removed(tmp_path: Path) -> None:
    save(tmp_path, 2, 4, 6, keep=2)
    assert sorted(os.listdir(tmp_path)) == ["step-000004", "step-000006"]


def test_the_one_before_a_damaged_checkpoint_is_taken_with_a_warning(tmp_path: Path) -> None:
    save(tmp_path, 2, 4)
    damage(tmp_path, 4)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 2
    assert len(found[2]) == 1 and "step-000004" in found[2][0] and "going back to the one before" in found[2][0]


def test_a_run_whose_checkpoints_are_all_damaged_is_never_begun_anew_in_silence(tmp_path: Path) -> None:
    save(tmp_path, 2, 4)
    damage(tmp_path, 2)
    damage(tmp_path, 4)
    with pytest.raises(
        ResumeError, match=r"no checkpoint is whole .*SHA-256.*begin anew with --force instead of --resu"
    ):
        newest_checkpoint(tmp_path)


def test_a_half_removed_checkpoint_is_none_and_goes_with_the_next(tmp_path: Path) -> None:
    save(tmp_path, 2)
    for name in ("step-000004", ".step-000001.old", ".step-000006.part"):
        (tmp_path / name).mkdir()
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[0] == 2 and found[2] == []
    save(tmp_path, 4, 6)
    assert sorted(os.listdir(tmp_path)) == ["step-000002", "step-000004", "step-000006"]


def test_what_is_no_checkpoint_stays(tmp_path: Path) -> None:
    for name in ("step-notes", ".step-notes", "mine"):
        (tmp_path / name).mkdir()
    save(tmp_path, 2, 4, keep=1)
    assert sorted(os.listdir(tmp_path)) == [".step-notes", "mine", "step-000004", "step-notes"]


def test_a_checkpoint_that_cannot_be_removed_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 2)
    rename = os.rename

    def fail(source: Path, target: Path) -> None:
        if target.name == ".step-000002.old":
            raise OSError(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    save(tmp_path, 4, keep=1)
    assert steps(tmp_path) == [2, 4]


def test_a_checkpoint_that_cannot_be_written_is_a_storage_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    save(tmp_path, 2)
    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(StorageError, match=r"step-000004: could not be written \(No space left on device\)"):
        save(tmp_path, 4)
    assert os.listdir(tmp_path) == ["step-000002"]


def test_a_checkpoint_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    save(tmp_path / "a", 2)
    save(tmp_path / "b", 2)
    files = [(tmp_path / run / "step-000002" / STATE).read_bytes() for run in "ab"]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"torch": "torch 1.0"}, r"begun with torch 1\.0, now torch "),
        (
            {"threads": "64 threads", "device": "device tpu"},
            "begun with 64 threads and device tpu, now 1 thread and dev",
        ),
        ({"cpu": "CPU capability ZX81", "vqtool": "vqtool 0.0"}, "begun with vqtool 0.0 and CPU capability ZX81, now "),
    ],
)
def test_what_makes_resume_inexact_is_told_in_one_line(
    changed: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    here = module._made_with("cpu")
    with monkeypatch.context() as patch:
        patch.setattr(module, "_made_with", lambda device: here | changed)
        save(tmp_path, 2)
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert len(found[2]) == 1 and found[2][0].startswith("resumed training will not be bit-exact: ")
    assert told.replace("\\", "") in found[2][0]


def test_another_device_is_told(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 2, {}, 1, device="cuda")
    found = newest_checkpoint(tmp_path, device="cpu")
    assert found is not None
    assert found[2] == ["resumed training will not be bit-exact: begun with device cuda, now device cpu"]


def test_a_checkpoint_that_does_not_say_what_made_it_still_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_made_with", lambda device: None)
        save(tmp_path, 2)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found[2] == []
