"""Training on several ranks: the same as on one, and what happens when one of them is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import Run, Silent, small_config, waves, write_motion
from test_trainer import stop_training

from vqtool.errors import UsageError
from vqtool.nn import distributed
from vqtool.nn.checkpoint import list_checkpoints, newest_checkpoint
from vqtool.nn.trainer import train
from vqtool.ranks import launched, share
from vqtool.store import MotionSet
from vqtool.tokenizer_file import unpack

HERE = Path(__file__).parent
CHECKS = re.findall(r"^def (check_\w+)", (HERE / "rank_checks.py").read_text(), re.M)
LENGTHS = [60, 80, 100, 20, 33]


@contextlib.contextmanager
def started(command: Sequence[str], count: int = 2) -> Iterator[list[subprocess.Popen[str]]]:
    """That many processes of one command, as torchrun would start them; none is left at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    told = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONPATH": str(HERE.parent)}
    environments = [os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    pipe = subprocess.PIPE
    with contextlib.ExitStack() as stack:
        ranks = []
        for environment in environments:
            rank = subprocess.Popen([sys.executable, *command], env=environment, stdout=pipe, stderr=pipe, text=True)
            ranks.append(stack.enter_context(rank))
            stack.callback(rank.kill)
        yield ranks


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the checks ran on two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    motion = write_motion(folder / "motion.h5", LENGTHS)
    with MotionSet([motion]) as clips:
        train(small_config("rvq"), clips, folder / "whole", Silent(), device="cpu")
    stop_training(motion, folder / "half", step=20)
    with started([str(HERE / "rank_checks.py"), str(folder)]) as ranks:
        outputs = [rank.communicate(timeout=300)[1] for rank in ranks]
        assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(outputs)
    return folder


@pytest.mark.parametrize("check", CHECKS)
def test_between_ranks(check: str, checked: Path) -> None:
    for rank in (0, 1):
        assert json.loads((checked / f"rank{rank}.json").read_text())[check] == ""


@pytest.mark.parametrize("run", ["two", "parts", "half"])
def test_two_ranks_train_what_one_trains_up_to_rounding(run: str, checked: Path) -> None:
    one, two = (unpack(checked / name / "tokenizer.safetensors")[0] for name in ("whole", run))
    for name in one:
        if not name.startswith("usage"):
            np.testing.assert_allclose(two[name], one[name], rtol=1e-2, atol=1e-3, err_msg=name)
    lines = [(checked / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", run)]
    for alone, shared in zip(*([json.loads(line) for line in text] for text in lines), strict=True):
        assert alone.keys() == shared.keys()
        assert alone["step"] == shared["step"]
        for name in alone.keys() & {"loss", "nmse"}:
            assert shared[name] == pytest.approx(alone[name], rel=1e-3)


def test_a_rank_that_is_killed_ends_the_others_and_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    motion, run = write_motion(tmp_path / "motion.h5", LENGTHS), tmp_path / "run"
    settings = ["model.width=16", "model.latent_dim=8", "train.checkpoint_every=5", "bottleneck.codebook_size=16"]
    command = [
        "-m",
        "vqtool",
        "train",
        str(motion),
        "-o",
        str(run),
        "--steps",
        "1000000",
        "--set",
        "train.continuous=0.5",
    ]
    with started([*command, *(word for one in settings for word in ("--set", one))]) as ranks:
        wait_for_a_checkpoint(run, ranks)
        ranks[1].kill()
        _, told = ranks[0].communicate(timeout=60)
    assert ranks[0].returncode == 74
    assert "rank 0 of 2: another rank ended or cannot be reached" in told.splitlines()[-1]
    assert newest_checkpoint(run / "checkpoints") is not None


def test_what_one_rank_alone_meets_ends_the_others_too(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "motion.hdf5", "w") as file:
        for number in range(4):
            file[f"clip_{number}"] = waves(50, 5, seed=number)
        file["clip_3"][7, 2] = np.nan
    run = ["-o", str(tmp_path / "run"), "--fps", "30"]
    with started(["-m", "vqtool", "train", str(tmp_path / "motion.hdf5"), *run]) as ranks:
        outputs = [rank.communicate(timeout=60)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [74, 65], outputs
    assert "clip clip_3 frame 7: rank 1 of 2: column 2 is nan" in outputs[1]


def test_rank_0_alone_shows_what_would_be_trained(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    motion = write_motion(tmp_path / "motion.h5", LENGTHS)
    for rank in range(2):
        for name, value in {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
            monkeypatch.setenv(name, value)
        assert ("parameters" in run("train", motion, "-o", "run", "--dry-run")[1]) == (rank == 0)


def test_a_rank_takes_its_own_gpu_or_says_that_there_are_too_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.local_device("cuda") == "cuda"
    told = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "there", "MASTER_PORT": "1", "LOCAL_RANK": "1"}
    for name, value in (told | {"LOCAL_WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    assert [distributed.local_device(name) for name in ("auto", "cuda", "cpu", "cuda:0")] == [
        "cuda:1",
        "cuda:1",
        "cpu",
        "cuda:0",
    ]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="has 2 GPUs for 4 ranks; start it with torchrun --nproc-per-node 2, or add"):
        distributed.local_device("auto")


def wait_for_a_checkpoint(run: Path, ranks: list[subprocess.Popen[str]]) -> None:
    """Until there is one; two minutes at most."""
    for _ in range(1200):
        if list_checkpoints(run / "checkpoints"):
            return
        for rank in ranks:
            assert rank.poll() is None, rank.communicate()
        time.sleep(0.1)
    raise AssertionError("two minutes were not enough")


def test_a_rank_is_what_torchrun_says() -> None:
    told = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "there", "MASTER_PORT": "1"}
    assert launched(told) == (3, 4)
    assert launched({"WORLD_SIZE": "4", "RANK": "3"}) == (0, 1)
    for wrong in ({"RANK": "4"}, {"RANK": "-1"}, {"RANK": "x"}, {"WORLD_SIZE": "0"}):
        with pytest.raises(UsageError, match=r"RANK=.*, WORLD_SIZE=.* say no rank"):
            launched(told | wrong)


@pytest.mark.parametrize(("count", "ranks"), [(10, 3), (2, 5), (0, 2), (64, 1)])
def test_shares_are_the_whole_and_as_long_as_each_other(count: int, ranks: int) -> None:
    shares = [share(count, rank, ranks) for rank in range(ranks)]
    assert [number for one in shares for number in one] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
