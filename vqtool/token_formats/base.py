"""What every token format shares: the record of a clip, the card of a set, and the sidecar that holds them.

The card is one JSON object: the header of tokens.h5, how sequences are made, the vocabulary, the skeletons. The record
of a clip is one too: name, num_frames, captions, fps, and what else is known of it. Together they are all of a
tokens.h5 but its codes and codebooks.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

import vqtool
from vqtool.companions import Caption, Companions
from vqtool.errors import DataError, UsageError
from vqtool.publish import LatchingFile, publish
from vqtool.reading import opened, read_bytes
from vqtool.skeleton import BvhTemplate, Skeleton
from vqtool.splits import NO_SPLIT, SPLITS
from vqtool.token_formats.sequences import MAX_ID, SPECIAL, BadToken, Sequences
from vqtool.tokens import TokenHeader, TokenSet, code_dtype

KIND = "vqtool.token_export"
SPLIT_NAMES = {number: name for name, number in SPLITS.items()}
MAX_CARD_BYTES = 4 << 30
MAX_LINE_BYTES = 256 << 20
Record = dict[str, Any]
Card = dict[str, Any]


@dataclass
class Job:
    """Clips of a tokens.h5 to write to `out`, in the order of `clips`."""

    tokens: TokenSet
    clips: Sequence[int]
    out: Path
    format: str
    sequences: Sequences
    force: bool = False
    progress: Callable[[int], None] | None = None

    def codes(self) -> Iterator[tuple[Record, np.ndarray]]:
        """The record and the codes [L, Q] of each clip; the file is read once, in blocks, checked and verified."""
        tokens, along = self.tokens, records(self.tokens, self.clips)
        ends = tokens.offsets[np.asarray(self.clips, dtype=np.int64) + 1].tolist()
        starts = tokens.offsets[np.asarray(self.clips, dtype=np.int64)].tolist()
        blocks = tokens.checked_blocks()
        held = np.zeros(
            (0, tokens.width), code_dtype(tokens.header.codebook_sizes)
        )  # rows [first, first + len(held)) of the file
        first = 0
        for record, start, end in zip(along, starts, ends, strict=True):
            pieces = []
            while first + len(held) < end:
                pieces.append(held[max(0, start - first) :])
                first += len(held)
                held = next(blocks)
            pieces.append(held[max(0, start - first) : max(0, end - first)])
            yield record, pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            if self.progress is not None:
                self.progress(end - start)
        for _ in blocks:
            pass
        tokens.verify()

    def sequence(self, record: Record, codes: np.ndarray) -> np.ndarray:
        """The ids of a clip; DataError naming it where they do not fit."""
        try:
            return self.sequences.ids(codes)
        except DataError as error:
            raise DataError(error.what, file=self.tokens.path, clip=record["name"]) from None

    def card(self) -> Card:
        """What holds for the whole set."""
        sequences = self.sequences
        plan = asdict(sequences)
        del plan["codebook_sizes"]
        vocabulary = {
            "size": sequences.size,
            "layers": (sequences.bases[:-1] + sequences.offset).tolist(),
            **{name: sequences.special(name) + sequences.offset for name in SPECIAL},
        }
        header = asdict(self.tokens.header)
        header["codebook_sizes"] = list(self.tokens.header.codebook_sizes)
        header["parts"] = list(self.tokens.header.parts)
        if not header["parts"]:
            del header["parts"]
        found: Card = {
            "kind": KIND,
            "schema_version": 1,
            "format": self.format,
            "vqtool_version": vqtool.__version__,
            **header,
            "records": optional_keys(self.tokens),
            "sequences": plan,
        }
        if sequences.flatten is not None:
            found["vocabulary"] = vocabulary
        if (bodies := self.tokens.companions.bodies) and self.tokens.companions.body_of is not None:
            found["skeleton"] = _skeleton_card(bodies)
        return found


# Records


def optional_keys(tokens: TokenSet) -> list[str]:
    """The keys that the records of a file have besides name, captions, fps and num_frames."""
    along = tokens.companions
    known = {
        "split": along.splits is not None,
        "caption_times": any(one.start_s or one.end_s for one in along.captions),
        "caption_words": any(one.words for one in along.captions),
        "mirror_of": along.mirror_of is not None,
        "start": along.starts is not None,
        "body": along.body_of is not None,
    }
    return [key for key, here in known.items() if here]


def records(tokens: TokenSet, clips: Sequence[int]) -> Iterator[Record]:
    """The record of each clip; all have the same keys."""
    along, keys = tokens.companions, optional_keys(tokens)
    captions: dict[int, list[Caption]] = {}
    for one in along.captions:
        captions.setdefault(one.clip, []).append(one)
    for clip in clips:
        mine = captions.get(clip, [])
        record: Record = {
            "name": tokens.names[clip],
            "captions": [one.text for one in mine],
            "fps": tokens.header.fps,
            "num_frames": int(tokens.num_frames[clip]),
        }
        if along.splits is not None:
            record["split"] = SPLIT_NAMES.get(int(along.splits[clip]))
        if "caption_times" in keys:
            record["caption_times"] = [[_short(one.start_s), _short(one.end_s)] for one in mine]
        if "caption_words" in keys:
            record["caption_words"] = [one.words for one in mine]
        if along.mirror_of is not None:
            of = int(along.mirror_of[clip])
            record["mirror_of"] = None if of < 0 else tokens.names[of]
        if along.starts is not None:
            record["start"] = along.starts[clip].tolist()
        if along.body_of is not None:
            record["body"] = int(along.body_of[clip])
        yield record


def _short(seconds: float) -> float:
    """The shortest number that is the same float32."""
    return float(str(np.float32(seconds)))


def companions_of(found: Sequence[Record], keys: Sequence[str], bodies: tuple[Skeleton, ...]) -> Companions:
    """What records with those optional keys, and skeletons, say of clips.

    Raises KeyError, TypeError or ValueError for what says nothing.
    """
    number = {record["name"]: clip for clip, record in enumerate(found)}
    captions: list[Caption] = []
    for clip, record in enumerate(found):
        texts = record.get("captions") or []
        times = record.get("caption_times") or [[0.0, 0.0]] * len(texts)
        words = record.get("caption_words") or [""] * len(texts)
        for text, (start, end), tagged in zip(texts, times, words, strict=True):
            captions.append(Caption(clip, str(text), float(start), float(end), str(tagged)))

    splits = [_split(record.get("split")) for record in found]
    mirrors = [record.get("mirror_of") for record in found]
    mirror_of = [-1 if of is None else number.get(of, clip) for clip, of in enumerate(mirrors)]
    body_of = [int(record.get("body", 0)) for record in found]
    if bodies and not all(0 <= body < len(bodies) for body in body_of):
        raise ValueError("body")
    starts = [[float(value) for value in record.get("start", (0.0, 0.0, 0.0))] for record in found]
    return Companions(
        splits=np.array(splits, dtype=np.uint8) if "split" in keys else None,
        mirror_of=np.array(mirror_of, dtype="<i8") if "mirror_of" in keys else None,
        starts=np.array(starts, dtype="<f8").reshape(-1, 3) if "start" in keys else None,
        bodies=bodies,
        body_of=np.array(body_of, dtype="<i8") if bodies else None,
        captions=tuple(captions),
    )


def _split(name: object) -> int:
    if name is not None and name not in SPLITS:
        raise ValueError("split")
    return NO_SPLIT if name is None else SPLITS[str(name)]


def _skeleton_card(bodies: tuple[Skeleton, ...]) -> dict[str, Any]:
    templates = [body.bvh for body in bodies]
    return {
        "names": list(bodies[0].names),
        "parents": list(bodies[0].parents),
        "offsets": [body.offsets.tolist() for body in bodies],
        "bvh": [None if one is None else [one.hierarchy, one.metres_per_unit, one.up] for one in templates],
    }


def bodies_of(card: Card) -> tuple[Skeleton, ...]:
    """The skeletons of a card. Raises KeyError, TypeError or ValueError where they are none."""
    if (found := card.get("skeleton")) is None:
        return ()
    names = tuple(_typed(name, str) for name in found["names"])
    parents = tuple(_typed(parent, int) for parent in found["parents"])
    bodies = []
    for offsets, bvh in zip(found["offsets"], found["bvh"], strict=True):
        template = None
        if bvh is not None:
            hierarchy, metres_per_unit, up = bvh
            template = BvhTemplate(_typed(hierarchy, str), float(metres_per_unit), _typed(up, str))
        bodies.append(Skeleton(names, parents, np.array(offsets, dtype="<f8"), template))
    return tuple(bodies)


# Reading


@dataclass
class Export:
    """An export opened to be read: its card, a record for each clip, and their codes in that order."""

    path: Path
    card: Card
    records: list[Record]
    codes: Callable[[], Iterator[np.ndarray]]
    header: TokenHeader = field(init=False)
    sequences: Sequences = field(init=False)

    def __post_init__(self) -> None:
        with sound(self.path):
            self.header = header_of(self.card)
            self.sequences = sequences_of(self.card)
            numbers = self.header.dim, self.header.downsample
            if not 1 <= min(numbers) <= max(numbers) <= MAX_ID or not 0 < self.header.fps < math.inf:
                raise ValueError("fps, dim or downsample")
            self.header.check_layers(self.sequences.layers)
            for record in self.records:
                _typed(record["name"], str)
                if not 0 <= _typed(record["num_frames"], int) < 1 << 40:
                    raise ValueError("num_frames")


def _typed(value: Any, *kinds: type) -> Any:
    """The value, which must be of one of those types; TypeError where it is not. True is no integer here."""
    if type(value) not in kinds:
        raise TypeError(f"{value!r} where {kinds[0].__name__} was expected")
    return value


@contextlib.contextmanager
def sound(path: Path) -> Iterator[None]:
    """Within this block, what is missing from a card or record or of another type is a DataError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, UsageError) as error:
        what = f"what goes along with its tokens is incomplete ({type(error).__name__}: {error}); export again"
        raise DataError(what, file=path) from error


