"""The page of `vqtool report`: a survey, its figures and the log of the training in; one HTML file out.

The page needs nothing but itself: style, program, three.js and data are inside, and its Content-Security-Policy
forbids every request. What is long is kept as base64 of zlib of integers, a plane for each byte of them; a reader gets
the numbers back with `unpacked`. A clip's blob holds the true and the decoded motion, [1 + steps, columns, T], as
differences in time. A skeleton's columns are joint positions, J x 3.
"""

from __future__ import annotations

import base64
import html
import json
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.codebook import principal_map
from vqtool.errors import printable
from vqtool.features import recover_positions
from vqtool.metrics import JointErrors
from vqtool.motion import column_groups, column_names
from vqtool.skeleton import PUBLISHED_TREES
from vqtool.usage import CodebookReport

if TYPE_CHECKING:
    from vqtool.nn.survey import Survey
    from vqtool.store import MotionSet
    from vqtool.tokenizer_file import TokenizerFile

FORMAT = 1
GRAIN = 2000  # steps of the numbers of a clip in the height of its body, or in the range of its column
MOST_COLUMNS = 48  # curves of a layout without joints: those that come back worst
MOST_TYPICAL = 4096  # codes of all layers that have their typical motion in the page: the most used of each layer
MOST_PAIRS = 1 << 16  # of a layer's transitions, the most frequent


@dataclass(frozen=True)
class Drawing:
    """What the page draws of a clip's columns: joints along their paths, or some columns as curves."""

    layout: str
    dim: int
    columns: tuple[int, ...]  # () where joints are drawn

    @property
    def joints(self) -> int:
        """How many; 0 of curves."""
        if self.columns:
            return 0
        return self.dim // 3 if self.layout == "positions" else (self.dim + 1) // 12

    def values(self, frames: np.ndarray) -> np.ndarray:
        """[T, 3 J] metres or [T, columns] of frames [T, D], or of their first columns as far as joints need them."""
        if self.columns:
            return np.take(frames, self.columns, axis=1)
        if self.layout == "positions":
            return frames
        scale = 0.001 if self.layout == "kit" else 1.0
        full = np.pad(frames, ((0, 0), (0, self.dim - frames.shape[1])))
        positions: np.ndarray = scale * recover_positions(full).reshape(len(frames), -1)
        return positions

    def grains(self, values: np.ndarray) -> np.ndarray:
        """What one integer is worth, for each column of values [n, columns]: all alike for joints."""
        if self.columns:
            ranges: np.ndarray = np.maximum(np.ptp(values, axis=0) / GRAIN, 1e-12)
            return ranges
        joints = values.reshape(len(values), -1, 3)
        size = float(np.median(np.ptp(joints, axis=1).max(1)))
        grain = max(size / GRAIN, float(np.abs(values).max()) / 32000, 1e-9)
        return np.full(values.shape[1], grain)


def drawing(layout: str, dim: int, worst: np.ndarray) -> Drawing:
    """Joints where the layout knows them, else as curves the columns that come first in `worst`."""
    known = JointErrors.known(layout, dim)
    return Drawing(layout, dim, () if known else tuple(worst[:MOST_COLUMNS].tolist()))


def packed(values: np.ndarray) -> str:
    """Integers as text: base64 of zlib of all lowest bytes, then all second ones, ..."""
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    planes = little.reshape(-1, 1).view(np.uint8).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()


