"""encode_file(), decode_file() and sample_file(): motion.h5 to tokens.h5 and back, in memory that does not grow.

Killed and begun again, they go on from the parts that are done (see parts.py), to the same bytes. The parts are the
unit of all work: one process makes one after the other, or workers (see workers.py) make them and it writes them; a
shard is a share of the clips, as an input of its own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vqtool
from vqtool.companions import Companions
from vqtool.errors import UsageError, counted
from vqtool.nn.codec import Codec, Progress, Span, use_threads
from vqtool.parts import Parts, keep_parts
from vqtool.shards import Shard, clip_range
from vqtool.skeleton import Skeleton
from vqtool.store import MotionSet, create_motion
from vqtool.tokens import TokenHeader, TokenSet, code_dtype, create_latents, create_tokens
from vqtool.workers import Workers

SAMPLE = 64  # clips that are encoded again in float32, to tell what bfloat16 changed


@dataclass
class Encoded:
    """What `encode_file` did; `parts_found` were done by a run before it that was stopped.

    changed  with numerics "bfloat16": the share of codes, of a sample of the clips, that float32 decides otherwise
    """

    clips: int
    frames: int
    token_frames: int
    skipped: list[str]
    decided_again: int
    parts_found: int
    changed: float | None = None


@dataclass
class Decoded:
    """What `decode_file` did."""

    clips: int
    frames: int
    parts_found: int


def _header(codec: Codec, source: str, num_quantizers: int) -> TokenHeader:
    """What a token file says of itself."""
    info = codec.info
    return TokenHeader(
        fps=info.fps,
        downsample=info.downsample,
        bottleneck=str(info.config["model"]["bottleneck"]),
        layout=info.layout,
        tokenizer_id=info.tokenizer_id,
        numerics=codec.numerics,
        source=source,
        dim=info.dim,
        codebook_sizes=tuple(info.codebook_sizes[:num_quantizers]),
        parts=info.parts,
    )


@dataclass
class EncodeSpans:
    """Rows of a token file from spans of motion."""

    codec: Codec
    motion: MotionSet
    num_quantizers: int | None
    threads: int

    def __call__(self, spans: list[Span], progress: Progress | None = None) -> dict[str, np.ndarray]:
        """Codes and decided_again, or mean and logvar, of the spans end to end."""
        use_threads(self.threads)
        codec = self.codec
        codec.decided_again = 0
        rows = codec.encode_spans(spans, self.motion.read, self.num_quantizers, progress)
        if codec.model.is_vae:
            return {name: np.concatenate([rows[s][n] for s in spans]) for n, name in enumerate(("mean", "logvar"))}
        dtype = code_dtype(codec.info.codebook_sizes[: self.num_quantizers])
        codes = np.concatenate([rows[span] for span in spans]).astype(dtype)
        return {"codes": codes, "decided_again": np.array(codec.decided_again)}


def encode_file(
    codec: Codec,
    motion: MotionSet,
    out: Path,
    *,
    num_quantizers: int | None = None,
    on_error: str = "stop",
    shard: tuple[int, int] | None = None,
    workers: Workers | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Encoded:
    """Encode all clips to a tokens.h5 (a VAE: latents.h5) in the order of the input.

    Begun again after a kill it goes on where it was. on_error "skip" leaves out clips with NaN or infinity and lists
    them; "stop" raises DataError at the first. `shard` (index, count) encodes one share of the clips, for `merge` to
    join; `workers` make the parts, to the same bytes.
    """
    codec.info.check_motion(motion)
    kept = codec.model.bottleneck.layers_asked(num_quantizers)
    row_bytes = 8 * (codec._vae.dim if codec.model.is_vae else kept)
    inexact = codec.numerics in ("fast", "bfloat16") or codec.model.is_vae
    machine = _machine(codec) if inexact else {}
    first, last = _share(codec, motion.lengths, row_bytes, shard, exact=not machine)
    clips, skipped = motion.usable(on_error, range(first, last))
    names = [motion.names[clip] for clip in clips]
    lengths = motion.lengths[clips]
    header = _header(codec, motion.source, kept)
    work = {"what": "encode", "motion": motion.identity, "layers": kept, **_key(codec)}
    along = motion.companions.select(clips)
    share = shard and Shard.make(shard, work, machine, (first, last), clips, motion.companions)
    if codec.model.is_vae:
        output = create_latents(out, names, lengths, header, codec._vae.dim, companions=along, shard=share, force=force)
    else:
        books = [book.cpu().numpy() for book in codec.model.bottleneck.codebooks()[:kept]]
        output = create_tokens(out, names, lengths, header, books, companions=along, shard=share, force=force)
    tokens = int((-(-lengths // codec.downsample)).sum())
    encode = EncodeSpans(codec, motion, num_quantizers, torch.get_num_threads())
    decided_again = 0
    size = codec.part_tokens(row_bytes)
    key = work | machine | {"clips": clips, "share": [first, last], "part_tokens": size}
    with keep_parts(out, key, several=tokens > size) as parts, output as writer:
        plan = _of_clips(codec.parts(motion.lengths[first:last], row_bytes, first), clips, last - first)
        for part in _made(encode, plan, parts, workers, progress):
            decided_again += int(part.pop("decided_again", 0))
            writer.extend(**part)
    changed = _changed(codec, motion, clips, num_quantizers) if codec.numerics == "bfloat16" else None
    return Encoded(len(clips), int(lengths.sum()), tokens, skipped, decided_again, parts.found, changed)


def _changed(codec: Codec, motion: MotionSet, clips: Sequence[int], num_quantizers: int | None) -> float | None:
    """The share of codes that are not those of float32, of the first spans of clips all over the set."""
    if codec.model.is_vae or not clips:
        return None
    spans = [next(codec._spans(clip, int(motion.lengths[clip])), None) for clip in clips[:: -(-len(clips) // SAMPLE)]]
    chosen = [span for span in spans if span is not None]
    plain = Codec(codec.model, codec.info, device=str(codec.device), numerics="fast")
    both = [one.encode_spans(chosen, motion.read, num_quantizers) for one in (codec, plain)]
    found = [np.concatenate([rows[span] for span in chosen]) if chosen else np.zeros((0, 1)) for rows in both]
    return float((found[0] != found[1]).mean()) if found[0].size else None


def _share(
    codec: Codec, lengths: np.ndarray, row_bytes: int, shard: tuple[int, int] | None, *, exact: bool
) -> tuple[int, int]:
    """The clips [first, last) of a shard, or all.

    Where last bits depend on what shares a batch (not `exact`), shards begin where parts of the serial run do: then
    they have its batches.
    """
    if shard is None:
        return 0, len(lengths)
    starts = np.arange(len(lengths))
    if not exact:
        begins = (spans[0] for spans in codec.parts(lengths, row_bytes))
        starts = np.array([span.clip for span in begins if span.start == 0], dtype=np.int64)
    return clip_range(shard, -(-lengths // codec.downsample), starts)


def _of_clips(plan: Iterable[list[Span]], clips: Sequence[int], of: int) -> Iterator[list[Span]]:
    """Parts without the clips that were left out of `of`; the others stay in their parts."""
    good = set(clips) if len(clips) < of else None
    for spans in plan:
        if chosen := spans if good is None else [span for span in spans if span.clip in good]:
            yield chosen


def _made(
    work: EncodeSpans | DecodeSpans,
    plan: Iterable[list[Span]],
    parts: Parts,
    workers: Workers | None,
    progress: Progress | None,
) -> Iterator[dict[str, np.ndarray]]:
    """The parts of an output in order: found of an earlier run, or made here or by the workers."""

    def told(spans: list[Span]) -> None:
        if progress is not None:
            progress(sum(map(work.codec.num_frames, spans)))

    if workers is None or not parts.several:
        for number, spans in enumerate(plan):
            part = parts.load(number)
            if part is None:
                part = work(spans, progress)
                parts.keep(number, part)
            else:
                told(spans)
            yield part
        return
    waiting: deque[int] = deque()  # looked at, not yet given back; in order
    done: set[int] = set()

    def missing() -> Iterator[tuple[int, list[Span]]]:
        for number, spans in enumerate(plan):
            waiting.append(number)
            if parts.load(number) is None:
                yield number, spans
            else:
                done.add(number)
                told(spans)

    def ready() -> Iterator[dict[str, np.ndarray]]:
        while waiting and waiting[0] in done:
            done.remove(waiting[0])
            yield parts.again(waiting.popleft())

    for number, spans, arrays in workers.run(work, missing()):
        parts.save(number, arrays)
        done.add(number)
        told(spans)
        yield from ready()
    yield from ready()


def _key(codec: Codec) -> dict[str, Any]:
    """What an output depends on, besides its input."""
    return {"vqtool": vqtool.__version__, "tokenizer": codec.info.tokenizer_id, "numerics": codec.numerics}


def _machine(codec: Codec) -> dict[str, Any]:
    """What the last bits of a float32 depend on."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": codec.device.type}


