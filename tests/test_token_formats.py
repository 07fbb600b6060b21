"""Tokens as text, ids, Parquet, npy and CSV, and back: exactly, or refused with the place."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vqtool.companions import Caption, Companions
from vqtool.errors import DataError, MismatchError, OutputError, UsageError, VqtoolError
from vqtool.skeleton import Skeleton
from vqtool.token_formats import (
    TOKEN_FORMATS,
    ReadingOptions,
    Reference,
    SequenceOptions,
    Spelling,
    export_tokens,
    import_tokens,
)
from vqtool.token_formats.sequences import FLATTENINGS, BadToken, Sequences
from vqtool.tokens import TokenHeader, TokenSet, create_tokens

HAS_PYARROW = importlib.util.find_spec("pyarrow") is not None
NEEDS_PYARROW = pytest.mark.skipif(not HAS_PYARROW, reason="pyarrow is not installed (the extra 'parquet')")
FORMATS = [pytest.param(name, marks=NEEDS_PYARROW) if name == "parquet" else name for name in TOKEN_FORMATS]
SUFFIX = {"text": ".jsonl", "motiongpt": ".jsonl", "parquet": ".parquet", "npy": "", "csv": ".csv"}

HEADER = TokenHeader(
    dim=6,
    fps=29.97,
    downsample=4,
    bottleneck="rvq",
    layout="joints",
    tokenizer_id="ab" * 32,
    numerics="stable",
    source='["a.h5"]',
    codebook_sizes=(8, 300),
)


def write(
    path: Path,
    frames: list[int],
    names: list[str] | None = None,
    companions: Companions | None = None,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """A tokens.h5 of random codes."""
    header = dataclasses.replace(HEADER, **changes)
    random = np.random.default_rng(seed)
    rows = sum(-(-count // header.downsample) for count in frames)
    codes = np.stack([random.integers(0, size, rows) for size in header.codebook_sizes], axis=1)
    books = [random.normal(size=(size, 1)).astype("f4") for size in header.codebook_sizes]
    names = names or [f"clip {number}" for number in range(len(frames))]
    with create_tokens(path, names, np.array(frames), header, books, companions=companions, force=True) as tokens:
        tokens.extend(codes=codes)
    return path


def all_companions() -> Companions:
    """Of the five clips of `tokens`: everything that can go along."""
    bodies = tuple(Skeleton(("hip", "toe"), (-1, 0), np.array([[0.0, 0, 0], [0, -length, 0]])) for length in (1, 1.1))
    return Companions(
        splits=np.array([0, 1, 2, 255, 0], np.uint8),
        mirror_of=np.array([-1, 0, 2, -1, -1]),
        starts=np.random.default_rng(0).normal(size=(5, 3)),
        bodies=bodies,
        body_of=np.array([0, 1, 0, 1, 0]),
        captions=(
            Caption(0, 'he said "walk",\nthen <m0_3> walked', 0.1, 2.5, "walk/VERB"),
            Caption(0, "überall \u2028 歩く"),
            Caption(3, ""),
        ),
    )


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """Five clips of two layers, with companions."""
    return write(tmp_path / "tokens.h5", [5, 0, 12, 1, 64], companions=all_companions())


def output(folder: Path, format: str) -> Path:
    return folder / f"out{SUFFIX.get(format, '.bin')}"


def exported(tokens: Path, format: str, split: str | None = None, vocab: Path | None = None, **options: Any) -> Path:
    out = output(tokens.parent, format)
    with TokenSet(tokens) as clips:
        export_tokens(clips, out, format, SequenceOptions(**options), split=split, vocab=vocab, force=True)
    return out


def assert_same(before: Path, after: Path, layers: int | None = None) -> None:
    """Everything in two tokens.h5 is equal, but their vqtool; of the second the first `layers` only."""
    with TokenSet(before) as one, TokenSet(after) as two:
        two.verify()
        assert two.names == one.names
        np.testing.assert_array_equal(two.num_frames, one.num_frames)
        assert two.header == dataclasses.replace(one.header, codebook_sizes=one.header.codebook_sizes[:layers])
        for clip in range(len(one)):
            np.testing.assert_array_equal(two[clip].codes, one[clip].codes[:, :layers])
        ours, theirs = one.companions.to_arrays(), two.companions.to_arrays()
        assert theirs.keys() == ours.keys()
        for name, value in ours.items():
            np.testing.assert_array_equal(theirs[name], value, err_msg=name)


# Exports and their imports


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_comes_back_with_all_that_went_along(format: str, tokens: Path) -> None:
    out = exported(tokens, format)
    again = tokens.with_name("again.h5")
    import_tokens([out], again, reference=Reference.of_tokens(tokens))
    assert_same(tokens, again)
    with TokenSet(tokens) as one, TokenSet(again) as two:
        for ours, theirs in zip(one.codebooks, two.codebooks, strict=True):
            np.testing.assert_array_equal(ours, theirs)


NAMES = st.lists(
    st.one_of(
        st.text(min_size=1, max_size=12).filter(lambda name: "\0" not in name),
        st.sampled_from(['a "b", c', "<m0_1>", "../x\r\ny", "\x85\u2028", "a@1:2", " ", "name", "\ufeff=1"]),
    ),
    unique=True,
    max_size=5,
)


SIZES = st.lists(st.sampled_from([1, 2, 9, 512]), min_size=1, max_size=3).map(tuple)


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(NAMES)
    flatten = draw(st.sampled_from([None, *FLATTENINGS]))
    count = len(names)
    texts = st.text(max_size=10).map(lambda text: text.replace("\0", ""))
    caption = st.tuples(texts, st.floats(0, 60, width=32), st.floats(0, 60, width=32), texts)
    captions = draw(st.lists(st.tuples(st.integers(0, max(0, count - 1)), caption), max_size=4 if count else 0))
    splits = draw(st.none() | st.lists(st.sampled_from([0, 1, 2, 255]), min_size=count, max_size=count))
    return {
        "names": names,
        "frames": draw(st.lists(st.integers(0, 160), min_size=count, max_size=count)),
        "sizes": draw(st.one_of(SIZES, SIZES, st.sampled_from([(65_497,), (2, 70_000)]))),
        "companions": Companions(
            splits=None if splits is None else np.array(splits, np.uint8),
            captions=tuple(Caption(clip, *rest) for clip, rest in sorted(captions, key=lambda one: one[0])),
        ),
        "options": {
            "flatten": flatten,
            "delay": flatten != "first-layer" and draw(st.booleans()),
            "start": draw(st.none() | st.booleans()),
            "end": draw(st.none() | st.booleans()),
            "pad_to": draw(st.none() | st.just(200)),
            "offset": draw(st.sampled_from([0, 0, 1, 32_100])),
        },
        "seed": draw(st.integers(0, 100)),
    }


def fitting(format: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those of the options that mean something to a format."""
    takes = TOKEN_FORMATS[format].takes
    needs = {"flatten": "flatten", "delay": "delay", "offset": "offset"}
    kept = {name: value for name, value in options.items() if needs.get(name, "specials") in takes}
    if TOKEN_FORMATS[format].layers and not kept.get("flatten"):
        kept = {"delay": kept.get("delay", False)}
    return kept


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=cases())
def test_any_tokens_come_back_exactly(format: str, case: dict[str, Any], tmp_path: Path) -> None:
    sizes = case["sizes"]
    path = tmp_path / "tokens.h5"
    write(path, case["frames"], case["names"], case["companions"], case["seed"], codebook_sizes=sizes)
    options = fitting(format, case["options"])
    if options.get("pad_to") and len(sizes) > 1:
        options["pad_to"] = 1000
    out = exported(path, format, **options)
    import_tokens([out], tmp_path / "again.h5", force=True)
    assert_same(path, tmp_path / "again.h5", layers=1 if options.get("flatten") == "first-layer" else None)


