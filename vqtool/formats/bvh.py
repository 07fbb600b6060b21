"""BVH and qbvh files to a skeleton's motion and back.

A joint's position channels replace its OFFSET, so that a file whose joints all have six channels is not
counted twice. Channels come in any order, rotations in any order a joint, as three Euler angles in degrees
(about the joint's own axes, one after the other) or as four quaternion channels Xrotation ... Wrotation.
In memory: metres, radians, Y up, and the root is the topmost joint that moves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from vqtool.body import stands_along
from vqtool.errors import DataError, UsageError, counted
from vqtool.features import recover
from vqtool.formats.base import MAX_TEXT_BYTES, Clip, ReadOptions, Recording, clip_file, number_rows
from vqtool.reading import first_bytes, read_text
from vqtool.rotations import euler_to_matrix, matrix_to_euler, matrix_to_quaternion, quaternion_to_matrix
from vqtool.skeleton import BvhTemplate, Skeleton, SkeletonMotion

if TYPE_CHECKING:
    from vqtool.store import MotionSet

UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001, "inch": 0.0254, "CMU unit (1/0.45 inch)": 0.0254 / 0.45}
MAX_JOINTS = 4096
MAX_HIERARCHY_BYTES = 8 << 20
LARGEST = 1e9  # of any number: more is damage, and would overflow
MAX_JOINT_FRAMES = 10_000_000  # joints times frames: about 1 GB in memory
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # (x, y, z) to (x, z, -y)


@dataclass(frozen=True)
class _Joint:
    """A joint as the HIERARCHY has it; `channels` in lower case, `column` where they start in a row."""

    name: str
    parent: int
    offset: tuple[float, ...]
    channels: tuple[str, ...]
    column: int

    def columns(self, kind: str, axes: str) -> list[int]:
        """Columns of e.g. the "position" channels of "xyz"; -1 where the joint lacks one."""
        named = {channel: self.column + n for n, channel in enumerate(self.channels)}
        return [named.get(axis + kind, -1) for axis in axes]

    def order(self) -> str:
        """The rotation channels' axes in their order, "" for none; with "w" among them: a quaternion."""
        return "".join(channel[0] for channel in self.channels if channel.endswith("rotation"))


def is_bvh(path: Path) -> bool:
    """Whether it begins with a HIERARCHY."""
    return b"HIERARCHY" in first_bytes(path).upper()


def bvh_clips(path: Path, name: str, options: ReadOptions) -> Iterator[Clip]:
    """The one clip of a BVH file; its channels as they are where raw numbers are asked for."""
    yield Clip(name, path, partial(_read_clip, path, options))


def _read_clip(path: Path, options: ReadOptions) -> Recording:
    if options.raw:
        values, fps = read_channels(path)
        return Recording(values, fps, "raw")
    motion = read_bvh(
        path,
        metres_per_unit=options.metres_per_unit,
        drop_first_frame=options.drop_first_frame,
        up=options.up,
    )
    return Recording(motion, motion.fps, notes=motion.notes, warnings=motion.warnings)


def read_channels(path: Path) -> tuple[np.ndarray, float]:
    """The numbers of all frames as they are in the file, [T, channels], and its frames a second."""
    try:
        data = read_text(path, MAX_TEXT_BYTES)
        hierarchy, start = _split(data)
        fps, _, start = _motion_header(data, start)
        return _rows(data, start, _parse_hierarchy(hierarchy)), fps
    except DataError as error:
        raise DataError(error.what, file=path) from None


def root_offset(skeleton: Skeleton) -> np.ndarray:
    """The OFFSET [3] of the root in metres, as its BVH has it; zeros for a skeleton of none."""
    if skeleton.bvh is None:
        return np.zeros(3)
    joints = _parse_hierarchy(skeleton.bvh.hierarchy)
    offset = next(joint.offset for joint in joints if joint.name == skeleton.names[0])
    return np.array(offset) * skeleton.bvh.metres_per_unit


