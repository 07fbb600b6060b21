"""tokens.h5 and latents.h5: round trips, and every way in which a token file is refused."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vqtool
from vqtool.errors import DataError, MissingInputError, OutputError, VqtoolError
from vqtool.store import create_motion
from vqtool.tokens import TokenHeader, TokenSet, code_dtype, create_latents, create_tokens

FRAMES = [5, 0, 12, 1, 64]  # 2, 0, 3, 1 and 16 token frames at downsample 4
SIZES = (8, 300)

HEADER = TokenHeader(
    dim=6,
    fps=29.97,
    downsample=4,
    bottleneck="rvq",
    layout="raw",
    tokenizer_id="ab" * 32,
    numerics="stable",
    source='["a.h5"]',
    codebook_sizes=SIZES,
)
LATENTS = dataclasses.replace(HEADER, bottleneck="vae", codebook_sizes=())


def codes(rows: int, sizes: tuple[int, ...] = SIZES, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.stack([random.integers(0, size, rows) for size in sizes], axis=1)


def codebooks(sizes: tuple[int, ...] = SIZES) -> list[np.ndarray]:
    return [np.random.default_rng(size).normal(size=(size, 3)).astype("f4") for size in sizes]


def write(path: Path, data: np.ndarray | None = None, frames: list[int] = FRAMES, **changes: Any) -> Path:
    header = dataclasses.replace(HEADER, **changes)
    rows = sum(-(-count // header.downsample) for count in frames)
    names = [f"clip {number}" for number in range(len(frames))]
    books = codebooks(header.codebook_sizes)
    with create_tokens(path, names, np.array(frames), header, books, force=True) as tokens:
        tokens.extend(codes=codes(rows, header.codebook_sizes) if data is None else data)
    return path


def write_latents(path: Path) -> tuple[np.ndarray, np.ndarray]:
    mean, logvar = np.random.default_rng(0).normal(size=(2, 22, 3)).astype("f4")
    with create_latents(path, list("abcde"), np.array(FRAMES), LATENTS, 3) as latents:
        latents.extend(mean=mean[:10], logvar=logvar[:10])
        latents.extend(mean=mean[10:], logvar=logvar[10:])
    return mean, logvar


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A token file of five clips and two layers."""
    return write(tmp_path / "tokens.h5")


def test_header_comes_back(path: Path) -> None:
    with TokenSet(path) as tokens:
        tokens.verify()
        assert tokens.header == HEADER and not tokens.is_latents


def test_names_true_lengths_and_codes_come_back_clip_by_clip(path: Path) -> None:
    with TokenSet(path) as tokens:
        assert (len(tokens), tokens.num_tokens, tokens.width) == (5, 22, 2)
        assert [(clip.name, clip.num_frames, len(clip.codes)) for clip in map(tokens.__getitem__, range(5))] == [
            ("clip 0", 5, 2),
            ("clip 1", 0, 0),
            ("clip 2", 12, 3),
            ("clip 3", 1, 1),
            ("clip 4", 64, 16),
        ]
        assert (np.concatenate([tokens[clip].codes for clip in range(5)]) == codes(22)).all()
        assert tokens[1].codes.shape == (0, 2)