def test_names_that_are_not_unicode_come_back_from_all_but_parquet(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.h5", [9, 8], names=["caf\udce9", "\udcff\udcfe"])
    for format in TOKEN_FORMATS:
        if format != "parquet":
            import_tokens([exported(path, format)], tmp_path / "again.h5", force=True)
            assert_same(path, tmp_path / "again.h5")
    if HAS_PYARROW:
        with pytest.raises(DataError, match="not valid Unicode"):
            exported(path, "parquet")


@pytest.mark.parametrize("format", FORMATS)
def test_splits_exported_apart_come_back_together(format: str, tokens: Path) -> None:
    outs = []
    for split in ("train", "val", "test"):
        out = exported(tokens, format, split)
        outs.append(out.rename(out.with_name(split + out.suffix)))
        if (card := out.with_name(out.name + ".meta.json")).exists():
            card.rename(outs[-1].with_name(outs[-1].name + ".meta.json"))
    import_tokens(outs, tokens.with_name("again.h5"))
    with TokenSet(tokens) as before, TokenSet(tokens.with_name("again.h5")) as after:
        assert after.names == [before.names[clip] for clip in (0, 4, 1, 2)]
        assert after.companions.splits is not None
        assert after.companions.splits.tolist() == [0, 0, 1, 2]
        assert after.companions.mirror_of is not None
        assert after.companions.mirror_of.tolist() == [-1, -1, 0, 3]
        assert len(after.companions.bodies) == 2
        assert [one.clip for one in after.companions.captions] == [0, 0]


def test_text_reads_as_the_issue_spells_it(tokens: Path) -> None:
    lines = [json.loads(line) for line in exported(tokens, "text").read_bytes().splitlines()]
    with TokenSet(tokens) as clips:
        codes = clips[0].codes.tolist()
    assert lines[0]["text"] == "".join(f"<m0_{first}><m1_{second}>" for first, second in codes)
    assert list(lines[0])[:6] == ["name", "text", "captions", "fps", "num_frames", "split"]
    assert lines[0]["captions"] == ['he said "walk",\nthen <m0_3> walked', "überall \u2028 歩く"]
    assert [line["split"] for line in lines] == ["train", "val", "test", None, "train"]


def test_lines_of_text_may_be_filtered_and_shuffled(tokens: Path) -> None:
    out = exported(tokens, "text")
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join([lines[4], lines[0]]))
    import_tokens([out], tokens.with_name("again.h5"))
    with TokenSet(tokens) as before, TokenSet(tokens.with_name("again.h5")) as after:
        assert after.names == [before.names[4], before.names[0]]
        np.testing.assert_array_equal(after[0].codes, before[4].codes)


