"""How codes and latent dimensions are used: from counts, wherever they come from, to figures, rates and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from vqtool.codebook import NearestPair, Transitions, entropy, perplexity
from vqtool.errors import counted

SCHEMA_VERSION = 1
ENOUGH_TOKENS = 10  # tokens per code; with fewer, usage tells more about the file than about the codebook
FEW_USED, SOME_USED = 0.2, 0.5  # shares of the codes in use that part "few codes used", "some codes idle", "healthy"
UNEVEN = 0.1  # perplexity over codes in use; below, a few codes take most tokens
ACTIVE_VARIANCE = 0.01  # a latent dimension whose mean varies more is active (arXiv 1509.00519)

HEALTHY, IDLE, FEW, SKEWED = "healthy", "some codes idle", "few codes used", "uneven"
TOO_FEW_TOKENS, NO_TOKENS, IDLE_DIMENSIONS, COLLAPSED = "too few tokens", "no tokens", "some idle", "collapsed"
WORST_FIRST = [NO_TOKENS, FEW, SKEWED, TOO_FEW_TOKENS, IDLE, HEALTHY]


@dataclass(frozen=True)
class Source:
    """What was inspected.

    kind                  "tokens", "latents" or "run" (its validation set at the end of training)
    dim                   columns D of the motion, at `fps` frames a second
    clips, motion_frames  None for a run
    """

    file: str
    kind: str
    bottleneck: str
    layout: str
    dim: int
    fps: float
    downsample: int
    tokenizer_id: str
    clips: int | None = None
    motion_frames: int | None = None

    @property
    def token_frames_per_second(self) -> float:
        """Token frames a second, each of Q tokens."""
        return self.fps / self.downsample

    @property
    def motion_bits_per_second(self) -> float:
        """Bits a second of the motion as float32."""
        return 32 * self.dim * self.fps

    def to_json(self) -> dict[str, Any]:
        """Every field, and the rate of token frames."""
        return vars(self) | {"token_frames_per_second": self.token_frames_per_second}


@dataclass(frozen=True)
class TopCode:
    """A code, how often it was seen and its share of the layer's tokens (0 to 1)."""

    code: int
    count: int
    share: float


@dataclass(frozen=True)
class LayerUsage:
    """How one layer's codebook is used: `counts` [K] int64 and what follows from them.

    part  of a product: the group of channels, or body part, whose codebook it is
    """

    layer: int
    counts: np.ndarray
    transitions: Transitions | None = None
    nearest: NearestPair | None = None
    part: str | None = None

    @property
    def codebook_size(self) -> int:
        """K."""
        return len(self.counts)

    @property
    def tokens(self) -> int:
        """Tokens counted."""
        return int(self.counts.sum())

    @property
    def used(self) -> int:
        """Codes seen at least once."""
        return int(np.count_nonzero(self.counts))

    @property
    def usage(self) -> float:
        """Share of the codes seen at least once, 0 to 1."""
        return self.used / self.codebook_size

    @property
    def dead_codes(self) -> np.ndarray:
        """Indices of the codes never seen."""
        return np.flatnonzero(self.counts == 0)

    @property
    def perplexity(self) -> float:
        """Effective number of codes in use."""
        return perplexity(self.counts)

    @property
    def bits(self) -> float:
        """Entropy in bits per token."""
        return entropy(self.counts) / math.log(2)

    @property
    def bigram_bits(self) -> float | None:
        """Entropy of the next code given the code, bits; None where it is not known."""
        return None if self.transitions is None else self.transitions.bits

    @property
    def enough_tokens(self) -> bool:
        """Whether there are 10 K tokens or more: with fewer, usage is bounded by the token count."""
        return self.tokens >= ENOUGH_TOKENS * self.codebook_size

    @property
    def status(self) -> str:
        """healthy, some codes idle, few codes used, uneven, too few tokens (to tell), or no tokens."""
        if self.tokens == 0:
            return NO_TOKENS
        if self.usage >= SOME_USED and self.perplexity >= UNEVEN * self.used:
            return HEALTHY
        if not self.enough_tokens:
            return TOO_FEW_TOKENS
        if self.usage < FEW_USED:
            return FEW
        return IDLE if self.perplexity >= UNEVEN * self.used else SKEWED

    def top(self, number: int) -> list[TopCode]:
        """The `number` codes seen most, most first, the lower index first among equals; no dead code."""
        order = np.argsort(-self.counts, kind="stable")[: min(number, self.used)]
        return [TopCode(int(i), int(self.counts[i]), float(self.counts[i] / self.tokens)) for i in order]

    def to_json(self, top: int) -> dict[str, Any]:
        """Plain values; `counts` is the whole histogram."""
        names = [
            "layer",
            "part",
            "codebook_size",
            "tokens",
            "used",
            "usage",
            "perplexity",
            "bits",
            "bigram_bits",
            "status",
        ]
        return {name: getattr(self, name) for name in names} | {
            "dead": len(self.dead_codes),
            "transitions": None if self.transitions is None else vars(self.transitions),
            "nearest_pair": None if self.nearest is None else vars(self.nearest),
            "top": [vars(code) for code in self.top(top)],
            "counts": self.counts.tolist(),
        }


