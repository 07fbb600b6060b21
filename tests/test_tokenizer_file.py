"""tokenizer.safetensors: what was saved comes back bit for bit, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqtool.config import Config
from vqtool.errors import DataError, MissingInputError, OutputError
from vqtool.tokenizer_file import MAX_HEADER, NAME, TokenizerFile, file_digest, pack, read_tokenizer, unpack


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "model.encoder.weight": random.normal(size=(4, 3, 2)).astype("f4"),
        "model.odd": np.array([np.nan, -0.0, np.inf, 1e-45], "f4"),
        "model.step": np.array(7, "i8"),
        "model.ready": np.array(True),
        "model.used": np.array([[True, False]]),
        "model.empty": np.zeros((0, 5), "f4"),
        "model.mean": random.normal(size=3),
        "model.half": np.ones(3, "f2"),
        "model.transposed": np.arange(6, dtype="f4").reshape(2, 3).T,
        "usage.counts.0": np.arange(8, dtype="i8"),
    }


def tokenizer(**changes: Any) -> TokenizerFile:
    file = TokenizerFile(
        config=Config().to_dict(),
        dim=3,
        fps=29.97,
        layout="raw",
        downsample=4,
        codebook_sizes=[8, 8],
        codebook_keys=["model.codebook"],
        tensors=tensors(),
    )
    return dataclasses.replace(file, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A saved tokenizer."""
    tokenizer().save(tmp_path / NAME)
    return tmp_path / NAME


@pytest.mark.parametrize("name", tensors())
def test_a_tensor_comes_back_bit_for_bit(path: Path, name: str) -> None:
    before, after = tensors()[name], read_tokenizer(path).tensors[name]
    assert (after.shape, after.dtype) == (before.shape, before.dtype) and after.tobytes() == before.tobytes()


def test_everything_else_comes_back(path: Path) -> None:
    back = read_tokenizer(path)
    assert back.path == path and back.tensors.keys() == tensors().keys()
    for field in dataclasses.fields(TokenizerFile):
        if field.name not in ("tensors", "path"):
            assert getattr(back, field.name) == getattr(tokenizer(), field.name), field.name
    assert back.tokenizer_id == tokenizer().tokenizer_id


def test_a_run_folder_stands_for_its_file(path: Path) -> None:
    assert read_tokenizer(path.parent).tokenizer_id == read_tokenizer(path).tokenizer_id


def test_two_saves_are_byte_for_byte_the_same(path: Path) -> None:
    tokenizer().save(path.with_name("again"))
    assert path.with_name("again").read_bytes() == path.read_bytes()


def test_an_existing_file_is_refused_unless_forced(path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        tokenizer().save(path)
    tokenizer(dim=4).save(path, force=True)
    assert read_tokenizer(path).dim == 4


def test_the_file_is_plain_safetensors(path: Path) -> None:
    from safetensors.numpy import load_file

    found = load_file(path)
    assert {name: array.tobytes() for name, array in found.items()} == {
        name: array.tobytes() for name, array in tensors().items()
    }


# ---- identity


@pytest.mark.parametrize(
    "change",
    [
        {"config": {**Config().to_dict(), "model": {}}},
        {"dim": 4},
        {"fps": 30.0},
        {"layout": "joints"},
        {"downsample": 2},
        {"codebook_sizes": [8]},
        {"codebook_keys": []},
    ],
)
def test_the_identity_changes_with_every_field(change: dict[str, Any]) -> None:
    assert tokenizer(**change).tokenizer_id != tokenizer().tokenizer_id


def test_the_identity_changes_with_one_config_value() -> None:
    config = Config().to_dict()
    config["train"]["lr"] *= 1 + 1e-15
    assert tokenizer(config=config).tokenizer_id != tokenizer().tokenizer_id


@pytest.mark.parametrize("name", [name for name in tensors() if name.startswith("model.") and name != "model.empty"])
def test_the_identity_changes_with_one_bit_of_a_weight(name: str) -> None:
    changed = tensors()
    raw = bytearray(changed[name].tobytes())
    raw[0] ^= 1
    changed[name] = np.frombuffer(bytes(raw), changed[name].dtype).reshape(changed[name].shape)
    assert tokenizer(tensors=changed).tokenizer_id != tokenizer().tokenizer_id


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found | {"model.renamed": found.pop("model.mean")},
        lambda found: found | {"model.empty": np.zeros((5, 0), "f4")},
        lambda found: found | {"model.step": np.array(7, "u8")},
    ],
    ids=["name", "shape", "type"],
)
def test_the_identity_changes_with_a_weights_name_shape_or_type(change: Callable[[dict], dict]) -> None:
    assert tokenizer(tensors=change(tensors())).tokenizer_id != tokenizer().tokenizer_id


def test_the_identity_does_not_change_with_usage_or_order_or_place() -> None:
    other = dict(reversed(tensors().items())) | {"usage.counts.0": np.ones(8, "i8"), "usage.kl": np.ones(2)}
    assert tokenizer(tensors=other, path=Path("elsewhere")).tokenizer_id == tokenizer().tokenizer_id


# ---- damage


