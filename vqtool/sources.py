"""What to import: files, folders, globs and @lists become a sorted list of files with the names of their clips."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vqtool.errors import MissingInputError, UsageError, VqtoolError
from vqtool.formats import FORMATS, named_format, sniff
from vqtool.reading import read_bytes

MAX_LIST_BYTES = 64 << 20
MAX_LISTS = 16  # in one another


@dataclass(frozen=True)
class Source:
    """A file, or a folder that is one data set; `name` is what its clips' names begin with."""

    path: Path
    name: str
    format: str


def find_sources(words: Sequence[str], format: str, on_bad: Callable[[VqtoolError], None]) -> list[Source]:
    """The files that the words mean, in the order of their names.

    A word is a file, a folder (every file below it of a known suffix), a glob such as 'amass/**/*.npz', or @list.txt
    (a word a line, from the list's folder). Names are paths without suffix, from the deepest folder that holds
    everything named. `on_bad` is told of files of no known format, and may raise. Raises UsageError where one word
    finds several formats, MissingInputError where it finds nothing.
    """
    if format != "auto":
        named_format(format)
    bases: list[Path] = []
    found: dict[Path, str] = {}
    for word in words:
        for path in _paths(word):
            folder = path.is_dir()
            bases.append(path if folder else path.parent)
            for file in _files(path, format) if folder else [path]:
                try:
                    found[file] = sniff(file) if format == "auto" else format
                except VqtoolError as error:
                    on_bad(error)
    if not found:
        chosen = FORMATS.values() if format == "auto" else [FORMATS[format]]
        suffixes = ", ".join(dict.fromkeys(suffix for one in chosen for suffix in one.suffixes))
        raise MissingInputError(f"holds nothing to import: no file ends in {suffixes}", file=words[0])
    kinds = Counter(found.values())
    if len(kinds) > 1:
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        what = f"found files of several formats ({listed}); choose with --format {kinds.most_common(1)[0][0]}"
        raise UsageError(what, file=words[0] if len(words) == 1 else None)
    base = Path(os.path.commonpath([os.path.abspath(path) for path in bases]))
    sources = [Source(path, _name(path, base), kind) for path, kind in found.items()]
    names: dict[str, Path] = {}
    for source in sources:
        if (other := names.setdefault(source.name, source.path)) != source.path:
            raise UsageError(f"and {other} would both be called {source.name!r}; rename one", file=source.path)
    return sorted(sources, key=lambda source: source.name.split("/"))


def _name(path: Path, base: Path) -> str:
    """A file's path without suffix, a folder's with a slash behind ("" for the base itself)."""
    place = Path(os.path.relpath(os.path.abspath(path), base))
    if path.is_dir():
        return "" if place == Path(".") else f"{place.as_posix()}/"
    return place.with_suffix("").as_posix()


def _paths(word: str, inside: tuple[Path, ...] = ()) -> Iterator[Path]:
    """What one word names: itself, or what it matches or lists; `inside` are the lists that it stands in."""
    path = Path(word)
    if not word:
        raise UsageError("a source without a name; name a file or folder (. is this one)")
    if path.exists():
        yield path
    elif word.startswith("@"):
        listed = Path(word[1:])
        if len(inside) == MAX_LISTS:
            raise UsageError(f"is more than {MAX_LISTS} lists deep; does it list itself?", file=inside[0])
        for line in _list(listed):
            at = "@" if line.startswith("@") else ""
            yield from _paths(at + str(listed.parent / line.removeprefix("@")), (*inside, listed))
    elif glob.has_magic(word):
        matches = sorted(glob.glob(word, recursive=True))
        if not matches:
            raise MissingInputError("matches no file", file=word)
        yield from map(Path, matches)
    else:
        raise MissingInputError("no such file" + (f"; {inside[-1]} lists it" if inside else ""), file=word)


def _list(path: Path) -> list[str]:
    """The lines of a list that are neither empty nor begin with #."""
    if not path.exists():
        raise MissingInputError("no such list", file=path)
    data = read_bytes(path, MAX_LIST_BYTES)
    lines = [line.strip() for line in os.fsdecode(data).splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _files(folder: Path, format: str) -> Iterator[Path]:
    """A folder that is one data set; else the files below it whose suffix is that of a format, hidden ones left out."""
    chosen = list(FORMATS.values()) if format == "auto" else [FORMATS[format]]
    if any(not one.suffixes and (format != "auto" or one.sniff(folder)) for one in chosen):
        yield folder
        return
    suffixes = {suffix for one in chosen for suffix in one.suffixes}
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in suffixes and not name.startswith("."):
                yield Path(parent, name)
