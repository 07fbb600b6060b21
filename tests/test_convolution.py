"""Convolution over time: every way of it gives what torch's own gives, in both directions."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from vqtool.nn import convolution
from vqtool.nn.convolution import Window, convolve, winograd_filters, winograd_pays
from vqtool.nn.layers import Conv

WAYS = pytest.mark.parametrize("way", ["images", "taps", "winograd"])
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["looks-ahead", "causal"])
SHAPE = pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(1, 1, 1), (3, 1, 1), (3, 1, 3), (3, 1, 9), (4, 2, 1)]
)
FRAMES = pytest.mark.parametrize("frames", [2, 8, 38])  # 2: with dilation 9 the outer taps see padding alone


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_torch(x: Tensor, conv: Conv) -> Tensor:
    """What the layer means, by the plainest call."""
    signal = F.pad(x.transpose(1, 2), (conv.left, conv.right))
    inner = conv.conv
    return F.conv1d(signal, inner.weight, inner.bias, inner.stride, 0, inner.dilation).transpose(1, 2)


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all convolutions go that way, those of kernel three at least."""
    monkeypatch.setattr(convolution, "_by_products", lambda x: way != "images")
    monkeypatch.setattr(convolution, "CHANNELS", 1 if way == "winograd" else 1 << 20)
    monkeypatch.setattr(convolution, "GAIN", 0.0)


@pytest.fixture
def winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd's way, whatever this machine takes."""
    take("winograd", monkeypatch)