def test_codebooks_are_carried(path: Path) -> None:
    with TokenSet(path) as tokens:
        for found, given_one in zip(tokens.codebooks, codebooks(), strict=True):
            assert found.dtype == np.float32 and (found == given_one).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    frames=st.lists(st.integers(0, 300), max_size=5),
    downsample=st.sampled_from([1, 2, 4, 8]),
    sizes=st.lists(st.sampled_from([1, 2, 512, 65536, 65537]), min_size=1, max_size=3).map(tuple),
    cut=st.integers(0, 40),
)
def test_any_tokens_come_back(
    tmp_path_factory: pytest.TempPathFactory, frames: list[int], downsample: int, sizes: tuple[int, ...], cut: int
) -> None:
    lengths = [-(-count // downsample) for count in frames]
    data = codes(sum(lengths), sizes)
    path = tmp_path_factory.getbasetemp() / "any.h5"
    header = dataclasses.replace(HEADER, downsample=downsample, codebook_sizes=sizes)
    books = [np.zeros((size, 1), "f4") for size in sizes]
    names = [f"a/{number}" for number in range(len(frames))]
    with create_tokens(path, names, np.array(frames, dtype=np.int64), header, books, force=True) as tokens:
        tokens.extend(codes=data[:cut])
        tokens.extend(codes=data[cut:])
    with TokenSet(path) as back:
        back.verify()
        back.check_codes()
        assert back.num_frames.tolist() == frames and np.diff(back.offsets).tolist() == lengths
        assert (back.rows("codes", 0, back.num_tokens) == data).all()
        assert back.rows("codes", 0, back.num_tokens).shape == data.shape


@pytest.mark.parametrize(
    ("sizes", "dtype"), [((2,), "<u2"), ((65536,), "<u2"), ((65537,), "<u4"), ((8, 65537), "<u4"), ((8, 8), "<u2")]
)
def test_codes_take_two_bytes_unless_a_codebook_is_larger(tmp_path: Path, sizes: tuple[int, ...], dtype: str) -> None:
    assert code_dtype(sizes) == np.dtype(dtype)
    last = np.array([[size - 1 for size in sizes]] * 22)
    with TokenSet(write(tmp_path / "t.h5", last, codebook_sizes=sizes)) as tokens:
        tokens.check_codes()
        assert tokens[4].codes.dtype == np.dtype(dtype) and (tokens[4].codes == last[:16]).all()


def test_the_file_is_as_documented(path: Path) -> None:
    with h5py.File(path) as file:
        assert sorted(file) == ["codebooks", "codes", "names", "num_frames", "offsets"]
        assert file["codes"].compression == "gzip" and file["codes"].shuffle
        assert file["offsets"][:].tolist() == [0, 2, 2, 5, 6, 22] and file["num_frames"][:].tolist() == FRAMES
        assert file["names"].asstr()[0] == "clip 0" and sorted(file["codebooks"]) == ["0", "1"]
        assert file.attrs["format"] == b"vqtool.tokens" and file.attrs["format_version"] == 1
        assert file.attrs["codebook_sizes"].tolist() == [8, 300] and file.attrs["complete"] == 5


def test_two_writes_are_byte_for_byte_the_same(tmp_path: Path) -> None:
    assert write(tmp_path / "1.h5").read_bytes() == write(tmp_path / "2.h5").read_bytes()


def test_a_file_of_no_clips_comes_back(tmp_path: Path) -> None:
    with TokenSet(write(tmp_path / "t.h5", frames=[])) as tokens:
        tokens.verify()
        tokens.check_codes()
        assert len(tokens) == 0 and tokens.num_tokens == 0 and len(tokens.codebooks) == 2


def test_a_file_of_empty_clips_comes_back(tmp_path: Path) -> None:
    with TokenSet(write(tmp_path / "t.h5", frames=[0, 0])) as tokens:
        tokens.verify()
        assert tokens.num_frames.tolist() == [0, 0] and tokens[1].codes.shape == (0, 2)


def test_blocks_of_any_size_are_the_codes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqtool.hdf5.READ_BYTES", 20)
    with TokenSet(path) as tokens:
        blocks = list(tokens.checked_blocks())
        tokens.verify()
        assert len(blocks) > 3 and (np.concatenate(blocks) == codes(22)).all()


def test_latents_come_back(tmp_path: Path) -> None:
    mean, logvar = write_latents(tmp_path / "l.h5")
    with TokenSet(tmp_path / "l.h5") as latents:
        latents.verify()
        assert latents.is_latents and latents.header == LATENTS and latents.width == 3 and latents.codebooks == []
        assert latents.num_frames.tolist() == FRAMES
        assert (latents.rows("mean", 0, 22) == mean).all() and (latents.rows("logvar", 5, 9) == logvar[5:9]).all()


def test_an_exception_while_writing_leaves_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="x"),
        create_tokens(tmp_path / "t.h5", ["a"], np.array([8]), HEADER, codebooks()) as tokens,
    ):
        tokens.extend(codes=codes(1))
        raise ValueError("x")
    assert os.listdir(tmp_path) == []


def test_too_few_rows_are_a_fault_and_leave_no_file(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError),
        create_tokens(tmp_path / "t.h5", ["a"], np.array([8]), HEADER, codebooks()) as tokens,
    ):
        tokens.extend(codes=codes(1))
    assert os.listdir(tmp_path) == []


def test_an_existing_file_is_refused_unless_forced(path: Path) -> None:
    with (
        pytest.raises(OutputError, match="exists already"),
        create_tokens(path, ["a"], np.array([4]), HEADER, codebooks()),
    ):
        pass
    with TokenSet(path) as tokens:
        assert len(tokens) == 5


# ---- codes out of range


