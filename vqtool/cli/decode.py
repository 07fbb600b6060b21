"""`vqtool decode`."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqtool.cli.import_ import tell_repairs
from vqtool.cli.options import (
    Delay,
    Device,
    Engine,
    Flatten,
    Force,
    Json,
    Layers,
    Offset,
    Output,
    Quiet,
    Repair,
    Run,
    ShardOf,
    Threads,
    WorkerCount,
    make_workers,
    metered,
    tell_parts,
)
from vqtool.errors import counted

if TYPE_CHECKING:
    from vqtool.token_formats import ImportedTokens, ReadingOptions
    from vqtool.tokenizer_file import TokenizerFile


def decode(
    run: Run,
    tokens: Annotated[
        Path,
        typer.Argument(
            metavar="TOKENS",
            help="tokens.h5, latents.h5, an export, or what a model wrote: text, JSON lines, npy; - is stdin.",
            readable=False,
        ),
    ],
    output: Output,
    num_quantizers: Layers = None,
    sample: Annotated[bool, typer.Option("--sample", help="Of a VAE: draw from the posterior, not its mean.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of --sample.")] = 0,
    like: Annotated[
        Path | None,
        typer.Option("--like", metavar="TOKENS", help="A tokens.h5 whose skeleton what a model wrote gets."),
    ] = None,
    flatten: Flatten = None,
    delay: Delay = False,
    offset: Offset = 0,
    repair: Repair = False,
    shard: ShardOf = None,
    workers: WorkerCount = None,
    engine: Engine = "local",
    device: Device = "auto",
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Decode tokens to motion, every clip at its true length: a token file, or what a language model wrote.

    Tokens of another tokenizer are refused (exit code 76). In text, a token that cannot be is refused with its line
    and place (65), or with --repair the clip is cut before it.

    Example: vqtool decode runs/imu imu.tokens.h5 -o imu.decoded.h5
    """
    from vqtool.errors import MissingInputError, UsageError
    from vqtool.publish import check_output
    from vqtool.shards import parse_shard
    from vqtool.token_formats import ReadingOptions, SequenceOptions, has_card
    from vqtool.tokenizer_file import read_tokenizer
    from vqtool.tokens import TokenSet

    share = None if shard is None else parse_shard(shard)
    check_output(output, force=force, inputs=(tokens,))
    reading = ReadingOptions(SequenceOptions(flatten=flatten, delay=delay, offset=offset), num_quantizers, repair)
    stored = False
    if str(tokens) != "-":
        if not tokens.exists():
            raise MissingInputError("no such file", file=tokens)
        stored = _is_hdf5(tokens)
        if stored or has_card(tokens):
            reading = ReadingOptions(reading.sequence, repair=repair)
            if reading != ReadingOptions() or like is not None:
                what = "says itself what it is; leave out --flatten, --delay, --offset, --repair and --like"
                raise UsageError(what, file=tokens)
    tokenizer = read_tokenizer(run)
    with contextlib.ExitStack() as stack:
        read = None
        if not stored:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vqtool-")))
            tokens, read = _of_text(tokenizer, tokens, folder, reading, like)
            num_quantizers = None if reading.num_quantizers else num_quantizers
        clips = stack.enter_context(TokenSet(tokens))
        tokenizer.check_tokens(clips)
        clips.check()  # before torch, which takes seconds to come
        from vqtool.nn.codec import load
        from vqtool.nn.files import decode_file

        team = make_workers(workers, engine, threads, device)
        codec = load(tokenizer, device=device)
        frames = int(clips.num_frames.sum()) // (1 if share is None else share[1])
        with metered(frames, "frame", quiet) as meter:
            done = decode_file(
                codec,
                clips,
                output,
                num_quantizers=num_quantizers,
                sample_seed=seed if sample else None,
                shard=share,
                workers=team,
                force=force,
                progress=meter.add,
            )
    tell_parts(done.parts_found, quiet)
    left_out = 0 if read is None else len(read.left_out)
    if as_json:
        result = {"schema_version": 1, "output": str(output), "clips": done.clips, "frames": done.frames}
        result |= {"repaired": 0 if read is None else len(read.repaired), "left_out": left_out}
        typer.echo(json.dumps(result | {"parts_found": done.parts_found, "seconds": round(meter.seconds, 3)}))
    else:
        rate = done.frames / max(meter.seconds, 1e-9)
        typer.echo(f"{output}: {counted(done.clips, 'clips')}, {counted(done.frames, 'frames')} ({rate:,.0f} frames/s)")
    if left_out:
        raise typer.Exit(3)


def _is_hdf5(path: Path) -> bool:
    """Whether a file is, or is called as, HDF5; or is a folder that no export made."""
    from vqtool.formats import HDF5
    from vqtool.reading import first_bytes
    from vqtool.token_formats import has_card

    if path.is_dir():
        return not has_card(path)
    return path.suffix in HDF5 or (path.is_file() and first_bytes(path, 4) == b"\x89HDF")


def _of_text(
    tokenizer: TokenizerFile, path: Path, folder: Path, reading: ReadingOptions, like: Path | None
) -> tuple[Path, ImportedTokens]:
    """A tokens.h5 in `folder` of an export, or of what a model wrote."""
    from vqtool.errors import VqtoolError
    from vqtool.token_formats import Reference, import_tokens

    reference = Reference.of_run(tokenizer, [])
    if like is not None:
        body = Reference.of_tokens(like)
        reference.codebooks_for(body.header, like)  # refuses tokens of another run
        reference.bodies = body.bodies
    name, source = path.name, path
    if str(path) == "-" or not (path.is_file() or path.is_dir()):  # stdin or a pipe can be read once
        name = "stdin" if str(path) == "-" else name
        data = sys.stdin.buffer.read() if name == "stdin" else path.read_bytes()
        source = folder / (f"{name}.npy" if data.startswith(b"\x93NUMPY") else name)
        source.write_bytes(data)
    out = folder / "tokens" / name
    out.parent.mkdir()
    try:
        done = import_tokens([source], out, reference=reference, reading=reading)
    except VqtoolError as error:
        error.file = name if error.file == str(source) and source != path else error.file
        raise
    tell_repairs(done)
    return out, done