def test_motiongpt_numbers_tokens_as_motiongpt_does(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.h5", [8], codebook_sizes=(512,))
    out = exported(path, "motiongpt", vocab=tmp_path / "vocab.txt")
    with TokenSet(path) as clips:
        first, second = clips[0].codes[:, 0].tolist()
    text = f"<motion_id_512><motion_id_{first}><motion_id_{second}><motion_id_513>"
    assert json.loads(out.read_text())["text"] == text
    assert (tmp_path / "vocab.txt").read_text().split() == [f"<motion_id_{number}>" for number in range(512 + 3)]


def test_t2m_gpt_finds_int64_of_one_row(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.h5", [40, 0], codebook_sizes=(512,), names=["a/b", "c"])
    out = exported(path, "npy")
    array = np.load(out / "a" / "b.npy")
    assert (array.dtype, array.shape) == (np.int64, (1, 10))
    with TokenSet(path) as clips:
        np.testing.assert_array_equal(array[0], clips[0].codes[:, 0])
    assert np.load(out / "c.npy").shape == (1, 0)


def test_npy_of_several_layers_has_a_row_a_layer_with_blanks_where_delayed(tokens: Path) -> None:
    array = np.load(exported(tokens, "npy", delay=True) / "clip 2.npy")
    with TokenSet(tokens) as clips:
        codes = clips[2].codes
    assert array.shape == (2, 4)
    np.testing.assert_array_equal(array, [[*codes[:, 0], 8], [300, *codes[:, 1]]])


def test_nanogpt_is_a_memmap_of_uint16_that_ends_each_clip(tokens: Path) -> None:
    out = exported(tokens, "nanogpt")
    card = json.loads(out.with_name(out.name + ".meta.json").read_text())
    assert (card["dtype"], card["vocabulary"]["size"], card["vocabulary"]["layers"]) == ("uint16", 311, [0, 8])
    ids = np.memmap(out, np.uint16, "r")
    assert (ids == card["vocabulary"]["end"]).sum() == 5 and card["ids"] == len(ids) == 22 * 2 + 5
    with TokenSet(tokens) as clips:
        np.testing.assert_array_equal(ids[:4].reshape(2, 2), clips[0].codes + np.array([0, 8]))


def test_nanogpt_of_a_large_vocabulary_is_uint32(tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.h5", [8], codebook_sizes=(65_534,))
    out = exported(path, "nanogpt")
    assert json.loads(out.with_name(out.name + ".meta.json").read_text())["dtype"] == "uint32"
    assert out.stat().st_size == 4 * 3


def test_megatron_index_is_that_of_its_dataset_class(tokens: Path) -> None:
    out = exported(tokens, "megatron")
    index = out.with_suffix(".idx").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    assert struct.unpack("<QBQQ", index[9:34]) == (1, 8, 5, 6)
    lengths = np.frombuffer(index, "<i4", 5, 34)
    places = np.frombuffer(index, "<i8", 5, 34 + 20)
    assert lengths.tolist() == [5, 1, 7, 3, 33]
    assert places.tolist() == [0, 10, 12, 26, 32]
    assert np.frombuffer(index, "<i8", 6, 34 + 60).tolist() == [0, 1, 2, 3, 4, 5]
    assert len(index) == 34 + 60 + 48


@NEEDS_PYARROW
def test_parquet_reads_as_columns_without_vqtool(tokens: Path) -> None:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(exported(tokens, "parquet", offset=32_100))
    assert table.column_names[:3] == ["name", "input_ids", "captions"]
    with TokenSet(tokens) as clips:
        assert table["input_ids"][2].as_py() == (clips[2].codes + np.array([32_100, 32_108])).ravel().tolist()
    assert table["split"].to_pylist() == ["train", "val", "test", None, "train"]


def test_vocab_lists_the_tokens_in_the_order_of_their_ids(tokens: Path) -> None:
    vocab = tokens.with_name("vocab.txt")
    out = exported(tokens, "nanogpt", vocab=vocab, offset=100)
    words = vocab.read_text().split()
    assert words[:9] == [*(f"<m0_{code}>" for code in range(8)), "<m1_0>"]
    assert words[-3:] == ["<m_start>", "<m_end>", "<m_pad>"]
    assert json.loads(out.with_name(out.name + ".meta.json").read_text())["vocabulary"]["end"] == 100 + len(words) - 2


def test_pad_to_fills_up_and_refuses_what_is_longer(tokens: Path) -> None:
    lines = exported(tokens, "text", pad_to=40, start=True, end=True).read_text().splitlines()
    assert {json.loads(line)["text"].count("<") for line in lines} == {40}
    with pytest.raises(DataError, match=r"clip clip 4: is 34 tokens long, more than --pad-to 33"):
        exported(tokens, "text", pad_to=33, start=True, end=True)


@pytest.mark.parametrize(
    ("format", "options", "what"),
    [
        ("text", {"offset": 5}, "--offset means nothing to --format text"),
        ("csv", {"flatten": "interleaved"}, "--flatten means nothing"),
        ("npy", {"start": True}, "--start needs one sequence"),
        ("text", {"flatten": "sideways"}, "--flatten is one of interleaved, layer-major, first-layer"),
        ("text", {"flatten": "first-layer", "delay": True}, "--delay is between layers"),
        ("nanogpt", {"offset": 2**31}, "--offset"),
        ("gif", {}, "tokens are exported as text"),
    ],
)
def test_options_that_mean_nothing_are_refused(format: str, options: dict[str, Any], what: str, tokens: Path) -> None:
    with pytest.raises(UsageError, match=what):
        exported(tokens, format, **options)
    assert [path.name for path in tokens.parent.iterdir()] == ["tokens.h5"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_in_the_way_is_left_alone(format: str, tokens: Path) -> None:
    out = exported(tokens, format)
    before = sorted(path.read_bytes() for path in [out, *out.rglob("*")] if path.is_file())
    with TokenSet(tokens) as clips, pytest.raises(OutputError, match="exists already"):
        export_tokens(clips, out, format, SequenceOptions())
    assert sorted(path.read_bytes() for path in [out, *out.rglob("*")] if path.is_file()) == before


def test_a_folder_with_someone_elses_meta_json_is_never_replaced(tokens: Path) -> None:
    folder = tokens.with_name("out")
    folder.mkdir()
    (folder / "meta.json").write_text('{"mine": 1}')
    with pytest.raises(OutputError, match="no vqtool export made"):
        exported(tokens, "npy")


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_token_file_leaves_no_export(format: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tokens.h5", [400])
    import h5py

    with h5py.File(path, "r+") as file:
        file["codes"][37, 1] = 12
    with pytest.raises(DataError, match="SHA-256"):
        exported(path, format)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens.h5"]


@pytest.mark.parametrize("format", ["nanogpt", "megatron"])
def test_ids_that_were_changed_are_refused(format: str, tokens: Path) -> None:
    out = exported(tokens, format)
    ids = np.fromfile(out, np.uint16)
    same_layer = ids.copy()
    same_layer[0] = (ids[0] + 1) % 8
    other_layer = ids.copy()
    other_layer[0] = 9
    for changed, what in ((same_layer, "SHA-256"), (other_layer, "layer 1 where layer 0"), (ids[:-1], "bytes long")):
        changed.tofile(out)
        with pytest.raises(DataError, match=what):
            import_tokens([out], tokens.with_name("again.h5"))
        assert not tokens.with_name("again.h5").exists()


def test_codebooks_of_another_tokenizer_are_refused(tokens: Path) -> None:
    other = write(tokens.with_name("other.h5"), [8], tokenizer_id="cd" * 32)
    with pytest.raises(MismatchError, match="was made by tokenizer abab"):
        import_tokens([exported(tokens, "text")], tokens.with_name("again.h5"), reference=Reference.of_tokens(other))


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where in a JSON value something stands."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*at, key)
        yield from places(inner, (*at, key))


@pytest.mark.parametrize("format", ["nanogpt", "npy"])
def test_a_card_with_anything_else_in_any_place_raises_nothing_but_errors_of_vqtool(format: str, tokens: Path) -> None:
    out = exported(tokens, format)
    path = out / "meta.json" if out.is_dir() else out.with_name(out.name + ".meta.json")
    text = path.read_text()
    refused = 0
    for place in places(json.loads(text)):
        for value in ("gone", None, 2.5, [[None]], 1 << 70):
            card = json.loads(text)
            node = card
            for key in place[:-1]:
                node = node[key]
            node[place[-1]] = value
            if value == "gone":
                del node[place[-1]]
            path.write_text(json.dumps(card))
            try:
                import_tokens([out], tokens.with_name("again.h5"), force=True)
            except VqtoolError as error:
                refused += 1
                assert "\n" not in str(error)
    assert refused > 80


@pytest.mark.parametrize("key", ["codebook_sizes", "tokenizer_id", "sequences", "fps", "clips", "sha256", "records"])
def test_a_card_that_lacks_something_is_one_clear_line(key: str, tokens: Path) -> None:
    out = exported(tokens, "nanogpt")
    path = out.with_name(out.name + ".meta.json")
    card = json.loads(path.read_text())
    del card[key]
    path.write_text(json.dumps(card))
    with pytest.raises(DataError, match="export again"):
        import_tokens([out], tokens.with_name("again.h5"))


# Sequences


def test_the_pattern_of_a_delay_is_musicgens() -> None:
    codes = np.array([[1, 4], [2, 5], [3, 6]])
    pad = 22
    plain = {"interleaved": [1, 14, 2, 15, 3, 16], "layer-major": [1, 2, 3, 14, 15, 16], "first-layer": [1, 2, 3]}
    late = {"interleaved": [1, pad, 2, 14, 3, 15, pad, 16], "layer-major": [1, 2, 3, pad, pad, 14, 15, 16]}
    for flatten, ids in plain.items():
        assert Sequences((10, 10), flatten).ids(codes).tolist() == (ids)
    for flatten, ids in late.items():
        assert Sequences((10, 10), flatten, delay=True).ids(codes).tolist() == ids


SPELLED = Spelling(Sequences((8, 300)))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("<m0_1><m1_300>", r"token 2 at character 7, <m1_300>: the codebook of layer 1 has the indices 0 to 299"),
        ("<m0_1><m2_0>", r"token 2 at character 7, <m2_0>: there are 2 layers, 0 to 1"),
        ("<m0_1><m1_2><m1_3>", r"token 3 at character 13, <m1_3>: is of layer 1 where layer 0 was expected"),
        ("<m0_1><m1_2><m0_3>", r"3 tokens are no multiple of the 2 layers: the last token frame lacks layer 1"),
        ("a man <m0_1><m1_2>", r"token 1 at character 1, a man: is no token \(in \[a man\] <m0_1><m1_2>\)"),
        ("<m0_1><m1_2>,<m0_1><m1_2>", r"token 3 at character 13, ,: is no token"),
        ("<m0_01><m1_2>", r"token 1 at character 1, <m0_01>: is spelled with needless zeros"),
        ("<m0_1><m1_2><m_end><m0_1><m1_2>", r"token 4 at character 20, <m0_1>: comes after <m_end>"),
        ("<m_pad><m0_1><m1_2>", r"token 1 at character 1, <m_pad>: is <m_pad> where layer 0 was expected"),
        ("<m0_1><m1_2><m0_", r"token 3 at character 13, <m0_: is no token"),
        ("<m0_1><motion_id_9>", r"<motion_id_9>: the vocabulary has <m0_0> to <m_pad>"),
    ],
)
def test_a_token_that_cannot_be_is_told_with_its_place_and_neighbours(text: str, what: str) -> None:
    with pytest.raises(DataError, match=what):
        SPELLED.codes(text)


def test_blanks_between_tokens_and_missing_specials_are_fine() -> None:
    expected = [[1, 2], [3, 4]]
    for text in (
        "<m0_1><m1_2><m0_3><m1_4>",
        " <m_start> <m0_1> <m1_2>\n<m0_3><m1_4> <m_end> <m_pad> <m_pad>\n",
        "<m0_1><m1_2><m0_3><m1_4><m_pad>",
    ):
        assert SPELLED.codes(text).tolist() == expected


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    codes=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 2)), min_size=1, max_size=8),
    flatten=st.sampled_from(FLATTENINGS),
    delay=st.booleans(),
    places=st.lists(st.integers(0, 40), max_size=2),
    data=st.data(),
)
def test_a_broken_sequence_is_refused_or_means_what_it_says_and_repair_keeps_a_true_beginning(
    codes: list[tuple[int, ...]], flatten: str, delay: bool, places: list[int], data: st.DataObject
) -> None:
    sequences = Sequences((5, 7, 3), flatten, delay=delay and flatten != "first-layer")
    truth = np.array(codes)[:, : sequences.layers]
    ids = sequences.ids(truth).tolist()
    for place in places:
        kind = data.draw(st.sampled_from(["cut", "drop", "change"]))
        if kind == "cut":
            ids = ids[:place]
        elif kind == "drop":
            ids[place : place + 1] = []
        elif place < len(ids):
            ids[place] = data.draw(st.integers(-1, 20))
    try:
        found = sequences.codes(np.array(ids, np.int64))
    except BadToken:
        found = None
    repaired, reason = sequences.repaired(np.array(ids, np.int64))
    assert repaired.shape[1] == sequences.layers
    assert ((repaired >= 0) & (repaired < sequences.sizes)).all()
    if found is None:
        assert reason
        # What it kept is in the sequence, in this order.
        kept = sequences.ids(repaired)
        kept = kept[kept < sum(sequences.sizes)]
        assert sorted(kept) == sorted(i for i in kept if i in ids)
    else:
        assert not reason
        np.testing.assert_array_equal(repaired, found)
        body = [i for i in ids if i < sequences.special("start")]
        assert sorted(sequences.ids(found)[sequences.ids(found) < sequences.special("start")]) == sorted(body)


