"""Model and training state to files and back: tokenizer.safetensors and checkpoints/step-000123/, never a pickle."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import vqtool
from vqtool.config import Config, build_config, flatten
from vqtool.errors import DataError, ResumeError, StorageError, UsageError, VqtoolError
from vqtool.nn import distributed
from vqtool.nn.model import MotionTokenizer, build_model
from vqtool.publish import publish_folder, remove_folder
from vqtool.skeleton import Skeleton
from vqtool.tokenizer_file import TokenizerFile, check_tokenizer, pack, unpack

STATE = "state.safetensors"
FORMAT = "vqtool.checkpoint"


def to_numpy(state: Mapping[str, Tensor], prefix: str) -> dict[str, np.ndarray]:
    """Tensors as arrays with `prefix` in front of their names."""
    return {f"{prefix}{name}": tensor.detach().cpu().numpy() for name, tensor in state.items()}


def from_numpy(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    """The arrays whose names start with `prefix`, as tensors without it."""
    return {
        name.removeprefix(prefix): torch.from_numpy(array.copy())
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def tokenizer_file(
    model: MotionTokenizer,
    config: Config,
    *,
    fps: float,
    layout: str,
    usage: Mapping[str, np.ndarray],
    body: Skeleton | None = None,
) -> TokenizerFile:
    """A model as a tokenizer file; `usage` are the tensors that inspect-codebook shows, `body` has the joints."""
    return TokenizerFile(
        config=config.to_dict(),
        dim=len(model.normalizer.mean),
        fps=fps,
        layout=layout,
        downsample=model.downsample,
        codebook_sizes=list(model.bottleneck.codebook_sizes),
        codebook_keys=[f"model.bottleneck.{key}" for key in model.bottleneck.codebook_keys()],
        joints=None if body is None else {"names": list(body.names), "parents": list(body.parents)},
        tensors=to_numpy(model.state_dict(), "model.") | dict(usage),
    )


def load_model(file: TokenizerFile) -> MotionTokenizer:
    """The model of a tokenizer file, in eval mode on the CPU; DataError where weights and config do not fit."""
    check_tokenizer(file)
    weights = from_numpy(file.tensors, "model.")
    config = build_config(flatten(file.config, str(file.path)))
    try:
        with torch.device("meta"):  # nothing is allocated before the sizes are known to fit
            wanted = {name: tensor.shape for name, tensor in build_model(config, file.dim).state_dict().items()}
    except UsageError as error:
        what = f"its config is not one that this vqtool knows ({error.what}); update vqtool"
        raise DataError(what, file=file.path) from error
    if wanted != {name: tensor.shape for name, tensor in weights.items()}:
        raise DataError("its weights do not fit its config; the file was edited", file=file.path)
    model = build_model(config, file.dim)
    model.load_state_dict(weights)
    return model.eval()


def save_checkpoint(
    folder: Path, step: int, state: Mapping[str, np.ndarray], keep: int, *, device: str = "cpu"
) -> None:
    """Write checkpoints/step-N, whole or not at all, and remove all but the newest `keep`.

    What killed runs left is removed too; a checkpoint that cannot be removed stays.
    """
    header = {"format": FORMAT, "format_version": 1, "step": step, "made_with": _made_with(device)}
    with publish_folder(folder / f"step-{step:06d}") as part:
        (part / STATE).write_bytes(pack(state, header))
    kept = [path for _, path in list_checkpoints(folder)[-keep:]]
    for path in sorted(folder.iterdir()):
        if re.fullmatch(r"\.step-\d+\.(part|old)", path.name):
            shutil.rmtree(path, ignore_errors=True)
        elif re.fullmatch(r"step-\d+", path.name) and path not in kept:
            with contextlib.suppress(StorageError):
                remove_folder(path)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint, oldest first; unfinished and half-removed ones are not among them."""
    matches = [(re.fullmatch(r"step-(\d+)", path.name), path) for path in folder.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in matches if match and (path / STATE).exists())


def newest_checkpoint(folder: Path, *, device: str = "cpu") -> tuple[int, dict[str, np.ndarray], list[str]] | None:
    """Step and state of the newest checkpoint that is whole, and warnings; None where there is no checkpoint.

    There is a warning for each newer one that is damaged, and one where training that goes on here, on `device`,
    cannot be bit-exact. Raises ResumeError when all are damaged, DataError for one of a later format.
    """
    warnings: list[str] = []
    for step, path in reversed(list_checkpoints(folder)):
        try:
            tensors, header = unpack(path / STATE)
            if header.get("format") != FORMAT or header.get("step") != step:
                raise DataError("is no checkpoint of this step", file=path)
        except VqtoolError as error:
            warnings.append(f"{error}; going back to the one before")
            damage = str(error)
            continue
        if (version := header.get("format_version")) != 1:
            raise DataError(f"has format version {version}; this vqtool reads 1, so update vqtool", file=path)
        return step, tensors, warnings + _differences(header.get("made_with"), _made_with(device))
    if warnings:
        what = f"no checkpoint is whole ({damage}); begin anew with --force instead of --resume"
        raise ResumeError(what, file=folder)
    return None


def _made_with(device: str) -> dict[str, str]:
    """What the bits of further training depend on, apart from config and data, in words."""
    threads, ranks = torch.get_num_threads(), distributed.count()
    return {
        "vqtool": f"vqtool {vqtool.__version__}",
        "torch": f"torch {torch.__version__}",
        "threads": f"{threads} thread{'s' * (threads > 1)}",
        "device": f"device {device}",
        "ranks": f"{ranks} rank{'s' * (ranks > 1)}",
        "cpu": f"CPU capability {torch.backends.cpu.get_cpu_capability()}",
    }


def _differences(before: Any, now: Mapping[str, str]) -> list[str]:
    """A warning that names what has changed; none where nothing has, or where the checkpoint does not say."""
    if not isinstance(before, dict):
        return []
    changed = [key for key in now if before.get(key, now[key]) != now[key]]
    if not changed:
        return []
    then, here = (" and ".join(str(made[key]) for key in changed) for made in (before, now))
    return [f"resumed training will not be bit-exact: begun with {then}, now {here}"]


def optimizer_state(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Adam's moments and step counts by parameter name."""
    state: dict[str, Tensor] = {}
    for number, values in optimizer.state_dict()["state"].items():
        state.update({f"{names[number]}.{key}": torch.as_tensor(value) for key, value in values.items()})
    return state


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], state: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_state` gave."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    per_parameter: dict[int, dict[str, Any]] = {}
    for key, value in state.items():
        name, _, moment = key.rpartition(".")
        shape = parameters[names.index(name)].shape
        if value.shape not in (shape, ()):
            raise ValueError(f"{key} has the shape {list(value.shape)}, not {list(shape)}")
        per_parameter.setdefault(names.index(name), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": per_parameter})
