"""The page of `vqtool report` in Chromium, by the Chrome DevTools protocol: python -m pytest -m slow."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run, Silent, small_config
from motion_samples import smooth, write

from vqtool.cli import main
from vqtool.store import MotionSet, create_motion

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]
SOFTWARE_GL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_S = 120
Trained = Callable[[str], Path]


class Browser:
    """A Chromium of its own: commands go into pipe 3, answers and events come out of pipe 4, a NUL after each."""

    def __init__(self, profile: Path, *options: str) -> None:
        assert CHROMIUM is not None
        (theirs, self._out), (self._in, back) = os.pipe(), os.pipe()

        def place() -> None:
            os.dup2(theirs, 13)  # first away from 3 and 4, which one of them may be
            os.dup2(back, 14)
            os.dup2(13, 3)
            os.dup2(14, 4)

        words = [CHROMIUM, *QUIET, *options, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            words, preexec_fn=place, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs)
        os.close(back)
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._in, 1 << 20)
            assert piece, "Chromium has ended"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def send(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def close(self) -> None:
        self.send("Browser.close")
        self._process.wait(WAIT_S)
        os.close(self._in)
        os.close(self._out)


class Page:
    """A page of it, loaded and drawn."""

    def __init__(self, browser: Browser, file: Path, width: int = 1280, height: int = 1000) -> None:
        self.browser = browser
        browser.events.clear()
        target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        begin = time.monotonic()
        self.send("Page.navigate", url=file.resolve().as_uri())
        self.until("document.documentElement?.dataset.ready !== undefined")
        self.seconds = time.monotonic() - begin
        assert self("document.documentElement.dataset.ready") == "true", self("$('problem').textContent")

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.send(method, self.session, **params)

    def __call__(self, code: str) -> Any:
        """What an expression is worth, a promise's value too."""
        found = self.send("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, code: str) -> None:
        end = time.monotonic() + WAIT_S
        while not self(code):
            assert time.monotonic() < end, f"never: {code}"
            time.sleep(0.05)

    def key(self, key: str, code: str = "", shift: bool = False) -> None:
        text = {"text": key} if len(key) == 1 else {}
        words = {"key": key, "code": code or key, "modifiers": 8 * shift}
        self.send("Input.dispatchKeyEvent", type="keyDown", **words, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", **words)

    def mouse(self, kind: str, x: float, y: float, button: str = "none") -> None:
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=int(button != "none"))

    def place(self, selector: str) -> tuple[float, float, float, float]:
        """Left, top, width and height of an element, once it is in view."""
        found = self(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({behavior: 'instant', block: 'center'}); const b = e.getBoundingClientRect(); "
            "return [b.left, b.top, b.width, b.height]; })()"
        )
        return tuple(found)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        left, top, width, height = self.place(selector)
        for kind, button in (("mouseMoved", "none"), ("mousePressed", "left"), ("mouseReleased", "left")):
            self.mouse(kind, left + x * width, top + y * height, button)

    def picture(self, selector: str) -> np.ndarray:
        """What an element looks like, [height, width, 3] uint8."""
        from matplotlib.image import imread

        left, top, width, height = self.place(selector)
        scrolled = self("[scrollX, scrollY]")
        clip = {"x": left + scrolled[0], "y": top + scrolled[1], "width": width, "height": height, "scale": 1}
        data = self.send("Page.captureScreenshot", format="png", clip=clip)["data"]
        return (imread(io.BytesIO(base64.b64decode(data)))[..., :3] * 255).round().astype(np.uint8)

    def complaints(self) -> list[str]:
        """Exceptions, errors in the console, breaches of the policy, and every request but that of the page."""
        found = []
        for event in self.browser.events:
            params = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"].get("exception", {}).get("description")))
            elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(params["entry"]["text"])
            elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
                found.append(str(params["args"]))
            elif event.get("method") == "Network.requestWillBeSent" and not params["request"]["url"].startswith(
                "file:"
            ):
                found.append(params["request"]["url"][:100])
        return found


@contextmanager
def chromium(folder: Path, *options: str) -> Iterator[Browser]:
    browser = Browser(folder / "profile", *options)
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("chromium"), *SOFTWARE_GL) as found:
        yield found


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of skeletons and three layers."""
    from vqtool.nn.trainer import train

    folder = tmp_path_factory.mktemp("walks")
    for number in range(8):
        write(folder / "mocap" / f"walk.{number}.bvh", smooth(60 + 7 * number, number))
    assert main(["import", str(folder / "mocap"), "-o", str(folder / "motion.h5"), "-q"]) == 0
    with MotionSet([folder / "motion.h5"]) as motion:
        train(small_config("rvq"), motion, folder / "run", Silent(), device="cpu")
    assert main(["report", str(folder / "run"), str(folder / "motion.h5"), "-o", str(folder / "r.html"), "-q"]) == 0
    return folder / "r.html"


@pytest.fixture
def page(browser: Browser, walks: Path) -> Iterator[Page]:
    found = Page(browser, walks)
    yield found
    assert found.complaints() == []


def colours(picture: np.ndarray) -> int:
    """How many different colours it has."""
    return len(np.unique(picture.reshape(-1, 3), axis=0))


def accents(picture: np.ndarray) -> int:
    """How many pixels are of the decoded skeleton: far more red than blue."""
    return int((picture[..., 0].astype(int) - picture[..., 2] > 60).sum())


def test_the_page_draws_both_skeletons_tokens_and_charts(page: Page) -> None:
    stage = page.picture("#stage")
    assert accents(stage) > 500 and colours(stage) > 200
    assert colours(page.picture("#strip")) > 10
    assert page("document.querySelectorAll('#reconstruction figure').length") >= 4
    assert page("document.querySelectorAll('#codebook figure').length") == 4
    assert page("document.querySelectorAll('#training figure').length") >= 3
    assert colours(page.picture("#codebook figure:nth-of-type(3) canvas")) > 10
    assert page("$('problem').hidden")


def test_space_plays_and_stops(page: Page) -> None:
    page("document.activeElement.blur()")
    page.key(" ", "Space")
    page.until("player.frame > 3")
    assert page("$('play').textContent") == "Pause"
    page.key(" ", "Space")
    assert page("[player.playing, $('play').textContent]") == [False, "Play"]
    assert page("scrollY") == 0


def test_arrow_keys_step_and_the_scrubber_scrubs(page: Page) -> None:
    before = page.picture("#stage")
    for key, frame in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        page.key(key)
        assert page("player.frame") == frame
    page.key("ArrowRight", shift=True)
    assert page("player.frame") == 31
    page.click("#scrub", 0.5)
    assert page("Math.abs(player.frame - (clips[player.clip].frames - 1) / 2)") < 4
    assert page("$('scrub').getAttribute('aria-valuetext')").startswith("frame ")
    assert (page.picture("#stage") != before).any()


def test_a_drag_turns_the_view(page: Page) -> None:
    before, azimuth = page.picture("#stage"), page("view.camera.azimuth")
    left, top, width, height = page.place("#stage")
    page.mouse("mousePressed", left + width / 2, top + height / 2, "left")
    page.mouse("mouseMoved", left + width / 2 + 120, top + height / 2, "left")
    page.mouse("mouseReleased", left + width / 2 + 120, top + height / 2, "left")
    assert page("view.camera.azimuth") == pytest.approx(azimuth - 120 * 0.008)
    assert (page.picture("#stage") != before).mean() > 0.01


def test_fewer_layers_show_what_they_decode(page: Page) -> None:
    whole = page("[motion.at(1 + player.step, 5, 30), clips[0].nmse.at(-1)]")
    page.key("[")
    page.key("[")
    assert page("[player.step, $('layers-say').textContent, $('layers').value]") == [0, "1 of 3", "0"]
    assert page("view.tracks[1].track") == 1
    assert page("motion.at(1 + player.step, 5, 30)") != whole[0]
    assert f"nMSE {page('clips[0].nmse[0].toFixed(4)')}" in page("$('clip-errors').textContent")
    page.key("]")
    assert page("player.step") == 1


def test_side_by_side_parts_the_skeletons(page: Page) -> None:
    over = page.picture("#stage")
    page.click("input[value=beside]")
    beside = page.picture("#stage")
    red = [np.flatnonzero(((one[..., 0].astype(int) - one[..., 2]) > 60).any(0)).mean() for one in (over, beside)]
    assert red[1] > red[0] + 40


def test_the_roots_can_be_drawn_together(page: Page) -> None:
    page("seek(50)")
    assert page("view.shift('decoded', view.tracks[1].track, 50)") == [0, 0, 0]
    page.click("#together")
    apart = page("[0, 2].map((axis) => motion.at(0, axis, 50) - motion.at(1 + player.step, axis, 50))")
    assert page("view.shift('decoded', view.tracks[1].track, 50)") == [apart[0], 0, apart[1]] != [0, 0, 0]
    assert page("view.shift('truth', 0, 50)") == [0, 0, 0]


def test_pointing_at_a_token_tells_its_code_and_a_click_shows_it(page: Page) -> None:
    left, top, width, height = page.place("#strip")
    tokens = page("clips[0].tokens")
    x, y = left + width * 3.5 / tokens, top + height * 0.5
    page.mouse("mouseMoved", x, y)
    code = page("codeAt(0, 1, 3)")
    text = page("$('tip').hidden ? '' : $('tip').textContent")
    assert text.startswith(f"layer 1, token 3: code {code}\nused ") and "frames 12 to 15, 0.40 s" in text
    page.click("#strip", 3.5 / tokens, 0.5)
    page.until("!$('code-stage').hidden && $('code-stage').querySelector('canvas') !== null")
    assert page("$('code-name').textContent") == f"Code {code}, layer 1"
    assert page("player.frame") == 12
    places = page(
        "clips.flatMap((c, n) => [...Array(c.tokens).keys()].map((t) => codeAt(n, 1, t)))"
        ".filter((code) => code === player.code.code).length"
    )
    assert page("$('code-where').textContent").startswith(f"{places} place")
    page.until("codeView !== null")
    time.sleep(0.3)
    assert accents(page.picture("#code-stage")) > 100
    page("$('code-list').querySelectorAll('button')[$('code-list').children.length - 1].click()")
    page.until("document.querySelector('#clips tr[aria-current]').dataset.clip === String(player.clip)")
    assert page("codeAt(player.clip, 1, Math.floor(player.frame / stepFrames))") == code


def test_the_token_strip_is_a_slider_for_the_keyboard(page: Page) -> None:
    page("$('strip').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.key(key)
    assert page("[player.frame, player.row, $('strip').getAttribute('aria-valuenow')]") == [8, 1, "2"]
    assert page("$('strip').getAttribute('aria-valuetext')").startswith(
        f"layer 1, token 2: code {page('codeAt(0, 1, 2)')}, "
    )
    page.key("Enter")
    page.until("!$('code').hidden")
    assert page("$('live').textContent").startswith("Code ")


def test_clips_are_found_by_name_and_opened(page: Page) -> None:
    page("$('find').focus()")
    for letter in "walk.5":
        page.key(letter)
    visible = "[...document.querySelectorAll('#clips tbody tr')].filter((row) => !row.hidden)"
    assert page(f"{visible}.length") == 1
    page(f"{visible}[0].querySelector('button').click()")
    page.until("$('clip-name').textContent === 'walk.5'")
    page("document.activeElement.blur()")
    page.key("n")
    page.until("$('clip-name').textContent !== 'walk.5'")


def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    used = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored")
        and node["role"]["value"]
        in ("button", "slider", "combobox", "searchbox", "checkbox", "radio", "image", "link", "region")
    ]
    assert len(used) > 20
    assert [one for one in used if not one[1].strip()] == []


def test_light_turns_to_dark(page: Page) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        time.sleep(0.2)
        shades[scheme] = [float(np.median(page.picture(part))) for part in ("#stage", "figure", "body > footer")]
    assert min(shades["light"]) > 200 and max(shades["dark"]) < 80


@pytest.mark.parametrize("width", [360, 400, 768, 1280])
def test_no_width_needs_to_be_scrolled_sideways(browser: Browser, walks: Path, width: int) -> None:
    page = Page(browser, walks, width)
    page("openCode(0, codeAt(0, 0, 0))")
    assert page("document.documentElement.scrollWidth") <= width
    assert page.complaints() == []


def test_without_webgl_the_figures_are_lines_and_the_page_says_so(walks: Path, tmp_path: Path) -> None:
    with chromium(tmp_path, "--disable-gpu", "--disable-3d-apis") as plain:
        page = Page(plain, walks)
        assert "no WebGL" in page("$('problem').textContent") and not page("$('problem').hidden")
        assert accents(page.picture("#stage")) > 200
        page("openCode(0, codeAt(0, 0, 0))")
        page.until("$('code-stage').querySelector('canvas') !== null")


@pytest.mark.parametrize("model", ["vq", "fsq", "product", "vae"])
def test_columns_without_a_skeleton_are_curves(
    model: str, trained: Trained, motion_path: Path, browser: Browser, run: Run
) -> None:
    assert run("report", trained(model), motion_path, "-o", "r.html", "-q")[0] == 0
    page = Page(browser, Path("r.html"))
    assert accents(page.picture("#stage")) > 300
    assert page("$('arrange').hidden && $('follow-box').hidden")
    page.click("#stage", 0.5, 0.5)
    assert page("player.frame") > 5
    assert page("$('strip-box').hidden") == (model == "vae")
    if model == "product":
        assert page("$('strip-names').textContent") == "arm 0hand 0arm 1hand 1"
    if model != "vae":
        page("openCode(0, codeAt(player.clip, 0, 0))")
        page.until("$('code-stage').querySelector('canvas') !== null")
    assert page.complaints() == []


def test_hostile_names_are_shown_and_do_nothing(trained: Trained, browser: Browser, run: Run) -> None:
    names = ["</script><script>window.alerted=1</script>", "<img src=x onerror=window.alerted=1>", "{{data}}&amp;"]
    with create_motion(Path("<i>m.h5"), dim=5, fps=30) as writer:
        for number, name in enumerate(names):
            writer.append(name, np.random.default_rng(number).normal(size=(40, 5)).astype(np.float32))
    assert run("report", trained("vq"), "<i>m.h5", "-o", "r.html", "-q")[0] == 0
    page = Page(browser, Path("r.html"))
    page("openCode(0, codeAt(0, 0, 0))")
    assert page("window.alerted ?? null") is None
    assert set(page("[...document.querySelectorAll('#clips button')].map((one) => one.title)")) == set(names)
    assert page("document.querySelector('h1').textContent") == "vq on <i>m.h5"
    assert page("document.querySelectorAll('img, h1 i').length") == 0
    assert page.complaints() == []


def test_two_hundred_clips_do_not_stall_the_page(trained: Trained, browser: Browser, run: Run) -> None:
    with create_motion(Path("many.h5"), dim=5, fps=30) as writer:
        for number in range(220):
            writer.append(f"clip {number}", np.random.default_rng(number).normal(size=(150, 5)).astype(np.float32))
    assert run("report", trained("rvq"), "many.h5", "-o", "r.html", "--clips", 200, "-q")[0] == 0
    page = Page(browser, Path("r.html"))
    assert page("document.querySelectorAll('#clips tbody tr').length") == 200
    assert page.seconds < 60  # 2 s on an idle core
    assert page("open(150, 20).then(() => $('clip-name').textContent)") == page("clips[150].name")
    assert page.complaints() == []
