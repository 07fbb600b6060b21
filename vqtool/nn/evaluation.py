"""How well a tokenizer gives clips back, and how it uses its codes, over a whole set."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vqtool.codebook import entropy, perplexity
from vqtool.metrics import Measures, foot_joints
from vqtool.nn import distributed
from vqtool.nn.bottlenecks.vae import GaussianBottleneck
from vqtool.nn.codec import Codec, Progress, Span, use_threads
from vqtool.ranks import share
from vqtool.store import MotionSet
from vqtool.workers import Workers

Look = Callable[[Span, np.ndarray, np.ndarray], None]


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

    def take(self, part: _Posterior) -> None:
        """Add those of some other rows."""
        self.count += part.count
        self.sum += part.sum
        self.squares += part.squares
        self.kl += part.kl

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """KL and variance of the mean, [C] each."""
        count = max(1, self.count)
        variance = np.maximum(self.squares / count - np.square(self.sum / count), 0.0)
        return self.kl / count, variance


@dataclass
class _Sums:
    """What `Evaluation` tells of some clips by the first q layers, not yet divided by anything."""

    clips: Sequence[int]
    num_quantizers: int | None
    squared: np.ndarray
    absolute: np.ndarray
    counts: list[np.ndarray]
    measures: Measures | None
    posterior: _Posterior | None
    frames: int = 0
    token_frames: int = 0

    def part(self, rows: slice) -> _Sums:
        """The sums of a part of the clips, of which nothing was looked at; for `take`."""
        return _Sums(
            self.clips[rows],
            self.num_quantizers,
            np.zeros_like(self.squared),
            np.zeros_like(self.absolute),
            [np.zeros_like(count) for count in self.counts],
            None if self.measures is None else self.measures.part(rows),
            None if self.posterior is None else _Posterior(len(self.posterior.sum)),
        )

    def take(self, rows: slice, part: _Sums) -> None:
        """Add those of a part of the clips."""
        self.squared += part.squared
        self.absolute += part.absolute
        for count, more in zip(self.counts, part.counts, strict=True):
            count += more
        if self.measures is not None and part.measures is not None:
            self.measures.take(rows, part.measures)
        if self.posterior is not None and part.posterior is not None:
            self.posterior.take(part.posterior)
        self.frames += part.frames
        self.token_frames += part.token_frames

    def over_ranks(self, device: torch.device) -> None:
        """Become the sums over all ranks of a training; not the measures."""
        posterior = self.posterior or _Posterior(0)
        counted = np.array([self.frames, self.token_frames, posterior.count], dtype=np.float64)
        own = [self.squared, self.absolute, posterior.sum, posterior.squares, posterior.kl, counted]
        own += [count.astype(np.float64) for count in self.counts]
        totals = [total.cpu().numpy() for total in distributed.total([torch.from_numpy(one).to(device) for one in own])]
        self.squared, self.absolute, posterior.sum, posterior.squares, posterior.kl, counted = totals[:6]
        self.frames, self.token_frames, posterior.count = (int(number) for number in counted)
        self.counts = [count.astype(np.int64) for count in totals[6:]]


@dataclass
class EvaluateClips:
    """The sums of a part of the clips, here or in a worker: see `evaluate`."""

    codec: Codec
    motion: MotionSet
    threads: int

    def __call__(self, empty: _Sums, progress: Progress | None = None, look: Look | None = None) -> _Sums:
        """The sums, of which nothing was looked at, after their clips were encoded, decoded and compared."""
        use_threads(self.threads)
        sums = copy.deepcopy(empty)  # Ray's arrays cannot be written to
        codec, rows = self.codec, {clip: row for row, clip in enumerate(sums.clips)}
        scale = codec.model.normalizer.scale.double().cpu().numpy()
        for span, codes, output in codec.reconstruct(self.motion, sums.clips, sums.num_quantizers, progress):
            start = span.start * codec.downsample
            truth = self.motion.read(span.clip, start, start + len(output))
            error = (output - truth) / scale
            squares, distances = np.square(error, dtype=np.float64).sum(0), np.abs(error, dtype=np.float64).sum(0)
            sums.squared += squares
            sums.absolute += distances
            if sums.measures is not None:
                sums.measures.add(rows[span.clip], start, truth, output, squares, distances)
            if look is not None:
                look(span, codes, output)
            sums.frames += len(output)
            sums.token_frames += span.stop - span.start
            if sums.posterior is not None:
                sums.posterior.add(codes[0], codes[1])
            for q, count in enumerate(sums.counts):
                count += np.bincount(codes[:, q], minlength=len(count))
        return sums


def evaluate(
    codec: Codec,
    motion: MotionSet,
    clips: Sequence[int],
    *,
    num_quantizers: int | None = None,
    measured: bool = False,
    shared: bool = False,
    progress: Progress | None = None,
    look: Look | None = None,
) -> Evaluation:
    """Encode and decode those clips (by the first q layers) and compare; every frame counts alike.

    `measured`: take the measures of `vqtool.metrics` too, which costs about half as much again. `shared`: every rank of
    a training calls it, and takes a share of the clips. `look` is given what `Codec.reconstruct` gives: each span, its
    codes and its reconstruction.
    """
    options: dict[str, Any] = {"measured": measured, "shared": shared, "progress": progress, "look": look}
    return evaluate_layers(codec, motion, clips, [num_quantizers], **options)[0]


def evaluate_layers(
    codec: Codec,
    motion: MotionSet,
    clips: Sequence[int],
    layers: Sequence[int | None],
    *,
    measured: bool = False,
    shared: bool = False,
    workers: Workers | None = None,
    progress: Progress | None = None,
    look: Look | None = None,
) -> list[Evaluation]:
    """`evaluate` by several numbers of layers, by workers if there are any: to the same numbers.

    Sums are those of parts of the clips, added up in the order of the parts, whoever made them. Where they are `shared`
    by ranks, that order is another, and there are no measures.
    """
    assert not (shared and (measured or workers or look))
    every = len(clips)
    if shared:
        own = share(every, distributed.rank(), distributed.count())
        clips = clips[own.start : own.stop]
    normalizer = codec.model.normalizer
    mean, scale = (values.double().cpu().numpy() for values in (normalizer.mean, normalizer.scale))
    moving = ~normalizer.constant.cpu().numpy()
    lengths = motion.lengths[list(clips)]
    bodies = motion.companions.bodies
    feet = foot_joints(motion.layout, motion.dim, bodies[0] if bodies else None)
    bottleneck = codec.model.bottleneck
    wholes = []
    for asked in layers:
        sizes = codec.info.codebook_sizes[: bottleneck.layers_asked(asked)]
        measures = None
        if measured:
            measures = Measures(motion.layout, motion.fps, mean, scale, moving, lengths.tolist(), feet)
        posterior = _Posterior(bottleneck.dim) if isinstance(bottleneck, GaussianBottleneck) else None
        counts = [np.zeros(size, dtype=np.int64) for size in sizes]
        wholes.append(_Sums(clips, asked, np.zeros(motion.dim), np.zeros(motion.dim), counts, measures, posterior))
    work = EvaluateClips(codec, motion, torch.get_num_threads())
    plan = [(whole, slice(*rows)) for whole in wholes for rows in codec.groups(lengths)]
    made: Iterator[_Sums]
    if workers is None or len(plan) < 2:
        made = (work(whole.part(rows), progress, look) for whole, rows in plan)
    else:
        assert look is None, "spans are not sent back"
        made = _told(workers.in_order(work, (whole.part(rows) for whole, rows in plan)), progress)
    for (whole, rows), part in zip(plan, made, strict=True):
        whole.take(rows, part)
    if shared:
        for whole in wholes:
            whole.over_ranks(codec.device)
    return [_divided(whole, every, scale, moving) for whole in wholes]


def _told(parts: Iterable[tuple[_Sums, _Sums]], progress: Progress | None) -> Iterator[_Sums]:
    """What workers made; its frames count as progress."""
    for _, part in parts:
        if progress is not None:
            progress(part.frames)
        yield part


def _divided(sums: _Sums, clips: int, scale: np.ndarray, moving: np.ndarray) -> Evaluation:
    """The means of sums over so many clips."""
    result = Evaluation(
        clips=clips,
        frames=sums.frames,
        token_frames=sums.token_frames,
        squared=sums.squared / max(1, sums.frames),
        absolute=sums.absolute / max(1, sums.frames),
        scale=scale,
        moving=moving,
        counts=sums.counts,
        measures=sums.measures,
    )
    if sums.posterior is not None:
        result.kl, result.variance = sums.posterior.result()
    return result