def read_bvh(
    path: Path,
    *,
    metres_per_unit: float | None = None,
    drop_first_frame: str = "auto",
    up: str = "y",
) -> SkeletonMotion:
    """Read one clip.

    `metres_per_unit`: None guesses among metres, centimetres, millimetres, inches and the CMU database's unit
    from the body's height. `drop_first_frame`: "yes", "no", or "auto": where the body jumps from a T-pose
    into the motion. `up`: the file's vertical axis, "y" or "z". What was decided and what was odd is told in
    the result's `notes` and `warnings`. Raises DataError with the line for a file that is not right.
    """
    if drop_first_frame not in ("auto", "yes", "no"):
        raise UsageError(f"--drop-first-frame is {drop_first_frame!r}; auto, yes or no was expected")
    if up not in ("y", "z"):
        raise UsageError(f"the vertical axis is {up!r}; y or z was expected")
    if metres_per_unit is not None and not 0 < metres_per_unit < 1e6:
        raise UsageError(f"a unit of {metres_per_unit:g} metres makes no sense; centimetres are 0.01")
    try:
        motion = _parse(read_text(path, MAX_TEXT_BYTES), metres_per_unit, up)
    except DataError as error:
        raise DataError(error.what, file=path) from None
    return _drop_first_frame(motion, drop_first_frame)


def _parse(data: bytes, metres_per_unit: float | None, up: str) -> SkeletonMotion:
    hierarchy, start = _split(data)
    joints = _parse_hierarchy(hierarchy)
    fps, declared, start = _motion_header(data, start)
    values = _rows(data, start, joints)
    warnings = []
    if declared and not len(values):
        raise DataError(f"says {counted(declared, 'frames')} but has none; was the file cut short?")
    if declared != len(values):
        warnings.append(f"says {counted(declared, 'frames')} but has {counted(len(values), 'rows')}; the rows count")

    root = _root(joints, values)
    translations, rotations = _local(joints, values)
    for above in range(root - 1, -1, -1):
        frame = rotations[:, above]
        translations[:, root] = translations[:, above] + (frame @ translations[:, root, :, None])[..., 0]
        rotations[:, root] = frame @ rotations[:, root]
    if root:
        names = ", ".join(joint.name for joint in joints[:root])
        notes = [f"the root is {joints[root].name}: {names} above it never moves"]
    else:
        notes = []
    joints, translations, rotations = joints[root:], translations[:, root:], rotations[:, root:]
    offsets, moving = _bones(joints, translations)
    still = [joint for joint in range(1, len(joints)) if joint not in moving]
    translations[:, still] = offsets[still]
    if moving:
        names = ", ".join(joints[joint].name for joint in moving[:4])
        spread = np.ptp(translations[:, moving], axis=0).max()
        share = 100 * spread / np.linalg.norm(offsets, axis=1).max(initial=1e-9)
        how_far = f"up to {share:.2g} % of the longest bone"
        parents = "its parent" if len(moving) == 1 else "their parents"
        warnings.append(f"{counted(len(moving), 'joints', 'move')} within {parents} ({names}; {how_far})")

    skeleton = Skeleton(
        tuple(joint.name for joint in joints),
        tuple(max(joint.parent - root, -1) for joint in joints),
        offsets,
    )
    if metres_per_unit is None:
        metres_per_unit, note = _guess_unit(skeleton.size())
        notes.append(note)
    if up == "z":
        translations[:, 0] = translations[:, 0] @ Z_UP.T
        rotations[:, 0] = Z_UP @ rotations[:, 0]
    skeleton = replace(
        skeleton,
        offsets=offsets * metres_per_unit,
        bvh=BvhTemplate(hierarchy, metres_per_unit, up),
    )
    translations *= metres_per_unit
    motion = SkeletonMotion(skeleton, translations, rotations, fps, tuple(notes))
    if up == "y" and stands_along(motion) == "z":
        warnings.append("the body stands along Z; if Z is up in this file, say so with --up z")
    return replace(motion, warnings=tuple(warnings))


def _split(data: bytes) -> tuple[str, int]:
    """The text before MOTION, and where what follows that line starts."""
    found = re.search(rb"^[ \t]*MOTION\b[^\n]*(\n|$)", data, re.MULTILINE)
    if found is None:
        raise DataError("has no MOTION line; it is not a BVH file or was cut short")
    if found.start() > MAX_HIERARCHY_BYTES:
        raise DataError(f"its HIERARCHY is larger than {MAX_HIERARCHY_BYTES >> 20} MiB; it is not a BVH file")
    return _decode(data[: found.start()]), found.end()


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


