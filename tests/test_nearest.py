"""The search for the nearest code: against float64 brute force, exact whatever the batch, and honest about doubt."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vqtool.codebook import perplexity
from vqtool.nn.bottlenecks import nearest as search
from vqtool.nn.bottlenecks.nearest import decide, nearest

# The worked example of the design notes; a widely copied version of it has the second row's arithmetic wrong.
VECTORS = torch.tensor([[0.2, 1.1], [-0.5, 0.3]])
CODEBOOK = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
DISTANCES = torch.tensor([[0.2236068, 1.3601471, 0.6708204], [0.8602325, 1.5297059, 1.0198039]])


@pytest.fixture(params=["addmm", "convolution", "addmm, blocks of codes"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two ways to make the product, whatever this machine has, and as with many codes."""
    monkeypatch.setattr(search, "has_avx512", lambda: request.param == "convolution")
    if "blocks" in request.param:
        monkeypatch.setattr(search, "BLOCK_CODES", 64)
        monkeypatch.setattr(search, "FEW", 7)
    return str(request.param)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def distances(vectors: Tensor, codebook: Tensor) -> Tensor:
    """[N, K] by the definition, in float64."""
    return torch.stack([(vectors.double() - code.double()).square().sum(1) for code in codebook], 1).sqrt()


def brute_force(vectors: Tensor, codebook: Tensor) -> Tensor:
    return distances(vectors, codebook).argmin(1)


def hard_case(count: int = 300, dim: int = 24, codes: int = 100) -> tuple[Tensor, Tensor]:
    """Vectors and codes far from the origin and close to each other: float32 scores cannot tell the codes apart."""
    return 100 + 0.05 * noise(count, dim, seed=1), 100 + 0.05 * noise(codes, dim, seed=2)


# The worked example


def test_worked_example_has_these_distances() -> None:
    torch.testing.assert_close(torch.cdist(VECTORS, CODEBOOK), DISTANCES, atol=1e-6, rtol=0)
    torch.testing.assert_close(distances(VECTORS, CODEBOOK).float(), DISTANCES, atol=1e-6, rtol=0)


@pytest.mark.parametrize("exact", [True, False])
def test_worked_example_takes_code_0_twice(product: str, exact: bool) -> None:
    assert nearest(VECTORS, CODEBOOK, exact=exact).tolist() == [0, 0]


def test_worked_example_uses_a_third_of_the_codes_at_perplexity_1() -> None:
    counts = np.bincount(nearest(VECTORS, CODEBOOK).numpy(), minlength=3)
    assert (counts > 0).mean() == pytest.approx(1 / 3)
    assert perplexity(counts) == 1.0


# Against brute force


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("codes", [1, 2, 64, 65, 128, 513])
@pytest.mark.parametrize(("count", "dim"), [(1, 1), (7, 2), (100, 16), (65, 128)])
def test_nearest_is_what_brute_force_finds(product: str, count: int, dim: int, codes: int, exact: bool) -> None:
    vectors, codebook = noise(count, dim, seed=codes), noise(codes, dim, seed=codes + 1)
    assert nearest(vectors, codebook, exact=exact).equal(brute_force(vectors, codebook))


def test_nearest_is_what_brute_force_finds_among_8192_codes(product: str) -> None:
    vectors, codebook = noise(50, 8), noise(8192, 8, seed=1)
    assert nearest(vectors, codebook).equal(brute_force(vectors, codebook))


