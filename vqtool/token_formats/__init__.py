"""Tokens for language models and back: tokens.h5 to text, nanoGPT, Megatron, Parquet, npy, MotionGPT and CSV.

To add a format: a file that writes and reads it (see base.py), a line in `TOKEN_FORMATS`, a row in docs/tokens.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from vqtool.errors import DataError, MismatchError, UsageError, counted
from vqtool.publish import check_output, publish
from vqtool.skeleton import Skeleton
from vqtool.splits import selected
from vqtool.token_formats.arrays import read_npy, write_npy
from vqtool.token_formats.base import (
    Card,
    Export,
    Job,
    Record,
    TokenFormat,
    bodies_of,
    companions_of,
    read_card,
    sidecar,
    sound,
)
from vqtool.token_formats.binary import index_path, read_binary, write_megatron, write_nanogpt
from vqtool.token_formats.csv import read_csv, write_csv
from vqtool.token_formats.generated import Generated, read_generated
from vqtool.token_formats.parquet import read_parquet, read_parquet_card, require_pyarrow, write_parquet
from vqtool.token_formats.sequences import Sequences
from vqtool.token_formats.text import Spelling, read_text, write_motiongpt, write_text
from vqtool.tokenizer_file import TokenizerFile
from vqtool.tokens import TokenHeader, TokenSet, create_tokens

TOKEN_FORMATS = {
    "text": TokenFormat("JSON lines", write_text, read_text, frozenset({"flatten", "delay", "specials"})),
    "motiongpt": TokenFormat("MotionGPT's text", write_motiongpt, read_text, start=True, end=True),
    "nanogpt": TokenFormat("one stream of ids", write_nanogpt, read_binary, end=True),
    "megatron": TokenFormat(".bin and .idx", write_megatron, read_binary, end=True),
    "parquet": TokenFormat("Parquet", write_parquet, read_parquet),
    "npy": TokenFormat("an npy a clip", write_npy, read_npy, layers=True),
    "csv": TokenFormat("CSV", write_csv, read_csv, frozenset(), layers=True),
}


@dataclass(frozen=True)
class SequenceOptions:
    """What `vqtool export` was told of sequences; None is the format's own way."""

    flatten: str | None = None
    delay: bool = False
    start: bool | None = None
    end: bool | None = None
    pad_to: int | None = None
    offset: int = 0

    def given(self) -> dict[str, str]:
        """The options that were given, each with what a format must take."""
        marks = {"--start": self.start is not None, "--end": self.end is not None, "--pad-to": self.pad_to is not None}
        found = dict.fromkeys((name for name, used in marks.items() if used), "specials")
        found |= {"--flatten": "flatten"} if self.flatten is not None else {}
        found |= {"--delay": "delay"} if self.delay else {}
        return found | ({"--offset": "offset"} if self.offset else {})


@dataclass
class ExportedTokens:
    """What `export_tokens` did. `ids` is the size of the vocabulary."""

    clips: int
    token_frames: int
    vocabulary: int


def named_token_format(name: str) -> TokenFormat:
    """The format of that name; UsageError naming those there are."""
    if name not in TOKEN_FORMATS:
        raise UsageError(f"tokens are exported as {', '.join(TOKEN_FORMATS)}, not {name!r} (--format)")
    return TOKEN_FORMATS[name]


def sequences_for(format: str, sizes: tuple[int, ...], options: SequenceOptions) -> Sequences:
    """How a format writes clips; UsageError for an option that means nothing to it."""
    known = named_token_format(format)
    for option, needed in options.given().items():
        if needed not in known.takes:
            raise UsageError(f"{option} means nothing to --format {format}; leave it out")
        if known.layers and options.flatten is None and needed in ("specials", "offset"):
            raise UsageError(f"{option} needs one sequence; add --flatten interleaved, layer-major or first-layer")
    return Sequences(
        sizes,
        flatten=options.flatten or (None if known.layers else "interleaved"),
        delay=options.delay,
        start=known.start if options.start is None else options.start,
        end=known.end if options.end is None else options.end,
        pad_to=options.pad_to,
        offset=options.offset,
    )