@lru_cache(maxsize=8)  # clips of one data set often have the same
def _parse_hierarchy(text: str) -> tuple[_Joint, ...]:
    """The joints of a HIERARCHY, parents first. Raises DataError with the line."""
    names: list[str] = []
    parents: list[int] = []
    offsets: dict[int, tuple[float, ...]] = {}
    channels: dict[int, tuple[str, ...]] = {}
    starts: dict[int, int] = {}  # of a joint's channels in a row
    columns = 0
    seen: set[str] = set()
    inside: list[int] = []  # from the root to the joint being read; -1 is an End Site
    words = _words(text)
    line = 1

    def take(expected: str) -> str:
        nonlocal line
        line, word = next(words, (line, ""))
        if not word or (expected == "{" and word != "{"):
            raise DataError(f"line {line}: {expected} was expected, not {word[:40]!r}")
        return word

    if take("HIERARCHY").upper() != "HIERARCHY":
        raise DataError("does not begin with HIERARCHY; it is not a BVH file")
    for line, word in words:
        keyword = word.lower()
        joint = inside[-1] if inside else -1
        if keyword in ("root", "joint", "end"):
            name = take("a joint's name")
            named = line
            take("{")
            if joint < 0 and (names or keyword != "root"):
                raise DataError(f"line {named}: {word} {name[:40]!r} is out of place; one ROOT holds all joints")
            if keyword != "end":
                if name in seen:
                    raise DataError(f"line {named}: joint name {name[:40]!r} appears twice; rename one")
                if len(names) == MAX_JOINTS:
                    raise DataError(f"line {named}: has more than {MAX_JOINTS} joints")
                seen.add(name)
                names.append(name)
                parents.append(joint)
            inside.append(-1 if keyword == "end" else len(names) - 1)
        elif not inside:
            raise DataError(f"line {line}: ROOT was expected, not {word[:40]!r}")
        elif keyword == "}":
            inside.pop()
        elif keyword == "offset":
            offset = tuple(_number(take("a number"), line) for _ in range(3))
            if joint >= 0:
                offsets[joint] = offset
        elif keyword == "channels" and joint >= 0 and joint not in channels:
            count = take("the number of channels")
            if count not in tuple("01234567"):
                raise DataError(f"line {line}: {count[:40]!r} channels; 0 to 7 were expected")
            channels[joint] = tuple(take("a channel").lower() for _ in range(int(count)))
            if fault := _channel_fault(channels[joint]):
                raise DataError(f"line {line}: {fault}")
            starts[joint] = columns
            columns += len(channels[joint])
        else:
            raise DataError(f"line {line}: {word[:40]!r} is out of place")
    if inside or not names:
        raise DataError(
            f"line {line}: the HIERARCHY ends with {counted(len(inside), 'joints')} open; was it cut short?"
        )
    if len(offsets) < len(names):
        bare = next(name for n, name in enumerate(names) if n not in offsets)
        raise DataError(f"joint {bare[:40]!r} has no OFFSET; was a line lost?")
    if not columns:
        raise DataError("has no channels; nothing moves in it")
    return tuple(
        _Joint(name, parents[n], offsets[n], channels.get(n, ()), starts.get(n, 0)) for n, name in enumerate(names)
    )


def _words(text: str) -> Iterator[tuple[int, str]]:
    """Line number and word; after ROOT, JOINT and End the rest of the line is one word, a brace aside."""
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if words and words[0].lower() in ("root", "joint", "end"):
            name = line.split(maxsplit=1)[-1].strip() if len(words) > 1 else ""
            words = [words[0], name.removesuffix("{").rstrip(), "{" if name.endswith("{") else ""]
        elif "{" in line or "}" in line:
            words = re.findall(r"[{}]|[^\s{}]+", line)
        for word in words:
            if word:
                yield number, word


@lru_cache
def _channel_fault(channels: tuple[str, ...]) -> str:
    """What is wrong with the channels of a joint, "" if nothing is."""
    for channel in channels:
        if not re.fullmatch("[xyz]position|[xyzw]rotation", channel):
            return f"no channel is called {channel[:40]!r}; for example Xposition was expected"
        if channels.count(channel) > 1:
            return f"channel {channel!r} appears twice in one joint"
    if "wrotation" in channels and sum(channel.endswith("rotation") for channel in channels) != 4:
        return "a quaternion needs Xrotation, Yrotation, Zrotation and Wrotation"
    return ""


