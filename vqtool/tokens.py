"""tokens.h5 and latents.h5: what an encoder made of a set of clips, and all that decoding it again needs.

A token file carries its codebooks, so that inspecting it needs neither torch nor the model.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import vqtool
from vqtool.companions import Companions, read_companions
from vqtool.errors import DataError, UsageError, counted
from vqtool.flat import FlatReader, FlatWriter
from vqtool.hdf5 import attribute, open_hdf5
from vqtool.publish import publish
from vqtool.shards import Shard, read_shard

MAX_LATENT = 1e5  # a log-variance is at most 20, and a mean of more means that the run diverged


@dataclass(frozen=True)
class Tokens:
    """The tokens of one clip: `codes` [L, Q] uint16 or uint32, `num_frames` the clip's true length T.

    L = ceil(T / downsample); decoding trims to T frames.
    """

    name: str
    codes: np.ndarray
    num_frames: int


@dataclass(frozen=True)
class TokenHeader:
    """What holds for a whole tokens.h5 or latents.h5.

    dim             columns D of the motion
    fps             frames a second of the motion (tokens come at fps / downsample)
    codebook_sizes  K of each layer; empty for latents
    tokenizer_id    SHA-256 of the weights, config and statistics that made the tokens
    numerics        "stable", "fast", "bfloat16" or "float64": how the codes were decided
    parts           of a product's tokens: the name of each group; column q G + g is layer q of group g. Else empty
    """

    dim: int
    fps: float
    downsample: int
    bottleneck: str
    layout: str
    tokenizer_id: str
    numerics: str
    source: str
    codebook_sizes: tuple[int, ...] = ()
    parts: tuple[str, ...] = ()

    def columns_of(self, part: str) -> list[int]:
        """The columns that hold the codes of a part; UsageError naming those there are."""
        if part not in self.parts:
            known = f"there are {', '.join(self.parts)}" if self.parts else "these tokens have none"
            raise UsageError(f"no part {part!r}; {known}")
        return [*range(self.parts.index(part), len(self.codebook_sizes), len(self.parts))]

    def check_layers(self, columns: int) -> None:
        """UsageError where the first columns are no whole layers: each layer has one for every part."""
        if columns % max(1, len(self.parts)):
            what = f"{counted(columns, 'layers')}: they come {len(self.parts)} at a time, one for each part"
            raise UsageError(f"{what} ({', '.join(self.parts)}); take a multiple of {len(self.parts)}")


def code_dtype(codebook_sizes: Sequence[int]) -> np.dtype:
    """uint16, or uint32 where a codebook has more than 65,536 codes."""
    return np.dtype("<u4" if max(codebook_sizes) > 65536 else "<u2")


# Token frame i covers the motion frames i * downsample .. (i + 1) * downsample - 1; the last one of a clip, those that
# there are. It depends on more: `vqtool.load(run).model.encoder_halo()` token frames before and behind it.


def frames_of_tokens(start: int, stop: int, downsample: int, num_frames: int | None = None) -> tuple[int, int]:
    """The motion frames [first, last) that the token frames [start, stop) cover, of a clip of num_frames frames."""
    first, last = start * downsample, stop * downsample
    return (first, last) if num_frames is None else (min(first, num_frames), min(last, num_frames))


def tokens_of_frames(start: int, stop: int, downsample: int) -> tuple[int, int]:
    """The token frames [first, last) that cover all of the motion frames [start, stop)."""
    return start // downsample, -(-stop // downsample)


def seconds_of_tokens(start: int, stop: int, fps: float, downsample: int) -> tuple[float, float]:
    """The time in seconds that the token frames [start, stop) cover."""
    return start * downsample / fps, stop * downsample / fps


def tokens_of_seconds(start_s: float, stop_s: float, fps: float, downsample: int) -> tuple[int, int]:
    """The token frames [first, last) between two times, each moved to the nearest token boundary.

    So ranges that meet in seconds meet in tokens: nothing between them is lost or taken twice.
    """
    first, last = (math.floor(second * fps / downsample + 0.5) for second in (start_s, stop_s))
    return first, last


class TokenWriter:
    """Append rows (token frames) in clip order; made by `create_tokens` and `create_latents`."""

    def __init__(self, flat: FlatWriter) -> None:
        self._flat = flat

    def extend(self, **rows: np.ndarray) -> None:
        """Add rows: codes=[n, Q], or mean=[n, C] and logvar=[n, C]."""
        self._flat.extend(**rows)


@contextlib.contextmanager
def _create(
    path: Path,
    kind: str,
    rows: dict[str, tuple[np.dtype, int]],
    names: Sequence[str],
    num_frames: np.ndarray,
    header: TokenHeader,
    codebooks: Sequence[np.ndarray],
    companions: Companions | None,
    shard: Shard | None,
    force: bool,
) -> Iterator[TokenWriter]:
    lengths = -(-np.asarray(num_frames, dtype=np.int64) // header.downsample)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    compress = kind == "tokens"
    with (
        publish(path, force=force) as file,
        FlatWriter(file, kind, rows, total=int(offsets[-1]), compress=compress) as flat,
    ):
        yield TokenWriter(flat)
        for layer, vectors in enumerate(codebooks):
            flat.array(f"codebooks/{layer}", np.asarray(vectors, dtype="<f4"))
        flat.array("num_frames", np.asarray(num_frames, dtype="<i8"))
        attrs: dict[str, Any] = asdict(header) | {"vqtool_version": vqtool.__version__}
        arrays = (companions or Companions()).to_arrays()
        if shard is not None:
            arrays |= shard.to_arrays()
            attrs |= shard.to_attrs()
        for name, value in arrays.items():
            flat.array(name, value)
        attrs["codebook_sizes"] = np.array(header.codebook_sizes, dtype="<i8")
        attrs["parts"] = ",".join(header.parts)
        if not header.parts:
            del attrs["parts"]
        if not codebooks and kind == "tokens":
            attrs["without_codebooks"] = 1
        flat.close(names, offsets, attrs)


@contextlib.contextmanager
def create_tokens(
    path: Path,
    names: Sequence[str],
    num_frames: np.ndarray,
    header: TokenHeader,
    codebooks: Sequence[np.ndarray],
    *,
    companions: Companions | None = None,
    shard: Shard | None = None,
    force: bool = False,
) -> Iterator[TokenWriter]:
    """Write a tokens.h5 of clips whose lengths are known; it appears at `path` when the block ends, or not at all.

    `codebooks` are [K, C] per layer of `header.codebook_sizes`, or [] where they are not known; `companions` go along
    to the decoded motion. A `shard` says that the clips are some of an input's.
    """
    sizes = header.codebook_sizes
    rows = {"codes": (code_dtype(sizes), len(sizes))}
    with _create(path, "tokens", rows, names, num_frames, header, codebooks, companions, shard, force) as writer:
        yield writer


@contextlib.contextmanager
def create_latents(
    path: Path,
    names: Sequence[str],
    num_frames: np.ndarray,
    header: TokenHeader,
    dim: int,
    *,
    companions: Companions | None = None,
    shard: Shard | None = None,
    force: bool = False,
) -> Iterator[TokenWriter]:
    """Write a latents.h5 (mean and logvar, [F, dim] float32) likewise."""
    rows = {"mean": (np.dtype("<f4"), dim), "logvar": (np.dtype("<f4"), dim)}
    with _create(path, "latents", rows, names, num_frames, header, [], companions, shard, force) as writer:
        yield writer


class TokenSet:
    """A tokens.h5 or latents.h5 open for reading: names, lengths and header; rows on demand.

    `is_latents` tells which. `companions` are what came along with the motion. `offsets` [N+1] and `num_frames`
    [N] are arrays; `codebooks` lists [K, C] arrays.
    Opening raises DataError for a damaged file; `verify` compares everything with the stored SHA-256.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_hdf5(path) as file:
            self.is_latents = attribute(file, "format") == "vqtool.latents"
        kind, rows = ("latents", ["mean", "logvar"]) if self.is_latents else ("tokens", ["codes"])
        self._flat = FlatReader(path, kind, rows)
        self._checked = False
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        flat = self._flat
        self.names, self.offsets = flat.names, flat.offsets
        self.width = int(flat.rows["mean" if self.is_latents else "codes"].shape[1])
        self.companions = read_companions(flat)
        self.num_frames: np.ndarray = flat.array("num_frames", ndim=1, kinds="iu").astype(np.int64)
        try:
            self.header = TokenHeader(
                dim=int(flat.attrs["dim"]),
                fps=float(flat.attrs["fps"]),
                downsample=int(flat.attrs["downsample"]),
                bottleneck=str(flat.attrs["bottleneck"]),
                layout=str(flat.attrs["layout"]),
                tokenizer_id=str(flat.attrs["tokenizer_id"]),
                numerics=str(flat.attrs["numerics"]),
                source=str(flat.attrs["source"]),
                codebook_sizes=tuple(int(size) for size in flat.attrs["codebook_sizes"]),
                parts=tuple(str(flat.attrs["parts"]).split(",")) if "parts" in flat.attrs else (),
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"its attributes are incomplete ({error}); the file is damaged", file=self.path) from error
        header = self.header
        numbers = (header.dim, header.downsample, *header.codebook_sizes)
        if min(numbers) < 1 or max(numbers) >= 2**63 or not 0 < header.fps < math.inf:
            raise DataError("its attributes cannot be; the file is damaged", file=self.path)
        lengths = -(-self.num_frames // header.downsample)
        if len(lengths) != len(self.names) or (self.num_frames < 0).any() or (np.diff(self.offsets) != lengths).any():
            raise DataError("does not fit the tokens; the file is damaged", file=self.path, dataset="num_frames")
        if self.is_latents and flat.rows["logvar"].shape != flat.rows["mean"].shape:
            raise DataError("differs in shape from mean; the file is damaged", file=self.path, dataset="logvar")
        if not self.is_latents and flat.rows["codes"].dtype.kind != "u":
            raise DataError("does not hold unsigned integers; the file is damaged", file=self.path, dataset="codes")
        if not self.is_latents and not 0 < len(header.codebook_sizes) == self.width:
            raise DataError("does not fit codebook_sizes; the file is damaged", file=self.path, dataset="codes")
        if header.parts and (self.width % len(header.parts) or len(set(header.parts)) < len(header.parts)):
            raise DataError("does not fit its parts; the file is damaged", file=self.path, dataset="codes")

    def __len__(self) -> int:
        return len(self.names)

    def __reduce__(self) -> tuple[Callable[..., TokenSet], tuple[Path, str]]:
        """To a worker it goes as its path."""
        return _reopened, (self.path, self.identity)

    def shard(self) -> Shard:
        """Which share of which work it is; DataError where it is none."""
        return read_shard(self._flat, self.companions)

    @property
    def num_tokens(self) -> int:
        """Token frames in all clips, sum of L."""
        return int(self.offsets[-1])

    @property
    def identity(self) -> str:
        """The SHA-256 of all that the file holds, as it says; `verify` compares."""
        return str(self._flat.attrs.get("sha256"))

    @property
    def codebooks(self) -> list[np.ndarray]:
        """The code vectors of each layer, [K, C] float32; [] of tokens imported without them."""
        if self._flat.attrs.get("without_codebooks") == 1:
            return []
        return [self._flat.array(f"codebooks/{q}", ndim=2) for q in range(len(self.header.codebook_sizes))]

    def blocks(self, name: str = "codes", start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Rows [start, stop) of "codes" (or "mean", "logvar") in blocks of a few MB."""
        return self._flat.blocks(name, start, stop)

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of the flat token axis."""
        return self._flat.read(name, start, stop)

    def __getitem__(self, clip: int) -> Tokens:
        start, stop = int(self.offsets[clip]), int(self.offsets[clip + 1])
        return Tokens(self.names[clip], self.rows("codes", start, stop), int(self.num_frames[clip]))

    def checked_blocks(self) -> Iterator[np.ndarray]:
        """All codes in blocks [n, Q]; DataError naming clip and token at the first code outside its codebook.

        When the last block has been taken, `verify` knows the digest of the codes and does not read them again.
        """
        sizes = np.array(self.header.codebook_sizes)
        first = 0
        for block in self._flat.hashed_blocks("codes"):
            # One maximum over all is 50 times faster than comparing column by column.
            if block.max() >= sizes.min() and len(bad := np.argwhere(block >= sizes)):
                row, layer = (int(i) for i in bad[0])
                clip = int(np.searchsorted(self.offsets, first + row, side="right")) - 1
                raise DataError(
                    f"token {first + row - int(self.offsets[clip])} of layer {layer} is {block[row, layer]}, "
                    f"but that codebook has {counted(sizes[layer], 'codes')}; encode again",
                    file=self.path,
                    dataset="codes",
                    clip=self.names[clip],
                )
            yield block
            first += len(block)

    def hashed_blocks(self, name: str) -> Iterator[np.ndarray]:
        """All rows of "mean" or "logvar" in blocks [n, C]; `verify` does not read them again."""
        return self._flat.hashed_blocks(name)

    def check_codes(self) -> None:
        """DataError naming clip and token at the first code outside its codebook."""
        for _ in self.checked_blocks():
            pass

    def verify(self) -> None:
        """Compare the whole file with its SHA-256; DataError when a bit has changed."""
        self._flat.verify()

    def check_latents(self) -> None:
        """DataError naming clip and token at the first latent that is not finite, or too large to decode."""
        for name in ("mean", "logvar"):
            first = 0
            for block in self.hashed_blocks(name):
                good = (np.abs(block) < MAX_LATENT).all(axis=1)  # False for NaN
                if not good.all():
                    row = first + int(np.argmin(good))
                    clip = int(np.searchsorted(self.offsets, row, side="right")) - 1
                    what = f"token {row - int(self.offsets[clip])} is not finite, or huge; encode again"
                    raise DataError(what, file=self.path, dataset=name, clip=self.names[clip])
                first += len(block)

    def check(self) -> None:
        """`check_codes` or `check_latents`, and `verify`, in one pass and only once."""
        if not self._checked:
            if self.is_latents:
                self.check_latents()
            else:
                self.check_codes()
            self.verify()
            self._checked = True

    def close(self) -> None:
        """Close the file."""
        self._flat.close()

    def __enter__(self) -> TokenSet:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _reopened(path: Path, identity: str) -> TokenSet:
    """The same file in another process; DataError where it is not the same any more."""
    tokens = TokenSet(path)
    if tokens.identity != identity:
        tokens.close()
        raise DataError("changed while it was read, or is another file on this machine", file=path)
    return tokens
