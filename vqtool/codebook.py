"""What codes and code vectors tell by themselves: counts, perplexity, transitions, the nearest pair; no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from vqtool.tokens import TokenSet

TABLE_CELLS = 20_000_000  # K x K tables of pairs, 8 bytes a cell, all layers together
LISTED_PAIRS = 1 << 22  # distinct pairs listed where the tables would be larger, 16 bytes each, all layers together
NEAREST_WORK = 1 << 32  # sum of K * K * max(C, 32) up to which the nearest pairs are looked for: under a second


def entropy(counts: np.ndarray) -> float:
    """Entropy in nats of `counts`, a `[K]` histogram. Empty counts give 0.0."""
    seen = counts[counts > 0].astype(np.float64)
    total = seen.sum()
    return float((seen / total * np.log(total / seen)).sum())


def perplexity(counts: np.ndarray) -> float:
    """Effective number of codes in use: exp of the entropy (nats) of `counts`, a `[K]` histogram.

    1.0 when one code takes everything, K when all are used alike. Empty counts give 0.0.
    """
    return math.exp(entropy(counts)) if counts.any() else 0.0


@dataclass(frozen=True)
class Transitions:
    """Which code follows which within a clip: how many `pairs`, how many `distinct` ones, and their entropy.

    bits  H(next code | code) in bits; an underestimate while most pairs were seen only a few times
    """

    pairs: int
    distinct: int
    bits: float


class PairTable:
    """Counts codes and pairs of one layer in a table: row `previous`, column `code`; row K is for first tokens."""

    def __init__(self, codebook_size: int) -> None:
        self._size = codebook_size
        self._table = np.zeros((codebook_size + 1) * codebook_size, dtype=np.int64)

    def add(self, codes: np.ndarray, keys: np.ndarray) -> None:
        """Count keys [n], previous * K + code."""
        self._table += np.bincount(keys, minlength=len(self._table))

    def counts(self) -> np.ndarray:
        """How often each code was seen, [K] int64."""
        total: np.ndarray = self._table.reshape(-1, self._size).sum(axis=0)
        return total

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The pairs seen within clips, previous * K + code, ascending, and how often each was."""
        keys = np.flatnonzero(self._table[: self._size * self._size])
        return keys, self._table[keys]

    def transitions(self) -> Transitions | None:
        """None where no clip has two tokens."""
        return _transitions(*self.pairs(), self._size)


class PairList:
    """Counts codes and pairs of one layer with many codes: a sorted list of the pairs seen, given up past `limit`."""

    def __init__(self, codebook_size: int, limit: int) -> None:
        self._size = codebook_size
        self._limit = limit
        self._counts = np.zeros(codebook_size, dtype=np.int64)
        self._keys = self._repeats = np.zeros(0, dtype=np.int64)

    def add(self, codes: np.ndarray, keys: np.ndarray) -> None:
        """Count codes [n] and keys [n], previous * K + code."""
        self._counts += np.bincount(codes, minlength=self._size)
        if len(self._keys) > self._limit:
            return
        new, repeats = np.unique(keys, return_counts=True)
        keys, repeats = np.concatenate([self._keys, new]), np.concatenate([self._repeats, repeats])
        order = np.argsort(keys, kind="stable")  # merges the two sorted halves in linear time
        keys, repeats = keys[order], repeats[order]
        first = np.flatnonzero(np.diff(keys, prepend=-1))
        self._keys, self._repeats = keys[first], np.add.reduceat(repeats, first)

    def counts(self) -> np.ndarray:
        """How often each code was seen, [K] int64."""
        return self._counts

    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """As of a PairTable; none where there were more distinct pairs than `limit`."""
        within = 0 if len(self._keys) > self._limit else np.searchsorted(self._keys, self._size * self._size)
        return self._keys[:within], self._repeats[:within]

    def transitions(self) -> Transitions | None:
        """None where no clip has two tokens, or there were more distinct pairs than `limit`."""
        return _transitions(*self.pairs(), self._size)


def _transitions(keys: np.ndarray, repeats: np.ndarray, size: int) -> Transitions | None:
    if not len(keys):
        return None
    previous = keys // size
    totals = np.bincount(previous, weights=repeats)  # float64, exact up to 2^53
    pairs = int(repeats.sum())
    bits = float((repeats / pairs * np.log2(totals[previous] / repeats)).sum())
    return Transitions(pairs, len(keys), bits)


