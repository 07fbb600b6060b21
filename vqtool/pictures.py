"""Scenes drawn with Pillow (the extra `plot`), and written as GIF, MP4 or a contact sheet in PNG.

Pillow and not matplotlib: a skeleton of 30 bones on its grid takes matplotlib's 3-D axes 200 ms, and Pillow 9 ms drawn
twice as fine and halved.
"""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqtool.errors import MismatchError, OutputError, UsageError, counted
from vqtool.scene import Camera, Figure, Shot, apart_mm, check_alike, find_clip, frame_range, read_shot
from vqtool.store import MotionSet

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FINE = 2  # how much finer a picture is drawn than it is
WHITE, INK, PALE = (255, 255, 255), (60, 64, 70), (150, 155, 162)
GRID, SHADOW = (222, 226, 231), (203, 208, 214)
# Right limbs, left limbs and path of the original, and of what is set against it.
COLOURS = (((24, 74, 140), (96, 154, 214), (176, 205, 236)), ((190, 66, 20), (240, 140, 84), (247, 205, 180)))
SHADES = (1.0, 0.66, 0.33)  # of each colour against white in a GIF, which its edges get
MAX_PICTURES = 1200  # of a GIF, which is held in memory whole
MAX_CURVES = 12
MARGIN = 12  # pixels left and right of words
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Panel:
    """A part of the picture: shots that lie over each other, the first one in the first colour."""

    title: str
    shots: tuple[Shot, ...]
    colours: tuple[int, ...]
    beside: Shot | None = None  # what the distance of the joints is told to


