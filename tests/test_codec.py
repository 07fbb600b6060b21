"""The promises of encoding: same motion, same tokens; every frame comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import OPTIONS, small_config, waves, write_motion
from hypothesis import given, settings
from hypothesis import strategies as st

import vqtool
from vqtool.errors import DataError, MismatchError, UsageError
from vqtool.nn import codec as codec_module
from vqtool.nn.checkpoint import tokenizer_file
from vqtool.nn.codec import Codec
from vqtool.nn.files import decode_file, encode_file
from vqtool.nn.model import build_model
from vqtool.store import MotionSet
from vqtool.tokens import TokenSet

Trained = Callable[[str], Path]
DISCRETE = ("vq", "rvq", "fsq", "product")


def untrained(model: str = "rvq", **changes: object) -> Codec:
    """A codec with random weights and codebooks fitted to what it makes of waves."""
    config = small_config(model, **changes)
    net = build_model(config, 5)
    motion = torch.from_numpy(np.stack([waves(256, seed=seed) for seed in range(8)]))
    with torch.no_grad():
        net.bottleneck.initialize(net.latents(motion).flatten(0, 1), 1)
    return Codec(net, tokenizer_file(net, config, fps=30, layout="raw", usage={}), device="cpu")


def encode_to(codec: Codec, motion: Path, out: Path, **options: object) -> np.ndarray:
    """The codes of a whole file."""
    with MotionSet([motion]) as clips:
        encode_file(codec, clips, out, force=True, **options)  # type: ignore[arg-type]
    with TokenSet(out) as tokens:
        return tokens.rows("codes", 0, tokens.num_tokens)


def test_a_parts_codes_depend_on_its_own_columns_alone(trained: Trained) -> None:
    codec = vqtool.load(trained("product"), device="cpu")
    motion = waves(200)
    codes = codec.encode(motion)
    assert codec.info.parts == ("arm", "hand")
    for part, columns in enumerate((slice(0, 3), slice(3, 5))):
        moved = motion.copy()
        moved[:, columns] = waves(200, seed=9)[:, columns]
        assert np.array_equal(codec.encode(moved)[:, 1 - part :: 2], codes[:, 1 - part :: 2])
        assert (codec.encode(moved)[:, part::2] != codes[:, part::2]).any()


@pytest.mark.parametrize("downsampling", ["fold", "strided"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("downsample", [1, 2, 4, 8])
def test_a_clip_encoded_in_chunks_gives_the_tokens_of_the_whole_clip(
    downsampling: str, causal: bool, downsample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = untrained(model__downsampling=downsampling, model__causal=causal, model__downsample=downsample)
    motion = waves(403)
    whole = codec.encode(motion)
    monkeypatch.setattr(codec_module, "CHUNK_TOKENS", 7)
    assert np.array_equal(codec.encode(motion), whole)


@pytest.mark.parametrize("budget", [1, 300, 100_000])
def test_tokens_do_not_depend_on_what_shares_a_batch(
    budget: int, tmp_path: Path, motion_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = untrained()
    monkeypatch.setattr(codec_module, "BATCH_FRAMES", budget)
    together = encode_to(codec, motion_path, tmp_path / "t.h5")
    with MotionSet([motion_path]) as clips:
        alone = np.concatenate([codec.encode(clips.read(clip)) for clip in range(len(clips))])
    assert np.array_equal(together, alone)


@pytest.mark.parametrize("parts", [1, 3, 1000])
def test_tokens_do_not_depend_on_the_parts_they_are_written_in(
    parts: int, tmp_path: Path, motion_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = untrained()
    whole = encode_to(codec, motion_path, tmp_path / "a.h5")
    monkeypatch.setattr(codec_module, "CHUNK_TOKENS", 5)
    monkeypatch.setattr(codec_module, "PART_TOKENS", parts)
    assert np.array_equal(encode_to(codec, motion_path, tmp_path / "b.h5"), whole)


@pytest.mark.parametrize("model", DISCRETE)
def test_a_decision_in_doubt_is_taken_in_float64(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = untrained(model)
    motion = waves(300)
    truth = Codec(codec.model, codec.info, device="cpu", numerics="float64").encode(motion)
    monkeypatch.setattr(codec_module, "LATENT_ERROR", 1e9)  # everything is in doubt
    assert np.array_equal(codec.encode(motion), truth)
    assert codec.decided_again == len(truth)


def test_fast_numerics_never_decides_again() -> None:
    codec = untrained()
    fast = Codec(codec.model, codec.info, device="cpu", numerics="fast")
    fast.encode(waves(300))
    assert fast.decided_again == 0


@pytest.mark.parametrize("model", OPTIONS)
@settings(max_examples=15, deadline=None)
@given(length=st.integers(0, 70))
def test_any_length_comes_back_as_long_as_it_was(model: str, length: int) -> None:
    codec = CODECS.setdefault(model, untrained(model))
    codes = codec.encode(waves(length))
    assert len(codes) == -(-length // 4)
    assert codec.decode(codes, length).shape == (length, 5)


CODECS: dict[str, Codec] = {}


@pytest.mark.parametrize("model", OPTIONS)
def test_files_come_back_with_names_order_and_true_lengths(
    model: str, trained: Trained, motion_path: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained(model), device="cpu")
    with MotionSet([motion_path]) as clips:
        encode_file(codec, clips, tmp_path / "tokens.h5")
        with TokenSet(tmp_path / "tokens.h5") as tokens:
            decode_file(codec, tokens, tmp_path / "decoded.h5")
        with MotionSet([tmp_path / "decoded.h5"]) as decoded:
            decoded.verify()
            assert decoded.names == clips.names
            assert np.array_equal(decoded.lengths, clips.lengths)
            assert (decoded.fps, decoded.layout) == (clips.fps, clips.layout)


def decode_samples(codec: Codec, tokens: Path, out: Path, seed: int) -> bytes:
    with TokenSet(tokens) as clips:
        decode_file(codec, clips, out, sample_seed=seed, force=True)
    return out.read_bytes()


def test_samples_of_a_vae_depend_on_the_seed_alone(
    trained: Trained, motion_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = vqtool.load(trained("vae"), device="cpu")
    with MotionSet([motion_path]) as clips:
        encode_file(codec, clips, tmp_path / "latents.h5")
    first = decode_samples(codec, tmp_path / "latents.h5", tmp_path / "out.h5", seed=1)
    assert decode_samples(codec, tmp_path / "latents.h5", tmp_path / "out.h5", seed=2) != first
    with MotionSet([tmp_path / "out.h5"]) as clips:
        other = clips.read(11)
    monkeypatch.setattr(codec_module, "CHUNK_TOKENS", 30)
    decode_samples(codec, tmp_path / "latents.h5", tmp_path / "out.h5", seed=2)
    with MotionSet([tmp_path / "out.h5"]) as clips:
        assert np.allclose(clips.read(11), other, atol=1e-4)


def test_codes_cannot_be_sampled(trained: Trained, motion_path: Path, tmp_path: Path) -> None:
    codec = vqtool.load(trained("vq"), device="cpu")
    encode_to(codec, motion_path, tmp_path / "t.h5")
    with TokenSet(tmp_path / "t.h5") as tokens, pytest.raises(UsageError, match="latents of a VAE"):
        decode_file(codec, tokens, tmp_path / "out.h5", sample_seed=0)


def test_decoding_a_file_in_chunks_gives_the_motion_of_the_whole_clip(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    codes = codec.encode(waves(500))
    whole = codec.decode(codes)
    monkeypatch.setattr(codec_module, "CHUNK_TOKENS", 9)
    assert np.allclose(codec.decode(codes), whole, atol=1e-4)


def test_the_array_api_gives_what_the_files_hold(trained: Trained, motion_path: Path, tmp_path: Path) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    encode_to(codec, motion_path, tmp_path / "t.h5")
    with MotionSet([motion_path]) as clips, TokenSet(tmp_path / "t.h5") as tokens:
        assert np.array_equal(codec.encode(clips.read(9)), tokens[9].codes)


def test_arrays_give_arrays_and_tensors_give_tensors(trained: Trained) -> None:
    codec = vqtool.load(trained("vq"), device="cpu")
    motion = waves(20)
    codes = codec.encode(torch.from_numpy(motion))
    assert isinstance(codes, torch.Tensor)
    assert isinstance(codec.decode(codes), torch.Tensor)
    assert np.array_equal(codec.encode(motion), codes.numpy())


def test_a_batch_of_clips_gives_the_tokens_of_each(trained: Trained) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    motion = np.stack([waves(50, seed=seed) for seed in range(3)])
    codes = codec.encode(motion)
    assert codes.shape == (3, 13, 3)
    assert all(np.array_equal(codes[i], codec.encode(motion[i])) for i in range(3))


def test_a_constant_column_comes_back_exactly(trained: Trained) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    assert (codec.decode(codec.encode(waves(100)))[:, -1] == np.float32(7.25)).all()


@pytest.mark.parametrize("kind", [np.float64, np.dtype(">f4"), np.float16])
def test_other_number_types_give_the_tokens_of_their_float32_values(kind: np.dtype, trained: Trained) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    motion = waves(90).astype(np.float16)
    assert np.array_equal(codec.encode(motion.astype(kind)), codec.encode(motion.astype(np.float32)))


def test_fewer_layers_are_the_first_columns_of_all(trained: Trained, motion_path: Path, tmp_path: Path) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    every = encode_to(codec, motion_path, tmp_path / "a.h5")
    assert np.array_equal(encode_to(codec, motion_path, tmp_path / "b.h5", num_quantizers=2), every[:, :2])


def test_decoding_the_first_layers_of_a_file_equals_decoding_a_file_of_those_layers(
    trained: Trained, motion_path: Path, tmp_path: Path
) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    encode_to(codec, motion_path, tmp_path / "all.h5")
    encode_to(codec, motion_path, tmp_path / "two.h5", num_quantizers=2)
    for name, layers in (("all", 2), ("two", None)):
        with TokenSet(tmp_path / f"{name}.h5") as tokens:
            decode_file(codec, tokens, tmp_path / f"{name}.motion.h5", num_quantizers=layers)
    with MotionSet([tmp_path / "all.motion.h5"]) as a, MotionSet([tmp_path / "two.motion.h5"]) as b:
        assert all(np.array_equal(a.read(i), b.read(i)) for i in range(len(a)))


def test_tokens_of_another_tokenizer_are_refused(trained: Trained, motion_path: Path, tmp_path: Path) -> None:
    encode_to(vqtool.load(trained("vq"), device="cpu"), motion_path, tmp_path / "t.h5")
    other = vqtool.load(trained("rvq"), device="cpu")
    with TokenSet(tmp_path / "t.h5") as tokens, pytest.raises(MismatchError, match="was made by tokenizer"):
        decode_file(other, tokens, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_motion_with_other_columns_is_refused(trained: Trained, tmp_path: Path) -> None:
    write_motion(tmp_path / "wide.h5", [30], dim=6)
    codec = vqtool.load(trained("rvq"), device="cpu")
    with MotionSet([tmp_path / "wide.h5"]) as clips, pytest.raises(MismatchError, match=r"6 columns, .* trained on 5"):
        encode_file(codec, clips, tmp_path / "t.h5")


def test_motion_at_another_frame_rate_is_refused(trained: Trained, tmp_path: Path) -> None:
    write_motion(tmp_path / "slow.h5", [30], fps=20)
    codec = vqtool.load(trained("rvq"), device="cpu")
    with MotionSet([tmp_path / "slow.h5"]) as clips, pytest.raises(MismatchError, match="20 fps"):
        encode_file(codec, clips, tmp_path / "t.h5")


def test_nan_in_an_array_is_refused(trained: Trained) -> None:
    motion = waves(30)
    motion[4, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        vqtool.load(trained("rvq"), device="cpu").encode(motion)


def test_codes_outside_the_codebook_are_refused(trained: Trained) -> None:
    with pytest.raises(DataError, match=r"code 16 at token 1 of layer 0"):
        vqtool.load(trained("vq"), device="cpu").decode(np.array([[0], [16]]))


def test_negative_codes_are_refused(trained: Trained) -> None:
    with pytest.raises(DataError, match="code -1"):
        vqtool.load(trained("vq"), device="cpu").decode(np.array([[-1]]))


def test_bfloat16_changes_few_codes_and_says_how_many(trained: Trained, motion_path: Path, tmp_path: Path) -> None:
    codec = vqtool.load(trained("vq"), device="cpu", numerics="bfloat16")
    with MotionSet([motion_path]) as motion:
        done = encode_file(codec, motion, tmp_path / "half.h5")
        plain = encode_file(vqtool.load(trained("vq"), device="cpu", numerics="fast"), motion, tmp_path / "plain.h5")
    with TokenSet(tmp_path / "half.h5") as half, TokenSet(tmp_path / "plain.h5") as other:
        found = (half.rows("codes", 0, half.num_tokens) != other.rows("codes", 0, other.num_tokens)).mean()
        assert half.header.numerics == "bfloat16"
    assert plain.changed is None
    assert done.changed == pytest.approx(found)
    assert done.changed < 0.2


def test_unknown_numerics_are_refused(trained: Trained) -> None:
    with pytest.raises(UsageError, match="stable, fast, bfloat16, float64"):
        vqtool.load(trained("vq"), device="cpu", numerics="exact")


def test_encoding_twice_gives_the_same_bytes(trained: Trained, motion_path: Path, tmp_path: Path) -> None:
    codec = vqtool.load(trained("rvq"), device="cpu")
    encode_to(codec, motion_path, tmp_path / "a.h5")
    encode_to(codec, motion_path, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
