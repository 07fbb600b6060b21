"""Files of every released format version stay readable and mean what they meant: golden/vN against its expected.json.

The files were made once (golden/make.py): what fails here would break people's files. The trees and tables of
docs/formats.md are held against them too.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Run
from test_docs import PAGES, blocks, rows, section

from vqtool.companions import Companions
from vqtool.errors import DataError, VqtoolError
from vqtool.inspection import inspect
from vqtool.nn.checkpoint import newest_checkpoint
from vqtool.nn.codec import load
from vqtool.nn.files import decode_file, encode_file
from vqtool.store import MotionSet
from vqtool.tokenizer_file import pack, read_tokenizer, unpack
from vqtool.tokens import TokenSet

GOLDEN = Path(__file__).parent / "golden"
MAKE = runpy.run_path(str(GOLDEN / "make.py"))
V1 = GOLDEN / "v1"
EXPECTED: dict[str, dict[str, Any]] = json.loads((V1 / "expected.json").read_text(encoding="utf-8"))
HDF5 = [name for name in EXPECTED if name.endswith(".h5")]
MOTIONS = [name for name in HDF5 if EXPECTED[name]["attributes"]["format"] == "vqtool.motion"]
TOKENS = [name for name in HDF5 if name not in MOTIONS]
TENSORS = [name for name in EXPECTED if name.endswith(".safetensors")]
TOKENIZERS = [name for name in TENSORS if "/" not in name]
CHECKPOINT = "unfinished/checkpoints/step-000004/state.safetensors"
MODELS: dict[str, tuple[str, dict[str, Any]]] = MAKE["MODELS"]
FORMATS_MD = PAGES["formats.md"]


def tokens_of(model: str) -> str:
    return f"{model}.{'latents' if model == 'vae' else 'tokens'}.h5"


def open_any(path: Path) -> MotionSet | TokenSet:
    """A motion, token or latent file, verified."""
    with h5py.File(path) as file:
        is_motion = file.attrs["format"] == b"vqtool.motion"
    found = MotionSet([path]) if is_motion else TokenSet(path)
    try:
        found.verify()
    except DataError:
        found.close()
        raise
    return found


def test_the_golden_files_are_those_that_were_made_all_of_them_and_small() -> None:
    found = {path.relative_to(V1).as_posix(): path for path in V1.rglob("*") if path.is_file()}
    assert found.keys() == EXPECTED.keys() | {"expected.json"}
    for name, expected in EXPECTED.items():
        assert MAKE["sha256"](found[name].read_bytes()) == expected["sha256"], name
    assert sum(path.stat().st_size for path in found.values()) < 200_000


def test_the_golden_files_are_in_every_copy_of_the_source() -> None:
    root = GOLDEN.parents[1]
    files = [path for path in GOLDEN.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    if not (root / ".git").exists():
        pytest.skip("this is no git checkout")
    # Not `git ls-files`: a file is looked at before it is committed. 1: none of them is ignored.
    done = subprocess.run(["git", "check-ignore", *files], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")


# What a file says


@pytest.mark.parametrize("name", HDF5)
def test_plain_h5py_reads_what_it_read_when_the_file_was_made(name: str) -> None:
    found = json.loads(json.dumps(MAKE["content"](V1 / name)))
    assert found == {key: EXPECTED[name][key] for key in found}


@pytest.mark.parametrize("name", HDF5)
def test_vqtool_reads_what_the_file_holds(name: str) -> None:
    expected, attributes = EXPECTED[name], EXPECTED[name]["attributes"]
    with open_any(V1 / name) as file:
        assert file.names == expected["names"]
        lengths = file.lengths if isinstance(file, MotionSet) else file.num_frames
        assert lengths.tolist() == expected["lengths"]
        along = file.companions
        assert (along.splits is None) == (expected["splits"] is None)
        assert along.splits is None or along.splits.tolist() == expected["splits"]
        captions = [[one.clip, one.text, one.words, one.start_s, one.end_s] for one in along.captions]
        assert captions == expected.get("captions", [])
        check_companions(along, expected["arrays"])
        if isinstance(file, MotionSet):
            assert (file.fps, file.layout) == (attributes["fps"], attributes["layout"])
            assert [file.dim] == expected["arrays"]["frames"][1][1:]
            frames = np.concatenate([file.read_all(clip) for clip in range(len(file))])
            assert MAKE["sha256"](frames.tobytes()) == expected["arrays"]["frames"][2]
            for array in ("stats/mean", "source_stats/mean", "source_stats/std"):
                value = file.array(array)
                assert (value is None) == (array not in expected["arrays"])
                assert value is None or MAKE["sha256"](value.tobytes()) == expected["arrays"][array][2]
        else:
            header = {key: getattr(file.header, key) for key in ("fps", "downsample", "dim", "bottleneck", "layout")}
            header |= {key: getattr(file.header, key) for key in ("tokenizer_id", "numerics", "source")}
            assert header == {key: attributes[key] for key in header}
            assert list(file.header.codebook_sizes) == attributes["codebook_sizes"]
            for q, codebook in enumerate(file.codebooks):
                assert MAKE["sha256"](codebook.tobytes()) == expected["arrays"][f"codebooks/{q}"][2]
            if not file.is_latents:
                file.check_codes()
                assert file.rows("codes", 0, file.num_tokens).tolist() == expected["codes"]


def check_companions(along: Companions, arrays: dict[str, Any]) -> None:
    """Bodies, starts and mirror images are the arrays of the file."""
    held: dict[str, Any] = along.to_arrays()
    held = {name: value for name, value in held.items() if not name.startswith("captions/")}
    assert held.keys() == {
        name for name in arrays if name in ("splits", "mirror_of", "starts") or name.startswith("skeleton/")
    }
    for name, value in held.items():
        assert [value.dtype.str, list(value.shape), MAKE["sha256"](value.tobytes())] == arrays[name], name


@pytest.mark.parametrize("name", TENSORS)
def test_a_safetensors_file_verifies_and_holds_what_it_held(name: str) -> None:
    tensors, header = unpack(V1 / name)
    assert MAKE["digest_of"](tensors) == EXPECTED[name]["tensors"]
    assert header == EXPECTED[name]["header"]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_is_the_one_that_it_was(name: str) -> None:
    found, header = read_tokenizer(V1 / name), EXPECTED[name]["header"]
    assert found.tokenizer_id == header["tokenizer_id"]
    assert header["tokenizer_id"] == EXPECTED[tokens_of(Path(name).stem)]["attributes"]["tokenizer_id"]
    known = ("config", "dim", "fps", "layout", "downsample", "codebook_sizes", "codebook_keys")
    assert {key: getattr(found, key) for key in known} == {key: header[key] for key in known}


# What a tokenizer does


@pytest.mark.parametrize("model", MODELS)
def test_the_golden_motion_gives_the_golden_tokens(model: str, tmp_path: Path) -> None:
    out = tmp_path / "out.h5"
    with MotionSet([V1 / MODELS[model][0]]) as motion:
        encode_file(load(V1 / f"{model}.safetensors", device="cpu"), motion, out)
    with TokenSet(out) as found, TokenSet(V1 / tokens_of(model)) as golden:
        assert found.names == golden.names
        assert found.num_frames.tolist() == golden.num_frames.tolist()
        if model == "vae":
            for column in ("mean", "logvar"):
                ours, theirs = (file.rows(column, 0, file.num_tokens) for file in (found, golden))
                np.testing.assert_allclose(ours, theirs, atol=1e-5)
        else:
            assert found.rows("codes", 0, found.num_tokens).tolist() == EXPECTED[tokens_of(model)]["codes"]
            assert found.companions.to_arrays().keys() == golden.companions.to_arrays().keys()


@pytest.mark.parametrize("model", MODELS)
def test_the_golden_tokens_give_the_golden_motion(model: str, tmp_path: Path) -> None:
    name, out = tokens_of(model), tmp_path / "out.h5"
    with TokenSet(V1 / name) as tokens:
        decode_file(load(V1 / f"{model}.safetensors", device="cpu"), tokens, out)
    with MotionSet([out]) as found:
        assert (found.names, found.lengths.tolist()) == (EXPECTED[name]["names"], EXPECTED[name]["lengths"])
        frames = np.concatenate([found.read_all(clip) for clip in range(len(found))])
    decoded = np.array(EXPECTED[name]["decoded"])
    np.testing.assert_allclose(frames[: len(decoded)], decoded, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in EXPECTED if "report" in EXPECTED[name]])
def test_inspect_codebook_tells_the_same_numbers(name: str) -> None:
    report = inspect(V1 / name)
    found = json.loads(json.dumps(report.to_json(0) if "layers" in EXPECTED[name]["report"] else report.to_json()))
    check_alike({**found, "file": name}, EXPECTED[name]["report"])


def check_alike(found: Any, expected: Any, at: str = "") -> None:
    """What was expected is there, figures to nine digits; a later vqtool may tell more."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            check_alike(found[key], value, f"{at}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), at
        for number, value in enumerate(expected):
            check_alike(found[number], value, f"{at}[{number}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-12), at
    elif at not in (".verdict", ".notes"):  # sentences may be worded anew
        assert found == expected, at


def test_training_goes_on_from_the_golden_checkpoint(run: Run, tmp_path: Path) -> None:
    shutil.copytree(V1 / "unfinished", tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    code, _, errors = run("train", V1 / "raw.h5", "-o", "run", "--resume", "--threads", "1")
    assert code == 0, errors
    assert "going on from step 4" in errors
    lines = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert lines.startswith(before)
    found = json.loads(lines.splitlines()[-1])
    expected = EXPECTED["unfinished/metrics.jsonl"]["last_line_when_finished"]
    assert found["step"] == expected["step"]
    # Not to the bit: another CPU sums in another order.
    assert found["nmse"] == pytest.approx(expected["nmse"], rel=0.02)
    assert read_tokenizer(tmp_path / "run").dim == 4


# What a later vqtool may write


def edited(name: str, tmp_path: Path, edit: Callable[[h5py.File], None], *, digest: bool) -> Path:
    """A copy of a golden HDF5 file with a change; its SHA-256 follows that, as the docs compute it, or does not."""
    path = tmp_path / name
    shutil.copy(V1 / name, path)
    with h5py.File(path, "r+") as file:
        edit(file)
    if digest:
        sha256 = content_digest(path)
        with h5py.File(path, "r+") as file:
            file.attrs.create("sha256", sha256.encode(), dtype=h5py.string_dtype("utf-8", 64))
    return path


def content_digest(path: Path) -> str:
    """The program of docs/formats.md."""
    (block,) = (block for block in blocks(FORMATS_MD, "python") if "def content_digest" in block)
    scope: dict[str, Any] = {}
    exec(block.partition("\nfor path in")[0], scope)
    digest: str = scope["content_digest"](path)
    return digest


ADDITIONS: dict[str, Callable[[h5py.File], None]] = {
    "attribute": lambda file: file.attrs.create("later", 1.5),
    "text attribute": lambda file: file.attrs.create("later", b"text", dtype=h5py.string_dtype("utf-8", 4)),
    "dataset": lambda file: file.create_dataset("later/numbers", data=np.arange(3.0)),
    "text dataset": lambda file: file.create_dataset("later", data=np.array([b"a"], dtype="S1")),
}


@pytest.mark.parametrize("name", HDF5)
def test_the_digest_of_the_docs_is_that_of_the_file(name: str) -> None:
    assert content_digest(V1 / name) == EXPECTED[name]["attributes"]["sha256"]


@pytest.mark.parametrize("addition", ADDITIONS)
@pytest.mark.parametrize("name", ["raw.h5", "vq.tokens.h5", "vae.latents.h5"])
def test_what_someone_added_to_a_file_is_refused(name: str, addition: str, tmp_path: Path) -> None:
    path = edited(name, tmp_path, ADDITIONS[addition], digest=False)
    with pytest.raises(DataError, match="does not match its SHA-256"):
        open_any(path)


@pytest.mark.parametrize("addition", ADDITIONS)
@pytest.mark.parametrize("name", ["raw.h5", "vq.tokens.h5", "vae.latents.h5"])
def test_what_a_later_vqtool_adds_and_digests_is_passed_over(name: str, addition: str, tmp_path: Path) -> None:
    with open_any(edited(name, tmp_path, ADDITIONS[addition], digest=True)) as file:
        assert file.names == EXPECTED[name]["names"]


@pytest.mark.parametrize("name", ["raw.h5", "vq.tokens.h5", "vae.latents.h5"])
def test_an_hdf5_file_of_version_2_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    path = edited(name, tmp_path, lambda file: file.attrs.modify("format_version", 2), digest=True)
    with pytest.raises(DataError, match=r"has format version 2; this vqtool reads 1, so update vqtool$"):
        open_any(path)


def test_a_checkpoint_of_version_2_is_refused_and_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    tensors, header = unpack(V1 / CHECKPOINT)
    path = tmp_path / "step-000004" / "state.safetensors"
    path.parent.mkdir()
    path.write_bytes(pack(tensors, {**header, "format_version": 2}))
    with pytest.raises(DataError, match=r"has format version 2; this vqtool reads 1, so update vqtool$"):
        newest_checkpoint(tmp_path)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_of_version_2_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    tensors, header = unpack(V1 / name)
    (tmp_path / name).write_bytes(pack(tensors, {**header, "format_version": 2}))
    with pytest.raises(DataError, match=r"has format version 2; this vqtool reads 1, so update vqtool$"):
        read_tokenizer(tmp_path / name)


def test_a_tokenizer_with_tensors_and_header_keys_of_a_later_vqtool_is_read(tmp_path: Path) -> None:
    """Those that decide no tokens, and so are not in the tokenizer_id."""
    tensors, header = unpack(V1 / "vq.safetensors")
    later = pack({**tensors, "usage.later": np.zeros(3)}, {**header, "torch_version": "9.0"})
    (tmp_path / "vq.safetensors").write_bytes(later)
    assert read_tokenizer(tmp_path / "vq.safetensors").tokenizer_id == header["tokenizer_id"]


@pytest.mark.parametrize("name", TENSORS)
def test_a_flipped_bit_in_a_golden_file_is_told(name: str, tmp_path: Path) -> None:
    data = bytearray((V1 / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(VqtoolError, match="SHA-256"):
        unpack(tmp_path / "file")


# docs/formats.md


def tree(title: str) -> dict[str, tuple[str, str]]:
    """Path -> (shape, type) of the datasets drawn under a heading: "/stats/mean, std  (D,)  float64" is two."""
    found = {}
    for line in "".join(blocks(section(FORMATS_MD, title), "")).splitlines():
        if match := re.match(r"/(\S+(?:, \S+)*)\s+(\(.*?\))\s+(.*)", line):
            first, *others = match[1].split(", ")
            folder = first.rpartition("/")[0]
            for name in [first, *(f"{folder}/{other}" for other in others)]:
                found[name] = (match[2], match[3].split(" ")[0])
    return found


TREES = {
    "vqtool.motion": tree("motion.h5") | tree("What goes along with the clips"),
    "vqtool.tokens": tree("tokens.h5") | tree("What goes along with the clips"),
    "vqtool.latents": tree("latents.h5") | tree("What goes along with the clips"),
}


def attributes_of(title: str) -> dict[str, str]:
    """Name -> type in the table of attributes under a heading."""
    found = {}
    for cells in rows(section(FORMATS_MD, title)):
        kinds = cells[1].split(", ")
        for number, name in enumerate(re.findall(r"`([^`]+)`", cells[0])):
            found[name] = kinds[min(number, len(kinds) - 1)]
    return found


def sizes(shape: str, value: tuple[int, ...]) -> dict[str, int]:
    """What the letters of a drawn shape are in a real one: "(N+1,)" and (7,) give N = 6."""
    parts = [part.strip() for part in shape.strip("()").rstrip(",").split(",")]
    assert len(parts) == len(value), (shape, value)
    found = {}
    for part, size in zip(parts, value, strict=True):
        if part.isdecimal():
            assert size == int(part), (shape, value)
        else:
            letter, _, more = part.partition("+")
            found[letter] = size - int(more or 0)
    return found


@pytest.mark.parametrize("name", HDF5)
def test_every_dataset_of_a_golden_file_is_drawn_with_its_shape_and_type(name: str) -> None:
    kind = EXPECTED[name]["attributes"]["format"]
    letters: dict[str, int] = {"N": len(EXPECTED[name]["names"])}
    for dataset, (dtype, shape, _) in EXPECTED[name]["arrays"].items():
        drawn, drawn_type = TREES[kind][re.sub(r"codebooks/\d+", "codebooks/0", dataset)]
        for letter, size in sizes(drawn, tuple(shape)).items():
            assert letter in "KC" or letters.setdefault(letter, size) == size, (dataset, letter, letters)
        real = "UTF-8" if dtype.startswith("|S") else np.dtype(dtype).name
        assert drawn_type in (real, "Mean.npy"), dataset
        assert dtype[0] in "<|", dataset


@pytest.mark.parametrize("kind", TREES)
def test_every_dataset_that_is_drawn_is_in_some_golden_file(kind: str) -> None:
    files = [name for name in HDF5 if EXPECTED[name]["attributes"]["format"] == kind]
    held = {dataset for name in files for dataset in EXPECTED[name]["arrays"]}
    # Latents are of one model and one motion here; what goes along is the same in tokens.
    along = (
        set() if kind != "vqtool.latents" else {n for n in TREES[kind] if n.startswith(("skeleton/", "starts", "mirr"))}
    )
    assert TREES[kind].keys() - along <= held


@pytest.mark.parametrize("name", HDF5)
def test_the_attributes_of_a_golden_file_are_those_of_the_table(name: str) -> None:
    motion = attributes_of("motion.h5")
    known = motion if name in MOTIONS else attributes_of("tokens.h5")
    known = {key: motion[key] if "as in motion.h5" in kind else kind for key, kind in known.items()}
    optional = {"source_stats_convention"} if name != "humanml3d.h5" else set()
    with h5py.File(V1 / name) as file:
        assert set(file.attrs) == known.keys() - optional
        for key, value in file.attrs.items():
            real = "string" if isinstance(value, bytes) else {"i": "int", "f": "float"}[np.asarray(value).dtype.kind]
            assert known[key].startswith(real), key
            assert isinstance(value, bytes) or np.asarray(value).dtype.itemsize == 8, key


def test_the_header_of_a_tokenizer_is_the_table() -> None:
    text = section(FORMATS_MD, "tokenizer.safetensors").partition("The metadata of its header")[2]
    documented = {key for cells in rows(text) for key in re.findall(r"`([^`]+)`", cells[0])}
    for name in TOKENIZERS:
        assert EXPECTED[name]["header"].keys() == documented


def test_every_tensor_of_a_tokenizer_is_in_the_table_with_its_type() -> None:
    text = section(FORMATS_MD, "tokenizer.safetensors").partition("The metadata of its header")[0]
    known: dict[str, str] = {}
    for cells in rows(text):
        if not cells[0].startswith("`"):
            continue
        first, *others = re.findall(r"`([^`]+)`", cells[0])
        stem = first.removesuffix(".*").rpartition(".")[0]
        full = [first, *(other if other[0] != "." else stem + other for other in others)]
        for name in full:
            pattern = re.escape(name).replace(re.escape("<q>"), r"\d+").replace(r"\*", r".+")
            known[pattern] = cells[1]
    met = set()
    for name in TOKENIZERS:
        for tensor, value in unpack(V1 / name)[0].items():
            fits = [pattern for pattern in known if re.fullmatch(pattern, tensor)]
            assert fits, tensor
            met |= set(fits)
            types = re.findall(r"float32|float64|int64|bool", known[fits[0]])
            assert not types or value.dtype.name in types, tensor
    assert met == known.keys()


def test_a_checkpoint_says_what_the_docs_say() -> None:
    text = " ".join(section(FORMATS_MD, "Checkpoints").split())
    tensors, header = unpack(V1 / CHECKPOINT)
    for key in header:
        assert f"`{key}`" in text, key
    for prefix in {name.partition(".")[0] for name in tensors}:
        assert f"`{prefix}" in text, prefix
    assert (header["format"], header["format_version"], header["step"]) == ("vqtool.checkpoint", 1, 4)