def unpacked(text: str, dtype: str) -> np.ndarray:
    """Those integers again, flat."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    wide = np.dtype(dtype).newbyteorder("<")
    return np.ascontiguousarray(planes.reshape(wide.itemsize, -1).T).view(wide).ravel()


def packed_motion(tracks: Sequence[np.ndarray], grains: np.ndarray, middle: np.ndarray) -> str:
    """Tracks [T, columns] of one length as differences in time of int16."""
    steps = np.rint((np.stack(tracks) - middle) / grains).astype(np.int16).swapaxes(1, 2)  # [tracks, columns, T]
    return packed(np.diff(steps, axis=2, prepend=np.int16(0)))


def unpacked_motion(text: str, tracks: int, grains: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """[tracks, T, columns] again, to half a grain."""
    steps = np.cumsum(unpacked(text, "int16").reshape(tracks, len(grains), -1), axis=2, dtype=np.int16)
    tracks_again: np.ndarray = steps.swapaxes(1, 2) * grains + middle
    return tracks_again


def page(
    title: str,
    survey: Survey,
    motion: MotionSet,
    tokenizer: TokenizerFile,
    figures: Mapping[str, Any],
    curve: Sequence[Mapping[str, Any]],
    groups: Sequence[Mapping[str, float]],
    log: Sequence[Mapping[str, Any]] | None,
) -> bytes:
    """The page. `figures`: what `vqtool evaluate --json` prints; `curve` and `groups`: a point, and the nmse of groups,
    for each of the survey's steps; `log`: the lines of metrics.jsonl.
    """
    whole = survey.whole
    error = np.where(whole.moving, whole.squared, -1.0)
    draw = drawing(motion.layout, motion.dim, np.argsort(-error, kind="stable"))
    blobs: dict[str, str] = {}
    data = {
        "format": FORMAT,
        "title": printable(title),
        "tokenizer": {
            "bottleneck": tokenizer.config["model"]["bottleneck"],
            "codebook_sizes": tokenizer.codebook_sizes,
            "parts": tokenizer.parts,
            "layout": motion.layout,
            "dim": motion.dim,
            "fps": motion.fps,
            "downsample": tokenizer.downsample,
            "id": tokenizer.tokenizer_id,
            "steps": tokenizer.config.get("train", {}).get("steps"),
        },
        "figures": {name: value for name, value in figures.items() if name not in ("columns_nmse", "layers")},
        "steps": survey.steps,
        "curve": list(curve),
        "groups": {name: [one[name] for one in groups] for name in (groups[-1] if groups else ())},
        "group_columns": {
            name: len(range(motion.dim)[where]) for name, where in column_groups(motion.layout, motion.dim).items()
        },
        "usage": _usage(survey, blobs),
        "training": None if log is None else list(log),
        "skeleton": _skeleton(draw, motion, tokenizer),
        "columns": _columns(draw, motion, survey),
        "clips": [_clip(draw, motion, survey, number, blobs) for number in range(len(survey.shown))],
    }
    if isinstance(survey.usage, CodebookReport):
        blobs["codes"] = packed(np.concatenate([_codes(one.codes) for one in survey.shown]).astype(np.uint32).T)
        data["typical"] = [_typical(draw, survey, layer, blobs) for layer in range(len(survey.typical))]
        data["context"] = survey.context
    if draw.joints:
        blobs["three"] = base64.b64encode(zlib.compress(_asset("three.min.js").encode(), 9)).decode()
    return _filled(
        {
            "title": html.escape(printable(title)),
            "style": _asset("report.css"),
            "script": _asset("report.js"),
            "data": _json(data),
            "blobs": "\n".join(
                f'<script type="text/plain" id="blob-{name}">{text}</script>' for name, text in blobs.items()
            ),
        }
    )


def _asset(name: str) -> str:
    return (files("vqtool") / "assets" / name).read_text(encoding="utf-8")


def _filled(parts: Mapping[str, str]) -> bytes:
    """The template with its {{names}} replaced, in one pass: what is put in is not looked at again."""
    text = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("report.html"))
    return text.encode("utf-8")


def _json(value: Any) -> str:
    """JSON that cannot end a script element, six digits a number, null for what is not finite."""
    return json.dumps(_plain(value), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _codes(codes: np.ndarray | None) -> np.ndarray:
    assert codes is not None, "a discrete tokenizer's clips have codes"
    return codes


def _usage(survey: Survey, blobs: dict[str, str]) -> dict[str, Any]:
    """What inspect-codebook says; of each layer also the map of its codes and its transitions."""
    if not isinstance(survey.usage, CodebookReport):
        return survey.usage.to_json()
    told = survey.usage.to_json(top=0)
    for layer, one in enumerate(told["layers"]):
        if survey.vectors:
            places, one["map_share"] = principal_map(survey.vectors[layer])
            blobs[f"map-{layer}"] = packed(np.rint(places / max(np.abs(places).max(), 1e-12) * 32000).astype(np.int16))
        keys, repeats = survey.pairs[layer]
        size = one["codebook_size"]
        if len(keys) and size <= 1 << 16:
            most = np.sort(np.argsort(-repeats, kind="stable")[:MOST_PAIRS])
            one["pairs_shown"] = float(repeats[most].sum() / repeats.sum())
            blobs[f"pairs-{layer}"] = packed(
                np.stack([np.diff(keys[most], prepend=0), repeats[most]]).astype(np.uint32)
            )
    return told


def _skeleton(draw: Drawing, motion: MotionSet, tokenizer: TokenizerFile) -> dict[str, Any] | None:
    """Names and parents of the joints; parents are null where nobody knows them."""
    if not draw.joints:
        return None
    body = next(iter(motion.companions.bodies), None)
    known: dict[str, Any] = {
        "names": [f"joint {n}" for n in range(draw.joints)],
        "parents": PUBLISHED_TREES.get(motion.layout),
    }
    if body is not None:
        known = {"names": body.names, "parents": body.parents}
    elif tokenizer.joints is not None:
        known = {name: tokenizer.joints[name] for name in ("names", "parents")}
    if known["parents"] is not None and len(known["parents"]) != draw.joints:
        known = {"names": [f"joint {n}" for n in range(draw.joints)], "parents": None}
    return known


def _columns(draw: Drawing, motion: MotionSet, survey: Survey) -> list[dict[str, Any]] | None:
    if not draw.columns:
        return None
    names = column_names(motion.layout, motion.dim)
    return [
        {"name": names[column], "nmse": float(survey.whole.squared[column]), "moves": bool(survey.whole.moving[column])}
        for column in draw.columns
    ]


def _clip(draw: Drawing, motion: MotionSet, survey: Survey, number: int, blobs: dict[str, str]) -> dict[str, Any]:
    shown = survey.shown[number]
    tracks = [draw.values(frames) for frames in (shown.truth, *shown.decoded)]
    together = np.concatenate(tracks)
    middle = _middle(draw, together)
    grains = draw.grains(together - middle)
    blobs[f"clip-{number}"] = packed_motion(tracks, grains, middle)
    measures = [one.measures.of_clip(shown.row) for one in survey.evaluations if one.measures is not None]
    return {
        "name": motion.names[shown.clip],
        "kind": shown.kind,
        "frames": len(shown.truth),
        "tokens": 0 if shown.codes is None else len(shown.codes),
        **_scale(draw, grains, middle),
        "nmse": [one["nmse"] for one in measures],
        "pose_mm": [one.get("mpjpe_pose_mm") for one in measures],
        "path_mm": [one.get("mpjpe_mm") for one in measures],
        "drift_mm": measures[-1].get("drift_mm"),
        "skate_mm_s": measures[-1].get("foot_skate_mm_s"),
    }


def _middle(draw: Drawing, values: np.ndarray) -> np.ndarray:
    """What is taken away before rounding: of a curve the middle of its range; of joints the place on the ground."""
    if draw.columns:
        middle: np.ndarray = (values.max(0) + values.min(0)) / 2
        return middle
    ground = values[0, :3] * [1.0, 0.0, 1.0]
    return np.tile(ground, draw.joints)


def _scale(draw: Drawing, grains: np.ndarray, middle: np.ndarray) -> dict[str, Any]:
    """For curves a grain and a middle each; for joints one grain, and the page leaves the figure at the origin."""
    return {"grain": grains.tolist(), "middle": middle.tolist()} if draw.columns else {"grain": float(grains[0])}


def _typical(draw: Drawing, survey: Survey, layer: int, blobs: dict[str, str]) -> dict[str, Any] | None:
    """The codes of a layer that have a typical motion, in the order of their tracks in the blob."""
    windows = survey.typical[layer]
    if not windows:
        return None
    counts = survey.usage.layers[layer].counts if isinstance(survey.usage, CodebookReport) else np.zeros(0)
    codes = sorted(sorted(windows, key=lambda code: -counts[code])[: MOST_TYPICAL // len(survey.typical)])
    tracks = [draw.values(windows[code]) for code in codes]
    together = np.concatenate(tracks)
    middle = _middle(draw, together) if draw.columns else np.zeros(together.shape[1])
    grains = draw.grains(together - middle)
    blobs[f"typical-{layer}"] = packed_motion(tracks, grains, middle)
    return {"codes": codes, "frames": len(tracks[0]), **_scale(draw, grains, middle)}
