"""Encoding and decoding that were killed go on from the parts that are done, to the same bytes."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, write_motion

import vqtool
from vqtool import parts as parts_module
from vqtool.errors import InterruptedRun, StorageError
from vqtool.nn import codec as codec_module
from vqtool.nn.codec import Codec
from vqtool.nn.files import decode_file, encode_file
from vqtool.parts import Parts, keep_parts
from vqtool.signals import StopRequest
from vqtool.store import MotionSet
from vqtool.tokens import TokenSet

Trained = Callable[[str], Path]
MODELS = ("rvq", "vae")


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """About twenty parts of the motion of `motion_path`."""
    monkeypatch.setattr(codec_module, "CHUNK_TOKENS", 20)
    monkeypatch.setattr(codec_module, "PART_TOKENS", 20)
    monkeypatch.setattr(parts_module, "KEEP_AFTER", 0.0)


class Count:
    """A progress that counts, and sends a SIGTERM at a call; -1: at none."""

    def __init__(self, stop_at: int = -1) -> None:
        self.calls, self.frames, self.stop_at = 0, 0, stop_at

    def __call__(self, frames: int) -> None:
        vqtool.signals.check()
        self.calls += 1
        self.frames += frames
        if self.calls == self.stop_at:
            signal.raise_signal(signal.SIGTERM)


def encode(codec: Codec, motion: Path, out: Path, stop_at: int = -1, **options: object) -> int:
    """How many parts were found."""
    with StopRequest(), MotionSet([motion]) as clips:
        return encode_file(codec, clips, out, progress=Count(stop_at), **options).parts_found  # type: ignore[arg-type]


def decode(codec: Codec, tokens: Path, out: Path, stop_at: int = -1) -> None:
    with StopRequest(), TokenSet(tokens) as clips:
        decode_file(codec, clips, out, progress=Count(stop_at))


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("stop_at", [1, 5, 17])
def test_a_stopped_encode_goes_on_to_the_bytes_of_an_uninterrupted_one(
    model: str, stop_at: int, trained: Trained, motion_path: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained(model), device="cpu")
    encode(codec, motion_path, tmp_path / "whole.h5")
    with pytest.raises(InterruptedRun, match=r"parts? (is|are) done: the same command goes on from there"):
        encode(codec, motion_path, tmp_path / "out.h5", stop_at)
    assert listing(tmp_path) == [".out.h5.parts", "whole.h5"]
    assert encode(codec, motion_path, tmp_path / "out.h5") >= stop_at // 2
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert listing(tmp_path) == ["out.h5", "whole.h5"]


@pytest.mark.parametrize("model", MODELS)
def test_a_stopped_decode_goes_on_to_the_bytes_of_an_uninterrupted_one(
    model: str, trained: Trained, motion_path: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained(model), device="cpu")
    encode(codec, motion_path, tmp_path / "t.h5")
    decode(codec, tmp_path / "t.h5", tmp_path / "whole.h5")
    with pytest.raises(InterruptedRun, match="parts are done"):
        decode(codec, tmp_path / "t.h5", tmp_path / "out.h5", stop_at=9)
    decode(codec, tmp_path / "t.h5", tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert listing(tmp_path) == ["out.h5", "t.h5", "whole.h5"]


def test_parts_that_are_done_are_not_made_again_and_count_as_progress(
    trained: Trained, motion_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    with pytest.raises(InterruptedRun):
        encode(codec, motion_path, tmp_path / "out.h5", stop_at=10)
    kept = len(listing(tmp_path / ".out.h5.parts"))
    made: list[object] = []
    real = Codec.encode_spans

    def counted(self: Codec, spans: object, *rest: object) -> object:
        made.append(spans)
        return real(self, spans, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Codec, "encode_spans", counted)
    progress = Count()
    with MotionSet([motion_path]) as clips:
        done = encode_file(codec, clips, tmp_path / "out.h5", progress=progress)
        total = len(list(codec.parts(clips.lengths, 24)))
    assert done.parts_found == kept > 5
    assert len(made) == total - kept
    assert progress.frames == done.frames


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [damage, lambda path: path.write_bytes(path.read_bytes()[:99]), Path.unlink])
def test_a_damaged_part_is_made_again(
    harm: Callable[[Path], None], trained: Trained, motion_path: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    encode(codec, motion_path, tmp_path / "whole.h5")
    with pytest.raises(InterruptedRun):
        encode(codec, motion_path, tmp_path / "out.h5", stop_at=10)
    parts = sorted((tmp_path / ".out.h5.parts").iterdir())
    harm(parts[2])
    assert encode(codec, motion_path, tmp_path / "out.h5") == len(parts) - 1
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_parts_of_other_motion_layers_or_tokenizer_are_not_taken(trained: Trained, tmp_path: Path) -> None:
    motion = write_motion(tmp_path / "m.h5", [300])
    rvq, vq = (vqtool.load(trained(model), device="cpu") for model in ("rvq", "vq"))
    with pytest.raises(InterruptedRun):
        encode(rvq, motion, tmp_path / "out.h5", stop_at=3)
    parts = {path.name: path.read_bytes() for path in (tmp_path / ".out.h5.parts").iterdir()}

    def found(codec: Codec, source: Path, **options: object) -> int:
        (tmp_path / ".out.h5.parts").mkdir(exist_ok=True)
        for name, data in parts.items():
            (tmp_path / ".out.h5.parts" / name).write_bytes(data)
        return encode(codec, source, tmp_path / "out.h5", force=True, **options)

    assert found(rvq, motion) == len(parts) > 0
    assert found(vq, motion) == 0
    assert found(rvq, motion, num_quantizers=2) == 0
    assert found(rvq, write_motion(tmp_path / "other.h5", [301])) == 0


@pytest.mark.parametrize("model", MODELS)
def test_parts_of_another_size_are_not_taken(
    model: str, trained: Trained, motion_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = vqtool.load(trained(model), device="cpu")
    with pytest.raises(InterruptedRun):
        encode(codec, motion_path, tmp_path / "t.h5", stop_at=9)
    monkeypatch.setattr(codec_module, "PART_TOKENS", 60)  # as another version may have it
    encode(codec, motion_path, tmp_path / "whole.h5")
    assert encode(codec, motion_path, tmp_path / "t.h5") == 0
    assert (tmp_path / "t.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    with pytest.raises(InterruptedRun, match="parts are done"):
        decode(codec, tmp_path / "t.h5", tmp_path / "out.h5", stop_at=9)
    monkeypatch.setattr(codec_module, "PART_TOKENS", 20)
    decode(codec, tmp_path / "t.h5", tmp_path / "whole.back.h5")
    decode(codec, tmp_path / "t.h5", tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.back.h5").read_bytes()


def test_a_short_output_needs_no_parts_and_clears_those_left_by_another(trained: Trained, tmp_path: Path) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    with pytest.raises(InterruptedRun):
        encode(codec, write_motion(tmp_path / "long.h5", [300]), tmp_path / "out.h5", stop_at=3)
    assert encode(codec, write_motion(tmp_path / "short.h5", [60]), tmp_path / "out.h5") == 0
    assert listing(tmp_path) == ["long.h5", "out.h5", "short.h5"]


def test_work_of_seconds_keeps_no_parts(
    trained: Trained, motion_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "KEEP_AFTER", 60.0)
    codec = vqtool.load(trained("rvq"), device="cpu")
    with pytest.raises(InterruptedRun, match=r"interrupted; nothing was written$"):
        encode(codec, motion_path, tmp_path / "out.h5", stop_at=10)
    assert listing(tmp_path) == []


def test_a_disk_that_is_full_for_a_part_is_told_with_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    message = r"000001.safetensors: could not be written \(No space left on device\); 1 part is done"
    with pytest.raises(StorageError, match=message), keep_parts(tmp_path / "o.h5", {}, several=True) as parts:
        parts.save(0, {})
        monkeypatch.setattr(Path, "write_bytes", full)
        parts.save(1, {})


def test_the_only_part_is_not_kept(tmp_path: Path) -> None:
    with keep_parts(tmp_path / "o.h5", {}, several=False) as parts:
        parts.keep(0, {})
        assert listing(tmp_path) == []


def test_a_part_says_its_own_number(tmp_path: Path) -> None:
    parts = Parts(tmp_path, "key", True)
    parts.save(0, {})
    (tmp_path / "000000.safetensors").rename(tmp_path / "000001.safetensors")
    assert parts.load(1) is None


def test_the_command_line_goes_on_when_the_same_command_is_given_again(
    trained: Trained, motion_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["encode", trained("rvq"), motion_path, "-o", "t.h5"]
    real = Codec.encode_spans

    def interrupted(self: Codec, spans: list[codec_module.Span], *rest: object) -> object:
        if spans[0].clip == 8:
            raise InterruptedRun("interrupted; nothing was written", signum=0)
        return real(self, spans, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Codec, "encode_spans", interrupted)
        patch.setattr("vqtool.cli._die_by", lambda signum, text: 99)
        assert run(*words)[0] == 99
    code, _, errors = run(*words)
    assert code == 0
    assert "went on after" in errors
