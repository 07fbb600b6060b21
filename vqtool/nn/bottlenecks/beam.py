"""Beam search over residual layers, arXiv 2509.19186: the codes whose sum is nearest, not the nearest of each layer.

Layer by layer, each of the best `width` partial sums of a token is tried with every code, and the best `width` of all
that are kept. A sum that is not the nearest in its layer can leave what later layers fit better.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vqtool.nn.bottlenecks.nearest import BLOCK_SCORES, half_distances, unit_roundoff


def beam_search(
    vectors: Tensor, codebooks: Sequence[Tensor], width: int, tolerance: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Codes [N, Q] of vectors [N, C], and which of them [N] a move of the vector by `tolerance` [N] could change.

    A decision, of what to keep and of the last sum, is sure where the distances that it separates differ by more than
    a move and rounding can change. A float32 vector with an unsure one is searched again in float64. There, sums that
    are equal but for rounding count as equal, and the one with the lower codes comes first.
    """
    rows = max(1, BLOCK_SCORES // (width * max(map(len, codebooks))))
    codes = torch.empty(len(vectors), len(codebooks), dtype=torch.int64, device=vectors.device)
    unsure = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    for start in range(0, len(vectors), rows):
        block = slice(start, start + rows)
        limit = None if tolerance is None else tolerance[block]
        codes[block], unsure[block] = _search(vectors[block], codebooks, width, limit)
    again = unsure.nonzero()[:, 0]
    if vectors.dtype != torch.float64 and len(again):
        limit = None if tolerance is None else tolerance[again].double()
        books = [book.double() for book in codebooks]
        codes[again], unsure[again] = beam_search(vectors[again].double(), books, width, limit)
    return codes, unsure


def _search(x: Tensor, codebooks: Sequence[Tensor], width: int, tolerance: Tensor | None) -> tuple[Tensor, Tensor]:
    """Of a block [n, C] that fits in memory."""
    n, dim = x.shape
    move = x.new_zeros(n) if tolerance is None else tolerance  # of a residual: by the tolerance, and by rounding
    residuals, codes = x[:, None], torch.empty(n, 1, 0, dtype=torch.int64, device=x.device)  # [n, B, C], [n, B, q]
    unsure = torch.zeros(n, dtype=torch.bool, device=x.device)
    for layer, book in enumerate(codebooks):
        scores = half_distances(residuals.flatten(0, 1), book).view(n, -1)  # [n, B K], codes count fastest
        keep = 1 if layer == len(codebooks) - 1 else min(width, scores.shape[1])
        longest = residuals.norm(dim=2).amax(1) + book.norm(dim=1).amax()
        rounding = 8 * dim**0.5 * unit_roundoff(x) * longest.square()
        chosen, close = _lowest(scores, keep, move, rounding)
        unsure |= close
        parent, code = chosen // len(book), chosen % len(book)  # [n, keep]
        codes = torch.cat([codes.gather(1, parent[..., None].expand(-1, -1, layer)), code[..., None]], 2)
        residuals = residuals.gather(1, parent[..., None].expand(-1, -1, dim)) - book[code]
        move = move + unit_roundoff(x) * residuals.norm(dim=2).amax(1)
    return codes[:, 0], unsure


def _lowest(scores: Tensor, keep: int, move: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """The indices [n, keep] of the smallest scores [n, M], in ascending order, and where [n] others could be smaller.

    Scores are half squared distances d: a move by t changes none of the d by more than t, so that the kept stay
    nearer than the others where the next d is larger by more than 2 t.
    """
    if keep == scores.shape[1]:
        every = torch.arange(keep, device=scores.device).expand(len(scores), -1)
        return every, torch.zeros_like(move, dtype=torch.bool)
    best, chosen = scores.topk(keep + 1, largest=False)
    last, following = best[:, -2], best[:, -1]
    slack = move * ((2 * last).clamp_min(0).sqrt() + (2 * following).clamp_min(0).sqrt())
    close = following - last <= slack + rounding
    chosen = chosen[:, :keep].sort(1).values
    if scores.dtype == torch.float64:  # nothing decides after this: equals in the order of their codes
        rows = (following - last <= rounding).nonzero()[:, 0]
        tied = scores[rows]
        for n in range(keep):
            equal = tied <= (tied.amin(1) + rounding[rows])[:, None]
            first = equal.to(torch.uint8).argmax(1)
            chosen[rows, n] = first
            tied = tied.scatter(1, first[:, None], torch.inf)
        chosen = chosen.sort(1).values
    return chosen, close