def _number(word: str, line: int) -> float:
    try:
        value = float(word) if "_" not in word else float("nan")
    except ValueError:
        value = float("nan")
    if not abs(value) < LARGEST:
        what = f"{word[:40]!r} is not a number to use here" if word else "a number is missing; was the file cut short?"
        raise DataError(f"line {line}: {what}")
    return value


def _motion_header(data: bytes, start: int) -> tuple[float, int, int]:
    """Frames a second, declared frames, and where the rows start."""
    frames, line, start = _setting(data, start, "Frames")
    if not re.fullmatch(r"[0-9]{1,18}", frames):
        raise DataError(f"line {line}: {frames!r} frames; a number was expected")
    seconds, line, start = _setting(data, start, "Frame Time")
    time = _number(seconds, line)
    if not 1e-6 < time < 1e3:
        raise DataError(f"line {line}: a frame time of {seconds} s; a positive number was expected")
    return _frame_rate(time, seconds), int(frames), start


def _setting(data: bytes, start: int, key: str) -> tuple[str, int, int]:
    """The value of the next line, which must be "KEY: VALUE"; its line number, and where the line ends."""
    start += len(data[start : start + 4096]) - len(data[start : start + 4096].lstrip())
    stop = data.find(b"\n", start) % (len(data) + 1)
    found, _, value = data[start:stop].decode("latin-1").partition(":")
    line = data.count(b"\n", 0, start) + 1
    if " ".join(found.split()).lower() != key.lower():
        instead = f"not {found[:40]!r}" if data[start:].strip() else "but the file ends; was it cut short?"
        raise DataError(f"line {line}: '{key}: ...' was expected, {instead}")
    value = value.strip()
    if len(value) > 40:
        raise DataError(f"line {line}: {key} {value[:40]!r}... is too long for a number")
    return value, line, stop


def _frame_rate(seconds: float, printed: str) -> float:
    """1 / seconds, or the whole number of frames a second that rounds to the frame time as printed."""
    mantissa, _, exponent = printed.lower().partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    rate = float(round(1 / seconds))
    if rate and abs(1 / rate - seconds) <= 0.500001 * 10.0**-decimals:
        return rate
    return 1 / seconds


def _rows(data: bytes, start: int, joints: tuple[_Joint, ...]) -> np.ndarray:
    """The numbers of all frames, [T, channels]."""
    columns = sum(len(joint.channels) for joint in joints)
    body = data[start:]
    if (body.count(b"\n") + 1) * len(joints) > MAX_JOINT_FRAMES:
        raise DataError(f"has more than {MAX_JOINT_FRAMES // len(joints)} frames; cut it into shorter clips")
    return number_rows(
        body, line=data.count(b"\n", 0, start) + 1, columns=columns, why="the channels need", largest=LARGEST
    )


def _root(joints: tuple[_Joint, ...], values: np.ndarray) -> int:
    """The topmost joint that moves: below all that stand still and have one child with its own position."""
    root = 0
    while True:
        joint = joints[root]
        own = values[:, joint.column : joint.column + len(joint.channels)]
        children = [n for n, other in enumerate(joints) if other.parent == root]
        if len(children) != 1 or -1 in joints[children[0]].columns("position", "xyz") or (own != own[:1]).any():
            return root
        root = children[0]


