"""motion.h5 and any other HDF5 file as motion: round trips, windows, and everything that is refused."""

from __future__ import annotations

import itertools
import json
import os
import random
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vqtool
from vqtool.companions import Caption, Companions
from vqtool.errors import DataError, MissingInputError, UsageError, VqtoolError
from vqtool.hdf5 import MAX_DEPTH
from vqtool.store import MotionSet, create_motion

LENGTHS = [5, 0, 130, 1, 64]


def clip(length: int, dim: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, length]).normal(size=(length, dim)).astype("f4")


def write(path: Path, clips: dict[str, np.ndarray], *, grow: bool = False, **options: Any) -> Path:
    dim = next(iter(clips.values())).shape[1] if clips else 3
    total = None if grow else sum(map(len, clips.values()))
    with create_motion(path, dim=dim, fps=30, total_frames=total, force=True, **options) as motion:
        for name, frames in clips.items():
            motion.append(name, frames)
    return path


def read(*paths: Path, **options: Any) -> dict[str, np.ndarray]:
    with MotionSet(paths, **options) as motion:
        motion.verify()
        return {name: motion.read(number) for number, name in enumerate(motion.names)}


def foreign(path: Path, fill: Callable[[h5py.File], object]) -> Path:
    with h5py.File(path, "w") as file:
        fill(file)
    return path


def small(folder: Path, name: str = "m.h5") -> Path:
    return write(folder / name, {f"clip {n}": clip(length) for n, length in enumerate(LENGTHS)})


# ---- motion.h5


def any_name() -> st.SearchStrategy[str]:
    """Any text without NUL, also as `os.fsdecode` reads file names that are not UTF-8."""
    plain = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
    raw = st.binary(min_size=1, max_size=12).filter(lambda data: 0 not in data).map(os.fsdecode)
    return plain | raw | st.sampled_from(["/", "/a", "a/b", "../a", ".", " ", "a b", "data/demo_0", "歩く", "\udcff"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(0, 300), max_size=6),
    names=st.lists(any_name(), min_size=6, max_size=6, unique=True),
    dim=st.integers(1, 5),
    grow=st.booleans(),
)
def test_any_clips_come_back_by_name_in_order_and_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], names: list[str], dim: int, grow: bool
) -> None:
    clips = {name: clip(length, dim) for name, length in zip(names, lengths, strict=False)}
    path = tmp_path_factory.getbasetemp() / "any.h5"
    total = None if grow else sum(lengths)
    with create_motion(path, dim=dim, fps=29.97, layout="x", total_frames=total, force=True) as motion:
        for name, frames in clips.items():
            motion.append(name, frames)
    with MotionSet([path]) as back:
        back.verify()
        assert (back.names, back.dim, back.fps, back.layout) == (list(clips), dim, 29.97, "x")
        assert back.lengths.tolist() == lengths
        for number, frames in enumerate(clips.values()):
            found = back.read(number)
            assert found.dtype == np.float32 and found.shape == frames.shape and (found == frames).all()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("a\0b", "no NUL"),
        ("\0", "no NUL"),
        ("", "1 to 4096 bytes"),
        ("n" * 4097, "1 to 4096 bytes"),
        ("\ud800", "valid Unicode"),
        ("\udcc3\udca9", "valid Unicode"),  # would come back as é
    ],
)
def test_a_name_that_would_not_come_back_is_refused(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(DataError, match=f"a clip name .*{what}"):
        write(tmp_path / "m.h5", {name: clip(2)})
    assert os.listdir(tmp_path) == []


def test_two_clips_of_one_name_are_refused_by_that_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clip walk: two clips have this name"):  # noqa: SIM117
        with create_motion(tmp_path / "m.h5", dim=3, fps=30) as motion:
            motion.append("walk", clip(2))
            motion.append("walk", clip(3))


def test_frames_are_as_documented_and_readable_with_h5py_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "m.h5", {"a": clip(3), "b": clip(2)}, layout="raw", units="m", source="here")
    with h5py.File(path) as file:
        assert file["frames"].dtype == np.dtype("<f4") and file["frames"].chunks is None
        assert file["offsets"][:].tolist() == [0, 3, 5] and file["offsets"].dtype == np.dtype("<i8")
        assert file["names"].asstr()[:].tolist() == ["a", "b"]
        text = {key: value.decode() for key, value in file.attrs.items() if isinstance(value, bytes)}
        assert text["format"] == "vqtool.motion" and text["units"] == "m" and text["source"] == "here"
        assert file.attrs["format_version"] == 1 and file.attrs["complete"] == 2 and file.attrs["fps"] == 30.0


