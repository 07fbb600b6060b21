"""The pages in docs/ hold: their commands and Python run, and their tables agree with the code."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from motion_samples import real_data, smooth, write

from vqtool import errors
from vqtool.cli import app, main
from vqtool.config import Config, build_config, flatten
from vqtool.store import MotionSet

ROOT = Path(__file__).parents[1]
HERE = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
PAGES = {path.name: path.read_text(encoding="utf-8") for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]}
CLI = "\n".join(PAGES[name] for name in ("cli.md", "import.md", "tokens.md"))


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Name and command of each, `edit trim` as well as `train`."""
    for name in group.commands:
        command = group.get_command(None, name)
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} ")
        else:
            yield before + name, command


COMMANDS: dict[str, Any] = dict(commands(typer.main.get_command(app)))
STEPS = "3"
SMALL = {"VQTOOL_MODEL_WIDTH": "16", "VQTOOL_MODEL_DEPTH": "1", "VQTOOL_MODEL_LATENT_DIM": "8", "VQTOOL_THREADS": "1"}
SMALL |= {"VQTOOL_TRAIN_STEPS": STEPS}  # for the lines that leave the steps to the default
# What a page's Python takes for granted.
GIVEN = {"README.md": ["motion"]}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def section(page: str, title: str) -> str:
    """What stands under a heading, up to the next of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", page, re.MULTILINE)
    assert found, f"no section {title!r}"
    rest = page[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", re.sub(r"^```.*?^```$", hide, rest, flags=re.M | re.S), re.MULTILINE)
    return rest[: end.start()] if end else rest


def hide(block: re.Match[str]) -> str:
    """A fenced block as blanks of its length: a comment in it is no heading."""
    return re.sub(r"[^\n]", " ", block[0])


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every table row."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def names(text: str) -> set[str]:
    """The `names` in the first cells of all tables."""
    return {name for cells in rows(text) for name in re.findall(r"`([^`]+)`", cells[0])}


@dataclass
class Command:
    """A command line of the docs: variables that go before it, and its words."""

    line: str
    environment: dict[str, str]
    words: list[str]


def session(pages: str = CLI) -> list[Command]:
    """The command lines of those pages, with few steps and without what a shell does after them."""
    found = []
    for line in "".join(blocks(pages, "sh")).splitlines():
        words = shlex.split(re.split(r" [|>] ", line)[0])
        environment = {}
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            environment[name] = value
        if words[0] == "vqtool":
            words = [STEPS if before == "--steps" else word for before, word in itertools.pairwise(words)]
            found.append(Command(line, environment, words))
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the session of those pages has run; `failed` lists the lines that did not end with 0."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "sample_data").symlink_to(ROOT / "sample_data")
    (folder / "config.toml").write_text(blocks(CLI, "toml")[0])
    for number in range(8):
        write(folder / "mocap" / f"day{number % 2}" / f"walk{number}.bvh", smooth(60, number))
    frame = "".join(f"<m{layer}_{layer}>" for layer in range(6))
    (folder / "lm_output.txt").write_text(f"{frame * 8}\n{frame * 3}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, value in SMALL.items():
            patch.setenv(name, value)
        failed = []
        for command in session():
            with pytest.MonkeyPatch.context() as own:
                for name, value in command.environment.items():
                    own.setenv(name, value)
                if (code := main(command.words)) != 0:
                    failed.append(f"{code}: {command.line}")
        (folder / "failed").write_text("\n".join(failed))
        yield folder


def test_every_command_of_the_docs_runs_in_the_order_of_the_page(workplace: Path) -> None:
    assert (workplace / "failed").read_text() == ""
    typed = [" ".join(command.words[: 2 if command.words[0] == "edit" else 1]) for command in session()]
    assert set(typed) == set(COMMANDS)


def test_every_command_of_the_readme_is_one_of_that_session() -> None:
    shown = {line for line in "".join(blocks(PAGES["README.md"], "sh")).splitlines() if line.startswith("vqtool ")}
    assert len(shown) > 10 and shown <= {command.line for command in session()}


def test_git_sees_nothing_of_what_the_sessions_of_docs_and_readme_write_in_a_checkout(workplace: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    written = {path.name + "/" * path.is_dir() for path in workplace.iterdir()} - {"sample_data/", "failed"}
    for command in session(PAGES["tutorial.md"]):
        written |= {word for flag, word in itertools.pairwise(command.words) if flag in ("-o", "--csv", "--plot")}
    asked = ["git", "check-ignore", "--no-index", *written, "constraints.txt", "sample_data/humanoid.h5"]
    ignored = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert sorted(written - set(ignored)) == [] and set(ignored) <= written
    kept = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    assert subprocess.run(kept, cwd=ROOT, capture_output=True, text=True).stdout == ""


@pytest.mark.slow  # 98 clips are imported, and trained on for a moment
def test_the_tutorial_runs_on_the_motion_that_it_is_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in SMALL.items():
        monkeypatch.setenv(name, value)
    Path("mocap").mkdir()
    with tarfile.open(real_data("cmu_98.tar.gz")) as archive:
        for member in archive:
            if member.name.endswith(".bvh") and (file := archive.extractfile(member)) is not None:
                (Path("mocap") / Path(member.name).name).write_bytes(file.read())
    page = PAGES["tutorial.md"]
    done = []
    for command in session(page):
        capsys.readouterr()
        code = main(command.words)
        out, errors = capsys.readouterr()
        assert code == (65 if command.words[0] == "validate" else 0), (command.line, errors)
        done.append(command.words[0])
        if command.words[0] in ("import", "stats", "validate"):  # what they say does not depend on the training
            for line in (out + errors).splitlines():
                assert " a second" in line or re.sub(r" \([\d,]+ frames/s\)$", "", line) in page
    assert done[0] == "import" and done[-1] == "export" and len(done) == len(page.split("\nvqtool ")) - 1


@pytest.mark.parametrize("name", sorted(COMMANDS))
@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_help_of_a_command_ends_with_a_line_of_that_session(name: str, width: int) -> None:
    command = COMMANDS[name]
    context = command.context_class(
        command, info_name=f"vqtool {name}", terminal_width=width - 2, max_content_width=198
    )
    shown = command.get_help(context)
    example = shown.rpartition("\nExample:\n")[2]
    assert max(map(len, example.splitlines())) <= width
    copied = " ".join(shlex.split(example.replace("\\\n", "")))
    assert copied in {" ".join(shlex.split(command.line)) for command in session()}
    assert copied.startswith(f"vqtool {name} ") or copied == f"vqtool {name}"


@pytest.mark.parametrize("page", sorted(name for name, text in PAGES.items() if blocks(text, "python")))
def test_the_python_of_a_page_runs(page: str, workplace: Path) -> None:
    scope: dict[str, Any] = {}
    with MotionSet([workplace / "sample_data" / "wrist_imu.h5"]) as clips:
        given = {"motion": clips.read(0)}
    scope.update({name: given[name] for name in GIVEN.get(page, [])})
    for block in blocks(PAGES[page], "python"):
        exec(compile(block, page, "exec"), scope)


def test_reading_tokens_with_h5py_takes_six_lines() -> None:
    (reading,) = (block for block in blocks(PAGES["formats.md"], "python") if '"imu.tokens.h5")' in block)
    assert len([line for line in reading.splitlines() if line]) <= 6
    assert "vqtool" not in reading


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    folder = ROOT if page == "README.md" else ROOT / "docs"
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        assert not file or (folder / file).exists(), target
        if not anchor:
            continue
        headings = re.findall(r"^#+ (.+)$", PAGES[Path(file).name if file else page], re.MULTILINE)
        known = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
        assert anchor in known, target


@pytest.mark.skipif(find_spec("sphinx") is None, reason="no Sphinx here: pip install 'vqtool[docs]'")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    words = ["-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", "-d", tmp_path / "trees", ".", tmp_path / "site"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, cwd=ROOT, env=HERE, timeout=300)
    assert done.stderr == ""
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=\"(https?:[^\"]+)", page.read_text())
        assert loaded == [], page


# docs/cli.md


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_options_of_a_command_are_those_of_its_table(name: str) -> None:
    real = {flag for option in COMMANDS[name].params for flag in option.opts if flag.startswith("-")} - {"--help", "-h"}
    assert documented_options(name) == real


@pytest.mark.parametrize("name", sorted(name for name in COMMANDS if not name.startswith("edit ")))
def test_the_help_has_the_options_of_the_table_in_its_order_and_with_its_defaults(name: str) -> None:
    real = {max(option.opts, key=len): option for option in COMMANDS[name].params if option.opts[0][0] == "-"}
    listed = [cells for cells in rows(section(CLI, f"vqtool {name}").partition("JSON keys")[0]) if cells[0][:2] == "`-"]
    order = [flag for cells in listed for flag in re.findall(r"`(--[\w-]+)`", cells[0])]
    assert order == [flag for flag in real if flag in order] and set(order) == set(real)
    context = COMMANDS[name].context_class(COMMANDS[name], terminal_width=10_000, max_content_width=10_000)
    shown = COMMANDS[name].get_help(context)
    for cells in listed:
        flag = re.findall(r"`(--[\w-]+)`", cells[0])[0]
        line = next(line for line in shown.splitlines() if re.match(rf"  (-\w, )?{flag} ", line))
        found = re.search(r"\[(?:[^\[]*; )?(?:default: (.*?)|(required))(?:; [-\d.]+<=x.*|; x>=.*)?\]$", line)
        told = "" if found is None else (found[1] or found[2]).removesuffix(".0")
        assert told == ("" if cells[1].startswith("| ") else cells[1].replace("`", "")), line


def documented_options(name: str) -> set[str]:
    """The options in the section of a command; those of `edit` share a table that says whose they are."""
    group, _, own = name.partition(" ")
    table = section(CLI, f"vqtool {group}")
    if own:
        mine = [cells for cells in rows(table) if cells[0].startswith("`-") and of_command(cells[1], own)]
        table = "\n".join(f"| {cells[0]} |" for cells in mine)
    return {flag for flag in names(table) if flag.startswith("-")}


def of_command(cell: str, name: str) -> bool:
    """Whether "all", "all but trim" or "trim, repeat" means a command."""
    listed = cell.removeprefix("all").removeprefix(" but ").split(", ")
    return (name in listed) != cell.startswith("all")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_has_an_example_and_an_excerpt_of_its_output(name: str) -> None:
    text = section(CLI, f"vqtool {name.partition(' ')[0]}")
    assert any(line.startswith(f"vqtool {name} ") for line in "".join(blocks(text, "sh")).splitlines())
    assert blocks(text, "")


def paths(value: Any, at: str = "") -> Iterator[str]:
    """layers, layers[].codes, ...: all keys of a JSON value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"{at}{key}"
            if key != "groups":  # its keys are the data's
                yield from paths(inner, f"{at}{key}.")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{at[:-1]}[].")


