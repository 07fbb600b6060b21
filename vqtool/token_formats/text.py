"""JSON lines with the tokens of a clip as text: <m0_17><m1_402>..., or MotionGPT's <motion_id_17>.

train.jsonl            {"name": ..., "text": "<m0_17><m1_402>...", "captions": [...], "fps": 30.0, ...} a clip
train.jsonl.meta.json  the card
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.errors import DataError, counted
from vqtool.token_formats.base import (
    Card,
    Export,
    Job,
    Record,
    lines_of,
    publish_with_card,
    sequences_of,
    sound,
    to_json,
)
from vqtool.token_formats.sequences import BadToken, Sequences

SPELLINGS = ("m", "motion_id")
TOKEN = re.compile(r"<(m\d+_\d+|m_start|m_end|m_pad|motion_id_\d+)>")


@dataclass(frozen=True)
class Spelling:
    """The tokens of a vocabulary as text.

    kind  "m" writes <m0_17>, "motion_id" numbers all tokens through: <motion_id_17> (MotionGPT, arXiv 2306.14795, whose
          start, end and mask follow the codes likewise)
    """

    sequences: Sequences
    kind: str = "m"

    @cached_property
    def tokens(self) -> list[str]:
        """All of them, in the order of their ids."""
        if self.kind == "motion_id":
            return [f"<motion_id_{self.sequences.offset + number}>" for number in range(self.sequences.size)]
        return self.sequences.vocabulary()

    @cached_property
    def _table(self) -> np.ndarray:
        return np.array(self.tokens, dtype=object)

    @cached_property
    def _ids(self) -> dict[str, int]:
        """The id of each token, written without its brackets."""
        return {token[1:-1]: number + self.sequences.offset for number, token in enumerate(self.tokens)}

    def text(self, ids: np.ndarray) -> str:
        """A sequence as text."""
        return "".join(self._table[ids - self.sequences.offset].tolist())

    def ids(self, text: str) -> np.ndarray | None:
        """The sequence [n] that a text is; None where anything in it is no token. Blanks between tokens are nothing."""
        words = text.strip()
        if not words:
            return np.zeros(0, np.int64)
        if words[0] != "<" or words[-1] != ">":
            return None
        if " " in words or "\n" in words or "\t" in words:
            words = re.sub(r">\s+<", "><", words)
        parts = words[1:-1].split("><")
        try:
            return np.fromiter(map(self._ids.__getitem__, parts), np.int64, len(parts))
        except KeyError:
            return None

    def pieces(self, text: str) -> Iterator[tuple[int, int, str]]:
        """(id, place, text) of each token and of whatever lies between, whose id is -1; blanks are left out."""
        place = 0
        for match in TOKEN.finditer(text):
            yield from self._between(text, place, match.start())
            yield self._ids.get(match[1], -1), match.start(), match[0]
            place = match.end()
        yield from self._between(text, place, len(text))

    def _between(self, text: str, start: int, stop: int) -> Iterator[tuple[int, int, str]]:
        if words := text[start:stop].strip():
            yield -1, start + text[start:stop].index(words), words

    def codes(self, text: str) -> np.ndarray:
        """Codes [L, Q] of a text; DataError with token, character and surroundings of the first that cannot be."""
        if (ids := self.ids(text)) is not None:
            try:
                return self.sequences.codes(ids)
            except BadToken:
                pass  # said below, with its place
        pieces = list(self.pieces(text))
        try:
            return self.sequences.codes(np.array([number for number, _, _ in pieces], np.int64))
        except BadToken as error:
            raise DataError(self.explain(error, pieces)) from None

    def explain(self, error: BadToken, pieces: list[tuple[int, int, str]]) -> str:
        """A bad token with its character and its neighbours."""
        around = [_shown(text) for _, _, text in pieces]
        at = error.position
        before = "".join(around[max(0, at - 3) : at])
        if at >= len(pieces):
            return f"{error.reason} (it ends {'...' * (at > 3)}{before})"
        _, place, text = pieces[at]
        what = self._strange(text) or error.reason
        after = "".join(around[at + 1 : at + 4])
        context = f"{'...' * (at > 3)}{before} [{around[at]}] {after}{'...' * (at + 4 < len(pieces))}"
        return f"token {at + 1} at character {place + 1}, {_shown(text)}: {what} (in {context.strip()})"

    def _strange(self, text: str) -> str:
        """Why a piece is in no vocabulary; "" where it is in this one."""
        if TOKEN.fullmatch(text) is None:
            return "is no token"
        if text[1:-1] in self._ids:
            return ""
        sizes = self.sequences.sizes
        if found := re.fullmatch(r"<m(\d+)_(\d+)>", text):
            if self.kind != "m":
                return "is no <motion_id_...> token as the others are"
            layer, index = found[1], found[2]
            if str(int(layer)) != layer or str(int(index)) != index:
                return "is spelled with needless zeros"
            if int(layer) >= len(sizes):
                return f"there are {counted(len(sizes), 'layers')}, 0 to {len(sizes) - 1}"
            return f"the codebook of layer {layer} has the indices 0 to {sizes[int(layer)] - 1}"
        return f"the vocabulary has {self.tokens[0]} to {self.tokens[-1]}"


def _shown(text: str) -> str:
    """A piece, cut short where it is no token."""
    return text if len(text) <= 40 else f"{text[:30]}..."


# Exports


def write_text(job: Job) -> None:
    """JSON lines and the card."""
    _write(job, Spelling(job.sequences))


def write_motiongpt(job: Job) -> None:
    """The same with MotionGPT's tokens."""
    _write(job, Spelling(job.sequences, "motion_id"))


def _write(job: Job, spelling: Spelling) -> None:
    with publish_with_card(job, job.card()) as (file, card):
        count = 0
        for record, codes in job.codes():
            text = spelling.text(job.sequence(record, codes))
            name = {"name": record.pop("name"), "text": text}
            file.write((to_json(name | record) + "\n").encode())
            count += 1
        card.finish(lines=count)


def read_text(path: Path, card: Card) -> Export:
    """What `write_text` made, also where lines were left out or moved since."""
    with sound(path):
        spelling = Spelling(sequences_of(card), "motion_id" if card["format"] == "motiongpt" else "m")
    found: list[Record] = []
    for number, line in json_lines(path):
        record = dict(line)
        if not isinstance(record.pop("text", None), str) or not isinstance(record.get("name"), str):
            raise DataError(f'line {number}: has no "name" and "text"; export again', file=path)
        found.append(record)
    return Export(path, card, found, lambda: _codes(path, spelling))


def _codes(path: Path, spelling: Spelling) -> Iterator[np.ndarray]:
    for number, line in json_lines(path):
        try:
            yield spelling.codes(line["text"])
        except DataError as error:
            raise DataError(f"line {number}: {error.what}", file=path, clip=line["name"]) from None


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of each line that is not blank; DataError where one is none."""
    for number, line in lines_of(path):
        if line.strip():
            yield number, json_object(line, number, path)


def json_object(line: bytes, number: int, path: Path) -> dict[str, Any]:
    """The JSON object that a line is."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"line {number}: is no JSON ({error})", file=path) from None
    if not isinstance(value, dict):
        raise DataError(f"line {number}: is no JSON object", file=path)
    return value
