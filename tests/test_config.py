"""Config: where a setting comes from, what is refused, and that a written config reads back the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtool.config import (
    Config,
    build_config,
    differences,
    flatten,
    of_run,
    parse_value,
    read_assignments,
    read_environment,
    read_toml,
    to_toml,
)
from vqtool.errors import MissingInputError, StorageError, UsageError


def toml(folder: Path, text: str) -> Path:
    path = folder / "c.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_settings_give_the_defaults() -> None:
    assert build_config() == Config() == build_config({}, {})


def test_a_later_layer_wins() -> None:
    assert build_config({"train.lr": 1.0}, {"train.lr": 2.0}, {"train.steps": 7}).train.lr == 2.0


def test_a_later_layer_leaves_other_settings_of_its_section_alone() -> None:
    config = build_config({"train.lr": 1.0, "train.steps": 9}, {"train.lr": 2.0})
    assert (config.train.lr, config.train.steps) == (2.0, 9)


def test_set_beats_environment_beats_file(tmp_path: Path) -> None:
    path = toml(tmp_path, "[train]\nsteps = 1\nbatch_size = 1\nwindow = 4\n")
    environment = read_environment({"VQTOOL_TRAIN_STEPS": "2", "VQTOOL_TRAIN_BATCH_SIZE": "2"})
    train = build_config(read_toml(path), environment, read_assignments(["train.steps=3"])).train
    assert (train.steps, train.batch_size, train.window) == (3, 2, 4)


def test_two_configs_share_nothing() -> None:
    one = build_config({"bottleneck.x": 1, "loss.columns.root": 2.0})
    assert build_config().bottleneck == {} and build_config().loss.columns == {} and one.bottleneck == {"x": 1}


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.stesp", "train.steps"),
        ("train.learning_rate", "train"),
        ("model.widht", "model.width"),
        ("modle.width", "model.width"),
        ("loss.velcity", "loss.velocity"),
        ("data.framerate", "data"),
        ("width", "model.width"),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(key: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=rf"no setting '{key}'.*{nearest}"):
        build_config({key: 1})


def test_an_unknown_section_of_a_file_names_the_file_and_the_nearest_section(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"c\.toml: no section 'trian'; did you mean 'train'"):
        read_toml(toml(tmp_path, "[trian]\nlr = 1\n"))


def test_a_key_outside_any_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'train' is a section; write train\.KEY"):
        read_toml(toml(tmp_path, "train = 3\n"))


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("train.steps", "many", "takes a whole number, not 'many'"),
        ("train.steps", 5.0, r"takes a whole number, not 5\.0"),
        ("train.steps", True, "takes a whole number, not True"),
        ("train.lr", "fast", "takes a number, not 'fast'"),
        ("train.lr", True, "takes a number, not True"),
        ("train.lr", [1.0], "takes a number"),
        ("model.causal", 1, "takes true or false, not 1"),
        ("model.causal", "True", "takes true or false, not 'True'"),
        ("model.bottleneck", 3, "takes text, not 3"),
        ("data.dataset", 3, "takes text, not 3"),
        ("data.fps", "30", "takes a number, not '30'"),
        ("train.betas", 0.9, "takes a list of numbers"),
        ("train.betas", [0.9, "x"], r"takes a list of numbers, as \[0\.5, 0\.9\], not \[0\.9, 'x'\]"),
        ("loss.columns", 2.0, "takes a table of numbers"),
        ("loss.columns.root", "two", "takes finite numbers, not 'two'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(key: str, value: Any, what: str) -> None:
    with pytest.raises(UsageError, match=rf"^{key} {what}"):
        build_config({key: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400])
@pytest.mark.parametrize("key", ["train.weight_decay", "loss.velocity", "loss.columns.root", "data.fps"])
def test_a_number_that_is_not_finite_is_refused(key: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{key} takes finite numbers"):
        build_config({key: value})


def test_a_whole_number_does_for_a_float() -> None:
    lr = build_config({"train.lr": 1}).train.lr
    assert lr == 1.0 and isinstance(lr, float)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", 0),
        ("train.batch_size", -1),
        ("train.window", 0),
        ("train.eval_every", 0),
        ("train.checkpoint_every", 0),
        ("train.keep_checkpoints", 0),
        ("train.lr", -1.0),
        ("train.lr_warmup", -1),
        ("train.clip_norm", -0.5),
        ("train.weight_decay", -0.1),
        ("train.seed", -1),
        ("train.seed", 2**63),
        ("train.ema_decay", 1.0),
        ("train.continuous", 1.5),
        ("train.betas", [0.9]),
        ("train.betas", [0.9, 1.0]),
        ("train.schedule", "linear"),
        ("loss.reconstruction", "l3"),
        ("loss.kl", -1.0),
        ("loss.kl_warmup", -0.1),
        ("data.val_fraction", 1.0),
        ("model.width", 0),
        ("model.latent_dim", 0),
        ("model.depth", -1),
        ("model.downsample", 0),
        ("model.downsample", -4),
        ("model.dilation_growth", 0),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{key} "):
        build_config({key: value})


def test_a_window_that_the_tokens_do_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match=r"train\.window 30 is not a multiple of model\.downsample 4"):
        build_config({"train.window": 30})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("1e-3", 1e-3),
        (" 2.5 ", 2.5),
        ("true", True),
        ("false", False),
        ("[1, 2]", [1, 2]),
        ("[0.9, 0.95]", [0.9, 0.95]),
        ('"3"', "3"),
        ("'a b'", "a b"),
        ("rvq", "rvq"),
        ("data/*/actions", "data/*/actions"),
        ("True", "True"),
        ("", ""),
        ("a=b", "a=b"),
        ("1\nother = 2", "1\nother = 2"),
        ("9" * 5000, "9" * 5000),
        ("[" * 5000, "[" * 5000),
    ],
)
def test_a_text_is_a_toml_value_or_itself(text: str, value: Any) -> None:
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def test_set_takes_keys_and_values_with_blanks_and_equals_signs() -> None:
    found = read_assignments(["train.lr = 1e-3", "data.dataset=a=b", "loss.columns.0:3=2"])
    assert found == {"train.lr": 1e-3, "data.dataset": "a=b", "loss.columns.0:3": 2}


@pytest.mark.parametrize("text", ["train.lr", "lr=1", "=1", ""])
def test_set_without_section_key_and_value_says_how_to_write_it(text: str) -> None:
    with pytest.raises(UsageError, match=r"--set takes section\.key=value, for example train\.lr=1e-3"):
        read_assignments([text])


def test_the_last_of_two_sets_wins() -> None:
    assert read_assignments(["train.lr=1", "train.lr=2"]) == {"train.lr": 2}


def test_environment_variables_are_settings_where_they_name_a_section() -> None:
    variables = {
        "VQTOOL_TRAIN_BATCH_SIZE": "8",
        "VQTOOL_DATA_DATASET": "data/*",
        "VQTOOL_BOTTLENECK_CODEBOOK_SIZE": "64",
        "VQTOOL_DEVICE": "cpu",
        "VQTOOL_DEBUG": "1",
        "TRAIN_LR": "3",
        "PATH": "x",
    }
    assert read_environment(variables) == {
        "train.batch_size": 8,
        "data.dataset": "data/*",
        "bottleneck.codebook_size": 64,
    }


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VQTOOL_MODEL_CAUSAL", "true")
    assert build_config(read_environment()).model.causal is True


def test_an_unknown_variable_of_a_section_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no setting 'train\.stepz'; did you mean 'train\.steps'"):
        build_config(read_environment({"VQTOOL_TRAIN_STEPZ": "3"}))


@pytest.mark.parametrize("text", ["[train", "[train]\nlr = ", "\x00", f"[train]\nlr = {'9' * 5000}"])
def test_a_file_that_is_not_toml_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match=r"c\.toml: is not TOML"):
        read_toml(toml(tmp_path, text))


def test_a_file_that_is_not_utf8_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"[train]\n# \xff\n")
    with pytest.raises(UsageError, match=r"c\.toml: is not TOML"):
        read_toml(tmp_path / "c.toml")


def test_a_config_file_that_is_missing_is_a_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"none\.toml: no such config file"):
        read_toml(tmp_path / "none.toml")


def test_a_folder_as_config_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be read"):
        read_toml(tmp_path)


finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    dataset=st.none() | texts,
    fps=st.none() | finite,
    lr=st.floats(0, 1e300),
    velocity=finite,
    causal=st.booleans(),
    betas=st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
    columns=st.dictionaries(texts, finite, max_size=3),
    parts=st.dictionaries(st.from_regex("[a-z][a-z_0-9]{0,9}", fullmatch=True), texts, max_size=3),
    options=st.dictionaries(
        st.from_regex("[a-z][a-z_0-9]{0,9}", fullmatch=True),
        st.integers(-(2**63), 2**63 - 1) | finite | st.booleans() | texts | st.lists(st.integers(1, 9), max_size=3),
        max_size=3,
    ),
)
def test_a_written_config_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory,
    dataset: str | None,
    fps: float | None,
    lr: float,
    velocity: float,
    causal: bool,
    betas: list[float],
    columns: dict[str, float],
    parts: dict[str, str],
    options: dict[str, Any],
) -> None:
    config = build_config(
        {"data.dataset": dataset, "data.fps": fps, "train.lr": lr, "loss.velocity": velocity},
        {"model.causal": causal, "train.betas": betas, "loss.columns": columns},
        {"model.bottleneck": "product", "model.parts": parts},
        {f"bottleneck.{key}": value for key, value in options.items()},
    )
    path = toml(tmp_path_factory.getbasetemp(), to_toml(config))
    assert build_config(read_toml(path)) == config


def test_settings_that_are_none_are_left_out_of_the_file() -> None:
    assert "dataset" not in to_toml(Config())


def test_a_config_as_a_dict_flattens_back_to_itself() -> None:
    config = build_config({"bottleneck.codebook_size": 8, "loss.columns.root": 2.0})
    assert build_config(flatten(config.to_dict(), "here")) == config


def test_equal_configs_do_not_differ() -> None:
    assert differences(Config(), build_config()) == []


def test_differences_name_each_setting_with_both_values() -> None:
    new = build_config({"train.lr": 0.5, "bottleneck.codebook_size": 64, "data.dataset": "a"})
    assert differences(Config(), new) == [
        "bottleneck.codebook_size: None -> 64",
        "data.dataset: None -> 'a'",
        "train.lr: 0.002 -> 0.5",
    ]


def test_a_run_that_goes_on_brings_no_options_of_another_bottleneck_than_the_one_asked_for() -> None:
    run = {"model.bottleneck": "rvq", "bottleneck.num_quantizers": 3, "train.lr": 0.1}
    assert of_run(run, [{"train.lr": 0.2}]) == run
    assert of_run(run, [{"model.bottleneck": "vq"}, {"model.bottleneck": "rvq"}]) == run
    assert of_run(run, [{"model.bottleneck": "vq"}]) == {"model.bottleneck": "rvq", "train.lr": 0.1}


def test_ignored_settings_do_not_differ() -> None:
    assert differences(Config(), build_config({"train.steps": 9}), ignore=["train.steps"]) == []
