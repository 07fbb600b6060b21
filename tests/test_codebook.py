"""Counts, transitions and nearest pairs, against values worked out by hand."""

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqtool import codebook, hdf5
from vqtool.codebook import PairList, PairTable, count_codes, entropy, nearest_pair, nearest_pairs, perplexity
from vqtool.errors import DataError
from vqtool.tokens import TokenHeader, TokenSet, create_tokens


def write_tokens(path: Path, clips: list[list[list[int]]], sizes: tuple[int, ...]) -> Path:
    """A token file whose clip i holds the token frames `clips[i]`, each of len(sizes) codes."""
    header = TokenHeader(
        dim=8,
        fps=20,
        downsample=4,
        bottleneck="rvq",
        layout="raw",
        tokenizer_id="0" * 64,
        numerics="stable",
        source="test",
        codebook_sizes=sizes,
    )
    names = [f"clip{i}" for i in range(len(clips))]
    lengths = np.array([4 * len(clip) for clip in clips], dtype=np.int64)
    codebooks = [np.arange(size * 2, dtype=np.float32).reshape(size, 2) for size in sizes]
    with create_tokens(path, names, lengths, header, codebooks) as writer:
        for clip in clips:
            writer.extend(codes=np.array(clip, dtype=np.int64).reshape(-1, len(sizes)))
    return path


def transitions(path: Path, clips: list[list[int]], size: int) -> codebook.Transitions | None:
    """Transitions of a file of one layer."""
    with TokenSet(write_tokens(path, [[[code] for code in clip] for clip in clips], (size,))) as tokens:
        return count_codes(tokens)[0].transitions()


@pytest.fixture
def tiny_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read two bytes a block: one token of one layer."""
    monkeypatch.setattr(hdf5, "READ_BYTES", 2)


@pytest.fixture(params=["table", "list"])
def counting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to count pairs."""
    if request.param == "list":
        monkeypatch.setattr(codebook, "TABLE_CELLS", 0)


def test_perplexity_of_uniform_counts_is_the_number_of_codes() -> None:
    assert perplexity(np.full(512, 7)) == pytest.approx(512, rel=1e-12)


def test_perplexity_of_one_code_is_exactly_one() -> None:
    assert perplexity(np.array([0, 9, 0])) == 1.0


def test_perplexity_of_no_counts_is_zero() -> None:
    assert perplexity(np.zeros(4, dtype=np.int64)) == 0.0


def test_entropy_of_half_a_quarter_a_quarter_is_one_and_a_half_bits() -> None:
    assert entropy(np.array([2, 1, 1])) == pytest.approx(1.5 * math.log(2))


def test_perplexity_stays_exact_for_counts_above_two_to_the_31() -> None:
    assert perplexity(np.array([2**40, 2**40])) == pytest.approx(2, rel=1e-15)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50))
def test_perplexity_lies_between_one_and_the_codes_in_use(counts: list[int]) -> None:
    used = np.count_nonzero(counts)
    assert min(1, used) <= perplexity(np.array(counts)) <= used * (1 + 1e-12)


@pytest.mark.usefixtures("counting")
def test_an_alternating_clip_has_no_bigram_entropy(tmp_path: Path) -> None:
    found = transitions(tmp_path / "t.h5", [[0, 1, 0, 1, 0]], 2)
    assert found == codebook.Transitions(pairs=4, distinct=2, bits=0.0)


@pytest.mark.usefixtures("counting")
def test_a_fair_choice_after_each_code_is_one_bit(tmp_path: Path) -> None:
    # 0 is followed once by 0 and once by 1, and so is 1.
    found = transitions(tmp_path / "t.h5", [[0, 0, 1, 1, 0]], 2)
    assert found == codebook.Transitions(pairs=4, distinct=4, bits=1.0)


@pytest.mark.usefixtures("counting")
def test_bigram_entropy_weighs_contexts_by_how_often_they_occur(tmp_path: Path) -> None:
    # After 0 (three times): 0, 1, 2, which is log2 3 bits; after 1 and 2 (once each): 0, no bits.
    found = transitions(tmp_path / "t.h5", [[0, 0, 1, 0, 2, 0]], 3)
    assert found is not None
    assert found.bits == pytest.approx(3 / 5 * math.log2(3))


@pytest.mark.usefixtures("counting")
def test_no_pair_crosses_the_boundary_of_two_clips(tmp_path: Path) -> None:
    found = transitions(tmp_path / "t.h5", [[0, 0], [], [1, 1], [2]], 3)
    assert found == codebook.Transitions(pairs=2, distinct=2, bits=0.0)


@pytest.mark.usefixtures("counting")
def test_clips_of_one_token_have_no_transitions(tmp_path: Path) -> None:
    assert transitions(tmp_path / "t.h5", [[0], [1], [0]], 2) is None


@pytest.mark.usefixtures("counting", "tiny_blocks")
def test_pairs_across_two_blocks_of_the_file_are_counted(tmp_path: Path) -> None:
    assert transitions(tmp_path / "t.h5", [[0, 0, 1, 1, 0], [1, 1]], 2) == codebook.Transitions(
        pairs=5, distinct=4, bits=pytest.approx(2 / 5 + 3 / 5 * (math.log2(3) - 2 / 3))
    )


