"""HDF5 files of other people: every [T, D] or [T, J, 3] dataset is a clip; and robomimic's layout to write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import h5py
import numpy as np

from vqtool.datasets import DatasetFile
from vqtool.errors import DataError
from vqtool.formats.base import MAX_CLIP_BYTES, Clip, ReadOptions, Recording
from vqtool.hdf5 import attribute, open_hdf5, walk
from vqtool.reading import first_bytes
from vqtool.splits import SPLITS

if TYPE_CHECKING:
    from vqtool.store import MotionSet


def is_hdf5(path: Path) -> bool:
    """Whether it begins as HDF5 files do."""
    return first_bytes(path, 8) == b"\x89HDF\r\n\x1a\n"


def hdf5_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """Its datasets, named by their path behind the file's name. A motion.h5 is refused: there is nothing to import."""
    with open_hdf5(path) as file:
        kind = attribute(file, "format")
    if isinstance(kind, str) and kind.startswith("vqtool."):
        what = (
            "train and encode take it as it is" if kind == "vqtool.motion" else "make motion of it with vqtool decode"
        )
        raise DataError(f"is a {kind} file already; {what}", file=path)
    source = DatasetFile(path, options.dataset)
    try:
        for number, dataset in enumerate(source.names):

            def read(number: int = number, dataset: str = dataset) -> Recording:
                rows = int(source.lengths[number])
                if rows * source.dim * 4 > MAX_CLIP_BYTES:
                    what = f"is larger than {MAX_CLIP_BYTES >> 30} GiB; cut it into clips"
                    raise DataError(what, file=path, dataset=dataset)
                return Recording(source.read(number, 0, rows), source.fps, "raw")

            yield Clip(f"{name}/{dataset}", path, read, dataset=dataset)
    finally:
        source.close()


def is_robomimic(path: Path) -> bool:
    """Whether it has data/demo_N/actions."""
    if not is_hdf5(path):
        return False
    with open_hdf5(path) as file:
        return any(fnmatchcase(dataset.name, "/data/demo_*/actions") for dataset in walk(path, file))


def robomimic_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """Its actions, or the datasets that --dataset names."""
    return hdf5_clips(path, name, replace(options, dataset=options.dataset or "data/*/actions"))


def write_robomimic(raw: BinaryIO, motion: MotionSet, clips: Sequence[int]) -> None:
    """A robomimic file: the frames of each clip as data/demo_N/actions, its name as attribute, splits as masks."""
    with h5py.File(raw, "w") as file:
        data = file.create_group("data")
        total = 0
        for number, clip in enumerate(clips):
            frames = motion.read_all(clip)
            demo = data.create_group(f"demo_{number}")
            demo.create_dataset("actions", data=frames)
            demo.attrs["num_samples"] = len(frames)
            demo.attrs["name"] = motion.names[clip].encode("utf-8", "surrogateescape")
            total += len(frames)
        data.attrs["total"] = total
        data.attrs["fps"] = motion.fps
        data.attrs["layout"] = motion.layout
        data.attrs["env_args"] = json.dumps({"env_name": "vqtool", "type": 1, "env_kwargs": {}})
        if motion.splits is not None:
            masks = {"train": "train", "val": "valid", "test": "test"}
            for split, mask in masks.items():
                keys = [f"demo_{n}" for n, clip in enumerate(clips) if motion.splits[clip] == SPLITS[split]]
                if keys:
                    file.create_dataset(f"mask/{mask}", data=np.array(keys, dtype="S"))
