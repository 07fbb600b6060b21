"""Convolutions over time that never look at padding, and how far they look."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vqtool.config import ModelConfig
from vqtool.errors import UsageError
from vqtool.nn.bottlenecks.base import Draws
from vqtool.nn.convolution import Window, convolve, winograd_filters

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


class Layer(nn.Module):
    """A step of a `Stack`: [B, T, C] -> [B, T * up / down, C'].

    mask [B, T, 1] is 1 on valid frames; None means that all are. `reach` tells which input frames the output
    frames first..last depend on.
    """

    down = 1
    up = 1

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Apply the layer."""
        raise NotImplementedError

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """Input frames that output frames first..last are made of."""
        return first * self.down // self.up, last * self.down // self.up


class Conv(Layer):
    """A convolution that sees zeros beyond a clip's end, exactly as if the clip were alone.

    T / stride frames come out. `causal`: a frame sees none after its own stride. `twins`: every frame comes twice.
    """

    def __init__(
        self,
        dim_in: int,
        dim_out: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        causal: bool,
        twins: bool = False,
    ) -> None:
        super().__init__()
        self.down = stride
        padding = dilation * (kernel - 1) + 1 - stride
        self.left = padding if causal else padding // 2
        self.right = padding - self.left
        self.window = Window(stride, self.left, self.right, dilation, twins)
        self.conv = nn.Conv1d(dim_in, dim_out, kernel, stride, dilation=dilation)
        self._made: tuple[Tensor, int, Tensor] | None = None

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, C] -> [B, T / stride, C']."""
        if mask is not None and self.left + self.right > 0:
            x = x * mask
        assert self.conv.bias is not None
        return convolve(x, self.conv.weight, self.conv.bias, self.window, self._filters)

    def _filters(self) -> Tensor:
        """Of the weights, made once where nobody trains them.

        torch counts what changes weights in place, but not what writes through their `data`.
        """
        weight = self.conv.weight
        if weight.requires_grad or weight.is_inference():
            self._made = None
            return winograd_filters(weight)
        if self._made is not None:
            held, version, filters = self._made  # what is held cannot give its address to another
            if (held.data_ptr(), held.dtype, version) == (weight.data_ptr(), weight.dtype, weight._version):
                return filters
        self._made = weight.detach(), weight._version, winograd_filters(weight)
        return self._made[2]

    def __getstate__(self) -> dict[str, Any]:
        """Without what is made of the weights."""
        return self.__dict__ | {"_made": None}

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """Input frames that output frames first..last are made of."""
        window = self.conv.dilation[0] * (self.conv.kernel_size[0] - 1)
        return first * self.down - self.left, last * self.down - self.left + window


class Dropout(nn.Module):
    """In training a share of the values is 0 and the rest larger by as much; the draws are in the state."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.draws = Draws(int(torch.randint(2**62, (), device="cpu")))

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        if not self.training:
            return x
        kept = torch.rand(x.shape, generator=self.draws.generator(own=True)) >= self.share
        return x * (kept.to(x) / (1 - self.share))


class Residual(Layer):
    """x + drop(conv1(act(conv3(act(x))))), the block of T2M-GPT's and MoMask's networks."""

    def __init__(self, width: int, dilation: int, activation: str, causal: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.act = ACTIVATIONS[activation]()
        self.wide = Conv(width, width, 3, dilation=dilation, causal=causal)
        self.mix = Conv(width, width, 1, causal=causal)
        self.drop = Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, C] -> the same shape."""
        change = self.drop(self.mix(_activated(self.act, self.wide(self.act(x), mask)), mask))
        return x + change if torch.is_grad_enabled() else change.add_(x)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """As the wide convolution's."""
        return self.wide.reach(first, last)


class Activation(Layer):
    """An elementwise activation."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.act = ACTIVATIONS[name]()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, C] -> the same shape."""
        return _activated(self.act, x)


def _activated(act: nn.Module, x: Tensor) -> Tensor:
    """The activation of what a layer made and nobody else needs: in its place where no gradient will."""
    found: Tensor = x.relu_() if isinstance(act, nn.ReLU) and not torch.is_grad_enabled() else act(x)
    return found


class Fold(Layer):
    """Lay `down` frames side by side: [B, T, C] -> [B, T / down, down * C]."""

    def __init__(self, down: int) -> None:
        super().__init__()
        self.down = down

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Frame t of channel c becomes channel (t mod down) * C + c of frame t / down."""
        return x.reshape(len(x), x.shape[1] // self.down, -1)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """All frames of each group."""
        return first * self.down, last * self.down + self.down - 1


class Unfold(Layer):
    """The inverse of Fold: [B, T, up * C] -> [B, up * T, C]."""

    def __init__(self, up: int) -> None:
        super().__init__()
        self.up = up

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Channel u * C + c of frame t becomes channel c of frame t * up + u."""
        return x.reshape(len(x), x.shape[1] * self.up, -1)


class Double(Layer):
    """Every frame twice."""

    up = 2

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, C] -> [B, 2 T, C]."""
        return x.repeat_interleave(2, dim=1)


class Stack(nn.Module):
    """Layers in order: [B, T, D] -> [B, T', D'], with the mask at each layer's own rate."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply the layers; mask [B, T] is True on valid frames, whole groups of `downsample` at a time."""
        weight = None if mask is None else mask.unsqueeze(2).to(x.dtype)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            x = layer(x, weight)
            if weight is not None and layer.down > 1:
                weight = weight[:, :: layer.down]
            if weight is not None and layer.up > 1:
                weight = weight.repeat_interleave(layer.up, dim=1)
        return x

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """Input frames that output frames first..last depend on; they may lie outside the clip."""
        for layer in reversed(self.layers):
            assert isinstance(layer, Layer)
            first, last = layer.reach(first, last)
        return first, last


