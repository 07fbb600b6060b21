"""Two codebook reports side by side: how much the use of the codes differs, and which codes gained and lost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np

from vqtool.codebook import entropy
from vqtool.usage import SCHEMA_VERSION, CodebookReport, LayerUsage

ALIKE, SHIFTED, DIFFERENT, APART = "alike", "shifted", "different", "not comparable"
SLIGHT, MUCH = 0.05, 0.3  # bits of divergence beyond chance that part "alike", "shifted" and "different"


def jensen_shannon(one: np.ndarray, other: np.ndarray) -> float:
    """Jensen-Shannon divergence in bits of two `[K]` histograms: 0 when their shares are alike, 1 when none is shared.

    How much a token tells of which of the two it comes from. NaN where one of them is empty.
    """
    if not (one.any() and other.any()):
        return math.nan
    first, second = one / one.sum(), other / other.sum()
    nats = entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2
    return min(max(nats / math.log(2), 0.0), 1.0)


@dataclass(frozen=True)
class Moved:
    """A code and its share of the layer's tokens (0 to 1) in both."""

    code: int
    first: float
    second: float


@dataclass(frozen=True)
class Shift:
    """How the use of one layer's codes differs between two reports of the same tokenizer."""

    first: LayerUsage
    second: LayerUsage

    @property
    def divergence(self) -> float:
        """Jensen-Shannon divergence in bits, 0 to 1; NaN where one has no tokens."""
        return jensen_shannon(self.first.counts, self.second.counts)

    @property
    def chance(self) -> float:
        """The divergence to expect of two samples so large of one distribution, tokens drawn one by one; NaN likewise.

        To second order, (K - 1) (1 / n + 1 / m) / (8 ln 2) for K codes in use; neighbouring tokens depend on each
        other, so that two real samples differ somewhat more.
        """
        if not (self.first.tokens and self.second.tokens):
            return math.nan
        codes = np.count_nonzero(self.first.counts + self.second.counts)
        expected = (codes - 1) * (1 / self.first.tokens + 1 / self.second.tokens) / (8 * math.log(2))
        return min(expected, 1.0)

    @property
    def moved(self) -> float:
        """Share of the tokens that would have to take another code for the use to be alike: 0 to 1."""
        return float(np.abs(self._change).sum()) / 2

    @property
    def only_first(self) -> int:
        """Codes that the second never uses."""
        return int(np.count_nonzero((self.first.counts > 0) & (self.second.counts == 0)))

    @property
    def only_second(self) -> int:
        """Codes that the first never uses."""
        return int(np.count_nonzero((self.first.counts == 0) & (self.second.counts > 0)))

    @cached_property
    def _shares(self) -> tuple[np.ndarray, np.ndarray]:
        first, second = (layer.counts / max(1, layer.tokens) for layer in (self.first, self.second))
        return first, second

    @property
    def _change(self) -> np.ndarray:
        first, second = self._shares
        change: np.ndarray = second - first
        return change

    def gained(self, number: int) -> list[Moved]:
        """The codes whose share grew most from the first to the second, most first."""
        return self._most(self._change, number)

    def lost(self, number: int) -> list[Moved]:
        """The codes whose share fell most, most first."""
        return self._most(-self._change, number)

    def _most(self, change: np.ndarray, number: int) -> list[Moved]:
        first, second = self._shares
        order = np.argsort(-change, kind="stable")[:number]
        return [Moved(int(code), float(first[code]), float(second[code])) for code in order if change[code] > 0]


@dataclass(frozen=True)
class Comparison:
    """Two reports. Where the tokenizers are not the same one, no code of one is any code of the other."""

    first: CodebookReport
    second: CodebookReport

    @property
    def same_tokenizer(self) -> bool:
        """Whether a code means the same in both."""
        return self.first.source.tokenizer_id == self.second.source.tokenizer_id

    @cached_property
    def shifts(self) -> list[Shift]:
        """One a layer that both have; none of different tokenizers."""
        if not self.same_tokenizer:
            return []
        return [Shift(one, other) for one, other in zip(self.first.layers, self.second.layers, strict=False)]

    @property
    def layers(self) -> list[tuple[LayerUsage | None, LayerUsage | None]]:
        """The layers of both, None where only the other has so many."""
        return list(zip_longest(self.first.layers, self.second.layers))

    @property
    def _most(self) -> Shift:
        """The layer that differs most beyond chance."""
        return max(self.shifts, key=lambda shift: shift.divergence - shift.chance)

    @property
    def status(self) -> str:
        """alike, shifted, different, or not comparable by code."""
        if not self.same_tokenizer or not (self.first.token_frames and self.second.token_frames):
            return APART
        beyond = self._most.divergence - self._most.chance
        return ALIKE if beyond < SLIGHT else SHIFTED if beyond < MUCH else DIFFERENT

    @property
    def verdict(self) -> str:
        """One sentence: how far the use of the codes is the same, and what that calls for."""
        status = self.status
        if not self.same_tokenizer:
            return (
                "not comparable by code: two tokenizers made them, and code 7 of one has nothing to do with code 7 of "
                "the other; encode the same motion with both and compare perplexity, bits and vqtool evaluate"
            )
        if status == APART:
            return "not comparable: one of them has no tokens"
        most = self._most
        where = f" in layer {most.first.layer}" if len(self.shifts) > 1 else ""
        most_of = f"at most {most.divergence:.3f} bits{where}, {most.chance:.3f} by chance"
        if status == ALIKE:
            return f"alike: the codes are used in the same way ({most_of})"
        if status == SHIFTED:
            return f"shifted: the same codes at other rates ({most_of}); look at those that gained and lost most"
        return (
            f"different: these are other motions, or other code habits ({most_of}); a model trained on one will meet "
            "tokens of the other that it hardly knows"
        )

    def to_json(self, top: int = 5) -> dict[str, Any]:
        """One object of plain values, never NaN; `top` codes that gained and as many that lost, a layer."""
        return {
            "schema_version": SCHEMA_VERSION,
            "same_tokenizer": self.same_tokenizer,
            "status": self.status,
            "verdict": self.verdict,
            "files": [
                {
                    "file": report.source.file,
                    "kind": report.source.kind,
                    "tokenizer_id": report.source.tokenizer_id,
                    "clips": report.source.clips,
                    "token_frames": report.token_frames,
                    "status": report.status,
                    "verdict": report.verdict,
                    "codebook_size": [layer.codebook_size for layer in report.layers],
                    "used": [layer.used for layer in report.layers],
                    "perplexity": [layer.perplexity for layer in report.layers],
                    "bits": [layer.bits for layer in report.layers],
                }
                for report in (self.first, self.second)
            ],
            "shifts": [
                {
                    "layer": shift.first.layer,
                    "part": shift.first.part,
                    "divergence_bits": _known(shift.divergence),
                    "chance_bits": _known(shift.chance),
                    "moved": shift.moved,
                    "only_first": shift.only_first,
                    "only_second": shift.only_second,
                    "gained": [vars(code) for code in shift.gained(top)],
                    "lost": [vars(code) for code in shift.lost(top)],
                }
                for shift in self.shifts
            ],
        }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
