"""`vqtool report`: what is in the page, and that nothing in it can break it."""

from __future__ import annotations

import base64
import errno
import json
import re
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Run
from motion_samples import BODY

from vqtool.cli import main
from vqtool.codebook import principal_map
from vqtool.features import recover_positions
from vqtool.metrics import FEET
from vqtool.nn.codec import load
from vqtool.nn.survey import choose, some_of, survey
from vqtool.page import Drawing, packed, unpacked, unpacked_motion
from vqtool.skeleton import PUBLISHED_TREES
from vqtool.store import MotionSet, create_motion

Trained = Callable[[str], Path]
HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "{{data}} & \"'", "\u2028 line\n\x1b[2J"]


class Reader(HTMLParser):
    """The elements of a page: tags with their attributes, and the text of each script by its id."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str | None, str] = {}
        self.title = ""
        self._in: tuple[str, str | None] | None = None
        self.feed(html.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = (tag, dict(attrs).get("id"))

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, text: str) -> None:
        if self._in and self._in[0] == "title":
            self.title += text
        elif self._in and self._in[0] == "script":
            self.texts[self._in[1]] = self.texts.get(self._in[1], "") + text

    @property
    def data(self) -> Any:
        return json.loads(self.texts["data"])

    def blob(self, name: str) -> str:
        return self.texts[f"blob-{name}"]


@pytest.fixture(scope="module")
def walked(walks: tuple[Path, Path]) -> Reader:
    """The page of these."""
    out = walks[0].parent / "report.html"
    assert main(["report", *map(str, walks), "-o", str(out), "-q"]) == 0
    return Reader(out.read_bytes())


def test_integers_come_back_as_they_were() -> None:
    for dtype in ("int16", "uint32"):
        values = np.random.default_rng(0).integers(np.iinfo(dtype).min, np.iinfo(dtype).max, 999, dtype=dtype)
        np.testing.assert_array_equal(unpacked(packed(values), dtype), values)


def test_the_page_shows_what_the_codec_decodes_to_half_a_grain(walks: tuple[Path, Path], walked: Reader) -> None:
    codec = load(walks[0], device="cpu")
    with MotionSet([walks[1]]) as motion:
        clips = {name: motion.read_all(clip) for clip, name in enumerate(motion.names)}
    assert walked.data["steps"] == [1, 2, 3]
    for number, clip in enumerate(walked.data["clips"]):
        truth = clips[clip["name"]]
        codes = codec.encode(truth)
        wanted = [truth, *(codec.decode(codes[:, :layers], len(truth)) for layers in (1, 2, 3))]
        columns = 3 * len(BODY.names)
        shown = unpacked_motion(walked.blob(f"clip-{number}"), 4, np.full(columns, clip["grain"]), np.zeros(columns))
        assert clip["grain"] < 2e-3  # metres
        for one, features in zip(shown, wanted, strict=True):
            positions = recover_positions(np.asarray(features)).reshape(len(truth), -1)
            np.testing.assert_allclose(one, positions, atol=clip["grain"] / 2 * 1.01)


def test_the_page_has_the_codes_of_its_clips(walks: tuple[Path, Path], walked: Reader) -> None:
    codec = load(walks[0], device="cpu")
    with MotionSet([walks[1]]) as motion:
        clips = {name: motion.read_all(clip) for clip, name in enumerate(motion.names)}
    wanted = np.concatenate([codec.encode(clips[clip["name"]]) for clip in walked.data["clips"]])
    np.testing.assert_array_equal(unpacked(walked.blob("codes"), "uint32").reshape(3, -1).T, wanted)
    assert [layer["counts"] for layer in walked.data["usage"]["layers"]] == [
        np.bincount(column, minlength=16).tolist() for column in wanted.T
    ]


def test_the_transitions_are_those_within_clips(walks: tuple[Path, Path], walked: Reader) -> None:
    codec = load(walks[0], device="cpu")
    wanted = np.zeros((16, 16), int)
    with MotionSet([walks[1]]) as motion:
        for clip in range(len(motion)):
            codes = codec.encode(motion.read_all(clip))[:, 1]
            np.add.at(wanted, (codes[:-1], codes[1:]), 1)
    steps, repeats = unpacked(walked.blob("pairs-1"), "uint32").reshape(2, -1)
    found = np.zeros(256, int)
    found[np.cumsum(steps)] = repeats
    np.testing.assert_array_equal(found.reshape(16, 16), wanted)


def test_typical_motion_is_the_mean_of_the_decoded_windows(walks: tuple[Path, Path]) -> None:
    codec = load(walks[0], device="cpu")
    with MotionSet([walks[1]]) as motion:
        found = survey(codec, motion, range(len(motion)), 3)
        assert found.context == 4  # a tenth of a second at 30 fps, in whole tokens
        code = max(found.typical[0], key=lambda code: found.usage.layers[0].counts[code])  # type: ignore[union-attr]
        windows = []
        for clip in range(len(motion)):
            truth = motion.read_all(clip)
            codes = codec.encode(truth)
            decoded = np.asarray(codec.decode(codes, len(truth)))
            for token in np.flatnonzero(codes[:, 0] == code):
                windows.append(decoded[np.clip(np.arange(4 * token - 4, 4 * token + 8), 0, len(truth) - 1)])
    columns = found.typical[0][code].shape[1]
    np.testing.assert_allclose(found.typical[0][code], np.mean(windows, axis=0)[:, :columns], atol=1e-4)


def test_the_figures_are_those_of_evaluate_and_inspect_codebook(
    walks: tuple[Path, Path], walked: Reader, run: Run
) -> None:
    evaluated = json.loads(run("evaluate", *walks, "--by-layers", "-q", "--json")[1])
    data = walked.data
    for name in ("clips", "frames", "nmse", "mpjpe_pose_mm", "drift_degrees", "bits_per_second"):
        assert data["figures"][name] == pytest.approx(evaluated[name], rel=1e-5)
    assert [point["nmse"] for point in data["curve"]] == pytest.approx(
        [point["nmse"] for point in evaluated["by_layers"]], rel=1e-5
    )
    assert {name: values[-1] for name, values in data["groups"].items()} == pytest.approx(evaluated["groups"], rel=1e-5)
    assert run("encode", *walks, "-o", "tokens.h5", "-q")[0] == 0
    inspected = json.loads(run("inspect-codebook", "tokens.h5", "--json")[1])
    assert data["usage"]["verdict"] == inspected["verdict"]
    for mine, theirs in zip(data["usage"]["layers"], inspected["layers"], strict=True):
        for name in ("counts", "perplexity", "bigram_bits", "nearest_pair", "transitions"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-5), name


def test_a_skeleton_is_drawn_by_the_hierarchy_of_the_file(walked: Reader) -> None:
    assert walked.data["skeleton"] == {"names": list(BODY.names), "parents": list(BODY.parents)}
    program = zlib.decompress(base64.b64decode(walked.blob("three"))).decode()
    assert program.startswith("/* three.js ") and "MIT licence" in program[:200]


@pytest.mark.parametrize("layout", sorted(PUBLISHED_TREES))
def test_known_hierarchies_are_trees_in_which_the_toes_hang_on_the_ankles(layout: str) -> None:
    parents = PUBLISHED_TREES[layout]
    assert all(-1 < parent < joint for joint, parent in enumerate(parents) if joint)
    ankle, toe, other_ankle, other_toe = FEET[layout]
    assert (parents[toe], parents[other_toe]) == (ankle, other_ankle)


def test_the_training_is_that_of_metrics_jsonl(walks: tuple[Path, Path], walked: Reader) -> None:
    lines = [json.loads(line) for line in (walks[0] / "metrics.jsonl").read_text().splitlines()]
    assert [(one["step"], one["split"]) for one in walked.data["training"]] == [
        (one["step"], one["split"]) for one in lines
    ]
    assert walked.data["training"][-1]["nmse"] == pytest.approx(lines[-1]["nmse"], rel=1e-5)


def test_a_tokenizer_without_its_run_has_a_page_without_training(walks: tuple[Path, Path], run: Run) -> None:
    Path("t.safetensors").write_bytes((walks[0] / "tokenizer.safetensors").read_bytes())
    assert run("report", "t.safetensors", walks[1], "-o", "r.html", "-q")[0] == 0
    assert Reader(Path("r.html").read_bytes()).data["training"] is None


@pytest.mark.parametrize("model", ["vq", "fsq", "product", "vae"])
def test_every_model_and_columns_without_a_skeleton_have_a_page(
    model: str, trained: Trained, motion_path: Path, run: Run
) -> None:
    code, out, errors = run("report", trained(model), motion_path, "-o", "r.html", "--clips", 5, "-q")
    assert (code, errors) == (0, "")
    assert out.startswith("r.html: ") and "5 of 12 clips" in out
    page = Reader(Path("r.html").read_bytes())
    data = page.data
    assert data["skeleton"] is None and "blob-three" not in page.texts
    assert {column["name"] for column in data["columns"]} == {"c0", "c1", "c2", "c3", "c4"}
    assert data["columns"][-1]["name"] == "c4" and not data["columns"][-1]["moves"]
    assert all(clip["frames"] for clip in data["clips"])  # one of the twelve has none
    if model == "vae":
        assert "typical" not in data and len(data["usage"]["dimensions"]) == 4
    else:
        sizes = data["tokenizer"]["codebook_sizes"]
        assert [f"map-{layer}" for layer in range(len(sizes)) if f"blob-map-{layer}" in page.texts]
        assert data["steps"] == ([2, 4] if model == "product" else [1])
    for number, clip in enumerate(data["clips"]):
        tracks = 1 + max(1, len(data["steps"]))
        shown = unpacked_motion(page.blob(f"clip-{number}"), tracks, *map(np.array, (clip["grain"], clip["middle"])))
        with MotionSet([motion_path]) as motion:
            truth = motion.read_all(motion.names.index(clip["name"]))
        columns = [int(column["name"][1:]) for column in data["columns"]]
        bound = np.array(clip["grain"]) * 0.51 + 1e-5 * np.abs(truth[:, columns]).max()
        assert (np.abs(shown[0] - truth[:, columns]) <= bound).all()


def test_names_of_clips_and_files_cannot_break_the_page(trained: Trained, run: Run) -> None:
    motion = Path("<b>{{script}}&amp;.h5")
    with create_motion(motion, dim=5, fps=30) as writer:
        for number, name in enumerate(HOSTILE):
            writer.append(name, np.random.default_rng(number).normal(size=(40, 5)).astype(np.float32))
    assert run("report", trained("vq"), motion, "-o", "r.html", "-q")[0] == 0
    html = Path("r.html").read_bytes()
    page = Reader(html)
    assert {clip["name"] for clip in page.data["clips"]} == set(HOSTILE)
    assert page.title == "vq on <b>{{script}}&amp;.h5" == page.data["title"]
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert [one for one in scripts if "type" not in one] == [{}]  # the page's own program, and no other
    assert not any(tag == "b" for tag, _ in page.tags)
    assert html.count(b"alert(1)") == 1 and b"\\u003c/script>" in html


def test_the_page_fetches_nothing(walked: Reader, walks: tuple[Path, Path]) -> None:
    for tag, attributes in walked.tags:
        assert tag not in ("link", "img", "iframe", "base", "object", "embed", "form"), tag
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith("#"), (tag, name, value)
    (policy,) = (a["content"] for t, a in walked.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; ")
    assert set(re.findall(r"[\w-]+-src ([^;]+)", policy)) <= {"'none'", "'unsafe-inline'", "data:"}
    html = (walks[0].parent / "report.html").read_text()
    assert set(
        re.findall(r"(?:https?:|wss?:)?//[\w.-]+\.\w+[\w./]*", re.sub(r">[A-Za-z0-9+/=]{60,}<", "><", html))
    ) == {
        "http://www.w3.org/2000/svg"  # the name of a namespace
    }
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|\bimport\(", html)


def test_what_can_be_handled_has_a_name_for_screen_readers(walked: Reader) -> None:
    labelled = {a.get("aria-labelledby") for _, a in walked.tags} | {a.get("id") for _, a in walked.tags}
    assert {"look-title", "codebook-title", "training-title", "reconstruction-title"} <= labelled
    for tag, attributes in walked.tags:
        if tag in ("canvas", "section") or attributes.get("tabindex") == "0":
            assert attributes.get("aria-label") or attributes.get("aria-labelledby"), attributes
        if tag in ("input", "select") and attributes.get("type") in ("range", "search"):
            assert attributes.get("aria-label") or attributes.get("id") == "layers", attributes
    (html,) = (attributes for tag, attributes in walked.tags if tag == "html")
    assert html["lang"] == "en"


def test_a_page_is_small(walked: Reader, walks: tuple[Path, Path]) -> None:
    size = (walks[0].parent / "report.html").stat().st_size
    frames = sum(clip["frames"] for clip in walked.data["clips"])
    raw = frames * (1 + 3) * 3 * len(BODY.names) * 4
    assert size < 500_000 + raw / 2


def test_the_same_command_gives_the_same_page(trained: Trained, motion_path: Path, run: Run) -> None:
    for name in ("a.html", "b.html"):
        assert run("report", trained("vq"), motion_path, "-o", name, "-q", "--clips", 3)[0] == 0
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_a_page_that_is_there_or_is_an_input_is_left_alone(
    trained: Trained, motion_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("r.html").write_text("mine")
    code, _, errors = run("report", trained("vq"), motion_path, "-o", "r.html", "-q")
    assert code == 73 and "r.html: exists already" in errors
    code, _, errors = run("report", trained("vq"), motion_path, "-o", motion_path, "-q", "--force")
    assert code == 2 and "both input and output" in errors

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("vqtool.publish.os.fsync", full)
    code, out, errors = run("report", trained("vq"), motion_path, "-o", "r.html", "-q", "--force")
    assert (code, out) == (74, "") and "nothing was changed" in errors
    assert Path("r.html").read_text() == "mine" and [path.name for path in Path.cwd().iterdir()] == ["r.html"]


def test_the_worst_the_median_and_some_in_between_are_chosen() -> None:
    order = list(range(100, 0, -1))  # the worst first
    found = choose(order, 9)
    assert list(found) == [row for row in order if row in found]
    assert [row for row, kind in found.items() if kind == "worst"] == [100, 99, 98]
    assert [row for row, kind in found.items() if kind == "median"] == [51, 50, 49]
    assert [row for row, kind in found.items() if kind == "other"] == [97, 48, 1]
    assert choose([3, 1], 24) == {3: "worst", 1: "worst"}
    assert list(choose(order, 200)) == order
    assert list(choose(order, 1)) == [100] and len(choose(order, 2)) == 2
    assert some_of(range(1, 65), 8) == [1, 10, 19, 28, 37, 46, 55, 64]


def test_the_map_is_that_of_the_principal_components() -> None:
    line = np.outer([0.0, 1.0, 2.0, 5.0], [3.0, 4.0, 0.0])
    places, share = principal_map(line)
    np.testing.assert_allclose(places, [[-10, 0], [-5, 0], [0, 0], [15, 0]], atol=1e-9)
    assert share == pytest.approx(1)
    assert principal_map(np.ones((3, 1)))[0].shape == (3, 2)


def test_positions_start_where_the_clip_does() -> None:
    draw = Drawing("positions", 6, ())
    frames = np.array([[5, 1, 7, 5, 2, 7], [6, 1, 7, 6, 2, 7]], np.float32)
    assert draw.joints == 2
    np.testing.assert_array_equal(draw.values(frames), frames)
