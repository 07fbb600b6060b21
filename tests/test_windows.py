"""Training batches: pure functions of (seed, step), cut from where they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from vqtool.errors import DataError
from vqtool.nn.windows import WindowSampler
from vqtool.store import MotionSet, create_motion

WINDOW = 8


@pytest.fixture
def clips(tmp_path: Path) -> Iterator[Callable[..., MotionSet]]:
    """Make a motion file: frame t of clip c is (c, t)."""
    opened: list[MotionSet] = []

    def make(*lengths: int) -> MotionSet:
        path = tmp_path / f"motion{len(opened)}.h5"
        with create_motion(path, dim=2, fps=30.0) as writer:
            for clip, length in enumerate(lengths):
                frames = np.stack([np.full(length, clip), np.arange(length)], 1).astype(np.float32)
                writer.append(f"clip{clip}", frames)
        opened.append(MotionSet([path]))
        return opened[-1]

    yield make
    for motion in opened:
        motion.close()


def sampler(motion: MotionSet, *, batch_size: int = 16, seed: int = 0, only: list[int] | None = None) -> WindowSampler:
    return WindowSampler(motion, range(len(motion)) if only is None else only, WINDOW, batch_size, seed)


def test_a_batch_is_a_function_of_seed_and_step(clips: Callable[..., MotionSet]) -> None:
    motion = clips(30, 5, 90)
    one, two = sampler(motion), sampler(motion)
    later = [two.batch(step) for step in (7, 3)][1]  # whatever was drawn before
    assert one.batch(3)[0].equal(later[0])
    assert one.batch(3)[1].equal(later[1])


def test_batches_differ_from_step_to_step_and_seed_to_seed(clips: Callable[..., MotionSet]) -> None:
    motion = clips(3000)
    first = sampler(motion).batch(0)[0]
    assert not sampler(motion).batch(1)[0].equal(first)
    assert not sampler(motion, seed=1).batch(0)[0].equal(first)


def test_drawing_a_batch_leaves_the_global_generators_alone(clips: Callable[..., MotionSet]) -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    sampler(clips(30)).batch(0)
    assert torch.get_rng_state().equal(torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_a_window_is_consecutive_frames_of_one_clip(clips: Callable[..., MotionSet]) -> None:
    motion, mask = sampler(clips(30, 9, 40), batch_size=200).batch(0)
    assert motion.shape == (200, WINDOW, 2)
    assert mask.all()
    assert (motion[..., 0] == motion[:, :1, 0]).all()
    assert (motion[..., 1].diff(dim=1) == 1).all()


def test_a_clip_is_drawn_as_often_as_it_is_long_and_any_window_of_it(clips: Callable[..., MotionSet]) -> None:
    motion, _ = sampler(clips(WINDOW + 2, WINDOW, 6), batch_size=5000).batch(0)
    seen = (motion[:, 0, 0] * 10 + motion[:, 0, 1]).long()  # clip, first frame
    counts = torch.bincount(seen)
    assert counts.nonzero().flatten().tolist() == [0, 1, 2, 10, 20]
    expected = torch.tensor([4, 3, 3, 8, 6]) / 24  # of 24 frames; the first clip's 10 lead to three windows
    assert (counts[counts > 0] / 5000 - expected).abs().max() < 0.03


def test_a_short_clip_comes_whole_with_its_last_frame_repeated_under_the_mask(
    clips: Callable[..., MotionSet],
) -> None:
    motion, mask = sampler(clips(3), batch_size=2).batch(0)
    assert motion[..., 1].tolist() == [[0, 1, 2, 2, 2, 2, 2, 2]] * 2
    assert mask.tolist() == [[True] * 3 + [False] * 5] * 2


def test_a_clip_of_one_window_has_one_window(clips: Callable[..., MotionSet]) -> None:
    motion, mask = sampler(clips(WINDOW)).batch(0)
    assert (motion[..., 1] == torch.arange(WINDOW)).all()
    assert mask.all()


def test_clips_without_frames_are_left_out_and_counted(clips: Callable[..., MotionSet]) -> None:
    drawn = sampler(clips(0, 20, 0, 20, 0), batch_size=200)
    motion, mask = drawn.batch(0)
    assert drawn.empty == 3
    assert motion[:, 0, 0].unique().tolist() == [1, 3]
    assert mask.all()


def test_only_the_clips_that_were_named_are_drawn(clips: Callable[..., MotionSet]) -> None:
    motion, _ = sampler(clips(20, 20, 0, 20), batch_size=200, only=[3, 1]).batch(0)
    assert motion[:, 0, 0].unique().tolist() == [1, 3]


def test_no_clip_with_frames_is_refused(clips: Callable[..., MotionSet]) -> None:
    with pytest.raises(DataError, match="has no clip with frames to train on"):
        sampler(clips(0, 0))