def header_of(card: Card) -> TokenHeader:
    """The header of the tokens.h5 that a card's codes make: of first-layer, that of the first layer alone."""
    return TokenHeader(
        dim=int(card["dim"]),
        fps=float(card["fps"]),
        downsample=int(card["downsample"]),
        bottleneck=str(card["bottleneck"]),
        layout=str(card["layout"]),
        tokenizer_id=str(card["tokenizer_id"]),
        numerics=str(card["numerics"]),
        source=str(card["source"]),
        codebook_sizes=sequences_of(card).sizes,
        parts=tuple(_typed(part, str) for part in card.get("parts", ())),
    )


def sequences_of(card: Card) -> Sequences:
    """How a card says that sequences were made."""
    sizes, plan = tuple(_typed(size, int) for size in card["codebook_sizes"]), card["sequences"]
    if not sizes or min(sizes) < 1:
        raise ValueError("codebook_sizes")
    return Sequences(
        sizes,
        flatten=_typed(plan["flatten"], str, type(None)),
        delay=_typed(plan["delay"], bool),
        start=_typed(plan["start"], bool),
        end=_typed(plan["end"], bool),
        pad_to=_typed(plan["pad_to"], int, type(None)),
        offset=_typed(plan["offset"], int),
    )


def refused(error: BadToken, path: Path, name: str) -> DataError:
    """A bad token of a clip, as the error that says where."""
    return DataError(f"{error.what}; export again", file=path, clip=name)


