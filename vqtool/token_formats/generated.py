"""What a language model wrote: lines of tokens, JSON lines or an npy, to codes; strictly, or repaired and told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.companions import Companions
from vqtool.errors import DataError, counted
from vqtool.reading import first_bytes
from vqtool.skeleton import Skeleton
from vqtool.token_formats.arrays import codes_of_array, load_array
from vqtool.token_formats.base import Record, companions_of, lines_of, sound
from vqtool.token_formats.sequences import BadToken, Sequences
from vqtool.token_formats.text import TOKEN, Spelling, json_object
from vqtool.tokens import TokenHeader, code_dtype

NPY = b"\x93NUMPY"


@dataclass
class Generated:
    """Clips that were read: records and codes [L, Q]; `repaired` and `left_out` tell what was done to which."""

    records: list[Record] = field(default_factory=list)
    codes: list[np.ndarray] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def companions(self, path: Path, bodies: tuple[Skeleton, ...]) -> Companions:
        """Captions and splits, where a JSON line has them, and its body."""
        with sound(path):
            return companions_of(self.records, sorted({key for record in self.records for key in record}), bodies)


def read_generated(path: Path, header: TokenHeader, sequences: Sequences, *, repair: bool = False) -> Generated:
    """Read the clips of a text (one a line), of JSON lines with "text" (and "name", "num_frames", "captions"), or npy.

    Strict: DataError with line, token, character and surroundings of the first that cannot be. With `repair` a clip is
    cut before it, filled up by holding its last token frame where its num_frames asks for more, and left out where
    nothing is left.
    """
    found = Generated()
    names: dict[str, str] = {}
    spellings = {kind: Spelling(sequences, kind) for kind in ("m", "motion_id")}
    for where, record, tokens in _items(path):
        name = record.setdefault("name", where.replace(" ", "_"))
        if not isinstance(name, str):
            raise DataError(f"{where}: its name is no text", file=path)
        if (other := names.setdefault(name, where)) is not where:
            raise DataError(f"{where}: is called {name!r} as {other} is; give each clip a name of its own", file=path)
        try:
            if isinstance(tokens, str):
                first = TOKEN.search(tokens)
                spelling = spellings["motion_id" if first and first[1].startswith("motion_id") else "m"]
                codes, notes = _of_text(tokens, spelling, repair)
            else:
                codes, notes = _of_array(tokens, sequences, repair)
            codes, more = _fitted(codes, record, header.downsample, repair)
        except DataError as error:
            hint = "" if repair else "; --repair cuts the clip there"
            raise DataError(f"{where}: {error.what}{hint}", file=path) from None
        if notes := notes + more:
            found.repaired.append(f"{where}: {'; '.join(notes)}")
        if len(codes) == 0 and record["num_frames"]:
            found.left_out.append(f"{where}: nothing of it can be decoded")
            continue
        found.records.append(record)
        found.codes.append(codes.astype(code_dtype(sequences.sizes)))
    if not found.records:
        raise DataError(f"holds no clip that can be decoded{_first(found)}", file=path)
    return found


def _first(found: Generated) -> str:
    return f": {found.repaired[0]}" if found.repaired else ""


def _items(path: Path) -> Iterator[tuple[str, Record, str | np.ndarray]]:
    """Where, record and tokens of each clip."""
    start = first_bytes(path)
    if start.startswith(NPY):
        array = load_array(path)
        if array.ndim < 3:
            yield "clip 0", {"name": path.stem or "clip"}, array
        else:
            yield from ((f"clip {number}", {}, clip) for number, clip in enumerate(array))
        return
    plain = start.lstrip()[:1] != b"{"
    for number, line in lines_of(path):
        if plain:
            yield f"line {number}", {}, line.decode("utf-8", "replace")
        elif line.strip():
            yield f"line {number}", *_json_line(json_object(line, number, path), number, path)


def _json_line(value: dict[str, Any], number: int, path: Path) -> tuple[Record, str]:
    if not isinstance(tokens := value.get("text"), str):
        raise DataError(f'line {number}: has no "text"', file=path)
    known = ("name", "num_frames", "captions", "caption_times", "caption_words", "split", "body")
    return {key: value[key] for key in known if value.get(key) is not None}, tokens


def _of_text(text: str, spelling: Spelling, repair: bool) -> tuple[np.ndarray, list[str]]:
    if not repair:
        codes = spelling.codes(text)
        return codes, []
    ids = spelling.ids(text)
    pieces = None if ids is not None else list(spelling.pieces(text))
    notes = []
    if pieces is not None:
        first = next((n for n, (_, _, piece) in enumerate(pieces) if TOKEN.fullmatch(piece)), len(pieces))
        if first:
            notes.append(f"left out what stands before the first token ({pieces[0][2][:40]!r})")
        pieces = pieces[first:]
        ids = np.array([number for number, _, _ in pieces], np.int64)
    assert ids is not None
    codes, reason = spelling.sequences.repaired(ids)
    if reason:
        if pieces is None:
            pieces = list(spelling.pieces(text))
        try:
            spelling.sequences.codes(ids)
        except BadToken as error:
            reason = spelling.explain(error, pieces)
        notes.append(f"{reason}; cut to {counted(len(codes), 'token frames')}")
    return codes, notes


def _of_array(array: np.ndarray, sequences: Sequences, repair: bool) -> tuple[np.ndarray, list[str]]:
    if not repair or sequences.flatten is None:
        return codes_of_array(sequences, array), []
    codes, reason = sequences.repaired(array.reshape(-1))
    return codes, [f"{reason}; cut to {counted(len(codes), 'token frames')}"] if reason else []


def _fitted(codes: np.ndarray, record: Record, downsample: int, repair: bool) -> tuple[np.ndarray, list[str]]:
    """The codes at the length that num_frames of the record asks for, which is set where it is missing."""
    have = len(codes)
    frames = record.setdefault("num_frames", have * downsample or 1)
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 0:
        raise DataError(f"its num_frames is {frames!r}")
    wanted = -(-frames // downsample)
    if have == wanted:
        return codes, []
    if have == 0:
        if repair:
            return codes, ["has no tokens"]
        raise DataError("has no tokens")
    what = f"{counted(frames, 'frames', 'are')} {counted(wanted, 'token frames')}, but it has {have}"
    if not repair:
        raise DataError(what)
    if have > wanted:
        return codes[:wanted], [f"{what}; cut to {wanted}"]
    return np.concatenate([codes, np.repeat(codes[-1:], wanted - have, axis=0)]), [f"{what}; its last one is held"]