def test_a_file_of_unknown_length_is_contiguous_and_the_same_in_the_end(tmp_path: Path) -> None:
    clips = {"a": clip(3), "b": clip(0), "c": clip(70_000)}
    paths = write(tmp_path / "grown.h5", clips, grow=True), write(tmp_path / "m.h5", clips)
    with h5py.File(paths[0]) as grown, h5py.File(paths[1]) as known:
        assert grown["frames"].chunks is None
        assert grown.attrs["sha256"] == known.attrs["sha256"]
        np.testing.assert_array_equal(grown["frames"][:], known["frames"][:])
    assert {path.name for path in tmp_path.iterdir()} == {"grown.h5", "m.h5"}


def gzipped(path: Path, source: Path) -> Path:
    """The same file with gzip and shuffle on its frames, as h5repack makes it."""
    with h5py.File(source) as old, h5py.File(path, "w") as new:
        for name in old:
            if name != "frames":
                old.copy(name, new)
        new.create_dataset("frames", data=old["frames"][:], chunks=(64, 3), compression="gzip", shuffle=True)
        for key in old.attrs:
            new.attrs.create(key, old.attrs[key], dtype=old.attrs.get_id(key).dtype)
    return path


@pytest.mark.parametrize("how", ["contiguous", "growing", "gzip"])
def test_every_window_equals_the_slice_of_its_clip(tmp_path: Path, how: str) -> None:
    clips = {f"clip {n}": clip(length) for n, length in enumerate(LENGTHS)}
    path = write(tmp_path / "m.h5", clips, grow=how == "growing")
    if how == "gzip":
        path = gzipped(tmp_path / "z.h5", path)
    with MotionSet([path]) as motion:
        motion.verify()
        for number, frames in enumerate(clips.values()):
            cuts = sorted({0, 1, 63, 64, 65, len(frames) // 2, len(frames)} & set(range(len(frames) + 1)))
            for start, stop in itertools.combinations_with_replacement(cuts, 2):
                assert (motion.read(number, start, stop) == frames[start:stop]).all()
                assert motion.read(number, start, stop).shape == (stop - start, 3)


@pytest.mark.parametrize("grow", [False, True])
def test_a_window_beyond_the_end_does_not_run_into_the_next_clip(tmp_path: Path, grow: bool) -> None:
    path = write(tmp_path / "m.h5", {"a": clip(5, seed=1), "b": clip(7, seed=2)}, grow=grow)
    with MotionSet([path]) as motion:
        assert (motion.read(0, 2, 100) == clip(5, seed=1)[2:100]).all() and len(motion.read(0, 9, 100)) == 0


def test_a_window_that_was_read_is_the_readers_own(tmp_path: Path) -> None:
    with MotionSet([small(tmp_path)]) as motion:
        motion.read(0)[:] = 7
        assert (motion.read(0) == clip(5)).all()


def test_opening_ten_thousand_clips_reads_no_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create_motion(tmp_path / "m.h5", dim=2, fps=30, total_frames=20_000) as motion:
        for number in range(10_000):
            motion.append(f"clip {number}", np.full((2, 2), number, "f4"))
    asked = []
    get = h5py.Dataset.__getitem__

    def watch(dataset: h5py.Dataset, *arguments: object, **options: object) -> Any:
        asked.append(dataset.name)
        return get(dataset, *arguments, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", watch)
    with MotionSet([tmp_path / "m.h5"]) as back:
        assert len(back) == 10_000 and sorted(asked) == ["/names", "/offsets"]
        assert back.read(9_999).tolist() == [[9_999, 9_999]] * 2
        assert sorted(asked) == ["/names", "/offsets"], "contiguous frames come from a memory map"


@pytest.mark.parametrize("grow", [False, True])
def test_two_writes_are_byte_for_byte_the_same(tmp_path: Path, grow: bool) -> None:
    clips = {"a": clip(70), "b": clip(3)}
    one = write(tmp_path / "1.h5", clips, grow=grow).read_bytes()
    assert one == write(tmp_path / "2.h5", clips, grow=grow).read_bytes()


def test_splits_come_back_and_select_clips(tmp_path: Path) -> None:
    with create_motion(tmp_path / "m.h5", dim=3, fps=30) as motion:
        for number, split in enumerate([0, 2, 0]):
            motion.append(str(number), clip(number), split)
    with MotionSet([tmp_path / "m.h5"]) as back:
        back.verify()
        assert (back.select("train"), back.select("test"), back.select(None)) == ([0, 2], [1], [0, 1, 2])
        with pytest.raises(DataError, match=r"m\.h5: has no clip in split 'val'"):
            back.select("val")
        with pytest.raises(UsageError, match="no split 'dev'; there are train, val, test"):
            back.select("dev")


def test_a_split_of_a_file_without_splits_is_refused(tmp_path: Path) -> None:
    with MotionSet([small(tmp_path)]) as motion, pytest.raises(DataError, match="leave --split out"):
        motion.select("train")


def test_dataset_pattern_on_a_motion_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--dataset is for HDF5 files that are not motion\.h5"):
        MotionSet([small(tmp_path)], dataset="x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named_by_file_clip_frame_and_column(tmp_path: Path, value: float) -> None:
    bad = clip(20)
    bad[13, 2] = value
    bad[14, 0] = np.nan
    with (
        MotionSet([write(tmp_path / "m.h5", {"good": clip(9), "bad": bad})]) as motion,
        pytest.raises(DataError, match=rf"m\.h5:frames clip bad frame 13: column 2 is {value}"),
    ):
        assert sum(len(block) for block in motion.blocks(0)) == 9
        list(motion.blocks(1))


def test_a_late_frame_of_a_long_clip_is_counted_from_its_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqtool.hdf5.READ_BYTES", 100)
    bad = clip(50)
    bad[47, 1] = np.nan
    with (
        MotionSet([write(tmp_path / "m.h5", {"good": clip(9), "bad": bad})]) as motion,
        pytest.raises(DataError, match=r"clip bad frame 47: column 1 is nan"),
    ):
        list(motion.blocks(1))


@pytest.mark.parametrize("where", ["frames", "offsets", "names"])
def test_a_flipped_bit_is_found(tmp_path: Path, where: str) -> None:
    path = write(tmp_path / "m.h5", {"abc": clip(8), "def": clip(8)})
    with h5py.File(path) as file:
        at = file[where].id.get_offset() + (8 if where == "offsets" else 0)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"m\.h5.*(does not match its SHA-256)"):
        read(path)


def test_an_attribute_that_was_edited_is_found(tmp_path: Path) -> None:
    path = small(tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["fps"] = 31.0
    with pytest.raises(DataError, match="does not match its SHA-256: it was damaged or edited"):
        read(path)


def edit(path: Path, name: str, value: np.ndarray) -> None:
    with h5py.File(path, "a") as file:
        del file[name]
        file[name] = value


@pytest.mark.parametrize(
    ("offsets", "what"),
    [
        ([0, 5, 5, 135, 136, 201], "does not fit the rows"),
        ([1, 5, 5, 135, 136, 200], "does not fit the rows"),
        ([0, 135, 5, 5, 136, 200], "does not fit the rows"),
        ([0, 2**63 - 1, -2, 135, 136, 200], "does not fit the rows"),  # its differences overflow to positive ones
        ([0, 5, 200], "has 3 entries for 5 names"),
        ([], "has 0 entries for 5 names"),
    ],
)
def test_offsets_that_cannot_be_are_refused(tmp_path: Path, offsets: list[int], what: str) -> None:
    path = small(tmp_path)
    edit(path, "offsets", np.array(offsets, dtype="<i8"))
    with pytest.raises(DataError, match=rf"m\.h5:offsets: {what}.*; the file is damaged"):
        read(path)


def test_a_file_that_was_not_written_to_its_end_is_refused(tmp_path: Path) -> None:
    path = small(tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["complete"] = 3
    with pytest.raises(DataError, match="was not written to its end; make it again"):
        read(path)


def test_a_newer_format_version_says_update(tmp_path: Path) -> None:
    path = small(tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(DataError, match="has format version 2; this vqtool reads 1, so update vqtool"):
        read(path)


@pytest.mark.parametrize("name", ["frames", "offsets", "names"])
def test_a_missing_part_is_named(tmp_path: Path, name: str) -> None:
    path = small(tmp_path)
    with h5py.File(path, "a") as file:
        del file[name]
    with pytest.raises(DataError, match=rf"m\.h5:{name}: is missing"):
        read(path)


@pytest.mark.parametrize("name", ["frames", "offsets", "names", "splits"])
@pytest.mark.parametrize("kind", ["soft", "external"])
def test_a_link_in_place_of_a_part_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    path = small(tmp_path)
    with h5py.File(small(tmp_path, "other.h5"), "a") as other:
        other["splits"] = np.zeros(5, np.uint8)
    with h5py.File(path, "a") as file:
        if name in file:
            file.move(name, "moved")
        else:
            file["moved"] = np.zeros(5, np.uint8)
        file[name] = h5py.SoftLink("/moved") if kind == "soft" else h5py.ExternalLink("other.h5", name)
    with pytest.raises(DataError, match=rf"m\.h5:{name}: is a link; vqtool follows no links"):
        read(path)


def test_a_small_file_cannot_ask_for_much_memory(tmp_path: Path) -> None:
    path = small(tmp_path)
    with h5py.File(path, "a") as file:
        file.create_dataset("splits", (10**12,), "u1", chunks=(10**6,), compression="gzip")
    with pytest.raises(DataError, match=r"m\.h5:/splits: has parts that were never written"):
        read(path)


@pytest.mark.parametrize("shape", [(10**11, 4), (2**61, 8)])
def test_a_clip_that_declares_more_than_its_file_holds_is_refused(tmp_path: Path, shape: tuple[int, int]) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("x", shape, "f4")

    with pytest.raises(DataError, match=r"f\.h5:/x: declares more data than the file holds"):
        read(foreign(tmp_path / "f.h5", fill), fps=30)


def test_a_clip_with_chunks_that_were_never_written_is_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("x", (100, 3), "f4", chunks=(10, 3))[:50] = 1

    with pytest.raises(DataError, match=r"f\.h5:/x: has parts that were never written"):
        read(foreign(tmp_path / "f.h5", fill), fps=30)


def test_a_compressed_chunk_of_no_bytes_is_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        dataset = file.create_dataset("x", (20, 3), "f8", chunks=(10, 3), compression="gzip")
        dataset[:] = clip(20)

    path = foreign(tmp_path / "f.h5", fill)
    with h5py.File(path) as file:
        chunk = file["x"].id.get_chunk_info(1)
    # The B-tree's key of that chunk: its size and filter mask, then its offsets.
    key = chunk.size.to_bytes(4, "little") + bytes(4) + (10).to_bytes(8, "little") + bytes(16)
    data = path.read_bytes()
    assert data.count(key) == 1
    path.write_bytes(data.replace(key, bytes(4) + key[4:]))
    with pytest.raises(DataError, match=r"f\.h5:/x: has an empty chunk"):
        read(path, fps=30)


# ---- any other HDF5 file


def nested(file: h5py.File) -> None:
    for name in ("data/demo_0/actions", "data/demo_1/actions", "top"):
        file[name] = clip(6)
    file["data/demo_0/rewards"] = np.zeros(6)
    file["data/words"] = "text"
    file["data/flags"] = np.zeros((6, 3), bool)
    file["data/empty"] = h5py.Empty("f4")
    file["data/deep"] = np.zeros((2, 3, 4, 5))
    file.attrs["fps"] = 20.0


def test_every_two_dimensional_dataset_at_any_depth_is_a_clip_named_by_its_path(tmp_path: Path) -> None:
    found = read(foreign(tmp_path / "f.h5", nested))
    assert list(found) == ["data/demo_0/actions", "data/demo_1/actions", "top"]
    assert all((frames == clip(6)).all() for frames in found.values())


def test_a_dataset_of_a_type_that_numpy_lacks_is_passed_over(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["x"] = clip(4)
        space = h5py.h5s.create_simple((3, 3))
        h5py.h5d.create(file.id, b"time", h5py.h5t.UNIX_D32LE, space)
        h5py.h5d.create(file.id, b"bits", h5py.h5t.STD_B8LE, space)

    assert list(read(foreign(tmp_path / "f.h5", fill), fps=30)) == ["x"]


def test_joint_positions_are_flattened(tmp_path: Path) -> None:
    joints = clip(4, 15).reshape(4, 5, 3)
    found = read(foreign(tmp_path / "f.h5", lambda file: file.create_dataset("x", data=joints)), fps=30)
    assert (found["x"] == joints.reshape(4, 15)).all()


@pytest.mark.parametrize("dtype", ["<f8", ">f8", ">f4", "<f2", "i1", "<i8", ">i4", "<u2"])
@pytest.mark.parametrize("chunks", [None, (7, 3)])
def test_any_type_of_number_equals_its_cast_to_float32(
    tmp_path: Path, dtype: str, chunks: tuple[int, int] | None
) -> None:
    data = (np.random.default_rng(0).random((40, 3)) * 100).astype(dtype)
    path = foreign(tmp_path / "f.h5", lambda file: file.create_dataset("x", data=data, chunks=chunks))
    with MotionSet([path], fps=30) as motion:
        found = motion.read(0, 5, 33)
    assert found.dtype == np.float32 and found.dtype.isnative and (found == data.astype("f4")[5:33]).all()


def test_a_double_beyond_float32_is_refused_as_infinite(tmp_path: Path) -> None:
    data = np.ones((5, 2))
    data[3, 1] = 1e300
    path = foreign(tmp_path / "f.h5", lambda file: file.create_dataset("x", data=data))
    with (
        MotionSet([path], fps=30) as motion,
        pytest.raises(DataError, match=r"f\.h5:/x clip x frame 3: column 1 is inf"),
    ):
        list(motion.blocks(0))


@pytest.mark.parametrize("pattern", ["data/*/actions", "/data/*/actions", "*/demo_?/act*"])
def test_a_pattern_narrows_the_datasets(tmp_path: Path, pattern: str) -> None:
    found = read(foreign(tmp_path / "f.h5", nested), dataset=pattern)
    assert list(found) == ["data/demo_0/actions", "data/demo_1/actions"]


def test_a_star_does_not_match_a_slash(tmp_path: Path) -> None:
    assert list(read(foreign(tmp_path / "f.h5", nested), dataset="*")) == ["top"]


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \[T, D\] dataset that matches --dataset 'obs/\*'"):
        read(foreign(tmp_path / "f.h5", nested), dataset="obs/*")


def test_a_file_without_motion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"f\.h5: holds no \[T, D\] dataset of numbers"):
        read(foreign(tmp_path / "f.h5", lambda file: file.create_dataset("x", data=np.zeros(3))), fps=30)


def test_differing_columns_are_refused_with_names_and_what_to_do(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["actions"], file["states"] = clip(4, 3), clip(4, 5)

    what = "its datasets differ: actions has 3 columns, states has 5 columns; choose with --dataset"
    with pytest.raises(DataError, match=rf"f\.h5: {what}"):
        read(foreign(tmp_path / "f.h5", fill), fps=30)
    assert list(read(tmp_path / "f.h5", fps=30, dataset="states")) == ["states"]


@pytest.mark.parametrize("where", ["data/demo/x", "data/demo", "data", "/"])
@pytest.mark.parametrize("value", [25, 25.0, np.float32(25), np.array([25.0])])
def test_fps_is_an_attribute_of_the_dataset_or_of_any_group_above(tmp_path: Path, where: str, value: Any) -> None:
    def fill(file: h5py.File) -> None:
        file["data/demo/x"] = clip(4)
        file[where].attrs["fps"] = value

    with MotionSet([foreign(tmp_path / "f.h5", fill)]) as motion:
        assert motion.fps == 25.0


def test_the_nearest_fps_counts(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["data/x"] = clip(4)
        file.attrs["fps"], file["data"].attrs["fps"] = 10, 20

    with MotionSet([foreign(tmp_path / "f.h5", fill)]) as motion:
        assert motion.fps == 20.0


def test_no_fps_says_what_to_do(tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.h5", lambda file: file.create_dataset("x", data=clip(4)))
    with pytest.raises(UsageError, match=r"f\.h5: says no frame rate \(attribute fps\); add --fps, for example"):
        MotionSet([path])
    with MotionSet([path], fps=12.5) as motion:
        assert motion.fps == 12.5


@pytest.mark.parametrize("fps", [0.0, -30.0, float("nan"), float("inf")])
def test_fps_that_cannot_be_is_refused(tmp_path: Path, fps: float) -> None:
    def fill(file: h5py.File) -> None:
        file["x"] = clip(4)
        file.attrs["fps"] = fps

    path = foreign(tmp_path / "f.h5", fill)
    with pytest.raises(DataError, match=r"f\.h5: has fps .*; a positive number was expected"):
        MotionSet([path])
    with pytest.raises(UsageError, match="--fps takes a positive number"):
        MotionSet([path], fps=fps)


def test_clips_of_different_fps_are_refused(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        for name, fps in (("x", 20), ("y", 30)):
            file[name] = clip(4)
            file[name].attrs["fps"] = fps

    with pytest.raises(DataError, match="its clips differ in fps: x 20, y 30"):
        MotionSet([foreign(tmp_path / "f.h5", fill)])


def test_soft_and_external_links_are_not_followed(tmp_path: Path) -> None:
    foreign(tmp_path / "secret.h5", lambda file: file.create_dataset("x", data=clip(4)))

    def fill(file: h5py.File) -> None:
        file["g/x"] = clip(4)
        file["soft"], file["group"] = h5py.SoftLink("/g/x"), h5py.SoftLink("/g")
        file["dangling"] = h5py.SoftLink("/none")
        file["outside"], file["gone"] = h5py.ExternalLink("secret.h5", "x"), h5py.ExternalLink("none.h5", "x")

    assert list(read(foreign(tmp_path / "f.h5", fill), fps=30)) == ["g/x"]


def test_external_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_bytes(b"x" * 1000)

    def fill(file: h5py.File) -> None:
        file.create_dataset("x", (10, 3), "f4", external=[(str(tmp_path / "passwords"), 0, 120)])

    with pytest.raises(DataError, match=r"f\.h5:/x: keeps its data in another file"):
        read(foreign(tmp_path / "f.h5", fill), fps=30)


def test_a_virtual_dataset_is_refused(tmp_path: Path) -> None:
    foreign(tmp_path / "shard.h5", lambda file: file.create_dataset("x", data=clip(4)))

    def fill(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((4, 3), "f4")
        layout[:] = h5py.VirtualSource("shard.h5", "x", (4, 3))
        file.create_virtual_dataset("v", layout)

    with pytest.raises(DataError, match=r"f\.h5:/v: keeps its data in another file"):
        read(foreign(tmp_path / "f.h5", fill), fps=30)


def test_an_unknown_filter_is_refused_with_what_to_do(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        dataset = file.create_dataset(
            "x", (8, 3), "f4", chunks=(8, 3), compression=32015, compression_opts=(3,), allow_unknown_filter=True
        )
        dataset.id.write_direct_chunk((0, 0), b"\x28\xb5\x2f\xfd" + bytes(40))

    with pytest.raises(DataError, match=r"f\.h5:/x: needs the filter number 32015; rewrite it with gzip"):
        read(foreign(tmp_path / "f.h5", fill), fps=30)


@pytest.mark.parametrize(
    "options",
    [{"compression": "gzip"}, {"compression": "lzf"}, {"shuffle": True, "compression": "gzip"}, {"fletcher32": True}],
)
def test_the_filters_that_hdf5_always_has_are_read(tmp_path: Path, options: dict[str, Any]) -> None:
    path = foreign(tmp_path / "f.h5", lambda file: file.create_dataset("x", data=clip(200), chunks=(64, 3), **options))
    assert (read(path, fps=30)["x"] == clip(200)).all()


def test_the_most_compressible_motion_is_not_taken_for_a_forgery(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("x", data=np.zeros((100_000, 8), "f4"), compression="gzip", compression_opts=9)

    assert not read(foreign(tmp_path / "f.h5", fill), fps=30)["x"].any()


def test_a_damaged_chunk_is_named_by_its_dataset(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    foreign(path, lambda file: file.create_dataset("x", data=clip(50), chunks=(50, 3), fletcher32=True))
    with h5py.File(path) as file:
        at = file["x"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[at + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"f\.h5:/x: cannot be read; the file is damaged"):
        read(path, fps=30)


def test_a_cycle_of_hard_links_ends_and_each_clip_counts_once(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["a/x"] = clip(4)
        file["a/b/up"], file["again"], file["x"] = file["a"], file["a"], file["a/x"]

    assert list(read(foreign(tmp_path / "f.h5", fill), fps=30)) == ["a/x"]


def test_groups_nested_too_deep_are_refused_and_not_passed_over(tmp_path: Path) -> None:
    deep = "/".join(["g"] * (MAX_DEPTH + 1))
    with pytest.raises(DataError, match=f"has groups more than {MAX_DEPTH} deep"):
        read(foreign(tmp_path / "f.h5", lambda file: file.create_dataset(f"{deep}/x", data=clip(4))), fps=30)


def test_groups_of_the_greatest_depth_are_read(tmp_path: Path) -> None:
    deep = "/".join(["g"] * MAX_DEPTH)
    assert read(foreign(tmp_path / "f.h5", lambda file: file.create_dataset(f"{deep}/x", data=clip(4))), fps=30)


def test_a_name_that_is_not_utf8_is_refused_in_words(tmp_path: Path) -> None:
    path = foreign(tmp_path / "f.h5", lambda file: file.create_dataset(b"caf\xe9", data=clip(4)))
    with pytest.raises(DataError, match=r"has a name that is not UTF-8 .*rename it"):
        read(path, fps=30)


# ---- several files


def test_several_files_are_one_list_in_the_order_given(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.h5", {"b": clip(3)}), write(tmp_path / "2.h5", {"a": clip(4), "c": clip(0)})
    with MotionSet([two, one]) as motion:
        assert motion.names == ["a", "c", "b"] and motion.lengths.tolist() == [4, 0, 3]
        assert (motion.read(2) == clip(3)).all() and json.loads(motion.source) == ["2.h5", "1.h5"]


def test_names_that_two_files_share_get_the_stem_in_front(tmp_path: Path) -> None:
    one = write(tmp_path / "one.h5", {"walk": clip(3), "run": clip(1)})
    two = write(tmp_path / "two.h5", {"walk": clip(4), "sit": clip(1)})
    assert list(read(one, two)) == ["one/walk", "run", "two/walk", "sit"]


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    path = small(tmp_path)
    with pytest.raises(DataError, match="two inputs hold clips of the same names"):
        MotionSet([path, path])


def test_files_of_different_columns_are_refused(tmp_path: Path) -> None:
    one, two = write(tmp_path / "1.h5", {"a": clip(3, 3)}), write(tmp_path / "2.h5", {"b": clip(3, 5)})
    with pytest.raises(DataError, match=r"2\.h5: has columns 5, but .*1\.h5 has 3"):
        MotionSet([one, two])


def test_files_of_different_fps_are_refused(tmp_path: Path) -> None:
    one = write(tmp_path / "1.h5", {"a": clip(3)})
    with create_motion(tmp_path / "2.h5", dim=3, fps=60) as motion:
        motion.append("b", clip(3))
    with pytest.raises(DataError, match=r"2\.h5: has fps 60\.0, but .*1\.h5 has 30\.0"):
        MotionSet([one, tmp_path / "2.h5"])


def test_fps_stands_in_for_a_file_that_says_none(tmp_path: Path) -> None:
    says = write(tmp_path / "1.h5", {"a": clip(3)})
    silent = foreign(tmp_path / "2.h5", lambda file: file.create_dataset("b", data=clip(4)))
    with MotionSet([silent, says], fps=30) as motion:
        assert motion.fps == 30.0 and motion.names == ["b", "a"]
    with pytest.raises(UsageError, match=r"1\.h5: says fps 30; leave --fps 25 out"):
        MotionSet([silent, says], fps=25)
    with MotionSet([silent, says]) as motion:
        assert motion.fps == 30.0


def test_splits_in_only_some_files_are_refused(tmp_path: Path) -> None:
    with create_motion(tmp_path / "1.h5", dim=3, fps=30) as motion:
        motion.append("a", clip(3), 0)
    with pytest.raises(DataError, match="some of these files say which clips are train, val and test"):
        MotionSet([tmp_path / "1.h5", write(tmp_path / "2.h5", {"b": clip(3)})])


def test_no_file_at_all_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no motion file named"):
        MotionSet([])


# ---- what is no motion


def bad_inputs(folder: Path) -> Iterator[tuple[str, Path, type[VqtoolError], str]]:
    good = small(folder).read_bytes()
    for name, data in {"text": b"a,b\n1,2\n" * 50, "empty": b"", "cut": good[: len(good) // 2]}.items():
        (folder / name).write_bytes(data)
        yield name, folder / name, DataError, "is not a readable HDF5 file"
    os.mkfifo(folder / "pipe")
    yield "pipe", folder / "pipe", DataError, "is a device or pipe"
    yield "folder", folder, DataError, "is a folder; name an HDF5 file"
    yield "missing", folder / "none.h5", MissingInputError, "no such file"


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "pipe", "folder", "missing"])
def test_what_is_no_hdf5_file_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    _, path, error, what = next(row for row in bad_inputs(tmp_path) if row[0] == kind)
    with pytest.raises(error, match=what) as caught:
        MotionSet([path])
    assert type(caught.value) is error
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_token_file_is_not_motion(tmp_path: Path) -> None:
    path = small(tmp_path)
    with h5py.File(path, "a") as file:
        file.attrs["format"] = "vqtool.tokens"
    with pytest.raises(DataError, match=r"is a vqtool\.tokens file; motion was expected"):
        MotionSet([path])


def test_a_refused_file_is_closed_again(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="fps") as caught:
        MotionSet([foreign(tmp_path / "f.h5", nested)], dataset="top", fps=-1)
    with pytest.raises(DataError, match="columns") as caught:
        MotionSet([foreign(tmp_path / "f.h5", lambda f: (f.create_dataset("a", data=clip(3)), f.update({"b": [[1]]})))])
    with h5py.File(tmp_path / "f.h5", "a") as file:  # h5py refuses a file that is open for reading
        del file["a"]
    del caught


def test_a_writer_that_cannot_start_leaves_hdf5_in_order(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="frames"),
        create_motion(tmp_path / "m.h5", dim=0, fps=30),
    ):
        pass
    assert os.listdir(tmp_path) == [] and len(read(small(tmp_path))) == 5


# ---- damaged files

CHILD = """
import random, signal, sys, warnings
from pathlib import Path
import test_store
warnings.simplefilter("error")
source, begin, end = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
good, path = source.read_bytes(), source.with_suffix(".mutant")
for case in range(begin, end):
    path.write_bytes(test_store.mutate(good, random.Random(f"{source.stem} {case}")))
    print(case, flush=True)
    signal.alarm(10)
    test_store.read_all(path)
    signal.alarm(0)
"""


def mutate(data: bytes, draw: random.Random) -> bytes:
    """A file with flipped bits, bytes of extreme values, random bytes, or its end cut off."""
    mutant = bytearray(data)
    how = draw.randrange(5)
    if how == 0:
        return bytes(mutant[: draw.randrange(len(mutant))])
    for _ in range(draw.choice([1, 1, 2, 4, 16])):
        at = draw.randrange(len(mutant) if draw.random() < 0.5 else min(len(mutant), 4096))
        if how == 1:
            mutant[at] ^= 1 << draw.randrange(8)
        elif how == 2:
            mutant[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF])
        else:
            mutant[at : at + 8] = draw.choice([b"\xff" * 8, bytes(8), draw.randbytes(8)])[: len(mutant) - at]
    return bytes(mutant)


def read_all(path: Path) -> None:
    """Open, read and verify; any error but a VqtoolError of one line is a failure."""
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, -1))
    try:
        with MotionSet([path], fps=30) as motion:
            for number in range(len(motion)):
                list(motion.blocks(number))
                motion.read(number)
            motion.verify()
    except VqtoolError as error:
        assert str(error).isprintable()
        assert error.exit_code != 70


@pytest.mark.slow  # test_fuzz reads some as well
@pytest.mark.parametrize("kind", ["contiguous", "growing", "foreign"])
def test_two_hundred_damaged_files_raise_nothing_but_errors_of_vqtool(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.h5"
    if kind == "foreign":
        with h5py.File(path, "w") as file:
            file.create_dataset("data/a", data=clip(20), chunks=(8, 3), compression="gzip", fletcher32=True)
            file.create_dataset("data/b", data=clip(20).astype("f8"), chunks=(8, 3), compression="lzf", shuffle=True)
            file["data/c"] = clip(4).astype(">f8")
            file["data"].attrs["fps"] = 20.0
    else:
        with create_motion(path, dim=3, fps=30, total_frames=18 if kind == "contiguous" else None) as motion:
            for number, length in enumerate([5, 0, 12, 1]):
                motion.append(f"clip {number}", clip(length), split=number % 3)
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


def test_many_captions_take_little_room_and_come_back(tmp_path: Path) -> None:
    captions = tuple(Caption(0, f"a person walks {number} steps " * 5) for number in range(2000))
    with create_motion(tmp_path / "m.h5", dim=2, fps=30) as writer:
        writer.append("walk", np.zeros((3, 2), "f4"))
        writer.companions = Companions(captions=(*captions, Caption(0, "long " * 400)))
    assert (tmp_path / "m.h5").stat().st_size < 100_000
    with MotionSet([tmp_path / "m.h5"]) as motion:
        motion.verify()
        assert motion.companions.captions[:2000] == captions


def test_a_caption_without_end_is_refused_before_it_fills_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="has more than 65,536 bytes"),
        create_motion(tmp_path / "m.h5", dim=2, fps=30) as w,
    ):
        w.append("walk", np.zeros((3, 2), "f4"))
        w.companions = Companions(captions=(Caption(0, "a" * 70_000),))
    assert list(tmp_path.iterdir()) == []


def test_of_a_plain_hdf5_file_one_clip_is_open_at_a_time(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        for number in range(20):
            file[f"clips/{number:02d}"] = np.full((5, 2), number, "f4")
    with MotionSet([tmp_path / "plain.h5"], fps=30) as motion:
        assert [motion.read(clip)[0, 0] for clip in (3, 19, 3)] == [3, 19, 3]
        kept = motion._sources[0]._h5.id  # type: ignore[attr-defined]
        assert h5py.h5f.get_obj_count(kept, h5py.h5f.OBJ_DATASET) == 1
