"""A codebook that follows the vectors assigned to it: k-means at the start, moving averages, revival of dead codes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool import signals
from vqtool.nn.bottlenecks.nearest import nearest


class Codebook(nn.Module):
    """K code vectors of width C.

    State, all of it buffers (`vectors` is a parameter with update "gradient"):
    vectors     [K, C] the codes
    counts      [K] moving average of tokens per step
    sums        [K, C] moving average of the sum of those tokens (update "ema")
    initialized whether `initialize` has run

    With "ema" (arXiv 1711.00937, appendix A.1) a code that gets tokens is sums / counts where counts > 1e-3, else
    left alone.

    revive  "relative": a code whose count falls below `revive_below` times the mean count is moved onto one of the
            batch's own vectors, and its state with it. "absolute": one whose count falls below `revive_below` tokens a
            step lies on the batch's vector of its own number until its count has grown; its state stays.
    init    "kmeans", or "first": the first vectors of all, each with a count of one
    "absolute" at 1 and "first" are what T2M-GPT and MoMask do.
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
    ) -> None:
        super().__init__()
        self.size, self.update_rule, self.decay = size, update, decay
        self.revive_below, self.revive_rule, self.init = revive_below, revive, init
        if update == "gradient":
            self.vectors = nn.Parameter(torch.zeros(size, dim))
        else:
            self.register_buffer("vectors", torch.zeros(size, dim))
            self.register_buffer("sums", torch.zeros(size, dim))
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("initialized", torch.tensor(False))

    @torch.no_grad()
    def initialize(self, samples: Tensor, batches: int, generator: torch.Generator) -> None:
        """Fit to samples [N, C], the tokens of that many batches; for k-means N >= 8 K is asked for."""
        if self.init == "first":
            centers, counts = tiled(samples, self.size, generator), torch.ones_like(self.counts)
        elif len(samples) < 8 * self.size:
            raise ValueError(f"{len(samples)} vectors are too few to fit {self.size} codes; give {8 * self.size}")
        else:
            centers, counts = kmeans(samples, self.size, generator)
            counts = counts / batches
        self.vectors.copy_(centers)
        self.counts.copy_(counts)
        if self.update_rule == "ema":
            self.sums.copy_(centers * self.counts[:, None])
        self.initialized.fill_(True)

    @torch.no_grad()
    def update(self, vectors: Tensor, indices: Tensor, generator: torch.Generator) -> None:
        """Follow one training step: vectors [N, C] were assigned to codes indices [N]. N = 0 changes nothing."""
        if len(vectors) == 0:
            return
        counts = torch.bincount(indices, minlength=self.size).to(self.counts.dtype)
        self.counts.lerp_(counts, 1 - self.decay)
        if self.update_rule == "ema":
            self.sums.lerp_(segment_sum(vectors, indices, self.size), 1 - self.decay)
            means = self.sums / self.counts.clamp_min(1e-3)[:, None]
            moved = (counts > 0) & (self.counts > 1e-3)  # sums and counts of an idle code shrink alike, up to rounding
            self.vectors.copy_(torch.where(moved[:, None], means, self.vectors))
        if self.revive_rule == "absolute":
            dead = (self.counts < self.revive_below)[:, None]
            self.vectors.copy_(torch.where(dead, tiled(vectors, self.size, generator), self.vectors))
        else:
            self._revive(vectors, generator)

    def _revive(self, vectors: Tensor, generator: torch.Generator) -> None:
        share = self.counts.sum() / self.size
        dead = (self.counts < self.revive_below * share).nonzero()[:, 0][: len(vectors)]
        if len(dead) == 0:
            return
        chosen = torch.randperm(len(vectors), generator=generator)[: len(dead)].to(vectors.device)
        self.vectors[dead] = vectors[chosen].to(self.vectors.dtype)
        self.counts[dead] = share
        if self.update_rule == "ema":
            self.sums[dead] = self.vectors[dead] * share


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