@pytest.mark.usefixtures("counting")
def test_counts_are_those_of_each_layer(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "t.h5", [[[0, 4], [1, 4]], [[1, 3]]], (2, 5))
    with TokenSet(path) as tokens:
        counts = [counter.counts().tolist() for counter in count_codes(tokens)]
    assert counts == [[1, 2], [0, 0, 0, 1, 2]]


@pytest.mark.parametrize("sizes", [(3, 5), (7,), (65_536, 2), (70_000, 3, 65_537)], ids=str)
@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_codes_and_pairs_are_those_counted_one_by_one(
    sizes: tuple[int, ...], rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    # The largest codes, so that they fill their type; blocks begin and end within clips and at their ends.
    few = np.minimum(sizes, 3)
    clips = [(np.array(sizes) - 1 - random.integers(0, few, (n, len(sizes)))).tolist() for n in (4, 0, 1, 8, 3)]
    monkeypatch.setattr(hdf5, "READ_BYTES", rows * len(sizes) * (4 if max(sizes) > 65_536 else 2))
    with TokenSet(write_tokens(tmp_path / "t.h5", clips, sizes)) as tokens:
        assert next(tokens.blocks()).dtype == ("<u4" if max(sizes) > 65_536 else "<u2")
        assert max(map(len, tokens.blocks())) == min(rows, 16)
        counters = count_codes(tokens)
    for layer, counter in enumerate(counters):
        columns = [[frame[layer] for frame in clip] for clip in clips]
        counts = Counter(code for column in columns for code in column)
        pairs = Counter(pair for column in columns for pair in itertools.pairwise(column))
        assert {code: int(counter.counts()[code]) for code in np.flatnonzero(counter.counts())} == counts
        keys, repeats = counter.pairs()
        assert {divmod(int(k), sizes[layer]): int(n) for k, n in zip(keys, repeats, strict=True)} == pairs


@pytest.mark.usefixtures("counting")
def test_a_file_without_tokens_counts_nothing(tmp_path: Path) -> None:
    with TokenSet(write_tokens(tmp_path / "t.h5", [], (3,))) as tokens:
        (counter,) = count_codes(tokens)
    assert counter.counts().tolist() == [0, 0, 0]
    assert counter.transitions() is None


@pytest.mark.usefixtures("counting")
def test_a_code_outside_its_codebook_is_named_with_clip_and_token(tmp_path: Path) -> None:
    path = write_tokens(tmp_path / "t.h5", [[[0, 0]], [[1, 0], [1, 3]]], (2, 3))
    with TokenSet(path) as tokens, pytest.raises(DataError, match="clip clip1: token 1 of layer 1 is 3"):
        count_codes(tokens)


def test_a_list_of_pairs_is_given_up_past_its_limit_but_counts_go_on() -> None:
    pairs = PairList(4, limit=2)
    for _ in range(2):
        pairs.add(np.array([0, 1, 2]), np.array([16, 1, 6]))
    assert pairs.transitions() is None
    assert pairs.counts().tolist() == [2, 2, 2, 0]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.integers(0, 35), min_size=1, max_size=40), max_size=5))
def test_list_and_table_count_the_same(blocks: list[list[int]]) -> None:
    table, pairs = PairTable(5), PairList(5, limit=1000)
    for block in blocks:
        keys = np.array(block) % 30
        table.add(keys % 5, keys)
        pairs.add(keys % 5, keys)
    assert table.transitions() == pairs.transitions()
    assert table.counts().tolist() == pairs.counts().tolist()


def test_the_nearest_pair_of_a_square_with_one_corner_doubled_is_that_corner() -> None:
    square = np.array([[0, 0], [0, 4], [4, 0], [4, 4], [4, 3.5]], dtype=np.float32)
    found = nearest_pair(square)
    assert found is not None
    assert (found.first, found.second) == (3, 4)
    assert found.distance == pytest.approx(0.5)


def test_the_spread_of_two_codes_is_half_their_distance() -> None:
    found = nearest_pair(np.array([[1.0, 5.0], [1.0, 9.0]], dtype=np.float32))
    assert found is not None
    assert (found.distance, found.spread) == (4.0, 2.0)


def test_equal_code_vectors_are_a_nearest_pair_at_distance_zero() -> None:
    found = nearest_pair(np.array([[1, 1], [0, 3], [1, 1]], dtype=np.float32))
    assert found is not None
    assert (found.first, found.second, found.distance) == (0, 2, 0.0)


def test_codes_far_from_the_origin_are_told_apart() -> None:
    found = nearest_pair(np.array([[1e6, 0], [1e6, 1], [1e6, 1.5]], dtype=np.float32))
    assert found is not None
    assert (found.first, found.second) == (1, 2)


def test_a_codebook_of_one_code_has_no_nearest_pair() -> None:
    assert nearest_pair(np.ones((1, 3), dtype=np.float32)) is None


def test_the_nearest_pair_is_found_across_blocks() -> None:
    vectors = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)  # 524 rows a block
    vectors[1990] = vectors[7] + 1e-4
    found = nearest_pair(vectors)
    assert found is not None
    assert (found.first, found.second) == (7, 1990)


def test_nearest_pairs_of_huge_codebooks_are_left_out() -> None:
    assert nearest_pairs([np.zeros((65536, 4), dtype=np.float32)]) == [None]