def export_tokens(
    tokens: TokenSet,
    out: Path,
    format: str,
    options: SequenceOptions,
    *,
    split: str | None = None,
    vocab: Path | None = None,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ExportedTokens:
    """Write a tokens.h5 to `out` in one of TOKEN_FORMATS, whole or not at all, in memory that does not grow with it.

    `vocab` is a file for the tokens of the vocabulary, one a line. Raises UsageError for options that do not go
    together, DataError where the file is damaged or a sequence is longer than asked for.
    """
    known = named_token_format(format)
    if str(out) == "-":
        raise UsageError("-o names a file: what is needed to come back stands beside it")
    if tokens.is_latents:
        raise UsageError("holds the latents of a VAE, which are no tokens; a vq, rvq or fsq has them", file=tokens.path)
    sequences = sequences_for(format, tokens.header.codebook_sizes, options)
    tokens.header.check_layers(sequences.layers)
    clips = selected(tokens.companions.splits, len(tokens), split, tokens.path)
    if format == "parquet":
        require_pyarrow()
    files = [] if format == "npy" else [out] if format == "parquet" else [out, sidecar(out)]
    files += [index_path(out)] if format == "megatron" else []
    files += [] if vocab is None else [vocab]
    for path in files:
        check_output(path, force=force, inputs=(tokens.path,))
    known.write(Job(tokens, clips, out, format, sequences, force, progress))
    if vocab is not None:
        spelled = Spelling(sequences, "motion_id" if format == "motiongpt" else "m").tokens
        with publish(vocab, force=force) as file:
            file.write("".join(f"{token}\n" for token in spelled).encode())
    lengths = np.diff(tokens.offsets)[clips]
    return ExportedTokens(len(clips), int(lengths.sum()), sequences.size)


# Import


def has_card(path: Path) -> bool:
    """Whether `path` is an export that says itself how it was written."""
    if path.suffix == ".parquet":
        return path.is_file() and read_parquet_card(path) is not None
    return path.exists() and read_card(path) is not None


def is_export(path: Path) -> bool:
    """Whether `path` is an export of tokens, or has a suffix that only tokens have."""
    return (path.is_file() and path.suffix in (".jsonl", ".txt", ".bin")) or has_card(path)


def open_export(path: Path) -> Export | None:
    """An export at `path`, None where there is none: a file with its card beside it, a folder with one, or Parquet."""
    card: Card | None
    if path.suffix == ".parquet":
        card = read_parquet_card(path) if path.is_file() else None
    else:
        card = read_card(path) if path.exists() else None
    if card is None:
        return None
    with sound(path):
        return named_token_format(str(card["format"])).read(path, card)


@dataclass
class Reference:
    """The tokenizer that tokens belong to, for what they do not hold themselves.

    bodies  skeletons of a tokens.h5; clips that a model wrote get the first, or the one that their `body` numbers
    """

    header: TokenHeader
    codebooks: list[np.ndarray]
    where: str
    bodies: tuple[Skeleton, ...] = ()

    @classmethod
    def of_tokens(cls, path: Path) -> Reference:
        """That of a tokens.h5."""
        with TokenSet(path) as tokens:
            if tokens.is_latents:
                raise UsageError("holds latents; name a tokens.h5 or a run", file=path)
            return cls(tokens.header, tokens.codebooks, str(path), tokens.companions.bodies)

    @classmethod
    def of_run(cls, info: TokenizerFile, codebooks: list[np.ndarray]) -> Reference:
        """That of a run."""
        if not info.codebook_sizes:
            raise UsageError("is a VAE, which has no tokens; name a run of vq, rvq or fsq", file=info.path)
        header = TokenHeader(
            dim=info.dim,
            fps=info.fps,
            downsample=info.downsample,
            bottleneck=str(info.config["model"]["bottleneck"]),
            layout=info.layout,
            tokenizer_id=info.tokenizer_id,
            numerics="generated",
            source="[]",
            codebook_sizes=tuple(info.codebook_sizes),
            parts=info.parts,
        )
        return cls(header, codebooks, str(info.path))

    def codebooks_for(self, header: TokenHeader, path: Path) -> list[np.ndarray]:
        """The codebooks of those tokens; MismatchError where they are another tokenizer's."""
        sizes = header.codebook_sizes
        if header.tokenizer_id != self.header.tokenizer_id:
            mine, theirs = self.header.tokenizer_id[:12], header.tokenizer_id[:12]
            raise MismatchError(f"was made by tokenizer {theirs}, not by that of {self.where} ({mine})", file=path)
        if sizes != self.header.codebook_sizes[: len(sizes)]:
            what = f"has codebooks of {list(sizes)} codes, {self.where} {list(self.header.codebook_sizes)}"
            raise MismatchError(what, file=path)
        return self.codebooks[: len(sizes)]


@dataclass
class ImportedTokens:
    """What `import_tokens` did; `repaired` and `left_out` say what was done to which clip."""

    clips: int = 0
    frames: int = 0
    token_frames: int = 0
    codebooks: int = 0
    repaired: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ReadingOptions:
    """How tokens are read that no card explains: the sequence options of their writer, and whether to repair them.

    num_quantizers  how many layers they have (None: all of the tokenizer)
    """

    sequence: SequenceOptions = field(default_factory=SequenceOptions)
    num_quantizers: int | None = None
    repair: bool = False

    def sequences(self, header: TokenHeader, path: Path) -> Sequences:
        """How the tokens of a tokenizer stand in a file."""
        sizes, count = header.codebook_sizes, self.num_quantizers
        if count is not None and not 1 <= count <= len(sizes):
            raise UsageError(f"--num-quantizers {count}: the tokenizer has {counted(len(sizes), 'layers')}")
        header.check_layers(len(sizes[:count]))
        flatten = self.sequence.flatten
        if flatten is None and not (path.suffix == ".npy" and len(sizes[:count]) > 1):
            flatten = "interleaved"
        return Sequences(sizes[:count], flatten=flatten, delay=self.sequence.delay, offset=self.sequence.offset)


def import_tokens(
    paths: Sequence[Path],
    out: Path,
    *,
    reference: Reference | None = None,
    reading: ReadingOptions | None = None,
    force: bool = False,
    progress: Callable[[int], None] | None = None,
) -> ImportedTokens:
    """Make a tokens.h5 of exports (with their codebooks where a `reference` is named), or of what a model wrote.

    Exports are read twice, in memory that does not grow with their tokens. What has no card needs a `reference` and is
    read as `reading` says. Raises DataError for what cannot be, MismatchError where things do not belong together.
    """
    check_output(out, force=force, inputs=tuple(paths))
    exports = [(path, open_export(path)) for path in paths]
    if len(paths) == 1 and exports[0][1] is None:
        return _import_generated(paths[0], out, reference, reading or ReadingOptions(), force, progress)
    found: list[Export] = []
    for path, export in exports:
        if export is None:
            raise DataError("is no export of tokens with its .meta.json; import it by itself, with --like", file=path)
        found.append(export)
    if reading is not None and reading != ReadingOptions():
        raise UsageError("says itself how it was written; leave out the options that say so", file=paths[0])
    header, first = found[0].header, found[0]
    for other in found[1:]:
        if replace(other.header, source="", numerics="") != replace(header, source="", numerics=""):
            raise MismatchError(
                f"has not the same tokenizer and layers as {first.path}; import it apart", file=other.path
            )
        if any(other.card.get(key) != first.card.get(key) for key in ("skeleton", "records")):
            raise MismatchError(f"knows other things of its clips than {first.path}; import it apart", file=other.path)
    records = [record for export in found for record in export.records]
    _check_names(found)
    with sound(first.path):
        num_frames = np.array([int(record["num_frames"]) for record in records], dtype=np.int64)
        companions = companions_of(records, list(first.card["records"]), bodies_of(first.card))
    codebooks = [] if reference is None else reference.codebooks_for(header, first.path)
    names = [str(record["name"]) for record in records]
    done = ImportedTokens(len(names), int(num_frames.sum()), codebooks=len(codebooks))
    with create_tokens(out, names, num_frames, header, codebooks, companions=companions, force=force) as writer:
        waiting: list[np.ndarray] = []
        held = 0
        for export in found:
            for record, codes in zip(export.records, export.codes(), strict=True):
                _check_length(export, record, codes)
                waiting.append(codes)
                held += len(codes)
                if held >= 1 << 16:
                    writer.extend(codes=np.concatenate(waiting))
                    waiting, held = [], 0
                done.token_frames += len(codes)
                if progress is not None:
                    progress(len(codes))
        if waiting:
            writer.extend(codes=np.concatenate(waiting))
    return done


def _check_names(found: list[Export]) -> None:
    """DataError for a name that two clips have."""
    seen: dict[str, Path] = {}
    for export in found:
        for record in export.records:
            name: str = record["name"]
            if name in seen:
                raise DataError(f"is in {seen[name]} already; import each clip once", file=export.path, clip=name)
            seen[name] = export.path


def _check_length(export: Export, record: Record, codes: np.ndarray) -> None:
    wanted = -(-int(record["num_frames"]) // export.header.downsample)
    if len(codes) != wanted:
        what = f"has {counted(len(codes), 'token frames')}, but num_frames {record['num_frames']} asks for {wanted}"
        raise DataError(what, file=export.path, clip=record["name"])


def _import_generated(
    path: Path,
    out: Path,
    reference: Reference | None,
    reading: ReadingOptions,
    force: bool,
    progress: Callable[[int], None] | None,
) -> ImportedTokens:
    if reference is None:
        what = f"no {sidecar(path).name} says what it was made of; name the run or a tokens.h5 with --like"
        raise UsageError(what, file=path)
    sequences = reading.sequences(reference.header, path)
    header = replace(
        reference.header, codebook_sizes=sequences.sizes, numerics="generated", source=json.dumps([path.name])
    )
    found: Generated = read_generated(path, header, sequences, repair=reading.repair)
    names = [record["name"] for record in found.records]
    num_frames = np.array([record["num_frames"] for record in found.records], dtype=np.int64)
    codebooks = reference.codebooks[: len(sequences.sizes)]
    along = found.companions(path, reference.bodies)
    done = ImportedTokens(len(names), int(num_frames.sum()), codebooks=len(codebooks))
    with create_tokens(out, names, num_frames, header, codebooks, companions=along, force=force) as writer:
        for codes in found.codes:
            writer.extend(codes=codes)
            done.token_frames += len(codes)
            if progress is not None:
                progress(len(codes))
    done.repaired, done.left_out = found.repaired, found.left_out
    return done