def flips(size: int, header: int) -> list[tuple[int, int]]:
    """400 bits: some of the length, every other one of the header's, and some of the payload."""
    random = np.random.default_rng(0)
    places = [*range(8), *random.integers(8, 8 + header, 250), *random.integers(8 + header, size, 142)]
    return [(int(at), int(bit)) for at, bit in zip(places, random.integers(0, 8, len(places)), strict=True)]


def test_a_flipped_bit_anywhere_is_refused(path: Path) -> None:
    good = path.read_bytes()
    header = int.from_bytes(good[:8], "little")
    for at, bit in flips(len(good), header):
        data = bytearray(good)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"damaged|edited|format version|is no tokenizer") as caught:
            read_tokenizer(path)
        assert str(caught.value).isprintable(), (at, bit)


def test_every_bit_of_the_version_that_wrote_it_counts(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(b"vqtool_version") + len('vqtool_version\\": \\"')
    assert data[at : at + 2] == b"0."
    path.write_bytes(data[:at] + b"9" + data[at + 1 :])
    with pytest.raises(DataError, match="does not match its SHA-256"):
        read_tokenizer(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_is_cut_off_is_refused(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match="is not a vqtool safetensors file, or is damaged"):
        read_tokenizer(path)


def test_bytes_after_the_end_are_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match="damaged"):
        read_tokenizer(path)


@pytest.mark.parametrize("size", [0, 1, MAX_HEADER + 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_of_a_length_that_cannot_be_is_refused(path: Path, size: int) -> None:
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(DataError, match="is not a vqtool safetensors file, or is damaged"):
        read_tokenizer(path)


def test_a_huge_file_of_another_kind_is_refused_without_reading_it(tmp_path: Path) -> None:
    with (tmp_path / NAME).open("wb") as file:
        file.write(b"\x89HDF\r\n\x1a\n")
        file.truncate(1 << 42)
    with pytest.raises(DataError, match="is an HDF5 file, and no tokenizer"):
        read_tokenizer(tmp_path / NAME)


class Bomb:
    """Unpickling it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("bomb-went-off",)


def as_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.write_bytes(pickle.dumps(Bomb())),
        as_zip,
        lambda path: path.write_text("[model]\nwidth = 256\n"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes((20).to_bytes(8, "little") + b"[" * 20),
        lambda path: path.write_bytes((200_000).to_bytes(8, "little") + b"[" * 200_000),
        lambda path: path.write_bytes((2).to_bytes(8, "little") + b"{}"),
        lambda path: path.write_bytes((4).to_bytes(8, "little") + b"null"),
    ],
    ids=["pickle", "zip", "text", "empty", "brackets", "many brackets", "no metadata", "null"],
)
def test_a_file_of_another_kind_is_refused_and_nothing_in_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / NAME)
    with pytest.raises(DataError, match="is not a vqtool safetensors file, or is damaged"):
        read_tokenizer(tmp_path / NAME)
    assert os.listdir(tmp_path) == [NAME]


def test_safetensors_of_others_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.ones(3, "f4")}, tmp_path / NAME, metadata={"format": "pt"})
    with pytest.raises(DataError, match="is not a vqtool safetensors file"):
        read_tokenizer(tmp_path / NAME)


def test_a_checkpoint_is_no_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(pack(tensors(), {"format": "vqtool.checkpoint", "format_version": 1}))
    with pytest.raises(DataError, match="is no tokenizer; name a run folder"):
        read_tokenizer(tmp_path / "state")


def test_a_newer_format_version_says_update(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(pack({}, {"format": "vqtool.tokenizer", "format_version": 2}))
    with pytest.raises(DataError, match="has format version 2; this vqtool reads 1, so update vqtool"):
        read_tokenizer(tmp_path / NAME)


def test_an_incomplete_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(pack({}, {"format": "vqtool.tokenizer", "format_version": 1, "dim": 3}))
    with pytest.raises(DataError, match="its header is incomplete"):
        read_tokenizer(tmp_path / NAME)


def test_a_header_whose_identity_does_not_fit_is_refused(path: Path) -> None:
    found, header = unpack(path)
    path.write_bytes(pack(found, {**header, "dim": 99}))
    with pytest.raises(DataError, match="does not match its tokenizer_id: it was edited"):
        read_tokenizer(path)


def test_a_missing_file_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none: no such file"):
        read_tokenizer(tmp_path / "none")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / NAME)
    with pytest.raises(DataError, match="is not a file"):
        read_tokenizer(tmp_path / NAME)


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(MissingInputError, match=r"training has not finished; go on with vqtool train \.\.\. --resume"):
        read_tokenizer(tmp_path)


def test_a_folder_that_is_no_run_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(
        MissingInputError, match=r"holds no tokenizer\.safetensors; name a run folder that vqtool train"
    ):
        read_tokenizer(tmp_path)


def test_packing_leaves_the_header_it_was_given_alone() -> None:
    header = {"format": "x"}
    pack(tensors(), header)
    assert header == {"format": "x"}


def test_the_digest_does_not_depend_on_the_order_of_tensors() -> None:
    assert file_digest(tensors(), {}) == file_digest(dict(reversed(tensors().items())), {})


def test_the_header_is_json_that_any_tool_reads(path: Path) -> None:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert json.loads(header["__metadata__"]["vqtool"])["config"] == Config().to_dict()
