"""A trained tokenizer at work: spans with a halo, batches by length, exact decisions.

A span is a range of token frames of one clip. It is encoded from its own frames and a halo of those that its
latents depend on, so that any way of cutting a clip gives the tokens of the whole clip:

    frames   |--- halo ---|======= span =======|--- halo ---|     read, padded, batched with others
    tokens                |==== start..stop ===|                  kept

Spans of about the same length share a batch. In float32 a latent depends, in its last bits, on what it shares a
batch with. With numerics "stable" a token whose decision lies so close to a boundary that these bits could
change it is encoded again in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqtool import signals
from vqtool.errors import DataError, UsageError, counted
from vqtool.nn.bottlenecks.vae import GaussianBottleneck
from vqtool.nn.checkpoint import load_model
from vqtool.nn.layers import pad_edge
from vqtool.nn.model import MotionTokenizer
from vqtool.store import MotionSet
from vqtool.tokenizer_file import TokenizerFile, read_tokenizer

NUMERICS = ("stable", "fast", "bfloat16", "float64")
CHUNK_TOKENS = 1024  # longest span
BATCH_FRAMES = 2048  # frames of a batch for each thread, padding included: what a layer makes of them fits in its cache
GPU_THREADS = 32  # as many times as much fills a GPU (not measured)
PART_TOKENS = 32768  # token frames held in memory before they are written,
PART_BYTES = 32 << 20  # or fewer where they are wide
# A float32 encoder moves a latent towards another code by this share of the latent's norm at most. Measured
# (docs/log.md): 3e-8 in the median, 2e-7 at most.
LATENT_ERROR = 64 * 4e-8

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Span:
    """Token frames start..stop of a clip of num_frames motion frames."""

    clip: int
    start: int
    stop: int
    num_frames: int


def pick_device(name: str) -> torch.device:
    """The device that "auto" (a GPU of CUDA, else the CPU), "cpu" or "cuda" means; UsageError where it is not there.

    MPS has no float64, which exact decisions need.
    """
    if name == "mps":
        raise UsageError("device 'mps' has no float64, which exact tokens need; use --device cpu")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} is not available here; try --device auto") from error
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether it multiplies matrices of bfloat16 faster than of float32, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def use_threads(threads: int) -> None:
    """In a worker: its share of the CPUs. Only where it changes something: a call ends torch's idle threads."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


