"""encode_file(), decode_file() and sample_file(): motion.h5 to tokens.h5 and back, in memory that does not grow.

Killed and begun again, they go on from the parts that are done (see parts.py), to the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vqtool
from vqtool.companions import Companions
from vqtool.errors import UsageError
from vqtool.nn.codec import Codec, Progress, Span
from vqtool.parts import keep_parts
from vqtool.skeleton import Skeleton
from vqtool.store import MotionSet, create_motion
from vqtool.tokens import TokenHeader, TokenSet, code_dtype, create_latents, create_tokens

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


def encode_file(
    codec: Codec,
    motion: MotionSet,
    out: Path,
    *,
    num_quantizers: int | None = None,
    on_error: str = "stop",
    force: bool = False,
    progress: Progress | None = None,
) -> Encoded:
    """Encode all clips to a tokens.h5 (a VAE: latents.h5) in the order of the input.

    Begun again after a kill it goes on where it was. on_error "skip" leaves out clips with NaN or infinity and lists
    them; "stop" raises DataError at the first.
    """
    codec.info.check_motion(motion)
    kept = codec.model.bottleneck.layers_asked(num_quantizers)
    clips, skipped = motion.usable(on_error)
    names = [motion.names[clip] for clip in clips]
    lengths = motion.lengths[clips]
    header = _header(codec, motion.source, kept)
    along = motion.companions.select(clips)
    key = {"what": "encode", "motion": motion.identity, "clips": clips, "layers": kept, **_key(codec)}
    if codec.model.is_vae:
        row_bytes = 8 * codec._vae.dim
        output = create_latents(out, names, lengths, header, codec._vae.dim, companions=along, force=force)
    else:
        row_bytes = 8 * kept
        codebooks = [book.cpu().numpy() for book in codec.model.bottleneck.codebooks()[:kept]]
        output = create_tokens(out, names, lengths, header, codebooks, companions=along, force=force)
    tokens = int((-(-lengths // codec.downsample)).sum())
    decided_again = 0

    def encode(spans: list[Span]) -> dict[str, np.ndarray]:
        codec.decided_again = 0
        rows = codec.encode_spans(
            spans, lambda clip, start, stop: motion.read(clips[clip], start, stop), num_quantizers, progress
        )
        if codec.model.is_vae:
            return {name: np.concatenate([rows[s][n] for s in spans]) for n, name in enumerate(("mean", "logvar"))}
        codes = np.concatenate([rows[span] for span in spans]).astype(code_dtype(header.codebook_sizes))
        return {"codes": codes, "decided_again": np.array(codec.decided_again)}

    with keep_parts(out, key, several=tokens > codec.part_tokens(row_bytes)) as parts, output as writer:
        for number, spans in enumerate(codec.parts(lengths, row_bytes)):
            part = parts.load(number)
            if part is None:
                part = parts.save(number, encode(spans))
            elif progress is not None:
                progress(sum(map(codec.num_frames, spans)))
            decided_again += int(part.pop("decided_again", 0))
            writer.extend(**part)
    changed = _changed(codec, motion, clips, num_quantizers) if codec.numerics == "bfloat16" else None
    return Encoded(len(clips), int(lengths.sum()), tokens, skipped, decided_again, parts.found, changed)


def _changed(codec: Codec, motion: MotionSet, clips: Sequence[int], num_quantizers: int | None) -> float | None:
    """The share of codes that are not those of float32, of the first spans of clips all over the set."""
    if codec.model.is_vae:
        return None
    spans = [next(codec._spans(clip, int(motion.lengths[clip])), None) for clip in clips[:: -(-len(clips) // SAMPLE)]]
    chosen = [span for span in spans if span is not None]
    plain = Codec(codec.model, codec.info, device=str(codec.device), numerics="fast")
    both = [one.encode_spans(chosen, motion.read, num_quantizers) for one in (codec, plain)]
    found = [np.concatenate([rows[span] for span in chosen]) if chosen else np.zeros((0, 1)) for rows in both]
    return float((found[0] != found[1]).mean()) if found[0].size else None


def _key(codec: Codec) -> dict[str, Any]:
    """What the bits of an output depend on, besides its input."""
    key = {"vqtool": vqtool.__version__, "tokenizer": codec.info.tokenizer_id, "numerics": codec.numerics}
    if codec.numerics in ("fast", "bfloat16") or codec.model.is_vae:
        key |= _machine(codec)
    return key


def _machine(codec: Codec) -> dict[str, Any]:
    """What the last bits of a float32 depend on."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": codec.device.type}


