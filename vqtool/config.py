"""The config of a run: five sections of plain values, from TOML, environment and options, checked and written back."""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from vqtool.errors import DataError, MissingInputError, StorageError, UsageError, counted
from vqtool.reading import read_bytes


@dataclass
class DataConfig:
    """What of the files is motion, and what is held out."""

    dataset: str | None = None  # of any HDF5 file: the pattern of dataset paths that are clips
    fps: float | None = None  # where the files do not say
    val_fraction: float = 0.05  # share of clips held out (by a hash of their names) where the file names no splits
    seed: int = 0


@dataclass
class ModelConfig:
    """Encoder and decoder."""

    bottleneck: str = "rvq"  # vae | vq | rvq | fsq | product
    width: int = 256
    depth: int = 3  # residual blocks (per halving when strided)
    downsample: int = 4  # motion frames per token frame: 1, 2, 4 or 8
    downsampling: str = "fold"  # fold | strided
    latent_dim: int = 128  # C
    dilation_growth: int = 3  # dilations 9, 3, 1 at depth 3
    activation: str = "relu"  # relu | gelu | silu
    dropout: float = 0.0  # share of a residual block's output that training leaves out
    causal: bool = False  # token l sees no frame after its own
    parts: dict[str, str] = field(default_factory=dict)  # body parts of a product: name -> joints, groups, ranges


@dataclass
class LossConfig:
    """What training minimises; weights of the terms."""

    reconstruction: str = "smooth_l1"  # l1 | l2 | smooth_l1, on normalised motion
    velocity: float = 0.5  # the same on frame differences
    positions: float = 0.0  # the same on the columns that are positions of joints
    joints: float = 0.0  # distance of the joints along their paths, where columns are joint features
    commitment: float = 0.05
    codebook: float = 1.0  # only with codebook_update = "gradient"
    kl: float = 1e-3  # only for a VAE
    kl_warmup: float = 0.2  # share of the steps over which kl rises from 0
    columns: dict[str, float] = field(default_factory=dict)  # weights: a group of the layout or a range "0:3" = 2.0


@dataclass
class TrainConfig:
    """How to optimise, and how often to look."""

    steps: int = 5000
    start: str = "components"  # components | random: the first weights of networks that fold frames
    batch_size: int = 64  # windows a step
    accumulate: int = 1  # parts of them that go through the network one after the other
    window: int = 64  # frames of a window
    lr: float = 2e-3
    lr_warmup: int = 50  # steps
    schedule: str = "cosine"  # cosine | constant
    lr_drops: list[float] = field(default_factory=list)  # shares of the steps, after each of which lr is multiplied
    lr_drop: float = 0.1  # by this
    betas: list[float] = field(default_factory=lambda: [0.9, 0.99])
    weight_decay: float = 0.0
    clip_norm: float = 1.0  # largest gradient norm; 0 for none
    precision: str = "float32"  # float32 | bfloat16 | auto (bfloat16 where the hardware has it): of the networks
    ema_decay: float = 0.999  # of the weights that are saved; 0 saves the raw ones
    continuous: float = 0.1  # share of the steps before the bottleneck starts to quantize
    eval_every: int = 500
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    seed: int = 0