def test_repair_keeps_what_a_cut_off_generation_has() -> None:
    codes = np.arange(12).reshape(6, 2) % 8
    for flatten, delay, cut, kept in (
        ("interleaved", False, 7, 3),
        ("interleaved", True, 7, 2),
        ("layer-major", False, 9, 3),
        ("layer-major", True, 10, 2),
        ("layer-major", False, 6, 0),
    ):
        sequences = Sequences((8, 8), flatten, delay=delay)
        found, reason = sequences.repaired(sequences.ids(codes)[:cut])
        np.testing.assert_array_equal(found, codes[:kept])
        assert reason


# What a model wrote


@pytest.fixture
def read(tokens: Path) -> Callable[..., TokenSet]:
    """read(content) imports it as what a model of `tokens` wrote."""

    def call(content: str | bytes | np.ndarray, *, repair: bool = False, name: str = "lm", **options: Any) -> Any:
        path = tokens.with_name(name)
        if isinstance(content, np.ndarray):
            with path.open("wb") as file:
                np.save(file, content)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        out = tokens.with_name("made.h5")
        layers = options.pop("num_quantizers", None)
        reading = ReadingOptions(SequenceOptions(**options), layers, repair)
        done = import_tokens([path], out, reference=Reference.of_tokens(tokens), reading=reading, force=True)
        with TokenSet(out) as found:
            found.verify()
            found.check_codes()
            clips = {clip.name: clip.codes.tolist() for clip in map(found.__getitem__, range(len(found)))}
            return clips, found.num_frames.tolist(), done

    return call


