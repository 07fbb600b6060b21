"""The networks over time: padding that is never seen, a reach that is exact, causality that holds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vqtool.config import ModelConfig
from vqtool.errors import UsageError
from vqtool.nn.bottlenecks import build_bottleneck
from vqtool.nn.layers import (
    Conv,
    Double,
    Fold,
    Layer,
    Residual,
    Stack,
    Unfold,
    build_decoder,
    build_encoder,
    frame_mask,
    pad_edge,
    token_mask,
)
from vqtool.nn.model import MotionTokenizer, Normalizer

D, C = 5, 3
KIND = pytest.mark.parametrize("downsampling", ["fold", "strided"])
DOWN = pytest.mark.parametrize("downsample", [1, 2, 4, 8])
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["looks-ahead", "causal"])
BUILD = pytest.mark.parametrize("build", [build_encoder, build_decoder], ids=["encoder", "decoder"])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def network(build: Any, *, dim: int = D, latent_dim: int = C, **options: Any) -> Stack:
    options = {"width": 4, "depth": 2, "dilation_growth": 3, "activation": "silu", "causal": False} | options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stack: Stack = build(dim, ModelConfig(latent_dim=latent_dim, **options))
        for parameter in stack.parameters():  # nothing may vanish by chance: neither an activation nor a weight
            nn.init.normal_(parameter, std=0.3)
    return stack.double()


def frames_that_matter(stack: Stack, width: int, frames: int, outputs: slice) -> list[int]:
    """Input frames of `frames` that the output frames depend on, by the gradient."""
    x = noise(1, frames, width).double().requires_grad_()
    out = stack(x)[:, outputs]
    assert out.numel() > 0
    (out * noise(*out.shape, seed=1)).sum().backward()
    assert x.grad is not None
    return [int(frame) for frame in (x.grad[0] != 0).any(1).nonzero()[:, 0]]


# Padding


@KIND
@DOWN
@CAUSAL
@pytest.mark.parametrize(
    ("activation", "dtype", "close"),
    [
        ("relu", torch.float32, 1e-5),
        ("relu", torch.float64, 1e-12),
        ("gelu", torch.float64, 1e-12),
        ("silu", torch.float64, 1e-12),
    ],
)
def test_a_padded_clip_has_the_latents_of_the_clip_alone(
    downsampling: str, downsample: int, causal: bool, activation: str, dtype: torch.dtype, close: float
) -> None:
    options = {"downsampling": downsampling, "downsample": downsample, "causal": causal, "activation": activation}
    encoder = build_encoder(D, ModelConfig(latent_dim=C, width=8, depth=2, **options)).to(dtype)  # type: ignore[arg-type]
    lengths = [5 * downsample, 12 * downsample, downsample]
    x = 100 * noise(3, 12 * downsample, D, seed=1).to(dtype)  # in the padding too
    x[1] /= 100
    for row, length in enumerate(lengths):
        x[row, :length] = noise(length, D, seed=row + 2).to(dtype)
    mask = torch.arange(x.shape[1]) < torch.tensor(lengths)[:, None]
    together = encoder(x, mask)
    for row, length in enumerate(lengths):
        alone = encoder(x[row : row + 1, :length])[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=close, rtol=close)


@KIND
@DOWN
@CAUSAL
def test_a_padded_clip_is_decoded_like_the_clip_alone(downsampling: str, downsample: int, causal: bool) -> None:
    decoder = network(build_decoder, downsampling=downsampling, downsample=downsample, causal=causal)
    latents = noise(3, 12, C).double()
    lengths = [5, 12, 1]
    together = decoder(latents, torch.arange(12) < torch.tensor(lengths)[:, None])
    for row, length in enumerate(lengths):
        alone = decoder(latents[row : row + 1, :length])[0]
        assert len(alone) == length * downsample
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-12, rtol=1e-12)


@BUILD
@KIND
def test_no_gradient_reaches_the_padding(build: Any, downsampling: str) -> None:
    width = D if build is build_encoder else C
    stack = network(build, downsampling=downsampling, downsample=4)
    x = noise(1, 48, width).double().requires_grad_()
    valid = torch.arange(48) < 20
    out = stack(x, valid[None])
    out[:, : out.shape[1] * 20 // 48].sum().backward()
    assert x.grad is not None
    assert (x.grad[0, ~valid] == 0).all()


@BUILD
@KIND
def test_a_mask_of_ones_is_no_mask(build: Any, downsampling: str) -> None:
    width = D if build is build_encoder else C
    stack = network(build, downsampling=downsampling, downsample=2)
    x = noise(2, 12, width).double()
    torch.testing.assert_close(stack(x, torch.ones(2, 12, dtype=torch.bool)), stack(x), atol=1e-12, rtol=1e-12)


# Reach


@BUILD
@KIND
@DOWN
@CAUSAL
@pytest.mark.parametrize(("depth", "growth"), [(0, 3), (1, 1), (2, 2)])
def test_reach_is_exactly_where_the_gradient_is(
    build: Any, downsampling: str, downsample: int, causal: bool, depth: int, growth: int
) -> None:
    encodes = build is build_encoder
    options = {"downsampling": downsampling, "downsample": downsample, "causal": causal}
    stack = network(build, **options, depth=depth, dilation_growth=growth)
    rate = downsample if encodes else 1 / downsample
    span = stack.reach(0, 0)[1] - stack.reach(0, 0)[0] + 16
    frames = -(-2 * span // 8) * 8
    middle = int(frames / 2 / rate)
    for output in {middle, middle + (0 if encodes else downsample - 1)}:
        first, last = stack.reach(output, output)
        assert 0 <= first <= last < frames
        found = frames_that_matter(stack, D if encodes else C, frames, slice(output, output + 1))
        assert (found[0], found[-1]) == (first, last)


@BUILD
@KIND
def test_reach_of_a_range_is_from_the_first_to_the_last(build: Any, downsampling: str) -> None:
    stack = network(build, downsampling=downsampling, downsample=4)
    found = frames_that_matter(stack, D if build is build_encoder else C, 240, slice(37, 43))
    assert (found[0], found[-1]) == stack.reach(37, 42)


@KIND
@DOWN
@CAUSAL
def test_halo_is_what_a_token_needs_of_its_neighbours(downsampling: str, downsample: int, causal: bool) -> None:
    options = {"downsampling": downsampling, "downsample": downsample, "causal": causal}
    encoder, decoder = network(build_encoder, **options), network(build_decoder, **options)
    model = MotionTokenizer(encoder, build_bottleneck("vae", C, {}), decoder, Normalizer(D), downsample)
    tokens, middle = 64, 32
    found = frames_that_matter(encoder, D, tokens * downsample, slice(middle, middle + 1))
    needed = sorted({frame // downsample for frame in found})
    assert model.encoder_halo() == (middle - needed[0], needed[-1] - middle)
    found = frames_that_matter(decoder, C, tokens, slice(middle * downsample, (middle + 1) * downsample))
    assert model.decoder_halo() == (middle - found[0], found[-1] - middle)


# Causality


@KIND
@DOWN
def test_a_causal_token_depends_on_no_later_frame(downsampling: str, downsample: int) -> None:
    encoder = network(build_encoder, downsampling=downsampling, downsample=downsample, causal=True)
    x = noise(1, 16 * downsample, D).double()
    before = encoder(x)
    x[:, 9 * downsample :] += 1.0
    after = encoder(x)
    torch.testing.assert_close(after[:, :9], before[:, :9], atol=1e-12, rtol=0)
    assert (after[:, 9] != before[:, 9]).any()


@KIND
@DOWN
def test_a_causal_decoder_looks_at_no_later_token(downsampling: str, downsample: int) -> None:
    decoder = network(build_decoder, downsampling=downsampling, downsample=downsample, causal=True)
    x = noise(1, 16, C).double()
    before = decoder(x)
    x[:, 9:] += 1.0
    after = decoder(x)
    edge = 9 * downsample
    torch.testing.assert_close(after[:, :edge], before[:, :edge], atol=1e-12, rtol=0)
    assert (after[:, edge] != before[:, edge]).any()


@BUILD
@KIND
def test_without_causal_a_frame_looks_both_ways(build: Any, downsampling: str) -> None:
    first, last = network(build, downsampling=downsampling, downsample=2).reach(0, 0)
    assert first < 0 < last


# Shapes


@KIND
@DOWN
@CAUSAL
@pytest.mark.parametrize("dim", [1, 7, 33])
def test_shapes_for_any_number_of_columns(downsampling: str, downsample: int, causal: bool, dim: int) -> None:
    options = {"downsampling": downsampling, "downsample": downsample, "causal": causal, "dim": dim}
    latents = network(build_encoder, **options)(noise(2, 3 * downsample, dim).double())
    assert latents.shape == (2, 3, C)
    assert network(build_decoder, **options)(latents).shape == (2, 3 * downsample, dim)


@pytest.mark.parametrize("downsample", [0, 3, 16])
def test_a_downsample_that_is_no_power_of_two_up_to_8_is_refused(downsample: int) -> None:
    with pytest.raises(UsageError, match=f"downsample is 1, 2, 4 or 8, not {downsample}"):
        network(build_encoder, downsampling="fold", downsample=downsample)


def test_an_unknown_activation_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="one of relu, gelu, silu, not 'tanh'"):
        network(build_encoder, downsampling="fold", downsample=4, activation="tanh")


def test_an_unknown_downsampling_is_refused() -> None:
    with pytest.raises(UsageError, match="'fold' or 'strided', not 'pool'"):
        network(build_decoder, downsampling="pool", downsample=4)


# Single layers


def test_fold_lays_frames_side_by_side() -> None:
    x = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]]])  # four frames, two channels
    assert Fold(2)(x, None).tolist() == [[[1, 10, 2, 20], [3, 30, 4, 40]]]


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_unfold_undoes_fold(factor: int) -> None:
    x = noise(2, 3 * factor, 5)
    assert Unfold(factor)(Fold(factor)(x, None), None).equal(x)
    y = noise(2, 3, 5 * factor)
    assert Fold(factor)(Unfold(factor)(y, None), None).equal(y)


def test_double_repeats_every_frame() -> None:
    assert Double()(torch.tensor([[[1.0], [2.0]]]), None).tolist() == [[[1], [1], [2], [2]]]


@pytest.mark.parametrize("causal", [False, True])
def test_convolution_by_hand(causal: bool) -> None:
    conv = Conv(1, 1, 3, causal=causal)
    with torch.no_grad():
        conv.conv.weight.copy_(torch.tensor([[[1.0, 10.0, 100.0]]]))
        assert conv.conv.bias is not None
        conv.conv.bias.zero_()
    found = conv(torch.tensor([[[1.0], [2.0], [3.0]]]), None).flatten().tolist()
    assert found == ([100, 210, 321] if causal else [210, 321, 32])


def test_the_input_of_a_network_needs_no_gradient() -> None:
    conv = Conv(3, 2, 3, causal=False)
    conv(noise(2, 8, 3), None).sum().backward()
    assert all(parameter.grad is not None for parameter in conv.parameters())


def test_residual_block_adds_to_its_input() -> None:
    block = Residual(4, 2, "relu", causal=False)
    for parameter in block.mix.parameters():
        nn.init.zeros_(parameter)
    x = noise(1, 9, 4)
    assert block(x, None).equal(x)


def test_a_layer_has_to_say_what_it_does() -> None:
    with pytest.raises(NotImplementedError):
        Layer()(noise(1, 1, 4), None)


# Masks and padding of clips


def test_a_token_is_valid_when_any_of_its_frames_is() -> None:
    mask = torch.arange(12) < torch.tensor([12, 5, 4, 0])[:, None]
    assert token_mask(mask, 4).tolist() == [[True] * 3, [True, True, False], [True, False, False], [False] * 3]


def test_all_frames_of_a_valid_token_are_valid() -> None:
    assert frame_mask(torch.tensor([[True, False]]), 3).tolist() == [[True] * 3 + [False] * 3]


def test_pad_edge_repeats_the_last_frame() -> None:
    assert pad_edge(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 4).tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]


def test_pad_edge_leaves_a_clip_of_the_length_alone() -> None:
    clip = noise(4, 2)
    assert pad_edge(clip, 4).equal(clip)


def test_pad_edge_of_an_empty_clip_is_zeros() -> None:
    assert pad_edge(torch.zeros(0, 2), 3).equal(torch.zeros(3, 2))
