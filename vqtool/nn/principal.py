"""A start for networks that fold frames: encoder and decoder as the principal components of the motion.

    frames of a token, folded -> their first components -> latents        residual blocks add almost nothing yet
    latents -> (x, -x) -> act(x) - act(-x) = x -> the components back     true of ReLU, GELU and SiLU

So training begins at the best linear autoencoder instead of at noise, and spends its steps on what is not linear.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from vqtool.nn.bottlenecks.product import ProductVQ
from vqtool.nn.layers import Conv, Layer, PartEncoder, Residual, Stack
from vqtool.nn.model import MotionTokenizer

NOISE = 0.1  # what is left of the random weights beside the components, as a share


@torch.no_grad()
def start_from_components(model: MotionTokenizer, frames: Tensor, seed: int) -> float:
    """Set the weights of a model with `downsampling = "fold"` from normalised motion [N, downsample, D].

    Returns the share of the variance that the components hold. There are as many as the latents have channels, and no
    more than half the decoder's width, the number of samples, or the columns.
    """
    encoder, decoder = model.encoder, model.decoder
    stacks = [(encoder, torch.arange(frames.shape[2]))] if isinstance(encoder, Stack) else _parts(encoder)
    _shrink(decoder)
    into, out = _conv(decoder, 0), _conv(decoder, -2)
    dim, channel, first = frames.shape[2], 0, 0
    groups = model.bottleneck.channels if isinstance(model.bottleneck, ProductVQ) else [model.bottleneck.latent_dim]
    spread = torch.zeros(model.bottleneck.latent_dim)
    for stack, columns in stacks:
        _shrink(stack)
        take, give = _conv(stack, 1), _conv(stack, -1)
        width, channels = take.conv.out_channels, give.conv.out_channels
        rows = frames[:, :, columns].flatten(1)  # [N, downsample * D], as Fold lays them
        count = min(channels, width, into.conv.out_channels // 2 // len(stacks), *rows.shape)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            components = torch.svd_lowrank(rows, min(count + 8, *rows.shape), niter=4)[2][:, :count]
        energy = (rows @ components).square().mean(0)
        place = [channel + number for number in _turns(groups if len(stacks) == 1 else [channels])]
        spread[place[:count]] = energy.sqrt()
        take.conv.weight[:count, :, 0] = components.T
        for number in range(count):
            give.conv.weight[place[number] - channel, number, give.left] += 1.0
            into.conv.weight[first + number, place[number], into.left] += 1.0
        into.conv.weight[first + count : first + 2 * count] = -into.conv.weight[first : first + count]
        folded = (torch.arange(frames.shape[1])[:, None] * dim + columns).flatten()
        out.conv.weight[:, first : first + 2 * count] = 0.0
        out.conv.weight[folded, first : first + count, 0] = components
        out.conv.weight[folded, first + count : first + 2 * count, 0] = -components
        channel, first = channel + channels, first + 2 * count
    model.bottleneck.start(spread)
    return float(spread.square().sum() / frames.square().mean(0).sum().clamp_min(1e-12))


def _turns(groups: list[int]) -> list[int]:
    """The channels of groups of those sizes, the first of each, then the second: all get large components."""
    ends = itertools.accumulate(groups)
    rows = itertools.zip_longest(*(range(end - size, end) for size, end in zip(groups, ends, strict=True)))
    return [channel for row in rows for channel in row if channel is not None]


def _parts(encoder: PartEncoder) -> list[tuple[Stack, Tensor]]:
    stacks = [stack for stack in encoder.stacks if isinstance(stack, Stack)]
    return [(stack, encoder.get_buffer(f"columns_{number}")) for number, stack in enumerate(stacks)]


def _conv(stack: Stack, number: int) -> Conv:
    layer = stack.layers[number]
    assert isinstance(layer, Conv)
    return layer


def _shrink(stack: Stack) -> None:
    """Keep a share of the random weights that lead out of residual blocks and in and out of the stack; no biases."""
    layers: list[Layer] = [layer for layer in stack.layers if isinstance(layer, Conv | Residual)]
    for layer in layers:
        conv = layer.mix if isinstance(layer, Residual) else layer
        assert isinstance(conv, Conv)
        conv.conv.weight *= NOISE
        assert conv.conv.bias is not None
        conv.conv.bias.zero_()
