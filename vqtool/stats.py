"""Mean and spread of each column of motion, in one streaming pass that can be merged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqtool.store import MotionSet


@dataclass
class ColumnStats:
    """Running count, mean, sum of squared deviations, least and largest value of D columns, in float64."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def empty(cls, dim: int) -> ColumnStats:
        """No frames yet."""
        return cls(0, np.zeros(dim), np.zeros(dim), np.full(dim, np.inf), np.full(dim, -np.inf))

    @classmethod
    def of(cls, frames: np.ndarray) -> ColumnStats:
        """Statistics of frames [n, D]."""
        if len(frames) == 0:
            return cls.empty(frames.shape[1])
        values = frames.astype(np.float64)
        mean = values.mean(0)
        return cls(len(frames), mean, np.square(values - mean).sum(0), values.min(0), values.max(0))

    def merge(self, other: ColumnStats) -> ColumnStats:
        """Statistics of both together (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        share = other.count / count
        squares = self.squares + other.squares + np.square(delta) * self.count * share
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return ColumnStats(count, self.mean + delta * share, squares, low, high)

    @property
    def std(self) -> np.ndarray:
        """Standard deviation [D] over all frames (not the sample estimate)."""
        return np.sqrt(self.squares / max(1, self.count))

    @property
    def constant(self) -> np.ndarray:
        """Which columns [D] do not move: their spread is no more than float32 rounding of their values."""
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        still: np.ndarray = (self.high <= self.low) | (self.std <= 1.2e-7 * largest)
        return still

    @property
    def scale(self) -> np.ndarray:
        """What to divide by, [D]: the standard deviation, 1 for constant columns."""
        return np.where(self.constant, 1.0, self.std)


def column_stats(motion: MotionSet, clips: list[int], digest: Any = None) -> ColumnStats:
    """Statistics of those clips; DataError at the first frame that is not finite.

    `digest`, one of hashlib, is fed all frames as float32.
    """
    stats = ColumnStats.empty(motion.dim)
    for frames in _blocks(motion, clips, digest):
        stats = stats.merge(ColumnStats.of(frames))
    return stats


def hash_clips(motion: MotionSet, clips: list[int], digest: Any) -> None:
    """Feed `digest` what `column_stats` feeds it."""
    for _ in _blocks(motion, clips, digest):
        pass


def _blocks(motion: MotionSet, clips: list[int], digest: Any) -> Iterator[np.ndarray]:
    for clip in clips:
        for frames in motion.blocks(clip):
            if digest is not None:
                digest.update(np.ascontiguousarray(frames, dtype="<f4").data)
            yield frames