JSON_LINES = {
    "train": [
        "train sample_data/humanoid.h5 -o runs/json-vq --model vq --steps 2 --set bottleneck.codebook_size=16",
        "train sample_data/humanoid.h5 -o runs/json-vae --model vae --steps 2",
    ],
    "encode": [
        "encode runs/imu sample_data/wrist_imu.h5 -o json.tokens.h5",
        "encode runs/humanoid sample_data/humanoid.h5 -o json.latents.h5",
    ],
    "merge": ["merge imu.0.h5 imu.1.h5 -o json.merged.h5"],
    "decode": ["decode runs/humanoid humanoid.latents.h5 -o json.motion.h5"],
    "sample": ["sample runs/humanoid -n 2 --frames 9 -o json.sampled.h5"],
    "play": ["play sample_data/wrist_imu.h5 --frames :4 -o json.gif"],
    "inspect-codebook": [
        "inspect-codebook imu.tokens.h5",
        "inspect-codebook runs/imu",
        "inspect-codebook humanoid.latents.h5",
        "inspect-codebook runs/humanoid",
        "inspect-codebook tokens.h5 trimmed.h5",
    ],
    "evaluate": [
        "evaluate runs/imu sample_data/wrist_imu.h5 --split test --by-layers --num-quantizers 2",
        "evaluate runs/humanoid sample_data/humanoid.h5",
    ],
    "report": ["report runs/imu sample_data/wrist_imu.h5 --split test --clips 2 -o json.html"],
    "import": ["import mocap -o json.h5", "import lm_output.txt --like runs/mocap -o json.generated.h5"],
    "validate": ["validate sample_data/wrist_imu.h5"],
    "stats": ["stats motion.h5"],
    "edit": ["edit repeat tokens.h5 day0/walk0@3:9 -o json.edited.h5"],
    "export": ["export motion.h5 -o json-export --format npy", "export tokens.h5 -o json.jsonl --format text"],
    "doctor": ["doctor"],
}