@dataclass
class Config:
    """All sections. `bottleneck` holds the keyword arguments of the bottleneck's constructor."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    bottleneck: dict[str, Any] = field(default_factory=dict)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def to_dict(self) -> dict[str, Any]:
        """Plain sections of plain values."""
        return asdict(self)


PRECISIONS = ("float32", "bfloat16", "auto")
SECTIONS = tuple(section.name for section in fields(Config))
EARLIER = {"train.start": "random"}  # settings that came later, and that their default would change
PREFIX = "VQTOOL_"
MAX_CONFIG_BYTES = 1 << 16
MAX_CONFIG_DOTS = 1 << 12  # tomllib takes time with the square of those in one key
OTHER_VARIABLES = {"VQTOOL_DEVICE", "VQTOOL_THREADS", "VQTOOL_DEBUG", "VQTOOL_TEST_DATA"}
OTHER_NAMES = {  # what T2M-GPT, MoMask and other programs call a setting
    "model.bottleneck": "model quantizer",
    "model.width": "hidden hidden_dim hidden_size channels",
    "model.depth": "layers num_layers n_layers",
    "model.downsample": "down_t stride_t",
    "model.latent_dim": "code_dim embedding_dim output_emb_width",
    "model.activation": "vq_act",
    "bottleneck.codebook_size": "codebook_size num_codes n_codes nb_code num_embeddings",
    "bottleneck.num_quantizers": "num_quantizers",
    "bottleneck.ema_decay": "mu",
    "bottleneck.quantizer_dropout": "quantize_dropout_prob",
    "bottleneck.shared_codebook": "shared_codebook",
    "loss.reconstruction": "recons_loss",
    "loss.positions": "loss_vel",
    "loss.commitment": "commit beta",
    "loss.kl": "kl_weight lambda_kl",
    "train.steps": "epochs max_epoch total_iter iterations",
    "train.batch_size": "batch bs",
    "train.window": "window_size",
    "train.lr": "learning_rate",
    "train.lr_warmup": "warmup warmup_steps warm_up_iter",
    "train.lr_drops": "milestones lr_scheduler",
    "train.lr_drop": "gamma",
    "train.clip_norm": "grad_clip max_grad_norm",
    "train.eval_every": "eval_iter",
}
MEANT = {name: setting for setting, names in OTHER_NAMES.items() for name in names.split()}
WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list[float]: "a list of numbers, as [0.5, 0.9]",
    Sequence[int]: "a list of whole numbers, as [512, 256]",
    dict[str, float]: 'a table of numbers, as {"0:3" = 2.0}',
    dict[str, str]: 'a table of texts, as {arm = "0:6"}',
}


def flatten(sections: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """{"train": {"lr": 1}} as {"train.lr": 1}; UsageError for what is no section."""
    flat: dict[str, Any] = {}
    for section, values in sections.items():
        if section not in SECTIONS:
            close = _nearest(section, _known() if not isinstance(values, Mapping) else SECTIONS)
            raise UsageError(f"no section {_quoted(section)}{close}", file=origin)
        if not isinstance(values, Mapping):
            raise UsageError(f"{section!r} is a section; write {section}.KEY", file=origin)
        flat.update({f"{section}.{key}": value for key, value in values.items()})
    return flat


def read_toml(path: Path) -> dict[str, Any]:
    """The flat settings of a TOML file."""
    if not path.exists():
        raise MissingInputError("no such config file", file=path)
    try:
        data = read_bytes(path, MAX_CONFIG_BYTES)
    except DataError as error:
        if path.is_dir():
            raise StorageError("cannot be read; it is a folder", file=path) from None
        raise UsageError(error.what, file=path) from None
    if data.count(b".") > MAX_CONFIG_DOTS:
        raise UsageError(f"is not TOML of settings: it has more than {MAX_CONFIG_DOTS:,} dots", file=path)
    try:
        found = flatten(tomllib.loads(data.decode("utf-8")), str(path))
    except UnicodeDecodeError as error:
        raise UsageError(f"is not TOML: byte {error.start} is no UTF-8; save it as UTF-8", file=path) from error
    except RecursionError as error:
        raise UsageError("is not TOML: it is nested too deep", file=path) from error
    except ValueError as error:
        raise UsageError(f"is not TOML: {error}", file=path) from error
    _check_alone(found, str(path))
    return found


def read_run(path: Path) -> dict[str, Any]:
    """The flat settings in the config.toml of a run; what an earlier vqtool could not write means what it did then."""
    return EARLIER | read_toml(path)


def of_run(run: Mapping[str, Any], given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run that goes on has of its settings beside given ones: no options of another bottleneck than theirs."""
    kinds = [layer["model.bottleneck"] for layer in given if "model.bottleneck" in layer]
    same = not kinds or kinds[-1] == run.get("model.bottleneck")
    return {key: value for key, value in run.items() if same or not key.startswith("bottleneck.")}


