"""Body parts: which columns joints, groups and ranges mean, and codes of a part from training to edited motion."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from motion_samples import BODY, smooth, write

from vqtool.body_parts import part_columns, resolve_parts
from vqtool.config import build_config
from vqtool.errors import UsageError
from vqtool.motion import column_names, joint_columns
from vqtool.tokenizer_file import read_tokenizer
from vqtool.tokens import TokenSet

DIM = 12 * len(BODY.names) - 1
NAMES = column_names("joints", DIM, BODY.names)
LIMBS = {"core": "Hips", "left": "LeftArm, LeftUpLeg", "right": "RightArm,RightUpLeg"}


def numbers(text: str) -> list[int]:
    found: list[int] = []
    for word in text.split(", "):
        first, stop = word.split(":")
        found += range(int(first), int(stop))
    return found


def test_every_column_of_a_joint_is_called_by_it() -> None:
    for name, columns in zip(BODY.names, joint_columns("joints", DIM, (3, 4, 7, 8)), strict=True):
        called = {NAMES[column].partition(".")[0] for column in columns}
        assert called - {"contact"} == ({name, "root"} if name == "Hips" else {name})
        assert ("contact" in called) == name.endswith(("Foot", "Toe"))


def test_joint_columns_hold_every_column_once() -> None:
    assert sorted(chain.from_iterable(joint_columns("joints", DIM, (3, 4, 7, 8)))) == list(range(DIM))
    assert sorted(chain.from_iterable(joint_columns("humanml3d", 263))) == list(range(263))
    assert joint_columns("positions", 6) == [[0, 1, 2], [3, 4, 5]]
    assert joint_columns("raw", 6) == []


def test_a_joint_stands_for_all_below_it_that_no_nearer_one_does() -> None:
    parts = resolve_parts(LIMBS, "joints", DIM, BODY)
    assert list(parts) == ["core", "left", "right"]
    of = {part: {NAMES[column].partition(".")[0] for column in numbers(text)} for part, text in parts.items()}
    assert of["core"] == {"root", "Hips", "Spine", "Head"}
    assert of["left"] - {"contact"} == {name for name in BODY.names if name.startswith("Left")}
    assert of["right"] - {"contact"} == {name for name in BODY.names if name.startswith("Right")}
    assert {NAMES[column] for column in numbers(parts["left"])} >= {"contact.left_ankle", "contact.left_toe"}
    assert sorted(chain.from_iterable(map(numbers, parts.values()))) == list(range(DIM))


def test_columns_and_groups_come_before_joints() -> None:
    parts = resolve_parts({"path": "root", "body": "Hips"}, "joints", DIM, BODY)
    assert parts == {"body": f"4:{DIM}", "path": "0:4"}


def test_what_was_resolved_resolves_to_itself_without_a_skeleton() -> None:
    parts = resolve_parts(LIMBS, "joints", DIM, BODY)
    assert resolve_parts(parts, "joints", DIM, BODY) == resolve_parts(parts, "raw", DIM, None) == parts
    assert part_columns(parts, DIM) == [numbers(text) for text in parts.values()]


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        (
            {"a": "Hips", "b": "Hipz"},
            r"model.parts.b: no columns 'Hipz' in layout 'joints'.*or one of the joints \(Hips,",
        ),
        ({"a": "Spine"}, r"model.parts: \d+ columns are in no part \(root.turn, .*; name all of them"),
        ({"a": "0:100", "b": "99:179"}, "model.parts: column 99 is in a and in b; leave it in one"),
        ({"a": "Hips, Spine", "b": "Spine"}, "model.parts: joint 9 is in a and in b"),
        ({"a": "Hips", "b": f"0:{DIM}"}, "model.parts.a: all of its columns are in other parts; leave it out"),
        ({"a": ""}, "model.parts.a: no columns ''"),
    ],
)
def test_parts_that_cannot_be_are_refused(parts: dict[str, str], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        resolve_parts(parts, "joints", DIM, BODY)


def test_joints_without_a_layout_that_knows_them_are_refused() -> None:
    with pytest.raises(UsageError, match="layout 'raw' does not say which columns are a joint's; name ranges"):
        resolve_parts({"a": "Hips"}, "raw", DIM, BODY)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"model.parts": {"a": "0:3"}}, "model.parts needs --model product: rvq has no codebooks for parts"),
        ({"model.bottleneck": "product", "model.parts": {"a b": "0:3"}}, "letters, digits and _, not 'a b'"),
        ({"model.bottleneck": "product", "model.parts": {"a": 1.5}}, "takes joints or columns as text, not 1.5"),
        ({"model.parts": "upper"}, "model.parts takes"),
    ],
)
def test_a_setting_of_parts_that_cannot_work_is_refused(settings: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        build_config(settings)


def test_a_part_is_trained_encoded_shown_exported_edited_and_decoded(run: Run, tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / "mocap" / f"walk{number}.bvh", smooth(60, number))
    small = ["--set", "model.width=16", "--set", "model.latent_dim=9", "--set", "model.depth=1"]
    small += ["--set", "bottleneck.codebook_size=16", "--set", "bottleneck.num_quantizers=4", "--steps", "5"]
    parts = ["--model", "product", "--set", "model.parts.lower=Hips", "--set", "model.parts.upper=Spine"]
    assert run("import", "mocap", "-o", "motion.h5", "-q")[0] == 0
    assert run("train", "motion.h5", "-o", "run", "-q", *parts, *small, "--dry-run")[0] == 0
    assert run("train", "motion.h5", "-o", "run", "-q", *parts, *small)[0] == 0
    assert read_tokenizer(Path("run")).parts == ("lower", "upper")
    assert run("train", "motion.h5", "-o", "run", "-q", *parts, *small, "--resume")[0] == 0
    assert run("encode", "run", "motion.h5", "-o", "tokens.h5", "-q")[0] == 0

    shown = json.loads(run("inspect-codebook", "tokens.h5", "--json")[1])
    assert [layer["part"] for layer in shown["layers"]] == ["lower", "upper"] * 2
    assert "upper" in run("inspect-codebook", "run")[1]

    assert run("export", "tokens.h5", "-o", "t.jsonl", "--format", "text", "-q")[0] == 0
    assert run("import", "t.jsonl", "--like", "run", "-o", "again.h5", "-q")[0] == 0
    assert Path("again.h5").read_bytes() == Path("tokens.h5").read_bytes()

    words = ["edit", "replace", "tokens.h5", "--clip", "walk0", "--at", "2:10", "--with", "walk1@1:9"]
    code, out, errors = run(*words, "--part", "upper", "--run", "run", "-o", "edited.h5", "-q")
    assert code == 0 and out.count("seam at token") == 2, errors
    assert run("decode", "run", "edited.h5", "-o", "edited.motion.h5", "-q")[0] == 0
    with TokenSet(Path("tokens.h5")) as before, TokenSet(Path("edited.h5")) as after:
        assert after.header.parts == ("lower", "upper")
        expected = before[0].codes.copy()
        expected[2:10, 1::2] = before[1].codes[1:9, 1::2]
        np.testing.assert_array_equal(after[0].codes, expected)
        np.testing.assert_array_equal(after[1].codes, before[1].codes)

    for command, what in (
        (["decode", "run", "tokens.h5", "-o", "x.h5", "--num-quantizers", "3"], "3 layers: they come 2 at a time"),
        (
            ["encode", "run", "motion.h5", "-o", "x.h5", "--num-quantizers", "1"],
            "no multiple of this tokenizer's 2 groups",
        ),
        (["edit", "drop-layers", "tokens.h5", "--keep", "3", "-o", "x.h5"], "one for each part (lower, upper)"),
        (
            ["export", "tokens.h5", "-o", "x.jsonl", "--format", "text", "--flatten", "first-layer"],
            "take a multiple of 2",
        ),
        ([*words, "--part", "head", "-o", "x.h5"], "no part 'head'; there are lower, upper"),
        ([*words[:-1], "walk1@1:4", "--part", "upper", "-o", "x.h5"], "name two of one length"),
    ):
        code, _, errors = run(*command, "-q")
        assert code == 2 and what in errors, errors
        assert not Path(command[command.index("-o") + 1]).exists()
    assert run("edit", "drop-layers", "tokens.h5", "--keep", "2", "-o", "coarse.h5", "-q")[0] == 0
    assert run("decode", "run", "coarse.h5", "-o", "coarse.motion.h5", "-q")[0] == 0