def test_plain_text_has_a_clip_a_line(read: Callable[..., Any]) -> None:
    clips, frames, done = read("<m0_1><m1_2><m0_3><m1_4>\n<m0_5><m1_6>\n")
    assert clips == {"line_1": [[1, 2], [3, 4]], "line_2": [[5, 6]]}
    assert frames == [8, 4] and not done.repaired


def test_json_lines_bring_names_lengths_and_captions(read: Callable[..., Any], tokens: Path) -> None:
    lines = [
        {"name": "a", "text": "<m0_1> <m1_2>", "captions": ["walks"], "num_frames": 3, "prompt": "anything"},
        {"text": "<m_start><m0_5><m1_6><m_end>"},
    ]
    clips, frames, _ = read("\n".join(map(json.dumps, lines)) + "\n\n")
    assert clips == {"a": [[1, 2]], "line_2": [[5, 6]]} and frames == [3, 4]
    with TokenSet(tokens.with_name("made.h5")) as made:
        assert [(one.clip, one.text) for one in made.companions.captions] == [(0, "walks")]


@pytest.mark.parametrize("flatten", [*FLATTENINGS])
def test_npy_is_a_sequence_or_a_row_a_layer(flatten: str, read: Callable[..., Any]) -> None:
    codes = np.array([[1, 2], [3, 299]])
    layers = 1 if flatten == "first-layer" else 2
    ids = Sequences((8, 300), flatten, offset=50).ids(codes)
    for array in (ids, ids[None].astype(np.int32)):
        assert read(array, name="a.npy", flatten=flatten, offset=50)[0] == {"a": codes[:, :layers].tolist()}
    assert read(codes.T, name="b.npy")[0] == {"b": codes.tolist()}
    assert read(np.stack([codes.T, codes.T]), name="b.npy")[0] == {"clip_0": codes.tolist(), "clip_1": codes.tolist()}


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("<m0_1><m1_2>\n\n<m0_1><m1_2>\n", "line 2: has no tokens; --repair"),
        ("<m0_1><m1_2>\n<m0_1><m1_2><m0_8><m1_0>\n", r"line 2: token 3 at character 13, <m0_8>: the codebook"),
        ('{"name": "a", "text": "<m0_1><m1_2>", "num_frames": 5}', "5 frames are 2 token frames, but it has 1"),
        ('{"name": "a", "text": "<m0_1><m1_2>"}\n{"name": "a", "text": ""}', "line 2: is called 'a' as line 1 is"),
        ('{"name": "a"}', 'line 1: has no "text"'),
        ('{"name": "a", "text": "<m0_1><m1_2>"}\nnonsense', "line 2: is no JSON"),
        ("", "holds no clip"),
        (b"\xff\xfe\x00", "line 1: token 1"),
    ],
)
def test_what_a_model_wrote_wrongly_is_refused_with_the_line(
    content: str | bytes, what: str, read: Callable[..., Any], tokens: Path
) -> None:
    with pytest.raises(DataError, match=what):
        read(content)
    assert not tokens.with_name("made.h5").exists()


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.array([[1, 8], [2, 3]]), "token 2: of layer 0 is 8"),
        (np.array([[1, 2], [-1, 3]]), "token 1: of layer 1 is -1"),
        (np.array([[1, 2, 3]]), "a row for each of 2 layers was expected"),
        (np.array([[1.5, 2.0], [1, 2]]), "integers were expected"),
    ],
)
def test_arrays_that_cannot_be_are_refused(array: np.ndarray, what: str, read: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=what):
        read(array, name="a.npy")