def require_pillow() -> None:
    """UsageError that says how to install Pillow, where it is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise UsageError("pictures need Pillow; install it with: pip install 'vqtool[plot]'") from error


def require_ffmpeg() -> str:
    """Where ffmpeg is; UsageError where it is not."""
    found = shutil.which("ffmpeg")
    if found is None:
        raise UsageError("an MP4 needs the program ffmpeg, which is not on PATH; install it, or write a .gif")
    return found


def make_panels(
    motion: MotionSet, against: MotionSet | None, names: Sequence[str], frames: str, *, overlay: bool, curves: bool
) -> list[Panel]:
    """Panels of clips by name: alone, or each beside or under the clip of that name in another file.

    `curves`: no figures, even where the joints are known. Raises MismatchError where the files do not fit each other.
    """
    panels = []
    if against is not None:
        check_alike(motion, against)
    span = frame_range(frames, motion.fps)
    for name in names:
        clip = find_clip(motion, name)
        shot = read_shot(motion, clip, span)
        other = None
        if against is not None:
            if name not in against.names:
                raise MismatchError(f"has no clip {name!r}; give motion decoded from that file", file=against.paths[0])
            other = read_shot(against, against.names.index(name), span, like=(motion, clip))
        if curves:
            shot = replace(shot, figure=None)
            other = None if other is None else replace(other, figure=None)
        if other is None:
            panels.append(Panel(name, (shot,), (0,)))
        elif overlay or shot.figure is None:
            panels.append(Panel(name, (shot, other), (0, 1), beside=shot))
        else:
            assert against is not None
            panels += [Panel(name, (shot,), (0,)), Panel(against.paths[0].name, (other,), (1,), beside=shot)]
    return panels


class Stage:
    """Draws the panels of a scene side by side, a picture of all of them for each frame."""

    def __init__(
        self,
        panels: Sequence[Panel],
        fps: float,
        width: int,
        height: int,
        *,
        follow: bool | None = None,
        turn: float = 0.0,
        columns: Sequence[tuple[int, str]] = (),
        first: int = 0,
    ) -> None:
        self.panels, self.fps, self.width, self.height, self.first = panels, fps, width, height, first
        self.frames = max(len(shot.frames) for panel in panels for shot in panel.shots)
        self._cameras: list[Camera | None] = []
        for number, panel in enumerate(panels):
            figures = _figures(panel.shots)
            camera = self._cameras[-1] if number else None
            if figures and camera is not None and self._is_decoded(panel):
                self._cameras.append(camera.of(figures[0], fps))
            elif figures:
                beside = [one for other in panels[number + 1 : number + 2] for one in _figures(other.shots)]
                with_it = beside if panels[number + 1 :] and self._is_decoded(panels[number + 1]) else []
                pixels = FINE * width, FINE * height
                self._cameras.append(Camera(figures, fps, *pixels, follow=follow, turn=turn, beside=with_it))
            else:
                self._cameras.append(None)
        self._columns = list(columns)
        pairs = zip(panels, self._cameras, strict=True)
        self._curves = [None if camera else self._draw_curves(panel) for panel, camera in pairs]

    @staticmethod
    def _is_decoded(panel: Panel) -> bool:
        """Whether it shows what was decoded of the panel before it."""
        return panel.beside is not None and len(panel.shots) == 1

    @property
    def size(self) -> tuple[int, int]:
        """Pixels of a picture."""
        return self.width * len(self.panels), self.height

    def picture(self, frame: int) -> Picture:
        """All panels in a frame."""
        from PIL import Image

        picture = Image.new("RGB", self.size, WHITE)
        for number in range(len(self.panels)):
            picture.paste(self.panel(number, frame), (number * self.width, 0))
        return picture

    def panel(self, number: int, frame: int) -> Picture:
        """One panel in a frame."""
        from PIL import Image

        panel, camera = self.panels[number], self._cameras[number]
        curves = self._curves[number]
        if camera is not None:
            fine = Image.new("RGB", (FINE * self.width, FINE * self.height), WHITE)
            self._draw_figures(fine, panel, camera, frame)
            picture = fine.reduce(FINE)
        else:
            assert curves is not None
            picture = curves.copy()
            self._draw_cursor(picture, frame)
        self._write_captions(picture, panel, frame)
        return picture

    # figures

    def _draw_figures(self, picture: Picture, panel: Panel, camera: Camera, frame: int) -> None:
        from PIL import ImageDraw

        pen = ImageDraw.Draw(picture)
        for line in camera.grid(frame):
            pen.line(_places(camera.project(line, frame)), GRID, FINE)
        thick = max(2.0, 0.026 * camera.pixels_a_body)
        figures = [(shot.figure, COLOURS[colour]) for shot, colour in zip(panel.shots, panel.colours, strict=True)]
        for figure, colours in figures:
            if figure is not None:
                self._draw_ground(pen, figure, colours[2], camera, frame, thick)
        for figure, colours in figures:
            if figure is not None:
                _draw_body(pen, figure, colours, camera, frame, thick)

    def _draw_ground(
        self, pen: Any, figure: Figure, colour: tuple[int, ...], camera: Camera, frame: int, thick: float
    ) -> None:
        """The way that the root has come, and the shadow."""
        flat = np.array([1.0, 0.0, 1.0])
        floor = np.array([0.0, camera.floor, 0.0])
        path = figure.positions[: frame + 1, 0] * flat + floor
        near = np.linalg.norm(path - camera.target(frame) * flat - floor, axis=1) < 1.25 * camera.body
        if not camera.follows:
            near[:] = True
        for run in np.split(np.arange(len(path)), np.flatnonzero(np.diff(near.astype(int))) + 1):
            if len(run) > 1 and near[run[0]]:
                pen.line(_places(camera.project(path[run], frame)), colour, round(0.5 * thick), joint="curve")
        places = _places(camera.project(figure.pose(frame) * flat + floor, frame))
        for joint, parent in enumerate(figure.parents):
            if parent >= 0:
                pen.line([places[parent], places[joint]], SHADOW, round(0.6 * thick))

    # curves

    def _rows(self) -> list[tuple[int, int, int, int]]:
        """Left, top, right, bottom of the curve of each column in a panel, in pixels."""
        count = len(self._columns)
        top, bottom = 34, self.height - 30
        step = (bottom - top) / max(1, count)
        return [(12, round(top + n * step), self.width - 12, round(top + (n + 1) * step) - 4) for n in range(count)]

    def _draw_curves(self, panel: Panel) -> Picture:
        """The curves of the whole range, which do not change with the frame."""
        from PIL import Image, ImageDraw

        fine = Image.new("RGB", (FINE * self.width, FINE * self.height), WHITE)
        pen = ImageDraw.Draw(fine)
        for (column, _), (left, top, right, bottom) in zip(self._columns, self._rows(), strict=True):
            values = [shot.frames[:, column].astype(np.float64) for shot in panel.shots]
            low, high = min(map(np.min, values)), max(map(np.max, values))
            pen.line([(FINE * left, FINE * bottom), (FINE * right, FINE * bottom)], GRID, FINE)
            for one, colour in zip(values, panel.colours, strict=True):
                x = np.linspace(left, left + (right - left) * (len(one) - 1) / max(1, self.frames - 1), len(one))
                y = bottom - (bottom - top - 12) * (one - low) / max(high - low, 1e-12)
                points = [(FINE * a, FINE * b) for a, b in zip(x, y, strict=True)]
                pen.line(points, COLOURS[colour][0], 3 * FINE // 2, joint="curve")
        picture = fine.reduce(FINE)
        pen = ImageDraw.Draw(picture)
        for (_, name), (left, top, _, _) in zip(self._columns, self._rows(), strict=True):
            pen.text((left, top - 4), name, PALE, font=_font(11))
        return picture

    def _draw_cursor(self, picture: Picture, frame: int) -> None:
        from PIL import ImageDraw

        rows = self._rows()
        left, right = rows[0][0], rows[0][2]
        x = left + (right - left) * frame / max(1, self.frames - 1)
        ImageDraw.Draw(picture).line([(x, rows[0][1]), (x, rows[-1][3])], PALE, 1)

    # words

    def _write_captions(self, picture: Picture, panel: Panel, frame: int) -> None:
        """Its name above; below, time and frame on the left, what is which and the distance on the right."""
        from PIL import ImageDraw

        pen = ImageDraw.Draw(picture)
        large, small = _font(max(12, self.height // 28)), _font(max(11, self.height // 36))
        alone = len(panel.shots) == 1
        left, right = MARGIN, self.width - MARGIN
        title = panel.title
        while pen.textlength(title, font=large) > right - left and len(title) > 4:
            title = f"...{title[4:]}"  # the end of a name tells more
        pen.text((left, 8), title, COLOURS[panel.colours[0]][0] if alone else INK, font=large)
        last = max(len(shot.frames) for shot in panel.shots) - 1
        at = min(frame, last)
        words: list[tuple[str, tuple[int, ...]]] = []
        decoded, original = panel.shots[-1].figure, None if panel.beside is None else panel.beside.figure
        same_frames = panel.beside is not None and len(panel.beside.frames) == len(panel.shots[-1].frames)
        if decoded is not None and original is not None and same_frames:  # of an edited clip it would say nothing
            words.append((f"joints {apart_mm(original, decoded, at):.0f} mm", PALE))
        if not alone:
            words += [("original", COLOURS[0][0]), ("decoded", COLOURS[1][0])]
        gap = pen.textlength("  ", font=small)
        line = self.height - small.size - 16
        room = right - left - sum(pen.textlength(word, font=small) + gap for word, _ in words)
        if room < 0:  # a small picture
            room += pen.textlength(words[0][0], font=small) + gap
            del words[0]
        place = float(right)
        for word, colour in reversed(words):
            place -= pen.textlength(word, font=small)
            pen.text((place, line), word, colour, font=small)
            place -= gap
        time = f"{(self.first + at) / self.fps:.2f} s"
        for text in (f"{time}   frame {self.first + at}", time):
            if pen.textlength(text, font=small) <= room:
                pen.text((left, line), text, PALE, font=small)
                break
        bar = self.height - 7
        pen.line([(left, bar), (right, bar)], GRID, 3)
        pen.line([(left, bar), (left + (right - left) * at / max(1, last), bar)], PALE, 3)


def _figures(shots: Sequence[Shot]) -> list[Figure]:
    return [shot.figure for shot in shots if shot.figure is not None]


def _draw_body(
    pen: Any, figure: Figure, colours: tuple[tuple[int, ...], ...], camera: Camera, frame: int, thick: float
) -> None:
    """Bones from the farthest to the nearest, each with round ends."""
    seen = camera.project(figure.pose(frame), frame)
    places = _places(seen)
    bones = [(joint, parent) for joint, parent in enumerate(figure.parents) if parent >= 0]
    for joint, parent in sorted(bones, key=lambda bone: -seen[list(bone), 2].mean()):
        colour = colours[1] if joint in figure.left else colours[0]
        pen.line([places[parent], places[joint]], colour, round(thick))
        for place in (places[parent], places[joint]):
            _dot(pen, place, 0.5 * thick, colour)
        if joint == figure.head:
            _dot(pen, places[joint], 0.052 * camera.pixels_a_body, colour)


def _dot(pen: Any, place: tuple[float, float], radius: float, colour: tuple[int, ...]) -> None:
    x, y = place
    pen.ellipse([x - radius, y - radius, x + radius, y + radius], colour)


def _places(seen: np.ndarray) -> list[tuple[float, float]]:
    return [(x, y) for x, y, *_ in seen.tolist()]


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


# files


def shown_frames(frames: int, fps: float, rate: float) -> list[int]:
    """The frames of a clip that are shown at `rate` pictures a second, from the first on."""
    count = max(1, round(frames * rate / fps))
    return [min(frames - 1, round(number * fps / rate)) for number in range(count)]


def gif(stage: Stage, rate: float, speed: float, progress: Progress) -> bytes:
    """An animated GIF that goes round for ever, in real time: its delays are whole hundredths of a second."""
    from PIL import Image

    shown = shown_frames(stage.frames, stage.fps * speed, rate)
    if len(shown) > MAX_PICTURES:
        most = MAX_PICTURES / rate
        what = (
            f"a GIF of {counted(len(shown), 'pictures')} would take too much memory; choose {most:.0f} s with --frames"
        )
        raise UsageError(f"{what}, a lower --rate, or write a .mp4")
    palette = _palette()

    def pictures() -> Iterator[Picture]:
        for frame in shown:
            progress(1)
            yield stage.picture(frame).quantize(palette=palette, dither=Image.Dither.NONE)

    times = [round(100 * number / rate) for number in range(len(shown) + 1)]
    delays = [10 * (after - before) for before, after in itertools.pairwise(times)]
    made = pictures()
    buffer = io.BytesIO()
    next(made).save(buffer, "GIF", save_all=True, append_images=made, duration=delays, loop=0)
    return buffer.getvalue()


def _palette() -> Picture:
    """One for all pictures: found anew for each, its colours would flicker, and the file be larger."""
    from PIL import Image

    colours: list[tuple[int, ...]] = [WHITE, GRID, SHADOW]
    for ink in (*COLOURS[0], *COLOURS[1], PALE, INK):
        colours += [tuple(round(255 + (part - 255) * shade) for part in ink) for shade in SHADES]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for colour in colours for part in colour])
    return palette


def mp4(stage: Stage, rate: float, speed: float, progress: Progress) -> bytes:
    """A video by ffmpeg, with the codec that it takes for MP4."""
    program = require_ffmpeg()
    shown = shown_frames(stage.frames, stage.fps * speed, rate)
    width, height = (2 * (side // 2) for side in stage.size)  # its pixel format halves both
    with tempfile.TemporaryDirectory(prefix="vqtool-") as folder, tempfile.TemporaryFile() as said:
        file = Path(folder) / "video.mp4"
        given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{rate:g}", "-i", "-"]
        made = ["-pix_fmt", "yuv420p", "-movflags", "+faststart", str(file)]
        command = [program, "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *given, *made]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
        ) as child:
            try:
                assert child.stdin is not None
                for frame in shown:
                    progress(1)
                    child.stdin.write(stage.picture(frame).crop((0, 0, width, height)).tobytes())
                child.stdin.close()
            except BrokenPipeError:
                pass  # it has ended, and says why
            except BaseException:
                child.kill()
                raise
        if child.returncode or not file.is_file():
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines() or [f"exit code {child.returncode}"]
            raise OutputError(f"ffmpeg could not make it ({words[-1]}); try a .gif")
        return file.read_bytes()


def contact_sheet(stage: Stage, poses: int, across: int, progress: Progress) -> bytes:
    """A PNG of `poses` frames evenly over the range, `across` in a row; panels below each other."""
    from PIL import Image

    count = min(poses, stage.frames)
    shown = [number * (stage.frames - 1) // max(1, count - 1) for number in range(count)]
    across = min(across, count)
    rows = -(-count // across) * len(stage.panels)
    sheet = Image.new("RGB", (across * stage.width, rows * stage.height), WHITE)
    for number, frame in enumerate(shown):
        progress(1)
        for panel in range(len(stage.panels)):
            row = number // across * len(stage.panels) + panel
            sheet.paste(stage.panel(panel, frame), (number % across * stage.width, row * stage.height))
    buffer = io.BytesIO()
    sheet.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