@pytest.mark.parametrize(
    ("row", "layer", "value", "what"),
    [
        (0, 0, 8, r"clip clip 0: token 0 of layer 0 is 8, but that codebook has 8 codes"),
        (2, 1, 300, r"clip clip 2: token 0 of layer 1 is 300, but that codebook has 300 codes"),
        (5, 0, 299, r"clip clip 3: token 0 of layer 0 is 299"),
        (21, 1, 65535, r"clip clip 4: token 15 of layer 1 is 65535"),
    ],
)
@pytest.mark.parametrize("block_bytes", [20, 8 << 20])
def test_a_code_out_of_range_is_named_by_its_clip(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: int,
    layer: int,
    value: int,
    what: str,
    block_bytes: int,
) -> None:
    monkeypatch.setattr("vqtool.hdf5.READ_BYTES", block_bytes)
    data = codes(22)
    data[row, layer] = value
    with TokenSet(write(tmp_path / "t.h5", data)) as tokens, pytest.raises(DataError, match=rf"t\.h5:codes {what}"):
        tokens.check_codes()


def test_a_code_of_the_larger_layer_is_in_range_there_though_not_in_the_other(tmp_path: Path) -> None:
    data = codes(22)
    data[:, 1] = 299
    with TokenSet(write(tmp_path / "t.h5", data)) as tokens:
        tokens.check_codes()


# ---- damage


@pytest.mark.parametrize("where", ["codes", "num_frames", "names", "offsets", "codebooks/0", "codebooks/1"])
def test_a_changed_value_is_refused(path: Path, where: str) -> None:
    with h5py.File(path, "a") as file:
        old = file[where][:]
        new = old.copy()
        if where == "names":
            new[3] = b"clip 9"
        elif where == "offsets":
            new[1] -= 1
        else:
            new.flat[0] = 6 if where == "num_frames" else new.flat[0] == 0
        file[where][...] = new
    with (
        pytest.raises(DataError, match=r"does not match its SHA-256|does not fit the tokens"),
        TokenSet(path) as tokens,
    ):
        tokens.verify()


@pytest.mark.parametrize("name", ["tokenizer_id", "numerics", "layout", "bottleneck", "source", "vqtool_version"])
def test_a_changed_attribute_is_refused(path: Path, name: str) -> None:
    with h5py.File(path, "a") as file:
        file.attrs[name] = file.attrs[name].decode() + "x"
    with TokenSet(path) as tokens, pytest.raises(DataError, match="does not match its SHA-256"):
        tokens.verify()


def test_a_flipped_bit_in_the_codes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.h5"
    write_latents(path)
    with h5py.File(path) as file:
        at = file["logvar"].id.get_offset()
    data = bytearray(path.read_bytes())
    data[at + 17] ^= 4
    path.write_bytes(data)
    with TokenSet(path) as latents, pytest.raises(DataError, match="does not match its SHA-256"):
        latents.verify()


def test_a_flipped_bit_is_refused_also_after_checked_blocks(path: Path) -> None:
    with h5py.File(path, "a") as file:
        changed = file["codes"][:]
        changed[7, 0] ^= 1
        file["codes"][...] = changed
    with TokenSet(path) as tokens, pytest.raises(DataError, match="does not match its SHA-256"):
        tokens.check_codes()
        tokens.verify()


@pytest.mark.parametrize("name", ["codes", "num_frames"])
def test_a_missing_part_is_named(path: Path, name: str) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
    with pytest.raises(DataError, match=rf"tokens\.h5:{name}: is missing"), TokenSet(path) as tokens:
        tokens.verify()


@pytest.mark.parametrize("name", ["num_frames", "codebooks/0", "codebooks"])
def test_a_part_that_is_a_link_into_another_file_is_refused(path: Path, name: str) -> None:
    write(path.with_name("other.h5"))
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = h5py.ExternalLink("other.h5", name)
    with pytest.raises(DataError, match=r"is a link; vqtool follows no links"), TokenSet(path) as tokens:
        assert tokens.codebooks
    with pytest.raises(DataError, match=r"is a link|does not match its SHA-256"), TokenSet(path) as tokens:
        tokens.verify()


