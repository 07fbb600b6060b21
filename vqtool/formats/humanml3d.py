"""Folders of HumanML3D and KIT-ML: new_joint_vecs/*.npy, split lists, captions, Mean.npy and Std.npy; and back.

    new_joint_vecs/000001.npy   [T, 263] (KIT-ML: 251); M000001.npy is the mirror image of 000001.npy
    texts/000001.txt            caption#tagged words#start in seconds#end, a line each; 0.0#0.0: the whole clip
    train.txt val.txt test.txt  names of clips
    Mean.npy Std.npy            [D]; see `std_convention`

https://github.com/EricGuo5513/HumanML3D
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vqtool.companions import Caption
from vqtool.errors import DataError, UsageError, counted
from vqtool.formats.arrays import load_npy
from vqtool.formats.base import Clip, ReadOptions, Recording, clip_file
from vqtool.motion import column_groups
from vqtool.reading import read_bytes
from vqtool.splits import NO_SPLIT, SPLITS
from vqtool.stats import column_stats

if TYPE_CHECKING:
    from vqtool.store import MotionSet

VECTORS = "new_joint_vecs"
LAYOUTS = {263: ("humanml3d", 20.0), 251: ("kit", 12.5)}  # columns: layout, frames a second
MAX_LIST_BYTES = 64 << 20
PLAIN, DIVIDED = "plain", "divided by 25"


def is_humanml3d(path: Path) -> bool:
    """Whether a folder holds new_joint_vecs."""
    return (path / VECTORS).is_dir()


def humanml3d_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """The clips of new_joint_vecs in the order of their names, with split and captions where the folder has them."""
    files = {file.stem: file for file in sorted((path / VECTORS).glob("*.npy"))}
    if not files:
        raise DataError(f"holds no {VECTORS}/*.npy", file=path)
    splits = _read_splits(path)
    for stem, file in files.items():
        mirrors = stem[0] == "M" and stem[1:].replace("_", "").isdigit()
        original = (stem[1:] if stem[1:] in files else stem) if mirrors else ""
        split = splits.get(stem, NO_SPLIT) if splits else None
        yield Clip(name + stem, file, partial(_read, path, stem), split, name + original if original else "")


def _read(folder: Path, stem: str) -> Recording:
    path = folder / VECTORS / f"{stem}.npy"
    frames = load_npy(path)
    if frames.ndim != 2 or frames.shape[1] not in LAYOUTS or frames.dtype.kind != "f":
        what = f"holds {'x'.join(map(str, frames.shape))} {frames.dtype}; [T, 263] or [T, 251] floats were expected"
        raise DataError(what, file=path)
    layout, fps = LAYOUTS[frames.shape[1]]
    return Recording(frames, fps, layout, _read_captions(folder / "texts" / f"{stem}.txt"))


def _read_captions(path: Path) -> tuple[tuple[str, float, float, str], ...]:
    if not path.exists():
        return ()
    captions = []
    for number, line in enumerate(_lines(path), start=1):
        text, words, start, end = [*line.split("#"), "", "", ""][:4]
        try:
            times = [0.0 if math.isnan(float(time or 0)) else float(time or 0) for time in (start, end)]
        except ValueError:
            raise DataError(f"line {number}: 'caption#words#start#end' was expected", file=path) from None
        if not max(map(abs, times)) < math.inf:
            raise DataError(f"line {number}: starts or ends at infinity; write 0.0#0.0 for the whole clip", file=path)
        captions.append((text.strip(), times[0], times[1], words))
    return tuple(captions)


def _read_splits(folder: Path) -> dict[str, int]:
    """The split of each name that a list holds."""
    lists = {number: folder / f"{split}.txt" for split, number in SPLITS.items()}
    return {name: number for number, path in lists.items() if path.exists() for name in _lines(path)}


def _lines(path: Path) -> list[str]:
    """The lines of a small text file that are not empty."""
    data = read_bytes(path, MAX_LIST_BYTES)
    return [line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip()]


def source_stats(folder: Path, measured: np.ndarray, layout: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Mean.npy and Std.npy as they are, and which convention they follow; nothing where the folder lacks one."""
    paths = {"source_stats/mean": folder / "Mean.npy", "source_stats/std": folder / "Std.npy"}
    if layout not in ("humanml3d", "kit") or not all(path.exists() for path in paths.values()):
        return {}, {}
    arrays = {name: load_npy(path) for name, path in paths.items()}
    for name, value in arrays.items():
        if value.shape != measured.shape or value.dtype.kind != "f" or not np.isfinite(value).all():
            what = f"holds {value.shape} {value.dtype}; {len(measured)} finite floats were expected; mend or remove it"
            raise DataError(what, file=paths[name])
    return arrays, {"source_stats_convention": std_convention(arrays["source_stats/std"], measured, layout)}