def test_repair_says_what_it_cut_filled_up_and_left_out(read: Callable[..., Any]) -> None:
    lines = [
        {"name": "prompt", "text": "a man walks <m_start><m0_1><m1_2><m_end>"},
        {"name": "cut", "text": "<m0_1><m1_2><m0_3>"},
        {"name": "strange", "text": "<m0_1><m1_2><m0_99><m1_2>"},
        {"name": "short", "text": "<m0_1><m1_2>", "num_frames": 12},
        {"name": "long", "text": "<m0_1><m1_2><m0_3><m1_4>", "num_frames": 2},
        {"name": "nothing", "text": "I cannot"},
        {"name": "good", "text": "<m0_1><m1_2>"},
    ]
    clips, frames, done = read("\n".join(map(json.dumps, lines)), repair=True)
    one = [[1, 2]]
    assert clips == {"prompt": one, "cut": one, "strange": one, "short": one * 3, "long": one, "good": one}
    assert frames == [4, 4, 4, 12, 2, 4]
    told = "\n".join(done.repaired)
    for words in (
        "line 1: left out what stands before the first token ('a man walks')",
        "line 2: 3 tokens are no multiple of the 2 layers",
        "line 3: token 3 at character 13, <m0_99>: the codebook of layer 0 has the indices 0 to 7",
        "line 4: 12 frames are 3 token frames, but it has 1; its last one is held",
        "line 5: 2 frames are 1 token frame, but it has 2; cut to 1",
    ):
        assert words in told
    assert len(done.repaired) == 6 and done.left_out == ["line 6: nothing of it can be decoded"]


