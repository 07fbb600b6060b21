"""Shards of a work, made one by one on any machine, are together what one run writes, to the byte."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, waves

import vqtool
from vqtool.companions import Caption, Companions
from vqtool.errors import DataError, MismatchError, UsageError
from vqtool.inspection import inspect
from vqtool.merging import merge, read_manifest
from vqtool.nn import codec as codec_module
from vqtool.nn.codec import Codec
from vqtool.nn.files import decode_file, encode_file
from vqtool.shards import clip_range, parse_shard
from vqtool.skeleton import Skeleton
from vqtool.store import MotionSet, create_motion
from vqtool.tokens import TokenSet

LENGTHS = [0, 1, 3, 40, 41, 0, 64, 65, 130, 200, 260, 333, 500, 12, 7]
SHARDS = 4


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some twenty parts of the motion, so that shards of a VAE can begin at several places."""
    monkeypatch.setattr(codec_module, "CHUNK_TOKENS", 50)
    monkeypatch.setattr(codec_module, "PART_TOKENS", 20)


@pytest.fixture(scope="module")
def motion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen clips with all that can go along: splits, mirror images, starts, two bodies, captions in any order."""
    path = tmp_path_factory.mktemp("shards") / "m.h5"
    count = len(LENGTHS)
    bodies = tuple(Skeleton(("a", "b"), (-1, 0), np.array([[0, 0, 0], [0, size, 0]], float)) for size in (1, 2))
    mirror_of = np.full(count, -1)
    mirror_of[[1, 3, 12, 14]] = 14, 11, 12, 1
    with create_motion(path, dim=5, fps=30, total_frames=sum(LENGTHS)) as writer:
        for number, length in enumerate(LENGTHS):
            writer.append(f"clip_{number:02d}", waves(length, 5, seed=number))
        writer.companions = Companions(
            splits=np.arange(count, dtype=np.uint8) % 3,
            mirror_of=mirror_of,
            starts=np.arange(3.0 * count).reshape(count, 3),
            bodies=bodies,
            body_of=np.arange(count) % 2,
            captions=tuple(Caption(clip, f"clip {clip}") for clip in (9, 2, 12, 2, 0, 14)),
        )
    return path


def encode(codec: Codec, motion: Path, out: Path, **options: object) -> Path:
    with MotionSet([motion]) as clips:
        encode_file(codec, clips, out, **options)  # type: ignore[arg-type]
    return out


def decode(codec: Codec, tokens: Path, out: Path, **options: object) -> Path:
    with TokenSet(tokens) as clips:
        decode_file(codec, clips, out, **options)  # type: ignore[arg-type]
    return out


def shuffled(paths: list[Path]) -> list[Path]:
    return random.Random(0).sample(paths, len(paths))


@pytest.fixture
def shards(trained: Callable[[str], Path], motion: Path, tmp_path: Path) -> list[Path]:
    codec = vqtool.load(trained("rvq"), device="cpu")
    return [encode(codec, motion, tmp_path / f"{i}.h5", shard=(i, SHARDS)) for i in range(SHARDS)]


@pytest.mark.parametrize("model", ["rvq", "vae"])
def test_merged_shards_are_the_bytes_of_the_serial_run(
    model: str, trained: Callable[[str], Path], motion: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained(model), device="cpu")
    whole = encode(codec, motion, tmp_path / "whole.h5")
    paths = [encode(codec, motion, tmp_path / f"{i}.h5", shard=(i, SHARDS)) for i in range(SHARDS)]
    counts = []
    for path in paths:
        with TokenSet(path) as tokens:
            counts.append(len(tokens))
    assert sum(counts) == len(LENGTHS) and min(counts) > 0
    done = merge(shuffled(paths), tmp_path / "merged.h5")
    assert (tmp_path / "merged.h5").read_bytes() == whole.read_bytes()
    assert (done.shards, done.clips, done.frames, done.left_out) == (SHARDS, len(LENGTHS), sum(LENGTHS), 0)

    back = decode(codec, whole, tmp_path / "back.h5")
    paths = [decode(codec, whole, tmp_path / f"back.{i}.h5", shard=(i, SHARDS)) for i in range(SHARDS)]
    merge(shuffled(paths), tmp_path / "merged.back.h5")
    assert (tmp_path / "merged.back.h5").read_bytes() == back.read_bytes()


def test_clips_that_shards_skip_are_left_out_as_in_the_serial_run(
    trained: Callable[[str], Path], motion: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.h5"
    with MotionSet([motion]) as clips, create_motion(broken, dim=5, fps=30) as writer:
        writer.companions = clips.companions
        for clip, name in enumerate(clips.names):
            frames = clips.read(clip)
            frames[:1] = np.nan if clip in (1, 12) else frames[:1]
            writer.append(name, frames)
    codec = vqtool.load(trained("vae"), device="cpu")
    whole = encode(codec, broken, tmp_path / "whole.h5", on_error="skip")
    paths = [encode(codec, broken, tmp_path / f"{i}.h5", shard=(i, 3), on_error="skip") for i in range(3)]
    assert merge(paths, tmp_path / "merged.h5").left_out == 2
    assert (tmp_path / "merged.h5").read_bytes() == whole.read_bytes()


def test_a_shard_is_a_token_file_of_its_own(
    shards: list[Path], trained: Callable[[str], Path], motion: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    with TokenSet(shards[2]) as tokens, MotionSet([motion]) as clips:
        tokens.verify()
        first = clips.names.index(tokens.names[0])
        assert tokens.num_frames.tolist() == LENGTHS[first : first + len(tokens)]
        assert tokens.companions.captions
    back = decode(codec, shards[2], tmp_path / "back.h5")
    with MotionSet([back]) as decoded:
        assert decoded.names == [f"clip_{number:02d}" for number in range(first, first + len(decoded))]


def test_a_shard_reads_only_the_files_of_its_clips(
    trained: Callable[[str], Path], motion: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.h5"
    with create_motion(other, dim=5, fps=30, total_frames=2000) as writer:
        writer.append("long", waves(2000))
    data = bytearray(other.read_bytes())
    place = data.index(waves(2000)[1000].tobytes())
    data[place] ^= 1
    other.write_bytes(data)
    codec = vqtool.load(trained("rvq"), device="cpu")
    first = tmp_path / "first.h5"
    with create_motion(first, dim=5, fps=30, total_frames=2000) as writer:
        writer.append("first", waves(2000))
    with MotionSet([first, other]) as clips:
        assert encode_file(codec, clips, tmp_path / "0.h5", shard=(0, 2)).clips == 1
        with pytest.raises(DataError, match=r"other.h5: does not match its SHA-256"):
            encode_file(codec, clips, tmp_path / "1.h5", shard=(1, 2))


# What merge refuses


def test_missing_shards_are_named(shards: list[Path], tmp_path: Path) -> None:
    message = r"of 4 shards 2 are missing: 1, 3; sbatch --array takes such a list"
    with pytest.raises(UsageError, match=message):
        merge([shards[0], shards[2]], tmp_path / "m.h5")
    with pytest.raises(UsageError, match=r"of 4 shards 1 is missing: 3; make it with --shard 3/4"):
        merge(shards[:3], tmp_path / "m.h5")


def test_a_shard_that_is_named_twice_is_refused(shards: list[Path], tmp_path: Path) -> None:
    (tmp_path / "copy.h5").write_bytes(shards[1].read_bytes())
    with pytest.raises(UsageError, match=r"copy.h5: is shard 1/4, and so is .*1.h5; name one of them"):
        merge([*shards, tmp_path / "copy.h5"], tmp_path / "m.h5")


@pytest.mark.parametrize("other", ["vq", "layers", "count", "motion"])
def test_shards_of_other_work_are_refused(
    other: str, shards: list[Path], trained: Callable[[str], Path], motion: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained("vq" if other == "vq" else "rvq"), device="cpu")
    options = {"shard": (3, 5 if other == "count" else 4), "num_quantizers": 2 if other == "layers" else None}
    if other == "motion":
        with MotionSet([motion]) as clips, create_motion(tmp_path / "m.h5", dim=5, fps=30) as writer:
            for clip, name in enumerate(clips.names):
                writer.append(name, clips.read(clip) + 1)
        motion = tmp_path / "m.h5"
    encode(codec, motion, tmp_path / "x.h5", **options)
    with pytest.raises(MismatchError, match=r"x.h5: is a shard of other work than .*0.h5"):
        merge([*shards[:3], tmp_path / "x.h5"], tmp_path / "merged.h5")


def test_a_file_that_is_no_shard_is_refused(trained: Callable[[str], Path], motion: Path, tmp_path: Path) -> None:
    whole = encode(vqtool.load(trained("rvq"), device="cpu"), motion, tmp_path / "whole.h5")
    for path in (whole, motion):
        with pytest.raises(DataError, match=f"{path.name}: is no shard"):
            merge([path], tmp_path / "merged.h5")


def test_a_flipped_bit_in_a_shard_is_found_and_nothing_written(shards: list[Path], tmp_path: Path) -> None:
    data = bytearray(shards[1].read_bytes())
    data[data.index(b"clip_") + 5] ^= 1
    shards[1].write_bytes(data)
    with pytest.raises(DataError, match=r"1.h5: does not match its SHA-256"):
        merge(shards, tmp_path / "m.h5")
    assert not (tmp_path / "m.h5").exists()


# The manifest


def test_a_manifest_lists_the_shards_and_stands_for_them(shards: list[Path], tmp_path: Path) -> None:
    merge(shuffled(shards), tmp_path / "all.json")
    listed = json.loads((tmp_path / "all.json").read_text())
    assert [entry["file"] for entry in listed["shards"]] == ["0.h5", "1.h5", "2.h5", "3.h5"]
    assert (listed["clips"], listed["frames"]) == (len(LENGTHS), sum(LENGTHS))
    merge([tmp_path / "all.json"], tmp_path / "from.manifest.h5")
    merge(shards, tmp_path / "merged.h5")
    assert (tmp_path / "from.manifest.h5").read_bytes() == (tmp_path / "merged.h5").read_bytes()


@pytest.mark.parametrize("model", ["rvq", "vae"])
def test_inspecting_a_manifest_is_inspecting_the_merged_file(
    model: str, trained: Callable[[str], Path], motion: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained(model), device="cpu")
    paths = [encode(codec, motion, tmp_path / f"{i}.h5", shard=(i, SHARDS)) for i in range(SHARDS)]
    merge(paths, tmp_path / "all.json")
    merge(paths, tmp_path / "all.h5")
    one, other = (inspect(tmp_path / name).to_json() for name in ("all.json", "all.h5"))
    assert one.pop("file").endswith("all.json") and other.pop("file").endswith("all.h5")
    for plain in (one, other):
        for dimension in plain.get("dimensions", []):
            dimension.update({name: round(value, 9) for name, value in dimension.items()})
        plain.update({name: round(value, 9) for name, value in plain.items() if isinstance(value, float)})
    assert one == other


def test_a_shard_that_is_not_the_listed_one_is_refused(shards: list[Path], tmp_path: Path) -> None:
    merge(shards, tmp_path / "all.json")
    shards[1].write_bytes(shards[2].read_bytes())
    with pytest.raises(DataError, match=r"1.h5: is not the file that .*all.json lists"):
        inspect(tmp_path / "all.json")


@pytest.mark.parametrize("text", ['{"format": "vqtool.shards"', '{"format": "vqtool.shards", "format_version": 1}'])
def test_a_damaged_manifest_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text(text)
    with pytest.raises(DataError, match="is no manifest of shards, or is damaged"):
        read_manifest(tmp_path / "all.json")


def test_a_manifest_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text('{"format": "vqtool.shards", "format_version": 1, "shards": []}')
    with pytest.raises(DataError, match="lists no shards"):
        inspect(tmp_path / "all.json")


# Which clips are in a shard


@pytest.mark.parametrize("text", ["3", "3/", "/4", "a/4", "-1/4", "1/0", "1/4/2", "1.0/4", ""])
def test_what_is_no_shard_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError, match=r"--shard takes I/N such as 3/100 or \$SLURM_ARRAY_TASK_ID/100"):
        parse_shard(text)


def test_shards_are_counted_from_0() -> None:
    assert parse_shard("0/4") == (0, 4)
    with pytest.raises(UsageError, match=r"--shard 4/4: the shards are 0 to 3, as of sbatch --array=0-3"):
        parse_shard("4/4")


def ranges(sizes: list[int], starts: list[int], count: int) -> Iterator[tuple[int, int]]:
    for index in range(count):
        yield clip_range((index, count), np.array(sizes), np.array(starts, dtype=np.int64))


def test_shards_share_the_token_frames_alike() -> None:
    assert list(ranges([1, 1, 1, 3, 3, 3], [0, 1, 2, 3, 4, 5], 2)) == [(0, 4), (4, 6)]


def test_every_clip_is_in_one_shard_wherever_shards_may_begin() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        sizes = random.integers(0, 9, random.integers(0, 20)).tolist()
        starts = sorted({0, *random.choice(max(1, len(sizes)), 3).tolist()}) if sizes else []
        found = list(ranges(sizes, starts, int(random.integers(1, 8))))
        assert found[0][0] == 0 and found[-1][1] == len(sizes)
        assert all(one[1] == other[0] and one[0] <= one[1] for one, other in pairwise(found))
        assert {first for first, _ in found} <= {*starts, len(sizes), 0}


def test_the_command_line_makes_and_merges_shards(trained: Callable[[str], Path], motion: Path, run: Run) -> None:
    for index in range(2):
        assert run("encode", trained("rvq"), motion, "-o", f"{index}.h5", "--shard", f"{index}/2", "-q")[0] == 0
    code, _, errors = run("merge", "0.h5", "-o", "all.h5")
    assert code == 2 and "of 2 shards 1 is missing: 1; make it with --shard 1/2" in errors
    code, out, _ = run("merge", "1.h5", "0.h5", "-o", "all.h5", "-q")
    assert (code, out) == (0, f"all.h5: 2 shards, {len(LENGTHS)} clips, {sum(LENGTHS):,} frames\n")
