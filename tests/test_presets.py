"""The published recipes: their networks have the sizes and what a token sees that their papers give."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Run, Silent, write_motion

from vqtool.config import build_config
from vqtool.errors import UsageError
from vqtool.nn.model import MotionTokenizer, build_model
from vqtool.nn.trainer import train
from vqtool.presets import PRESETS, preset
from vqtool.store import MotionSet
from vqtool.tokenizer_file import read_tokenizer


def model_of(name: str) -> MotionTokenizer:
    return build_model(build_config(preset(name)), 263)


def test_t2m_gpt_has_the_network_of_the_paper() -> None:
    model = model_of("t2m-gpt")
    assert sum(parameter.numel() for parameter in model.parameters()) == 19_436_807
    assert model.bottleneck.codebook_sizes == (512,)
    first, last = model.encoder.reach(0, 0)
    assert last - first + 1 == 176  # frames that a token sees
    dilations = [layer.wide.conv.dilation[0] for layer in model.encoder.layers if hasattr(layer, "wide")]
    assert dilations == [9, 3, 1, 9, 3, 1]


def test_momask_has_six_layers_and_two_kinds_of_dropout() -> None:
    model = model_of("momask")
    assert model.bottleneck.codebook_sizes == (512,) * 6
    assert model.bottleneck.quantizer_dropout == 0.2
    assert {layer.drop.share for layer in model.encoder.layers if hasattr(layer, "drop")} == {0.2}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_trains_and_its_settings_are_those_of_the_run(name: str, tmp_path: Path) -> None:
    small = {"model.width": 8, "model.latent_dim": 8, "train.batch_size": 4, "train.window": 32, "train.steps": 3}
    if "bottleneck.codebook_size" in PRESETS[name]:
        small["bottleneck.codebook_size"] = 16
    config = build_config(preset(name), small)
    with MotionSet([write_motion(tmp_path / "motion.h5", [60, 80])]) as clips:
        train(config, clips, tmp_path / "run", Silent(), device="cpu")
    made = read_tokenizer(tmp_path / "run").config
    told = {key: value for key, value in PRESETS[name].items() if key not in small}
    assert {key: made[key.partition(".")[0]][key.partition(".")[2]] for key in told} == told


def test_settings_beat_a_preset_and_an_unknown_one_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    motion = write_motion(tmp_path / "motion.h5", [60, 80])
    command = ["train", str(motion), "-o", str(tmp_path / "run"), "--dry-run", "--json"]
    small = ["--set", "model.width=8", "--set", "model.latent_dim=8", "--steps", "7"]
    code, out, err = run(*command, "--preset", "t2m-gpt", *small)
    assert (code, '"steps": 7' in out) == (0, True), err
    code, out, err = run(*command, "--preset", "t2m")
    assert (code, out) == (2, "")
    assert "no preset 't2m'; there are t2m-gpt, momask, mld-vae" in err


def test_an_unknown_preset_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no preset 'x'; there are t2m-gpt, momask, mld-vae"):
        preset("x")
