"""The one search: the nearest code vector of each latent, without ever building the [N, K] distance matrix.

|x - e|^2 / 2 = |x|^2 / 2 + (|e|^2 / 2 - x e), so the smallest score |e|^2 / 2 - x e decides. Scores are made in
blocks of a few MB by one matrix product each. Ties go to the lowest index.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 64  # codes whose minimum is taken together: amin is several times as fast as argmin
BLOCK_SCORES = 3 << 20  # 12 MB of float32: larger blocks are mapped afresh by the allocator


def nearest(vectors: Tensor, codebook: Tensor, *, exact: bool = True) -> Tensor:
    """Indices [N] (int64) of the nearest rows of `codebook` [K, C] to `vectors` [N, C].

    `exact`: rows whose best two scores are closer than float32 rounding can tell apart are decided again in
    float64, so that the answer does not depend on batch, threads or the matrix library.
    """
    indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for start, block, scores in _scores(vectors, codebook):
        best, index, second = _best_two(scores) if exact else (None, _best(scores), None)
        if exact and vectors.dtype != torch.float64 and best is not None and second is not None:
            close = (second - best <= _rounding(block, codebook)).nonzero()[:, 0]
            if len(close):
                index[close] = nearest(block[close].double(), codebook.double())
        indices[start : start + len(block)] = index
    return indices


def nearest_with_margin(vectors: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Indices [N], and how far [N] each vector may move, at least, before its decision changes.

    The margin is a lower bound of the distance to the decision boundary, less what rounding of the scores can
    hide; it is <= 0 where the given precision cannot decide.
    """
    indices = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    margins = torch.empty(len(vectors), dtype=vectors.dtype, device=vectors.device)
    for start, block, scores in _scores(vectors, codebook):
        best, index, second = _best_two(scores)
        norm = block.square().sum(1)
        # s2 - s1 = (d2^2 - d1^2) / 2, and the boundary is at least (d2 - d1) / 2 away.
        reach = (norm + 2 * best).clamp_min(0).sqrt() + (norm + 2 * second).clamp_min(0).sqrt()
        margin = (second - best - _rounding(block, codebook)) / reach.clamp_min(1e-30)
        rows = slice(start, start + len(block))
        indices[rows] = index
        margins[rows] = margin.masked_fill(second.isinf(), torch.inf)  # one code: nothing to confuse
    return indices, margins


def _rounding(vectors: Tensor, codebook: Tensor) -> Tensor:
    """What rounding can change in the difference of two scores, [N]."""
    largest = codebook.norm(dim=1).amax()
    unit = 2.0**-24 if vectors.dtype != torch.float64 else 2.0**-53
    return 16 * codebook.shape[1] ** 0.5 * unit * (vectors.norm(dim=1) * largest + largest.square() / 2)


def _scores(vectors: Tensor, codebook: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    """(first row, block of vectors [n, C], scores [n, K']) with K' = K padded to whole groups by infinite scores."""
    padding = -len(codebook) % GROUP
    bias = F.pad(codebook.square().sum(1) / 2, (0, padding), value=torch.inf)
    weight = F.pad(-codebook, (0, 0, 0, padding))  # [K', C]
    rows = max(GROUP, BLOCK_SCORES // len(weight))
    for start in range(0, len(vectors), rows):
        block = vectors[start : start + rows]
        yield start, block, _product(block, weight, bias)


def _product(vectors: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Vectors @ weight.T + bias, [n, K'], by the faster library.

    With AVX-512, oneDNN's 1x1 convolution is up to twice as fast as torch's own product on AMD; with AVX2 it is
    no faster, and a third as fast where C is small (docs/log.md).
    """
    if vectors.device.type == "cpu" and vectors.dtype == torch.float32 and _has_avx512():
        image = vectors.view(1, len(vectors), 1, -1).permute(0, 3, 1, 2)  # [1, C, n, 1], channels last
        filters = weight.view(*weight.shape, 1, 1).contiguous(memory_format=torch.channels_last)
        return F.conv2d(image, filters, bias).permute(0, 2, 3, 1).reshape(len(vectors), -1)
    return torch.addmm(bias, vectors, weight.t())


def _has_avx512() -> bool:
    return torch.backends.mkldnn.is_available() and "AVX512" in torch.backends.cpu.get_cpu_capability()


def _best(scores: Tensor) -> Tensor:
    """Index of the smallest score in each row, the lowest where several are equal."""
    groups = scores.view(len(scores), -1, GROUP)
    which = groups.amin(2).argmin(1)
    winner = groups[torch.arange(len(scores), device=scores.device), which]
    return which * GROUP + winner.argmin(1)


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