@dataclass
class DecodeSpans:
    """Frames of a motion file from spans of tokens, which read(clip, start, stop) gives."""

    codec: Codec
    read: TokenRows | NoiseRows
    threads: int

    def __call__(self, spans: list[Span], progress: Progress | None = None) -> dict[str, np.ndarray]:
        """The frames of the spans end to end."""
        use_threads(self.threads)
        ends = np.cumsum([self.codec.num_frames(span) for span in spans]).tolist()
        places = dict(zip(spans, zip([0, *ends], ends, strict=False), strict=True))
        found = np.empty((ends[-1], self.codec.info.dim), np.float32)
        for span, frames in self.codec.decode_spans(spans, self.read):
            first, last = places[span]
            found[first:last] = frames[: last - first]
            if progress is not None:
                progress(last - first)
        return {"frames": found}


@dataclass
class TokenRows:
    """The codes of a token file, or its latents: their mean, or with a seed a draw from the posterior."""

    tokens: TokenSet
    num_quantizers: int | None
    sample_seed: int | None

    def __call__(self, clip: int, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a clip."""
        tokens = self.tokens
        first, last = int(tokens.offsets[clip]) + start, int(tokens.offsets[clip]) + stop
        rows = tokens.rows("mean" if tokens.is_latents else "codes", first, last)[:, : self.num_quantizers]
        if self.sample_seed is None:
            return rows
        noise = _noise(self.sample_seed, first, last, tokens.width)
        return rows + np.exp(tokens.rows("logvar", first, last) / 2) * noise


@dataclass
class NoiseRows:
    """Latents that are noise; row i of clip n is row n * length + i of the seed."""

    seed: int
    temperature: float
    length: int
    dim: int

    def __call__(self, clip: int, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) of a clip."""
        first = clip * self.length
        return self.temperature * _noise(self.seed, first + start, first + stop, self.dim)


def decode_file(
    codec: Codec,
    tokens: TokenSet,
    out: Path,
    *,
    num_quantizers: int | None = None,
    sample_seed: int | None = None,
    shard: tuple[int, int] | None = None,
    workers: Workers | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode a tokens.h5 or latents.h5 to a motion.h5, every clip at its true length.

    Begun again after a kill it goes on where it was. Of latents the mean is decoded, or with a `sample_seed` a draw
    from the posterior. `shard` and `workers` are those of `encode_file`. Raises MismatchError for tokens of another
    tokenizer, DataError where the file is damaged.
    """
    codec.info.check_tokens(tokens)
    if num_quantizers is not None and (tokens.is_latents or not 1 <= num_quantizers <= tokens.width):
        have = 0 if tokens.is_latents else tokens.width
        raise UsageError(f"--num-quantizers {num_quantizers}: the file has {counted(have, 'layers')}", file=tokens.path)
    tokens.header.check_layers(tokens.width if num_quantizers is None else num_quantizers)
    if sample_seed is not None and not tokens.is_latents:
        raise UsageError("--sample is for the latents of a VAE; these are codes", file=tokens.path)
    tokens.check()
    return _write_motion(
        codec,
        out,
        tokens.names,
        tokens.num_frames,
        TokenRows(tokens, num_quantizers, sample_seed),
        {"what": "decode", "tokens": tokens.identity, "layers": num_quantizers, "seed": sample_seed},
        source=tokens.path.name,
        companions=tokens.companions,
        shard=shard,
        workers=workers,
        force=force,
        progress=progress,
    )


def sample_file(
    codec: Codec,
    out: Path,
    *,
    clips: int,
    num_frames: int,
    seed: int = 0,
    temperature: float = 1.0,
    body: Skeleton | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode z ~ N(0, temperature^2 I), drawn by itself for every token frame, to clips sample_0001 and on.

    z of token frame i of clip n is that of row n * L + i of the seed, so more clips begin with the same ones. `body` is
    the skeleton that the clips get. Raises UsageError for a tokenizer that has codes.
    """
    if not codec.model.is_vae:
        what = f"is a tokenizer of {codec.info.config['model']['bottleneck']}, whose codes need a model of tokens"
        raise UsageError(f"{what} (see examples/text_to_motion); only a VAE can be sampled", file=codec.info.path)
    if not 0 <= temperature < math.inf:
        raise UsageError(f"--temperature is a number from 0 on, not {temperature}")
    companions = Companions(
        bodies=() if body is None else (body,), body_of=None if body is None else np.zeros(clips, np.int64)
    )
    return _write_motion(
        codec,
        out,
        [f"sample_{number:04d}" for number in range(1, clips + 1)],
        np.full(clips, num_frames),
        NoiseRows(seed, temperature, -(-num_frames // codec.downsample), codec._vae.dim),
        {"what": "sample", "clips": clips, "frames": num_frames, "seed": seed, "temperature": temperature},
        source=f"sample --seed {seed} --temperature {temperature:g}",
        companions=companions,
        force=force,
        progress=progress,
    )


def _write_motion(
    codec: Codec,
    out: Path,
    names: Sequence[str],
    lengths: np.ndarray,
    read: TokenRows | NoiseRows,
    work: dict[str, Any],
    *,
    source: str,
    companions: Companions,
    shard: tuple[int, int] | None = None,
    workers: Workers | None = None,
    force: bool,
    progress: Progress | None,
) -> Decoded:
    """Write the motion of clips of those lengths, or of a share of them; `work` is what `read` depends on."""
    row_bytes = 4 * codec.info.dim * codec.downsample
    first, last = _share(codec, lengths, row_bytes, shard, exact=False)
    share = None
    work, machine = work | _key(codec), _machine(codec)
    if shard is not None:
        clips = range(first, last)
        share = Shard.make(shard, work, machine, (first, last), clips, companions)
        names, lengths, companions = names[first:last], lengths[first:last], companions.select(clips)
    total = int(lengths.sum())
    output = create_motion(
        out,
        dim=codec.info.dim,
        fps=codec.info.fps,
        layout=codec.info.layout,
        source=source,
        total_frames=total,
        force=force,
    )
    size = codec.part_tokens(row_bytes)
    several = int((-(-lengths // codec.downsample)).sum()) > size
    key = work | machine | {"share": [first, last], "part_tokens": size}
    with keep_parts(out, key, several=several) as parts, output as writer:
        writer.companions, writer.shard = companions, share
        decode = DecodeSpans(codec, read, torch.get_num_threads())
        for part in _made(decode, codec.parts(lengths, row_bytes, first), parts, workers, progress):
            writer.extend(part["frames"])
        for name, length in zip(names, lengths.tolist(), strict=True):
            writer.end_clip(name, frames=length)
    return Decoded(len(names), total, parts.found)


def _noise(seed: int, first: int, last: int, width: int) -> np.ndarray:
    """Standard normal rows [last - first, width]; row i depends on (seed, i) alone, whatever is asked for with it."""
    size = 256  # rows of a block, each block with a generator of its own
    blocks = range(first // size, -(-last // size))
    rows = [np.random.Generator(np.random.Philox(key=[seed, block])).standard_normal((size, width)) for block in blocks]
    noise = np.concatenate(rows or [np.zeros((0, width))])
    return noise[first - first // size * size :][: last - first].astype(np.float32)
