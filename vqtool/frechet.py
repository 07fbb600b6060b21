"""The Frechet distance between real and decoded motion, in a feature space that takes no trained network.

    motion --> seconds --> of each column: mean, spread, step --> 8 fixed random directions of each --> [n, 24]

A second is round(fps) frames of a clip, at least 2, counted from its beginning. Columns are in standard deviations
of the training clips; the spread is the standard deviation within the second, the step the mean absolute change from
frame to frame. The directions are normal numbers of SEED. This is not the FID of HumanML3D, whose features are those
of a network trained on that set: numbers of the two cannot be compared.
"""

from __future__ import annotations

import copy

import numpy as np

SEED = 5
PARTS = 3  # mean, spread, step
DIRECTIONS = 8  # of each part
MIN_SECONDS = 5 * PARTS * DIRECTIONS  # fewer tell too little of a covariance [24, 24]


class Moments:
    """Mean [F] and covariance [F, F] of rows that come bit by bit, in float64."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self._sum, self._products = np.zeros(dim), np.zeros((dim, dim))

    def add(self, rows: np.ndarray) -> None:
        """Take in rows [n, F]."""
        self.count += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    def __add__(self, other: Moments) -> Moments:
        both = Moments(len(self._sum))
        both.count = self.count + other.count
        both._sum, both._products = self._sum + other._sum, self._products + other._products
        return both

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance; of at least one row."""
        mean = self._sum / self.count
        return mean, self._products / self.count - np.outer(mean, mean)


class MotionDistance:
    """Frechet distances over the seconds of N clips, whose pieces come in any order.

    Each part of the features is scaled so that the real seconds have a total variance of 1/3 in it, 1 in all. So 0
    means alike, and 1 is what one and the same second over and over gets, if it is the mean one.
    """

    def __init__(self, clips: int, fps: float, mean: np.ndarray, scale: np.ndarray, moving: np.ndarray) -> None:
        self._frames = max(2, round(fps))
        self._mean, self._scale = mean, scale
        random = np.random.default_rng(SEED)
        self._directions = random.standard_normal((PARTS, len(mean), DIRECTIONS)) * moving[:, None]
        self._half = random.permutation(clips) % 2
        self._clear()

    def _clear(self) -> None:
        self._real = [Moments(PARTS * DIRECTIONS), Moments(PARTS * DIRECTIONS)]
        self._decoded = Moments(PARTS * DIRECTIONS)

    def add(self, clip: int, start: int, truth: np.ndarray, decoded: np.ndarray) -> None:
        """Take in frames `start` on, [n, D] both, of clip 0 .. N-1. A second that two pieces share counts nowhere."""
        skipped = -start % self._frames
        whole = (len(truth) - skipped) // self._frames
        if whole > 0:
            taken = slice(skipped, skipped + whole * self._frames)
            self._real[self._half[clip]].add(self._features(truth[taken]))
            self._decoded.add(self._features(decoded[taken]))

    def part(self, clips: slice) -> MotionDistance:
        """The distances of some of the clips alone, of which nothing was taken in; for `take`."""
        alone = copy.copy(self)
        alone._half = self._half[clips]
        alone._clear()
        return alone

    def take(self, part: MotionDistance) -> None:
        """Take in clips that were a part."""
        self._real = [mine + theirs for mine, theirs in zip(self._real, part._real, strict=True)]
        self._decoded = self._decoded + part._decoded

    def _features(self, frames: np.ndarray) -> np.ndarray:
        """Of whole seconds, [n, 24]."""
        seconds = frames.reshape(-1, self._frames, frames.shape[1])
        step = np.abs(np.diff(seconds, axis=1)).mean(1)
        parts = np.stack([seconds.mean(1) - self._mean, seconds.std(1), step]) / self._scale @ self._directions
        return np.concatenate(list(parts), axis=1)

    def real_to_decoded(self) -> float | None:
        """Between the real seconds and the decoded ones; None of fewer than 120 seconds."""
        return self._distance(sum(self._real[1:], self._real[0]), self._decoded, MIN_SECONDS)

    def real_to_real(self) -> float | None:
        """Between the seconds of two random halves of the real clips: what another choice of clips makes.

        None where one has fewer than 60.
        """
        return self._distance(self._real[0], self._real[1], MIN_SECONDS // 2)

    def _distance(self, first: Moments, second: Moments, least: int) -> float | None:
        if min(first.count, second.count) < least:
            return None
        _, covariance = sum(self._real[1:], self._real[0]).result()
        spread = np.diag(covariance).reshape(PARTS, DIRECTIONS).sum(1)
        size = np.repeat(np.sqrt(PARTS * np.where(spread > 0, spread, 1.0)), DIRECTIONS)
        (mean, covariance), (other, other_covariance) = first.result(), second.result()
        scaled = np.outer(size, size)
        return frechet_distance(mean / size, covariance / scaled, other / size, other_covariance / scaled)


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other: np.ndarray, other_covariance: np.ndarray
) -> float:
    """Squared Frechet distance of two normal distributions, of means [F] and covariances [F, F].

    |m1 - m2|^2 + trace(C1 + C2 - 2 (C1 C2)^(1/2)): Dowson and Landau 1982; the FID of arXiv 1706.08500. The root of C1
    and then the eigenvalues of C1^(1/2) C2 C1^(1/2) are those of symmetric matrices, so nothing becomes complex.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    common = np.linalg.eigvalsh(root @ other_covariance @ root)
    apart = float(np.square(mean - other).sum() + np.trace(covariance) + np.trace(other_covariance))
    return max(0.0, apart - 2 * float(np.sqrt(np.maximum(common, 0.0)).sum()))
