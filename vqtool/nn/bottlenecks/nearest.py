"""The one search: the nearest code vector of each latent, without ever building the [N, K] distance matrix.

|x - e|^2 / 2 = |x|^2 / 2 + (|e|^2 / 2 - x e), so the smallest score |e|^2 / 2 - x e decides. Scores are made in
blocks of a few MB by one matrix product each, of which a running minimum is kept. Ties go to the lowest index.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 64  # codes whose minimum is taken together: amin is several times as fast as argmin
BLOCK_SCORES = 1 << 20  # 4 MB of float32, read while they are in a CPU's cache
BLOCK_CODES = 1024  # of more codes at once, blocks are so flat that the product is half as fast
FEW = 4096  # vectors whose distances are looked at together


@torch.no_grad()
def nearest(vectors: Tensor, codebook: Tensor, *, exact: bool = True) -> Tensor:
    """Indices [N] (int64) of the nearest rows of `codebook` [K, C] to `vectors` [N, C].

    `exact`: rows whose best two scores are closer than float32 rounding can tell apart are decided again in
    float64, so that the answer does not depend on batch, threads or the matrix library.
    """
    if exact:
        return decide(vectors, codebook)[0]
    found = _Smallest(vectors)
    for rows, first, scores in _scores(vectors, codebook):
        found.see(rows, first, *_best(scores))
    return found.indices.clamp_max_(len(codebook) - 1)  # infinite vectors make NaN of the padding, and NaN comes first


@torch.no_grad()
def sampled(vectors: Tensor, codebook: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Indices [N] drawn with the probabilities softmax(-|x - e|^2 / temperature), by Gumbel's trick."""
    found = _Smallest(vectors)
    for rows, first, scores in _scores(vectors, codebook):
        waits = torch.empty(scores.shape).exponential_(generator=generator).clamp_min_(1e-20)  # -log is Gumbel noise
        found.see(rows, first, *_best(scores * (2 / temperature) + waits.log_().to(scores)))
    return found.indices.clamp_max_(len(codebook) - 1)