def test_text_without_a_card_needs_to_be_told_its_tokenizer(tokens: Path) -> None:
    path = tokens.with_name("lm.txt")
    path.write_text("<m0_1><m1_2>\n")
    with pytest.raises(UsageError, match="--like"):
        import_tokens([path], tokens.with_name("made.h5"))


# The command line


@pytest.fixture(scope="session")
def encoded(trained: Callable[[str], Path], motion_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens of a small RVQ of three layers of 16 codes."""
    from vqtool.nn.codec import load
    from vqtool.nn.files import encode_file
    from vqtool.store import MotionSet

    path = tmp_path_factory.mktemp("tokens") / "tokens.h5"
    with MotionSet([motion_path]) as motion:
        encode_file(load(trained("rvq"), device="cpu"), motion, path)
    return path


def test_decode_takes_what_export_wrote(run: Run, encoded: Path, trained: Callable[[str], Path]) -> None:
    assert run("decode", trained("rvq"), encoded, "-o", "plain.h5", "-q")[0] == 0
    for format, out in (("text", "t.jsonl"), ("nanogpt", "t.bin"), ("npy", "t"), ("csv", "t.csv")):
        assert run("export", encoded, "-o", out, "--format", format, "-q")[0] == 0
        assert run("decode", trained("rvq"), out, "-o", f"{format}.h5", "-q")[0] == 0
        assert_same_motion(Path("plain.h5"), Path(f"{format}.h5"))


def assert_same_motion(one: Path, two: Path) -> None:
    from vqtool.store import MotionSet

    with MotionSet([one]) as before, MotionSet([two]) as after:
        assert after.names == before.names
        for clip in range(len(before)):
            np.testing.assert_array_equal(after.read(clip), before.read(clip))


def test_decode_reads_text_and_npy_from_stdin(
    run: Run, trained: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = b"<m0_1><m1_2><m2_3><m0_4><m1_5><m2_6>\n"
    array = io.BytesIO()
    np.save(array, np.array([[1, 4], [2, 5], [3, 6]]))
    for name, data in (("text", text), ("npy", array.getvalue())):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
        code, _, errors = run("decode", trained("rvq"), "-", "-o", f"{name}.h5", "-q")
        assert (code, errors) == (0, "")
    from vqtool.store import MotionSet

    with MotionSet([Path("text.h5")]) as one, MotionSet([Path("npy.h5")]) as two:
        np.testing.assert_array_equal(one.read(0), two.read(0))
        assert one.lengths.tolist() == [8] and one.names == ["line_1"]


def test_decode_refuses_bad_text_with_65_and_repairs_when_asked(run: Run, trained: Callable[[str], Path]) -> None:
    Path("lm.txt").write_text("<m0_1><m1_2><m2_3>\n<m0_1><m1_16><m2_3>\n<m0_1><m1_2><m2_3><m0_4>\n")
    code, _, errors = run("decode", trained("rvq"), "lm.txt", "-o", "out.h5", "-q")
    assert code == 65 and "lm.txt: line 2: token 2 at character 7, <m1_16>" in errors and errors.count("\n") == 1
    assert not Path("out.h5").exists()
    code, out, errors = run("decode", trained("rvq"), "lm.txt", "-o", "out.h5", "-q", "--repair", "--json")
    assert code == 3
    assert (json.loads(out)["clips"], json.loads(out)["repaired"], json.loads(out)["left_out"]) == (2, 2, 1)
    assert "repaired: 2 of 3 clips" in errors and "left out: 1 of 3 clips" in errors


def test_what_a_model_wrote_becomes_bvh_on_the_skeleton_of_a_token_file(run: Run, mocap: Path) -> None:
    assert run("import", mocap, "-o", "m.h5", "-q")[0] == 0
    small = ["--model", "fsq", "--set", "model.width=16", "--set", "model.latent_dim=8"]
    assert run("train", "m.h5", "-o", "run", "--steps", "2", "-q", *small)[0] == 0
    assert run("encode", "run", "m.h5", "-o", "t.h5", "-q")[0] == 0
    Path("lm.txt").write_text("<m0_1><m0_2><m0_3>\n")
    assert run("decode", "run", "lm.txt", "-o", "out.h5", "--like", "t.h5", "-q")[0] == 0
    assert run("export", "out.h5", "-o", "out", "--format", "bvh")[0] == 0
    assert "Frames: 12" in Path("out/line_1.bvh").read_text()


def test_import_takes_codebooks_from_a_run_or_a_token_file(run: Run, encoded: Path, trained: Any) -> None:
    assert run("export", encoded, "-o", "t.jsonl", "--format", "text", "-q")[0] == 0
    for like in (encoded, trained("rvq")):
        assert run("import", "t.jsonl", "--like", like, "-o", "again.h5", "--force", "-q")[0] == 0
        assert_same(encoded, Path("again.h5"))
        with TokenSet(encoded) as one, TokenSet(Path("again.h5")) as two:
            for ours, theirs in zip(one.codebooks, two.codebooks, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    code, out, _ = run("import", "t.jsonl", "-o", "bare.h5", "-q")
    assert code == 0 and "without codebooks" in out
    assert run("inspect-codebook", "bare.h5")[0] == 0
    assert run("decode", trained("rvq"), "bare.h5", "-o", "m.h5", "-q")[0] == 0


def test_the_codebooks_of_a_run_are_those_that_encode_writes_for_fsq_too(
    run: Run, trained: Callable[[str], Path], motion_path: Path
) -> None:
    assert run("encode", trained("fsq"), motion_path, "-o", "f.h5", "-q")[0] == 0
    assert run("export", "f.h5", "-o", "f.jsonl", "--format", "motiongpt", "-q")[0] == 0
    assert run("import", "f.jsonl", "--like", trained("fsq"), "-o", "again.h5", "-q")[0] == 0
    assert_same(Path("f.h5"), Path("again.h5"))
    with TokenSet(Path("f.h5")) as one, TokenSet(Path("again.h5")) as two:
        np.testing.assert_array_equal(one.codebooks[0], two.codebooks[0])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["export", "TOKENS", "-o", "x.jsonl", "--format", "bvh"], "tokens are exported as text"),
        (
            ["export", "TOKENS", "-o", "x.jsonl", "--format", "text", "--fps", "30"],
            "--dataset and --fps are for motion",
        ),
        (["export", "TOKENS", "TOKENS", "-o", "x", "--format", "text"], "one tokens.h5"),
        (["export", "MOTION", "-o", "x", "--format", "text"], "--format is one of humanml3d, bvh"),
        (["export", "MOTION", "-o", "x", "--format", "npy", "--delay"], "--delay is for tokens, and this is motion"),
        (["export", "MOTION", "-o", "x", "--format", "npy", "--vocab", "v"], "--vocab is for tokens"),
        (["export", "LATENTS", "-o", "x", "--format", "text"], "latents of a VAE"),
        (["import", "MOTION", "-o", "x.h5", "--repair"], "are for tokens, with --like"),
        (["import", "MOTION", "lm.txt", "-o", "x.h5"], "lm.txt: holds tokens, which are imported apart from motion"),
        (["export", "TOKENS", "-o", "-", "--format", "text"], "-o names a file"),
        (["decode", "RUN", "TOKENS", "-o", "x.h5", "--repair"], "says itself what it is"),
        (["import", "lm.txt", "--like", "VAE", "-o", "x.h5"], "is a VAE"),
    ],
)
def test_mixed_up_kinds_are_one_line_and_exit_2(
    words: list[str], what: str, run: Run, encoded: Path, motion_path: Path, trained: Callable[[str], Path]
) -> None:
    Path("lm.txt").write_text("<m0_1>\n")
    known: dict[str, Any] = {"TOKENS": encoded, "MOTION": motion_path}
    if "LATENTS" in words or "VAE" in words:
        known |= {"VAE": trained("vae"), "LATENTS": Path("latents.h5")}
        assert run("encode", trained("vae"), motion_path, "-o", "latents.h5", "-q")[0] == 0
    if "RUN" in words:
        known["RUN"] = trained("rvq")
    code, _, errors = run(*(known.get(word, word) for word in words))
    assert code == 2 and what in errors and errors.count("\n") == 1