def test_a_missing_codebook_is_named_and_found_by_verify(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["codebooks/1"]
    with TokenSet(path) as tokens:
        with pytest.raises(DataError, match=r"tokens\.h5:codebooks/1: is missing"):
            assert tokens.codebooks
        with pytest.raises(DataError, match="does not match its SHA-256"):
            tokens.verify()


@pytest.mark.parametrize("name", ["fps", "downsample", "codebook_sizes", "dim", "tokenizer_id"])
def test_a_missing_attribute_is_refused(path: Path, name: str) -> None:
    with h5py.File(path, "a") as file:
        del file.attrs[name]
    with pytest.raises(DataError, match=rf"its attributes are incomplete \('{name}'\)"):
        TokenSet(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("downsample", 0),
        ("downsample", -4),
        ("downsample", np.uint64(2**63)),
        ("downsample", np.inf),
        ("dim", 0),
        ("fps", 0.0),
        ("fps", np.nan),
        ("fps", "fast"),
        ("codebook_sizes", np.array([8, 0])),
        ("codebook_sizes", np.array([8])),
        ("codebook_sizes", np.array([], "i8")),
        ("codebook_sizes", 8),
        ("codebook_sizes", h5py.Empty("i8")),
    ],
)
def test_an_attribute_that_cannot_be_is_refused(path: Path, name: str, value: Any) -> None:
    with h5py.File(path, "a") as file:
        file.attrs[name] = value
    with pytest.raises(DataError, match=r"(attributes|does not fit codebook_sizes).*the file is damaged"):
        TokenSet(path)


@pytest.mark.parametrize(
    "values", [[5, 0, 12, 1], [5, 0, 12, 1, 60], [-5, 0, 12, 1, 64], [-(2**63), 0, 12, 1, 64], [9, 0, 12, 1, 64]]
)
def test_true_lengths_that_do_not_fit_the_tokens_are_refused(path: Path, values: list[int]) -> None:
    with h5py.File(path, "a") as file:
        del file["num_frames"]
        file["num_frames"] = np.array(values, "i8")
    with pytest.raises(DataError, match=r"tokens\.h5:num_frames: does not fit the tokens"):
        TokenSet(path)


@pytest.mark.parametrize("dtype", ["i4", "f4"])
def test_codes_of_another_type_are_refused(path: Path, dtype: str) -> None:
    with h5py.File(path, "a") as file:
        del file["codes"]
        file["codes"] = codes(22).astype(dtype)
    with pytest.raises(DataError, match=r"tokens\.h5:codes: does not hold unsigned integers"):
        TokenSet(path)


# ---- other files


def test_a_motion_file_is_not_a_token_file(tmp_path: Path) -> None:
    with create_motion(tmp_path / "m.h5", dim=3, fps=30) as motion:
        motion.append("a", np.zeros((4, 3), "f4"))
    with pytest.raises(DataError, match=r"is a vqtool\.motion file; a vqtool\.tokens file was expected"):
        TokenSet(tmp_path / "m.h5")


def test_any_other_hdf5_file_is_not_a_token_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["codes"] = codes(3)
    with pytest.raises(DataError, match=r"is no vqtool file; a vqtool\.tokens file was expected"):
        TokenSet(tmp_path / "f.h5")


def test_a_text_file_is_not_a_token_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("<m0_1><m1_2>")
    with pytest.raises(DataError, match=r"t\.txt: is not a readable HDF5 file"):
        TokenSet(tmp_path / "t.txt")


def test_a_missing_token_file_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such file"):
        TokenSet(tmp_path / "none.h5")


def test_a_newer_format_version_says_update(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(DataError, match="update vqtool"):
        TokenSet(path)


def read_all(path: Path) -> None:
    """What test_store's child does with each damaged file, for tokens and latents."""
    try:
        with TokenSet(path) as tokens:
            assert len(tokens.codebooks) == len(tokens.header.codebook_sizes)
            if tokens.is_latents:
                assert sum(len(block) for block in tokens.blocks("mean")) == tokens.num_tokens
            else:
                tokens.check_codes()
                assert sum(len(tokens[clip].codes) for clip in range(len(tokens))) == tokens.num_tokens
            tokens.verify()
    except VqtoolError as error:
        assert str(error).isprintable()
        assert error.exit_code != 70


CHILD = """
import test_store, test_tokens
test_store.read_all = test_tokens.read_all
exec(test_store.CHILD)
"""


@pytest.mark.slow  # test_fuzz reads some as well
@pytest.mark.parametrize("kind", ["tokens", "latents"])
def test_two_hundred_damaged_files_raise_nothing_but_errors_of_vqtool(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.h5"
    if kind == "tokens":
        write(path)
    else:
        write_latents(path)
    folders = [str(Path(vqtool.__file__).parent.parent), str(Path(__file__).parent)]
    found = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), "0", "200"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    last = found.stdout.splitlines()[-1:]
    assert found.returncode == 0, f"case {last} ended with {found.returncode}: {found.stderr[-2000:]}"
    assert last == ["199"]