@torch.no_grad()
def decide(vectors: Tensor, codebook: Tensor, tolerance: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Exact indices [N], and which of them [N] a move of the vector by `tolerance` [N] could change.

    A move by t changes the difference of two scores by at most t |e1 - e2| <= t (|x - e1| + |x - e2|).
    """
    found = _Smallest(vectors)
    for rows, first, scores in _scores(vectors, codebook):
        found.see(rows, first, *_best_two(scores))
    unsure = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    for start in range(0, len(vectors), FEW):
        rows = slice(start, start + FEW)
        block, best, second = vectors[rows], found.best[rows], found.second[rows]
        near, far = _distance(block, best), _distance(block, second)
        slack = 0.0 if tolerance is None else tolerance[rows] * (near + far)
        rounding = _rounding(block, codebook, near)
        close = (second - best <= slack + rounding) & second.isfinite()  # the only code of a codebook is sure
        if vectors.dtype == torch.float64:
            tied = start + (second - best <= rounding).nonzero()[:, 0]
            limit = (best + rounding)[tied - start]
            found.indices[tied] = _lowest_of_equals(vectors[tied], codebook, found.indices[tied], limit)
            unsure[rows] = close
            continue
        again = start + close.nonzero()[:, 0]
        if len(again):
            limit = None if tolerance is None else tolerance[again].double()
            found.indices[again], unsure[again] = decide(vectors[again].double(), codebook.double(), limit)
    return found.indices.clamp_max_(len(codebook) - 1), unsure


class _Smallest:
    """The smallest scores of vectors [N] so far, whose they are, and the second smallest; codes come in order."""

    def __init__(self, vectors: Tensor) -> None:
        self.best, self.second = vectors.new_empty(2, len(vectors))
        self.indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)

    def see(self, rows: slice, first: int, best: Tensor, index: Tensor, second: Tensor | None = None) -> None:
        """Take in the smallest scores [n] of these rows among a block of codes, of which the first has that number."""
        if first == 0:
            self.best[rows], self.indices[rows] = best, index
            if second is not None:
                self.second[rows] = second
            return
        before = self.best[rows]
        if second is not None:
            self.second[rows] = torch.minimum(torch.maximum(before, best), torch.minimum(self.second[rows], second))
        better = best < before
        self.indices[rows] = torch.where(better, index + first, self.indices[rows])
        self.best[rows] = torch.where(better, best, before)


@torch.no_grad()
def half_distances(vectors: Tensor, codebook: Tensor) -> Tensor:
    """|x - e|^2 / 2 of all pairs, [N, K]: for few vectors."""
    found = vectors.new_empty(len(vectors), len(codebook))
    for rows, first, scores in _scores(vectors, codebook):
        codes = slice(first, first + scores.shape[1])
        found[rows, codes] = scores[:, : found[:, codes].shape[1]]
    return found + vectors.square().sum(1, keepdim=True) / 2


def unit_roundoff(vectors: Tensor) -> float:
    """By how much of a number rounding changes it at most."""
    return 2.0**-24 if vectors.dtype != torch.float64 else 2.0**-53


def _distance(vectors: Tensor, scores: Tensor) -> Tensor:
    """|x - e| [N] of the code that has that score; infinite for padding."""
    return (vectors.square().sum(1) + 2 * scores).clamp_min(0).sqrt()


def _rounding(vectors: Tensor, codebook: Tensor, near: Tensor) -> Tensor:
    """What rounding can change in the difference of the scores of codes that compete, [N].

    A code at the distance d of x is no longer than |x| + d.
    """
    norm = vectors.norm(dim=1)
    length = torch.minimum(codebook.norm(dim=1).amax(), norm + 2 * near)
    return 16 * codebook.shape[1] ** 0.5 * unit_roundoff(vectors) * (norm * length + length.square() / 2)


def _scores(vectors: Tensor, codebook: Tensor) -> Iterator[tuple[slice, int, Tensor]]:
    """(rows, first code, scores [n, k]) of blocks of vectors with blocks of codes, the codes of each vector in order.

    The last codes are padded to whole groups by infinite scores. All scores lie in the same memory: mapping fresh pages
    for each block takes a tenth of the time.
    """
    padding = -len(codebook) % GROUP
    bias = F.pad(codebook.square().sum(1) / 2, (0, padding), value=torch.inf)
    weight = F.pad(-codebook, (0, 0, 0, padding))  # [K', C]
    codes = min(len(weight), BLOCK_CODES)
    count = max(1, min(len(vectors), max(GROUP, BLOCK_SCORES // codes)))
    memory = vectors.new_empty(count * codes)
    for first in range(0, len(weight), codes):
        own, own_bias = weight[first : first + codes], bias[first : first + codes]
        for start in range(0, len(vectors), count):
            rows = slice(start, min(start + count, len(vectors)))
            block = vectors[rows]
            into = memory[: len(block) * len(own)].view(len(block), len(own))
            with torch.autocast(vectors.device.type, enabled=False):  # bfloat16 search changes up to 1 % of the codes
                scores = _product(block, own, own_bias, into)
            yield rows, first, scores


def _product(vectors: Tensor, weight: Tensor, bias: Tensor, memory: Tensor) -> Tensor:
    """Vectors @ weight.T + bias, [n, K'], by the faster library, in that memory or elsewhere.

    With AVX-512, oneDNN's 1x1 convolution is up to twice as fast as torch's own product on AMD; with AVX2 it is
    no faster, and a third as fast where C is small (docs/log.md).
    """
    if vectors.device.type == "cpu" and vectors.dtype == torch.float32 and has_avx512():
        image = vectors.view(1, len(vectors), 1, -1).permute(0, 3, 1, 2)  # [1, C, n, 1], channels last
        filters = weight.view(*weight.shape, 1, 1).contiguous(memory_format=torch.channels_last)
        return F.conv2d(image, filters, bias).permute(0, 2, 3, 1).reshape(len(vectors), -1)
    return torch.addmm(bias, vectors, weight.t(), out=memory)


def has_avx512() -> bool:
    """Whether oneDNN is there with AVX-512, for which some of its kernels are much faster."""
    return torch.backends.mkldnn.is_available() and "AVX512" in torch.backends.cpu.get_cpu_capability()


def _best(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest score in each row and its index, the lowest where several are equal."""
    groups = scores.view(len(scores), -1, GROUP)
    minima = groups.amin(2)
    which = minima.argmin(1)
    rows = torch.arange(len(scores), device=scores.device)
    return minima[rows, which], which * GROUP + groups[rows, which].argmin(1)


def _lowest_of_equals(vectors: Tensor, codebook: Tensor, indices: Tensor, limit: Tensor) -> Tensor:
    """Indices [n], or lower ones of codes whose scores are no more than `limit` [n] either.

    Equal codes do not get equal scores: a product rounds differently at its edges.
    """
    for rows, first, scores in _scores(vectors, codebook):
        equal = scores <= limit[rows, None]
        here = torch.where(equal.any(1), first + equal.to(torch.uint8).argmax(1), len(codebook))
        indices[rows] = torch.minimum(indices[rows], here)
    return indices


def _best_two(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest score, its index, and the second smallest score, each [n]."""
    groups = scores.view(len(scores), -1, GROUP)
    minima = groups.amin(2)
    which = minima.argmin(1)
    rows = torch.arange(len(scores), device=scores.device)
    winner = groups[rows, which]
    inside = winner.argmin(1)
    best = winner[rows, inside]
    winner[rows, inside] = torch.inf
    minima[rows, which] = torch.inf
    return best, which * GROUP + inside, torch.minimum(winner.amin(1), minima.amin(1))