@dataclass(frozen=True)
class CodebookReport:
    """Usage of every layer of a discrete tokenizer's codes, rates and a verdict."""

    source: Source
    layers: list[LayerUsage]

    @property
    def token_frames(self) -> int:
        """Tokens of one layer, sum of L over the clips."""
        return self.layers[0].tokens

    @property
    def tokens(self) -> int:
        """Tokens of all layers."""
        return sum(layer.tokens for layer in self.layers)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of all layers a second of motion."""
        return len(self.layers) * self.source.token_frames_per_second

    @property
    def bits_per_second(self) -> float:
        """Nominal rate: log2 K bits a token."""
        return self.source.token_frames_per_second * sum(math.log2(layer.codebook_size) for layer in self.layers)

    @property
    def entropy_bits_per_second(self) -> float:
        """Rate of an ideal entropy coder that knows each layer's counts."""
        return self.source.token_frames_per_second * sum(layer.bits for layer in self.layers)

    @property
    def compression_ratio(self) -> float | None:
        """float32 motion over the nominal rate; None where that is 0."""
        return _ratio(self.source.motion_bits_per_second, self.bits_per_second)

    @property
    def entropy_compression_ratio(self) -> float | None:
        """float32 motion over the entropy-coded rate; None where that is 0."""
        return _ratio(self.source.motion_bits_per_second, self.entropy_bits_per_second)

    @property
    def notes(self) -> list[str]:
        """What to know before trusting the figures, a sentence each."""
        if not self.token_frames:
            return []
        found = []
        if short := [layer for layer in self.layers if not layer.enough_tokens]:
            sizes = max(layer.codebook_size for layer in short)
            what = f"fewer than {ENOUGH_TOKENS} tokens per code"
            found.append(f"{what} ({self.token_frames:,} for {sizes:,}): usage is bounded by the token count")
        has_pairs = self.source.clips is not None and self.token_frames > self.source.clips
        if has_pairs and any(layer.transitions is None for layer in self.layers):
            found.append("bigram bits are left out: too many distinct pairs to count")
        seen = [layer.transitions for layer in self.layers if layer.transitions is not None]
        if any(pairs.pairs < ENOUGH_TOKENS * pairs.distinct for pairs in seen):
            found.append(f"bigram bits are too low: pairs were seen under {ENOUGH_TOKENS} times on average")
        if self.source.kind == "tokens" and any(k.nearest is None and k.codebook_size > 1 for k in self.layers):
            found.append("nearest pairs are left out: the codebooks are too large to compare quickly")
        return found

    @property
    def status(self) -> str:
        """The worst of the layers'."""
        return min((layer.status for layer in self.layers), key=WORST_FIRST.index)

    @property
    def verdict(self) -> str:
        """One sentence: how the codebook fares, and what to change."""
        status = self.status
        layers = [layer for layer in self.layers if layer.status == status]
        where = self._where(layers)
        if status == NO_TOKENS:
            return "no tokens: nothing to judge"
        if status == FEW:
            return f"few codes used{where} ({_percents(layers)}): train longer, or {self._smaller(layers)}"
        if status == SKEWED:
            code = layers[0].top(1)[0]
            return (
                f"uneven: a few codes take most tokens{where} (code {code.code} alone {code.share:.0%}); "
                "look for still stretches and constant columns in the motion, or train longer"
            )
        if status == TOO_FEW_TOKENS:
            need = ENOUGH_TOKENS * max(layer.codebook_size for layer in layers)
            return f"too few tokens to judge{where}: inspect {counted(need, 'token frames')} or more"
        if status == IDLE:
            used = f"{where} ({_percents(layers)} used)"
            return f"some codes idle{used}: usable as it is, and {self._smaller(layers)} would hold as much"
        return f"healthy: {_percents(layers)} of the codes in use{', every layer' * (len(layers) > 1)}"

    def _where(self, layers: list[LayerUsage]) -> str:
        """In which layers, unless there is only one."""
        numbers = [layer.layer for layer in layers]
        if len(self.layers) == 1:
            return ""
        if len(numbers) == 1:
            return f" in layer {numbers[0]}"
        if numbers == list(range(numbers[0], numbers[-1] + 1)):
            return f" in layers {numbers[0]}-{numbers[-1]}"
        return f" in layers {', '.join(map(str, numbers))}"

    def _smaller(self, layers: list[LayerUsage]) -> str:
        """Fewer layers where only the last ones are poor, else fewer codes."""
        first = layers[0].layer
        if first > 0 and layers == self.layers[first:] and layers[0].part == self.layers[0].part:
            return f"fewer layers (--set bottleneck.num_quantizers={first})"
        size = 1 << max(1, (max(layer.used for layer in layers) - 1).bit_length())
        return f"a smaller codebook (--set bottleneck.codebook_size={size})"

    def to_json(self, top: int = 20) -> dict[str, Any]:
        """One object of plain values, never NaN; `top` codes per layer."""
        return {
            "schema_version": SCHEMA_VERSION,
            **self.source.to_json(),
            "token_frames": self.token_frames,
            "tokens": self.tokens,
            "tokens_per_second": self.tokens_per_second,
            "bits_per_second": self.bits_per_second,
            "entropy_bits_per_second": self.entropy_bits_per_second,
            "compression_ratio": self.compression_ratio,
            "entropy_compression_ratio": self.entropy_compression_ratio,
            "status": self.status,
            "verdict": self.verdict,
            "notes": self.notes,
            "layers": [layer.to_json(top) for layer in self.layers],
        }


