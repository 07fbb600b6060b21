"""Body parts: which columns each of them has, named by joints, groups of the layout or ranges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from vqtool.body import find_body
from vqtool.config import Config
from vqtool.errors import DataError, UsageError, counted
from vqtool.motion import column_names, joint_columns, resolve_columns, runs
from vqtool.skeleton import Skeleton

if TYPE_CHECKING:
    from vqtool.store import MotionSet


def with_parts(config: Config, motion: MotionSet) -> Config:
    """The config with the columns of each part of model.parts written out, and as many groups as there are parts.

    A tokenizer must not need a skeleton to know its own columns.
    """
    if not config.model.parts:
        return config
    body = next(iter(motion.companions.bodies), None)
    parts = resolve_parts(config.model.parts, motion.layout, motion.dim, body)
    groups = {"groups": len(parts), **config.bottleneck}
    return replace(config, model=replace(config.model, parts=parts), bottleneck=groups)


def resolve_parts(parts: Mapping[str, str], layout: str, dim: int, skeleton: Skeleton | None) -> dict[str, str]:
    """The columns of each part as ranges "0:4, 7:8", parts in the order of their names.

    A part lists joints, groups of the layout, columns and ranges, with commas between them. A joint stands for itself
    and all below it but those that stand below a joint named nearer to them; columns and groups come before joints.
    Raises UsageError for what is none of these, for a column in two parts and for columns in none.
    """
    owner: dict[int, str] = {}
    joints: dict[int, str] = {}
    for part, text in sorted(parts.items()):
        for word in (word.strip() for word in text.split(",")):
            if skeleton is not None and word in skeleton.names:
                _claim(joints, [skeleton.names.index(word)], part, "joint")
                continue
            try:
                found = resolve_columns(word, layout, dim)
            except UsageError as error:
                known = "" if skeleton is None else f", or one of the joints ({', '.join(skeleton.names[:30])})"
                raise UsageError(f"model.parts.{part}: {error.what}{known}") from None
            _claim(owner, range(dim)[found], part, "column")
    if joints and skeleton is not None:
        for joint, columns in enumerate(_columns_of_joints(layout, dim, skeleton)):
            above = joint
            while above >= 0 and above not in joints:
                above = skeleton.parents[above]
            if above >= 0:
                owner = dict.fromkeys(columns, joints[above]) | owner
    if missing := [column for column in range(dim) if column not in owner]:
        names = column_names(layout, dim, None if skeleton is None else skeleton.names)
        shown = ", ".join(names[column] for column in missing[:6]) + (", ..." if len(missing) > 6 else "")
        raise UsageError(
            f"model.parts: {counted(len(missing), 'columns', 'are')} in no part ({shown}); name all of them"
        )
    own = {part: _ranges(column for column in sorted(owner) if owner[column] == part) for part in sorted(parts)}
    if empty := [part for part, columns in own.items() if not columns]:
        raise UsageError(f"model.parts.{empty[0]}: all of its columns are in other parts; leave it out")
    return own


def _claim(owner: dict[int, str], numbers: range | list[int], part: str, what: str) -> None:
    for number in numbers:
        if (other := owner.setdefault(number, part)) != part:
            raise UsageError(f"model.parts: {what} {number} is in {other} and in {part}; leave it in one")


def _columns_of_joints(layout: str, dim: int, skeleton: Skeleton) -> list[list[int]]:
    """The columns of each joint; contacts are those of the feet that are found by name, else the root's."""
    try:
        feet = find_body(skeleton, facing=[]).feet
    except DataError:
        feet = ()
    found = joint_columns(layout, dim, feet)
    if len(found) != len(skeleton.names):
        raise UsageError(f"model.parts: layout {layout!r} does not say which columns are a joint's; name ranges as 0:3")
    return found


def part_columns(parts: Mapping[str, str], dim: int) -> list[list[int]]:
    """The columns of each part as `resolve_parts` wrote them, parts in the order of their names."""
    found = []
    for _, text in sorted(resolve_parts(parts, "raw", dim, None).items()):
        found.append([column for word in text.split(", ") for column in range(dim)[resolve_columns(word, "raw", dim)]])
    return found


def _ranges(numbers: Iterable[int]) -> str:
    """0, 1, 2, 7 as "0:3, 7:8": no joint is called so."""
    return ", ".join(f"{first}:{stop}" for first, stop in runs(numbers))
