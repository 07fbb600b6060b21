"""Training batches: windows cut from clips on disk, each batch a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vqtool.errors import DataError
from vqtool.store import MotionSet


class WindowSampler:
    """Random windows of clips, a clip as likely as it is long; short clips come whole and masked.

    `batch(step)` reads from disk and has no state, so that a resumed run sees what an uninterrupted one does.
    Clips without frames are left out; `empty` counts them.
    """

    def __init__(self, motion: MotionSet, clips: Sequence[int], window: int, batch_size: int, seed: int) -> None:
        lengths = motion.lengths[list(clips)]
        self.empty = int((lengths == 0).sum())
        self._motion = motion
        self._clips = np.array(clips, dtype=np.int64)[lengths > 0]
        if len(self._clips) == 0:
            raise DataError("has no clip with frames to train on", file=motion.paths[0])
        self._lengths = lengths[lengths > 0]
        self._window, self._batch_size, self._seed = window, batch_size, seed
        self._starts = np.maximum(1, self._lengths - window + 1)  # window positions in each clip
        self._ends = np.cumsum(self._lengths)

    def batch(self, step: int, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Motion [B, window, D] in raw units and mask [B, window] of (some of) the windows of one step."""
        clips, starts, counts = (values[rows] for values in self._drawn(step))
        motion = np.empty((len(clips), self._window, self._motion.dim), np.float32)
        for row, (clip, start, count) in enumerate(zip(clips.tolist(), starts.tolist(), counts.tolist(), strict=True)):
            motion[row, :count] = self._motion.read(clip, start, start + count)
            motion[row, count:] = motion[row, count - 1]
        return torch.from_numpy(motion), torch.from_numpy(np.arange(self._window) < counts[:, None])

    def lengths(self, step: int) -> np.ndarray:
        """How many frames each window of a step has, [B], at least 1."""
        return self._drawn(step)[2]

    def _drawn(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Clip, first frame and number of frames of each window of a step, [B] each."""
        random = np.random.Generator(np.random.Philox(key=[self._seed, 0], counter=[0, 0, 0, step]))
        frames = random.integers(0, self._ends[-1], self._batch_size)
        clips = np.searchsorted(self._ends, frames, side="right")
        # Not every position of a window alike: then a clip hardly longer than a window would hardly be seen.
        within = frames - (self._ends - self._lengths)[clips]
        starts = within * self._starts[clips] // self._lengths[clips]
        return self._clips[clips], starts, np.minimum(self._window, self._lengths[clips])
