"""Parquet with a row for each clip: the record, and `input_ids`, the sequence. The card is in the file's metadata.

Needs pyarrow, the extra 'parquet'.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.errors import DataError, UsageError
from vqtool.publish import publish
from vqtool.token_formats.base import Card, Export, Job, Record, check_card, refused, to_json
from vqtool.token_formats.sequences import BadToken

KEY = b"vqtool"
GROUP_IDS = 1 << 20  # ids of a row group
GROUP_CLIPS = 1 << 16


def require_pyarrow() -> Any:
    """The module; UsageError where it is not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError("Parquet needs pyarrow: pip install 'vqtool[parquet]'") from None
    return pyarrow


def write_parquet(job: Job) -> None:
    """One file, a row group at a time."""
    arrow = require_pyarrow()
    types = {
        "name": arrow.string(),
        "input_ids": arrow.list_(arrow.int32()),
        "captions": arrow.list_(arrow.string()),
        "fps": arrow.float64(),
        "num_frames": arrow.int64(),
        "split": arrow.string(),
        "caption_times": arrow.list_(arrow.list_(arrow.float32())),
        "caption_words": arrow.list_(arrow.string()),
        "mirror_of": arrow.string(),
        "start": arrow.list_(arrow.float64()),
        "body": arrow.int64(),
    }
    waiting: list[Record] = []
    ids: list[np.ndarray] = []
    writer: Any = None

    def put(keys: list[str]) -> None:
        """Write what waits as a row group."""
        nonlocal writer
        schema = arrow.schema([(key, types[key]) for key in keys], metadata={KEY: to_json(job.card()).encode()})
        lengths = np.cumsum([0, *map(len, ids)], dtype=np.int32)
        flat = np.concatenate([np.zeros(0, np.int32), *ids], dtype=np.int32, casting="same_kind")
        columns = {"input_ids": arrow.ListArray.from_arrays(lengths, flat)}
        try:
            for key in keys:
                if key != "input_ids":
                    columns[key] = arrow.array([record[key] for record in waiting], types[key])
        except UnicodeEncodeError:
            what = "a name or caption is not valid Unicode, which Parquet cannot hold; use another format"
            raise DataError(what, file=job.tokens.path) from None
        if writer is None:
            writer = arrow.parquet.ParquetWriter(sink, schema)
        writer.write_table(arrow.table([columns[key] for key in keys], schema=schema), row_group_size=GROUP_CLIPS)
        waiting.clear()
        ids.clear()

    with publish(job.out, force=job.force) as file:
        sink = arrow.PythonFile(file, mode="w")
        keys = ["name", "input_ids", "captions", "fps", "num_frames"]
        held = 0
        for record, codes in job.codes():
            keys = ["name", "input_ids", *(key for key in record if key != "name")]
            waiting.append(record)
            ids.append(job.sequence(record, codes).astype(np.int32))
            held += len(ids[-1])
            if held >= GROUP_IDS or len(waiting) == GROUP_CLIPS:
                put(keys)
                held = 0
        if waiting or writer is None:
            put(keys)
        writer.close()


def read_parquet_card(path: Path) -> Card | None:
    """The card in a Parquet file's metadata; None where there is none."""
    arrow = require_pyarrow()
    try:
        metadata = arrow.parquet.read_schema(path).metadata or {}
        card = json.loads(metadata[KEY]) if KEY in metadata else None
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError("is not a readable Parquet file", file=path) from error
    return check_card(card, path) if isinstance(card, dict) else None


def read_parquet(path: Path, card: Card) -> Export:
    """What `write_parquet` made."""
    arrow = require_pyarrow()

    def batches(columns: list[str]) -> Iterator[Any]:
        try:
            with arrow.parquet.ParquetFile(path) as file:
                if missing := set(columns) - set(file.schema_arrow.names):
                    raise DataError(f"has no column {missing.pop()}; export again", file=path)
                yield from file.iter_batches(1024, columns=columns)
        except (arrow.ArrowException, OSError) as error:
            raise DataError("cannot be read; the file is damaged", file=path) from error

    def codes() -> Iterator[np.ndarray]:
        for batch in batches(["name", "input_ids"]):
            for name, ids in zip(batch.column(0), batch.column(1), strict=True):
                try:
                    yield found.sequences.codes(ids.values.to_numpy(zero_copy_only=False))
                except BadToken as error:
                    raise refused(error, path, name.as_py()) from None
                except (AttributeError, TypeError, ValueError):
                    raise DataError("has no ids", file=path, clip=str(name.as_py())) from None

    try:
        names = [name for name in arrow.parquet.read_schema(path).names if name != "input_ids"]
    except (arrow.ArrowException, OSError) as error:
        raise DataError("is not a readable Parquet file", file=path) from error
    records = [row for batch in batches(names) for row in batch.to_pylist()]
    found = Export(path, card, records, codes)
    return found
