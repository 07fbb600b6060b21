"""What the columns of motion are, by the name of their layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vqtool.errors import UsageError, counted


def _joint_groups(joints: int) -> dict[str, slice]:
    """Columns of the joint features [T, 12 J - 1] (HumanML3D's 263 for J = 22, KIT-ML's 251 for J = 21)."""
    position = 4
    rotation = position + 3 * (joints - 1)
    velocity = rotation + 6 * (joints - 1)
    contact = velocity + 3 * joints
    return {
        "root": slice(0, 4),
        "positions": slice(position, rotation),
        "rotations": slice(rotation, velocity),
        "velocities": slice(velocity, contact),
        "contacts": slice(contact, contact + 4),
    }


def column_groups(layout: str, dim: int) -> dict[str, slice]:
    """The named groups of columns of a layout; {} where the layout names none ("raw" and unknown ones)."""
    if layout in ("joints", "humanml3d", "kit") and (dim + 1) % 12 == 0:
        return _joint_groups((dim + 1) // 12)
    return {}


def column_names(layout: str, dim: int, joints: Sequence[str] | None = None) -> list[str]:
    """A name for each column; `joints` names the joints of a layout that has some."""
    count = dim // 3 if layout == "positions" else (dim + 1) // 12
    joints = joints if joints is not None and len(joints) == count else [f"joint{n}" for n in range(count)]
    if layout == "positions" and dim % 3 == 0:
        return [f"{joint}.{axis}" for joint in joints for axis in "xyz"]
    if not column_groups(layout, dim):
        return [f"c{column}" for column in range(dim)]
    names = ["root.turn", "root.velocity.x", "root.velocity.z", "root.height"]
    names += [f"{joint}.position.{axis}" for joint in joints[1:] for axis in "xyz"]
    names += [f"{joint}.rotation.{axis}{column}" for joint in joints[1:] for column in "01" for axis in "xyz"]
    names += [f"{joint}.velocity.{axis}" for joint in joints for axis in "xyz"]
    return names + [f"contact.{foot}" for foot in ("left_ankle", "left_toe", "right_ankle", "right_toe")]


def joint_columns(layout: str, dim: int, feet: Sequence[int] = ()) -> list[list[int]]:
    """The columns that tell of each joint, the root's own group of joint 0; [] where the layout knows no joints.

    `feet`: the joints of the four contacts; empty: they are joint 0's.
    """
    if layout == "positions" and dim % 3 == 0:
        return [[*range(start, start + 3)] for start in range(0, dim, 3)]
    groups = column_groups(layout, dim)
    if not groups:
        return []
    found = [[*range(dim)[groups["root"]]], *([] for _ in range((dim + 1) // 12 - 1))]
    for name, width, first in (("positions", 3, 1), ("rotations", 6, 1), ("velocities", 3, 0)):
        for joint, start in enumerate(range(groups[name].start, groups[name].stop, width), first):
            found[joint] += range(start, start + width)
    for joint, column in zip(feet or [0] * 4, range(dim)[groups["contacts"]], strict=True):
        found[joint].append(column)
    return found


def resolve_columns(key: str, layout: str, dim: int) -> slice:
    """The columns that `key` means: a group of the layout, an index "7" or a half-open range "3:44".

    Raises UsageError naming the groups there are.
    """
    groups = column_groups(layout, dim)
    if key in groups:
        return groups[key]
    first, colon, last = key.partition(":")
    if first.isdecimal() and (last.isdecimal() if colon else not last):
        start = int(first)
        stop = int(last) if colon else start + 1
        if start < stop <= dim:
            return slice(start, stop)
    known = ", ".join(groups) if groups else "none"
    raise UsageError(
        f"no columns {key!r} in layout {layout!r} with {counted(dim, 'columns')}; "
        f"name a group ({known}) or a range like 0:3"
    )


def runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Ascending numbers as half-open ranges: 0, 1, 2, 7 as (0, 3), (7, 8)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1]:
            found[-1] = found[-1][0], number + 1
        else:
            found.append((number, number + 1))
    return found
