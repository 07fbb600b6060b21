"""Errors: one exit code a class, and a message of one line that says where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vqtool import errors
from vqtool.errors import ONE, DataError, InterruptedRun, VqtoolError, counted

# The table of exit codes that docs and scripts rely on.
EXIT_CODES = {
    "VqtoolError": 70,
    "UsageError": 2,
    "DataError": 65,
    "MissingInputError": 66,
    "OutputError": 73,
    "StorageError": 74,
    "LockedError": 75,
    "MismatchError": 76,
    "DivergedError": 77,
    "ResumeError": 78,
}


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items())
def test_each_class_has_the_exit_code_of_the_table(name: str, code: int) -> None:
    assert getattr(errors, name)("what").exit_code == code


def test_the_table_names_every_class() -> None:
    classes = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert classes == EXIT_CODES.keys() | {"InterruptedRun"}


def test_the_docstring_draws_every_class_with_its_code() -> None:
    drawn = errors.__doc__ or ""
    for name, code in EXIT_CODES.items():
        assert any(name in line and str(code) in line.split() for line in drawn.splitlines()), name


@pytest.mark.parametrize("name", [name for name in EXIT_CODES if name != "VqtoolError"])
def test_one_except_clause_catches_every_class(name: str) -> None:
    assert issubclass(getattr(errors, name), VqtoolError)


@pytest.mark.parametrize(("signum", "code"), [(2, 130), (15, 143)])
def test_an_interrupted_run_exits_as_the_shell_counts_signals(signum: int, code: int) -> None:
    assert InterruptedRun("stopped", signum=signum).exit_code == code


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "is wrong"),
        ({"file": "a.h5"}, "a.h5: is wrong"),
        ({"file": Path("b") / "a.h5"}, "b/a.h5: is wrong"),
        ({"file": "a.h5", "dataset": "data/x"}, "a.h5:data/x: is wrong"),
        ({"file": "a.h5", "dataset": "x", "clip": "walk", "frame": 7}, "a.h5:x clip walk frame 7: is wrong"),
        ({"file": "a.h5", "frame": 0}, "a.h5 frame 0: is wrong"),
        ({"clip": "walk"}, "clip walk: is wrong"),
    ],
)
def test_the_message_starts_with_the_place(place: dict[str, object], text: str) -> None:
    assert str(DataError("is wrong", **place)) == text  # type: ignore[arg-type]


@pytest.mark.parametrize("character", ["\n", "\r", "\x1b", "\x00", "\x7f", "\x85", "\u2028", "\u202e", "\udcff"])
def test_a_control_character_in_a_name_is_escaped(character: str) -> None:
    error = DataError(f"bad{character}text", file=f"a{character}.h5", dataset=character, clip=f"w{character}")
    message = str(error)
    assert message.isprintable() and message.count(repr(character)[1:-1]) == 4


def test_letters_of_any_script_stay_as_they_are() -> None:
    assert str(DataError("falsch", clip="går_歩く_é")) == "clip går_歩く_é: falsch"


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 clips are"), (1, "1 clip is"), (2, "2 clips are"), (1234, "1,234 clips are")]
)
def test_one_is_told_in_the_singular(count: int, words: str) -> None:
    assert counted(count, "clips") == words.rpartition(" ")[0]
    assert counted(count, "clips", "are") == words


def test_every_verb_that_is_counted_has_a_singular() -> None:
    verbs = set()
    for path in (Path(errors.__file__).parent).rglob("*.py"):
        verbs |= set(re.findall(r"counted\([^\n]*?'[a-zA-Z ]+s', '(\w+)'\)", path.read_text(encoding="utf-8")))
    assert verbs == set(ONE)


def test_no_message_counts_in_the_plural_what_may_be_one() -> None:
    things = "clips|frames|token frames|shards|parts|steps|pictures|latents|parameters"
    for path in (Path(errors.__file__).parent).rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found = re.findall(rf"\{{([^{{}}:!]+)(?::,)?\}} (?:{things})\b(?!/s)", line) if 'f"' in line else []
            assert [one for one in found if "MAX_" not in one and one != "split"] == [], f"{path.name}:{number}"
