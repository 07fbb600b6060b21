"""Vector quantization in Q residual layers (RVQ-VAE, arXiv 2203.01941), and in one (VQ-VAE, arXiv 1711.00937).

residual_0 = x;  q_i = nearest code of layer i to residual_i;  residual_{i+1} = residual_i - sg[q_i];  output = sum q_i
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.errors import UsageError
from vqtool.nn.bottlenecks.base import Assigned, Bottleneck, BottleneckOutput, full_precision, squared_distance
from vqtool.nn.bottlenecks.beam import beam_search
from vqtool.nn.bottlenecks.ema import Codebook, follow
from vqtool.nn.bottlenecks.estimators import ESTIMATORS, bridge
from vqtool.nn.bottlenecks.nearest import decide, nearest, sampled

MAX_LAYERS, MAX_CODES, MAX_TEMPERATURE, MAX_BEAM = 64, 1 << 20, 1e6, 64


class ResidualVQ(Bottleneck):
    """Q codebooks, each quantizing what the ones before left over; decoding works from the first q of them.

    codebook_size         K, or one K per layer
    codebook_update       "ema", "gradient" or "simvq" (then there is a codebook loss), see Codebook
    codebook_dim          width in which codes are sought; 0: that of the latents
    codebook_norm         "none", or "l2": only the direction counts; with codebook_dim
    estimator             how gradients pass the codes, see `bridge`
    ema_decay             of the moving averages
    init, revive_rule     how codes begin and begin again, see Codebook
    revive_below          a code used less than this share of the mean use, or this often a step, is dead; 0: none is
    sampling_temperature  in training, codes are drawn with the probabilities softmax(-|x - e|^2 / temperature)
    quantizer_dropout     probability that a training sample keeps only its first n ~ Uniform{1..Q} layers
    shared_codebook       one codebook for all layers
    encode_beam           partial sums that encoding keeps a layer, see `beam_search`; training keeps one

    One straight-through estimator lies around the sum: its forward value is bit-equal to the sum of the code
    vectors, its gradient the identity for every Q. With codebook_dim there is one in each layer, between its
    projections, which the gradient of the output trains; the residual then carries gradients too.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        num_quantizers: int = 6,
        codebook_size: int | Sequence[int] = 512,
        codebook_update: str = "ema",
        codebook_dim: int = 0,
        codebook_norm: str = "none",
        ema_decay: float = 0.99,
        init: str = "kmeans",
        revive_rule: str = "relative",
        revive_below: float = 0.5,
        sampling_temperature: float = 0.0,
        estimator: str = "ste",
        quantizer_dropout: float = 0.0,
        shared_codebook: bool = False,
        encode_beam: int = 1,
    ) -> None:
        super().__init__(latent_dim)
        for name, value, low, high in (
            ("num_quantizers", num_quantizers, 1, MAX_LAYERS),
            ("codebook_dim", codebook_dim, 0, latent_dim),
            ("ema_decay", ema_decay, 0, 1),
            ("revive_below", revive_below, 0, 1),
            ("sampling_temperature", sampling_temperature, 0, MAX_TEMPERATURE),
            ("quantizer_dropout", quantizer_dropout, 0, 1),
            ("encode_beam", encode_beam, 1, MAX_BEAM),
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
            ("codebook_update", codebook_update, ("ema", "gradient", "simvq")),
            ("codebook_norm", codebook_norm, ("none", "l2")),
            ("init", init, ("kmeans", "first", "random")),
            ("revive_rule", revive_rule, ("relative", "absolute")),
            ("estimator", estimator, ESTIMATORS),
        ):
            if chosen not in choices:
                known = f"{', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}"
                raise UsageError(f"{option} is {known}, not {chosen!r}")
        if codebook_norm == "l2" and not codebook_dim:
            raise UsageError("codebook_norm 'l2' needs a codebook_dim, whose projection gives the codes a length again")
        if shared_codebook and len(set(sizes)) > 1:
            raise UsageError(f"a shared codebook has one size, not {sizes}")
        if encode_beam > 1 and (shared_codebook or codebook_dim):
            # Of a shared codebook many sums are equal, and a narrow one measures distances of its own.
            raise UsageError("encode_beam is for codebooks of their own for each layer, without codebook_dim")
        self.num_quantizers = num_quantizers
        self.encode_beam = encode_beam
        self.codebook_sizes = tuple(sizes)
        self.quantizer_dropout = quantizer_dropout
        self.sampling_temperature = sampling_temperature
        self.estimator = estimator
        self.layers = nn.ModuleList(
            Codebook(
                size,
                latent_dim,
                update=codebook_update,
                decay=ema_decay,
                init=init,
                revive=revive_rule,
                revive_below=revive_below,
                codebook_dim=codebook_dim,
                normalize=codebook_norm == "l2",
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
        """[K, C] of each layer: what its codes add to the sum."""
        return [self._layer(q).table() for q in range(self.num_quantizers)]

    def codebook_keys(self) -> list[str]:
        """Their names in the state dict; [] where they are computed from it."""
        if not self._layer(0).stored:
            return []
        return [f"layers.{min(q, len(self.layers) - 1)}.vectors" for q in range(self.num_quantizers)]

    @torch.no_grad()
    def initialize(self, latents: Tensor, batches: int = 1) -> None:
        """Fit layer by layer, each on the true residual of the layers before; latents [N, C], for k-means N >= 8 K."""
        residual = full_precision(latents)
        if len(self.layers) < self.num_quantizers:  # shared: fit to the residuals of all layers together
            self._layer(0).initialize(residual, batches, self.draws.generator())
            residuals = [residual]
            for _ in range(1, self.num_quantizers):
                residuals.append(self._left_over(residuals[-1], self._layer(0)))
            self._layer(0).initialize(torch.cat(residuals), batches, self.draws.generator())
            return
        for q in range(self.num_quantizers):
            self._layer(q).initialize(residual, batches, self.draws.generator())
            residual = self._left_over(residual, self._layer(q))

    def _left_over(self, vectors: Tensor, layer: Codebook) -> Tensor:
        return vectors - layer.table()[self._chosen(layer.inside(vectors), layer.codes())]

    def _chosen(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """What training assigns vectors [N, d] to: the nearest code, or one drawn."""
        vectors, codes = vectors.detach(), codes.detach().to(vectors.dtype)
        if self.sampling_temperature == 0:
            return nearest(vectors, codes, exact=False)
        return sampled(vectors, codes, self.sampling_temperature, self.draws.generator(own=True))

    def _kept(self, batch: int, device: torch.device) -> Tensor | None:
        """How many layers each sample keeps in this training step, [B]; None for all."""
        if not self.training or self.quantizer_dropout == 0:
            return None
        generator = self.draws.generator(own=True)
        drop = torch.rand(batch, generator=generator) < self.quantizer_dropout
        kept = torch.randint(1, self.num_quantizers + 1, (batch,), generator=generator)
        return torch.where(drop, kept, self.num_quantizers).to(device)

    def forward(self, latents: Tensor, mask: Tensor | None = None) -> BottleneckOutput:
        """Quantize latents [B, L, C]; mask [B, L] is True on valid tokens."""
        self._check_initialized()
        with torch.autocast(latents.device.type, enabled=False):
            return self._forward(full_precision(latents), mask)

    def _forward(self, latents: Tensor, mask: Tensor | None) -> BottleneckOutput:
        """All of it on rows [N, C], one for each valid token."""
        rows = latents.flatten(0, 1) if mask is None else latents[mask]
        kept = self._kept(len(latents), latents.device)
        if kept is not None:
            kept = kept.repeat_interleave(latents.shape[1]) if mask is None else kept[:, None].expand(mask.shape)[mask]
        first = self._layer(0)
        residual, total = rows, rows
        codes, counts, commitment, codebook, uses = [], [], [], [], []
        assigned: list[Assigned] = []
        beam = None if self.training or self.encode_beam == 1 else self.search(rows.detach()[None])[0][0]
        for q in range(self.num_quantizers):
            use = None if kept is None else kept > q  # [N]; None: all
            layer = self._layer(q)
            inside, book = layer.inside(residual), layer.codes()
            if self.training:
                index = self._chosen(inside, book)
            elif beam is not None:
                index = beam[:, q]
            else:
                index = nearest(inside.detach(), book.detach().to(rows.dtype))
            vectors = F.embedding(index, book)
            own, taken, chosen = (inside, vectors, index) if use is None else (inside[use], vectors[use], index[use])
            codes.append(index if use is None else index.masked_fill(~use, -1))
            counts.append(torch.bincount(chosen, minlength=max(self.codebook_sizes)))
            uses.append(own.numel())
            commitment.append(squared_distance(own, taken))
            if layer.update_rule != "ema":
                codebook.append(squared_distance(taken, own))
            if self.training:
                assigned.append((own.detach(), chosen))
            step = self._step(layer, inside, vectors, index)
            step = step if use is None else torch.where(use[:, None], step, 0.0)
            total = step if q == 0 else total + step
            if q + 1 < self.num_quantizers:
                residual = residual - (step if layer.projected else step.detach())
        losses = {"commitment": torch.stack(commitment).sum() / max(1, sum(uses))}
        if codebook:
            losses["codebook"] = torch.stack(codebook).sum() / max(1, sum(uses))
        output = total if first.projected else self._bridge(rows, total)
        return BottleneckOutput(
            _spread(output, mask, latents.shape, 0.0),
            _spread(torch.stack(codes, -1), mask, latents.shape, -1),
            losses,
            torch.stack(counts),
            assigned,
        )

    def _bridge(self, latents: Tensor, vectors: Tensor) -> Tensor:
        if not (self.training and self.estimator == "diveq"):
            return bridge(latents, vectors, "ste" if self.estimator == "diveq" else self.estimator)
        return bridge(latents, vectors, "diveq", self.draws.generator(own=True))

    def _step(self, layer: Codebook, inside: Tensor, vectors: Tensor, index: Tensor) -> Tensor:
        """What a layer adds to the sum, [N, C], bit-equal to its table but with "diveq" in training.

        With projections the gradient of the table trains `project_out`, and a difference whose value is zero, but
        with "diveq", brings the gradient to what lies inside.
        """
        if not layer.projected:
            return vectors
        change = self._bridge(inside, vectors) - vectors.detach()
        return layer.outside(layer.codes().detach())[index] + F.linear(change, layer.project_out.weight.to(change))

    def following(self, pairs: list[Assigned]) -> list[tuple[Codebook, Assigned]]:
        """Each codebook and what it was assigned, of what its layers were."""
        if len(self.layers) < self.num_quantizers:  # a shared codebook follows once, all layers together
            pairs = [(torch.cat([v for v, _ in pairs]), torch.cat([i for _, i in pairs]))]
        return [(self._layer(q), pair) for q, pair in enumerate(pairs)]

    def _follow(self, pairs: list[Assigned]) -> None:
        follow(self.following(pairs), self.draws)

    def search(
        self, latents: Tensor, num_quantizers: int | None = None, tolerance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Codes [B, L, q], and the tokens [B, L] of which any layer's decision could change."""
        self._check_initialized()
        layers = self.layers_asked(num_quantizers)
        x = full_precision(latents)
        residual = x.flatten(0, 1)
        limit = None if tolerance is None else tolerance.flatten()
        if self.encode_beam > 1:
            books = [book.detach().to(x.dtype) for book in self.codebooks()[:layers]]
            found, close = beam_search(residual.detach(), books, self.encode_beam, limit)
            return found.view(*x.shape[:2], -1), close.view(x.shape[:2])
        codes, unsure = [], torch.zeros(len(residual), dtype=torch.bool, device=x.device)
        for q in range(layers):
            layer = self._layer(q)
            index, here = decide(layer.inside(residual), layer.codes().to(x.dtype), layer.reach(residual, limit))
            codes.append(index)
            unsure |= here
            residual = residual - layer.table().to(x.dtype)[index]
        return torch.stack(codes, -1).view(*x.shape[:2], -1), unsure.view(x.shape[:2])

    def decode(self, codes: Tensor) -> Tensor:
        """The sum of the code vectors of the layers given, [B, L, C]."""
        self._check_initialized()
        self.check_codes(codes)
        total = torch.zeros((), dtype=self._layer(0).vectors.dtype, device=codes.device)
        for q in range(codes.shape[-1]):
            total = total + F.embedding(codes[..., q], self._layer(q).table())
        return total


def _spread(rows: Tensor, mask: Tensor | None, shape: Sequence[int], filling: float) -> Tensor:
    """Rows [N, ...] of the valid tokens as [B, L, ...], filled up elsewhere."""
    if mask is None:
        return rows.view(*shape[:2], *rows.shape[1:])
    return rows.new_full((*shape[:2], *rows.shape[1:]), filling).index_put((mask,), rows)


class VectorQuantizer(ResidualVQ):
    """One codebook: the VQ of VQ-VAE. Options as in ResidualVQ."""

    def __init__(
        self,
        latent_dim: int,
        *,
        codebook_size: int = 512,
        codebook_update: str = "ema",
        codebook_dim: int = 0,
        codebook_norm: str = "none",
        ema_decay: float = 0.99,
        init: str = "kmeans",
        revive_rule: str = "relative",
        revive_below: float = 0.5,
        sampling_temperature: float = 0.0,
        estimator: str = "ste",
    ) -> None:
        super().__init__(
            latent_dim,
            num_quantizers=1,
            codebook_size=codebook_size,
            codebook_update=codebook_update,
            codebook_dim=codebook_dim,
            codebook_norm=codebook_norm,
            ema_decay=ema_decay,
            init=init,
            revive_rule=revive_rule,
            revive_below=revive_below,
            sampling_temperature=sampling_temperature,
            estimator=estimator,
        )
