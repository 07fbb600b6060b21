"""The commands of examples/text_to_motion run from top to bottom, and its model stays small enough to read."""

from __future__ import annotations

import io
import json
import math
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
from motion_samples import smooth, write
from PIL import Image

from vqtool.cli import main
from vqtool.store import MotionSet

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "text_to_motion"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
SMALL = {"VQTOOL_MODEL_WIDTH": "16", "VQTOOL_MODEL_DEPTH": "1", "VQTOOL_MODEL_LATENT_DIM": "8", "VQTOOL_THREADS": "1"}


def python(words: list[str]) -> int:
    """Run a script in this process, as `python SCRIPT ...` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        try:
            runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            return 0 if end.code is None else 1
    return 0


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder where the page's commands have run on twenty short clips; `said` has what they printed."""
    folder = tmp_path_factory.mktemp("example")
    (folder / "examples").symlink_to(ROOT / "examples")
    for number in range(20):
        word = ("walk_elderly", "run_active")[number % 2]
        write(folder / "bandai" / f"dataset-2_{word}_{number:03}.bvh", smooth(24, number))
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in SMALL.items():
            patch.setenv(name, value)
        for line in "".join(re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)).splitlines():
            words = shlex.split(line)
            if "--steps" in words:
                words[words.index("--steps") + 1] = "3"
                words += ["--set", "bottleneck.codebook_size=16"]
            if words[2:3] == ["train"]:
                words += ["--epochs", "40", "--batch", "4", "--width", "32"]
            if words[:2] == ["vqtool", "decode"] and "--like" in words:
                words.append("--repair")  # what hardly learned does not always say what can be
            printed = io.StringIO()
            with redirect_stdout(printed):
                code = main(words[1:]) if words[0] == "vqtool" else python(words[1:])
            said.append([line, code, printed.getvalue()])
    (folder / "said").write_text(json.dumps(said))
    yield folder


def said_by(workplace: Path, beginning: str) -> str:
    """What the first command that begins so printed."""
    said = json.loads((workplace / "said").read_text())
    return next(text for line, _, text in said if beginning in line)


@pytest.mark.slow
def test_every_command_of_the_example_ends_well(workplace: Path) -> None:
    said = json.loads((workplace / "said").read_text())
    assert len(said) == 17
    assert [line for line, code, _ in said if code not in (0, 3)] == []


@pytest.mark.slow
def test_the_model_is_judged_against_counts_on_the_same_tokens(workplace: Path) -> None:
    text = said_by(workplace, "text_to_motion.py train")
    found = re.search(r"test: unigram ([\d.]+), bigram ([\d.]+), transformer ([\d.]+) bits a token", text)
    assert found
    assert all(0 < float(bits) < 12 for bits in found.groups())


@pytest.mark.slow
def test_samples_become_motion_under_the_names_of_their_prompts(workplace: Path) -> None:
    with MotionSet([workplace / "sampled.h5"]) as motion:
        assert set(motion.names) <= {"walk-elderly_001", "walk-elderly_002", "run-active_003", "run-active_004"}
        assert {caption.text for caption in motion.companions.captions} <= {"walk elderly", "run active"}
        assert motion.companions.bodies
    assert {path.stem for path in (workplace / "sampled").glob("*.bvh")} == set(motion.names)


@pytest.mark.slow
def test_the_picture_moves(workplace: Path) -> None:
    with Image.open(workplace / "sampled.gif") as picture:
        assert picture.size == (300, 164)
        assert picture.n_frames > 1


@pytest.mark.slow
def test_the_same_seed_samples_the_same_and_another_does_not(workplace: Path) -> None:
    script = str(FOLDER / "text_to_motion.py")
    for name, seed in {"one": "0", "again": "0", "other": "1"}.items():
        words = ["sample", str(workplace / "lm.safetensors"), "--prompt", "walk", "--seed", seed]
        assert python([script, *words, "-n", "3", "-o", str(workplace / name)]) == 0
    one, again, other = ((workplace / name).read_text() for name in ("one", "again", "other"))
    assert one == again != other


@pytest.mark.slow
def test_an_unknown_word_is_refused_with_the_known_ones(workplace: Path) -> None:
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(SystemExit, match="no such words in training: fly; it had active, elderly, run, walk"),
    ):
        patch.setattr(sys, "argv", ["x", "sample", str(workplace / "lm.safetensors"), "--prompt", "Fly", "-o", "no"])
        runpy.run_path(str(FOLDER / "text_to_motion.py"), run_name="__main__")


def functions(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(FOLDER / name)))


def test_the_transformer_never_looks_ahead() -> None:
    import torch

    script = functions("text_to_motion.py")
    torch.manual_seed(0)
    model = script.Transformer(11, context=9, width=16, depth=2, heads=2, dropout=0.0).eval()
    ids = torch.randint(0, 11, (1, 9))
    changed = torch.cat([ids[:, :5], (ids[:, 5:] + 1) % 11], 1)
    with torch.no_grad():
        before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_the_prompt_is_not_to_be_predicted_and_the_end_is() -> None:
    script = functions("text_to_motion.py")
    ids = {name: number for number, name in enumerate(["a", "b", "<m_start>", "<m_end>", "<m_pad>", "walk"])}
    inputs, targets = script.batch_of([(["walk"], ["a", "b"]), ([], ["b"])], ids, 9)
    assert inputs.tolist() == [[5, 2, 0, 1], [2, 1, 4, 4]]
    assert targets.tolist() == [[-100, 0, 1, 3], [1, 3, -100, -100]]


def test_bits_of_counts_are_those_worked_out_by_hand() -> None:
    script = functions("text_to_motion.py")
    # Seen: start-a 1, a-a 1, a-end 1. Three outcomes a, b, end: p(a) = 3/6, p(b) = 1/6, p(end) = 2/6.
    unigram, bigram = script.bits_of_counts([([], ["a", "a"])], [([], ["a", "b"])], outcomes=3)
    assert unigram == pytest.approx(-(math.log2(3 / 6) + math.log2(1 / 6) + math.log2(2 / 6)) / 3)
    # a after start: (1 + 1 * 3/6) / 2; b after a: (0 + 2 * 1/6) / 4; end after b, which was never seen: 2/6.
    assert bigram == pytest.approx(-(math.log2(1.5 / 2) + math.log2(1 / 12) + math.log2(2 / 6)) / 3)


def test_a_foot_that_slides_on_the_ground_skates_and_one_in_the_air_does_not() -> None:
    import numpy as np

    script = functions("look.py")
    positions = np.zeros((31, 3, 3))
    positions[:, 0, 1] = 1
    positions[:, 1, 0] = np.arange(31) / 30  # 1 m/s along the floor
    found = script.figures(positions, [1, 2], 30.0)
    assert found["skating"] == pytest.approx(0.5)  # the other foot stands
    assert (found["speed"], found["seconds"]) == (0, pytest.approx(31 / 30))
    positions[:, 1, 1] = 0.2
    assert script.figures(positions, [1, 2], 30.0)["skating"] == 0


def test_the_model_has_under_200_lines_and_needs_nothing_but_torch() -> None:
    text = (FOLDER / "text_to_motion.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    imported = {name.partition(".")[0] for name in re.findall(r"^(?:from|import) (\S+)", text, re.MULTILINE)}
    assert imported - set(sys.stdlib_module_names) == {"torch", "safetensors"}