def test_nearest_is_what_brute_force_finds_over_several_blocks(product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BLOCK_SCORES", 1 << 14)
    vectors, codebook = noise(1000, 4), noise(130, 4, seed=1)
    for exact in (True, False):
        assert nearest(vectors, codebook, exact=exact).equal(brute_force(vectors, codebook))


@pytest.mark.parametrize("exact", [True, False])
def test_no_vectors_give_no_indices(product: str, exact: bool) -> None:
    indices = nearest(torch.zeros(0, 3), noise(5, 3), exact=exact)
    assert indices.shape == (0,)
    assert indices.dtype == torch.int64


@pytest.mark.parametrize("exact", [True, False])
def test_vectors_that_lie_transposed_in_memory_are_searched_alike(product: str, exact: bool) -> None:
    vectors, codebook = noise(6, 40), noise(70, 6, seed=1)
    assert nearest(vectors.T, codebook, exact=exact).equal(brute_force(vectors.T, codebook))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_vector_that_is_not_finite_still_gets_an_index_inside_the_codebook(
    product: str, value: float, exact: bool
) -> None:
    index = int(nearest(torch.tensor([[value, 0.5]]), noise(5, 2), exact=exact))
    assert 0 <= index < 5


def test_search_changes_neither_vectors_nor_codebook(product: str) -> None:
    vectors, codebook = hard_case()
    before = vectors.clone(), codebook.clone()
    decide(vectors, codebook, torch.full((len(vectors),), 1e-3))
    assert vectors.equal(before[0])
    assert codebook.equal(before[1])


# Ties


@pytest.mark.parametrize("exact", [True, False])
def test_a_tie_goes_to_the_lowest_index(product: str, exact: bool) -> None:
    codebook = torch.tensor([[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert nearest(torch.zeros(1, 2), codebook, exact=exact).tolist() == [1]


@pytest.mark.parametrize("exact", [True, False])
def test_a_tie_across_groups_of_64_goes_to_the_lowest_index(product: str, exact: bool) -> None:
    codebook = torch.full((200, 2), 5.0)
    codebook[[70, 71, 130, 199]] = torch.tensor([1.0, 2.0])
    assert nearest(torch.tensor([[1.0, 2.0]]), codebook, exact=exact).tolist() == [70]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 7, 31, 100])
def test_of_equal_codes_the_first_is_taken_whatever_the_product_rounds_to(
    product: str, dim: int, dtype: torch.dtype
) -> None:
    for codes, copies in [(21, 3), (31, 2), (32, 2), (64, 2)]:
        once = noise(codes, dim, seed=codes).to(dtype)
        for count in (1, 17, 100):
            vectors = noise(count, dim, seed=count).to(dtype)
            indices = nearest(vectors, torch.cat([once] * copies))
            assert indices.equal(brute_force(vectors, once)), (codes, copies, count)


# Exact mode


def test_float32_alone_gets_the_hard_case_wrong(product: str) -> None:
    vectors, codebook = hard_case()
    assert not nearest(vectors, codebook, exact=False).equal(brute_force(vectors, codebook))


def test_exact_mode_gets_the_hard_case_right(product: str) -> None:
    vectors, codebook = hard_case()
    assert nearest(vectors, codebook).equal(brute_force(vectors, codebook))


def test_exact_mode_gets_the_hard_case_right_over_several_blocks(product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, codebook = hard_case()
    tolerance = torch.linspace(0, 0.1, len(vectors))
    whole = decide(vectors, codebook, tolerance)
    monkeypatch.setattr(search, "BLOCK_SCORES", 1 << 13)
    indices, unsure = decide(vectors, codebook, tolerance)
    assert indices.equal(brute_force(vectors, codebook))
    assert unsure.equal(whole[1])
    assert 0 < unsure.sum() < len(unsure)


@pytest.mark.parametrize("rows", [1, 64, 299])
def test_exact_mode_does_not_depend_on_the_batch(product: str, rows: int) -> None:
    vectors, codebook = hard_case()
    parts = torch.cat([nearest(part, codebook) for part in vectors.split(rows)])
    assert parts.equal(nearest(vectors, codebook))


def test_exact_mode_does_not_depend_on_the_order_of_the_rows(product: str) -> None:
    vectors, codebook = hard_case()
    order = torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))
    assert nearest(vectors[order], codebook).equal(nearest(vectors, codebook)[order])


def test_exact_mode_does_not_depend_on_the_number_of_threads(product: str, two_threads: None) -> None:
    vectors, codebook = hard_case(3000)
    both = nearest(vectors, codebook)
    torch.set_num_threads(1)
    assert nearest(vectors, codebook).equal(both)


def test_exact_mode_does_not_depend_on_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, codebook = hard_case()
    found = []
    for fast in (False, True):
        monkeypatch.setattr(search, "has_avx512", lambda fast=fast: fast)
        found.append(nearest(vectors, codebook))
    assert found[0].equal(found[1])


def test_exact_mode_decides_between_codes_of_different_blocks(product: str) -> None:
    codebook, spread = noise(128, 100), noise(128, 100, seed=1)
    codebook[100] = codebook[3] * (1 + 2e-7) + 1e-7 * spread[100]
    vectors = codebook[[3] * 400] + 0.1 * noise(400, 100, seed=2)
    exact = (vectors.double()[:, None] - codebook.double()).square().sum(2).argmin(1)
    assert {3, 100} == set(exact.tolist())
    assert nearest(vectors, codebook).equal(exact)


def test_exact_mode_finds_the_same_in_float64(product: str) -> None:
    vectors, codebook = hard_case()
    assert nearest(vectors.double(), codebook.double()).equal(nearest(vectors, codebook))


def test_search_under_autocast_is_in_full_precision(product: str) -> None:
    vectors, codebook = noise(500, 16), noise(200, 16, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for exact in (True, False):
            assert nearest(vectors, codebook, exact=exact).equal(brute_force(vectors, codebook))


# Doubt


def changed_by_a_move(vectors: Tensor, codebook: Tensor, indices: Tensor, tolerance: Tensor) -> Tensor:
    """Which decisions [N] a move by `tolerance` [N] straight towards some other code changes."""
    vectors, codebook = vectors.double(), codebook.double()
    changed = torch.zeros(len(vectors), dtype=torch.bool)
    for code in codebook:
        towards = code - codebook[indices]
        unit = towards / towards.norm(dim=1, keepdim=True).clamp_min(1e-300)
        moved = vectors + tolerance.double()[:, None] * unit
        ours = (moved - codebook[indices]).square().sum(1)
        changed |= (moved - code).square().sum(1) < ours - 1e-12 * ours
    return changed


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1 << 30),
    dim=st.sampled_from([1, 2, 3, 16]),
    codes=st.sampled_from([2, 5, 64, 65]),
    share=st.sampled_from([1e-5, 1e-3, 0.03, 0.3]),
    offset=st.sampled_from([0.0, 1.0, 10.0]),
    fast=st.booleans(),
)
def test_no_move_within_the_tolerance_changes_a_decision_that_is_not_flagged(
    seed: int, dim: int, codes: int, share: float, offset: float, fast: bool
) -> None:
    vectors, codebook = offset + noise(64, dim, seed=seed), offset + noise(codes, dim, seed=seed + 1)
    tolerance = share * distances(vectors, codebook).amin(1).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "has_avx512", lambda: fast)
        indices, unsure = decide(vectors, codebook, tolerance)
    assert indices.equal(brute_force(vectors, codebook))
    assert not (changed_by_a_move(vectors, codebook, indices, tolerance) & ~unsure).any()


