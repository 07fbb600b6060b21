"""export_motion(): motion.h5 to other people's files, all of them or none."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vqtool.errors import OutputError, UsageError
from vqtool.formats import FORMATS
from vqtool.publish import check_output, lock, publish, publish_folder
from vqtool.store import MotionSet

MANIFEST = "export.json"
MAX_PART = 120  # characters of a file's or folder's name


@dataclass
class Exported:
    """What `export_motion` did."""

    clips: int
    frames: int


def export_motion(motion: MotionSet, out: Path, format: str, clips: Sequence[int], *, force: bool = False) -> Exported:
    """Write the clips to a folder `out` with a manifest export.json, or to a file where the format is one.

    Clips become files of their names as far as these are safe as paths: see `safe_stems`. Raises UsageError for a
    format that is not written, OutputError for a folder in use that no export made.
    """
    written = [name for name, known in FORMATS.items() if known.write or known.write_file]
    if format not in written:
        raise UsageError(f"--format is one of {', '.join(written)}, not {format!r}")
    chosen = FORMATS[format]
    motion.verify()
    if chosen.write_file is not None:
        check_output(out, force=force, inputs=motion.paths)
        with publish(out, force=force) as file:
            chosen.write_file(file, motion, clips)
    else:
        assert chosen.write is not None
        check_folder(out, force=force, ours=lambda folder: (folder / MANIFEST).exists())
        stems = safe_stems([motion.names[clip] for clip in clips])
        manifest = {
            "schema_version": 1,
            "format": format,
            "fps": motion.fps,
            "layout": motion.layout,
            "source": [path.name for path in motion.paths],
            "clips": [
                {"name": motion.names[clip], "file": stem, "frames": int(motion.lengths[clip])}
                for clip, stem in zip(clips, stems, strict=True)
            ],
        }
        with lock(out), publish_folder(out) as folder:
            chosen.write(folder, motion, clips, stems)
            (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return Exported(len(clips), int(motion.lengths[list(clips)].sum()))


def check_folder(out: Path, *, force: bool, ours: Callable[[Path], bool]) -> None:
    """Refuse a folder that must not be replaced: all but those that are empty, or `ours` and to be replaced."""
    try:
        parent, exists = out.parent.is_dir(), out.exists()
    except OSError as error:
        raise OutputError(f"cannot be created ({error.strerror})", file=out) from error
    if not parent:
        raise OutputError(f"the folder {out.parent} does not exist; create it first", file=out)
    if exists and not out.is_dir():
        raise OutputError("exists and is no folder; choose another -o", file=out)
    if exists and any(out.iterdir()):
        if not ours(out):
            raise OutputError("is a folder that no vqtool export made; choose another -o", file=out)
        if not force:
            raise OutputError("exists already; choose another -o or add --force", file=out)


def safe_stems(names: Sequence[str]) -> list[str]:
    r"""Relative paths for clips of those names, each different and none outside its folder, whatever the names.

    A slash makes a folder. What is not fit for a file name becomes "_": control characters, any of \:*?"<>|, dots
    at the start (".." among them) and in folders, blanks and dots at the end; long parts are cut. A path that is
    taken (case aside) gets a piece of the name's hash.
    """
    taken: set[str] = set()
    stems = []
    for name in names:
        *folders, last = [_safe(part) for part in name.split("/") if part] or ["_"]
        # Without a dot a folder is never called as a clip's file is.
        stem = "/".join([*(folder.replace(".", "_") for folder in folders), last])
        if stem.casefold() in taken:
            digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
            stem += f"~{digest[:16]}"
        taken.add(stem.casefold())
        stems.append(stem)
    return stems


def _safe(part: str) -> str:
    printable = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in part)
    cut = printable.encode("utf-8", "replace")[:MAX_PART].decode("utf-8", "ignore")
    return re.sub(r"^\.+|[. ]+$", "_", cut) or "_"