def test_the_json_of_every_command_is_looked_at() -> None:
    assert set(JSON_LINES) == {name.partition(" ")[0] for name in COMMANDS}


@pytest.mark.parametrize("name", sorted(JSON_LINES))
def test_the_json_keys_of_a_command_are_those_of_its_tables(
    name: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: set[str] = set()
    for line in JSON_LINES[name]:
        capsys.readouterr()
        assert main([*line.split(), "--json"]) == 0
        printed |= set(paths(json.loads(capsys.readouterr().out)))
    tables = section(CLI, f"vqtool {name}").partition("JSON keys")[2]
    assert names(tables) == printed


def test_config_toml_of_the_docs_is_the_defaults_of_the_code() -> None:
    from vqtool.nn.bottlenecks import BOTTLENECKS

    text = blocks(CLI, "toml")[0]
    documented = tomllib.loads(text)
    bottleneck = documented.pop("bottleneck")
    default = Config().to_dict()
    del default["bottleneck"]
    unset = {key for key, value in flatten(default, "").items() if value is None}
    given = flatten(default, "")
    assert flatten(documented, "") == {key: value for key, value in given.items() if key not in unset}
    commented = re.findall(r"^# (\w+) = ", text.partition("[model]")[0], re.MULTILINE)
    assert {f"data.{name}" for name in commented} == unset
    assert bottleneck == defaults_of(BOTTLENECKS[Config().model.bottleneck])
    build_config(flatten(tomllib.loads(text), "docs/cli.md"))


def test_every_line_of_config_toml_has_a_comment() -> None:
    for line in blocks(CLI, "toml")[0].splitlines():
        assert "=" not in line or re.search(r"\S\s+# \S", line), line


def test_the_table_of_exit_codes_is_that_of_the_code() -> None:
    classes = [kind for kind in vars(errors).values() if inspect.isclass(kind) and hasattr(kind, "exit_code")]
    real = {0, 3, 128 + 2, 128 + 15} | {kind.exit_code for kind in classes}
    documented = [int(cells[0]) for cells in rows(section(CLI, "Exit codes")) if cells[0].isdecimal()]
    assert documented == sorted(real)


# docs/models.md


def defaults_of(kind: Callable[..., Any]) -> dict[str, Any]:
    """The options of a bottleneck with their defaults."""
    options = inspect.signature(kind).parameters.values()
    return {option.name: option.default for option in options if option.kind is option.KEYWORD_ONLY}


def test_models_md_has_every_bottleneck_and_every_option_with_its_default() -> None:
    from vqtool.nn.bottlenecks import BOTTLENECKS

    page = PAGES["models.md"]
    documented: dict[str, dict[str, Any]] = {name: {} for name in BOTTLENECKS}
    table = section(page, "Bottleneck options").partition("FSQ's number of codes")[0]
    for option, models, default, *_ in list(rows(table))[1:]:
        for model in models.split(", "):
            value = None if default == "none" else tomllib.loads(f"value = {default}")["value"]
            documented[model][option.strip("`")] = value
    assert documented == {name: defaults_of(kind) for name, kind in BOTTLENECKS.items()}
    assert set(BOTTLENECKS) <= names(section(page, "Which model"))


def test_the_levels_of_fsq_are_those_of_the_code() -> None:
    from vqtool.nn.bottlenecks.fsq import FSQ, LEVELS

    table = section(PAGES["models.md"], "Bottleneck options").partition("FSQ's number of codes")[2]
    documented = {int(size): (levels, codes) for size, levels, codes in list(rows(table))[1:]}
    assert documented == {
        size: (", ".join(map(str, levels)), f"{FSQ(8, levels=levels).codebook_sizes[0]:,}")
        for size, levels in LEVELS.items()
    }


def test_every_setting_of_encoder_and_decoder_stands_in_its_table_with_its_default() -> None:
    table = list(rows(section(PAGES["models.md"], "Encoder and decoder")))
    documented = {cells[0].strip("`"): cells[1] for cells in table if cells[0].startswith("`")}
    default = Config().to_dict()["model"]
    del default["bottleneck"]
    assert documented == {name: json.dumps(value) for name, value in default.items()}


def test_the_receptive_fields_and_sizes_are_those_of_the_code() -> None:
    from vqtool.nn.model import build_model

    settings = {
        "fold, depth 1": {"model.depth": 1},
        "fold, depth 2": {"model.depth": 2},
        "fold, depth 3 (default)": {},
        "fold, depth 3, downsample 8": {"model.downsample": 8},
        "strided, depth 3": {"model.downsampling": "strided"},
        "strided, depth 3, width and latent_dim 512 (T2M-GPT's size)": {
            "model.downsampling": "strided",
            "model.width": 512,
            "model.latent_dim": 512,
        },
    }
    table = [cells for cells in rows(section(PAGES["models.md"], "Encoder and decoder")) if cells[0] in settings]
    assert len(table) == len(settings)
    for name, field, size in table:
        model = build_model(build_config(settings[name]), 263)
        first, last = model.encoder.reach(0, 0)
        assert int(field) == last - first + 1
        parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        assert size == f"{parameters:.{1 if parameters > 10 else 2}f} M"