class PartEncoder(nn.Module):
    """Stacks of one architecture side by side: each sees its own columns and gives its own channels."""

    def __init__(self, stacks: Iterable[Stack], columns: Iterable[Sequence[int]]) -> None:
        super().__init__()
        self.stacks = nn.ModuleList(stacks)
        for number, own in enumerate(columns):
            self.register_buffer(f"columns_{number}", torch.tensor(own), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, D] -> [B, T', C], the channels of the first stack first."""
        own = [x[..., self.get_buffer(f"columns_{number}")] for number in range(len(self.stacks))]
        return torch.cat([stack(columns, mask) for stack, columns in zip(self.stacks, own, strict=True)], -1)

    def reach(self, first: int, last: int) -> tuple[int, int]:
        """As that of any of them."""
        stack = self.stacks[0]
        assert isinstance(stack, Stack)
        return stack.reach(first, last)


def _residuals(config: ModelConfig) -> list[Layer]:
    """`depth` residual blocks, the widest dilation first (growth 3, depth 3: dilations 9, 3, 1)."""
    dilations = [config.dilation_growth**i for i in reversed(range(config.depth))]
    options = config.activation, config.causal, config.dropout
    return [Residual(config.width, dilation, *options) for dilation in dilations]


def _halvings(config: ModelConfig) -> int:
    """How often the rate is halved; UsageError for options that are none."""
    if config.downsample not in (1, 2, 4, 8):
        raise UsageError(f"model.downsample is 1, 2, 4 or 8, not {config.downsample}")
    if config.activation not in ACTIVATIONS:
        raise UsageError(f"model.activation is one of {', '.join(ACTIVATIONS)}, not {config.activation!r}")
    if config.downsampling not in ("fold", "strided"):
        raise UsageError(f"model.downsampling is 'fold' or 'strided', not {config.downsampling!r}")
    return config.downsample.bit_length() - 1


def build_encoder(dim: int, config: ModelConfig) -> Stack:
    """Motion [B, T, D] -> latents [B, T / downsample, C].

    "strided": halve the rate by stride-2 convolutions, `depth` residual blocks after each (T2M-GPT's network).
    "fold": lay `downsample` frames side by side, one linear layer, then `depth` residual blocks at the token rate.
    """
    width, causal = config.width, config.causal
    halvings = _halvings(config)
    layers: list[Layer]
    if config.downsampling == "fold":
        layers = [Fold(config.downsample), Conv(dim * config.downsample, width, 1, causal=causal), *_residuals(config)]
    else:
        layers = [Conv(dim, width, 3, causal=causal), Activation(config.activation)]
        for _ in range(halvings):
            layers += [Conv(width, width, 4, stride=2, causal=causal), *_residuals(config)]
        if halvings == 0:
            layers += _residuals(config)
    return Stack([*layers, Conv(width, config.latent_dim, 3, causal=causal)])


def build_decoder(dim: int, config: ModelConfig) -> Stack:
    """Latents [B, L, C] -> motion [B, L * downsample, D]; the mirror image of the encoder."""
    width, causal = config.width, config.causal
    halvings = _halvings(config)
    layers: list[Layer] = [Conv(config.latent_dim, width, 3, causal=causal)]
    if config.downsampling == "fold":
        layers += [*_residuals(config), Activation(config.activation)]
        return Stack([*layers, Conv(width, dim * config.downsample, 1, causal=causal), Unfold(config.downsample)])
    layers += [Activation(config.activation)]
    for _ in range(halvings):
        layers += [*_residuals(config), Double(), Conv(width, width, 3, causal=causal, twins=True)]
    if halvings == 0:
        layers += _residuals(config)
    layers += [Conv(width, width, 3, causal=causal), Activation(config.activation)]
    return Stack([*layers, Conv(width, dim, 3, causal=causal)])


def token_mask(mask: Tensor, downsample: int) -> Tensor:
    """Which token frames [B, L] hold any valid frame of mask [B, T]; T is a multiple of downsample."""
    return mask.view(len(mask), -1, downsample).any(2)


def frame_mask(tokens: Tensor, downsample: int) -> Tensor:
    """All frames [B, L * downsample] of the valid token frames [B, L]."""
    return tokens.repeat_interleave(downsample, dim=1)


def pad_edge(frames: Tensor, length: int) -> Tensor:
    """[T, D] made `length` frames long by repeating the last frame; an empty clip is padded with zeros."""
    missing = length - len(frames)
    if missing <= 0:
        return frames
    last = frames[-1:] if len(frames) else torch.zeros(1, frames.shape[1], dtype=frames.dtype, device=frames.device)
    return torch.cat([frames, last.expand(missing, -1)])
