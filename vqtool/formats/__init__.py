"""Other people's files to motion and back; a reader beside its writer, one file a format.

To add one: a file with `sniff` and `clips` (see base.py), a line in `FORMATS`, a row in docs/import.md.
"""

from __future__ import annotations

from pathlib import Path

from vqtool.errors import DataError, UsageError
from vqtool.formats.amass import amass_clips, is_amass
from vqtool.formats.arrays import is_npy, is_npz, npy_clips, npz_clips, write_npy
from vqtool.formats.base import Format
from vqtool.formats.bvh import bvh_clips, is_bvh, write_bvhs
from vqtool.formats.csv import csv_clips, is_csv, write_csv
from vqtool.formats.hdf5 import hdf5_clips, is_hdf5, is_robomimic, robomimic_clips, write_robomimic
from vqtool.formats.humanml3d import humanml3d_clips, is_humanml3d, source_stats, write_humanml3d
from vqtool.formats.lerobot import is_lerobot, lerobot_clips
from vqtool.reading import first_bytes

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
# The first that fits is taken: AMASS files are npz files too.
FORMATS = {
    "humanml3d": Format(
        "HumanML3D or KIT-ML folder", (), is_humanml3d, humanml3d_clips, write_humanml3d, extras=source_stats
    ),
    "lerobot": Format("LeRobot folder", (), is_lerobot, lerobot_clips),
    "bvh": Format("BVH", (".bvh", ".qbvh"), is_bvh, bvh_clips, write_bvhs),
    "amass": Format("AMASS", (".npz",), is_amass, amass_clips),
    "npz": Format("npz of arrays", (".npz",), is_npz, npz_clips),
    "npy": Format("npy", (".npy",), is_npy, npy_clips, write_npy),
    "csv": Format("CSV", (".csv", ".tsv"), is_csv, csv_clips, write_csv),
    "robomimic": Format("robomimic", HDF5, is_robomimic, robomimic_clips, write_file=write_robomimic, apart=False),
    "hdf5": Format("HDF5", HDF5, is_hdf5, hdf5_clips, apart=False),
}


def named_format(name: str) -> Format:
    """The format of that name; UsageError naming those there are."""
    if name not in FORMATS:
        raise UsageError(f"no format {name!r}; there are auto, {', '.join(FORMATS)}")
    return FORMATS[name]


def sniff(path: Path) -> str:
    """The name of the format of a file or folder, by its content; DataError where it is none."""
    folder = path.is_dir()
    suffix = path.suffix.lower()
    for name, known in FORMATS.items():
        if folder == (not known.suffixes) and (folder or suffix in known.suffixes) and known.sniff(path):
            return name
    if folder:
        raise DataError("holds no new_joint_vecs and no meta/info.json", file=path)
    start = first_bytes(path, 2)
    if not start:
        raise DataError("is empty", file=path)
    if start in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("is UTF-16 text; save it as UTF-8", file=path)
    expected = [known.about for known in FORMATS.values() if suffix in known.suffixes]
    if not expected:
        suffixes = dict.fromkeys(suffix for known in FORMATS.values() for suffix in known.suffixes)
        raise DataError(f"has none of the suffixes {', '.join(suffixes)}; --format says what it is", file=path)
    what = f"does not begin as {' or '.join(expected)} does: it is damaged or of another format; --format names one"
    raise DataError(what, file=path)