# The sidecar


def sidecar(out: Path) -> Path:
    """Where the card of a file stands: beside it; of a folder, inside."""
    return out / "meta.json" if out.is_dir() else out.with_name(out.name + ".meta.json")


def read_json(path: Path) -> Any:
    """A JSON file; DataError where it is none, StorageError where it cannot be read."""
    try:
        return json.loads(read_bytes(path, MAX_CARD_BYTES))
    except (ValueError, RecursionError) as error:
        raise DataError("is no JSON; export again", file=path) from error


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a text file with their numbers from 1; DataError at one that is too long to be a clip."""
    with opened(path) as file:
        for number in itertools.count(1):
            if not (line := file.readline(MAX_LINE_BYTES + 1)):
                return
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"line {number}: is longer than {MAX_LINE_BYTES:,} bytes; a line is a clip", file=path)
            yield number, line


def read_card(out: Path) -> Card | None:
    """The card beside a file or in a folder; None where there is none that an export wrote."""
    path = sidecar(out)
    if not path.is_file():
        return None
    card = read_json(path)
    return check_card(card, path) if isinstance(card, dict) and card.get("kind") == KIND else None


def check_card(card: Card, path: Path) -> Card:
    """A card of a version that is known; DataError for another."""
    if card.get("schema_version") != 1:
        version = card.get("schema_version")
        raise DataError(f"has schema version {version}; this vqtool reads 1, so update vqtool", file=path)
    return card


def to_json(value: Any) -> str:
    """JSON on one line, letters as they are.

    Names that are not valid Unicode are escaped, and so is what some programs take for the end of a line.
    """
    line = json.dumps(value, ensure_ascii=False)
    if line.isascii():
        return line
    line = line.translate({ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"})
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return line


class CardWriter:
    """Write a card with its clips one by one, so that a set of any size takes no memory."""

    def __init__(self, file: LatchingFile, card: Card) -> None:
        self._file = io.BufferedWriter(file, 1 << 20)
        self._clips = 0
        lines = ",\n".join(f"{json.dumps(key)}: {to_json(value)}" for key, value in card.items())
        self._put("{\n" + lines)

    def clip(self, record: Record) -> None:
        """Add the record of a clip."""
        self._put((",\n" if self._clips else ',\n"clips": [\n') + to_json(record))
        self._clips += 1

    def finish(self, **more: Any) -> None:
        """End the card, with what is known only now."""
        rest = "".join(f',\n"{key}": {to_json(value)}' for key, value in more.items())
        self._put(("\n]" if self._clips else "") + rest + "\n}\n")

    def _put(self, text: str) -> None:
        self._file.write(text.encode())

    def detach(self) -> None:
        """Let go of the file, with everything written."""
        self._file.detach()


@contextlib.contextmanager
def publish_with_card(job: Job, card: Card) -> Iterator[tuple[IO[bytes], CardWriter]]:
    """Give `job.out` to write and its card beside it; the card appears just before the file, or neither does.

    The block must call `finish` of the card.
    """
    with publish(job.out, force=job.force) as file, publish(sidecar(job.out), force=job.force) as note:
        writer, cards = io.BufferedWriter(file, 1 << 20), CardWriter(note, card)
        try:
            yield cast(IO[bytes], writer), cards
        finally:
            writer.detach()
            cards.detach()
        file.commit()


@dataclass(frozen=True)
class TokenFormat:
    """A way to write tokens for other programs, and to read them again.

    takes   the options that mean something to it: flatten, delay, specials (start, end, pad_to), offset
    layers  without --flatten it writes the layers side by side, not one sequence
    start, end  whether sequences have these tokens where nothing is said
    """

    about: str
    write: Callable[[Job], None]
    read: Callable[[Path, Card], Export]
    takes: frozenset[str] = frozenset({"flatten", "delay", "specials", "offset"})
    layers: bool = False
    start: bool = False
    end: bool = False