@pytest.mark.parametrize(("margin", "flagged"), [(0.0, True), (0.99e-3, True), (1.01e-3, False)])
def test_a_decision_is_flagged_exactly_when_the_boundary_is_within_the_tolerance(
    product: str, margin: float, flagged: bool
) -> None:
    vectors = torch.tensor([[0.5 - margin], [2.5 + margin]])
    indices, unsure = decide(vectors, torch.tensor([[0.0], [1.0], [2.0], [3.0]]), torch.full((2,), 1e-3))
    assert indices.tolist() == ([0, 2] if margin == 0 else [0, 3])
    assert unsure.tolist() == [flagged, flagged]


def test_a_tolerance_belongs_to_its_row() -> None:
    vectors = torch.tensor([[0.4], [0.4], [0.6]])
    unsure = decide(vectors, torch.tensor([[0.0], [1.0]]), torch.tensor([0.01, 0.2, 0.01]))[1]
    assert unsure.tolist() == [False, True, False]


def test_the_only_code_is_never_in_doubt(product: str) -> None:
    assert not decide(noise(20, 3), noise(1, 3), torch.full((20,), 0.1))[1].any()


def test_without_a_tolerance_only_ties_are_in_doubt(product: str) -> None:
    vectors = torch.tensor([[0.5], [0.5 - 1e-5]])
    assert decide(vectors, torch.tensor([[0.0], [1.0]]))[1].tolist() == [True, False]
