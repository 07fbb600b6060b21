"""Every bad input ends in one clear line and the right exit code, at once, and leaves nothing behind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

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
    importing_torch,
    listing,
    make_good,
    run_apart,
    trained_in,
)

from vqtool.cli import main

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
