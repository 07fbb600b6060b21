"""CSV: a row for each token frame, a column for each layer.

tokens.csv            name,token,m0,m1,...
tokens.csv.meta.json  the card, with the record of every clip, those without tokens too
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from vqtool.errors import DataError, counted
from vqtool.reading import opened
from vqtool.token_formats.base import Card, Export, Job, Record, publish_with_card, sound
from vqtool.token_formats.sequences import BadToken, Sequences


def write_csv(job: Job) -> None:
    """One file of all clips, and the card."""
    layers = job.tokens.width
    with publish_with_card(job, job.card()) as (file, card):
        file.write(",".join(["name", "token", *(f"m{layer}" for layer in range(layers))]).encode() + b"\n")
        pattern = "%s,%d" + ",%d" * layers + "\n"
        for record, codes in job.codes():
            name = _quoted(record["name"])
            rows = "".join(pattern % (name, token, *row) for token, row in enumerate(codes.tolist()))
            file.write(rows.encode("utf-8", "surrogateescape"))
            card.clip(record)
        card.finish()


def _quoted(name: str) -> str:
    """A field; the writer of Python's csv leaves a lone carriage return unquoted."""
    return '"' + name.replace('"', '""') + '"' if re.search(r'[",\r\n]', name) else name


def read_csv(path: Path, card: Card) -> Export:
    """What `write_csv` made: rows of the clips in the order of the card."""
    with sound(path):
        records = list(card.get("clips") or [])
    found = Export(path, card, records, lambda: _codes(path, found.sequences, records))
    return found


def _codes(path: Path, sequences: Sequences, records: list[Record]) -> Iterator[np.ndarray]:
    with opened(path) as binary, io.TextIOWrapper(binary, "utf-8", "surrogateescape", newline="") as file:
        rows = csv.reader(file)
        try:
            next(rows, None)
            groups = groupby(rows, key=lambda row: row[0] if row else "")
            name, group = next(groups, ("", iter(())))
            for record in records:
                if record["name"] != name:
                    yield np.zeros((0, sequences.layers), np.int64)
                    continue
                try:
                    numbers = np.array([list(map(int, row[1:])) for row in group], np.int64)
                except (ValueError, OverflowError):
                    what = "has a row that is not all integers, or of another length"
                    raise DataError(what, file=path, clip=name) from None
                yield _checked(numbers, sequences, path, name)
                name, group = next(groups, ("", iter(())))
            if name:
                what = f"line {rows.line_num}: has a clip {name[:80]!r} that its meta.json does not have there"
                raise DataError(what, file=path)
        except csv.Error as error:
            raise DataError(f"line {rows.line_num}: is no CSV ({error})", file=path) from None


def _checked(numbers: np.ndarray, sequences: Sequences, path: Path, name: str) -> np.ndarray:
    """Codes [L, Q] of the rows of a clip: token number and codes."""
    if numbers.ndim != 2 or numbers.shape[1] != sequences.layers + 1:
        raise DataError(
            f"has rows of {counted(numbers.shape[-1] - 1, 'layers')}, not {sequences.layers}", file=path, clip=name
        )
    if len(bad := np.flatnonzero(numbers[:, 0] != np.arange(len(numbers)))):
        raise DataError(f"token {bad[0]} is missing or out of order", file=path, clip=name)
    try:
        return sequences.codes_of_rows(numbers[:, 1:].T)
    except BadToken as error:
        raise DataError(error.what, file=path, clip=name) from None