def read_environment(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Settings from variables such as VQTOOL_TRAIN_LR=1e-3; UsageError for a VQTOOL_* variable that means nothing."""
    found = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name in OTHER_VARIABLES:
            continue
        section, _, key = name.removeprefix(PREFIX).lower().partition("_")
        if section not in SECTIONS or not key:
            names = [f"{PREFIX}{known.replace('.', '_').upper()}" for known in _known()]
            raise UsageError(f"the environment variable {name} means nothing{_nearest(name, names)}")
        found[f"{section}.{key}"] = parse_value(text)
        _check_alone({f"{section}.{key}": found[f"{section}.{key}"]}, name)
    return found


def read_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Settings from KEY=VALUE texts, as --set takes them."""
    found = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or "." not in key:
            what = f"--set takes section.key=value, for example train.lr=1e-3, not {text!r}"
            raise UsageError(what + ("" if "." in key else suggestion(key)))
        found[key.strip()] = parse_value(value)
    return found


def parse_value(text: str) -> Any:
    """A TOML value, or the text itself where it is none: 3, 1e-3, true, [1, 2], rvq."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text.strip()
    return found["value"] if len(found) == 1 else text.strip()


def build_config(*layers: Mapping[str, Any]) -> Config:
    """A config from flat settings, later layers win; UsageError for an unknown key or a wrong type."""
    config = Config()
    for layer in layers:
        for key, value in layer.items():
            _set(config, key, value)
    _check(config)
    return config


def _set(config: Config, key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    if section not in SECTIONS:
        raise UsageError(f"no setting {_quoted(key)}{_nearest(key, _known())}")
    if section == "bottleneck":
        config.bottleneck[name] = value
    elif key.startswith("loss.columns."):
        config.loss.columns[name.removeprefix("columns.")] = _number(key, value)
    elif key.startswith("model.parts."):
        config.model.parts[name.removeprefix("parts.")] = _columns(key, value)
    else:
        _assign(getattr(config, section), name, key, value)


def _check_alone(settings: Mapping[str, Any], origin: str) -> None:
    """UsageError that says where a setting comes from which is wrong whatever the others are."""
    config = Config()
    for key, value in settings.items():
        try:
            _set(config, key, value)
        except UsageError as error:
            raise UsageError(error.what, file=origin) from None


def _known() -> list[str]:
    config = Config()
    return [f"{s}.{f.name}" for s in SECTIONS if s != "bottleneck" for f in fields(getattr(config, s))]


def suggestion(key: str, known: Sequence[str] = ()) -> str:
    """The end of a message that there is no such key: the setting, or the name of `known`, that was meant; else ""."""
    close = settings_called(key) or difflib.get_close_matches(key.rpartition(".")[2][:100], known, 1)
    return _did_you_mean(close)


def settings_called(key: str) -> list[str]:
    """The settings of a name, whatever section stands before it, or the one that others call so; [] for none."""
    return _meant(key, _known())


def _nearest(key: str, known: Sequence[str]) -> str:
    close = _meant(key, known) or difflib.get_close_matches(key[:100], known, 1, 0.5)
    return _did_you_mean(close) or f"; there are {', '.join(known)}"


def _did_you_mean(close: Sequence[str]) -> str:
    return f"; did you mean {' or '.join(map(repr, close))}?" if close else ""


def _meant(key: str, known: Sequence[str]) -> list[str]:
    """Settings of that name in other sections, else the one that others call so."""
    name = key.rpartition(".")[2]
    same = [other for other in known if other.rpartition(".")[2] == name]
    return same or ([MEANT[name]] if MEANT.get(name, key) != key else [])


def _assign(section: Any, name: str, key: str, value: Any) -> None:
    hints = get_type_hints(type(section))
    if name not in hints:
        raise UsageError(f"no setting {_quoted(key)}{_nearest(key, _known())}")
    wanted = hints[name]
    check_kind(key, value, wanted)
    if float in (wanted, *get_args(wanted)) and isinstance(value, int | float):
        value = _number(key, value)
    if wanted == list[float]:
        value = [_number(key, item) for item in value]
    if wanted == dict[str, float]:
        value = {column: _number(key, item) for column, item in value.items()}
    if wanted == dict[str, str]:
        value = {part: _columns(key, item) for part, item in value.items()}
    setattr(section, name, value)


def check_kind(key: str, value: Any, kind: Any) -> None:
    """UsageError where a value is of none of the types that an annotation names."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    if not any(_is(value, one) for one in kinds):
        words = " or ".join(WORDS[one] for one in kinds if one in WORDS)
        raise UsageError(f"{key} takes {words}, not {reprlib.repr(value)}")


def _is(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; a whole number is a number too."""
    container = get_origin(kind)
    if container in (list, Sequence):
        return isinstance(value, list | tuple) and all(_is(item, get_args(kind)[0]) for item in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else container or kind)


def _quoted(key: str) -> str:
    return repr(key if len(key) <= 80 else f"{key[:80]}...")


def _number(key: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{key} takes finite numbers, not {reprlib.repr(value)}")
    return number


def _columns(key: str, value: Any) -> str:
    """Columns or joints as text; a column alone may be written as a number."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UsageError(f"{key} takes joints or columns as text, not {reprlib.repr(value)}")
    return str(value)


def _check(config: Config) -> None:
    """UsageError for values that cannot work, whatever the data."""
    train, model, loss = config.train, config.model, config.loss
    at_least_one: dict[str, float] = {
        "train.steps": train.steps,
        "train.batch_size": train.batch_size,
        "train.accumulate": train.accumulate,
        "train.window": train.window,
        "train.eval_every": train.eval_every,
        "train.checkpoint_every": train.checkpoint_every,
        "train.keep_checkpoints": train.keep_checkpoints,
        "model.downsample": model.downsample,
        "model.width": model.width,
        "model.latent_dim": model.latent_dim,
        "model.dilation_growth": model.dilation_growth,
    }
    for key, value in at_least_one.items():
        if value < 1:
            raise UsageError(f"{key} is at least 1, not {value}")
    at_most: dict[str, tuple[float, float]] = {  # far beyond what is of use: a slip, which would take all memory
        "train.steps": (train.steps, 10**9),
        "train.keep_checkpoints": (train.keep_checkpoints, 10**6),
        "model.width": (model.width, 1 << 13),
        "model.latent_dim": (model.latent_dim, 1 << 13),
        "model.depth": (model.depth, 64),
        f"with train.batch_size {train.batch_size}, train.accumulate": (train.accumulate, train.batch_size),
        "train.batch_size times train.window": (train.batch_size * train.window, 1 << 24),
        "the longest dilation, model.dilation_growth to the power of model.depth - 1,": (
            min(model.dilation_growth, 1 << 21) ** max(0, min(model.depth, 64) - 1),
            1 << 20,
        ),
    }
    for key, (value, most) in at_most.items():
        if value > most:
            raise UsageError(
                f"{key} is at most {most:,}, not {value:,}" if value < 10**30 else f"{key} is at most {most:,}"
            )
    at_least_zero: dict[str, float] = {
        "train.lr": train.lr,
        "train.lr_warmup": train.lr_warmup,
        "train.weight_decay": train.weight_decay,
        "train.clip_norm": train.clip_norm,
        "train.lr_drop": train.lr_drop,
        "train.seed": train.seed,
        "model.depth": model.depth,
        "loss.positions": loss.positions,
        "loss.joints": loss.joints,
        "loss.commitment": loss.commitment,
        "loss.codebook": loss.codebook,
        "loss.kl": loss.kl,
    }
    for key, value in at_least_zero.items():
        if value < 0:
            raise UsageError(f"{key} is at least 0, not {value}")
    if train.seed >= 2**63:
        raise UsageError(f"train.seed is below 2**63, not {train.seed}")
    shares = {
        "model.dropout": model.dropout,
        "train.ema_decay": train.ema_decay,
        "train.continuous": train.continuous,
        "loss.kl_warmup": loss.kl_warmup,
        "data.val_fraction": config.data.val_fraction,
    }
    for key, value in shares.items():
        if not 0 <= value < 1:
            raise UsageError(f"{key} is in [0, 1), not {value}")
    if len(train.betas) != 2 or not all(0 <= beta < 1 for beta in train.betas):
        raise UsageError(f"train.betas takes two numbers in [0, 1), not {train.betas}")
    if not all(0 < share < 1 for share in train.lr_drops):
        raise UsageError(f"train.lr_drops takes shares of the steps between 0 and 1, not {train.lr_drops}")
    if train.precision not in PRECISIONS:
        raise UsageError(f"train.precision is one of {', '.join(PRECISIONS)}, not {train.precision!r}")
    if train.start not in ("components", "random"):
        raise UsageError(f"train.start is 'components' or 'random', not {train.start!r}")
    if train.schedule not in ("cosine", "constant"):
        raise UsageError(f"train.schedule is 'cosine' or 'constant', not {train.schedule!r}")
    if loss.reconstruction not in ("l1", "l2", "smooth_l1"):
        raise UsageError(f"loss.reconstruction is 'l1', 'l2' or 'smooth_l1', not {loss.reconstruction!r}")
    if model.downsample not in (1, 2, 4, 8):
        raise UsageError(f"model.downsample is 1, 2, 4 or 8, not {model.downsample}")
    if model.parts and model.bottleneck != "product":
        raise UsageError(f"model.parts needs --model product: {model.bottleneck} has no codebooks for parts")
    if len(model.parts) > model.latent_dim:
        raise UsageError(
            f"model.parts has {counted(len(model.parts), 'parts')} for the {model.latent_dim} of model.latent_dim"
        )
    for part in model.parts:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,31}", part):
            raise UsageError(f"model.parts: a part is called by up to 32 letters, digits and _, not {_quoted(part)}")
    if train.window % model.downsample:
        raise UsageError(f"train.window {train.window} is not a multiple of model.downsample {model.downsample}")


def to_toml(config: Config) -> str:
    """The config as TOML that `read_toml` reads back to the same; settings that are None are left out."""
    lines = []
    for section, values in config.to_dict().items():
        lines.append(f"[{section}]")
        tables = {key: value for key, value in values.items() if isinstance(value, dict)}
        for key, value in values.items():
            if value is not None and key not in tables:
                lines.append(f"{key} = {_toml_value(value)}")
        lines.append("")
        for key, table in tables.items():
            if table:
                lines += [f"[{section}.{key}]", *(f"{_toml_value(k)} = {_toml_value(v)}" for k, v in table.items()), ""]
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML, unlike JSON, escapes DEL


def differences(old: Config, new: Config, ignore: Sequence[str] = ()) -> list[str]:
    """Settings that differ, one line each: `train.lr: 0.001 -> 0.002`."""
    mine, theirs = flatten(old.to_dict(), "config"), flatten(new.to_dict(), "config")
    keys = sorted(key for key in mine.keys() | theirs.keys() if key not in ignore)
    return [f"{k}: {mine.get(k)!r} -> {theirs.get(k)!r}" for k in keys if mine.get(k) != theirs.get(k)]