def _ratio(above: float, below: float) -> float | None:
    return above / below if below > 0 else None


def _percents(layers: list[LayerUsage]) -> str:
    """The range of usages, like "3-11 %"; rounded down, so that only all codes are 100 %."""
    low, high = (math.floor(100 * pick(layer.usage for layer in layers)) for pick in (min, max))
    return f"{low} %" if low == high else f"{low}-{high} %"


@dataclass(frozen=True)
class LatentReport:
    """How a VAE's latent dimensions are used: `variance` of the mean over tokens and `kl` in nats, both [C] float64.

    Without tokens both are NaN (null in JSON).
    """

    source: Source
    token_frames: int | None
    variance: np.ndarray
    kl: np.ndarray

    @property
    def dim(self) -> int:
        """C."""
        return len(self.kl)

    @property
    def active_units(self) -> int:
        """Dimensions whose mean varies over the data by more than 0.01."""
        return int(np.count_nonzero(self.variance > ACTIVE_VARIANCE))

    @property
    def information_bits_per_second(self) -> float:
        """KL of all dimensions in bits, times token frames a second."""
        return float(self.kl.sum()) / math.log(2) * self.source.token_frames_per_second

    @property
    def compression_ratio(self) -> float:
        """float32 motion over float32 latents."""
        return self.source.dim * self.source.downsample / self.dim

    @property
    def status(self) -> str:
        """healthy, some idle, collapsed or no tokens."""
        if self.token_frames == 0:
            return NO_TOKENS
        if self.active_units < FEW_USED * self.dim:
            return COLLAPSED
        return HEALTHY if self.active_units >= SOME_USED * self.dim else IDLE_DIMENSIONS

    @property
    def verdict(self) -> str:
        """One sentence: how the latents fare, and what to change."""
        if self.status == NO_TOKENS:
            return "no tokens: nothing to judge"
        share = f"{self.active_units} of {counted(self.dim, 'dimensions')} active"
        if self.status == HEALTHY:
            return f"healthy: {share}"
        return f"{self.status}: {share}; lower the KL weight, or take fewer latent dimensions"

    def to_json(self) -> dict[str, Any]:
        """One object of plain values, never NaN."""
        dims = zip(self.variance.tolist(), self.kl.tolist(), strict=True)
        return {
            "schema_version": SCHEMA_VERSION,
            **self.source.to_json(),
            "token_frames": self.token_frames,
            "latent_dim": self.dim,
            "active_units": self.active_units,
            "kl": _finite(float(self.kl.sum())),
            "information_bits_per_second": _finite(self.information_bits_per_second),
            "compression_ratio": self.compression_ratio,
            "status": self.status,
            "verdict": self.verdict,
            "dimensions": [{"variance": _finite(variance), "kl": _finite(kl)} for variance, kl in dims],
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
