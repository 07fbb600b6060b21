"""Convolution over time, [B, T, C] -> [B, T', C'], each shape of it by the way that was measured to be fastest.

`_images` is oneDNN's, for any shape and device. A kernel of one is a matrix product. Of a kernel of three `_winograd`
gives two frames by four products instead of six: F(2, 3) of S. Winograd (Arithmetic Complexity of Computations, 1980),
which A. Lavin and S. Gray brought to networks (2015). It sums a third as many numbers in one go, so it rounds less.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from vqtool.nn.bottlenecks.nearest import has_avx512

GAIN = 1.15  # of so many times fewer products _winograd is faster: it adds and subtracts frames too,
CHANNELS = 128  # and of so many channels (docs/log.md)


@dataclass(frozen=True)
class Window:
    """Which frames an output frame sees: frames of zeros on both sides of the clip, steps between the taps.

    twins  the input is promised to be every frame twice
    """

    stride: int
    left: int
    right: int
    dilation: int
    twins: bool = False

    @property
    def products(self) -> int:
        """How many `_winograd` makes for two frames: of twins that share a tile the difference is nothing."""
        return 3 if self.twins and self.left == self.dilation == 1 else 4


def convolve(x: Tensor, weight: Tensor, bias: Tensor, window: Window, filters: Callable[[], Tensor]) -> Tensor:
    """[B, T, C] -> [B, T', C'] by weights [C', C, k] and bias [C'].

    filters()  `winograd_filters` of the weights, asked for where they are needed
    """
    products = _by_products(x)
    if products and weight.shape[2] == 1:
        return F.linear(x, weight.squeeze(2), bias)
    tiles = products and winograd_pays(x.shape[1], weight, window)
    if not tiles and window.left != window.right:
        x, window = F.pad(x, (0, 0, window.left, window.right)), replace(window, left=0, right=0)
    if products and torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad or bias.requires_grad):
        out = _Convolution.apply(x, weight, bias, window, filters() if tiles else None)
        assert isinstance(out, Tensor)
        return out
    if tiles:
        return _winograd(x, filters(), bias, window)
    return _images(x, weight, bias, window)


def _by_products(x: Tensor) -> bool:
    """Whether matrix products beat oneDNN: measured with AVX2; autocast is left alone."""
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not has_avx512()


def _images(x: Tensor, weight: Tensor, bias: Tensor, window: Window) -> Tensor:
    """By oneDNN, as images one frame high.

    It convolves images whose channels lie side by side up to 1.5 times as fast as signals, whose frames do
    (docs/log.md).
    """
    stride, padding, dilation = _of_images(window)
    return F.conv2d(_image(x), weight.unsqueeze(2), bias, stride, padding, dilation).squeeze(2).transpose(1, 2)


def _image(x: Tensor) -> Tensor:
    """[B, T, C] as [B, C, 1, T], channels last."""
    return x.transpose(1, 2).unsqueeze(2)


def _of_images(window: Window) -> tuple[list[int], list[int], list[int]]:
    """Stride, padding and dilation of height and width."""
    assert window.left == window.right
    return [1, window.stride], [0, window.left], [1, window.dilation]


# Winograd's way. With the input frames d0..d3 of the output frames y0 and y1, and the taps w0..w2:
#     y0 = (d0 - d2) w0 + (d1 + d2) s + (d2 - d1) t      s = (w0 + w1 + w2) / 2
#     y1 = (d3 - d1) w2 + (d1 + d2) s - (d2 - d1) t      t = (w0 - w1 + w2) / 2
# With dilation d, frames d apart are neighbours: a tile is 2 d frames, its first half y0 and its second half y1.


def winograd_pays(frames: int, weight: Tensor, window: Window) -> bool:
    """Whether `_winograd` is faster: tiles that stick out of the clip cost products, taps outside of it none."""
    if weight.shape[2] != 3 or window.stride != 1 or min(weight.shape[:2]) < CHANNELS:
        return False
    direct = frames + 2 * max(0, frames - window.dilation)
    return direct >= GAIN * window.products * window.dilation * _tiles(frames, window.dilation)


@torch.inference_mode(False)
@torch.no_grad()
def winograd_filters(weight: Tensor) -> Tensor:
    """[C', C, 3] to w0, s, t, w2: [4, C, C']."""
    first, middle, last = weight.permute(2, 1, 0).contiguous()
    ends = (first + last).div_(2)
    half = middle / 2
    return torch.stack([first, ends + half, ends - half, last])


def _tiles(frames: int, dilation: int) -> int:
    return -(-frames // (2 * dilation))


def _winograd(x: Tensor, filters: Tensor | Sequence[Tensor], bias: Tensor | None, window: Window) -> Tensor:
    d0, d1, d2, d3 = _inputs(x, window)
    rows, columns, shape = d0.numel() // d0.shape[-1], filters[0].shape[1], d0.shape[:-1]
    part = torch.empty_like(d0, memory_format=torch.contiguous_format)
    flat = part.view(rows, part.shape[-1])
    torch.add(d1, d2, out=part)
    same = torch.mm(flat, filters[1]) if bias is None else torch.addmm(bias, flat, filters[1])
    other = None
    if window.products == 4:
        torch.sub(d2, d1, out=part)
        other = torch.mm(flat, filters[2])
    # With dilation 1 the output frames are rows of a matrix, every second of them.
    out = x.new_empty(*shape[:2], 2, *shape[2:], columns)
    places = [out[:, :, 0], out[:, :, 1]]
    halves = [p.view(rows, columns) for p in places] if window.dilation == 1 else [torch.empty_like(same), same]
    y0, y1 = halves
    if other is None:
        y0.copy_(same)
        y1.copy_(same)
    else:
        torch.add(same, other, out=y0)
        torch.sub(same, other, out=y1)
    torch.sub(d0, d2, out=part)
    y0.addmm_(flat, filters[0])
    torch.sub(d3, d1, out=part)
    y1.addmm_(flat, filters[3])
    if window.dilation > 1:
        for place, half in zip(places, halves, strict=True):
            place.copy_(half.view(*shape, columns))
    return out.flatten(1, 3)[:, : x.shape[1]]


def _inputs(x: Tensor, window: Window) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """d0..d3 of all tiles, [B, tiles, dilation, C] each: views of the clip with zeros around it."""
    (batch, frames, channels), step = x.shape, window.dilation
    tiles, end = _tiles(frames, step), window.left + frames
    padded = x.new_empty(batch, (2 * tiles + 2) * step, channels)
    padded[:, : window.left] = 0
    padded[:, window.left : end] = x
    padded[:, end:] = 0
    even, odd = padded.view(batch, tiles + 1, 2, step, channels).unbind(2)
    return even[:, :-1], odd[:, :-1], even[:, 1:], odd[:, 1:]


class _Convolution(torch.autograd.Function):
    """`_winograd` by its filters, or `_images` where there are none, with gradients.

    That of the weights is made of matrix products: oneDNN takes up to two and a half times as long with AVX2
    (docs/log.md).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, window: Window, filters: Tensor | None) -> Tensor:
        """As `convolve`."""
        ctx.window = window
        ctx.save_for_backward(x, weight, filters)
        return _images(x, weight, bias, window) if filters is None else _winograd(x, filters, bias, window)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """Gradients of input, weight and bias."""
        (x, weight, filters), window, grad = ctx.saved_tensors, ctx.window, grads[0].contiguous()
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _back_by_winograd(grad, filters, window) if filters is not None else _back(x, weight, grad, window)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_by_taps if filters is None else _weight_by_winograd
            # Strides like those of the weight itself, also where there is one tap: the optimizer and DDP ask for them.
            found = of_weight(x, grad, weight, window).permute(1, 2, 0)
            grad_weight = found.clone(memory_format=torch.contiguous_format)
        return grad_x, grad_weight, grad.sum((0, 1)) if ctx.needs_input_grad[2] else None, None, None