def std_convention(std: np.ndarray, measured: np.ndarray, layout: str) -> str:
    """Which of the two kinds of Std.npy it is, told by the deviations [D] measured over the clips.

    HumanML3D's has the mean deviation of each block of columns ("plain"). Training code of the same family saves
    one whose root and contact columns (0:4 and the last 4) are "divided by 25", under the same name.
    """
    columns = np.r_[0:4, len(std) - 4 : len(std)]
    expected = block_means(measured, layout)
    others = np.setdiff1d(np.arange(len(std)), columns)
    ratio = np.log(np.maximum(expected, 1e-9) / np.maximum(std, 1e-9))
    # Against the other columns: the clips at hand may move more or less than those of the whole set.
    factor = float(np.exp(np.median(ratio[columns]) - np.median(ratio[others])))
    return DIVIDED if factor > math.sqrt(25) else PLAIN


def block_means(std: np.ndarray, layout: str) -> np.ndarray:
    """Deviations [D] with the mean of their block in every column, as HumanML3D has them."""
    groups = column_groups(layout, len(std))
    blocks = [slice(0, 1), slice(1, 3), slice(3, 4), *(groups[name] for name in groups if name != "root")]
    result = np.empty(len(std))
    for block in blocks:
        result[block] = std[block].mean()
    return result


def write_humanml3d(folder: Path, motion: MotionSet, clips: Sequence[int], stems: Sequence[str]) -> None:
    """The clips as such a folder; float32 files come back bit for bit, and so do Mean.npy and Std.npy.

    Where no statistics were imported they are those of the clips to train on, by the "plain" convention. Raises
    UsageError for other layouts than joints, humanml3d and kit.
    """
    if motion.layout not in ("joints", "humanml3d", "kit"):
        what = f"has layout {motion.layout}, not the features that this format holds; use --format npy"
        raise UsageError(what, file=motion.paths[0])
    if not column_groups(motion.layout, motion.dim):
        raise DataError(
            f"has layout {motion.layout}, but {counted(motion.dim, 'columns', 'are')} those of no joints",
            file=motion.paths[0],
        )
    for clip, stem in zip(clips, stems, strict=True):
        np.save(clip_file(folder / VECTORS, stem, ".npy"), motion.read_all(clip))
    along = motion.companions.select(clips)
    _write_texts(folder / "texts", stems, along.captions)
    train = list(clips)
    (folder / "all.txt").write_text("".join(f"{stem}\n" for stem in stems), errors="surrogateescape")
    if along.splits is not None:
        for split, number in SPLITS.items():
            chosen = [stem for stem, of in zip(stems, along.splits, strict=True) if of == number]
            (folder / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in chosen), errors="surrogateescape")
        train = [clip for clip, of in zip(clips, along.splits, strict=True) if of == SPLITS["train"]] or train
    mean, std = motion.array("source_stats/mean"), motion.array("source_stats/std")
    if mean is None or std is None:
        stats = column_stats(motion, train)
        mean, std = stats.mean.astype(np.float32), block_means(stats.std, motion.layout).astype(np.float32)
    np.save(folder / "Mean.npy", mean)
    np.save(folder / "Std.npy", std)


def _write_texts(folder: Path, stems: Sequence[str], captions: Sequence[Caption]) -> None:
    """NAME.txt of the clips that have captions."""
    lines: dict[str, list[str]] = {}
    for caption in captions:
        clean = [text.replace("#", " ").replace("\n", " ") for text in (caption.text, caption.words)]
        line = "#".join([*clean, repr(float(caption.start_s)), repr(float(caption.end_s))])
        lines.setdefault(stems[caption.clip], []).append(line)
    for stem, of_clip in lines.items():
        text = "\n".join(of_clip) + "\n"
        clip_file(folder, stem, ".txt").write_text(text, encoding="utf-8", errors="surrogateescape")
