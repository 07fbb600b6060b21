"""MotionTokenizer: normalizer -> encoder -> bottleneck -> decoder."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from vqtool.body_parts import part_columns
from vqtool.config import Config, ModelConfig
from vqtool.errors import UsageError
from vqtool.nn.bottlenecks import Bottleneck, BottleneckOutput, build_bottleneck
from vqtool.nn.bottlenecks.product import ProductVQ, channels_of
from vqtool.nn.bottlenecks.vae import GaussianBottleneck
from vqtool.nn.layers import PartEncoder, Stack, build_decoder, build_encoder, frame_mask, token_mask
from vqtool.stats import ColumnStats


class Normalizer(nn.Module):
    """(motion - mean) / scale per column, and back.

    Buffers mean [D], scale [D] (1 for constant columns) and constant [D]; a constant column comes back as exactly
    its mean.
    """

    mean: Tensor
    scale: Tensor
    constant: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("constant", torch.zeros(dim, dtype=torch.bool))

    def fit(self, stats: ColumnStats) -> None:
        """Take mean and spread from statistics of the training clips."""
        self.mean.copy_(torch.from_numpy(stats.mean))
        self.scale.copy_(torch.from_numpy(stats.scale))
        self.constant.copy_(torch.from_numpy(np.asarray(stats.constant)))

    def forward(self, motion: Tensor) -> Tensor:
        """Raw units [..., D] to normalised."""
        return (motion - self.mean).div_(self.scale)

    def inverse(self, normalised: Tensor) -> Tensor:
        """Normalised [..., D] to raw units."""
        return torch.addcmul(self.mean, normalised, self.scale.masked_fill(self.constant, 0.0))


class MotionTokenizer(nn.Module):
    """Motion [B, T, D] in raw units to codes [B, L, Q] and back, L = T / downsample.

    T must be a multiple of downsample here; `vqtool.nn.codec` cuts and pads clips of any length.
    """

    def __init__(
        self,
        encoder: Stack | PartEncoder,
        bottleneck: Bottleneck,
        decoder: Stack,
        normalizer: Normalizer,
        downsample: int,
    ) -> None:
        super().__init__()
        self.normalizer = normalizer
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.downsample = downsample

    def forward(
        self, normalised: Tensor, mask: Tensor | None = None, *, quantize: bool = True
    ) -> tuple[Tensor, BottleneckOutput]:
        """Reconstruct motion [B, T, D] in NORMALISED units, where training compares it; mask [B, T] is True on valid
        frames.

        Returns the reconstruction and what the bottleneck said. With quantize=False the latents skip the bottleneck
        (the continuous warm-up).
        """
        tokens = None if mask is None else token_mask(mask, self.downsample)
        latents = self._latents(normalised, tokens)
        output = self.bottleneck(latents, tokens) if quantize else BottleneckOutput(latents)
        return self.decoder(output.latents, tokens), output

    def latents(self, motion: Tensor, tokens: Tensor | None = None) -> Tensor:
        """What the bottleneck is given, [B, L, C], of motion [B, T, D]; tokens [B, L] marks the valid ones."""
        return self._latents(self.normalizer(motion), tokens)

    def _latents(self, normalised: Tensor, tokens: Tensor | None) -> Tensor:
        frames = None if tokens is None else frame_mask(tokens, self.downsample)
        latents: Tensor = self.encoder(normalised, frames)
        return latents

    def encode(self, motion: Tensor, num_quantizers: int | None = None) -> Tensor:
        """Codes [B, L, Q] of whole clips [B, T, D] of one length."""
        return self.bottleneck.encode(self.latents(motion), num_quantizers)

    def decode(self, codes: Tensor, num_frames: int | None = None) -> Tensor:
        """Motion [B, T, D] in raw units of codes [B, L, q], cut to num_frames."""
        return self.synthesize(self.bottleneck.decode(codes))[:, :num_frames]

    def synthesize(self, latents: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Motion [B, L * downsample, D] in raw units of the decoder's input [B, L, C]."""
        return self.normalizer.inverse(self.decoder(latents, tokens))

    @property
    def is_vae(self) -> bool:
        """Whether it has latents instead of codes."""
        return isinstance(self.bottleneck, GaussianBottleneck)

    def encoder_halo(self) -> tuple[int, int]:
        """Token frames before and after one that its latents depend on."""
        first, last = self.encoder.reach(0, 0)
        return -(first // self.downsample), last // self.downsample

    def decoder_halo(self) -> tuple[int, int]:
        """Token frames before and after one that its motion depends on."""
        first, last = self.decoder.reach(0, self.downsample - 1)
        return -first, last


def build_model(config: Config, dim: int) -> MotionTokenizer:
    """An untrained tokenizer of motion with `dim` columns; the same seed gives the same weights."""
    model = config.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        encoder = _part_encoder(dim, model) if model.parts else build_encoder(dim, model)
        bottleneck = build_bottleneck(model.bottleneck, model.latent_dim, config.bottleneck)
        decoder = build_decoder(dim, model)
    if model.parts and (not isinstance(bottleneck, ProductVQ) or len(bottleneck.groups) != len(model.parts)):
        raise UsageError(f"bottleneck.groups is {config.bottleneck.get('groups')}; model.parts has {len(model.parts)}")
    bottleneck.draws.state[0] = config.train.seed
    return MotionTokenizer(encoder, bottleneck, decoder, Normalizer(dim), model.downsample)


def _part_encoder(dim: int, model: ModelConfig) -> PartEncoder:
    """A network for each body part, as many channels as its group has; narrower, so that all cost as much as one."""
    count = len(model.parts)
    columns = part_columns(model.parts, dim)
    width = 8 * math.ceil(model.width / math.sqrt(count) / 8)
    each = [replace(model, width=width, latent_dim=channels) for channels in channels_of(model.latent_dim, count)]
    return PartEncoder([build_encoder(len(own), one) for own, one in zip(columns, each, strict=True)], columns)
