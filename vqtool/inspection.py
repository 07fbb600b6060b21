"""Inspect a run, a tokens.h5 or a latents.h5: from its content to usage, rates and a verdict.

A file is read once, in constant memory; the same pass checks every code and the file's SHA-256.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.codebook import NearestPair, Transitions, count_codes, entropy, nearest_pairs, perplexity
from vqtool.errors import DataError, MismatchError
from vqtool.hdf5 import attribute, open_hdf5
from vqtool.reading import first_bytes
from vqtool.tokens import TokenSet

if TYPE_CHECKING:
    from vqtool.tokenizer_file import TokenizerFile

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
            return f"too few tokens to judge{where}: inspect {need:,} token frames or more"
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
        share = f"{self.active_units} of {self.dim} dimensions active"
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


def inspect(path: Path) -> CodebookReport | LatentReport:
    """Inspect a run folder, a tokenizer.safetensors, a tokens.h5 or latents.h5, or a manifest of shards of these.

    The content says which it is.

    Raises MissingInputError, StorageError, and DataError for damage, for another kind of file and for a code
    outside its codebook.
    """
    # A token file needs neither what reads a run (config, TOML, safetensors) nor what reads a manifest.
    head = b"" if path.is_dir() else first_bytes(path, 9)
    if not head.startswith(b"\x89HDF\r\n\x1a\n"):
        from vqtool.merging import is_manifest
        from vqtool.tokenizer_file import read_tokenizer

        if path.is_dir() or head[8:] == b"{":  # safetensors: eight bytes of length, then JSON
            return inspect_run(read_tokenizer(path))
        if is_manifest(path):
            return inspect_shards(path)
        raise DataError("is neither a run nor a tokens.h5 or latents.h5; name one of these", file=path)
    with open_hdf5(path) as file:
        kind = attribute(file, "format")
    if kind not in ("vqtool.tokens", "vqtool.latents"):
        raise DataError(
            "is an HDF5 file without tokens; make them with `vqtool encode RUN MOTION -o tokens.h5`", file=path
        )
    with TokenSet(path) as tokens:
        return inspect_latents([tokens]) if tokens.is_latents else inspect_tokens([tokens])


def inspect_shards(manifest: Path) -> CodebookReport | LatentReport:
    """Inspect the shards that a manifest lists as the one file that they are together."""
    from vqtool.merging import opened_shards

    shards = opened_shards(manifest)
    first = next(shards, None)
    if first is None:
        raise DataError("lists no shards", file=manifest)
    report = (inspect_latents if first.is_latents else inspect_tokens)(chain([first], shards))
    return replace(report, source=replace(report.source, file=str(manifest)))


def _token_source(tokens: TokenSet, before: Source | None) -> Source:
    """What is inspected; clips and frames on top of those of the shards before."""
    header = tokens.header
    found = Source(
        file=str(tokens.path),
        kind="latents" if tokens.is_latents else "tokens",
        bottleneck=header.bottleneck,
        layout=header.layout,
        dim=header.dim,
        fps=header.fps,
        downsample=header.downsample,
        tokenizer_id=header.tokenizer_id,
        clips=len(tokens),
        motion_frames=int(tokens.num_frames.sum()),
    )
    if before is None:
        return found
    if replace(found, file=before.file, clips=before.clips, motion_frames=before.motion_frames) != before:
        raise MismatchError("is of another tokenizer, or of other motion, than the shards before it", file=tokens.path)
    clips, frames = (before.clips or 0) + (found.clips or 0), (before.motion_frames or 0) + (found.motion_frames or 0)
    return replace(before, clips=clips, motion_frames=frames)


def source_of(tokenizer: TokenizerFile, file: str, kind: str, **more: int) -> Source:
    """What is looked at with a tokenizer: `kind` and `more` as in Source."""
    return Source(
        file=file,
        kind=kind,
        bottleneck=str(tokenizer.config["model"]["bottleneck"]),
        layout=tokenizer.layout,
        dim=tokenizer.dim,
        fps=tokenizer.fps,
        downsample=tokenizer.downsample,
        tokenizer_id=tokenizer.tokenizer_id,
        **more,
    )


def part_of(parts: tuple[str, ...], layer: int) -> str | None:
    """Whose codes stand in a column."""
    return parts[layer % len(parts)] if parts else None


def inspect_tokens(shards: Iterable[TokenSet]) -> CodebookReport:
    """Usage of a tokens.h5, or of several shards together, each open while it is looked at."""
    source, counters = None, None
    for tokens in shards:
        source = _token_source(tokens, source)
        header, codebooks = tokens.header, tokens.codebooks
        for layer, (codebook, size) in enumerate(zip(codebooks, header.codebook_sizes, strict=False)):
            if len(codebook) != size or not np.isfinite(codebook).all():
                what = f"does not hold {size} finite code vectors; the file is damaged"
                raise DataError(what, file=tokens.path, dataset=f"codebooks/{layer}")
        counters = count_codes(tokens, counters)
        tokens.verify()
    assert source is not None and counters is not None
    nearest = nearest_pairs(codebooks) or [None] * len(counters)  # tokens imported without their codebooks
    layers = [
        LayerUsage(layer, counter.counts(), counter.transitions(), near, part_of(header.parts, layer))
        for layer, (counter, near) in enumerate(zip(counters, nearest, strict=True))
    ]
    return CodebookReport(source, layers)


def inspect_latents(shards: Iterable[TokenSet]) -> LatentReport:
    """Activity of a latents.h5, or of several shards together, in float64."""
    source, row = None, 0
    mean = squares = kl = np.zeros(0)  # squares: sum of squared deviations from the running mean
    for tokens in shards:
        if source is None:
            mean, squares, kl = np.zeros((3, tokens.width))
        source = _token_source(tokens, source)
        first = row
        for mu, logvar in zip(tokens.hashed_blocks("mean"), tokens.hashed_blocks("logvar"), strict=True):
            with np.errstate(invalid="ignore"):  # of a signalling NaN
                mu, logvar = mu.astype(np.float64), logvar.astype(np.float64)
            if len(bad := np.flatnonzero(~np.isfinite(mu + logvar).all(axis=1))):
                clip = int(np.searchsorted(tokens.offsets, row - first + bad[0], side="right")) - 1
                what = "its latents are not finite; the run diverged, so encode with another"
                raise DataError(what, file=tokens.path, clip=tokens.names[clip])
            with np.errstate(over="ignore"):
                kl += 0.5 * (mu**2 + np.exp(logvar) - 1 - logvar).sum(axis=0)
            # Two sets' variances merged (Chan et al. 1983): stable where sums of squares would cancel.
            shift = mu.mean(axis=0) - mean
            squares += ((mu - mu.mean(axis=0)) ** 2).sum(axis=0) + shift**2 * row * len(mu) / (row + len(mu))
            row += len(mu)
            mean += shift * len(mu) / row
        tokens.verify()
    assert source is not None
    with np.errstate(invalid="ignore"):
        return LatentReport(source, row, squares / row, kl / row)


def inspect_run(tokenizer: TokenizerFile) -> CodebookReport | LatentReport:
    """Usage over a run's validation set at the end of training; no transitions, for only counts were kept."""
    path, tensors = tokenizer.path, tokenizer.tensors
    try:
        source = source_of(tokenizer, str(path), "run")
        if not tokenizer.codebook_sizes:
            kl, variance = (tensors[f"usage.{name}"].astype(np.float64) for name in ("kl", "variance"))
            if kl.ndim != 1 or kl.shape != variance.shape:
                raise DataError("its usage tensors differ in shape; the file is damaged", file=path)
            if not np.isfinite([kl, variance]).all():
                raise DataError("its usage tensors are not finite; the run diverged, so train again", file=path)
            return LatentReport(source, None, variance, kl)
        counts = [tensors[f"usage.counts.{layer}"] for layer in range(len(tokenizer.codebook_sizes))]
        codebooks = [tensors[key] for key in tokenizer.codebook_keys]
    except KeyError as error:
        what = f"holds no {error.args[0]}; encode motion with it and inspect the token file"
        raise DataError(what, file=path) from error
    for count, size in zip(counts, tokenizer.codebook_sizes, strict=True):
        if count.shape != (size,) or count.dtype.kind not in "iu" or (count < 0).any():
            raise DataError("its usage counts do not fit its codebooks; the file is damaged", file=path)
    if codebooks and [codebook.shape[:-1] for codebook in codebooks] != [count.shape for count in counts]:
        raise DataError("its code vectors do not fit its codebook sizes; the file is damaged", file=path)
    if not all(np.isfinite(codebook).all() for codebook in codebooks):
        raise DataError("its code vectors are not finite; the run diverged, so train again", file=path)
    nearest = nearest_pairs(codebooks) or [None] * len(counts)  # an implicit codebook (FSQ) has no tensors
    layers = [
        LayerUsage(layer, count.astype(np.int64), None, near, part_of(tokenizer.parts, layer))
        for layer, (count, near) in enumerate(zip(counts, nearest, strict=True))
    ]
    return CodebookReport(source, layers)