def count_codes(tokens: TokenSet, before: list[PairTable | PairList] | None = None) -> list[PairTable | PairList]:
    """Count codes and pairs of all layers in one pass, on top of what was counted `before`, of another shard.

    Raises DataError for a code outside its codebook.
    """
    return count_blocks(tokens.header.codebook_sizes, tokens.offsets, tokens.checked_blocks(), before)


def count_blocks(
    sizes: Sequence[int],
    offsets: np.ndarray,
    blocks: Iterable[np.ndarray],
    before: list[PairTable | PairList] | None = None,
) -> list[PairTable | PairList]:
    """Count codes and pairs of each layer of blocks [n, Q] of clips end to end, which begin and end at `offsets`.

    A clip's first token follows the pretended code K, so no pair crosses the boundary of two clips and one
    histogram of `previous * K + code` holds pairs and counts.
    """
    tables = sum((size + 1) * size for size in sizes) <= TABLE_CELLS
    limit = LISTED_PAIRS // len(sizes)
    counters = before or [PairTable(size) if tables else PairList(size, limit) for size in sizes]
    last = np.zeros(len(sizes), dtype=np.int64)
    scratch = np.empty(0, dtype=np.int64)  # fresh memory for every block would take as long as the counting
    row = 0
    for block in blocks:
        if len(block) > len(scratch):
            scratch = np.empty(len(block), dtype=np.int64)
        keys = scratch[: len(block)]
        begin, end = np.searchsorted(offsets, [row, row + len(block)])
        starts = offsets[begin:end] - row
        for layer, codes in enumerate(np.ascontiguousarray(block.T)):  # [n, Q] -> Q times [n]
            size = sizes[layer]
            keys[0] = last[layer] * size
            np.multiply(codes[:-1], size, out=keys[1:], dtype=np.int64)
            keys[starts] = size * size
            keys += codes
            counters[layer].add(codes, keys)
        last = block[-1].astype(np.int64)
        row += len(block)
    return counters


@dataclass(frozen=True)
class NearestPair:
    """The two codes closest to each other, `first` < `second`, and their Euclidean `distance`.

    spread  root mean square distance of all codes from their mean, to compare the distance with
    """

    first: int
    second: int
    distance: float
    spread: float


def nearest_pair(codebook: np.ndarray) -> NearestPair | None:
    """The nearest two codes of a codebook [K, C], which may be equal vectors; None where K < 2."""
    if len(codebook) < 2:
        return None
    vectors = codebook - codebook.mean(axis=0, dtype=np.float64)  # centred, so that squares do not cancel
    squares = np.square(vectors).sum(axis=1)
    step = max(1, (1 << 20) // len(vectors))  # scores in blocks of 8 MB
    best, first, second = math.inf, 0, 1
    for start in range(0, len(vectors), step):
        rows = slice(start, start + step)
        scores = squares[rows, None] + squares[start:] - 2 * vectors[rows] @ vectors[start:].T
        np.fill_diagonal(scores, math.inf)
        i, j = np.unravel_index(np.argmin(scores), scores.shape)
        if scores[i, j] < best:
            best, first, second = scores[i, j], start + int(min(i, j)), start + int(max(i, j))
    distance = float(np.linalg.norm(vectors[first] - vectors[second]))
    return NearestPair(first, second, distance, math.sqrt(squares.mean()))


def nearest_pairs(codebooks: Sequence[np.ndarray]) -> list[NearestPair | None]:
    """The nearest pair of each codebook; all None where looking would take longer than about a second."""
    work = sum(len(codebook) ** 2 * max(codebook.shape[1], 32) for codebook in codebooks)
    return [nearest_pair(codebook) if work <= NEAREST_WORK else None for codebook in codebooks]


def principal_map(codebook: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes [K, C] on the two principal axes of their vectors, [K, 2], and the share of their variance seen there.

    The sign of an axis is the one that makes its largest coordinate positive, so that a map does not flip.
    """
    vectors = codebook - codebook.mean(axis=0, dtype=np.float64)
    values, axes = np.linalg.eigh(vectors.T @ vectors)
    axes = axes[:, ::-1][:, :2]
    places = vectors @ axes
    places = np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
    places = places * np.where(places[np.abs(places).argmax(0), [0, 1]] < 0, -1.0, 1.0)
    total = values.sum()
    return places, float(values[-2:].sum() / total) if total > 0 else 0.0
