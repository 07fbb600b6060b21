"""A codebook that follows the vectors assigned to it: k-means at the start, moving averages, revival of dead codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool import signals
from vqtool.nn import distributed
from vqtool.nn.bottlenecks.base import Assigned, Draws
from vqtool.nn.bottlenecks.nearest import nearest


class Codebook(nn.Module):
    """K code vectors for latents of width C.

    State, all of it buffers (`vectors` is a parameter with update "gradient"):
    vectors     [K, d] the codes, d = C without `codebook_dim`, the base with "simvq"
    counts      [K] moving average of tokens per step
    sums        [K, d] moving average of the sum of those tokens (update "ema")
    initialized whether `initialize` has run

    update  "ema" (arXiv 1711.00937, appendix A.1): a code that gets tokens is sums / counts where counts > 1e-3, else
            left alone. "gradient": a loss moves the codes. "simvq" (arXiv 2411.02038): it moves a linear map, `map`, of
            vectors that stay as they are, so that all codes move together and none is left behind.
    revive  "relative": a code whose count falls below `revive_below` times the mean count is moved onto one of the
            batch's own vectors, and its state with it. "absolute": one whose count falls below `revive_below` tokens a
            step lies on the batch's vector of its own number until its count has grown; its state stays. "simvq": none
    init    "kmeans"; "first": the first vectors of all, each with a count of one; "random": draws from a normal
            distribution with their mean and spread
    "absolute" at 1 and "first" are what T2M-GPT and MoMask do.

    codebook_dim  d: codes are sought and averaged among `project_in` of the latents, and a code stands for its
                  `project_out` (arXiv 2110.04627; a pair for each layer, arXiv 2306.06546). Both begin as the d
                  principal components of the latents. 0: no projections
    normalize     codes and projected latents have length 1, so that the angle between them decides
    """

    vectors: Tensor
    counts: Tensor
    sums: Tensor
    initialized: Tensor

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        update: str = "ema",
        decay: float = 0.99,
        revive_below: float = 0.5,
        revive: str = "relative",
        init: str = "kmeans",
        codebook_dim: int = 0,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.update_rule, self.decay = size, update, decay
        self.revive_below, self.revive_rule, self.init = revive_below, revive, init
        self.projected, self.normalize = codebook_dim > 0, normalize
        width = codebook_dim or dim
        if update == "gradient":
            self.vectors = nn.Parameter(torch.zeros(size, width))
        else:
            self.register_buffer("vectors", torch.zeros(size, width))
        if update == "ema":
            self.register_buffer("sums", torch.zeros(size, width))
        if update == "simvq":
            self.map = nn.Linear(width, width, bias=False)
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("initialized", torch.tensor(False))
        if self.projected:
            self.project_in = nn.Linear(dim, width)
            self.project_out = nn.Linear(width, dim)

    @property
    def stored(self) -> bool:
        """Whether `table` is the tensor `vectors`, and nothing that is computed from it."""
        return not self.projected and self.update_rule != "simvq"

    def inside(self, latents: Tensor) -> Tensor:
        """Latents [..., C] as they are compared with the codes, [..., d]."""
        if self.projected:
            latents = _linear(latents, self.project_in)
        return F.normalize(latents, dim=-1) if self.normalize else latents

    def codes(self) -> Tensor:
        """What they are compared with, [K, d]."""
        vectors = _linear(self.vectors, self.map) if self.update_rule == "simvq" else self.vectors
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    def outside(self, inside: Tensor) -> Tensor:
        """What [..., d] stands for among the latents, [..., C]."""
        return _linear(inside, self.project_out) if self.projected else inside

    def table(self) -> Tensor:
        """What each code stands for, [K, C]."""
        return self.outside(self.codes())

    def reach(self, latents: Tensor, tolerance: Tensor | None) -> Tensor | None:
        """How far `inside` of latents [N, C] can move when they move by `tolerance` [N]."""
        if tolerance is None or not self.projected:
            return tolerance
        tolerance = tolerance * torch.linalg.matrix_norm(self.project_in.weight, 2).to(tolerance)
        if not self.normalize:
            return tolerance
        norm = _linear(latents, self.project_in).norm(dim=1)
        # Of two vectors their unit vectors are no farther apart than 2 |u - v| / (|u| + |v|).
        return torch.where(tolerance < norm, 2 * tolerance / (2 * norm - tolerance), 2.0)

    @torch.no_grad()
    def initialize(self, samples: Tensor, batches: int, generator: torch.Generator) -> None:
        """Fit to samples [N, C], the tokens of that many batches; for k-means N >= 8 K is asked for."""
        if self.init == "kmeans" and len(samples) < 8 * self.size:
            raise ValueError(f"{len(samples)} vectors are too few to fit {self.size} codes; give {8 * self.size}")
        if self.projected:
            self._fit_projections(samples)
        samples = self.inside(samples)
        if self.init == "kmeans":
            centers, counts = kmeans(samples, self.size, generator)
            counts = counts / batches
        elif self.init == "first":
            centers, counts = tiled(samples, self.size, generator), torch.ones_like(self.counts)
        else:
            noise = torch.randn(self.vectors.shape, generator=generator).to(samples)
            centers = samples.mean(0) + samples.std(0, correction=0) * noise
            counts = torch.full_like(self.counts, len(samples) / batches / self.size)
        self.vectors.copy_(centers)
        self.counts.copy_(counts)
        if self.update_rule == "ema":
            self.sums.copy_(centers * self.counts[:, None])
        if self.update_rule == "simvq":
            nn.init.eye_(self.map.weight)
        self.initialized.fill_(True)

    def _fit_projections(self, samples: Tensor) -> None:
        """In: the principal components of samples [N, C]; out: back again, from unit vectors to their mean length."""
        mean = samples.double().mean(0)
        centered = samples.double() - mean
        axes = torch.linalg.eigh(centered.T @ centered).eigenvectors[:, -self.vectors.shape[1] :]  # [C, d]
        axes = axes * torch.where(axes.sum(0) < 0, -1.0, 1.0)  # their sign is arbitrary
        self.project_in.weight.copy_(axes.T)
        self.project_in.bias.copy_(-mean @ axes)
        scale = (centered @ axes).norm(dim=1).mean() if self.normalize else 1.0
        self.project_out.weight.copy_(axes * scale)
        self.project_out.bias.copy_(mean)

    def statistics(self, vectors: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """What a step adds to `counts` and `sums` where vectors [N, d], as `inside` gives them, took codes [N]."""
        counts = torch.bincount(indices, minlength=self.size).to(self.counts.dtype)
        ema = self.update_rule == "ema"
        return counts, segment_sum(vectors, indices, self.size) if ema else vectors.new_zeros(0)

    def update(self, counts: Tensor, sums: Tensor, vectors: Tensor, generator: torch.Generator) -> None:
        """Follow one step, of which these are the `statistics` on all ranks, and the vectors on this one.

        Without any vector nothing changes.
        """
        number = int(counts.sum())
        if number == 0:
            return
        self.counts.lerp_(counts, 1 - self.decay)
        if self.update_rule == "ema":
            self.sums.lerp_(sums, 1 - self.decay)
            means = self.sums / self.counts.clamp_min(1e-3)[:, None]
            moved = (counts > 0) & (self.counts > 1e-3)  # sums and counts of an idle code shrink alike, up to rounding
            self.vectors.copy_(torch.where(moved[:, None], means, self.vectors))
        if self.update_rule == "simvq":
            return
        if self.revive_rule == "absolute":
            self._revive_absolutely(vectors, number, generator)
        else:
            self._revive(vectors, number, generator)

    def _revive(self, vectors: Tensor, number: int, generator: torch.Generator) -> None:
        share = self.counts.sum() / self.size
        dead = (self.counts < self.revive_below * share).nonzero()[:, 0][:number]
        if len(dead) == 0:
            return
        chosen = torch.randperm(number, generator=generator)[: len(dead)].to(vectors.device)
        self.vectors[dead] = distributed.rows(vectors, chosen).to(self.vectors.dtype)
        self.counts[dead] = share
        if self.update_rule == "ema":
            self.sums[dead] = self.vectors[dead] * share

    def _revive_absolutely(self, vectors: Tensor, number: int, generator: torch.Generator) -> None:
        dead = self.counts < self.revive_below
        if dead.any():
            first = torch.arange(min(number, self.size), device=vectors.device)
            candidates = tiled(distributed.rows(vectors, first), self.size, generator)
            self.vectors.copy_(torch.where(dead[:, None], candidates, self.vectors))


@torch.no_grad()
def follow(assigned: Sequence[tuple[Codebook, Assigned]], draws: Draws) -> None:
    """Let codebooks follow one training step by what this rank assigned them; one exchange for all of them."""
    found = [tensor for book, pair in assigned for tensor in book.statistics(*pair)]
    totals = distributed.total(found)
    for (book, (vectors, _)), counts, sums in zip(assigned, totals[::2], totals[1::2], strict=True):
        book.update(counts, sums, vectors, draws.generator())


def _linear(vectors: Tensor, layer: nn.Linear) -> Tensor:
    """The layer in the precision of the vectors, autocast or not."""
    with torch.autocast(vectors.device.type, enabled=False):
        return F.linear(vectors, layer.weight.to(vectors), None if layer.bias is None else layer.bias.to(vectors))


def tiled(vectors: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """The first `size` of the vectors [N, C]; where there are fewer, again and again with a little noise."""
    if len(vectors) >= size:
        return vectors[:size]
    rows = vectors.repeat(-(-size // len(vectors)), 1)[:size]
    noise = torch.randn(rows.shape, generator=generator).to(rows)
    return rows + 0.01 / rows.shape[1] ** 0.5 * noise


def segment_sum(vectors: Tensor, indices: Tensor, size: int) -> Tensor:
    """Sum of the vectors [N, C] of each index: [size, C]. Deterministic, and twice as fast as index_add_."""
    order = torch.argsort(indices, stable=True)
    counts = torch.bincount(indices, minlength=size)
    starts = counts.cumsum(0) - counts
    return F.embedding_bag(order, vectors, starts, mode="sum")


@torch.no_grad()
def kmeans(samples: Tensor, size: int, generator: torch.Generator, iterations: int = 10) -> tuple[Tensor, Tensor]:
    """Centers [size, C] and how many samples [N, C] each has, by Lloyd's iterations from random samples.

    A center that loses all its samples starts again from a random one.
    """
    centers = samples[torch.randperm(len(samples), generator=generator)[:size].to(samples.device)].clone()
    for _ in range(iterations):
        signals.check()
        indices = nearest(samples, centers, exact=False)
        counts = torch.bincount(indices, minlength=size)
        means = segment_sum(samples, indices, size) / counts.clamp_min(1)[:, None]
        again = samples[torch.randint(len(samples), (size,), generator=generator).to(samples.device)]
        centers = torch.where((counts > 0)[:, None], means, again)
    counts = torch.bincount(nearest(samples, centers, exact=False), minlength=size)
    return centers, counts.to(samples.dtype)