def _back(x: Tensor, weight: Tensor, grad: Tensor, window: Window) -> Tensor:
    """The gradient of the input of `_images`."""
    options = None, *_of_images(window), False, [0, 0], 1, [True, False, False]
    found: Tensor = torch.ops.aten.convolution_backward(_image(grad), _image(x), weight.unsqueeze(2), *options)[0]
    return found.squeeze(2).transpose(1, 2)


def _back_by_winograd(grad: Tensor, filters: Tensor, window: Window) -> Tensor:
    """The same as a convolution whose taps go the other way round, which exchanges w0 and w2."""
    taps = [filters[which].t() for which in (3, 1, 2, 0)]
    left = 2 * window.dilation - window.left
    return _winograd(grad, taps, None, replace(window, left=left, right=window.left, twins=False))


def _weight_by_taps(x: Tensor, grad: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The gradient of the weights, [k, C', C], by a product for each tap, padding left out."""
    frames_in, frames_out, taps = x.shape[1], grad.shape[1], weight.shape[2]
    stride, found = window.stride, x.new_empty(taps, *weight.shape[:2])
    for tap in range(taps):
        shift = tap * window.dilation - window.left  # output frame t reads input frame t * stride + shift
        first, last = max(0, -(shift // stride)), min(frames_out, -((shift - frames_in) // stride))
        if first < last:
            read = x[:, first * stride + shift : (last - 1) * stride + shift + 1 : stride]
            torch.mm(grad[:, first:last].flatten(0, 1).t(), read.flatten(0, 1), out=found[tap])
        else:
            found[tap] = 0.0
    return found


def _weight_by_winograd(x: Tensor, grad: Tensor, weight: Tensor, window: Window) -> Tensor:
    """The gradient of the weights, [3, C', C], by a product for each of w0, s, t and w2."""
    d0, d1, d2, d3 = _inputs(x, window)
    batch, tiles, step, channels = d0.shape
    whole = F.pad(grad, (0, 0, 0, 2 * tiles * step - grad.shape[1])).view(batch, tiles, 2, step, -1)
    y0, y1 = whole.unbind(2)
    pairs = (y0, d0 - d2), (y0 + y1, d1 + d2), (y0 - y1, d2 - d1), (y1, d3 - d1)
    w0, s, t, w2 = (torch.mm(out.flatten(0, 2).t(), given.view(-1, channels)) for out, given in pairs)
    ends = (s + t).div_(2)
    return torch.stack([w0.add_(ends), (s - t).div_(2), w2.add_(ends)])
