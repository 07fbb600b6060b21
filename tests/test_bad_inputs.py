"""Every bad input ends in one clear line and the right exit code, at once, and leaves nothing behind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import typer.main
from bad_inputs import (
    CASES,
    KNOWN,
    MAX_MB,
    MAX_SECONDS,
    Case,
    Good,
    fault,
    h5,
    importing_torch,
    listing,
    make_good,
    run_apart,
    trained_in,
)

from vqtool.cli import main
from vqtool.errors import DataError
from vqtool.formats import base

Trained = Callable[[str], Path]
QUICK = [case for case in CASES if not case.apart and case.name not in KNOWN]
APART = [case for case in CASES if case.apart or case.name in KNOWN]


def params(cases: list[Case]) -> list[object]:
    """The cases with their names; those in KNOWN must fail until they are mended, then leave it."""
    found = []
    for case in cases:
        marks = [pytest.mark.skip(reason=case.skip)] if case.skip else []
        marks += [pytest.mark.xfail(reason=KNOWN[case.name])] if case.name in KNOWN else []
        found.append(pytest.param(case, id=case.name, marks=marks))
    return found


@pytest.fixture(scope="module")
def good(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Good:
    folder = tmp_path_factory.mktemp("good")
    own = trained_in(folder)
    return make_good(folder, lambda model, path: trained(model) if model == "vae" else own(model, path))


@pytest.fixture(scope="module", autouse=True)
def one_app() -> Iterator[None]:
    """Typer makes the whole command line anew for each call, which takes longer than most of these do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="module")
def import_torch() -> float:
    importing_torch()  # from the disk
    return importing_torch()


def test_there_are_hundreds_of_cases_of_every_command_with_names_of_their_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 500
    assert {case.name for case in CASES} >= KNOWN.keys()
    commands = {case.words.split()[0] for case in CASES}
    assert commands >= {
        "import",
        "validate",
        "stats",
        "train",
        "encode",
        "decode",
        "export",
        "inspect-codebook",
        "evaluate",
    }


@pytest.mark.parametrize("case", params(QUICK))
def test_a_bad_input_is_one_clear_line(
    case: Case, good: Good, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case.make(tmp_path, good)
    before = listing(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    code = main(case.argv(good))
    captured = capsys.readouterr()
    assert fault(case, code, captured.out, captured.err, before, listing(tmp_path)) == ""


@pytest.mark.parametrize(
    "text", ["", "1 2\n", "1 2", "\n1 2\n\n3 4\n", "10 20\n" * 99, "  1 2\n" * 50 + "\n" * 40 + "3 4"]
)
@pytest.mark.parametrize("block", [8, 9, 16, 1000])
def test_rows_read_in_blocks_are_those_of_the_whole(text: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BLOCK_BYTES", block)
    expected = np.array([float(word) for word in text.split()]).reshape(-1, 2)
    np.testing.assert_array_equal(base.number_rows(text.encode(), line=1, columns=2, why="there are"), expected)


@pytest.mark.parametrize("where", [0, 1, 50, 98])
def test_a_bad_row_is_named_by_its_line_in_whatever_block(where: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BLOCK_BYTES", 16)
    lines = ["1 2"] * 99
    lines[where] = "1 x"
    with pytest.raises(DataError, match=f"^line {where + 7}: 'x' is not a number"):
        base.number_rows("\n".join(lines).encode(), line=7, columns=2, why="there are")


def test_small_data_may_shrink_as_far_as_it_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    h5("still.h5", lambda file: file.create_dataset("a", data=np.zeros((100_000, 20)), compression="gzip"))(
        tmp_path, None
    )
    monkeypatch.chdir(tmp_path)
    assert main(["stats", "still.h5", "--fps", "30"]) == 0
    assert "100,000 at 30 fps" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("case", params(APART))
def test_a_bomb_is_one_clear_line_in_little_time_and_memory(
    case: Case, good: Good, import_torch: float, tmp_path: Path
) -> None:
    case.make(tmp_path, good)
    before = listing(tmp_path)
    done = run_apart(case.argv(good), tmp_path, case.environment)
    assert fault(case, done.code, done.out, done.errors, before, listing(tmp_path)) == ""
    assert done.mb < MAX_MB
    assert done.cpu - import_torch * done.torch < MAX_SECONDS
