"""Product quantization, in layers (arXiv 2305.02765): the latent's channels in groups with codebooks of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.errors import DataError, UsageError
from vqtool.nn.bottlenecks.base import Assigned, Bottleneck, BottleneckOutput
from vqtool.nn.bottlenecks.ema import follow
from vqtool.nn.bottlenecks.rvq import MAX_LAYERS, ResidualVQ

T = TypeVar("T")


class ProductVQ(Bottleneck):
    """G groups of channels, each quantized by a ResidualVQ of its own; decoding lays their vectors side by side.

    groups          G; with model.parts, one for each body part
    num_quantizers  Q, codebooks in all: a multiple of G, so that each group has Q / G layers (None: G)
    codebook_size   K, or one K for each of the Q

    The others as in ResidualVQ, for each group by itself. Column q G + g of the codes is layer q of group g: the first
    G columns are the coarsest layer of all groups, and only multiples of G can be encoded and decoded.
    """

    def __init__(
        self,
        latent_dim: int,
        *,
        groups: int = 2,
        num_quantizers: int | None = None,
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
        most = min(latent_dim, MAX_LAYERS)
        if not 1 <= groups <= most:
            raise UsageError(f"groups is from 1 to {most} in a latent of {latent_dim} channels, not {groups!r}")
        total = groups if num_quantizers is None else num_quantizers
        if not 1 <= total <= MAX_LAYERS or total % groups:
            what = f"num_quantizers is a multiple of the {groups} groups up to {MAX_LAYERS}, not {total!r}"
            raise UsageError(f"{what}; each group has the same number of codebooks")
        sizes = [codebook_size] * total if isinstance(codebook_size, int) else list(codebook_size)
        if len(sizes) != total:
            raise UsageError(f"codebook_size {codebook_size} does not give {total} codebooks")
        self.codebook_sizes = tuple(sizes)
        self.channels = channels_of(latent_dim, groups)
        self.groups = nn.ModuleList(
            ResidualVQ(
                channels,
                num_quantizers=total // groups,
                codebook_size=sizes[group::groups],
                codebook_update=codebook_update,
                codebook_dim=codebook_dim,
                codebook_norm=codebook_norm,
                ema_decay=ema_decay,
                init=init,
                revive_rule=revive_rule,
                revive_below=revive_below,
                sampling_temperature=sampling_temperature,
                estimator=estimator,
                quantizer_dropout=quantizer_dropout,
                shared_codebook=shared_codebook,
                encode_beam=encode_beam,
            )
            for group, channels in enumerate(self.channels)
        )
        for quantizer in self._groups:
            quantizer.draws = self.draws  # one seed and one count for all

    @staticmethod
    def resolve(options: dict[str, Any]) -> dict[str, Any]:
        """The number of codebooks that `groups` alone means."""
        return options | ({"num_quantizers": options["groups"]} if options["num_quantizers"] is None else {})

    @property
    def _groups(self) -> list[ResidualVQ]:
        return [group for group in self.groups if isinstance(group, ResidualVQ)]

    @property
    def initialized(self) -> bool:
        """Whether `initialize` has run."""
        return all(group.initialized for group in self._groups)

    @torch.no_grad()
    def initialize(self, latents: Tensor, batches: int = 1) -> None:
        """k-means in each group; latents [N, C], N >= 8 K."""
        for group, own in self._split(latents):
            group.initialize(own, batches)

    def _split(self, latents: Tensor) -> list[tuple[ResidualVQ, Tensor]]:
        """Each group and its channels of latents [..., C]."""
        return list(zip(self._groups, latents.split(self.channels, -1), strict=True))

    def codebooks(self) -> list[Tensor]:
        """[K, channels of its group] of each column."""
        return _by_layer([group.codebooks() for group in self._groups])

    def codebook_keys(self) -> list[str]:
        """Their names in the state dict."""
        keys = [group.codebook_keys() for group in self._groups]
        return _by_layer([[f"groups.{number}.{key}" for key in own] for number, own in enumerate(keys)])

    def forward(self, latents: Tensor, mask: Tensor | None = None) -> BottleneckOutput:
        """Quantize latents [B, L, C]; mask [B, L] is True on valid tokens. Losses are means over the groups."""
        found = [group(own, mask) for group, own in self._split(latents)]
        widest = max(self.codebook_sizes)
        return BottleneckOutput(
            latents=torch.cat([one.latents for one in found], -1),
            codes=torch.stack([one.codes for one in found], -1).flatten(2),
            losses={name: torch.stack([one.losses[name] for one in found]).mean() for name in found[0].losses},
            counts=torch.stack([F.pad(one.counts, (0, widest - one.counts.shape[1])) for one in found], 1).flatten(
                0, 1
            ),
            assigned=[pair for one in found for pair in one.assigned],
        )

    def _follow(self, pairs: list[Assigned]) -> None:
        layers = len(self.codebook_sizes) // len(self.groups)
        own = [pairs[first : first + layers] for first in range(0, len(pairs), layers)]
        follow([one for group, its in zip(self._groups, own, strict=True) for one in group.following(its)], self.draws)

    def search(
        self, latents: Tensor, num_quantizers: int | None = None, tolerance: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Codes [B, L, q], and the tokens [B, L] of which any group's decision could change.

        A move of the latent moves no group's channels further.
        """
        layers = self.layers_asked(num_quantizers) // len(self.groups)
        found = [group.search(own, layers, tolerance) for group, own in self._split(latents)]
        return torch.stack([codes for codes, _ in found], -1).flatten(2), torch.stack([u for _, u in found]).any(0)

    def decode(self, codes: Tensor) -> Tensor:
        """Latents [B, L, C] of codes [B, L, q]."""
        self.check_codes(codes)
        groups = len(self.groups)
        return torch.cat([group.decode(codes[..., n::groups]) for n, group in enumerate(self._groups)], -1)

    @property
    def prefixes(self) -> list[int]:
        """Whole layers of all groups."""
        return super().prefixes[len(self.groups) - 1 :: len(self.groups)]

    def layers_asked(self, num_quantizers: int | None) -> int:
        """How many columns that is, all for None; UsageError where there are not so many, or a group would lack one."""
        asked = super().layers_asked(num_quantizers)
        if asked % len(self.groups):
            raise UsageError(f"num_quantizers {asked}: no multiple of this tokenizer's {len(self.groups)} groups")
        return asked

    def check_codes(self, codes: Tensor) -> None:
        """DataError at the first code outside its codebook, with too many columns, or where a group lacks one."""
        super().check_codes(codes)
        if codes.shape[-1] % len(self.groups):
            raise DataError(
                f"{codes.shape[-1]} layers of codes, no multiple of this tokenizer's {len(self.groups)} groups"
            )


def channels_of(latent_dim: int, groups: int) -> list[int]:
    """How many of the channels each group has; the first ones have one more where they do not divide evenly."""
    return [latent_dim // groups + (group < latent_dim % groups) for group in range(groups)]


def _by_layer(columns: list[list[T]]) -> list[T]:
    """What each group has of each layer, in the order of the columns of codes."""
    return [one for layer in zip(*columns, strict=True) for one in layer]
