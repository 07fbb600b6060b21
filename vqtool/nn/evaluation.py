"""How well a tokenizer gives clips back, and how it uses its codes, over a whole set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqtool.codebook import entropy, perplexity
from vqtool.metrics import Measures, foot_joints
from vqtool.nn.bottlenecks.vae import GaussianBottleneck
from vqtool.nn.codec import Codec, Progress, Span
from vqtool.store import MotionSet


@dataclass
class Evaluation:
    """Errors over all frames of a set, accumulated in float64.

    squared, absolute  [D] mean squared and mean absolute error of each column, in normalised units (divided by the
                       standard deviation of the training clips)
    scale              [D] those standard deviations, in raw units
    moving             [D] which columns move in the training clips; the others come back exactly and count nowhere
    counts             [K] per layer: how often each code was used; [] for a VAE
    measures           those of `vqtool.metrics` for each clip, in the order asked for; None where not asked for
    kl, variance       [C] of a VAE: mean KL per dimension in nats, variance of the posterior mean; None otherwise
    """

    clips: int
    frames: int
    token_frames: int
    squared: np.ndarray
    absolute: np.ndarray
    scale: np.ndarray
    moving: np.ndarray
    counts: list[np.ndarray]
    measures: Measures | None = None
    kl: np.ndarray | None = None
    variance: np.ndarray | None = None

    @property
    def nmse(self) -> float:
        """Normalised MSE: mean squared error over moving columns, 1.0 when only their mean is predicted."""
        return _mean(self.squared[self.moving])

    @property
    def nmae(self) -> float:
        """Normalised mean absolute error over moving columns."""
        return _mean(self.absolute[self.moving])

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Of each codebook: its size K, the codes used, their perplexity and entropy in bits."""
        return [
            {
                "codebook_size": len(counts),
                "used": int((counts > 0).sum()),
                "perplexity": perplexity(counts),
                "bits": entropy(counts) / math.log(2),
            }
            for counts in self.counts
        ]

    def usage_tensors(self) -> dict[str, np.ndarray]:
        """What the tokenizer file keeps for inspect-codebook."""
        tensors = {f"usage.counts.{q}": counts for q, counts in enumerate(self.counts)}
        if self.kl is not None and self.variance is not None:
            tensors |= {"usage.kl": self.kl, "usage.variance": self.variance}
        return tensors


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


class _Posterior:
    """Running moments of a VAE's mean and its KL, per dimension."""

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.sum, self.squares, self.kl = np.zeros(dim), np.zeros(dim), np.zeros(dim)

    def add(self, mean: np.ndarray, logvar: np.ndarray) -> None:
        """Take in [n, C] of each."""
        mean, logvar = mean.astype(np.float64), logvar.astype(np.float64)
        self.count += len(mean)
        self.sum += mean.sum(0)
        self.squares += np.square(mean).sum(0)
        self.kl += (np.square(mean) + np.exp(logvar) - 1 - logvar).sum(0) / 2

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """KL and variance of the mean, [C] each."""
        count = max(1, self.count)
        variance = np.maximum(self.squares / count - np.square(self.sum / count), 0.0)
        return self.kl / count, variance


def evaluate(
    codec: Codec,
    motion: MotionSet,
    clips: Sequence[int],
    *,
    num_quantizers: int | None = None,
    measured: bool = False,
    progress: Progress | None = None,
    look: Callable[[Span, np.ndarray, np.ndarray], None] | None = None,
) -> Evaluation:
    """Encode and decode those clips (by the first q layers) and compare; every frame counts alike.

    `measured`: take the measures of `vqtool.metrics` too, which costs about half as much again. `look` is given what
    `Codec.reconstruct` gives: each span, its codes and its reconstruction.
    """
    dim, sizes = motion.dim, codec.info.codebook_sizes[: codec.model.bottleneck.layers_asked(num_quantizers)]
    normalizer = codec.model.normalizer
    scale = normalizer.scale.double().cpu().numpy()
    moving = ~normalizer.constant.cpu().numpy()
    squared, absolute = np.zeros(dim), np.zeros(dim)
    counts = [np.zeros(size, dtype=np.int64) for size in sizes]
    bottleneck = codec.model.bottleneck
    posterior = _Posterior(bottleneck.dim) if isinstance(bottleneck, GaussianBottleneck) else None
    measures, rows = None, {clip: row for row, clip in enumerate(clips)}
    if measured:
        bodies = motion.companions.bodies
        measures = Measures(
            motion.layout,
            motion.fps,
            normalizer.mean.double().cpu().numpy(),
            scale,
            moving,
            motion.lengths[list(clips)].tolist(),
            foot_joints(motion.layout, dim, bodies[0] if bodies else None),
        )
    frames = token_frames = 0
    for span, codes, output in codec.reconstruct(motion, clips, num_quantizers, progress):
        start = span.start * codec.downsample
        truth = motion.read(span.clip, start, start + len(output))
        error = (output - truth) / scale
        squares, distances = np.square(error, dtype=np.float64).sum(0), np.abs(error, dtype=np.float64).sum(0)
        squared += squares
        absolute += distances
        if measures is not None:
            measures.add(rows[span.clip], start, truth, output, squares, distances)
        if look is not None:
            look(span, codes, output)
        frames += len(output)
        token_frames += span.stop - span.start
        if posterior is not None:
            posterior.add(codes[0], codes[1])
        for q, count in enumerate(counts):
            count += np.bincount(codes[:, q], minlength=len(count))
    result = Evaluation(
        clips=len(clips),
        frames=frames,
        token_frames=token_frames,
        squared=squared / max(1, frames),
        absolute=absolute / max(1, frames),
        scale=scale,
        moving=moving,
        counts=counts,
        measures=measures,
    )
    if posterior is not None:
        result.kl, result.variance = posterior.result()
    return result
