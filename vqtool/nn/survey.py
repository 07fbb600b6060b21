"""What a report shows of a tokenizer and clips: errors by layers, codes and their motion, some clips decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vqtool.codebook import count_blocks, nearest_pairs
from vqtool.inspection import part_of, source_of
from vqtool.motion import column_groups
from vqtool.nn.codec import Codec, Progress, Span
from vqtool.nn.evaluation import Evaluation, evaluate
from vqtool.store import MotionSet
from vqtool.usage import CodebookReport, LatentReport, LayerUsage, Source

MOST_STEPS = 8  # numbers of layers that are looked at, where there are more
CONTEXT_S = 0.1  # of a code's typical motion, before and after its own frames
MAPPED_CODES = 1 << 16  # codes of an implicit codebook (FSQ) that are written out


@dataclass
class Shown:
    """A clip to look at: `kind` is "worst", "median" or "other"; `row` its place among the clips asked for.

    truth    [T, D] raw units
    codes    [L, Q]; None of a VAE
    decoded  [T, D] for each of the numbers of layers
    """

    row: int
    clip: int
    kind: str
    truth: np.ndarray
    codes: np.ndarray | None
    decoded: list[np.ndarray]


@dataclass
class Survey:
    """All that a report shows but the training.

    steps        the numbers of layers that were looked at, all of them last; [] of a VAE
    evaluations  with each of them; of a VAE the one there is
    usage        how the codes or latents are used by the clips
    pairs        of each layer the pairs of codes that follow each other, as of `PairTable.pairs`
    vectors      of each layer its code vectors [K, C]; [] where they are not known
    typical      of each layer: code -> mean of its decoded windows, [context + downsample + context, columns]
    context      motion frames before and after a token's own ones in such a window
    """

    steps: list[int]
    evaluations: list[Evaluation]
    usage: CodebookReport | LatentReport
    shown: list[Shown]
    pairs: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)
    typical: list[dict[int, np.ndarray]] = field(default_factory=list)
    context: int = 0

    @property
    def whole(self) -> Evaluation:
        """With all layers."""
        return self.evaluations[-1]


def survey(
    codec: Codec, motion: MotionSet, clips: Sequence[int], most: int, progress: Progress | None = None
) -> Survey:
    """Look at those clips, `most` of them closely: the worst, those about the median, and some in between."""
    layered = not codec.model.is_vae
    steps = steps_of(codec)
    evaluations = [
        evaluate(codec, motion, clips, num_quantizers=layers, measured=True, progress=progress) for layers in steps[:-1]
    ]
    gathered = _Gathered(codec, motion)
    look = gathered.add if layered else None
    evaluations.append(evaluate(codec, motion, clips, measured=True, progress=progress, look=look))
    measures = evaluations[-1].measures
    assert measures is not None
    chosen = choose([row for row in measures.worst_first() if motion.lengths[clips[row]]], most)
    shown = [_shown(codec, motion, row, clips[row], kind, steps, gathered.codes) for row, kind in chosen.items()]
    source = _source(codec, motion, clips)
    if not layered:
        whole = evaluations[-1]
        assert whole.kl is not None and whole.variance is not None
        return Survey(steps, evaluations, LatentReport(source, whole.token_frames, whole.variance, whole.kl), shown)
    sizes = codec.info.codebook_sizes
    codes = [gathered.codes[clip] for clip in clips if clip in gathered.codes]
    offsets = np.cumsum([0, *map(len, codes)])
    counters = count_blocks(sizes, offsets, [np.concatenate(codes)])
    vectors = [one.cpu().numpy() for one in codec.model.bottleneck.codebooks()]
    nearest = nearest_pairs(vectors) or [None] * len(sizes)
    layers = [
        LayerUsage(layer, counter.counts(), counter.transitions(), near, part_of(codec.info.parts, layer))
        for layer, (counter, near) in enumerate(zip(counters, nearest, strict=True))
    ]
    return Survey(
        steps,
        evaluations,
        CodebookReport(source, layers),
        shown,
        pairs=[counter.pairs() for counter in counters],
        vectors=vectors or _written_out(codec),
        typical=gathered.typical(),
        context=gathered.context,
    )


def steps_of(codec: Codec) -> list[int]:
    """The numbers of layers to look at, all of them last; [] of a VAE."""
    return [] if codec.model.is_vae else some_of(codec.model.bottleneck.prefixes, MOST_STEPS)


def some_of(numbers: Sequence[int], most: int) -> list[int]:
    """At most that many of them, evenly, the first and the last among them."""
    places = np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round().astype(int))
    return [numbers[place] for place in places]


def choose(order: Sequence[int], most: int) -> dict[int, str]:
    """Which rows of `order` (the worst first) to show, and why: a third the worst, a third about the median."""
    third = -(-most // 3)
    middle = max(0, len(order) // 2 - third // 2)
    found = dict.fromkeys(order[:third], "worst")
    for row in order[middle : middle + min(third, most - third)]:
        found.setdefault(row, "median")
    rest = [row for row in order if row not in found]
    left = min(most - len(found), len(rest))
    for row in some_of(rest, left) if left > 0 else []:
        found[row] = "other"
    return {row: found[row] for row in order if row in found}


class _Gathered:
    """The codes of each clip, and of each code the sum of its decoded windows, from spans in any order."""

    def __init__(self, codec: Codec, motion: MotionSet) -> None:
        self._downsample = codec.downsample
        self.context = self._downsample * max(1, round(CONTEXT_S * motion.fps / self._downsample))
        groups = column_groups(motion.layout, motion.dim)
        self._columns = groups["positions"].stop if groups else motion.dim  # that say where the joints are
        self._grounded = motion.layout == "positions"
        self._pieces: dict[int, dict[int, np.ndarray]] = {}
        self._sums: list[dict[int, np.ndarray]] = [{} for _ in codec.info.codebook_sizes]
        self._counts: list[dict[int, int]] = [{} for _ in codec.info.codebook_sizes]

    def add(self, span: Span, codes: np.ndarray, output: np.ndarray) -> None:
        """Take in the codes [n, Q] of a span and its decoded frames."""
        self._pieces.setdefault(span.clip, {})[span.start] = codes
        own = np.arange(-self.context, self._downsample + self.context)
        first = np.arange(len(codes))[:, None] * self._downsample
        columns = output[:, : self._columns]
        windows = columns[np.clip(first + own, 0, len(output) - 1)]  # [n, W, columns]
        if self._grounded:  # positions of the whole room: the code's own begin at the origin
            joints = windows.reshape(*windows.shape[:2], -1, 3)
            ground = joints[:, self.context : self.context + 1, :1] * np.array([1, 0, 1], np.float32)
            windows = (joints - ground).reshape(windows.shape)
        for sums, counts, column in zip(self._sums, self._counts, codes.T, strict=True):
            order = np.argsort(column, kind="stable")
            seen, starts, repeats = np.unique(column[order], return_index=True, return_counts=True)
            totals = np.add.reduceat(windows[order], starts, axis=0)
            for code, total, count in zip(seen.tolist(), totals, repeats.tolist(), strict=True):
                sums[code] = sums[code] + total if code in sums else total.copy()
                counts[code] = counts.get(code, 0) + count

    @property
    def codes(self) -> dict[int, np.ndarray]:
        """Of each clip with frames, [L, Q]."""
        return {
            clip: np.concatenate([pieces[start] for start in sorted(pieces)]) for clip, pieces in self._pieces.items()
        }

    def typical(self) -> list[dict[int, np.ndarray]]:
        """Of each layer the mean window of each code."""
        pairs = zip(self._sums, self._counts, strict=True)
        return [{code: total / counts[code] for code, total in sums.items()} for sums, counts in pairs]


def _shown(
    codec: Codec, motion: MotionSet, row: int, clip: int, kind: str, steps: list[int], codes: dict[int, np.ndarray]
) -> Shown:
    truth = motion.read_all(clip)
    own = codes.get(clip)
    given = [codec.encode(truth)] if own is None else [own[:, :layers].astype(np.int64) for layers in steps]
    decoded = [np.asarray(codec.decode(one, len(truth))) for one in given]
    return Shown(row, clip, kind, truth, own, decoded)


def _source(codec: Codec, motion: MotionSet, clips: Sequence[int]) -> Source:
    frames = int(motion.lengths[list(clips)].sum())
    files = ", ".join(path.name for path in motion.paths)
    kind = "latents" if codec.model.is_vae else "tokens"
    return source_of(codec.info, files, kind, clips=len(clips), motion_frames=frames)


def _written_out(codec: Codec) -> list[np.ndarray]:
    """The vectors of a codebook that is none, such as FSQ's; [] where there are too many."""
    sizes = codec.info.codebook_sizes
    if len(sizes) > 1 or sizes[0] > MAPPED_CODES:
        return []
    codes = torch.arange(sizes[0], device=codec.device)[None, :, None]
    return [codec.model.bottleneck.decode(codes)[0].cpu().numpy()]
