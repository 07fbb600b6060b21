"""`vqtool sample`: a VAE's decoder on noise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, Silent, small_config

import vqtool
from vqtool.errors import UsageError
from vqtool.nn import codec as codec_module
from vqtool.nn.files import sample_file
from vqtool.nn.trainer import train
from vqtool.store import MotionSet

Trained = Callable[[str], Path]


def clips_of(path: Path) -> dict[str, np.ndarray]:
    with MotionSet([path]) as motion:
        motion.verify()
        return {name: motion.read(clip) for clip, name in enumerate(motion.names)}


def test_samples_are_numbered_clips_of_the_frames_asked_for(run: Run, trained: Trained) -> None:
    code, out, _ = run("sample", trained("vae"), "-n", 3, "--frames", 42, "-o", "out.h5", "--json")
    said = json.loads(out)
    assert (code, said["clips"], said["frames"]) == (0, 3, 126)
    clips = clips_of(Path("out.h5"))
    assert list(clips) == ["sample_0001", "sample_0002", "sample_0003"]
    assert {clip.shape for clip in clips.values()} == {(42, 5)}
    with MotionSet([Path("out.h5")]) as motion:
        assert motion.fps == 30


def test_a_sample_is_the_decoder_on_normal_numbers_of_its_seed(trained: Trained, tmp_path: Path) -> None:
    codec = vqtool.load(trained("vae"), device="cpu")
    sample_file(codec, tmp_path / "out.h5", clips=2, num_frames=10, seed=7, temperature=0.5)
    z = np.random.Generator(np.random.Philox(key=[7, 0])).standard_normal((6, 4)).astype(np.float32) / 2
    expected = codec.decode(z.reshape(2, 3, 4), num_frames=10)
    np.testing.assert_allclose(list(clips_of(tmp_path / "out.h5").values()), expected, rtol=1e-5, atol=1e-5)


def test_more_clips_begin_with_the_same_ones_and_another_seed_gives_others(run: Run, trained: Trained) -> None:
    for name, words in {"few": ["-n", 2], "more": ["-n", 5], "other": ["-n", 2, "--seed", 1]}.items():
        assert run("sample", trained("vae"), *words, "--frames", 30, "-o", f"{name}.h5", "-q")[0] == 0
    few, more, other = (clips_of(Path(f"{name}.h5")) for name in ("few", "more", "other"))
    for name, clip in few.items():
        np.testing.assert_allclose(more[name], clip, rtol=1e-5, atol=1e-5)
        assert not np.allclose(other[name], clip, atol=1e-2)


def test_at_temperature_0_every_clip_is_the_same(run: Run, trained: Trained) -> None:
    assert run("sample", trained("vae"), "-n", 2, "--temperature", 0, "-o", "out.h5")[0] == 0
    one, two = clips_of(Path("out.h5")).values()
    assert np.array_equal(one, two)


def test_codes_are_not_sampled_and_it_says_where_that_is_shown(run: Run, trained: Trained) -> None:
    code, _, error = run("sample", trained("rvq"), "-o", "out.h5")
    what = "is a tokenizer of rvq, whose codes need a model of tokens (see examples/text_to_motion)"
    assert code == 2
    assert error.count("\n") == 1
    assert f"{what}; only a VAE can be sampled" in error
    assert not Path("out.h5").exists()


def test_samples_of_a_skeleton_become_bvh(run: Run, mocap: Path) -> None:
    assert run("import", "mocap", "-o", "motion.h5", "-q")[0] == 0
    with MotionSet([Path("motion.h5")]) as motion:
        train(small_config("vae", train__steps=2), motion, Path("vae"), Silent(), device="cpu")
    assert run("sample", "vae", "-n", 2, "--frames", 9, "--like", "motion.h5", "-o", "out.h5")[0] == 0
    assert run("export", "out.h5", "-o", "out", "--format", "bvh")[0] == 0
    assert "Frames: 9" in Path("out/sample_0002.bvh").read_text()


def test_a_motion_file_without_a_skeleton_lends_none(run: Run, trained: Trained, motion_path: Path) -> None:
    code, _, error = run("sample", trained("vae"), "--like", motion_path, "-o", "out.h5")
    assert (code, "has no skeleton; leave out --like" in error) == (2, True)


def test_an_output_is_replaced_only_with_force(run: Run, trained: Trained) -> None:
    Path("out.h5").write_text("mine")
    assert run("sample", trained("vae"), "-o", "out.h5")[0] == 73
    assert Path("out.h5").read_text() == "mine"
    assert run("sample", trained("vae"), "-o", "out.h5", "--force")[0] == 0
    assert len(clips_of(Path("out.h5"))) == 1


def test_parts_make_the_motion_of_one_piece(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = vqtool.load(trained("vae"), device="cpu")
    sample_file(codec, tmp_path / "whole.h5", clips=3, num_frames=210)
    monkeypatch.setattr(codec_module, "CHUNK_TOKENS", 20)
    monkeypatch.setattr(codec_module, "PART_TOKENS", 20)
    sample_file(codec, tmp_path / "parts.h5", clips=3, num_frames=210)
    whole, parts = (list(clips_of(tmp_path / name).values()) for name in ("whole.h5", "parts.h5"))
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), -1.0])
def test_a_temperature_is_a_number_from_0_on(temperature: float, trained: Trained, tmp_path: Path) -> None:
    codec = vqtool.load(trained("vae"), device="cpu")
    with pytest.raises(UsageError, match="--temperature is a number from 0 on"):
        sample_file(codec, tmp_path / "out.h5", clips=1, num_frames=4, temperature=temperature)
