"""LeRobot data sets (v2 and v3): meta/info.json and data/**/*.parquet; an episode is a clip. Needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vqtool.companions import some
from vqtool.errors import DataError, UsageError
from vqtool.formats.base import Clip, ReadOptions, Recording
from vqtool.reading import check_columns, read_bytes

MAX_INFO_BYTES = 16 << 20
EPISODES = "episode_index"
COLUMN = "action"  # unless --dataset names another


def is_lerobot(path: Path) -> bool:
    """Whether a folder holds meta/info.json and data."""
    return (path / "meta" / "info.json").is_file() and (path / "data").is_dir()


def lerobot_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """The episodes, in order, each with its numbers in the column that --dataset names ("action" if none)."""
    info = _info(path)
    column = options.dataset or COLUMN
    files = sorted((path / "data").rglob("*.parquet"))
    if not files:
        raise DataError("holds no data/**/*.parquet", file=path)
    for file in files:
        episodes = _read(file, EPISODES).to_numpy(zero_copy_only=False)
        if episodes.dtype.kind not in "iu":
            raise DataError("holds no whole numbers", file=file, dataset=EPISODES)
        for episode in sorted(set(episodes.tolist())):
            rows = np.flatnonzero(episodes == episode)
            if rows[-1] - rows[0] >= len(rows):
                what = f"episode {episode} lies in several pieces; sort the rows"
                raise DataError(what, file=file, dataset=EPISODES)
            clip = partial(_episode, file, column, int(rows[0]), len(rows), info)
            yield Clip(f"{name}episode_{int(episode):06d}", file, clip, dataset=f"episode {int(episode)}")


def _episode(file: Path, column: str, first: int, count: int, fps: float | None) -> Recording:
    values = _read(file, column).slice(first, count).to_pylist()
    try:
        frames = np.array(values, dtype=np.float64).reshape(len(values), -1)
    except (TypeError, ValueError) as error:
        raise DataError("does not hold as many numbers in each row", file=file, dataset=column) from error
    check_columns(file, column, frames.shape[1])
    return Recording(frames, fps, "raw")


def _info(path: Path) -> float | None:
    """Frames a second."""
    file = path / "meta" / "info.json"
    if not path.is_dir():
        raise DataError("is no folder; name that of a LeRobot data set", file=path)
    try:
        fps: Any = json.loads(read_bytes(file, MAX_INFO_BYTES)).get("fps")
    except (ValueError, AttributeError, RecursionError) as error:
        raise DataError("is not the JSON of a LeRobot data set", file=file) from error
    return float(fps) if isinstance(fps, int | float) and fps > 0 else None


def _read(file: Path, column: str) -> Any:
    """One column of a parquet file."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("parquet needs pyarrow; install it with: pip install 'vqtool[parquet]'", file=file) from error
    try:
        with parquet.ParquetFile(file) as opened:
            names = opened.schema_arrow.names
            if column not in names:
                instead = f"it has {some(names, 20)}"
                if column != EPISODES:
                    instead = f"choose with --dataset among {some(names, 20)}"
                what = f"has no column {column!r}; {instead}"
                raise DataError(what, file=file)
            return opened.read(columns=[column]).column(0).combine_chunks()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError("is not a readable parquet file", file=file) from error
