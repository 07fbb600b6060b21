"""Two token files or runs side by side: what is compared, said, drawn and refused."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_inspect_codebook import codebook_report, latents_file, run, tokenizer_file, tokens_file

from vqtool.cli.codebook_view import show
from vqtool.comparison import Comparison, Moved, Shift, jensen_shannon
from vqtool.errors import UsageError
from vqtool.usage import LayerUsage


def compared(one: Path, other: Path) -> Comparison:
    return Comparison(codebook_report(one), codebook_report(other))


def shift(one: list[int], other: list[int]) -> Shift:
    return Shift(LayerUsage(0, np.array(one)), LayerUsage(0, np.array(other)))


def rendered(found: Comparison, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    show(found, 5, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_histograms_with_the_same_shares_have_no_divergence() -> None:
    assert jensen_shannon(np.array([1, 2, 0]), np.array([10, 20, 0])) == 0


def test_histograms_that_share_no_code_are_one_bit_apart() -> None:
    assert jensen_shannon(np.array([3, 5, 0, 0]), np.array([0, 0, 7, 2])) == pytest.approx(1)


def test_the_divergence_is_that_worked_out_by_hand() -> None:
    # Shares 1, 0 and 1/2, 1/2; their mean 3/4, 1/4 has 0.8113 bits, they have 0 and 1: 0.8113 - 0.5.
    middle = -(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25))
    assert jensen_shannon(np.array([4, 0]), np.array([3, 3])) == pytest.approx(middle - 0.5)


def test_chance_is_what_two_samples_of_one_distribution_differ_by() -> None:
    draws = np.random.default_rng(0)
    shares = draws.dirichlet(np.full(64, 3.0))
    found = [shift(draws.multinomial(5000, shares), draws.multinomial(2000, shares)) for _ in range(50)]
    assert np.mean([one.divergence for one in found]) == pytest.approx(np.mean([one.chance for one in found]), rel=0.05)


def test_codes_that_gained_and_lost_come_with_their_shares_most_first() -> None:
    found = shift([50, 30, 20, 0], [10, 35, 20, 35])
    assert found.gained(9) == [Moved(3, 0.0, 0.35), Moved(1, 0.3, 0.35)]
    assert found.lost(9) == [Moved(0, 0.5, 0.1)]
    assert found.moved == pytest.approx(0.4)
    assert (found.only_first, found.only_second) == (0, 1)


def test_the_same_motion_is_alike_and_another_is_different(tmp_path: Path) -> None:
    one, other = (
        tokens_file(tmp_path / f"{name}.h5", [code, code + 1] * 200, 8) for name, code in (("a", 0), ("b", 4))
    )
    assert compared(one, one).status == "alike"
    assert compared(one, other).status == "different"


def test_tokens_of_two_tokenizers_are_not_compared_code_by_code(tmp_path: Path) -> None:
    one = tokens_file(tmp_path / "a.h5", [0, 1] * 40, 2)
    other = tokens_file(tmp_path / "b.h5", [0, 1] * 40, 2, tokenizer_id="1" * 64)
    found = compared(one, other)
    assert found.status == "not comparable"
    assert found.shifts == []
    text = rendered(found)
    assert "two tokenizers made them" in " ".join(text.split())
    assert "JSD" not in text and "gained" not in text
    assert "perplexity a  perplexity b" in text


def test_fewer_layers_are_compared_with_the_first_of_more(tmp_path: Path) -> None:
    one = tokens_file(tmp_path / "a.h5", [[0, 1], [1, 0]] * 40, 2, 2)
    other = tokens_file(tmp_path / "b.h5", [0, 1] * 40, 2)
    found = compared(one, other)
    assert [shift.first.layer for shift in found.shifts] == [0]
    assert rendered(found).count("\n    1") == 1  # its row has dashes for what the other lacks


def test_a_run_is_compared_with_the_tokens_it_made(tmp_path: Path) -> None:
    path = tokenizer_file(tmp_path / "x", [2], {"usage.counts.0": np.array([300, 100], dtype=np.int64)})
    made_by = codebook_report(path).source.tokenizer_id
    tokens = tokens_file(tmp_path / "t.h5", [0, 0, 0, 1] * 20, 2, tokenizer_id=made_by)
    assert compared(path, tokens).status == "alike"


def test_nothing_is_said_of_an_empty_file(tmp_path: Path) -> None:
    one, other = tokens_file(tmp_path / "a.h5", [], 2), tokens_file(tmp_path / "b.h5", [0, 1] * 20, 2)
    found = compared(one, other)
    assert found.status == "not comparable"
    assert found.to_json()["shifts"][0]["divergence_bits"] is None
    rendered(found)


@pytest.mark.parametrize(("width", "lines"), [(44, 30), (60, 15), (80, 15), (120, 15)])
def test_what_gained_stands_beside_what_lost_or_above_it_where_it_is_narrow(
    tmp_path: Path, width: int, lines: int
) -> None:
    draws = np.random.default_rng(0)
    sizes = (512,) * 3
    one, other = (tokens_file(tmp_path / f"{n}.h5", draws.integers(0, sizes, (900, 3)), *sizes) for n in "ab")
    text = rendered(compared(one, other), width)
    assert "…" not in text  # a table that is cut off
    moved = [line for line in text.splitlines() if " % to " in line]
    assert len(moved) == lines
    assert {line.count(" % to ") for line in moved} == {30 // lines}


def test_the_json_of_a_comparison_is_one_object(tmp_path: Path) -> None:
    one, other = tokens_file(tmp_path / "a.h5", [0, 1] * 40, 3), tokens_file(tmp_path / "b.h5", [1, 2] * 40, 3)
    found = json.loads(run(one, other, "--json", "--top", 1).stdout, parse_constant=pytest.fail)
    assert found["files"][0]["file"] == str(one)
    assert found["shifts"][0]["gained"] == [{"code": 2, "first": 0.0, "second": 0.5}]
    assert found["shifts"][0]["divergence_bits"] == pytest.approx(0.5)


def test_latents_have_no_codes_to_compare(tmp_path: Path) -> None:
    one = latents_file(tmp_path / "l.h5", [[0.0]], [[0.0]])
    result = run(one, one)
    assert isinstance(result.exception, UsageError)
    assert "no codes to compare" in str(result.exception)
