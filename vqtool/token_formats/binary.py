r"""nanoGPT's stream of ids, and Megatron's .bin with its .idx.

    tokens.bin            all sequences end to end, uint16, or uint32 where the vocabulary is larger than 65,536
    tokens.bin.meta.json  the card, with name and length of every sequence

Of Megatron the .bin is uint16, or int32 from 65,500 tokens on, and beside it stands tokens.idx (MMapIndexedDataset):

    MMIDIDX\0\0 | version 1: uint64 | type of the ids: uint8 | N: uint64 | N + 1: uint64
    lengths (N,) int32 | places in bytes (N,) int64 | documents (N + 1,) int64: 0 .. N, one sequence each
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vqtool.errors import DataError, UsageError
from vqtool.publish import publish
from vqtool.reading import opened
from vqtool.token_formats.base import Card, Export, Job, publish_with_card, refused, sound
from vqtool.token_formats.sequences import BadToken, Sequences

MAGIC = b"MMIDIDX\x00\x00"
TYPE_CODES = {"<u2": 8, "<i4": 4}


def write_nanogpt(job: Job) -> None:
    """One file of ids, and the card."""
    _write(job, "<u2" if job.sequences.offset + job.sequences.size <= 1 << 16 else "<u4")


def write_megatron(job: Job) -> None:
    """NAME.bin, NAME.idx and the card."""
    if job.out.suffix != ".bin":
        raise UsageError(f"Megatron reads NAME.bin and NAME.idx; call the output {job.out.stem}.bin", file=job.out)
    dtype = "<u2" if job.sequences.offset + job.sequences.size < 65500 else "<i4"
    with publish(index_path(job.out), force=job.force) as file:
        lengths = np.array(_write(job, dtype), dtype="<i4")
        places = np.concatenate([[0], np.cumsum(lengths.astype("<i8"))])[:-1] * np.dtype(dtype).itemsize
        file.write(MAGIC + struct.pack("<QBQQ", 1, TYPE_CODES[dtype], len(lengths), len(lengths) + 1))
        for array in (lengths, places.astype("<i8"), np.arange(len(lengths) + 1, dtype="<i8")):
            file.write(array.tobytes())


def index_path(out: Path) -> Path:
    """Megatron's index of a .bin."""
    return out.with_suffix(".idx")


def _write(job: Job, dtype: str) -> list[int]:
    """Write ids and card; returns the lengths of the sequences."""
    digest = hashlib.sha256()
    lengths = []
    with publish_with_card(job, job.card() | {"dtype": np.dtype(dtype).name}) as (file, card):
        for record, codes in job.codes():
            data = job.sequence(record, codes).astype(dtype).tobytes()
            file.write(data)
            digest.update(data)
            lengths.append(len(data) // np.dtype(dtype).itemsize)
            card.clip(record | {"length": lengths[-1]})
        card.finish(ids=sum(lengths), sha256=digest.hexdigest())
    return lengths


def read_binary(path: Path, card: Card) -> Export:
    """What `write_nanogpt` or `write_megatron` made, by its card alone; DataError where the ids are not those."""
    with sound(path):
        records = list(card.get("clips") or [])
        lengths = [int(record["length"]) for record in records]
        dtype = np.dtype({"uint16": "<u2", "uint32": "<u4", "int32": "<i4"}[card["dtype"]])
        digest = str(card["sha256"])
    with opened(path) as file:
        size = file.seek(0, 2)
    if min(lengths, default=0) < 0 or size != sum(lengths) * dtype.itemsize:
        what = (
            f"is {size:,} bytes long, not the {sum(lengths) * dtype.itemsize:,} that its meta.json tells; export again"
        )
        raise DataError(what, file=path)
    found = Export(path, card, records, lambda: _codes(path, found.sequences, records, lengths, dtype, digest))
    return found


def _codes(
    path: Path, sequences: Sequences, records: list[dict[str, object]], lengths: list[int], dtype: np.dtype, digest: str
) -> Iterator[np.ndarray]:
    seen = hashlib.sha256()
    with opened(path) as file:
        for record, length in zip(records, lengths, strict=True):
            data = file.read(length * dtype.itemsize)
            seen.update(data)
            try:
                yield sequences.codes(np.frombuffer(data, dtype))
            except BadToken as error:
                raise refused(error, path, str(record["name"])) from None
    if seen.hexdigest() != digest:
        raise DataError("does not match its SHA-256: it was damaged or edited; export again", file=path)
