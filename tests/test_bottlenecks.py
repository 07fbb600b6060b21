"""What every bottleneck promises, parametrized over the table; then what each kind must mean, by hand."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from vqtool.errors import DataError, UsageError
from vqtool.nn.bottlenecks import BOTTLENECKS, Bottleneck, bottleneck_options, build_bottleneck, estimators
from vqtool.nn.bottlenecks.base import Draws, masked_mean, squared_distance
from vqtool.nn.bottlenecks.ema import Codebook, kmeans, segment_sum
from vqtool.nn.bottlenecks.estimators import bridge, rotated
from vqtool.nn.bottlenecks.fsq import FSQ, LEVELS
from vqtool.nn.bottlenecks.nearest import nearest
from vqtool.nn.bottlenecks.rvq import ResidualVQ, VectorQuantizer
from vqtool.nn.bottlenecks.vae import GaussianBottleneck, kl_per_dimension

C = 6
# Options that make a bottleneck small; one that is not named here is tested with its defaults.
SMALL: dict[str, dict[str, Any]] = {
    "vae": {"dim": 4},
    "vq": {"codebook_size": 16},
    "rvq": {"codebook_size": 16, "num_quantizers": 3},
    "fsq": {"codebook_size": 256},
    "product": {"codebook_size": 16},
}
# Options that change how a bottleneck works: what every bottleneck promises, each of these promises too.
KINDS: dict[str, dict[str, Any]] = {
    "vq narrow": {"codebook_dim": 3},
    "rvq narrow": {"codebook_dim": 3, "codebook_update": "gradient"},
    "rvq cosine": {"codebook_dim": 3, "codebook_norm": "l2", "estimator": "rotation"},
    "rvq rotation": {"estimator": "rotation"},
    "rvq simvq": {"codebook_update": "simvq"},
    "rvq beam": {"encode_beam": 4},
    "product narrow": {"codebook_dim": 2, "codebook_norm": "l2", "estimator": "rotation"},
    "product beam": {"num_quantizers": 4, "encode_beam": 4},
}
NAMES = [*BOTTLENECKS, *KINDS]
EVERY = pytest.mark.parametrize("name", NAMES)
DISCRETE = pytest.mark.parametrize("name", [name for name in NAMES if name != "vae"])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make(name: str, *, seed: int = 0, **options: Any) -> Any:
    """A bottleneck in training mode, its codebooks fitted to noise."""
    return copy.deepcopy(_made(name, seed, tuple(options.items())))


@functools.cache
def _made(name: str, seed: int, options: tuple[tuple[str, Any], ...]) -> Bottleneck:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        kind = name.split()[0]
        bottleneck = build_bottleneck(kind, C, SMALL.get(kind, {}) | KINDS.get(name, {}) | dict(options))
    bottleneck.draws.state[0] = seed
    bottleneck.initialize(noise(8 * max(bottleneck.codebook_sizes, default=1), C, seed=seed + 100))
    return bottleneck


def with_codebooks(*codebooks: list[list[float]], **options: Any) -> ResidualVQ:
    """A residual quantizer with these code vectors, each of which has taken one token a step so far."""
    sizes = [len(codebook) for codebook in codebooks]
    shared = options.get("shared_codebook", False)
    layers = options.pop("num_quantizers", len(codebooks))
    options = {"revive_below": 0.0, **options}
    size: Any = sizes[0] if shared else sizes
    rvq = ResidualVQ(len(codebooks[0][0]), num_quantizers=layers, codebook_size=size, **options)
    for layer, codebook in zip(rvq.layers, codebooks, strict=True):
        assert isinstance(layer, Codebook)
        with torch.no_grad():
            layer.vectors.copy_(torch.tensor(codebook))
        layer.counts.fill_(1.0)
        if layer.update_rule == "ema":
            layer.sums.copy_(layer.vectors)
        layer.initialized.fill_(True)
    return rvq


def mask_of(*lengths: int, width: int) -> Tensor:
    """[B, width], True on the first frames of each row."""
    return torch.arange(width) < torch.tensor(lengths)[:, None]


def state(module: torch.nn.Module, *, draws: bool = True) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items() if draws or "draws" not in key}


def step(bottleneck: Any, latents: Tensor, mask: Tensor | None = None) -> Any:
    """Forwards, and the codebooks follow as they do after a training step."""
    output = bottleneck(latents, mask)
    bottleneck.follow([output])
    return output


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(one[key].equal(two[key]) for key in one)


def sum_of_codes(rvq: ResidualVQ, codes: Tensor) -> Tensor:
    """The sum of the code vectors, added in order; codes of -1 add nothing."""
    total = torch.zeros(*codes.shape[:2], rvq.latent_dim)
    for q, codebook in enumerate(rvq.codebooks()):
        rows = codebook.detach()[codes[..., q].clamp_min(0)]
        total = total + torch.where((codes[..., q] >= 0).unsqueeze(-1), rows, 0.0)
    return total


# What every bottleneck promises


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_output_has_the_shape_of_the_latents(name: str, training: bool) -> None:
    output = make(name).train(training)(noise(2, 5, C))
    assert output.latents.shape == (2, 5, C)
    assert output.latents.dtype == torch.float32


@EVERY
def test_forward_leaves_its_latents_as_they_are(name: str) -> None:
    x = noise(2, 5, C)
    before = x.clone()
    make(name)(x, mask_of(5, 2, width=5))
    assert x.equal(before)


@EVERY
def test_losses_are_named_scalars(name: str) -> None:
    losses = make(name)(noise(2, 5, C)).losses
    assert losses.keys() <= {"commitment", "codebook", "kl"}
    assert all(loss.shape == () and loss.isfinite() for loss in losses.values())


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_output_is_zero_where_masked(name: str, training: bool) -> None:
    mask = mask_of(5, 2, width=5)
    output = make(name).train(training)(noise(2, 5, C), mask)
    assert (output.latents[~mask] == 0).all()
    assert (output.latents[mask] != 0).any(1).all()


@EVERY
def test_gradient_is_zero_where_masked(name: str) -> None:
    mask = mask_of(5, 2, width=5)
    x = noise(2, 5, C).requires_grad_()
    output = make(name)(x, mask)
    ((output.latents * noise(2, 5, C, seed=1)).sum() + sum(output.losses.values())).backward()
    assert x.grad is not None
    assert (x.grad[~mask] == 0).all()
    assert (x.grad[mask] != 0).any(1).all()


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_what_lies_in_the_padding_changes_nothing(name: str, training: bool) -> None:
    mask = mask_of(7, 2, 4, width=7)
    x = noise(3, 7, C)
    one, two = make(name).train(training), make(name).train(training)
    clean = step(one, torch.where(mask.unsqueeze(-1), x, 0.0), mask)
    dirty = step(two, torch.where(mask.unsqueeze(-1), x, 1e4 * noise(3, 7, C, seed=1)), mask)
    assert clean.latents.equal(dirty.latents)
    assert same(clean.losses, dirty.losses)
    assert same(state(one), state(two))
    if clean.codes is not None:
        assert clean.codes.equal(dirty.codes)
        assert clean.counts.equal(dirty.counts)


@EVERY
def test_losses_are_those_of_the_valid_tokens_alone(name: str) -> None:
    bottleneck = make(name).eval()
    mask = mask_of(7, 2, 4, width=7)
    x = noise(3, 7, C)
    alone = bottleneck(x[mask][None]).losses
    for key, loss in bottleneck(x, mask).losses.items():
        torch.testing.assert_close(loss, alone[key])


@EVERY
def test_a_batch_that_is_all_padding_changes_no_state_and_has_losses_of_zero(name: str) -> None:
    bottleneck = make(name)
    before = state(bottleneck, draws=False)
    x = noise(2, 5, C).requires_grad_()
    output = step(bottleneck, x, torch.zeros(2, 5, dtype=torch.bool))
    (output.latents.sum() + sum(output.losses.values())).backward()
    assert all(loss == 0 for loss in output.losses.values())
    assert x.grad is None or (x.grad == 0).all()
    assert same(state(bottleneck, draws=False), before)
    assert output.counts is None or output.counts.sum() == 0


@EVERY
def test_eval_changes_no_state(name: str) -> None:
    bottleneck = make(name).eval()
    before = state(bottleneck)
    step(bottleneck, noise(2, 5, C))
    assert same(state(bottleneck), before)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    ("rvq", {"estimator": "diveq", "codebook_update": "gradient"}),
    ("vq narrow", {"codebook_norm": "l2", "codebook_update": "gradient", "revive_below": 0.9, "estimator": "diveq"}),
    ("rvq cosine", {"shared_codebook": True, "quantizer_dropout": 0.5, "revive_below": 0.9}),
    ("vq", {"codebook_update": "simvq", "init": "random", "codebook_dim": 3}),
    ("vq", {"revive_below": 0.9, "ema_decay": 0.5}),
    ("rvq", {"revive_below": 0.9, "ema_decay": 0.5, "quantizer_dropout": 0.5}),
    ("rvq", {"revive_below": 0.9, "ema_decay": 0.5, "shared_codebook": True}),
    ("rvq", {"revive_below": 0.9, "codebook_update": "gradient"}),
    ("vq", {"init": "first", "revive_rule": "absolute", "revive_below": 1.0}),
    ("rvq", {"init": "first", "revive_rule": "absolute", "revive_below": 1.0, "sampling_temperature": 0.5}),
    ("rvq", {"shared_codebook": True, "sampling_temperature": 0.5, "quantizer_dropout": 0.5}),
    ("product", {"revive_below": 0.9, "num_quantizers": 4, "quantizer_dropout": 0.5}),
    ("product", {"estimator": "diveq", "codebook_update": "gradient", "sampling_temperature": 0.5}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_save_load_step_is_step(name: str, options: dict[str, Any]) -> None:
    whole, loaded = make(name, **options), make(name, seed=9, **options)
    for seed in range(3):
        step(whole, noise(4, 10, C, seed=seed))
    loaded.load_state_dict(state(whole))
    for seed in range(3, 6):
        one, two = (step(bottleneck, noise(4, 10, C, seed=seed)) for bottleneck in (whole, loaded))
        assert one.latents.equal(two.latents)
        assert same(one.losses, two.losses)
        assert same(state(whole), state(loaded))


@pytest.mark.parametrize("name", ["vq", "rvq", "product"])
def test_save_load_initialize_is_initialize(name: str) -> None:
    whole, loaded = (build_bottleneck(name, C, SMALL[name]) for _ in range(2))
    whole.draws.state.copy_(torch.tensor([5, 3]))
    loaded.load_state_dict(state(whole))
    for bottleneck in (whole, loaded):
        bottleneck.initialize(noise(200, C))
    assert same(state(whole), state(loaded))


@EVERY
def test_training_is_a_function_of_seed_and_latents(name: str) -> None:
    one, two = make(name), make(name)
    for seed in range(3):
        x = noise(2, 5, C, seed=seed)
        assert step(one, x).latents.equal(step(two, x).latents)
    assert same(state(one), state(two))


@EVERY
@pytest.mark.parametrize("training", [True, False])
def test_autocast_around_it_changes_nothing(name: str, training: bool) -> None:
    x = noise(3, 50, C).bfloat16()
    one, two = make(name).train(training), make(name).train(training)
    plain = step(one, x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = step(two, x)
    assert cast.latents.dtype == torch.float32
    assert cast.latents.equal(plain.latents)
    assert same(cast.losses, plain.losses)
    assert same(state(one), state(two))


@EVERY
def test_state_stays_float32_when_the_latents_are_bfloat16(name: str) -> None:
    bottleneck = make(name)
    bottleneck(noise(2, 5, C).bfloat16())
    assert {value.dtype for value in bottleneck.state_dict().values() if value.is_floating_point()} <= {torch.float32}


@EVERY
def test_gradient_reaches_latents_of_bfloat16(name: str) -> None:
    x = noise(2, 5, C).bfloat16().requires_grad_()
    make(name)(x).latents.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    assert (x.grad != 0).any()


# What every quantizer promises


@DISCRETE
def test_training_eval_and_decode_of_encode_agree_bit_for_bit(name: str) -> None:
    bottleneck = make(name)
    x = noise(4, 20, C)
    evaluated = bottleneck.eval()(x)
    codes = bottleneck.encode(x)
    decoded = bottleneck.decode(codes)
    trained = bottleneck.train()(x)
    assert codes.equal(evaluated.codes)
    assert evaluated.latents.equal(decoded)
    if name.endswith("beam"):  # training takes the nearest code of each layer
        codes = make(name, encode_beam=1).encode(x)
        decoded = bottleneck.decode(codes)
    assert codes.equal(trained.codes)
    assert trained.latents.equal(decoded)


@DISCRETE
def test_encode_under_autocast_gives_the_same_codes(name: str) -> None:
    bottleneck = make(name).eval()
    x = noise(4, 200, C).bfloat16()
    codes = bottleneck.encode(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert bottleneck.encode(x).equal(codes)


@DISCRETE
def test_decode_under_autocast_gives_the_same_latents(name: str) -> None:
    bottleneck = make(name).eval()
    codes = bottleneck.encode(noise(4, 20, C))
    latents = bottleneck.decode(codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert bottleneck.decode(codes).equal(latents)


@DISCRETE
def test_codes_are_int64_inside_the_codebooks(name: str) -> None:
    bottleneck = make(name).eval()
    codes = bottleneck.encode(noise(4, 20, C))
    assert codes.dtype == torch.int64
    assert codes.shape == (4, 20, len(bottleneck.codebook_sizes))
    assert (codes >= 0).all()
    assert (codes < torch.tensor(bottleneck.codebook_sizes)).all()


@DISCRETE
def test_counts_say_how_often_each_layer_used_each_code(name: str) -> None:
    bottleneck = make(name)
    mask = mask_of(20, 3, 0, 11, width=20)
    output = bottleneck(noise(4, 20, C), mask)
    sizes = bottleneck.codebook_sizes
    assert output.counts.shape == (len(sizes), max(sizes))
    assert output.counts.dtype == torch.int64
    for q, size in enumerate(sizes):
        assert output.counts[q].equal(torch.bincount(output.codes[..., q][mask], minlength=size))


@DISCRETE
def test_a_clip_gets_the_same_codes_alone_as_in_a_batch(name: str) -> None:
    bottleneck = make(name).eval()
    x = noise(5, 30, C)
    together = bottleneck.encode(x)
    assert torch.cat([bottleneck.encode(clip[None]) for clip in x]).equal(together)


@DISCRETE
def test_decode_names_the_token_and_layer_of_a_negative_code(name: str) -> None:
    bottleneck = make(name)
    layers = len(bottleneck.codebook_sizes)
    codes = torch.zeros(1, 5, layers, dtype=torch.int64)
    codes[0, 3, -1] = -1
    with pytest.raises(DataError, match=f"code -1 at token 3 of layer {layers - 1} is outside 0"):
        bottleneck.decode(codes)


@DISCRETE
def test_decode_names_the_token_and_layer_of_a_code_beyond_the_codebook(name: str) -> None:
    bottleneck = make(name)
    size = bottleneck.codebook_sizes[0]
    codes = torch.zeros(2, 5, 1, dtype=torch.int64)
    codes[1, 4, 0] = size
    with pytest.raises(DataError, match=rf"code {size} at token 4 of layer 0 is outside 0\.\.{size - 1}$"):
        bottleneck.decode(codes)


@DISCRETE
@pytest.mark.parametrize("extra", [1, 5])
def test_decode_refuses_more_layers_than_there_are(name: str, extra: int) -> None:
    bottleneck = make(name)
    layers = len(bottleneck.codebook_sizes)
    with pytest.raises(DataError, match=f"{layers + extra} layers of codes; this tokenizer has {layers}"):
        bottleneck.decode(torch.zeros(1, 5, layers + extra, dtype=torch.int64))


@DISCRETE
def test_decode_refuses_codes_of_no_layer(name: str) -> None:
    with pytest.raises(DataError, match="0 layers of codes"):
        make(name).decode(torch.zeros(1, 5, 0, dtype=torch.int64))


@DISCRETE
@pytest.mark.parametrize("wrong", [-1, 0, 99])
def test_encode_refuses_a_number_of_layers_that_there_is_not(name: str, wrong: int) -> None:
    with pytest.raises(UsageError, match=f"num_quantizers {wrong}"):
        make(name).encode(noise(1, 5, C), wrong)


@DISCRETE
def test_codebook_keys_lead_to_the_code_vectors(name: str) -> None:
    bottleneck = make(name)
    for key, vectors in zip(bottleneck.codebook_keys(), bottleneck.codebooks(), strict=False):
        assert bottleneck.state_dict()[key].equal(vectors)


@DISCRETE
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_codes_without_doubt_survive_any_move_within_the_tolerance(name: str, offset: float) -> None:
    bottleneck = make(name).double().eval()
    x = noise(1, 400, C).double() + offset
    tolerance = (0.002 if name.endswith("beam") else 0.02) * x.norm(dim=2)  # a beam has more decisions to make
    codes, unsure = bottleneck.search(x, None, tolerance)
    assert 0.02 < unsure.double().mean() < 0.98
    for seed in range(10):
        way = noise(1, 400, C, seed=seed + 1).double()
        moved = x + tolerance.unsqueeze(-1) * way / way.norm(dim=2, keepdim=True)
        changed = (bottleneck.encode(moved) != codes).any(-1)
        assert not (changed & ~unsure).any()


def test_a_continuous_bottleneck_has_neither_codes_nor_counts() -> None:
    output = make("vae")(noise(2, 5, C))
    assert output.codes is None
    assert output.counts is None


def test_a_continuous_bottleneck_refuses_to_encode() -> None:
    with pytest.raises(TypeError, match="continuous"):
        make("vae").encode(noise(2, 5, C))


# The table


def test_an_unknown_bottleneck_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match="no model 'vqvae'; there are vae, vq, rvq, fsq, product"):
        build_bottleneck("vqvae", C, {})


@pytest.mark.parametrize("name", BOTTLENECKS)
def test_an_unknown_option_is_refused_with_the_options_there_are(name: str) -> None:
    known = "dim" if name == "vae" else "codebook_size"
    with pytest.raises(UsageError, match=f"bottleneck '{name}' has no option 'codebok_size'; it takes .*{known}"):
        build_bottleneck(name, C, {"codebok_size": 8})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rvq", {"num_quantizers": 0}, "num_quantizers is from 1 to 64, not 0"),
        ("rvq", {"num_quantizers": 3, "codebook_size": [8, 8]}, "does not give 3 layers"),
        ("vq", {"codebook_size": 0}, "layers of 1 to 1,048,576 codes"),
        ("vq", {"codebook_update": "adam"}, "'ema', 'gradient' or 'simvq', not 'adam'"),
        ("vq", {"init": "zero"}, "init is 'kmeans', 'first' or 'random', not 'zero'"),
        ("rvq", {"estimator": "st"}, "estimator is 'ste', 'rotation' or 'diveq', not 'st'"),
        ("vq", {"codebook_dim": -1}, f"codebook_dim is from 0 to {C}, not -1"),
        ("vq", {"codebook_dim": C + 1}, f"codebook_dim is from 0 to {C}, not {C + 1}"),
        ("rvq", {"codebook_norm": "l1", "codebook_dim": 3}, "codebook_norm is 'none' or 'l2', not 'l1'"),
        ("rvq", {"codebook_norm": "l2"}, "codebook_norm 'l2' needs a codebook_dim"),
        ("rvq", {"encode_beam": 0}, "encode_beam is from 1 to 64, not 0"),
        ("rvq", {"encode_beam": 2, "shared_codebook": True}, "encode_beam is for codebooks of their own"),
        ("rvq", {"encode_beam": 2, "codebook_dim": 3}, "encode_beam is for codebooks of their own"),
        ("rvq", {"revive_rule": "never"}, "revive_rule is 'relative' or 'absolute', not 'never'"),
        ("vq", {"sampling_temperature": -0.5}, "sampling_temperature is from 0 to"),
        ("rvq", {"sampling_temperature": math.nan}, "sampling_temperature is from 0 to"),
        ("rvq", {"num_quantizers": 2, "codebook_size": [8, 4], "shared_codebook": True}, "a shared codebook has one"),
        ("fsq", {"codebook_size": 500}, "no FSQ levels for codebook_size 500"),
        ("fsq", {"levels": [5, 1]}, "each FSQ level is at least 2"),
        ("fsq", {"levels": []}, "each FSQ level is at least 2"),
        ("fsq", {"bound": "relu"}, "'tanh' or 'sigmoid', not 'relu'"),
        ("product", {"groups": 0}, "groups is from 1 to 6 in a latent of 6 channels, not 0"),
        ("product", {"groups": 7}, "groups is from 1 to 6 in a latent of 6 channels, not 7"),
        ("product", {"num_quantizers": 3}, "num_quantizers is a multiple of the 2 groups up to 64, not 3"),
        ("product", {"num_quantizers": 0}, "num_quantizers is a multiple of the 2 groups up to 64, not 0"),
        ("product", {"codebook_size": [8, 8, 8]}, "does not give 2 codebooks"),
    ],
)
def test_an_option_that_cannot_be_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_bottleneck(name, C, options)


# Draws


def test_the_nth_draw_is_a_function_of_seed_and_n() -> None:
    one, two = Draws(3), Draws(3)
    first, second = (torch.rand(4, generator=one.generator()) for _ in range(2))
    assert torch.rand(4, generator=two.generator()).equal(first)
    assert not second.equal(first)
    two.state.copy_(torch.tensor([3, 1]))
    assert torch.rand(4, generator=two.generator()).equal(second)
    assert not torch.rand(4, generator=Draws(4).generator()).equal(first)


def test_draws_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    bottleneck = make("rvq", revive_below=0.9, quantizer_dropout=0.5)
    step(bottleneck, noise(4, 10, C))
    make("vae")(noise(4, 10, C))
    assert torch.get_rng_state().equal(before)


# Straight-through


@pytest.mark.parametrize("layers", range(1, 7))
@pytest.mark.parametrize("training", [True, False])
def test_output_is_bit_equal_to_the_sum_of_its_code_vectors(layers: int, training: bool) -> None:
    rvq = make("rvq", num_quantizers=layers).train(training)
    before = copy.deepcopy(rvq)
    output = rvq(1e3 * noise(3, 20, C))
    assert output.latents.equal(sum_of_codes(before, output.codes))


@pytest.mark.parametrize("update", ["ema", "gradient"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layers", range(1, 7))
def test_gradient_of_the_output_is_the_identity(layers: int, masked: bool, update: str) -> None:
    mask = mask_of(20, 7, 0, width=20) if masked else None
    x = noise(3, 20, C).requires_grad_()
    given = noise(3, 20, C, seed=1)
    make("rvq", num_quantizers=layers, codebook_update=update)(x, mask).latents.backward(given)
    assert x.grad is not None
    assert x.grad.equal(given if mask is None else given * mask.unsqueeze(-1))


def test_gradient_of_the_output_is_the_identity_under_quantizer_dropout() -> None:
    x = noise(8, 5, C).requires_grad_()
    given = noise(8, 5, C, seed=1)
    make("rvq", quantizer_dropout=1.0)(x).latents.backward(given)
    assert x.grad is not None
    assert x.grad.equal(given)


def test_no_gradient_of_the_output_reaches_the_codebooks() -> None:
    rvq = make("rvq", codebook_update="gradient")
    rvq(noise(2, 5, C).requires_grad_()).latents.sum().backward()
    assert all(parameter.grad is None for parameter in rvq.parameters())


# Estimators


@pytest.mark.parametrize("estimator", ["ste", "rotation"])
def test_the_value_of_an_estimator_is_bit_equal_to_the_codes(estimator: str) -> None:
    x, codes = 1e3 * noise(50, C), noise(50, C, seed=1)
    assert bridge(x.requires_grad_(), codes, estimator).equal(codes)


def test_rotation_turns_and_scales_the_gradient_by_hand() -> None:
    x = torch.tensor([[2.0, 0.0]] * 2).requires_grad_()
    codes = torch.tensor([[0.0, 3.0]] * 2)  # a quarter turn and 1.5 times as long: J = 1.5 [[0, -1], [1, 0]]
    bridge(x, codes, "rotation").backward(torch.eye(2))
    torch.testing.assert_close(x.grad, 1.5 * torch.tensor([[0.0, -1.0], [1.0, 0.0]]))


def test_the_turn_of_the_rotation_takes_latents_to_their_codes() -> None:
    x, codes = noise(50, C), noise(50, C, seed=1)
    torch.testing.assert_close(rotated(x, codes), codes)


def test_rotation_keeps_angles_to_the_latent() -> None:
    x, codes, given = noise(50, C).requires_grad_(), noise(50, C, seed=1), noise(50, C, seed=2)
    bridge(x, codes, "rotation").backward(given)
    assert x.grad is not None
    cosine = torch.nn.functional.cosine_similarity
    torch.testing.assert_close(cosine(x.grad, x), cosine(given, codes))
    torch.testing.assert_close(x.grad.norm(dim=1), given.norm(dim=1) * codes.norm(dim=1) / x.norm(dim=1))


@pytest.mark.parametrize("x", [[0.0, 0.0], [-3.0, 0.0], [5.0, 0.0]])
def test_rotation_of_zero_and_of_opposites_is_finite(x: list[float]) -> None:
    latents = torch.tensor([x]).requires_grad_()
    bridge(latents, torch.tensor([[3.0, 0.0]]), "rotation").sum().backward()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()


def test_diveq_shares_the_gradient_between_latents_and_codes_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimators, "DIVEQ_VARIANCE", 0.0)
    x, codes = torch.tensor([[1.0, 1.0]]).requires_grad_(), torch.tensor([[1.0, 5.0]]).requires_grad_()
    value = bridge(x, codes, "diveq", torch.Generator())
    torch.testing.assert_close(value, codes)
    value.backward(torch.tensor([[2.0, 3.0]]))
    torch.testing.assert_close(x.grad, torch.tensor([[2.0, 0.0]]))  # across the error
    torch.testing.assert_close(codes.grad, torch.tensor([[0.0, 3.0]]))  # along it


def test_diveq_is_as_far_from_the_latent_as_the_code_and_near_the_code() -> None:
    x, codes = noise(500, C), noise(500, C, seed=1)
    value = bridge(x, codes, "diveq", torch.Generator().manual_seed(0))
    torch.testing.assert_close((value - x).norm(dim=1), (codes - x).norm(dim=1))
    assert 0 < (value - codes).square().mean() < 2e-3


def test_diveq_gives_the_code_vectors_themselves_in_eval() -> None:
    rvq = make("rvq", estimator="diveq")
    x = noise(2, 30, C)
    assert rvq.eval()(x).latents.equal(rvq.decode(rvq.encode(x)))
    assert not rvq.train()(x).latents.equal(rvq.eval()(x).latents)


@pytest.mark.parametrize(("estimator", "reaches"), [("ste", False), ("rotation", False), ("diveq", True)])
def test_the_gradient_of_the_output_reaches_the_codes_with_diveq_only(estimator: str, reaches: bool) -> None:
    rvq = make("rvq", codebook_update="gradient", estimator=estimator)
    rvq(noise(2, 5, C).requires_grad_()).latents.sum().backward()
    assert [parameter.grad is not None for parameter in rvq.parameters()] == [reaches] * 3


# Narrow codebooks


def test_narrow_codebooks_as_wide_as_the_latents_begin_as_plain_ones() -> None:
    """All principal components only turn the space, which k-means and the nearest code do not see."""
    narrow, plain = (make("rvq", **options).eval() for options in ({"codebook_dim": C}, {}))
    x = noise(4, 50, C)
    assert narrow.encode(x).equal(plain.encode(x))
    torch.testing.assert_close(narrow.decode(plain.encode(x)), plain.decode(plain.encode(x)))


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_gradient_through_projections_that_lose_nothing_is_the_identity(layers: int) -> None:
    rvq = make("rvq", codebook_dim=C, num_quantizers=layers)
    x, given = noise(3, 20, C).requires_grad_(), noise(3, 20, C, seed=1)
    rvq(x).latents.backward(given)
    torch.testing.assert_close(x.grad, given)


def test_projections_begin_as_the_subspace_of_the_latents() -> None:
    vq = build_bottleneck("vq", C, {"codebook_size": 16, "codebook_dim": 2})
    samples = noise(300, 2) @ noise(2, C, seed=1) + 7.0
    vq.initialize(samples)
    layer: Any = vq.layers[0]
    torch.testing.assert_close(layer.outside(layer.inside(samples)), samples)
    assert layer.vectors.shape == (16, 2)


@pytest.mark.parametrize("name", ["vq narrow", "rvq narrow", "rvq cosine"])
def test_the_gradient_of_the_output_trains_both_projections(name: str) -> None:
    bottleneck = make(name)
    (bottleneck(noise(2, 5, C)).latents * noise(2, 5, C, seed=1)).sum().backward()
    for layer in bottleneck.layers:
        for projection in (layer.project_in, layer.project_out):
            assert (projection.weight.grad != 0).any()
            assert (projection.bias.grad != 0).any()


@pytest.mark.parametrize("name", ["vq narrow", "rvq narrow", "rvq cosine", "rvq simvq"])
def test_codebooks_that_are_computed_have_no_keys_and_add_up_to_what_is_decoded(name: str) -> None:
    bottleneck = make(name).eval()
    codes = bottleneck.encode(noise(4, 20, C))
    assert bottleneck.codebook_keys() == []
    assert [book.shape for book in bottleneck.codebooks()] == [(16, C)] * codes.shape[-1]
    assert bottleneck.decode(codes).equal(sum_of_codes(bottleneck, codes))


def test_commitment_of_a_narrow_codebook_is_measured_inside() -> None:
    vq = make("vq narrow").eval()
    x = noise(2, 5, C)
    layer: Any = vq.layers[0]
    error = layer.inside(x) - layer.vectors[vq.encode(x)[..., 0]]
    assert error.shape == (2, 5, 3)
    torch.testing.assert_close(vq(x).losses["commitment"], error.square().mean())


def test_cosine_codes_have_length_one_and_the_nearest_has_the_smallest_angle() -> None:
    vq = make("vq narrow", codebook_norm="l2").eval()
    layer: Any = vq.layers[0]
    torch.testing.assert_close(layer.codes().norm(dim=1), torch.ones(16))
    x = noise(2, 50, C)
    angles = torch.nn.functional.linear(x, layer.project_in.weight, layer.project_in.bias) @ layer.codes().T
    assert vq.encode(x)[..., 0].equal(angles.argmax(-1))


def test_moving_averages_and_revival_of_a_narrow_codebook_work_inside() -> None:
    vq = make("vq narrow", ema_decay=0.0, revive_below=0.9)
    x = noise(2, 100, C)
    layer: Any = vq.layers[0]
    inside = layer.inside(x).flatten(0, 1)
    index = step(vq, x).codes.flatten()
    counts = torch.bincount(index, minlength=16)
    alive = counts >= 0.9 * 200 / 16
    assert 0 < alive.sum() < 16
    means = segment_sum(inside, index, 16) / counts[:, None]
    torch.testing.assert_close(layer.vectors[alive], means[alive])
    assert all((inside == vector).all(1).any() for vector in layer.vectors[~alive])


# SimVQ


def test_simvq_begins_with_k_means_and_an_identity() -> None:
    simvq, plain = make("rvq simvq"), make("rvq")
    assert all(one.equal(two) for one, two in zip(simvq.codebooks(), plain.codebooks(), strict=True))


def test_simvq_moves_all_codes_by_its_map_alone() -> None:
    rvq = make("rvq simvq", revive_below=1.0)
    books, base = [book.detach() for book in rvq.codebooks()], [layer.vectors.clone() for layer in rvq.layers]
    optimizer = torch.optim.SGD(rvq.parameters(), lr=0.1)
    rvq(noise(1, 3, C)).losses["codebook"].backward()  # of three tokens
    optimizer.step()
    assert [name for name, _ in rvq.named_parameters()] == [f"layers.{q}.map.weight" for q in range(3)]
    for layer, before, book in zip(rvq.layers, base, books, strict=True):
        assert layer.vectors.equal(before)
        assert (layer.codes() != book).any(1).all()
        torch.testing.assert_close(layer.codes(), before @ layer.map.weight.T)


def test_random_begins_with_the_mean_and_spread_of_the_latents() -> None:
    vq = build_bottleneck("vq", 2, {"codebook_size": 4096, "init": "random", "codebook_update": "simvq"})
    vq.initialize(noise(500, 2) * torch.tensor([1.0, 5.0]) + torch.tensor([0.0, 20.0]))
    torch.testing.assert_close(vq.codebooks()[0].mean(0), torch.tensor([0.0, 20.0]), atol=0.5, rtol=0)
    torch.testing.assert_close(vq.codebooks()[0].std(0), torch.tensor([1.0, 5.0]), atol=0, rtol=0.1)


# Residual quantization


def test_each_layer_quantizes_what_the_ones_before_left_over() -> None:
    rvq = make("rvq").eval()
    x = noise(2, 30, C)
    codes = rvq.encode(x)
    residual = x.flatten(0, 1)
    for q, codebook in enumerate(rvq.codebooks()):
        index = nearest(residual, codebook)
        assert codes[..., q].flatten().equal(index)
        residual = residual - codebook[index]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_codes_of_the_first_layers_are_the_first_codes(layers: int) -> None:
    rvq = make("rvq").eval()
    x = noise(2, 30, C)
    assert rvq.encode(x, layers).equal(rvq.encode(x)[..., :layers])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_first_layers_decode_to_a_partial_sum(layers: int) -> None:
    rvq = make("rvq").eval()
    codes = rvq.encode(noise(2, 30, C))
    expected = sum(rvq.codebooks()[q][codes[..., q]] for q in range(layers))
    assert rvq.decode(codes[..., :layers]).equal(expected)


def test_every_layer_more_brings_the_output_nearer() -> None:
    rvq = make("rvq", num_quantizers=6).eval()
    x = noise(1, 500, C)
    codes = rvq.encode(x)
    errors = [(rvq.decode(codes[..., :q]) - x).square().mean().item() for q in range(1, 7)]
    assert errors == sorted(errors, reverse=True)


def test_layers_may_have_codebooks_of_different_sizes() -> None:
    rvq = make("rvq", num_quantizers=3, codebook_size=(4, 16, 2))
    output = rvq(noise(4, 20, C))
    assert [len(codebook) for codebook in rvq.codebooks()] == [4, 16, 2]
    assert (output.codes.amax((0, 1)) < torch.tensor([4, 16, 2])).all()
    assert (output.counts[0, 4:] == 0).all()


def test_vq_is_rvq_with_one_layer() -> None:
    vq, rvq = make("vq"), make("rvq", num_quantizers=1)
    x = noise(2, 30, C)
    assert step(vq, x).latents.equal(step(rvq, x).latents)
    assert isinstance(vq, VectorQuantizer)
    assert same(state(vq), state(rvq))


# Beam search


def test_a_beam_finds_the_sum_that_the_nearest_code_of_each_layer_misses() -> None:
    books = ([[0.0], [10.0]], [[-5.0], [1.0]])
    x = torch.tensor([[[4.9]]])  # 0 is nearer than 10, and leaves more
    assert with_codebooks(*books).eval().encode(x).flatten().tolist() == [0, 1]
    assert with_codebooks(*books, encode_beam=2).eval().encode(x).flatten().tolist() == [1, 0]


@pytest.mark.parametrize("double", [False, True])
def test_a_beam_as_wide_as_all_sums_finds_the_nearest_of_all(double: bool) -> None:
    rvq = make("rvq", codebook_size=5, encode_beam=25).eval()
    rvq, x = (rvq.double(), noise(1, 300, C).double()) if double else (rvq, noise(1, 300, C))
    choices = torch.cartesian_prod(*[torch.arange(5)] * 3)
    sums = rvq.decode(choices[None])[0]
    assert rvq.encode(x)[0].equal(choices[torch.cdist(x[0].double(), sums.double()).argmin(1)])


def test_a_wider_beam_comes_nearer_to_the_latents() -> None:
    x, errors = noise(1, 500, C), []
    for width in (1, 2, 4, 8):
        rvq = make("rvq", num_quantizers=6, encode_beam=width).eval()
        errors.append((rvq.decode(rvq.encode(x)) - x).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.9 * errors[0]


def test_a_beam_takes_the_lowest_of_equal_codes_in_every_layer() -> None:
    book = noise(8, C)
    twice = torch.cat([book, book]).tolist()
    beam = with_codebooks(twice, twice, twice, encode_beam=3).eval()
    for x in (noise(1, 200, C, seed=1), noise(1, 200, C, seed=1).double()):
        codes = beam.encode(x)
        assert (codes < 8).all()
        assert codes.equal(torch.cat([beam.encode(token[None, None]) for token in x[0]], 1))


def test_a_beam_doubts_a_token_of_which_a_move_could_change_what_is_kept() -> None:
    beam = with_codebooks([[0.0], [1.0], [2.1]], [[0.0], [0.1]], encode_beam=2).eval().double()
    x = torch.tensor([[[1.0501], [0.6]]]).double()  # 1.05 is as far from 0 as from 2.1
    assert beam.search(x, None, torch.full((1, 2), 1e-3).double())[1].tolist() == [[True, False]]
    assert beam.search(x, None, torch.full((1, 2), 1e-6).double())[1].tolist() == [[False, False]]


def test_a_beam_of_fewer_layers_ends_with_the_nearest_sum_of_those() -> None:
    rvq = make("rvq beam").eval()
    x = noise(1, 100, C)
    assert rvq.encode(x, 1).equal(make("rvq").eval().encode(x, 1))


# Groups of channels: of 6 channels in 4 groups the first two have 2, the others 1; two layers each.

FOUR: dict[str, Any] = {"groups": 4, "num_quantizers": 8, "codebook_size": (16, 16, 4, 8, 8, 16, 4, 8)}
CHANNELS = [slice(0, 2), slice(2, 4), slice(4, 5), slice(5, 6)]


def test_a_group_depends_on_its_own_channels_alone() -> None:
    product = make("product", **FOUR).eval()
    x = noise(2, 30, C)
    codes, latents = product.encode(x), product(x).latents
    for group, channels in enumerate(CHANNELS):
        moved = x.clone()
        moved[..., channels] += 1.0
        others = [column for column in range(8) if column % 4 != group]
        assert product.encode(moved)[..., others].equal(codes[..., others])
        assert not product.encode(moved)[..., group].equal(codes[..., group])
        rest = [channel for channel in range(C) if channel not in range(C)[channels]]
        assert product(moved).latents[..., rest].equal(latents[..., rest])


def test_each_group_is_a_residual_quantizer_of_its_channels() -> None:
    product = make("product", **FOUR).eval()
    x = noise(2, 30, C)
    codes = product.encode(x)
    assert [tuple(book.shape) for book in product.codebooks()] == [
        (size, channels) for size, channels in zip(FOUR["codebook_size"], [2, 2, 1, 1] * 2, strict=True)
    ]
    for group, channels in enumerate(CHANNELS):
        residual = x[..., channels].flatten(0, 1)
        for column in (group, group + 4):
            index = nearest(residual, product.codebooks()[column])
            assert codes[..., column].flatten().equal(index)
            residual = residual - product.codebooks()[column][index]


def test_a_product_decodes_whole_layers_and_refuses_a_part_of_one() -> None:
    product = make("product", **FOUR).eval()
    x = noise(2, 30, C)
    codes = product.encode(x)
    assert product.encode(x, 4).equal(codes[..., :4])
    first = [product.codebooks()[group][codes[..., group]] for group in range(4)]
    assert product.decode(codes[..., :4]).equal(torch.cat(first, -1))
    with pytest.raises(UsageError, match="num_quantizers 6: no multiple of this tokenizer's 4 groups"):
        product.encode(x, 6)
    with pytest.raises(DataError, match="6 layers of codes, no multiple of this tokenizer's 4 groups"):
        product.decode(codes[..., :6])


@pytest.mark.parametrize(
    "options",
    [
        *(options for name, options in [("rvq", {}), *KINDS.items()] if name.startswith("rvq")),
        {"init": "first", "revive_rule": "absolute", "revive_below": 1.0, "sampling_temperature": 0.5},
    ],
)
def test_one_group_is_rvq(options: dict[str, Any]) -> None:
    product, rvq = make("product", groups=1, num_quantizers=3, **options), make("rvq", **options)
    for seed in range(3):
        one, two = (step(bottleneck, noise(4, 10, C, seed=seed)) for bottleneck in (product, rvq))
        assert one.latents.equal(two.latents)
        assert one.codes.equal(two.codes)
        assert same(one.losses, two.losses)
    assert product.eval().encode(noise(4, 10, C)).equal(rvq.eval().encode(noise(4, 10, C)))


def test_the_groups_of_a_product_know_every_option_of_a_residual_quantizer() -> None:
    known = [set(bottleneck_options(name, {})) for name in ("product", "rvq")]
    assert known[0] - known[1] == {"groups"} and known[1] <= known[0]


def test_gradient_of_the_output_of_a_product_is_the_identity() -> None:
    x = noise(3, 20, C).requires_grad_()
    given = noise(3, 20, C, seed=1)
    make("product", **FOUR)(x).latents.backward(given)
    assert x.grad is not None
    assert x.grad.equal(given)


# Losses of a residual quantizer: x = 1.75 takes codes 1 and 0.5 and leaves 0.25, x = 3 takes 4 and -0.5, leaves -0.5.

EXAMPLE = ([[1.0], [4.0]], [[0.5], [-0.5]])
EXAMPLE_X = torch.tensor([[[1.75], [3.0]]])
EXAMPLE_LOSS = (0.75**2 + 1**2 + 0.25**2 + 0.5**2) / 4


def test_commitment_is_the_mean_over_tokens_and_layers() -> None:
    assert with_codebooks(*EXAMPLE)(EXAMPLE_X).losses["commitment"].item() == pytest.approx(EXAMPLE_LOSS)


def test_commitment_leaves_padding_out() -> None:
    x = torch.cat([EXAMPLE_X, torch.full((1, 3, 1), 77.0)], 1)
    loss = with_codebooks(*EXAMPLE)(x, mask_of(2, width=5)).losses["commitment"]
    assert loss.item() == pytest.approx(EXAMPLE_LOSS)


def test_commitment_gradient_reaches_the_latents_through_every_layer() -> None:
    x = EXAMPLE_X.clone().requires_grad_()
    with_codebooks(*EXAMPLE)(x).losses["commitment"].backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([2 * (0.75 + 0.25) / 4, 2 * (-1 - 0.5) / 4]))


@pytest.mark.parametrize("layers", range(1, 7))
def test_commitment_does_not_depend_on_the_number_of_layers_that_are_alike(layers: int) -> None:
    rvq = with_codebooks(*[[[0.0, 0.0]]] * layers)
    x = noise(2, 5, 2)
    torch.testing.assert_close(rvq(x).losses["commitment"], x.square().mean())


def test_ema_has_no_codebook_loss() -> None:
    assert with_codebooks(*EXAMPLE)(EXAMPLE_X).losses.keys() == {"commitment"}


def test_gradient_codebooks_have_both_losses_unweighted() -> None:
    losses = with_codebooks(*EXAMPLE, codebook_update="gradient")(EXAMPLE_X).losses
    assert losses.keys() == {"commitment", "codebook"}
    assert losses["codebook"].item() == losses["commitment"].item() == pytest.approx(EXAMPLE_LOSS)


def test_codebook_loss_pulls_the_codes_and_not_the_latents() -> None:
    rvq = with_codebooks(*EXAMPLE, codebook_update="gradient")
    x = EXAMPLE_X.clone().requires_grad_()
    rvq(x).losses["codebook"].backward()
    assert x.grad is None
    found = [parameter.grad for parameter in rvq.parameters()]
    torch.testing.assert_close(found[0], torch.tensor([[-2 * 0.75 / 4], [2 * 1.0 / 4]]))
    torch.testing.assert_close(found[1], torch.tensor([[-2 * 0.25 / 4], [2 * 0.5 / 4]]))


def test_commitment_does_not_pull_the_codes() -> None:
    rvq = with_codebooks(*EXAMPLE, codebook_update="gradient")
    rvq(EXAMPLE_X.clone().requires_grad_()).losses["commitment"].backward()
    assert all(parameter.grad is None for parameter in rvq.parameters())


def test_squared_distance_and_its_gradient_are_those_of_the_plain_formula() -> None:
    x, target = noise(40, 30).requires_grad_(), noise(40, 30, seed=1).requires_grad_()
    found = squared_distance(x, target)
    torch.testing.assert_close(found, (x - target).square().sum())
    (3 * found).backward()
    torch.testing.assert_close(x.grad, 6 * (x - target).detach())
    assert target.grad is None


def test_squared_distance_adds_many_numbers_exactly_enough() -> None:
    x = torch.full((4096, 512), 1.1)
    exact = 4096 * 512 * float(torch.tensor(1.1)) ** 2
    assert abs(squared_distance(x, torch.zeros_like(x)).item() / exact - 1) < 1e-6


def test_masked_mean_of_nothing_is_zero() -> None:
    assert masked_mean(noise(2, 3, 4), torch.zeros(2, 3, dtype=torch.bool)) == 0


# Moving averages


def test_ema_by_hand() -> None:
    rvq = with_codebooks([[0.0], [10.0]], ema_decay=0.5)
    book: Any = rvq.layers[0]
    book.counts.copy_(torch.tensor([2.0, 2.0]))
    book.sums.copy_(torch.tensor([[0.0], [20.0]]))
    step(rvq, torch.tensor([[[1.0], [3.0], [9.0]]]))  # codes 0, 0, 1
    assert book.counts.tolist() == [0.5 * 2 + 0.5 * 2, 0.5 * 2 + 0.5 * 1]
    assert book.sums.flatten().tolist() == [0.5 * 0 + 0.5 * 4, 0.5 * 20 + 0.5 * 9]
    torch.testing.assert_close(book.vectors.flatten(), torch.tensor([2 / 2, 14.5 / 1.5]))


def test_the_output_of_a_step_is_made_of_the_codes_before_it() -> None:
    rvq = with_codebooks([[0.0], [10.0]], ema_decay=0.5)
    assert rvq(torch.tensor([[[1.0], [9.0]]])).latents.flatten().tolist() == [0.0, 10.0]


def test_an_idle_code_stays_exactly_where_it_is() -> None:
    rvq = with_codebooks([[0.1, 0.7], [-3.3, 1.7]], ema_decay=0.9)
    book: Any = rvq.layers[0]
    idle = book.vectors[1].clone()
    for seed in range(100):
        step(rvq, 0.1 * noise(1, 8, 2, seed=seed))
        assert book.vectors[1].equal(idle)
    assert book.counts[1] < 1e-3
    assert not book.vectors[0].equal(torch.tensor([0.1, 0.7]))


def test_a_code_with_next_to_no_count_is_left_alone() -> None:
    rvq = with_codebooks([[5.0], [90.0]], ema_decay=0.9999)
    book: Any = rvq.layers[0]
    book.counts.zero_()
    book.sums.zero_()
    step(rvq, torch.tensor([[[4.0]]]))
    assert book.counts[0].item() == pytest.approx(1e-4, rel=1e-3)
    assert book.vectors.flatten().tolist() == [5.0, 90.0]


def test_a_code_in_use_is_the_mean_of_its_tokens_without_smoothing() -> None:
    rvq = with_codebooks([[0.0, 0.0], [50.0, 50.0]], ema_decay=0.5)
    x = torch.tensor([[[2.0, 1.0], [4.0, 3.0]]])
    for _ in range(60):
        step(rvq, x)
    torch.testing.assert_close(rvq.codebooks()[0][0], torch.tensor([3.0, 2.0]), rtol=1e-6, atol=0)


def test_a_shared_codebook_gets_one_update_from_the_pairs_of_all_layers() -> None:
    rvq = with_codebooks([[0.0], [4.0]], num_quantizers=2, shared_codebook=True, ema_decay=0.5)
    book: Any = rvq.layers[0]
    assert len(rvq.layers) == 1
    step(rvq, torch.tensor([[[5.0]]]))  # 5 takes code 1, the rest of 1 takes code 0
    assert book.counts.tolist() == [0.5 + 0.5, 0.5 + 0.5]
    assert book.sums.flatten().tolist() == [0.5 * 0 + 0.5 * 1, 0.5 * 4 + 0.5 * 5]
    torch.testing.assert_close(book.vectors.flatten(), torch.tensor([0.5, 4.5]))


def test_segment_sum_adds_up_the_vectors_of_each_index() -> None:
    vectors, indices = noise(50, 3), torch.arange(50) * 7 % 5
    expected = torch.zeros(8, 3).index_add_(0, indices, vectors)
    torch.testing.assert_close(segment_sum(vectors, indices, 8), expected)


# Revival of dead codes


def book_with(counts: list[float], *, revive_below: float = 0.5) -> Codebook:
    """Codes at 100, 101, ..., whose counts `update` leaves as they are."""
    book = Codebook(len(counts), 1, decay=1.0, revive_below=revive_below)
    book.vectors.copy_(100 + torch.arange(len(counts))[:, None])
    book.counts.copy_(torch.tensor(counts))
    book.sums.copy_(book.vectors * book.counts[:, None])
    book.initialized.fill_(True)
    return book


def revive(book: Codebook, vectors: Tensor, seed: int = 0) -> list[int]:
    """Update with vectors [N] that all belong to code 0; which codes moved onto one of them."""
    taken = book.statistics(vectors[:, None], torch.zeros(len(vectors), dtype=torch.int64))
    book.update(*taken, vectors[:, None], torch.Generator().manual_seed(seed))
    return (book.vectors[:, 0] < 99).nonzero()[:, 0].tolist()


@pytest.mark.parametrize(("count", "moved"), [(4.2, [3]), (4.4, [])])  # dead below 0.5 (30 + n) / 4: n < 4.29
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_a_code_is_dead_below_its_share_of_the_mean_use_however_large_the_batch(
    count: float, moved: list[int], scale: float
) -> None:
    assert revive(book_with([10 * scale, 10 * scale, 10 * scale, count * scale]), torch.arange(8.0)) == moved


def test_a_revived_code_lies_on_a_token_with_the_mean_count_and_its_sum() -> None:
    book = book_with([10.0, 10.0, 10.0, 2.0])
    revive(book, torch.arange(8.0))
    assert book.vectors[3].item() in range(8)
    assert book.counts[3] == 32 / 4
    assert book.sums[3] == book.vectors[3] * 8


def test_codes_that_are_alive_keep_their_state_when_others_are_revived() -> None:
    book = book_with([10.0, 10.0, 10.0, 2.0])
    before = state(book)
    revive(book, torch.arange(8.0))
    for key in ("vectors", "counts", "sums"):
        assert book.state_dict()[key][:3].equal(before[key][:3])


def test_revived_codes_lie_on_different_tokens() -> None:
    book = book_with([100.0, *[0.0] * 20])
    assert revive(book, torch.arange(20.0)) == list(range(1, 21))
    assert sorted(book.vectors[1:, 0].tolist()) == list(range(20))


def test_no_more_codes_are_revived_than_there_are_tokens() -> None:
    assert len(revive(book_with([100.0, *[0.0] * 20]), torch.arange(3.0))) == 3


def test_tokens_to_revive_onto_are_drawn_from_the_whole_batch() -> None:
    book = book_with([100.0, *[0.0] * 10])
    revive(book, torch.arange(90.0))
    assert book.vectors[1:, 0].max() > 30
    assert book.vectors[1:, 0].tolist() != sorted(book.vectors[1:, 0].tolist())


def test_revival_is_a_function_of_the_seed() -> None:
    found = []
    for seed in (1, 1, 2):
        book = book_with([100.0, *[0.0] * 10])
        revive(book, torch.arange(90.0), seed)
        found.append(book.vectors.flatten().tolist())
    assert found[0] == found[1] != found[2]


def test_revive_below_0_revives_nothing() -> None:
    assert revive(book_with([100.0, 0.0, 0.0, 0.0], revive_below=0.0), torch.arange(8.0)) == []


@pytest.mark.parametrize("name", ["vq", "rvq", "product"])
def test_codebooks_follow_the_batches_of_a_step_as_they_follow_one_of_them_all(name: str) -> None:
    whole, parts = make(name, revive_below=0.9), make(name, revive_below=0.9)
    x, mask = noise(5, 20, C), mask_of(20, 3, 20, 11, 20, width=20)
    step(whole, x, mask)
    parts.follow([parts(x[:2], mask[:2]), parts(x[2:], mask[2:])])
    assert same(state(whole), state(parts))


def test_the_codebooks_stay_until_they_are_told_to_follow() -> None:
    rvq = make("rvq", revive_below=0.9)
    before = state(rvq)
    output = rvq(noise(2, 30, C))
    assert same(state(rvq), before)
    rvq.follow([output])
    assert not same(state(rvq), before)


def test_padding_is_never_a_token_to_revive_onto() -> None:
    rvq = with_codebooks([[0.0], *[[900.0]] * 15], revive_below=0.9, ema_decay=0.1)
    x = noise(2, 30, 1)
    x[1] = 500.0
    step(rvq, x, mask_of(30, 0, width=30))
    vectors = rvq.codebooks()[0]
    assert (vectors < 10).all()


def test_a_dropped_sample_is_never_a_token_to_revive_onto() -> None:
    rvq = with_codebooks([[0.0]], [[0.0], *[[9e5]] * 15], revive_below=0.9, ema_decay=0.1, quantizer_dropout=1.0)
    x = torch.arange(40.0)[:, None, None].expand(-1, 3, 1)
    kept = step(rvq, x).codes[:, 0, 1] >= 0
    assert 0 < kept.sum() < 40
    assert set(rvq.codebooks()[1].flatten().tolist()[1:]) <= set(x[kept].flatten().tolist())


def test_nothing_is_revived_in_eval() -> None:
    rvq = with_codebooks([[0.0], *[[900.0]] * 15], revive_below=0.9, ema_decay=0.1).eval()
    before = state(rvq)
    step(rvq, noise(2, 30, 1))
    assert same(state(rvq), before)


def test_gradient_codebooks_are_revived_too() -> None:
    rvq = with_codebooks([[0.0], *[[900.0]] * 15], revive_below=0.9, ema_decay=0.1, codebook_update="gradient")
    losses = step(rvq, noise(2, 30, 1).requires_grad_()).losses
    (losses["commitment"] + losses["codebook"]).backward()
    assert (rvq.codebooks()[0] < 10).all()


# The rules of T2M-GPT and MoMask


def peers_book(counts: list[float]) -> Codebook:
    book = book_with(counts, revive_below=1.0)
    book.revive_rule = "absolute"
    return book


def test_absolute_revival_puts_code_k_onto_token_k_and_leaves_its_averages() -> None:
    book = peers_book([5.0, 1.0, 0.9, 0.0])
    before = state(book)
    assert revive(book, torch.arange(8.0)) == [2, 3]
    assert book.vectors[2:, 0].tolist() == [2.0, 3.0]
    for key in ("counts", "sums"):
        assert book.state_dict()[key].equal(before[key])


def test_absolute_revival_is_over_when_the_count_has_grown_to_one() -> None:
    rvq = with_codebooks([[0.0], [9.0]], ema_decay=0.5, revive_rule="absolute", revive_below=1.0)
    book: Any = rvq.layers[0]
    book.counts.zero_()
    book.sums.zero_()
    x = torch.tensor([[[0.1], [8.0], [0.3]]])
    step(rvq, x)  # counts 1 and 0.5: code 0 is the mean of its tokens, code 1 lies on token 1
    torch.testing.assert_close(book.vectors.flatten(), torch.tensor([0.2, 8.0]))
    step(rvq, torch.tensor([[[0.1], [8.4], [0.3], [8.4]]]))  # counts 1.5 and 1.25
    torch.testing.assert_close(book.vectors.flatten(), torch.tensor([0.3 / 1.5, (0.5 * 8.0 + 2 * 8.4) / 2 / 1.25]))


def test_absolute_revival_repeats_a_batch_that_is_smaller_than_the_codebook_with_a_little_noise() -> None:
    book = peers_book([0.0] * 7)
    revive(book, torch.tensor([10.0, 20.0, 30.0]))
    nearby = book.vectors[:, 0] - torch.tensor([10.0, 20.0, 30.0, 10.0, 20.0, 30.0, 10.0])
    assert nearby.abs().max() < 0.05
    assert len(nearby.unique()) == 7


def test_first_begins_with_the_first_latents_each_counted_once() -> None:
    vq = build_bottleneck("vq", C, {"codebook_size": 16, "init": "first"})
    x = noise(20, C)
    vq.initialize(x)
    book: Any = vq.layers[0]
    assert book.vectors.equal(x[:16])
    assert book.sums.equal(x[:16])
    assert book.counts.tolist() == [1.0] * 16


def test_first_begins_deeper_layers_with_what_drawn_codes_leave_over() -> None:
    for temperature, zero in ((0.0, True), (5.0, False)):
        rvq = build_bottleneck("rvq", C, SMALL["rvq"] | {"init": "first", "sampling_temperature": temperature})
        rvq.initialize(noise(200, C))
        assert (rvq.codebooks()[1] == 0).all() == zero


def test_codes_are_drawn_with_the_probabilities_of_their_distances() -> None:
    rvq = with_codebooks([[0.0], [1.0], [3.0]], sampling_temperature=2.0, ema_decay=1.0)
    codes = rvq(torch.full((20, 500, 1), 0.5)).codes
    expected = torch.softmax(-torch.tensor([0.25, 0.25, 6.25]) / 2.0, 0)
    torch.testing.assert_close(torch.bincount(codes.flatten(), minlength=3) / 10000, expected, atol=0.02, rtol=0)


def test_codes_are_drawn_in_training_only_and_anew_at_each_step() -> None:
    rvq = make("rvq", sampling_temperature=5.0, ema_decay=1.0, revive_below=0.0)
    x = noise(2, 30, C)
    assert not rvq(x).codes.equal(rvq(x).codes)
    assert rvq.eval()(x).codes.equal(rvq.encode(x))
    assert rvq.encode(x).equal(rvq.encode(x))


# k-means


def test_kmeans_finds_clusters_that_are_far_apart() -> None:
    samples = torch.cat([noise(100, 2, seed=1), noise(50, 2, seed=2) + 50, noise(30, 2, seed=3) - 80])
    centers, counts = kmeans(samples, 3, torch.Generator().manual_seed(0))
    order = centers[:, 0].argsort()
    assert counts[order].tolist() == [30, 100, 50]
    expected = torch.stack([samples[150:].mean(0), samples[:100].mean(0), samples[100:150].mean(0)])
    torch.testing.assert_close(centers[order], expected)


def test_kmeans_of_fewer_different_samples_than_codes_covers_them_all() -> None:
    samples = torch.tensor([[1.0], [2.0], [7.0]]).repeat(30, 1)
    centers, counts = kmeans(samples, 8, torch.Generator().manual_seed(0))
    assert set(centers.flatten().tolist()) == {1.0, 2.0, 7.0}
    assert counts.sum() == 90
    assert (counts > 0).sum() == 3


def test_initialize_fits_every_layer_to_the_residual_of_the_ones_before() -> None:
    coarse, fine = torch.tensor([-10.0, 10.0]), torch.tensor([-1.0, 1.0])
    samples = (coarse[:, None] + fine).flatten().repeat(8)[:, None]
    rvq = ResidualVQ(1, num_quantizers=2, codebook_size=2)
    rvq.initialize(samples)
    assert sorted(rvq.codebooks()[0].flatten().tolist()) == pytest.approx([-10, 10])
    assert sorted(rvq.codebooks()[1].flatten().tolist()) == pytest.approx([-1, 1])


def test_initialize_fits_a_shared_codebook_to_the_residuals_of_all_layers() -> None:
    coarse, fine = torch.tensor([-10.0, 10.0]), torch.tensor([-1.0, 1.0])
    samples = (coarse[:, None] + fine).flatten().repeat(8)[:, None]
    rvq = ResidualVQ(1, num_quantizers=2, codebook_size=4, shared_codebook=True)
    rvq.initialize(samples)
    assert rvq.codebooks()[0] is rvq.codebooks()[1]
    assert (rvq.codebooks()[0].abs() < 2).any()
    assert (rvq.codebooks()[0].abs() > 8).sum() >= 2


def test_initialize_counts_tokens_per_step() -> None:
    vq = VectorQuantizer(C, codebook_size=16)
    vq.initialize(noise(400, C), batches=4)
    book: Any = vq.layers[0]
    assert book.counts.sum().item() == pytest.approx(400 / 4)
    torch.testing.assert_close(book.sums, book.vectors * book.counts[:, None])


@pytest.mark.parametrize("name", ["vq", "rvq"])
def test_initialize_is_a_function_of_seed_and_samples(name: str) -> None:
    found = []
    for seed in (1, 1, 2):
        bottleneck = build_bottleneck(name, C, SMALL[name])
        bottleneck.draws.state[0] = seed
        bottleneck.initialize(noise(200, C))
        found.append(bottleneck.codebooks()[-1])
    assert found[0].equal(found[1])
    assert not found[0].equal(found[2])


@pytest.mark.parametrize("name", ["vq", "rvq"])
def test_initialize_refuses_fewer_than_8_samples_a_code(name: str) -> None:
    bottleneck = build_bottleneck(name, C, SMALL[name])
    with pytest.raises(ValueError, match="127 vectors are too few to fit 16 codes; give 128"):
        bottleneck.initialize(noise(127, C))
    assert not bottleneck.initialized


@pytest.mark.parametrize("name", ["vq", "rvq"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("what", ["forward", "encode", "decode"])
def test_an_empty_codebook_is_not_used(name: str, training: bool, what: str) -> None:
    bottleneck = build_bottleneck(name, C, SMALL[name]).train(training)
    assert not bottleneck.initialized
    before = state(bottleneck)
    given = torch.zeros(2, 5, 1, dtype=torch.int64) if what == "decode" else noise(2, 5, C)
    with pytest.raises(RuntimeError, match=r"call initialize\(\)"):
        getattr(bottleneck, what)(given)
    assert same(state(bottleneck), before)


def test_initialized_is_in_the_state() -> None:
    loaded = build_bottleneck("rvq", C, SMALL["rvq"])
    loaded.load_state_dict(state(make("rvq")))
    assert loaded.initialized


# Quantizer dropout


def kept_layers(codes: Tensor) -> Tensor:
    """How many layers each sample kept, [B]; all tokens of a sample must agree, and the kept ones come first."""
    kept = (codes >= 0).sum(-1)
    assert kept.equal(kept[:, :1].expand_as(kept))
    assert (codes >= 0).equal(torch.arange(codes.shape[-1]) < kept.unsqueeze(-1))
    return kept[:, 0]


def test_dropout_keeps_the_first_layers_of_each_sample_each_number_alike() -> None:
    kept = kept_layers(make("rvq", quantizer_dropout=1.0)(noise(3000, 1, C)).codes)
    shares = torch.bincount(kept, minlength=4) / 3000
    torch.testing.assert_close(shares, torch.tensor([0, 1 / 3, 1 / 3, 1 / 3]), atol=0.04, rtol=0)


def test_dropout_leaves_a_sample_whole_with_its_probability() -> None:
    kept = kept_layers(make("rvq", quantizer_dropout=0.4)(noise(3000, 1, C)).codes)
    assert (kept == 3).float().mean().item() == pytest.approx(0.6 + 0.4 / 3, abs=0.04)


def test_dropout_differs_from_step_to_step() -> None:
    rvq = make("rvq", quantizer_dropout=1.0)
    x = noise(50, 2, C)
    assert not kept_layers(rvq(x).codes).equal(kept_layers(rvq(x).codes))


def test_dropout_is_off_in_eval() -> None:
    rvq = make("rvq", quantizer_dropout=1.0).eval()
    x = noise(50, 2, C)
    output = rvq(x)
    assert (output.codes >= 0).all()
    assert output.latents.equal(rvq.decode(rvq.encode(x)))


def test_a_dropped_layer_adds_nothing_to_the_output() -> None:
    rvq = make("rvq", quantizer_dropout=1.0)
    before = copy.deepcopy(rvq)
    output = rvq(noise(50, 2, C))
    assert (output.codes == -1).any()
    assert output.latents.equal(sum_of_codes(before, output.codes))


def test_a_dropped_layer_adds_nothing_to_the_loss() -> None:
    rvq = make("rvq", quantizer_dropout=1.0)
    books = [book.clone() for book in rvq.codebooks()]
    x = noise(50, 2, C)
    output = rvq(x)
    squares = []
    for clip, codes in zip(x.flatten(0, 1), output.codes.flatten(0, 1), strict=True):
        residual = clip
        for q, code in enumerate(codes[codes >= 0]):
            residual = residual - books[q][code]
            squares.append(residual.square())
    torch.testing.assert_close(output.losses["commitment"], torch.stack(squares).mean())


def test_a_dropped_layer_adds_nothing_to_counts_and_moving_averages() -> None:
    rvq = make("rvq", quantizer_dropout=1.0, ema_decay=0.0, revive_below=0.0)
    output = step(rvq, noise(50, 2, C))
    for q, layer in enumerate(rvq.layers):
        codes = output.codes[..., q]
        expected = torch.bincount(codes[codes >= 0], minlength=16)
        assert output.counts[q].equal(expected)
        assert layer.counts.equal(expected.float())
    assert output.counts[0].sum() == 100
    assert output.counts[2].sum() < 100


# FSQ


def plain_fsq(**options: Any) -> FSQ:
    """An FSQ whose projections are the identity."""
    dim = len(options["levels"]) if "levels" in options else len(LEVELS[options["codebook_size"]])
    fsq = FSQ(dim, **options).eval()
    with torch.no_grad():
        for layer in (fsq.project_in, fsq.project_out):
            layer.weight.copy_(torch.eye(dim))
            layer.bias.zero_()
    return fsq


@pytest.mark.parametrize("bound", ["tanh", "sigmoid"])
@pytest.mark.parametrize("size", LEVELS)
def test_fsq_codes_and_values_are_one_to_one(size: int, bound: str) -> None:
    fsq = plain_fsq(codebook_size=size, bound=bound)
    codes = torch.arange(fsq.codebook_sizes[0])[None, :, None]
    values = fsq.decode(codes)
    assert len(values[0].unique(dim=0)) == fsq.codebook_sizes[0]
    latents = torch.atanh(values * 0.999) / (1.0 if bound == "tanh" else 0.8)
    assert fsq.encode(latents).equal(codes)


@pytest.mark.parametrize("size", LEVELS)
def test_fsq_codebook_lists_the_values_of_every_code(size: int) -> None:
    fsq = plain_fsq(codebook_size=size)
    assert fsq.codebooks()[0].equal(fsq.decode(torch.arange(fsq.codebook_sizes[0])[None, :, None])[0])


def test_fsq_table_covers_the_powers_of_two_from_512_to_65536() -> None:
    assert {2**bits for bits in range(9, 17)} <= LEVELS.keys()


@pytest.mark.parametrize("size", LEVELS)
def test_fsq_table_products_are_within_7_percent_of_the_size_asked_for(size: int) -> None:
    assert math.prod(LEVELS[size]) == pytest.approx(size, rel=0.07)


def test_fsq_codes_count_the_first_channel_fastest() -> None:
    fsq = plain_fsq(levels=[3, 4])
    assert fsq.codebook_sizes == (12,)
    codes = torch.tensor([[[0], [1], [2], [3], [11]]])
    expected = torch.tensor([[-1, -1], [0, -1], [1, -1], [-1, -1 / 3], [1, 1]])
    torch.testing.assert_close(fsq.decode(codes)[0], expected)


@pytest.mark.parametrize("levels", [[3, 5, 7], [9], [2, 4, 8]])
def test_fsq_values_are_symmetric(levels: list[int]) -> None:
    values = plain_fsq(levels=levels).codebooks()[0]
    torch.testing.assert_close(values, -values.flip(0))


@pytest.mark.parametrize("bound", ["tanh", "sigmoid"])
def test_fsq_with_odd_levels_maps_the_opposite_to_the_opposite(bound: str) -> None:
    fsq = plain_fsq(levels=[3, 5, 7], bound=bound)
    x = 2 * noise(1, 500, 3)
    torch.testing.assert_close(fsq(x).latents, -fsq(-x).latents, atol=1e-6, rtol=0)


def test_fsq_with_odd_levels_maps_zero_to_zero() -> None:
    assert (plain_fsq(levels=[3, 5, 7])(torch.zeros(1, 1, 3)).latents == 0).all()


@pytest.mark.parametrize(
    ("bound", "curve"), [("tanh", torch.tanh), ("sigmoid", lambda z: 2 * torch.sigmoid(1.6 * z) - 1)]
)
def test_fsq_bounds_by_the_curve_it_is_told(bound: str, curve: Callable[[Tensor], Tensor]) -> None:
    fsq = plain_fsq(levels=[2001], bound=bound)
    z = torch.linspace(-4, 4, 101)[None, :, None]
    torch.testing.assert_close(fsq(z).latents, curve(z), atol=0.5 / 1000 + 1e-6, rtol=0)


def test_fsq_rounds_to_the_nearest_level() -> None:
    fsq = plain_fsq(levels=[3])
    z = torch.atanh(torch.tensor([-0.99, -0.51, -0.49, 0.49, 0.51, 0.99]))[None, :, None]
    assert fsq(z).latents.flatten().tolist() == [-1, -1, 0, 0, 1, 1]


@pytest.mark.parametrize("bound", ["tanh", "sigmoid"])
def test_fsq_passes_the_gradient_as_if_it_did_not_round(bound: str) -> None:
    fsq = make("fsq", bound=bound)
    x, y = (noise(2, 5, C).requires_grad_() for _ in range(2))
    given = noise(2, 5, C, seed=1)
    fsq(x).latents.backward(given)
    fsq.project_out(torch.tanh((1.0 if bound == "tanh" else 0.8) * fsq.project_in(y))).backward(given)
    assert x.grad is not None
    assert (x.grad != 0).all()
    torch.testing.assert_close(x.grad, y.grad)


def test_fsq_has_no_loss_and_no_state_but_its_projections() -> None:
    fsq = make("fsq")
    assert fsq(noise(2, 5, C)).losses == {}
    assert {key.split(".")[0] for key in fsq.state_dict()} == {"project_in", "project_out", "draws"}


def test_fsq_needs_no_initialization() -> None:
    assert FSQ(C).initialized


@pytest.mark.parametrize(("margin", "flagged"), [(0.9e-3, True), (1.1e-3, False)])
def test_fsq_doubts_a_token_near_a_step_only(margin: float, flagged: bool) -> None:
    """One channel of 3 levels at z = 0.5 + margin; the step lies at atanh(0.5), where tanh is 0.75 steep."""
    fsq = plain_fsq(levels=[3]).double()
    z = torch.tensor(math.atanh(0.5 + margin), dtype=torch.float64).view(1, 1, 1)
    assert fsq.search(z, None, torch.full((1, 1), 1e-3))[1].item() is flagged


# VAE


def test_kl_of_the_standard_normal_is_zero() -> None:
    assert kl_per_dimension(torch.zeros(3), torch.zeros(3)).equal(torch.zeros(3))


def test_kl_by_hand() -> None:
    mean, logvar = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([0.0, math.log(4), -1.0])
    expected = torch.tensor([0.5, (4 - 1 - math.log(4)) / 2, (4 + math.exp(-1) - 1 + 1) / 2])
    torch.testing.assert_close(kl_per_dimension(mean, logvar), expected)


def test_kl_is_what_torch_integrates() -> None:
    mean, logvar = noise(20), noise(20, seed=1)
    posterior = torch.distributions.Normal(mean, (logvar / 2).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_per_dimension(mean, logvar), expected)


def plain_vae(logvar: float = 0.0) -> GaussianBottleneck:
    """A VAE of C dimensions with mean x, that log-variance, and z for its output."""
    vae = GaussianBottleneck(C, dim=C)
    with torch.no_grad():
        vae.to_moments.weight.copy_(torch.cat([torch.eye(C), torch.zeros(C, C)]))
        vae.to_moments.bias.copy_(torch.cat([torch.zeros(C), torch.full((C,), logvar)]))
        vae.from_sample.weight.copy_(torch.eye(C))
        vae.from_sample.bias.zero_()
    return vae


def test_kl_loss_is_a_mean_over_valid_tokens_and_dimensions() -> None:
    x = torch.zeros(1, 3, C)
    x[0, 0] = 2.0  # 2^2 / 2 = 2 nats per dimension
    x[0, 2] = 50.0
    assert plain_vae()(x, mask_of(2, width=3)).losses["kl"].item() == pytest.approx((2 + 0) / 2)


def test_vae_takes_the_mean_in_eval() -> None:
    x = noise(2, 5, C)
    assert plain_vae().eval()(x).latents.equal(x)


def test_vae_samples_with_its_sigma_in_training() -> None:
    z = plain_vae(math.log(4))(torch.full((10, 500, C), 3.0)).latents
    assert z.mean().item() == pytest.approx(3, abs=0.05)
    assert z.std().item() == pytest.approx(2, abs=0.05)


def test_vae_noise_is_a_function_of_seed_and_step() -> None:
    x = noise(2, 5, C)
    one, two, other = make("vae"), make("vae"), make("vae")
    other.draws.state[0] = 1
    first, second = one(x).latents, one(x).latents
    assert two(x).latents.equal(first)
    assert not second.equal(first)
    assert not other(x).latents.equal(first)


def test_vae_passes_the_gradient_to_mean_and_variance() -> None:
    vae = make("vae")
    vae(noise(2, 5, C)).latents.square().sum().backward()
    assert (vae.to_moments.weight.grad != 0).any(1).all()


def test_bottleneck_is_a_name_for_all_of_them() -> None:
    assert all(issubclass(kind, Bottleneck) for kind in BOTTLENECKS.values())