def decode_file(
    codec: Codec,
    tokens: TokenSet,
    out: Path,
    *,
    num_quantizers: int | None = None,
    sample_seed: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Decoded:
    """Decode a tokens.h5 or latents.h5 to a motion.h5, every clip at its true length.

    Begun again after a kill it goes on where it was. Of latents the mean is decoded, or with a `sample_seed` a draw
    from the posterior. Raises MismatchError for tokens of another tokenizer, DataError where the file is damaged.
    """
    codec.info.check_tokens(tokens)
    if num_quantizers is not None and (tokens.is_latents or not 1 <= num_quantizers <= tokens.width):
        have = 0 if tokens.is_latents else tokens.width
        raise UsageError(f"--num-quantizers {num_quantizers}: the file has {have} layers", file=tokens.path)
    tokens.header.check_layers(tokens.width if num_quantizers is None else num_quantizers)
    if sample_seed is not None and not tokens.is_latents:
        raise UsageError("--sample is for the latents of a VAE; these are codes", file=tokens.path)
    tokens.check()
    column = "mean" if tokens.is_latents else "codes"

    def read(clip: int, start: int, stop: int) -> np.ndarray:
        first, last = int(tokens.offsets[clip]) + start, int(tokens.offsets[clip]) + stop
        rows = tokens.rows(column, first, last)[:, :num_quantizers]
        if sample_seed is None:
            return rows
        return rows + np.exp(tokens.rows("logvar", first, last) / 2) * _noise(sample_seed, first, last, tokens.width)

    key = {"what": "decode", "tokens": tokens.identity, "layers": num_quantizers, "seed": sample_seed}
    return _write_motion(
        codec,
        out,
        tokens.names,
        tokens.num_frames,
        read,
        key,
        source=tokens.path.name,
        companions=tokens.companions,
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
    length = -(-num_frames // codec.downsample)

    def read(clip: int, start: int, stop: int) -> np.ndarray:
        first = clip * length
        return temperature * _noise(seed, first + start, first + stop, codec._vae.dim)

    companions = Companions(
        bodies=() if body is None else (body,), body_of=None if body is None else np.zeros(clips, np.int64)
    )
    names = [f"sample_{number:04d}" for number in range(1, clips + 1)]
    key = {"what": "sample", "clips": clips, "frames": num_frames, "seed": seed, "temperature": temperature}
    return _write_motion(
        codec,
        out,
        names,
        np.full(clips, num_frames),
        read,
        key,
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
    read: Callable[[int, int, int], np.ndarray],
    key: dict[str, Any],
    *,
    source: str,
    companions: Companions,
    force: bool,
    progress: Progress | None,
) -> Decoded:
    """Write the motion of clips of those lengths; read(clip, start, stop) gives rows, `key` is what they depend on."""

    def decode(spans: list[Span]) -> dict[str, np.ndarray]:
        rows = {}
        for span, frames in codec.decode_spans(spans, read):
            rows[span] = frames[: codec.num_frames(span)]
            if progress is not None:
                progress(len(rows[span]))
        return {"frames": np.concatenate([rows[span] for span in spans])}

    total = int(lengths.sum())
    row_bytes = 4 * codec.info.dim * codec.downsample
    output = create_motion(
        out,
        dim=codec.info.dim,
        fps=codec.info.fps,
        layout=codec.info.layout,
        source=source,
        total_frames=total,
        force=force,
    )
    several = int((-(-lengths // codec.downsample)).sum()) > codec.part_tokens(row_bytes)
    with keep_parts(out, key | _key(codec) | _machine(codec), several=several) as parts, output as writer:
        writer.companions = companions
        for number, spans in enumerate(codec.parts(lengths, row_bytes)):
            part = parts.load(number)
            if part is None:
                part = parts.save(number, decode(spans))
            elif progress is not None:
                progress(sum(map(codec.num_frames, spans)))
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
