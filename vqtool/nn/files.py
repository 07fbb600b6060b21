"""encode_file() and decode_file(): motion.h5 to tokens.h5 and back, in memory that does not grow with the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqtool.errors import DataError, MismatchError, UsageError
from vqtool.nn.codec import Codec, Progress
from vqtool.store import MotionSet, create_motion
from vqtool.tokens import TokenHeader, TokenSet, code_dtype, create_latents, create_tokens


@dataclass
class Encoded:
    """What `encode_file` did."""

    clips: int
    frames: int
    token_frames: int
    skipped: list[str]
    decided_again: int


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

    on_error "skip" leaves out clips with NaN or infinity and lists them; "stop" raises DataError at the first.
    """
    codec.check_motion(motion)
    kept = codec.model.bottleneck.layers_asked(num_quantizers)
    motion.verify()
    clips, skipped = check_clips(motion, on_error)
    names = [motion.names[clip] for clip in clips]
    lengths = motion.lengths[clips]
    codec.decided_again = 0
    header = _header(codec, motion.source, kept)
    along = motion.companions.select(clips)
    if codec.model.is_vae:
        output = create_latents(out, names, lengths, header, codec._vae.dim, companions=along, force=force)
    else:
        codebooks = [book.cpu().numpy() for book in codec.model.bottleneck.codebooks()[:kept]]
        output = create_tokens(out, names, lengths, header, codebooks, companions=along, force=force)
    with output as writer:
        for spans in codec.parts(lengths, 8 * (codec._vae.dim if codec.model.is_vae else kept)):
            rows = codec.encode_spans(
                spans, lambda clip, start, stop: motion.read(clips[clip], start, stop), num_quantizers, progress
            )
            for span in spans:
                if codec.model.is_vae:
                    writer.extend(mean=rows[span][0], logvar=rows[span][1])
                else:
                    writer.extend(codes=rows[span].astype(code_dtype(header.codebook_sizes)))
    tokens = int((-(-lengths // codec.downsample)).sum())
    return Encoded(len(clips), int(lengths.sum()), tokens, skipped, codec.decided_again)


def check_clips(motion: MotionSet, on_error: str) -> tuple[list[int], list[str]]:
    """Clips to work on, and why others are left out (only with on_error "skip"); every frame is read once."""
    clips, skipped = [], []
    for clip in range(len(motion)):
        try:
            motion.check(clip)
            clips.append(clip)
        except DataError as error:
            if on_error != "skip":
                raise
            skipped.append(str(error))
    return clips, skipped


def decode_file(
    codec: Codec,
    tokens: TokenSet,
    out: Path,
    *,
    num_quantizers: int | None = None,
    sample_seed: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> int:
    """Decode a tokens.h5 or latents.h5 to a motion.h5, every clip at its true length; returns the frames written.

    Of latents the mean is decoded, or with a `sample_seed` a draw from the posterior. Raises MismatchError for tokens
    of another tokenizer, DataError where the file is damaged.
    """
    if tokens.header.tokenizer_id != codec.info.tokenizer_id:
        mine, theirs = codec.info.tokenizer_id[:12], tokens.header.tokenizer_id[:12]
        what = f"was made by tokenizer {theirs}, not by {codec.info.path} ({mine}); name the run that encoded it"
        raise MismatchError(what, file=tokens.path)
    if num_quantizers is not None and (tokens.is_latents or not 1 <= num_quantizers <= tokens.width):
        have = 0 if tokens.is_latents else tokens.width
        raise UsageError(f"--num-quantizers {num_quantizers}: the file has {have} layers", file=tokens.path)
    if sample_seed is not None and not tokens.is_latents:
        raise UsageError("--sample is for the latents of a VAE; these are codes", file=tokens.path)
    tokens.verify()
    column = "mean" if tokens.is_latents else "codes"
    if not tokens.is_latents:
        tokens.check_codes()

    def read(clip: int, start: int, stop: int) -> np.ndarray:
        first, last = int(tokens.offsets[clip]) + start, int(tokens.offsets[clip]) + stop
        rows = tokens.rows(column, first, last)[:, :num_quantizers]
        if sample_seed is None:
            return rows
        return rows + np.exp(tokens.rows("logvar", first, last) / 2) * _noise(sample_seed, first, last, tokens.width)

    total = int(tokens.num_frames.sum())
    with create_motion(
        out,
        dim=codec.info.dim,
        fps=tokens.header.fps,
        layout=tokens.header.layout,
        source=tokens.path.name,
        total_frames=total,
        force=force,
    ) as writer:
        writer.companions = tokens.companions
        done = 0  # clips that are complete
        for spans in codec.parts(tokens.num_frames, 4 * codec.info.dim * codec.downsample):
            rows = {}
            for span, frames in codec.decode_spans(spans, read):
                rows[span] = frames[: span.num_frames - span.start * codec.downsample]
                if progress is not None:
                    progress(len(rows[span]))
            for span in spans:
                while done < span.clip:
                    writer.end_clip(tokens.names[done])
                    done += 1
                writer.extend(rows[span])
        for name in tokens.names[done:]:
            writer.end_clip(name)
    return total


def _noise(seed: int, first: int, last: int, width: int) -> np.ndarray:
    """Standard normal rows [last - first, width]; row i depends on (seed, i) alone, whatever is asked for with it."""
    size = 256  # rows of a block, each block with a generator of its own
    blocks = range(first // size, -(-last // size))
    rows = [np.random.Generator(np.random.Philox(key=[seed, block])).standard_normal((size, width)) for block in blocks]
    noise = np.concatenate(rows or [np.zeros((0, width))])
    return noise[first - first // size * size :][: last - first].astype(np.float32)
