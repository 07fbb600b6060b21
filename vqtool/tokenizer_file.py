"""tokenizer.safetensors: the one file that encode and decode need; read and written without torch.

Tensors: `model.*` (weights, buffers, normalisation), and what training saw of its validation set:
`usage.counts.<q>` [K] int64 for each layer, or `usage.kl` and `usage.variance` [C] float64 for a VAE.
Header: one JSON object under the key "vqtool" (see `TokenizerFile`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

import vqtool
from vqtool.companions import skeleton_difference
from vqtool.config import build_config, flatten
from vqtool.errors import DataError, MismatchError, MissingInputError, UsageError, counted
from vqtool.publish import publish_bytes
from vqtool.reading import opened
from vqtool.skeleton import Skeleton

if TYPE_CHECKING:
    from vqtool.store import MotionSet
    from vqtool.tokens import TokenSet

NAME = "tokenizer.safetensors"
FORMAT = "vqtool.tokenizer"
MAX_HEADER = 1 << 20
# What tokenizer_id covers, besides the model's tensors. What is added to the header later must stay out of it.
IDENTITY = ("config", "dim", "fps", "layout", "downsample", "codebook_sizes", "codebook_keys")


@dataclass
class TokenizerFile:
    """A tokenizer as data.

    config          the resolved config: sections data, model, bottleneck, loss, train
    dim, fps, layout what it was trained on: columns, frames a second, layout
    downsample      motion frames per token frame
    codebook_sizes  K of each layer, [] for a VAE
    codebook_keys   names of the tensors that hold the code vectors [K, C], [] where they are implicit (FSQ)
    joints          {"names": [...], "parents": [...]} of the skeleton that the columns describe; None: not known
    """

    config: dict[str, Any]
    dim: int
    fps: float
    layout: str
    downsample: int
    codebook_sizes: list[int]
    codebook_keys: list[str]
    joints: dict[str, Any] | None = None
    tensors: dict[str, np.ndarray] = field(default_factory=dict)
    path: Path | None = None

    @property
    def tokenizer_id(self) -> str:
        """SHA-256 of what decides tokens and motion: model tensors and everything in the header but versions."""
        digest = hashlib.sha256(json.dumps(self._plain(), sort_keys=True).encode())
        for name in sorted(name for name in self.tensors if name.startswith("model.")):
            _update(digest, name, self.tensors[name])
        return digest.hexdigest()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of a product's groups, as in TokenHeader; () of other tokenizers."""
        groups = self.config.get("bottleneck", {}).get("groups", 0)
        return tuple(sorted(self.config["model"].get("parts", ()))) or tuple(f"group{n}" for n in range(groups))

    def _plain(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in IDENTITY}

    def check_motion(self, motion: MotionSet) -> None:
        """MismatchError where the clips have other columns, frame rate or layout than the training data."""
        where = motion.paths[0]
        if motion.dim != self.dim:
            trained = f"the tokenizer was trained on {self.dim} (layout {self.layout})"
            raise MismatchError(
                f"has {counted(motion.dim, 'columns')}, but {trained}; encode data of that layout", file=where
            )
        if motion.layout != self.layout:
            what = f"has layout {motion.layout}, but the tokenizer was trained on {self.layout}"
            raise MismatchError(f"{what}; import it with --layout {self.layout}", file=where)
        if abs(motion.fps - self.fps) > 1e-3 * self.fps:
            what = f"has {motion.fps:g} fps, but the tokenizer was trained at {self.fps:g}"
            raise MismatchError(f"{what}; import it with --fps {self.fps:g}", file=where)
        bodies = motion.companions.bodies
        if self.joints is not None and bodies and (difference := self._joints_differ(bodies[0])):
            raise MismatchError(f"has another skeleton than the tokenizer was trained on: {difference}", file=where)

    def _joints_differ(self, body: Skeleton) -> str:
        assert self.joints is not None
        names, parents = tuple(self.joints["names"]), tuple(self.joints["parents"])
        return skeleton_difference(Skeleton(names, parents, np.zeros((len(names), 3))), body)

    def check_tokens(self, tokens: TokenSet) -> None:
        """MismatchError where another tokenizer made them."""
        mine, theirs = self.tokenizer_id, tokens.header.tokenizer_id
        if mine != theirs:
            what = f"was made by tokenizer {theirs[:12]}, not by {self.path} ({mine[:12]})"
            raise MismatchError(f"{what}; name the run that encoded it", file=tokens.path)
        header = tokens.header
        mine_of = {"dim": self.dim, "fps": self.fps, "downsample": self.downsample, "layout": self.layout}
        for name, value in mine_of.items():
            if getattr(header, name) != value:
                what = f"says {name} {getattr(header, name)}, but its tokenizer has {value}; the file was edited"
                raise MismatchError(what, file=tokens.path)
        sizes = list(header.codebook_sizes)
        if tokens.is_latents == bool(self.codebook_sizes) or sizes != self.codebook_sizes[: len(sizes)]:
            what = f"says codebook sizes {sizes}, but its tokenizer has {self.codebook_sizes}; the file was edited"
            raise MismatchError(what, file=tokens.path)
        latent_dim = len(self.tensors["model.bottleneck.to_moments.bias"]) // 2 if tokens.is_latents else None
        if tokens.is_latents and tokens.width != latent_dim:
            what = f"has {tokens.width} latent dimensions, but its tokenizer {latent_dim}; the file was edited"
            raise MismatchError(what, file=tokens.path)

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the file whole or not at all."""
        header = self._plain() | {
            "format": FORMAT,
            "format_version": 1,
            "vqtool_version": vqtool.__version__,
            "tokenizer_id": self.tokenizer_id,
            "joints": self.joints,
        }
        publish_bytes(path, pack(self.tensors, header), force=force)


def _update(digest: Any, name: str, value: np.ndarray) -> None:
    value = np.asarray(value, order="C")
    digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
    digest.update(value.data)


def file_digest(tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> str:
    """SHA-256 over the header but its own "sha256", and over names, types, shapes and bytes of the tensors."""
    rest = {key: value for key, value in header.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name in sorted(tensors):
        _update(digest, name, tensors[name])
    return digest.hexdigest()


def pack(tensors: Mapping[str, np.ndarray], header: Mapping[str, Any]) -> bytes:
    """A safetensors file with one JSON object in its header, to which the SHA-256 of tensors and header is added."""
    plain = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    header = {**header, "sha256": file_digest(plain, header)}
    assert len(json.dumps(header)) < MAX_HEADER // 2, "unpack would refuse it"
    packed: bytes = save_tensors(plain, metadata={"vqtool": json.dumps(header, sort_keys=True)})
    return packed


def unpack(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and header of a file that `pack` made; DataError where it is damaged, flipped bits included."""
    with opened(path) as file:
        start = file.read(8)
        if start == b"\x89HDF\r\n\x1a\n":
            raise DataError("is an HDF5 file, and no tokenizer; the run comes first, then motion or tokens", file=path)
        size = int.from_bytes(start, "little")
        # Before the rest is read: it may be a large file of another kind.
        if not 2 <= size <= min(MAX_HEADER, path.stat().st_size - 8):
            raise DataError("is not a vqtool safetensors file, or is damaged", file=path)
        head = file.read(size)
        if b'"vqtool"' not in head:
            raise DataError("is not a vqtool safetensors file, or is damaged", file=path)
        data = start + head + file.read()
    try:
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["vqtool"])
        tensors = dict(load_tensors(data))
        if header["sha256"] != file_digest(tensors, header):
            raise DataError("does not match its SHA-256: it was damaged; copy or make it again", file=path)
    except (ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise DataError("is not a vqtool safetensors file, or is damaged", file=path) from error
    return tensors, header


def resolve(run: Path) -> Path:
    """The tokenizer file that a run folder or a path to the file itself means."""
    if not run.is_dir():
        return run
    if not (run / NAME).exists():
        what = "name a run folder that vqtool train wrote"
        if (run / "config.toml").exists():
            what = "training has not finished; go on with vqtool train ... --resume"
        raise MissingInputError(f"holds no {NAME}; {what}", file=run)
    return run / NAME


def read_tokenizer(run: Path) -> TokenizerFile:
    """Read a tokenizer from its run folder or file; DataError when it is damaged or of a newer version."""
    path = resolve(run)
    tensors, header = unpack(path)
    if header.get("format") != FORMAT:
        raise DataError("is no tokenizer; name a run folder or its tokenizer.safetensors", file=path)
    if header.get("format_version") != 1:
        version = header.get("format_version")
        raise DataError(f"has format version {version}; this vqtool reads 1, so update vqtool", file=path)
    try:
        known = {name: header[name] for name in IDENTITY}
        found = TokenizerFile(**known, joints=header.get("joints"), tensors=tensors, path=path)
        if found.joints is not None and len(found.joints["names"]) != len(found.joints["parents"]):
            raise DataError("its joints do not fit; the file is damaged", file=path)
        if found.tokenizer_id != header["tokenizer_id"]:
            raise DataError("does not match its tokenizer_id: it was edited; use the file as trained", file=path)
    except (KeyError, TypeError) as error:
        raise DataError("its header is incomplete; the file is damaged", file=path) from error
    if fault := _header_fault(found):
        raise DataError(f"{fault}; the file was edited, use it as trained", file=path)
    return found


def _header_fault(file: TokenizerFile) -> str:
    """What in a header cannot be, "" if all can."""
    sizes, keys = file.codebook_sizes, file.codebook_keys
    if not (isinstance(file.config, dict) and all(isinstance(section, dict) for section in file.config.values())):
        return "its config is not one of sections"
    if not isinstance(bottleneck := file.config.get("model", {}).get("bottleneck", ""), str):
        return f"its bottleneck is {bottleneck!r}"
    if type(file.dim) is not int or file.dim < 1:
        return f"its dim is {file.dim!r}"
    if type(file.fps) not in (int, float) or not 0 < file.fps < math.inf:
        return f"its fps is {file.fps!r}"
    if not isinstance(file.layout, str):
        return f"its layout is {file.layout!r}"
    if type(file.downsample) is not int or file.downsample not in (1, 2, 4, 8):
        return f"its downsample is {file.downsample!r}"
    if not isinstance(sizes, list) or not all(type(size) is int and 0 < size < 2**32 for size in sizes):
        return f"its codebook_sizes are {sizes!r}"
    parts, groups = file.config.get("model", {}).get("parts", {}), file.config.get("bottleneck", {}).get("groups", 0)
    if type(groups) is not int or not isinstance(parts, dict) or (parts and groups != len(parts)):
        return f"its groups are {groups!r} and its parts {parts!r}"
    if groups < 0 or groups > len(sizes) or (groups and len(sizes) % groups):
        return f"its {counted(groups, 'groups', 'do')} not fit its {counted(len(sizes), 'codebooks')}"
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        return f"its codebook_keys are {keys!r}"
    return ""


def check_tokenizer(file: TokenizerFile) -> None:
    """DataError where config, codebooks and weights cannot work together, before a model is made of them."""
    fault = _model_fault(file)
    if fault:
        raise DataError(f"{fault}; the file was edited, use it as trained", file=file.path)


def _model_fault(file: TokenizerFile) -> str:
    try:
        config = build_config(flatten(file.config, "config"))
    except UsageError as error:
        return f"its config cannot be used, or is of a newer vqtool ({error.what})"
    sizes, keys, weights = file.codebook_sizes, file.codebook_keys, file.tensors
    for name in ("model.normalizer.mean", "model.normalizer.scale"):
        if name not in weights or weights[name].shape != (file.dim,):
            return f"its dim {file.dim} is not that of its statistics"
    if not (weights["model.normalizer.scale"] > 0).all():
        return "its statistics have a scale of 0"
    if file.downsample != config.model.downsample:
        return f"its downsample {file.downsample} is not that of its config, {config.model.downsample}"
    layers = config.bottleneck.get("num_quantizers", len(sizes))
    if bool(sizes) == (config.model.bottleneck == "vae") or (sizes and layers != len(sizes)):
        return f"its {counted(len(sizes), 'codebooks', 'are')} not those of its config"
    if len(keys) not in (0, len(sizes)):
        return f"it names {counted(len(keys), 'tensors')} for {counted(len(sizes), 'codebooks')}"
    for key, size in zip(keys, sizes, strict=False):
        if key not in weights or weights[key].shape[:1] != (size,):
            return f"its codebook {key} does not hold {counted(size, 'codes')}"
    for name, value in weights.items():
        if name.startswith("model.") and value.dtype.kind == "f" and not np.isfinite(value).all():
            return f"its weights {name} are not finite"
    return ""