def _local(joints: tuple[_Joint, ...], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Translations [T, N, 3] in the file's unit and rotations [T, N, 3, 3], each in its parent's frame."""
    frames = len(values)
    values = np.concatenate([values, np.zeros((frames, 1))], axis=1)  # column -1: an axis without a channel
    places = np.array([joint.columns("position", "xyz") for joint in joints])
    fixed = np.where(places < 0, [joint.offset for joint in joints], 0.0)
    translations = np.take(values, places, axis=1) + fixed
    groups: dict[str, list[int]] = {}
    for n, joint in enumerate(joints):
        groups.setdefault(_full_order(joint.order()), []).append(n)
    rotations = np.empty((frames, len(joints), 3, 3))
    for order, members in groups.items():
        columns = np.array([joints[n].columns("rotation", order) for n in members])
        own = np.take(values, columns, axis=1)  # [T, members, 3 or 4]
        if order == "wxyz":
            length = np.linalg.norm(own, axis=-1, keepdims=True)
            if (length < 1e-6).any():
                frame = int(np.argmax((length < 1e-6).any(axis=(1, 2))))
                raise DataError(f"row {frame + 1} of the motion has a quaternion of zeros: no rotation")
            rotations[:, members] = quaternion_to_matrix(own / length)
        else:
            rotations[:, members] = euler_to_matrix(np.radians(own), order)
    return translations, rotations


def _full_order(order: str) -> str:
    """An order of three axes that begins with those given; "wxyz" for a quaternion."""
    return "wxyz" if "w" in order else order + "".join(axis for axis in "xyz" if axis not in order)


def _bones(joints: tuple[_Joint, ...], translations: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """Rest offsets [J, 3] in the file's unit, and the joints that do not keep to them.

    A joint that is elsewhere than its OFFSET, but always at the same place, has that place as its offset.
    Differences under a hundred-thousandth of the longest bone are taken for rounding.
    """
    offsets = np.array([joint.offset for joint in joints])
    offsets[0] = 0.0
    if not len(translations):
        return offsets, []
    low, high = translations.min(axis=0), translations.max(axis=0)
    slack = 1e-5 * np.linalg.norm((low + high)[1:] / 2, axis=1).max(initial=0.0)
    still = (high - low <= slack).all(axis=1)
    elsewhere = (np.abs(low - offsets) > slack).any(axis=1)
    offsets = np.where((still & elsewhere)[:, None], (low + high) / 2, offsets)
    offsets[0] = 0.0
    return offsets, [joint for joint in range(1, len(joints)) if not still[joint]]


def _guess_unit(size: float) -> tuple[float, str]:
    """Metres a unit, such that a body of `size` units comes nearest to 1.7 m, and a sentence that says so."""
    if size <= 0:
        return 1.0, "units taken as metres: the bones have no length"
    name = min(UNITS, key=lambda unit: abs(float(np.log(size * UNITS[unit] / 1.7))))
    return UNITS[name], f"units taken as {name}: the body is then about {size * UNITS[name]:.2f} m tall"


def _drop_first_frame(motion: SkeletonMotion, when: str) -> SkeletonMotion:
    """Without the first frame where that is asked for, or where it is a T-pose ("auto").

    A T-pose is known by the jump out of it: some joint turns by more than 30 degrees, and all together turn
    eight times as far as they do, on average, from frame to frame in the ten that follow. More than one frame
    goes where several begin the clip in which most of the joints are not turned at all.
    """
    if when == "no" or not len(motion):
        return motion
    count, note = 1, "frame 0 dropped, as asked"
    if when == "auto":
        while count < len(motion) and all(_at_rest(motion.rotations[frame]) for frame in (0, count)):
            count += 1
        near = motion.rotations[count - 1 : count + 11]
        trace = np.sum(near[1:] * near[:-1], axis=(2, 3))
        turns = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))  # [frames, J]
        total = turns.sum(axis=1)
        if len(near) < 3 or turns[0].max() <= 30 or total[0] <= 8 * total[1:].mean():
            return motion
        note = f"T-pose dropped: {count} frame{'s' * (count > 1)}, {turns[0].max():.0f} degrees from the next"
    return replace(
        motion,
        translations=motion.translations[count:],
        rotations=motion.rotations[count:],
        notes=(*motion.notes, note),
    )


def _at_rest(rotations: np.ndarray) -> bool:
    """Whether most of the joints, [J, 3, 3], are not turned at all."""
    return bool((np.abs(rotations - np.eye(3)) < 1e-6).all(axis=(1, 2)).mean() > 0.5)


def write_bvhs(folder: Path, motion: MotionSet, clips: Sequence[int], stems: Sequence[str]) -> None:
    """STEM.bvh of each clip of layout joints, on the body that it was imported with."""
    if motion.layout != "joints":
        what = "BVH is made from joint features, as of: vqtool import mocap/ -o motion.h5 --layout joints"
        raise UsageError(f"has layout {motion.layout}; {what}", file=motion.paths[0])
    if not motion.companions.bodies:
        what = (
            "decode or import what a model wrote with --like TOKENS (a tokens.h5 of the run), sample with --like MOTION"
        )
        raise UsageError(f"carries no skeleton, which BVH needs; {what}", file=motion.paths[0])
    for clip, stem in zip(clips, stems, strict=True):
        skeleton = motion.companions.body(clip)
        assert skeleton is not None
        with clip_file(folder, stem, ".bvh").open("wb") as file:
            write_bvh(file, recover(motion.read_all(clip), skeleton, motion.fps, motion.companions.start(clip)))


def write_bvh(file: BinaryIO, motion: SkeletonMotion) -> None:
    """Write one clip, in the hierarchy, channels, unit and vertical axis of the file it came from.

    A skeleton that came from no BVH gets centimetres, a root of six channels and joints of three.
    Joints above the root are written as standing still, with the root carrying all of the motion.
    """
    skeleton = motion.skeleton
    template = skeleton.bvh or _plain_template(skeleton)
    joints = _parse_hierarchy(template.hierarchy)
    number = {name: n for n, name in enumerate(skeleton.names)}
    shared = [joint.name for joint in joints if joint.name in number]
    if len(shared) < len(number) or shared[0] != skeleton.names[0]:
        raise DataError("the skeleton's joints are not those of its BVH hierarchy")
    translations = motion.translations / template.metres_per_unit
    rotations = motion.rotations
    if template.up == "z":
        translations, rotations = translations.copy(), rotations.copy()
        translations[:, 0] = translations[:, 0] @ Z_UP
        rotations[:, 0] = Z_UP.T @ rotations[:, 0]
    above = np.zeros(3)
    values = np.zeros((len(motion), sum(len(joint.channels) for joint in joints)))
    for joint in joints:
        n = number.get(joint.name)
        places = joint.columns("position", "xyz")
        order = _full_order(joint.order())
        if n is None:
            above = above + np.where(np.array(places) < 0, joint.offset, 0.0)
            if order == "wxyz":
                values[:, joint.columns("rotation", "w")] = 1.0
            continue
        turn = rotations[:, n]
        turn = matrix_to_quaternion(turn) if order == "wxyz" else np.degrees(matrix_to_euler(turn, order))
        place = translations[:, n] - (above if n == 0 else 0.0)
        for columns, numbers in ((places, place), (joint.columns("rotation", order), turn)):
            for axis, column in enumerate(columns):
                if column >= 0:
                    values[:, column] = numbers[:, axis]
    head = f"{template.hierarchy.rstrip()}\nMOTION\nFrames: {len(values)}\nFrame Time: {1 / motion.fps:.12g}\n"
    file.write(head.encode())
    row = " ".join(["%.6f"] * values.shape[1]) + "\n"
    for frame in values:
        file.write((row % tuple(frame)).encode())


def _plain_template(skeleton: Skeleton) -> BvhTemplate:
    """A HIERARCHY in centimetres for a skeleton that came from no BVH file."""
    lines = ["HIERARCHY"]
    waiting = [(0, 0)]  # joint (-1: a brace to close) and depth; the next one is last
    while waiting:
        joint, depth = waiting.pop()
        tab = "\t" * depth
        if joint < 0:
            lines.append(tab + "}")
            continue
        x, y, z = 100 * skeleton.offsets[joint]
        place = "3" if depth else "6 Xposition Yposition Zposition"
        lines += [f"{tab}{'JOINT' if depth else 'ROOT'} {skeleton.names[joint]}", tab + "{"]
        lines += [
            f"{tab}\tOFFSET {x:.6f} {y:.6f} {z:.6f}",
            f"{tab}\tCHANNELS {place} Zrotation Xrotation Yrotation",
        ]
        children = [child for child, parent in enumerate(skeleton.parents) if parent == joint]
        if not children:
            lines += [f"{tab}\tEnd Site", tab + "\t{", f"{tab}\t\tOFFSET 0.0 0.0 0.0", tab + "\t}"]
        waiting += [(-1, depth), *((child, depth + 1) for child in reversed(children))]
    return BvhTemplate("\n".join(lines), 0.01, "y")
