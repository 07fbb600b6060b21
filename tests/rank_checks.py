"""What holds between the ranks of a training: run on every rank by test_distributed, which reads what each found.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=... MASTER_PORT=... python rank_checks.py FOLDER

FOLDER holds motion.h5 and two runs of one process, `whole` and `half` (stopped after step 20). A check is a function
whose name begins with check_; what it raises becomes FOLDER/rank0.json, {name: "" or the error}.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from conftest import Silent, small_config, write_motion
from torch import Tensor

from vqtool.errors import MismatchError, UsageError, VqtoolError
from vqtool.nn import distributed, learner
from vqtool.nn.bottlenecks import build_bottleneck
from vqtool.nn.bottlenecks.base import Draws
from vqtool.nn.trainer import Trained, train
from vqtool.ranks import share
from vqtool.store import MotionSet

CPU = torch.device("cpu")
OPTIONS: dict[str, dict[str, Any]] = {
    "vq": {"ema_decay": 0.5},
    "rvq": {"num_quantizers": 3},
    "rvq absolute": {"num_quantizers": 3, "revive_rule": "absolute", "revive_below": 1.0, "init": "first"},
    "rvq gradient": {"num_quantizers": 2, "codebook_update": "gradient"},
    "rvq narrow": {"num_quantizers": 2, "codebook_dim": 3, "codebook_norm": "l2"},
    "product": {"groups": 2, "num_quantizers": 4},
}


def latents(seed: int) -> Tensor:
    return torch.randn(6, 10, 8, generator=torch.Generator().manual_seed(seed))


def steps(name: str, rows: slice, mask: Tensor) -> dict[str, Tensor]:
    """The state of a bottleneck after three training steps on those rows."""
    options = {"codebook_size": 16, "revive_below": 0.9, **OPTIONS[name]}
    bottleneck = build_bottleneck(name.split()[0], 8, options)
    bottleneck.initialize(torch.randn(200, 8, generator=torch.Generator().manual_seed(9)))
    for seed in range(3):
        bottleneck.follow([bottleneck(latents(seed)[rows], mask[rows])])
    return bottleneck.state_dict()


MASKS = {
    "full": torch.ones(6, 10, dtype=torch.bool),
    "ragged": torch.arange(10) < torch.tensor([10, 3, 7, 10, 1, 5])[:, None],
    "all padding on rank 1": (torch.arange(6) < 3)[:, None].expand(6, 10),
}
ALONE = {(name, what): steps(name, slice(None), mask) for name in OPTIONS for what, mask in MASKS.items()}


def check_codebooks_follow_as_those_of_one_process_do() -> None:
    own = share(6, distributed.rank(), distributed.count())
    for (name, what), alone in ALONE.items():
        for key, value in steps(name, slice(own.start, own.stop), MASKS[what]).items():
            torch.testing.assert_close(value, alone[key], rtol=1e-4, atol=1e-5, msg=f"{name}, {what}: {key}")


def check_codebooks_are_the_same_bits_on_all_ranks() -> None:
    own = share(6, distributed.rank(), distributed.count())
    for name in OPTIONS:
        state = steps(name, slice(own.start, own.stop), MASKS["ragged"])
        assert distributed.differing(b"".join(value.numpy().tobytes() for value in state.values()), CPU) == []


def check_total_and_highest() -> None:
    rank = distributed.rank()
    one, two = distributed.total([torch.tensor([1.0, 2.0]) * (rank + 1), torch.full((2, 3), float(rank))])
    assert one.tolist() == [3.0, 6.0]
    assert two.tolist() == [[1.0] * 3] * 2
    assert distributed.highest([rank, 5 - rank], CPU) == [1, 5]


def check_rows_are_those_of_all_ranks_end_to_end() -> None:
    own = torch.arange(3.0)[:, None] if distributed.rank() == 0 else 10 + torch.arange(2.0)[:, None]
    assert distributed.rows(own, torch.tensor([4, 0, 3, 2])).flatten().tolist() == [11.0, 0.0, 10.0, 2.0]


def check_a_rank_that_differs_is_named() -> None:
    assert distributed.differing(b"a" * 8, CPU) == []
    assert distributed.differing(bytes([distributed.rank()] * 8), CPU) == [1]


def check_draws_are_shared_but_for_the_rows_of_a_rank() -> None:
    one = torch.rand(8, generator=Draws(3).generator())
    assert distributed.differing(one.numpy().tobytes(), CPU) == []
    own = torch.rand(8, generator=Draws(3).generator(own=True))
    assert distributed.differing(own.numpy().tobytes(), CPU) == [1]
    assert distributed.rank() == 1 or own.equal(one)


def run(folder: Path, name: str, model: str = "rvq", *, resume: bool = False, **changes: object) -> Trained:
    with MotionSet([folder / "motion.h5"]) as motion:
        return train(small_config(model, **changes), motion, folder / name, Silent(), device="cpu", resume=resume)


def check_a_training_of_two_ranks(folder: Path) -> None:
    run(folder, "two")


def check_a_training_in_parts_of_what_each_rank_has(folder: Path) -> None:
    run(folder, "parts", train__accumulate=2)


def check_a_training_that_another_number_of_ranks_began(folder: Path) -> None:
    assert run(folder, "half", resume=True).steps == 40


def check_other_models_train(folder: Path) -> None:
    for model in ("vae", "product"):
        run(folder, model, model, train__steps=10, train__eval_every=5)
    narrow = {"bottleneck__codebook_update": "gradient", "bottleneck__codebook_dim": 3, "train__continuous": 0.5}
    run(folder, "narrow", train__steps=10, train__ema_decay=0.0, **narrow)


def check_ranks_of_other_settings_are_refused(folder: Path) -> None:
    with refused(MismatchError, "rank 1 was started with other settings or motion than rank 0"):
        run(folder, "mixed", train__seed=distributed.rank())


def check_ranks_of_other_motion_are_refused(folder: Path) -> None:
    other = write_motion(folder / "wider.h5", [60, 80], dim=9) if distributed.rank() else folder / "motion.h5"
    with MotionSet([other]) as motion, refused(MismatchError, "rank 1 was started with other settings or motion"):
        train(small_config("rvq"), motion, folder / "mixed", Silent(), device="cpu")


def check_a_checkpoint_that_one_rank_does_not_see_is_refused(folder: Path) -> None:
    with refused(MismatchError, "some ranks see other checkpoints than others"):
        run(folder, "nowhere" if distributed.rank() else "half", resume=True)


def check_a_batch_that_leaves_a_rank_without_a_window_is_refused(folder: Path) -> None:
    with refused(UsageError, "leaves some without a window; set it to 6 at least"):
        run(folder, "few", train__batch_size=5, train__accumulate=3)


@contextlib.contextmanager
def refused(kind: type[VqtoolError], what: str) -> Iterator[None]:
    """AssertionError where nothing is refused, or for another reason."""
    try:
        yield
    except kind as error:
        assert what in str(error), error
    else:
        raise AssertionError(f"no {kind.__name__}")


def main(folder: Path) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    learner.INIT_SAMPLES = 1
    found = {}
    with distributed.joined(CPU):
        for name, check in list(globals().items()):
            if name.startswith("check_"):
                found[name] = outcome(check, folder)
        rank = distributed.rank()
    (folder / f"rank{rank}.json").write_text(json.dumps(found))


def outcome(check: Callable[..., None], folder: Path) -> str:
    try:
        check(folder) if check.__code__.co_argcount else check()
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    main(Path(sys.argv[1]))