class Codec:
    """A trained tokenizer that encodes and decodes arrays and files, in raw units.

    Made by `vqtool.load`. `info` is the tokenizer file; `model` the MotionTokenizer.
    """

    def __init__(
        self, model: MotionTokenizer, info: TokenizerFile, *, device: str = "auto", numerics: str = "stable"
    ) -> None:
        if numerics not in NUMERICS:
            raise UsageError(f"numerics is one of {', '.join(NUMERICS)}, not {numerics!r}")
        self.info, self.numerics = info, numerics
        self.device = pick_device(device)
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.downsample = model.downsample
        self._double: MotionTokenizer | None = None
        self.decided_again = 0

    def __reduce__(self) -> tuple[Callable[..., Codec], tuple[TokenizerFile, str, str]]:
        """To a worker it goes as its tokenizer file."""
        return _load, (self.info, str(self.device), self.numerics)

    # Arrays

    def encode(self, motion: np.ndarray | Tensor, num_quantizers: int | None = None) -> np.ndarray | Tensor:
        """Codes of one clip [T, D], or of several of one length [B, T, D], in raw units.

        Returns [L, q] or [B, L, q] of the first q layers, L = ceil(T / downsample): int64, an array for an array
        and a tensor for a tensor. A VAE gives the mean latents [.., L, C]. Raises DataError for NaN or another
        number of columns.
        """
        clips = _as_clips(motion, self.info.dim)
        if not np.isfinite(clips).all():
            raise DataError("the motion holds NaN or infinity")
        spans = [span for clip in range(len(clips)) for span in self._spans(clip, clips.shape[1])]
        rows = self.encode_spans(spans, lambda clip, start, stop: clips[clip, start:stop], num_quantizers)
        if self.model.is_vae:
            found = np.concatenate([rows[span][0] for span in spans]) if spans else np.zeros((0, self._vae.dim))
        else:
            found = np.concatenate([rows[span] for span in spans]).astype(np.int64) if spans else self._no_codes()
        result = found.reshape(*clips.shape[:1], -1, found.shape[-1])[slice(None) if motion.ndim == 3 else 0]
        return torch.from_numpy(result) if isinstance(motion, Tensor) else result

    def decode(self, codes: np.ndarray | Tensor, num_frames: int | None = None) -> np.ndarray | Tensor:
        """Motion [T, D] or [B, T, D] in raw units of codes [L, q] or [B, L, q] (a VAE: latents), cut to num_frames.

        Raises DataError for a code outside its codebook.
        """
        array = codes.cpu().numpy() if isinstance(codes, Tensor) else np.asarray(codes)
        batch = array if array.ndim == 3 else array[None]
        if batch.ndim != 3:
            raise DataError(f"codes have the shape [L, q] or [B, L, q], not {list(array.shape)}")
        length = batch.shape[1] * self.downsample
        wanted = length if num_frames is None else num_frames
        if not 0 <= wanted <= length:
            raise DataError(
                f"{counted(batch.shape[1], 'token frames', 'give')} at most {counted(length, 'frames')}, not {wanted}"
            )
        frames = np.zeros((len(batch), length, self.info.dim), np.float32)
        spans = [span for clip in range(len(batch)) for span in self._spans(clip, length)]
        for span, rows in self.decode_spans(spans, lambda clip, start, stop: batch[clip, start:stop]):
            frames[span.clip, span.start * self.downsample : span.stop * self.downsample] = rows
        result = frames[:, :wanted][slice(None) if array.ndim == 3 else 0]
        return torch.from_numpy(result) if isinstance(codes, Tensor) else result

    def _no_codes(self) -> np.ndarray:
        return np.zeros((0, len(self.info.codebook_sizes)), np.int64)

    @property
    def _vae(self) -> GaussianBottleneck:
        assert isinstance(self.model.bottleneck, GaussianBottleneck)
        return self.model.bottleneck

    # Spans

    def _spans(self, clip: int, num_frames: int) -> Iterator[Span]:
        """All token frames of a clip in spans of at most CHUNK_TOKENS."""
        stop = -(-num_frames // self.downsample)
        for first in range(0, stop, CHUNK_TOKENS):
            yield Span(clip, first, min(first + CHUNK_TOKENS, stop), num_frames)

    def num_frames(self, span: Span) -> int:
        """Motion frames of a span: at the end of a clip fewer than its token frames stand for."""
        return min(span.stop * self.downsample, span.num_frames) - span.start * self.downsample

    def part_tokens(self, row_bytes: int) -> int:
        """Token frames of a part, where each takes that many bytes in memory."""
        return min(PART_TOKENS, max(CHUNK_TOKENS, PART_BYTES // row_bytes))

    def parts(self, lengths: np.ndarray, row_bytes: int, first: int = 0) -> Iterator[list[Span]]:
        """The token frames of clips of those lengths, in order, in lists of spans that fit in memory.

        A clip that does not fit into a list any more begins the next one, so that shards can begin there too. The clips
        are numbered from `first` on.
        """
        part: list[Span] = []
        held, most = 0, self.part_tokens(row_bytes)
        for clip, num_frames in enumerate(lengths.tolist(), first):
            if part and held - (-num_frames // self.downsample) > most:
                yield part
                part, held = [], 0
            for span in self._spans(clip, num_frames):
                part.append(span)
                held += span.stop - span.start
                if held >= most:
                    yield part
                    part, held = [], 0
        if part:
            yield part

    def _batches(self, spans: Sequence[Span], halo: tuple[int, int]) -> Iterator[list[tuple[Span, int, int]]]:
        """Spans of about the same length together, each with the token frames first..last that it needs."""
        windows = []
        for span in spans:
            length = -(-span.num_frames // self.downsample)
            windows.append((span, max(0, span.start - halo[0]), min(length, span.stop + halo[1])))
        windows.sort(key=lambda window: window[2] - window[1])
        most = BATCH_FRAMES * (min(8, torch.get_num_threads()) if self.device.type == "cpu" else GPU_THREADS)
        batch: list[tuple[Span, int, int]] = []
        for window in windows:
            if batch and (len(batch) + 1) * (window[2] - window[1]) * self.downsample > most:
                signals.check()
                yield batch
                batch = []
            batch.append(window)
        if batch:
            signals.check()
            yield batch

    # Encode

    def encode_spans(
        self,
        spans: Sequence[Span],
        read: Callable[[int, int, int], np.ndarray],
        num_quantizers: int | None = None,
        progress: Progress | None = None,
    ) -> dict[Span, np.ndarray]:
        """Codes [n, q] of each span, or for a VAE mean and logvar [2, n, C]; read(clip, start, stop) gives frames."""
        exact = self.numerics == "float64"
        bottleneck = self._model(double=exact).bottleneck
        found: dict[Span, np.ndarray] = {}
        unsure: list[tuple[Span, Span]] = []
        for batch, latents in self._latents(spans, read, double=exact):
            if isinstance(bottleneck, GaussianBottleneck):
                moments = torch.stack(bottleneck.moments(latents), 1).float().cpu().numpy()  # [B, 2, L, C]
                for (span, first, _), row in zip(batch, moments, strict=True):
                    found[span] = row[:, span.start - first : span.stop - first]
            else:
                norm = latents.norm(dim=2)
                tolerance = LATENT_ERROR * norm.clamp_min(0.25 * norm.mean()) if self.numerics == "stable" else None
                codes, close = bottleneck.search(latents, num_quantizers, tolerance)
                for (span, first, _), row, doubts in zip(batch, codes.cpu().numpy(), close.cpu().numpy(), strict=True):
                    found[span] = row[span.start - first : span.stop - first].astype(np.uint32)
                    if self.numerics == "stable":
                        unsure += _runs(span, doubts[span.start - first : span.stop - first])
            if progress is not None:
                progress(sum(self.num_frames(span) for span, _, _ in batch))
        self._decide_again(unsure, read, num_quantizers, found)
        return found

    def _decide_again(
        self,
        unsure: list[tuple[Span, Span]],
        read: Callable[[int, int, int], np.ndarray],
        num_quantizers: int | None,
        found: dict[Span, np.ndarray],
    ) -> None:
        """Encode the unsure spans, each a piece of a found one, in float64 and put their codes in place."""
        whole = {piece: span for span, piece in unsure}
        for batch, latents in self._latents(list(whole), read, double=True):
            codes = self._model(double=True).bottleneck.encode(latents, num_quantizers).cpu().numpy()
            for (piece, first, _), row in zip(batch, codes, strict=True):
                span = whole[piece]
                rows = row[piece.start - first : piece.stop - first]
                found[span][piece.start - span.start : piece.stop - span.start] = rows
                self.decided_again += len(rows)

    def _latents(
        self, spans: Sequence[Span], read: Callable[[int, int, int], np.ndarray], *, double: bool
    ) -> Iterator[tuple[list[tuple[Span, int, int]], Tensor]]:
        """Batches of spans with their latents [B, L, C], the halo included."""
        model = self._model(double=double)
        dtype = torch.float64 if double else torch.float32
        for batch in self._batches(spans, model.encoder_halo()):
            length = max(last - first for _, first, last in batch)
            motion = torch.zeros(len(batch), length * self.downsample, self.info.dim, dtype=dtype)
            tokens = torch.zeros(len(batch), length, dtype=torch.bool)
            for row, (span, first, last) in enumerate(batch):
                end = min(last * self.downsample, span.num_frames)
                frames = torch.from_numpy(read(span.clip, first * self.downsample, end))
                motion[row, : (last - first) * self.downsample] = pad_edge(frames, (last - first) * self.downsample)
                tokens[row, : last - first] = True
            mask = None if bool(tokens.all()) else tokens.to(self.device)
            half = self.numerics == "bfloat16" and not double
            with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                latents = model.latents(motion.to(self.device), mask)
            yield batch, latents if double else latents.float()

    def _model(self, *, double: bool) -> MotionTokenizer:
        if not double:
            return self.model
        if self._double is None:
            self._double = copy.deepcopy(self.model).double()
        return self._double

    # Decode

    def decode_spans(
        self, spans: Sequence[Span], read: Callable[[int, int, int], np.ndarray]
    ) -> Iterator[tuple[Span, np.ndarray]]:
        """Motion [n, D] in raw units of each span, in no particular order; read(clip, start, stop) gives rows."""
        width = read(spans[0].clip, 0, 0).shape[1] if spans else 0
        for batch in self._batches(spans, self.model.decoder_halo()):
            length = max(last - first for _, first, last in batch)
            tokens = torch.zeros(len(batch), length, dtype=torch.bool)
            rows = np.zeros((len(batch), length, width), np.float32 if self.model.is_vae else np.int64)
            for row, (span, first, last) in enumerate(batch):
                rows[row, : last - first] = read(span.clip, first, last)
                tokens[row, : last - first] = True
            mask = None if bool(tokens.all()) else tokens.to(self.device)
            with torch.no_grad():
                motion = self.model.synthesize(self._inputs(rows), mask).cpu().numpy()
            for (span, first, _), frames in zip(batch, motion, strict=True):
                start = (span.start - first) * self.downsample
                yield span, frames[start : start + (span.stop - span.start) * self.downsample]

    def _inputs(self, rows: np.ndarray) -> Tensor:
        """What the decoder takes, [B, L, C], of codes [B, L, q] or a VAE's latents [B, L, dim]."""
        given = torch.from_numpy(rows).to(self.device)
        return self._vae.decode_latents(given) if self.model.is_vae else self.model.bottleneck.decode(given)

    # Files

    def reconstruct(
        self,
        motion: MotionSet,
        clips: Sequence[int],
        num_quantizers: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[Span, np.ndarray, np.ndarray]]:
        """(span, its codes [n, q], its reconstruction [n * downsample, D] in raw units) of those clips.

        The reconstruction of the last span of a clip is cut to the clip's length. A VAE gives mean and logvar
        [2, n, C] as codes and decodes the mean.
        """
        for first, last in self.groups(motion.lengths[list(clips)]):
            part = [span for clip in clips[first:last] for span in self._spans(clip, int(motion.lengths[clip]))]
            codes = self.encode_spans(part, motion.read, num_quantizers)
            for span, frames in self.decode_spans(part, self._reader(codes)):
                yield span, codes[span], frames[: self.num_frames(span)]
                if progress is not None:
                    progress(self.num_frames(span))

    def _reader(self, codes: dict[Span, np.ndarray]) -> Callable[[int, int, int], np.ndarray]:
        """read(clip, start, stop) over the codes of whole clips, for `_decode`."""
        pieces: dict[int, list[np.ndarray]] = {}
        for span in sorted(codes, key=lambda span: (span.clip, span.start)):
            pieces.setdefault(span.clip, []).append(codes[span][0] if self.model.is_vae else codes[span])
        whole = {clip: np.concatenate(rows) for clip, rows in pieces.items()}
        return lambda clip, start, stop: whole[clip][start:stop]

    def groups(self, lengths: np.ndarray) -> Iterator[tuple[int, int]]:
        """Ranges first..last of clips of those lengths, of about PART_TOKENS token frames each: whole clips."""
        first = held = 0
        for clip, tokens in enumerate((-(-lengths // self.downsample)).tolist(), 1):
            held += tokens
            if held >= PART_TOKENS:
                yield first, clip
                first, held = clip, 0
        if first < len(lengths):
            yield first, len(lengths)


def load(run: str | Path | TokenizerFile, *, device: str = "auto", numerics: str = "stable") -> Codec:
    """The tokenizer of a run folder, of a tokenizer.safetensors or of what was read from one, ready for use.

    numerics: "stable" gives the same codes whatever the batch, threads and padding; "fast" skips that check; "bfloat16"
    does too, with an encoder in bfloat16; "float64" does everything in float64.
    """
    info = run if isinstance(run, TokenizerFile) else read_tokenizer(Path(run))
    return Codec(load_model(info), info, device=device, numerics=numerics)


def _load(info: TokenizerFile, device: str, numerics: str) -> Codec:
    return load(info, device=device, numerics=numerics)


def _as_clips(motion: np.ndarray | Tensor, dim: int) -> np.ndarray:
    """One or several clips as [B, T, D] float32."""
    array = motion.detach().cpu().numpy() if isinstance(motion, Tensor) else np.asarray(motion)
    if array.ndim not in (2, 3) or array.shape[-1] != dim or array.dtype.kind not in "fiu":
        raise DataError(f"motion has the shape [T, {dim}] or [B, T, {dim}], not {list(array.shape)} {array.dtype}")
    return np.asarray(array if array.ndim == 3 else array[None], dtype=np.float32)


def _runs(span: Span, doubts: np.ndarray) -> list[tuple[Span, Span]]:
    """(span, piece) for each run of token frames of a span that is in doubt."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], doubts, [False]]).astype(np.int8)))
    return [
        (span, Span(span.clip, span.start + int(first), span.start + int(last), span.num_frames))
        for first, last in edges.reshape(-1, 2)
    ]
