"""Vector quantization in Q residual layers (RVQ-VAE, arXiv 2203.01941), and in one (VQ-VAE, arXiv 1711.00937).

residual_0 = x;  q_i = nearest code of layer i to residual_i;  residual_{i+1} = residual_i - sg[q_i];  output = sum q_i
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.errors import UsageError
from vqtool.nn.bottlenecks.base import Bottleneck, BottleneckOutput, full_precision, masked_mean
from vqtool.nn.bottlenecks.ema import Codebook
from vqtool.nn.bottlenecks.nearest import decide, nearest, sampled

MAX_LAYERS, MAX_CODES, MAX_TEMPERATURE = 64, 1 << 20, 1e6


class ResidualVQ(Bottleneck):
    """Q codebooks, each quantizing what the ones before left over; decoding works from the first q of them.

    codebook_size         K, or one K per layer
    codebook_update       "ema" or "gradient" (then there is a codebook loss)
    ema_decay             of the moving averages
    init, revive_rule     how codes begin and begin again, see Codebook
    revive_below          a code used less than this share of the mean use, or this often a step, is dead; 0: none is
    sampling_temperature  in training, codes are drawn with the probabilities softmax(-|x - e|^2 / temperature)
    quantizer_dropout     probability that a training sample keeps only its first n ~ Uniform{1..Q} layers
    shared_codebook       one codebook for all layers

    One straight-through estimator lies around the sum: its forward value is bit-equal to the sum of the code
    vectors, its gradient the identity for every Q.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        num_quantizers: int = 6,
        codebook_size: int | Sequence[int] = 512,
        codebook_update: str = "ema",
        ema_decay: float = 0.99,
        init: str = "kmeans",
        revive_rule: str = "relative",
        revive_below: float = 0.5,
        sampling_temperature: float = 0.0,
        quantizer_dropout: float = 0.0,
        shared_codebook: bool = False,
    ) -> None:
        super().__init__(latent_dim)
        for name, value, low, high in (
            ("num_quantizers", num_quantizers, 1, MAX_LAYERS),
            ("ema_decay", ema_decay, 0, 1),
            ("revive_below", revive_below, 0, 1),
            ("sampling_temperature", sampling_temperature, 0, MAX_TEMPERATURE),
            ("quantizer_dropout", quantizer_dropout, 0, 1),
        ):
            if not low <= value <= high:  # NaN is not
                raise UsageError(f"{name} is from {low} to {high}, not {value!r}")
        if not isinstance(shared_codebook, bool):
            raise UsageError(f"shared_codebook is true or false, not {shared_codebook!r}")
        sizes = [codebook_size] * num_quantizers if isinstance(codebook_size, int) else list(codebook_size)
        if len(sizes) != num_quantizers or min(sizes) < 1 or max(sizes) > MAX_CODES:
            what = f"codebook_size {codebook_size} does not give {num_quantizers} layers of 1 to {MAX_CODES:,} codes"
            raise UsageError(what)
        for option, chosen, choices in (
            ("codebook_update", codebook_update, ("ema", "gradient")),
            ("init", init, ("kmeans", "first")),
            ("revive_rule", revive_rule, ("relative", "absolute")),
        ):
            if chosen not in choices:
                raise UsageError(f"{option} is {' or '.join(map(repr, choices))}, not {chosen!r}")
        if shared_codebook and len(set(sizes)) > 1:
            raise UsageError(f"a shared codebook has one size, not {sizes}")
        self.num_quantizers = num_quantizers
        self.codebook_sizes = tuple(sizes)
        self.quantizer_dropout = quantizer_dropout
        self.sampling_temperature = sampling_temperature
        self.layers = nn.ModuleList(
            Codebook(
                size,
                latent_dim,
                update=codebook_update,
                decay=ema_decay,
                init=init,
                revive=revive_rule,
                revive_below=revive_below,
            )
            for size in (sizes[:1] if shared_codebook else sizes)
        )

    def _layer(self, q: int) -> Codebook:
        layer = self.layers[min(q, len(self.layers) - 1)]
        assert isinstance(layer, Codebook)
        return layer

    @property
    def initialized(self) -> bool:
        """Whether `initialize` has run."""
        return bool(self._layer(0).initialized)

    def _check_initialized(self) -> None:
        if not self.initialized:
            raise RuntimeError("the codebooks are empty: call initialize() with encoder outputs first")

    def codebooks(self) -> list[Tensor]:
        """[K, C] of each layer."""
        return [self._layer(q).vectors for q in range(self.num_quantizers)]

    def codebook_keys(self) -> list[str]:
        """Their names in the state dict."""
        return [f"layers.{min(q, len(self.layers) - 1)}.vectors" for q in range(self.num_quantizers)]

    @torch.no_grad()
    def initialize(self, latents: Tensor, batches: int = 1) -> None:
        """Fit layer by layer, each on the true residual of the layers before; latents [N, C], for k-means N >= 8 K."""
        residual = full_precision(latents)
        if len(self.layers) < self.num_quantizers:  # shared: fit to the residuals of all layers together
            self._layer(0).initialize(residual, batches, self.draws.generator())
            residuals = [residual]
            for q in range(1, self.num_quantizers):
                residuals.append(residuals[-1] - self._layer(q).vectors[self._chosen(residuals[-1], q)])
            self._layer(0).initialize(torch.cat(residuals), batches, self.draws.generator())
            return
        for q in range(self.num_quantizers):
            self._layer(q).initialize(residual, batches, self.draws.generator())
            residual = residual - self._layer(q).vectors[self._chosen(residual, q)]

    def _nearest(self, vectors: Tensor, q: int, *, exact: bool = False) -> Tensor:
        return nearest(vectors.detach(), self._layer(q).vectors.detach().to(vectors.dtype), exact=exact)

    def _chosen(self, vectors: Tensor, q: int) -> Tensor:
        """What training assigns vectors [N, C] to: the nearest code, or one drawn."""
        if self.sampling_temperature == 0:
            return self._nearest(vectors, q)
        codebook = self._layer(q).vectors.detach().to(vectors.dtype)
        return sampled(vectors.detach(), codebook, self.sampling_temperature, self.draws.generator())

    def _kept(self, batch: int, device: torch.device) -> Tensor | None:
        """How many layers each sample keeps in this training step, [B]; None for all."""
        if not self.training or self.quantizer_dropout == 0:
            return None
        generator = self.draws.generator()
        drop = torch.rand(batch, generator=generator) < self.quantizer_dropout
        kept = torch.randint(1, self.num_quantizers + 1, (batch,), generator=generator)
        return torch.where(drop, kept, self.num_quantizers).to(device)

    def forward(self, latents: Tensor, mask: Tensor | None = None) -> BottleneckOutput:
        """Quantize latents [B, L, C]; mask [B, L] is True on valid tokens. In training the codebooks follow."""
        self._check_initialized()
        with torch.autocast(latents.device.type, enabled=False):
            return self._forward(full_precision(latents), mask)

    def _forward(self, x: Tensor, mask: Tensor | None) -> BottleneckOutput:
        valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if mask is None else mask
        kept = self._kept(len(x), x.device)
        residual, total = x, torch.zeros_like(x)
        codes, counts, commitment, codebook, uses = [], [], [], [], []
        follow: list[tuple[Tensor, Tensor]] = []
        for q in range(self.num_quantizers):
            use = valid if kept is None else valid & (kept > q)[:, None]  # [B, L]
            flat = residual.flatten(0, 1)
            index = self._chosen(flat, q) if self.training else self._nearest(flat, q, exact=True)
            vectors = self._layer(q).vectors[index].view_as(x)
            index = index.view(use.shape)
            codes.append(index.masked_fill(~use, -1))
            counts.append(torch.bincount(index[use], minlength=max(self.codebook_sizes)))
            uses.append(use)
            commitment.append((residual - vectors.detach()).square())
            codebook.append((residual.detach() - vectors).square())
            if self.training:
                follow.append((residual.detach()[use], index[use]))
            step = torch.where(use.unsqueeze(-1), vectors.detach(), 0.0)
            total = total + step
            residual = residual - step
        used = torch.cat(uses, 1)
        losses = {"commitment": masked_mean(torch.cat(commitment, 1), used)}
        if self._layer(0).update_rule == "gradient":
            losses["codebook"] = masked_mean(torch.cat(codebook, 1), used)
        if self.training:
            self._follow(follow)
        # Bit-equal to the code vectors: x - x is exactly zero.
        straight = total.detach() + (x - x.detach())
        output = torch.where(valid.unsqueeze(-1), straight, 0.0)
        return BottleneckOutput(output, torch.stack(codes, -1), losses, torch.stack(counts))

    def _follow(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        if len(self.layers) < self.num_quantizers:  # a shared codebook is updated once, from all layers together
            pairs = [(torch.cat([v for v, _ in pairs]), torch.cat([i for _, i in pairs]))]
        for layer, (vectors, indices) in zip(self.layers, pairs, strict=True):
            assert isinstance(layer, Codebook)
            layer.update(vectors, indices, self.draws.generator())

    def search(
        self, latents: Tensor, num_quantizers: int | None = None, tolerance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Codes [B, L, q], and the tokens [B, L] of which any layer's decision could change."""
        self._check_initialized()
        layers = self.layers_asked(num_quantizers)
        x = full_precision(latents)
        residual = x.flatten(0, 1)
        limit = None if tolerance is None else tolerance.flatten()
        codes, unsure = [], torch.zeros(len(residual), dtype=torch.bool, device=x.device)
        for q in range(layers):
            vectors = self._layer(q).vectors.to(x.dtype)
            index, here = decide(residual, vectors, limit)
            codes.append(index)
            unsure |= here
            residual = residual - vectors[index]
        return torch.stack(codes, -1).view(*x.shape[:2], -1), unsure.view(x.shape[:2])

    def decode(self, codes: Tensor) -> Tensor:
        """The sum of the code vectors of the layers given, [B, L, C]."""
        self._check_initialized()
        self.check_codes(codes)
        total = torch.zeros((), dtype=self._layer(0).vectors.dtype, device=codes.device)
        for q in range(codes.shape[-1]):
            total = total + F.embedding(codes[..., q], self._layer(q).vectors)
        return total


class VectorQuantizer(ResidualVQ):
    """One codebook: the VQ of VQ-VAE. Options as in ResidualVQ."""

    def __init__(
        self,
        latent_dim: int,
        *,
        codebook_size: int = 512,
        codebook_update: str = "ema",
        ema_decay: float = 0.99,
        init: str = "kmeans",
        revive_rule: str = "relative",
        revive_below: float = 0.5,
        sampling_temperature: float = 0.0,
    ) -> None:
        super().__init__(
            latent_dim,
            num_quantizers=1,
            codebook_size=codebook_size,
            codebook_update=codebook_update,
            ema_decay=ema_decay,
            init=init,
            revive_rule=revive_rule,
            revive_below=revive_below,
            sampling_temperature=sampling_temperature,
        )
