"""Editing tokens: what becomes of codes, lengths, captions and the other clips, and how seams are judged."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqtool.companions import Caption, Companions
from vqtool.edit import (
    Range,
    Seam,
    Vectors,
    exchanged,
    interpolated,
    joined,
    judge,
    parse_range,
    repeated,
    replaced,
    reversed_range,
    rows_of,
    write_edited,
)
from vqtool.errors import UsageError
from vqtool.tokens import (
    TokenHeader,
    TokenSet,
    create_latents,
    create_tokens,
    frames_of_tokens,
    seconds_of_tokens,
    tokens_of_frames,
    tokens_of_seconds,
)

HEADER = TokenHeader(
    dim=6,
    fps=20.0,
    downsample=4,
    bottleneck="rvq",
    layout="raw",
    tokenizer_id="ab" * 32,
    numerics="stable",
    source='["a.h5"]',
    codebook_sizes=(32, 32),
)
# 10, 8, 0 and 3 token frames, five a second; the first lacks 3 frames in its last one.
NAMES, FRAMES = ["walk", "run@1:2", "none", "jump"], [37, 32, 0, 12]
ALONG = Companions(
    splits=np.array([0, 0, 1, 2], np.uint8),
    mirror_of=np.array([-1, 0, -1, 1]),
    starts=np.arange(12.0).reshape(4, 3),
    captions=(Caption(0, "walks"), Caption(0, "turns", 1.0, 1.4), Caption(1, "runs"), Caption(3, "jumps")),
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    rows = sum(-(-count // 4) for count in FRAMES)
    books = [random.normal(size=(32, 4)) * scale for scale in (1.0, 0.2)]
    out = tmp_path / "tokens.h5"
    with create_tokens(out, NAMES, np.array(FRAMES), HEADER, books, companions=ALONG) as tokens:
        tokens.extend(codes=random.integers(0, 32, (rows, 2)))
    return out


@pytest.fixture
def tokens(path: Path) -> Any:
    with TokenSet(path) as clips:
        yield clips


def codes(tokens: TokenSet, clip: int) -> list[list[int]]:
    found: list[list[int]] = tokens[clip].codes.tolist()
    return found


# Ranges, and which frames a token covers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("walk", Range(0, 0, 10)),
        ("walk@2:5", Range(0, 2, 5)),
        ("walk@:5", Range(0, 0, 5)),
        ("walk@5:", Range(0, 5, 10)),
        ("walk@0.4s:1s", Range(0, 2, 5)),
        ("walk@1s:1.85s", Range(0, 5, 9)),
        ("walk@.2s:7", Range(0, 1, 7)),
        ("run@1:2", Range(1, 0, 8)),
        ("run@1:2@3:4", Range(1, 3, 4)),
    ],
)
def test_ranges_are_names_with_tokens_or_seconds(text: str, expected: Range, tokens: TokenSet) -> None:
    assert parse_range(tokens, text) == expected


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("wolk", "no clip is called 'wolk'; did you mean walk"),
        ("walk@5:5", "is empty; walk has the token frames 0:10"),
        ("walk@5:11", r"is outside walk, which has the token frames 0:10 \(1.85 s\)"),
        ("walk@1s:9s", "is outside walk"),
        ("none", "is empty"),
        ("walk@-1:2", "no clip is called"),
    ],
)
def test_ranges_that_are_none_are_refused(text: str, what: str, tokens: TokenSet) -> None:
    with pytest.raises(UsageError, match=what):
        parse_range(tokens, text)


def test_frames_tokens_and_seconds_are_told_apart_by_hand() -> None:
    assert frames_of_tokens(2, 5, 4) == (8, 20)
    assert frames_of_tokens(2, 5, 4, num_frames=17) == (8, 17)
    assert tokens_of_frames(8, 20, 4) == (2, 5)
    assert tokens_of_frames(9, 17, 4) == (2, 5)
    assert seconds_of_tokens(2, 5, 20, 4) == (0.4, 1.0)
    assert tokens_of_seconds(0.4, 1.0, 20, 4) == (2, 5)
    assert tokens_of_seconds(0.49, 0.51, 20, 4) == (2, 3)


@given(
    cuts=st.lists(st.floats(0, 100), min_size=2, max_size=6),
    fps=st.floats(1, 240),
    downsample=st.sampled_from([1, 2, 4, 8]),
)
def test_ranges_that_meet_in_seconds_meet_in_tokens(cuts: list[float], fps: float, downsample: int) -> None:
    cuts = sorted(cuts)
    ranges = [tokens_of_seconds(*pair, fps, downsample) for pair in itertools.pairwise(cuts)]
    assert all(before[1] == after[0] for before, after in itertools.pairwise(ranges))
    for first, last in ranges:
        assert tokens_of_frames(*frames_of_tokens(first, last, downsample), downsample) == (first, last)


# Edits


def test_replacing_takes_a_range_of_any_length(tokens: TokenSet) -> None:
    edit = replaced(tokens, Range(0, 2, 4), Range(1, 0, 5))
    walk, run = codes(tokens, 0), codes(tokens, 1)
    assert edit.rows.tolist() == walk[:2] + run[:5] + walk[4:]
    assert (edit.name, edit.clip, edit.sources) == ("walk", 0, (0, 1))
    assert edit.num_frames == 37 + 3 * 4
    assert edit.seams == [Seam(2, 2), Seam(7, 7)]


def test_a_part_replaced_by_itself_is_the_clip_as_it_was_without_seams(tokens: TokenSet) -> None:
    edit = replaced(tokens, Range(0, 2, 4), Range(0, 2, 4))
    assert (edit.rows.tolist(), edit.num_frames, edit.seams) == (codes(tokens, 0), 37, [])


def test_captions_follow_where_their_part_goes(tokens: TokenSet) -> None:
    edit = replaced(tokens, Range(0, 2, 4), Range(1, 0, 5))
    assert [(one.text, round(one.start_s, 6), round(one.end_s, 6)) for one in edit.captions] == [
        ("walks", 0.0, 0.4),
        ("runs", 0.4, 1.4),
        ("walks", 1.4, 2.45),
        ("turns", 1.6, 2.0),
    ]


def test_captions_of_a_trimmed_clip_are_cut_with_it(tokens: TokenSet) -> None:
    edit = joined(tokens, "walk", [parse_range(tokens, "walk@1.2s:")])
    assert [(one.text, round(one.start_s, 6), round(one.end_s, 6)) for one in edit.captions] == [
        ("walks", 0.0, 0.0),
        ("turns", 0.0, 0.2),
    ]
    assert (len(edit.rows), edit.num_frames) == (4, 13)


def test_a_repeated_range_has_seams_where_it_begins_again(tokens: TokenSet) -> None:
    edit = repeated(tokens, Range(1, 2, 5), 3)
    run = codes(tokens, 1)
    assert edit.rows.tolist() == run[:5] + run[2:5] * 2 + run[5:]
    assert edit.seams == [Seam(5, 5), Seam(8, 8)] and edit.num_frames == 32 + 2 * 12
    assert repeated(tokens, Range(1, 2, 5), 1).rows.tolist() == run


def test_a_reversed_clip_is_itself_when_reversed_again(tokens: TokenSet) -> None:
    edit = reversed_range(tokens, Range(1, 0, 8))
    assert edit.rows.tolist() == codes(tokens, 1)[::-1] and edit.seams == []
    edit = reversed_range(tokens, Range(0, 4, 8))
    walk = codes(tokens, 0)
    assert edit.rows.tolist() == walk[:4] + walk[4:8][::-1] + walk[8:]
    assert [(one.text, round(one.start_s, 6), round(one.end_s, 6)) for one in edit.captions] == [
        ("walks", 0.0, 0.0),
        ("turns", 1.0, 1.4),
    ]


def test_exchanged_layers_leave_the_others_as_they_are(tokens: TokenSet) -> None:
    one, other = exchanged(tokens, Range(0, 1, 5), Range(1, 0, 4), [1])
    walk, run = np.array(codes(tokens, 0)), np.array(codes(tokens, 1))
    assert (one.rows[:, 0] == walk[:, 0]).all() and (other.rows[:, 0] == run[:, 0]).all()
    assert one.rows[:, 1].tolist() == [walk[0, 1], *run[:4, 1], *walk[5:, 1]]
    assert other.rows[:, 1].tolist() == [*walk[1:5, 1], *run[4:, 1]]
    assert one.seams == [Seam(1, 1), Seam(5, 5)] and other.seams == [Seam(4, 4)]
    with pytest.raises(UsageError, match="--layer 2: the file has the layers 0 to 1"):
        exchanged(tokens, Range(0, 1, 5), Range(1, 0, 4), [2])


def test_interpolation_begins_with_one_clip_and_ends_with_the_other(tokens: TokenSet) -> None:
    one, other = Range(0, 3, 7), Range(1, 0, 4)
    edit = interpolated(tokens, one, other, "new", (0, 1))
    assert edit.rows[0].tolist() == codes(tokens, 0)[3] and edit.rows[-1].tolist() == codes(tokens, 1)[3]
    assert [caption.text for caption in edit.captions] == ["walks", "turns", "runs"]
    for weight, expected in ((0, codes(tokens, 0)[3:7]), (1, codes(tokens, 1)[:4])):
        assert interpolated(tokens, one, other, "new", (weight, weight)).rows.tolist() == expected
    with pytest.raises(UsageError, match=r"walk@1:4 run@1:2@0:3"):
        interpolated(tokens, Range(0, 1, 5), Range(1, 0, 3), "new", (0, 1))


def test_vectors_are_quantized_layer_by_layer_to_the_nearest_code(tokens: TokenSet) -> None:
    vectors = Vectors(tokens)
    wanted = np.random.default_rng(1).normal(size=(50, 4))
    found = vectors.quantized(wanted)
    for vector, row in zip(wanted, found, strict=True):
        first = np.linalg.norm(tokens.codebooks[0] - vector, axis=1).argmin()
        second = np.linalg.norm(tokens.codebooks[1] - (vector - tokens.codebooks[0][first]), axis=1).argmin()
        assert row.tolist() == [first, second]


def test_a_cross_fade_lays_ranges_over_each_other(tokens: TokenSet) -> None:
    edit = joined(tokens, "new", [Range(0, 0, 6), Range(1, 2, 8)], cross_fade=2)
    walk, run = codes(tokens, 0), codes(tokens, 1)
    assert edit.rows[:4].tolist() == walk[:4] and edit.rows[6:].tolist() == run[4:]
    assert (len(edit.rows), edit.num_frames, edit.seams) == (10, 40, [Seam(4, 6)])
    vectors = Vectors(tokens)
    before, after = vectors.of(np.array(walk[4:6])), vectors.of(np.array(run[2:4]))
    middle = [before[0] * 2 / 3 + after[0] / 3, before[1] / 3 + after[1] * 2 / 3]
    assert edit.rows[4:6].tolist() == vectors.quantized(np.array(middle)).tolist()
    with pytest.raises(UsageError, match="too short for a cross-fade of 4"):
        joined(tokens, "new", [Range(0, 0, 6), Range(1, 2, 8), Range(0, 0, 6)], cross_fade=4)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), fade=st.integers(0, 2))
def test_any_splice_has_as_many_rows_as_frames_and_captions_inside(
    tokens: TokenSet, data: st.DataObject, fade: int
) -> None:
    ends = {0: 10, 1: 8, 3: 3}
    parts = []
    for _ in range(data.draw(st.integers(1, 4))):
        clip = data.draw(st.sampled_from(sorted(ends)))
        start = data.draw(st.integers(0, ends[clip] - 1))
        parts.append(Range(clip, start, data.draw(st.integers(start + 1, ends[clip])), data.draw(st.booleans())))
    try:
        edit = joined(tokens, "new", parts, cross_fade=fade)
    except UsageError as error:
        assert fade and "too short" in str(error)
        return
    assert -(-edit.num_frames // 4) == len(edit.rows)
    assert len(edit.rows) == sum(map(len, parts)) - fade * len(edit.seams)
    assert ((edit.rows >= 0) & (edit.rows < 32)).all()
    for caption in edit.captions:
        assert 0 <= caption.start_s <= caption.end_s <= edit.num_frames / 20 + 1e-9
    if not fade:
        whole = np.concatenate(
            [np.array(codes(tokens, p.clip))[p.start : p.stop][:: -1 if p.backwards else 1] for p in parts]
        )
        np.testing.assert_array_equal(edit.rows, whole)


# Seams


def test_a_seam_is_measured_against_the_clips_own_steps() -> None:
    """Vectors on a line: own steps of 1, a jump of 5."""

    class Line:
        header, is_latents, names = HEADER, True, ["a"]
        offsets = np.array([0, 20])

        def rows(self, name: str, start: int, stop: int) -> np.ndarray:
            return np.arange(start, stop, dtype=float)[:, None]

    line: Any = Line()
    from vqtool.edit import Edit

    rows = np.stack([[0.0, 1, 2, 7, 8, 9]] * 2, axis=1)
    (verdict,) = judge(line, [Edit("new", rows, 24, 0, (0,), [], [Seam(3, 3)])])
    assert (verdict.jump, verdict.usual, verdict.ratio) == (5.0, 1.0, 5.0)
    assert (verdict.token, verdict.frame, verdict.seconds) == (3, 12, 0.6)


def test_a_seam_of_motion_is_the_change_of_velocity_there(tokens: TokenSet) -> None:
    def decode(rows: np.ndarray) -> np.ndarray:
        """A point at constant speed, which turns back in the middle of an edited clip."""
        frames = np.arange(4 * len(rows), dtype=float)
        return (frames if len(rows) != 6 else np.abs(frames - 11.5))[:, None]

    edit = joined(tokens, "new", [Range(0, 0, 3), Range(1, 5, 8)])
    (verdict,) = judge(tokens, [edit], decode)
    assert verdict.jump == pytest.approx(1.0) and verdict.usual == pytest.approx(0.0)
    assert verdict.ratio is None
    smooth = judge(tokens, [edit], lambda rows: np.sin(np.arange(4 * len(rows)) / 3)[:, None])
    assert 0.9 < smooth[0].ratio <= 1.0  # type: ignore[operator]


# The file


def test_other_clips_go_along_and_mirror_images_and_splits_stay_true(tokens: TokenSet, tmp_path: Path) -> None:
    edits = [
        replaced(tokens, Range(0, 2, 4), Range(1, 0, 5)),
        joined(tokens, "mix", [Range(3, 0, 2), Range(1, 0, 5)]),
    ]
    assert write_edited(tokens, tmp_path / "out.h5", edits, "edit test") == 5
    with TokenSet(tmp_path / "out.h5") as out:
        out.verify()
        assert out.names == [*NAMES, "mix"] and out.num_frames.tolist() == [49, 32, 0, 12, 28]
        assert out[0].codes.tolist() == edits[0].rows.tolist() and out[4].codes.tolist() == edits[1].rows.tolist()
        assert all(out[clip].codes.tolist() == codes(tokens, clip) for clip in (1, 2, 3))
        assert out.header == dataclasses.replace(HEADER, source='["a.h5", "edit test"]')
        assert out.companions.splits is not None and out.companions.splits.tolist() == [0, 0, 1, 2, 255]
        assert out.companions.mirror_of is not None and out.companions.mirror_of.tolist() == [-1, 1, -1, 1, -1]
        assert out.companions.starts is not None and out.companions.starts[4].tolist() == [9, 10, 11]
        assert [one.clip for one in out.companions.captions] == [0, 0, 0, 0, 1, 3, 4, 4]


def test_only_leaves_the_others_out_and_fewer_layers_have_fewer_codebooks(tokens: TokenSet, tmp_path: Path) -> None:
    edit = joined(tokens, "mix", [Range(3, 0, 2), Range(1, 0, 5)])
    assert write_edited(tokens, tmp_path / "only.h5", [edit], "", only=True) == 1
    assert write_edited(tokens, tmp_path / "coarse.h5", [], "", keep_layers=1) == 4
    with TokenSet(tmp_path / "only.h5") as only, TokenSet(tmp_path / "coarse.h5") as coarse:
        assert only.names == ["mix"]
        assert coarse.header.codebook_sizes == (32,) and len(coarse.codebooks) == 1
        assert coarse[0].codes[:, 0].tolist() == [row[0] for row in codes(tokens, 0)]


def test_latents_are_blended_as_numbers(tmp_path: Path) -> None:
    header = dataclasses.replace(HEADER, bottleneck="vae", codebook_sizes=())
    mean = np.arange(16, dtype="f4").reshape(8, 2)
    with create_latents(tmp_path / "l.h5", ["a", "b"], np.array([16, 16]), header, 2) as latents:
        latents.extend(mean=mean, logvar=np.zeros((8, 2), "f4"))
    with TokenSet(tmp_path / "l.h5") as latents:
        edit = interpolated(latents, Range(0, 0, 4), Range(1, 0, 4), "c", (0.5, 0.5))
        np.testing.assert_allclose(edit.rows[:, :2], (mean[:4] + mean[4:]) / 2)
        np.testing.assert_allclose(edit.rows[:, 2:], np.log(0.5))
        assert write_edited(latents, tmp_path / "out.h5", [edit], "") == 3
        with pytest.raises(UsageError, match="latents of a VAE, which have no layers"):
            exchanged(latents, Range(0, 0, 4), Range(1, 0, 4), [0])
    with TokenSet(tmp_path / "out.h5") as out:
        out.verify()
        np.testing.assert_array_equal(out.rows("mean", 8, 12), edit.rows[:, :2])


# The command line

WORDS = {
    "replace": ["--clip", "clip_08", "--at", "3:9", "--with", "clip_09@0:8", "--cross-fade", "1"],
    "splice": ["clip_08@0:10", "clip_09@5:", "--name", "new", "--cross-fade", "0.3s"],
    "interpolate": ["clip_08@0:10", "clip_09@0:10", "--weight", "0:1"],
    "trim": ["clip_08@1s:3s", "clip_09@4:"],
    "repeat": ["clip_08@4:12", "--times", "3"],
    "reverse": ["clip_08"],
    "drop-layers": ["--keep", "2"],
    "swap-layer": ["clip_08@0:10", "clip_09@0:10", "--layer", "0"],
}


@pytest.fixture(scope="module")
def encoded(trained: Callable[[str], Path], motion_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vqtool.nn.codec import load
    from vqtool.nn.files import encode_file
    from vqtool.store import MotionSet

    out = tmp_path_factory.mktemp("edit") / "tokens.h5"
    with MotionSet([motion_path]) as motion:
        encode_file(load(trained("rvq"), device="cpu"), motion, out)
    return out


@pytest.mark.parametrize("name", sorted(WORDS))
def test_every_edit_gives_tokens_that_decode(
    name: str, run: Run, encoded: Path, trained: Callable[[str], Path]
) -> None:
    words = WORDS[name]
    code, out, errors = run("edit", name, encoded, *words, "-o", "edited.h5", "--json", "-q")
    assert (code, errors) == (0, "")
    told = json.loads(out)
    assert told["judged_by"] == "vectors" and all(seam["ratio"] > 0 for seam in told["seams"])
    assert sum(edit["seams"] for edit in told["edited"]) == len(told["seams"])
    assert run("decode", trained("rvq"), "edited.h5", "-o", "motion.h5", "-q")[0] == 0
    from vqtool.store import MotionSet

    with TokenSet(Path("edited.h5")) as tokens, MotionSet([Path("motion.h5")]) as motion:
        assert motion.lengths.tolist() == tokens.num_frames.tolist()
        assert f"edit {name}" in tokens.header.source
        assert len(motion) == told["clips"] == 12 + (name in ("splice", "interpolate"))


def test_edit_alone_shows_its_commands(run: Run) -> None:
    code, out, errors = run("edit")
    assert (code, errors) == (2, "") and all(name in out for name in WORDS)


def test_the_levels_of_fsq_are_vectors_that_quantize_to_themselves(
    run: Run, trained: Callable[[str], Path], motion_path: Path
) -> None:
    assert run("encode", trained("fsq"), motion_path, "-o", "fsq.h5", "-q")[0] == 0
    with TokenSet(Path("fsq.h5")) as tokens:
        every = np.arange(tokens.header.codebook_sizes[0])[:, None]
        vectors = Vectors(tokens)
        np.testing.assert_array_equal(vectors.quantized(vectors.of(every)), every)
    words = ["edit", "interpolate", "fsq.h5", "clip_08@0:10", "clip_09@0:10", "-o", "between.h5", "-q"]
    assert run(*words)[0] == 0 and run("decode", trained("fsq"), "between.h5", "-o", "m.h5", "-q")[0] == 0


# Parts of the body: codebooks of 3, 1 and 3, 1 channels, two layers each

LIMBS = dataclasses.replace(HEADER, bottleneck="product", codebook_sizes=(32, 16, 32, 16), parts=("arm", "leg"))


@pytest.fixture
def limbs(tmp_path: Path) -> Any:
    random = np.random.default_rng(0)
    sizes, widths, rows = LIMBS.codebook_sizes, (3, 1, 3, 1), sum(-(-count // 4) for count in FRAMES)
    books = [random.normal(size=shape) for shape in zip(sizes, widths, strict=True)]
    with create_tokens(tmp_path / "limbs.h5", NAMES, np.array(FRAMES), LIMBS, books) as tokens:
        tokens.extend(codes=random.integers(0, 16, (rows, 4)))
    with TokenSet(tmp_path / "limbs.h5") as clips:
        yield clips


def test_vectors_of_parts_lie_side_by_side_and_quantize_part_by_part(limbs: TokenSet) -> None:
    vectors, books, rows = Vectors(limbs), limbs.codebooks, rows_of(limbs, Range(0, 0, 10))
    arm = books[0][rows[:, 0]] + books[2][rows[:, 2]]
    leg = books[1][rows[:, 1]] + books[3][rows[:, 3]]
    np.testing.assert_allclose(vectors.of(rows), np.concatenate([arm, leg], axis=1), rtol=1e-6)
    first = books[1][:, 0].astype(np.float64)
    found = vectors.quantized(vectors.of(rows))
    np.testing.assert_array_equal(found[:, 1], np.abs(leg.astype(np.float64) - first).argmin(axis=1))


def test_the_codes_of_a_part_are_replaced_alone(limbs: TokenSet) -> None:
    edit = replaced(limbs, Range(0, 2, 6), Range(1, 1, 5), parts=["leg"])
    expected = rows_of(limbs, Range(0, 0, 10))
    expected[2:6, [1, 3]] = rows_of(limbs, Range(1, 1, 5))[:, [1, 3]]
    np.testing.assert_array_equal(edit.rows, expected)
    assert (edit.name, edit.num_frames, edit.sources) == ("walk", 37, (0, 1))
    assert edit.seams == [Seam(2, 2), Seam(6, 6)]
    whole = replaced(limbs, Range(0, 0, 10), Range(0, 0, 10), parts=["leg", "arm"])
    assert whole.seams == [] and np.array_equal(whole.rows, rows_of(limbs, Range(0, 0, 10)))


def test_a_cross_fade_of_a_part_blends_it_within_its_range(limbs: TokenSet) -> None:
    edit = replaced(limbs, Range(0, 4, 10), Range(1, 1, 7), parts=["leg"], cross_fade=2)
    own, theirs = rows_of(limbs, Range(0, 0, 10)), rows_of(limbs, Range(1, 1, 7))
    middle = Vectors(limbs).blend(own[4:6], theirs[:2], np.array([1, 2]) / 3)
    np.testing.assert_array_equal(edit.rows[4:6, [1, 3]], middle[:, [1, 3]])
    np.testing.assert_array_equal(edit.rows[6:, [1, 3]], theirs[2:, [1, 3]])
    np.testing.assert_array_equal(edit.rows[:, [0, 2]], own[:, [0, 2]])
    assert edit.seams == [Seam(4, 6)]
    with pytest.raises(UsageError, match="a range of 3 token frames is too short for a cross-fade of 2 at each seam"):
        replaced(limbs, Range(0, 4, 7), Range(1, 1, 4), parts=["leg"], cross_fade=2)


def test_a_part_that_there_is_not_is_refused(limbs: TokenSet, tokens: TokenSet) -> None:
    with pytest.raises(UsageError, match="no part 'head'; there are arm, leg"):
        replaced(limbs, Range(0, 0, 3), Range(1, 0, 3), parts=["head"])
    with pytest.raises(UsageError, match="no part 'leg'; these tokens have none"):
        replaced(tokens, Range(0, 0, 3), Range(1, 0, 3), parts=["leg"])


def test_seams_are_judged_by_motion_with_a_run(run: Run, encoded: Path, trained: Callable[[str], Path]) -> None:
    words = ["edit", "splice", encoded, "clip_08@0:10", "clip_09@5:", "-o", "new.h5", "--run", trained("rvq")]
    code, out, _ = run(*words)
    assert code == 0 and "x the 95th percentile of the clips' own changes of velocity" in out
    told = json.loads(run(*words, "--json", "--force")[1])
    assert told["judged_by"] == "motion" and told["seams"][0]["token"] == 10 and told["seams"][0]["frame"] == 40
    code, _, errors = run(*words[:-1], trained("fsq"), "--force")
    assert code == 76 and "name the run that encoded it" in errors


def test_tokens_without_codebooks_are_edited_but_not_blended(run: Run, encoded: Path) -> None:
    assert run("export", encoded, "-o", "t.jsonl", "--format", "text", "-q")[0] == 0
    assert run("import", "t.jsonl", "-o", "bare.h5", "-q")[0] == 0
    words = ["edit", "splice", "bare.h5", "clip_08@0:10", "clip_09@5:", "-o", "new.h5", "-q"]
    assert run(*words)[0] == 0
    code, _, errors = run(*words, "--cross-fade", "2", "--force")
    assert code == 2 and "has no codebooks" in errors and "--like" in errors


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["splice", "TOKENS", "clip_08", "clip_99", "-o", "x.h5"], "no clip is called 'clip_99'"),
        (["splice", "TOKENS", "clip_08", "--name", "clip_09", "-o", "x.h5"], "the file has a clip of that name"),
        (
            ["splice", "TOKENS", "clip_08@1:3", "-o", "x.h5"],
            "a clip called clip_08 already; name the result with --name",
        ),
        (["trim", "TOKENS", "clip_08@1:2", "clip_08@3:4", "-o", "x.h5"], "is named twice"),
        (["interpolate", "TOKENS", "clip_08@0:9", "clip_09@0:9", "--weight", "2", "-o", "x.h5"], "from 0 to 1"),
        (["interpolate", "TOKENS", "clip_08@0:9", "clip_09@0:9", "--weight", "x", "-o", "x.h5"], "not 'x'"),
        (["replace", "TOKENS", "--clip", "clip_08", "--at", "3", "--with", "clip_09", "-o", "x.h5"], "is no range"),
        (["splice", "TOKENS", "clip_08", "clip_09", "--cross-fade", "much", "-o", "x.h5"], "is no length"),
        (["drop-layers", "TOKENS", "--keep", "4", "-o", "x.h5"], "--keep 4: the file has 3 layers"),
        (["reverse", "TOKENS", "clip_08", "-o", "TOKENS"], "both input and output"),
    ],
)
def test_what_cannot_be_edited_is_one_line_and_leaves_nothing(
    words: list[str], what: str, run: Run, encoded: Path
) -> None:
    code, _, errors = run("edit", *(encoded if word == "TOKENS" else word for word in words))
    assert code == 2 and what in errors and errors.count("\n") == 1
    assert not Path("x.h5").exists()
