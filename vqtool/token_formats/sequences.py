"""Codes [L, Q] of a clip as one sequence of ids [n] that a language model reads, and back.

Vocabulary of layers with K0, K1, ... codes, N = K0 + K1 + ... :

    id - offset   0 .. K0-1    K0 .. K0+K1-1   ...   N          N+1      N+2
    token         <m0_0> ...   <m1_0> ...      ...   <m_start>  <m_end>  <m_pad>

Two layers, three token frames a, b, c:

    interleaved            a0 a1 b0 b1 c0 c1
    layer-major            a0 b0 c0 a1 b1 c1
    first-layer            a0 b0 c0
    interleaved, delayed   a0 -  b0 a1 c0 b1 -  c1       layer q comes q steps later (MusicGen, arXiv 2306.05284);
    layer-major, delayed   a0 b0 c0 -  -  a1 b1 c1       - is <m_pad>
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vqtool.errors import DataError, UsageError, counted

FLATTENINGS = ("interleaved", "layer-major", "first-layer")
SPECIAL = ("start", "end", "pad")
MAX_ID = 2**31 - 1  # what int32, the widest type of Megatron, holds


class BadToken(DataError):
    """The first token of a sequence that cannot be: its `position` from 0, which may be just behind the last."""

    def __init__(self, position: int, what: str) -> None:
        super().__init__(f"token {position + 1}: {what}")
        self.position, self.reason = position, what


@dataclass(frozen=True)
class Sequences:
    """How the clips of a set become sequences.

    flatten  one of FLATTENINGS, or None: a row for each layer, [Q, L] of plain indices
    delay    layer q comes q steps later
    start, end  whether sequences begin with <m_start> and end with <m_end>
    pad_to   length to which <m_pad> fills them up
    offset   the first id: the size of the vocabulary that this one is added to
    """

    codebook_sizes: tuple[int, ...]
    flatten: str | None = "interleaved"
    delay: bool = False
    start: bool = False
    end: bool = False
    pad_to: int | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        if self.flatten is not None and self.flatten not in FLATTENINGS:
            raise UsageError(f"--flatten is one of {', '.join(FLATTENINGS)}, not {self.flatten!r}")
        if self.delay and self.flatten == "first-layer":
            raise UsageError("--delay is between layers; leave it out with --flatten first-layer")
        if self.offset < 0 or self.offset + self.size > MAX_ID:
            raise UsageError(f"--offset {self.offset}: ids from 0 to {MAX_ID:,} were expected")
        if self.pad_to is not None and self.pad_to < 1:
            raise UsageError(f"--pad-to {self.pad_to}: at least 1 was expected")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """K of each layer that is in the sequences."""
        return self.codebook_sizes[:1] if self.flatten == "first-layer" else self.codebook_sizes

    @property
    def layers(self) -> int:
        """Q of the sequences."""
        return len(self.sizes)

    @cached_property
    def bases(self) -> np.ndarray:
        """First id of each layer, and behind them the first special one, [Q + 1]; without the offset."""
        return np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)])

    @property
    def size(self) -> int:
        """Tokens in the vocabulary."""
        return sum(self.sizes) + len(SPECIAL)

    def special(self, name: str) -> int:
        """The id of "start", "end" or "pad", without the offset."""
        return sum(self.sizes) + SPECIAL.index(name)

    def vocabulary(self) -> list[str]:
        """All tokens in the order of their ids."""
        codes = [f"<m{layer}_{index}>" for layer, size in enumerate(self.sizes) for index in range(size)]
        return codes + [f"<m_{name}>" for name in SPECIAL]

    # To a sequence

    def ids(self, codes: np.ndarray) -> np.ndarray:
        """The sequence [n] int64 of codes [L, Q]; DataError where it is longer than pad_to."""
        rows = codes[:, : self.layers].astype(np.int64) + self.bases[:-1]
        if self.delay and len(rows):
            rows = _delayed(rows, np.full(self.layers, self.special("pad")))
        parts = [rows.T.ravel() if self.flatten == "layer-major" else rows.ravel()]
        if self.start:
            parts.insert(0, np.array([self.special("start")]))
        if self.end:
            parts.append(np.array([self.special("end")]))
        if self.pad_to is not None:
            have = sum(map(len, parts))
            if have > self.pad_to:
                raise DataError(
                    f"is {counted(have, 'tokens')} long, more than --pad-to {self.pad_to}; cut it or pad to more"
                )
            parts.append(np.full(self.pad_to - have, self.special("pad")))
        return np.concatenate(parts) + self.offset if len(parts) > 1 else parts[0] + self.offset

    def rows(self, codes: np.ndarray) -> np.ndarray:
        """[Q, L] int64 of codes [L, Q]; delayed [Q, L + Q - 1], in which K of the layer marks the blanks."""
        found = codes.astype(np.int64)
        if self.delay and len(found):
            found = _delayed(found, np.array(self.sizes))
        return np.ascontiguousarray(found.T)

    # And back

    def codes(self, ids: np.ndarray) -> np.ndarray:
        """Codes [L, Q] int64 of a sequence [n]; BadToken at the first token that cannot be there.

        A start, an end and padding behind it may be there or not.
        """
        plain = np.asarray(ids, dtype=np.int64) - self.offset
        if (found := self._plain_codes(plain)) is not None:
            return found
        begin, stop = self._body(plain)
        body, layers = plain[begin:stop], self.layers
        if not len(body):
            return np.zeros((0, layers), np.int64)
        steps, rest = divmod(len(body), layers)
        found = self._layer(body)
        place = np.arange(len(body))
        if self.flatten == "layer-major":
            if rest:
                if len(bad := np.flatnonzero(found > layers)):
                    raise self._bad(begin + int(bad[0]), int(body[bad[0]]), None)
                raise BadToken(stop, f"{counted(len(body), 'tokens', 'are')} no multiple of the {layers} layers")
            layer, step = place // steps, place % steps
        else:
            layer, step = place % layers, place // layers
        wanted = layer
        if self.delay:
            if steps < layers and not rest:
                raise BadToken(stop, f"{counted(steps, 'steps', 'are')} too few for {layers} delayed layers")
            blank = (step < layer) | ((step >= steps - layers + 1 + layer) & (rest == 0))
            wanted = np.where(blank, layers, layer)
            found = np.where(body == self.special("pad"), layers, np.where(found == layers, layers + 1, found))
        if len(bad := np.flatnonzero(found != wanted)):
            at = int(bad[0])
            raise self._bad(begin + at, int(body[at]), int(wanted[at]))
        if rest:
            missing = f"layer {rest}" + (f" to {layers - 1}" if rest < layers - 1 else "")
            what = f"{counted(len(body), 'tokens', 'are')} no multiple of the {layers} layers: "
            what += f"the last token frame lacks {missing}"
            raise BadToken(stop, what)
        matrix = body.reshape(layers, steps).T if self.flatten == "layer-major" else body.reshape(steps, layers)
        if self.delay:
            matrix = _undelayed(matrix)
        return np.ascontiguousarray(matrix - self.bases[:-1])

    def codes_of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Codes [L, Q] of what `rows` makes; BadToken at the first index outside its codebook."""
        if rows.ndim != 2 or len(rows) != self.layers:
            shape = "x".join(map(str, rows.shape))
            raise DataError(f"holds {shape} numbers; a row for each of {counted(self.layers, 'layers')} was expected")
        found = rows.astype(np.int64).T
        if self.delay and len(found):
            if len(found) < self.layers:
                raise BadToken(
                    len(found), f"{counted(len(found), 'steps', 'are')} too few for {self.layers} delayed layers"
                )
            blanks = _delayed(np.zeros((len(found) - self.layers + 1, self.layers), bool), np.ones(self.layers, bool))
            if len(bad := np.argwhere(blanks != (found == self.sizes))):
                step, layer = bad[0].tolist()
                raise BadToken(step, f"of layer {layer} is {found[step, layer]}, which the delay does not allow")
            found = _undelayed(found)
        if len(bad := np.argwhere((found < 0) | (found >= self.sizes))):
            step, layer = bad[0].tolist()
            what = (
                f"of layer {layer} is {found[step, layer]}, but that codebook has {counted(self.sizes[layer], 'codes')}"
            )
            raise BadToken(step, what)
        return np.ascontiguousarray(found)

    def repaired(self, ids: np.ndarray) -> tuple[np.ndarray, str]:
        """Codes of as many whole token frames as a sequence begins with, and what made it end there ("": nothing)."""
        try:
            return self.codes(ids), ""
        except BadToken as error:
            reason = str(error)
        plain = np.asarray(ids, dtype=np.int64) - self.offset
        plain = plain[int(len(plain) > 0 and plain[0] == self.special("start")) :]
        pad = plain == self.special("pad")
        strange = np.flatnonzero((self._layer(plain) >= self.layers) & ~(pad & self.delay))
        body = plain[: int(strange[0]) if len(strange) else None]
        columns = []
        if self.flatten == "layer-major":
            body = body[body < sum(self.sizes)]  # without the blanks
            found = self._layer(body)
            falls = np.flatnonzero(np.diff(found) < 0)
            stop = int(falls[0]) + 1 if len(falls) else len(body)
            columns = [body[:stop][found[:stop] == layer] for layer in range(self.layers)]
        else:
            for layer in range(self.layers):
                column = body[layer :: self.layers]
                blanks = layer if self.delay else 0
                wrong = np.flatnonzero(self._layer(column[blanks:]) != layer)
                as_told = (column[:blanks] == self.special("pad")).all()
                stop = blanks + int(wrong[0]) if len(wrong) else len(column)
                columns.append(column[blanks : stop if as_told else 0])
        length = min(map(len, columns))
        codes = np.stack([column[:length] for column in columns], axis=1) - self.bases[:-1]
        return codes, reason

    def _plain_codes(self, plain: np.ndarray) -> np.ndarray | None:
        """The quick way for what has nothing but codes between start and end: None where something else is there."""
        if self.delay or len(plain) == 0:
            return None
        first, last = self.special("start"), self.special("end")
        body = plain[int(plain[0] == first) : len(plain) - int(plain[-1] == last)]
        if len(body) % self.layers:
            return None
        matrix = body.reshape(self.layers, -1).T if self.flatten == "layer-major" else body.reshape(-1, self.layers)
        codes = matrix - self.bases[:-1]
        inside = codes.size == 0 or (codes.min() >= 0 and (codes.max(axis=0) < self.sizes).all())
        return np.ascontiguousarray(codes) if inside else None

    def _body(self, plain: np.ndarray) -> tuple[int, int]:
        """Where the codes of a sequence begin and stop: without start, end and padding."""
        begin = int(len(plain) > 0 and plain[0] == self.special("start"))
        pad = plain == self.special("pad")
        ends = np.flatnonzero(plain == self.special("end"))
        if len(ends):
            stop = int(ends[0])
            if len(after := np.flatnonzero(~pad[stop + 1 :])):
                raise BadToken(stop + 1 + int(after[0]), "comes after <m_end>")
            return begin, stop
        filled = np.flatnonzero(~pad)
        return begin, max(begin, int(filled[-1]) + 1 if len(filled) else 0)

    def _layer(self, plain: np.ndarray) -> np.ndarray:
        """The layer of each id; Q of the special ones, Q + 1 of what is outside the vocabulary."""
        layer = np.searchsorted(self.bases, plain, side="right") - 1
        return np.where((plain < 0) | (plain >= self.size), self.layers + 1, layer)

    def _bad(self, position: int, plain: int, wanted: int | None) -> BadToken:
        layer = int(self._layer(np.array([plain]))[0])
        if layer > self.layers:
            last = self.offset + self.size - 1
            what = f"id {plain + self.offset} is outside the vocabulary, {self.offset} to {last}"
            return BadToken(position, what)
        is_ = f"is <m_{SPECIAL[plain - sum(self.sizes)]}>" if layer == self.layers else f"is of layer {layer}"
        expected = "<m_pad>" if wanted == self.layers else f"layer {wanted}"
        return BadToken(position, f"{is_} where {expected} was expected ({self.flatten}{', delay' * self.delay})")


def _delayed(rows: np.ndarray, blank: np.ndarray) -> np.ndarray:
    """[L + Q - 1, Q]: layer q begins at row q, and `blank` [Q] fills the rest."""
    length, layers = rows.shape
    found = np.tile(blank, (length + layers - 1, 1))
    for layer in range(layers):
        found[layer : layer + length, layer] = rows[:, layer]
    return found


def _undelayed(matrix: np.ndarray) -> np.ndarray:
    """[L, Q] of [L + Q - 1, Q]."""
    steps, layers = matrix.shape
    length = steps - layers + 1
    return np.stack([matrix[layer : layer + length, layer] for layer in range(layers)], axis=1)