@WAYS
@CAUSAL
@SHAPE
@FRAMES
def test_a_convolution_and_its_gradients_are_those_of_torch(
    way: str, kernel: int, stride: int, dilation: int, causal: bool, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(way, monkeypatch)
    conv = Conv(3, 2, kernel, stride=stride, dilation=dilation, causal=causal).double()
    x = noise(2, frames, 3).double().requires_grad_()
    found, wanted = conv(x, None), by_torch(x, conv)
    torch.testing.assert_close(found, wanted)
    assert ("_Convolution" in found.grad_fn.name()) == (way != "images" and kernel > 1)
    weights = noise(*found.shape, seed=1).double()
    given = [x, *conv.parameters()]
    ours, theirs = (torch.autograd.grad((out * weights).sum(), given) for out in (found, wanted))
    for ours_of, theirs_of in zip(ours, theirs, strict=True):
        torch.testing.assert_close(ours_of, theirs_of)
    assert way == "images" or ours[1].stride() == conv.conv.weight.stride()  # as the optimizer and DDP ask


@WAYS
@CAUSAL
@SHAPE
@FRAMES
def test_a_network_at_work_convolves_like_one_in_training(
    way: str, kernel: int, stride: int, dilation: int, causal: bool, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(way, monkeypatch)
    conv = Conv(3, 2, kernel, stride=stride, dilation=dilation, causal=causal).requires_grad_(False)
    x = noise(2, frames, 3)
    torch.testing.assert_close(conv(x, None), by_torch(x, conv), atol=1e-6, rtol=1e-5)


@CAUSAL
@pytest.mark.parametrize("dilation", [1, 3])
def test_frames_that_come_twice_spare_a_product_and_change_nothing(
    causal: bool, dilation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    take("winograd", monkeypatch)
    conv = Conv(3, 2, 3, dilation=dilation, causal=causal, twins=True).double()
    assert conv.window.products == (3 if dilation == 1 and not causal else 4)
    x = noise(2, 7, 3).double().requires_grad_()
    found, wanted = (
        way(x.repeat_interleave(2, dim=1)) for way in (lambda y: conv(y, None), lambda y: by_torch(y, conv))
    )
    torch.testing.assert_close(found, wanted)
    given, weights = [x, *conv.parameters()], noise(*found.shape, seed=1).double()
    ours, theirs = (torch.autograd.grad((out * weights).sum(), given) for out in (found, wanted))
    torch.testing.assert_close(ours, theirs)


def test_winograd_rounds_no_more_than_torch(winograd: None) -> None:
    conv, x = Conv(256, 256, 3, causal=False).requires_grad_(False), noise(4, 100, 256)
    exact = by_torch(x.double(), copy.deepcopy(conv).double())
    ours, theirs = conv(x, None) - exact, by_torch(x, conv) - exact
    assert ours.std() < 1.2 * theirs.std()


@CAUSAL
@pytest.mark.parametrize("dilation", [1, 3])
def test_winograd_lets_no_frame_through_that_a_tap_does_not_see(causal: bool, dilation: int, winograd: None) -> None:
    conv = Conv(128, 128, 3, dilation=dilation, causal=causal).requires_grad_(False)
    x = noise(1, 60, 128)
    x[0, 30] = float("nan")
    touched = conv(x, None).isnan().any(2)[0].nonzero().flatten().tolist()
    assert touched == sorted(30 + conv.left - tap * dilation for tap in range(3))


@pytest.mark.parametrize(
    ("frames", "dilation", "pays"),
    [(100, 1, True), (100, 3, True), (16, 1, True), (16, 9, False), (16, 3, True), (32, 9, False)],
)
def test_winograd_is_taken_where_tiles_spare_products(frames: int, dilation: int, pays: bool) -> None:
    weight = noise(256, 256, 3)
    assert winograd_pays(frames, weight, Window(1, dilation, dilation, dilation)) == pays


@pytest.mark.parametrize(("shape", "stride"), [((64, 256, 3), 1), ((256, 256, 1), 1), ((256, 256, 4), 2)])
def test_winograd_is_for_wide_layers_of_kernel_three(shape: tuple[int, int, int], stride: int) -> None:
    assert not winograd_pays(100, noise(*shape), Window(stride, 1, 1, 1))


def change_in_place(conv: Conv) -> Conv:
    conv.conv.weight.mul_(2)
    return conv


def train_a_step(conv: Conv) -> Conv:
    conv.requires_grad_(True)
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.5, fused=True)  # which torch does not count as a change
    conv(noise(1, 20, 128), None).square().sum().backward()
    optimizer.step()
    return conv.requires_grad_(False)


def replace_weights(conv: Conv) -> Conv:
    for _ in range(2):  # the second may get the address of the first
        conv.conv.weight = torch.nn.Parameter(noise(128, 128, 3), requires_grad=False)
        conv(noise(1, 20, 128), None)
        conv.conv.weight = torch.nn.Parameter(noise(128, 128, 3, seed=1), requires_grad=False)
    return conv


def load_others(conv: Conv) -> Conv:
    conv.load_state_dict(Conv(128, 128, 3, causal=False).state_dict())
    return conv


@pytest.mark.parametrize("change", [change_in_place, train_a_step, replace_weights, load_others, copy.deepcopy])
def test_filters_follow_the_weights(change: Callable[[Conv], Conv], winograd: None) -> None:
    conv, x = Conv(128, 128, 3, causal=False).requires_grad_(False), noise(1, 20, 128)
    conv(x, None)
    assert conv._filters() is conv._filters()
    conv = change(conv)
    torch.testing.assert_close(conv(x, None), by_torch(x, conv), atol=1e-4, rtol=1e-4)
    twin = copy.deepcopy(conv).double()
    torch.testing.assert_close(twin(x.double(), None), by_torch(x.double(), twin), atol=1e-12, rtol=1e-12)


def test_a_network_that_was_used_in_inference_mode_still_passes_gradients(winograd: None) -> None:
    conv, x = Conv(128, 128, 3, causal=False).requires_grad_(False), noise(1, 20, 128).requires_grad_()
    with torch.inference_mode():
        conv(x, None)
        made = Conv(128, 128, 3, causal=False).requires_grad_(False)
        torch.testing.assert_close(made(x, None), by_torch(x, made), atol=1e-5, rtol=1e-5)
    conv(x, None).sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_only_what_trains_gets_a_gradient(winograd: None) -> None:
    conv, x = Conv(128, 128, 3, causal=False).requires_grad_(False), noise(1, 20, 128)
    assert conv.conv.bias is not None
    conv.conv.bias.requires_grad_(True)
    conv(x, None).sum().backward()
    assert conv.conv.weight.grad is None
    torch.testing.assert_close(conv.conv.bias.grad, torch.full((128,), 20.0))


def test_no_clips_give_no_frames(winograd: None) -> None:
    conv = Conv(128, 128, 3, causal=False).requires_grad_(False)
    assert conv(noise(0, 20, 128), None).shape == (0, 20, 128)


def test_filters_are_no_part_of_a_copy() -> None:
    conv = Conv(128, 128, 3, causal=False).requires_grad_(False)
    size = len(pickle.dumps(conv))
    conv._filters()
    assert len(pickle.dumps(conv)) == size


def test_filters_of_weights_in_training_are_made_anew() -> None:
    conv = Conv(128, 128, 3, causal=False)
    assert conv._filters() is not conv._filters()


def test_autocast_convolves_in_its_own_type() -> None:
    conv, x = Conv(128, 128, 3, causal=False), noise(1, 20, 128)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x, None).dtype == torch.bfloat16


def test_images_are_taken_where_products_are_not_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "has_avx512", lambda: True)
    weight, bias = noise(128, 128, 3), noise(128)

    def never() -> Tensor:
        raise AssertionError("filters were asked for")

    found = convolve(noise(1, 20, 128), weight, bias, Window(1, 1, 1, 1), never)
    torch.testing.assert_close(found, convolution._images(noise(1, 20, 128), weight, bias, Window(1, 1, 1, 1)))
    assert winograd_filters(weight).shape == (4, 128, 128)
