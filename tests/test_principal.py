"""The start from principal components: an untrained network that gives back what a linear autoencoder would."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vqtool.config import build_config
from vqtool.nn.model import MotionTokenizer, build_model
from vqtool.nn.principal import start_from_components

DIM = 6


def motion(tokens: int = 400, down: int = 4, rank: int = 5) -> Tensor:
    """Folded frames [N, down, DIM] that lie in `rank` dimensions."""
    draw = torch.Generator().manual_seed(0)
    return (torch.randn(tokens, rank, generator=draw) @ torch.randn(rank, down * DIM, generator=draw)).unflatten(
        1, (down, DIM)
    )


def model_of(**settings: object) -> MotionTokenizer:
    given = {"model.width": 32, "model.latent_dim": 8, "model.depth": 2, "model.bottleneck": "vq"}
    return build_model(build_config(given, {key.replace("__", "."): value for key, value in settings.items()}), DIM)


def unseen(model: MotionTokenizer, folded: Tensor) -> float:
    """Share of the variance that a model without bottleneck does not give back, of a clip of those frames."""
    clip = folded.flatten(0, 1)[None]  # [1, T, D]
    model.eval()
    with torch.no_grad():
        back = model.decoder(model.latents(clip))
    return float((back - clip).square().sum() / clip.square().sum())


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu"])
@pytest.mark.parametrize("causal", [False, True])
def test_an_untrained_network_gives_back_motion_of_few_dimensions(activation: str, causal: bool) -> None:
    model, folded = model_of(model__activation=activation, model__causal=causal), motion()
    before = unseen(model, folded)
    assert start_from_components(model, folded, seed=0) == pytest.approx(1.0, abs=1e-4)
    assert before > 0.9
    assert unseen(model, folded) < 0.15


def test_what_the_latents_cannot_hold_is_told() -> None:
    model, folded = model_of(model__latent_dim=2), motion()
    spread = torch.linalg.svdvals(folded.flatten(1)).square()
    assert start_from_components(model, folded, seed=0) == pytest.approx(
        float(spread[:2].sum() / spread.sum()), abs=1e-4
    )


def test_each_body_part_has_the_components_of_its_own_columns() -> None:
    parts = {"model__bottleneck": "product", "model__parts": {"one": "0:2", "two": "2:6"}}
    model, folded = model_of(**parts), motion(rank=3)
    assert start_from_components(model, folded, seed=0) == pytest.approx(1.0, abs=1e-4)
    assert unseen(model, folded) < 0.15


def test_groups_of_channels_take_turns_with_the_components() -> None:
    settings = {"model__bottleneck": "product", "bottleneck.groups": 3}
    model, folded = model_of(**settings), motion(rank=7)  # channels 0-2, 3-5, 6-7
    assert start_from_components(model, folded, seed=0) == pytest.approx(1.0, abs=1e-4)
    assert unseen(model, folded) < 0.15
    energy = model.latents(folded.flatten(0, 1)[None])[0].var(0)
    components = torch.linalg.svdvals(folded.flatten(1)).square()[:8] / len(folded)
    assert torch.allclose(energy[[0, 3, 6, 1, 4, 7, 2, 5]], components, rtol=0.5, atol=1.0)


def test_the_same_motion_and_seed_start_alike_and_the_random_state_stays() -> None:
    one, two = model_of(), model_of()
    start_from_components(one, motion(), seed=3)
    state = torch.random.get_rng_state()
    start_from_components(two, motion(), seed=3)
    assert torch.equal(state, torch.random.get_rng_state())
    for mine, theirs in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("bottleneck", "most"), [({"bottleneck.dim": 3}, 0.15), ({"bottleneck.levels": [41] * 3}, 0.25)], ids=["vae", "fsq"]
)
def test_projections_of_a_bottleneck_start_as_its_first_channels(bottleneck: dict[str, object], most: float) -> None:
    name = "vae" if "bottleneck.dim" in bottleneck else "fsq"
    model, folded = model_of(model__bottleneck=name, **bottleneck), motion(rank=3)
    start_from_components(model, folded, seed=0)
    clip = folded.flatten(0, 1)[None]
    back, output = model.eval()(clip)
    assert (back - clip).square().sum() < most * clip.square().sum()
    if name == "vae":
        assert output.losses["kl"] < 5


@pytest.mark.parametrize("tokens", [1, 5])
def test_fewer_token_frames_than_channels_are_enough(tokens: int) -> None:
    model = model_of()
    assert start_from_components(model, motion(tokens), seed=0) > 0.9
    assert all(parameter.isfinite().all() for parameter in model.parameters())
