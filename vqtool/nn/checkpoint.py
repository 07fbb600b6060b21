"""Model and training state to files and back: tokenizer.safetensors and checkpoints/step-000123/, never a pickle."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vqtool.config import Config, build_config, flatten
from vqtool.errors import DataError, VqtoolError
from vqtool.nn.model import MotionTokenizer, build_model
from vqtool.publish import publish_folder
from vqtool.tokenizer_file import TokenizerFile, pack, unpack

STATE = "state.safetensors"


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
    model: MotionTokenizer, config: Config, *, fps: float, layout: str, usage: Mapping[str, np.ndarray]
) -> TokenizerFile:
    """A model as a tokenizer file; `usage` are the tensors that inspect-codebook shows."""
    return TokenizerFile(
        config=config.to_dict(),
        dim=len(model.normalizer.mean),
        fps=fps,
        layout=layout,
        downsample=model.downsample,
        codebook_sizes=list(model.bottleneck.codebook_sizes),
        codebook_keys=[f"model.bottleneck.{key}" for key in model.bottleneck.codebook_keys()],
        tensors=to_numpy(model.state_dict(), "model.") | dict(usage),
    )


def load_model(file: TokenizerFile) -> MotionTokenizer:
    """The model of a tokenizer file, in eval mode on the CPU; DataError where weights and config do not fit."""
    model = build_model(build_config(flatten(file.config, str(file.path))), file.dim)
    try:
        model.load_state_dict(from_numpy(file.tensors, "model."))
    except RuntimeError as error:
        raise DataError("its weights do not fit its config; the file was edited", file=file.path) from error
    return model.eval()


def save_checkpoint(folder: Path, step: int, state: Mapping[str, np.ndarray], keep: int) -> None:
    """Write checkpoints/step-N, whole or not at all, and remove all but the newest `keep`."""
    folder.mkdir(exist_ok=True)
    header = {"format": "vqtool.checkpoint", "format_version": 1, "step": step}
    with publish_folder(folder / f"step-{step:06d}") as part:
        (part / STATE).write_bytes(pack(state, header))
    for _, old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of every checkpoint, oldest first; parts of unfinished ones are not among them."""
    matches = [(re.fullmatch(r"step-(\d+)", path.name), path) for path in folder.glob("step-*")]
    return sorted((int(match[1]), path) for match, path in matches if match)


def newest_checkpoint(folder: Path) -> tuple[int, dict[str, np.ndarray], list[str]] | None:
    """Step and state of the newest checkpoint that is whole, with a warning for each one that is not."""
    warnings = []
    for step, path in reversed(list_checkpoints(folder)):
        try:
            tensors, header = unpack(path / STATE)
            if header.get("step") != step:
                raise DataError("is of another step", file=path)
        except VqtoolError as error:
            warnings.append(f"{error}; going back to the one before")
            continue
        return step, tensors, warnings
    return None


def optimizer_state(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Adam's moments and step counts by parameter name."""
    state: dict[str, Tensor] = {}
    for number, values in optimizer.state_dict()["state"].items():
        state.update({f"{names[number]}.{key}": torch.as_tensor(value) for key, value in values.items()})
    return state


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], state: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_state` gave."""
    per_parameter: dict[int, dict[str, Any]] = {}
    for key, value in state.items():
        name, _, moment = key.rpartition(".")
        per_parameter.setdefault(names.index(name), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": per_parameter})
