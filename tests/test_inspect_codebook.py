"""What `vqtool inspect-codebook` finds, says, draws and refuses."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from vqtool.cli.codebook_view import show, terminal
from vqtool.cli.inspect_codebook import inspect_codebook
from vqtool.errors import DataError, MissingInputError, OutputError, UsageError
from vqtool.inspection import inspect
from vqtool.tokenizer_file import TokenizerFile
from vqtool.tokens import TokenHeader, create_latents, create_tokens
from vqtool.usage import CodebookReport, LatentReport, LayerUsage

app = typer.Typer()
app.command()(inspect_codebook)


def header(**changes: Any) -> TokenHeader:
    fields = {
        "dim": 8,
        "fps": 20,
        "downsample": 4,
        "bottleneck": "rvq",
        "layout": "raw",
        "tokenizer_id": "0" * 64,
        "numerics": "stable",
        "source": "test",
    }
    return TokenHeader(**(fields | changes))


def tokens_file(path: Path, codes: Any, *sizes: int, length: int = 10, **changes: Any) -> Path:
    """A token file of `codes` [N, Q] in clips of `length` token frames."""
    codes = np.asarray(codes, dtype=np.uint16).reshape(-1, len(sizes))
    lengths = [4 * len(codes[start : start + length]) for start in range(0, len(codes), length)]
    names = [f"clip{i}" for i in range(len(lengths))]
    books = [np.random.default_rng(0).normal(size=(size, 4)).astype(np.float32) for size in sizes]
    frames = np.array(lengths, dtype=np.int64)
    with create_tokens(path, names, frames, header(codebook_sizes=sizes, **changes), books) as writer:
        writer.extend(codes=codes)
    return path


def latents_file(path: Path, mean: Any, logvar: Any) -> Path:
    """A latent file of one clip, mean and logvar [N, C]; of none where N is 0."""
    mean = np.asarray(mean, dtype=np.float32)
    names, lengths = (["clip"], [4 * len(mean)]) if len(mean) else ([], [])
    with create_latents(
        path, names, np.array(lengths, dtype=np.int64), header(bottleneck="vae"), mean.shape[1]
    ) as writer:
        writer.extend(mean=mean, logvar=np.asarray(logvar, dtype=np.float32))
    return path


def tokenizer_file(path: Path, sizes: list[int], tensors: dict[str, np.ndarray], **changes: Any) -> Path:
    fields: dict[str, Any] = {
        "config": {"model": {"bottleneck": "vq" if sizes else "vae"}},
        "dim": 8,
        "fps": 20.0,
        "layout": "raw",
        "downsample": 4,
        "codebook_sizes": sizes,
        "codebook_keys": [],
        "tensors": tensors,
    }
    TokenizerFile(**(fields | changes)).save(path)
    return path


def codebook_report(path: Path) -> CodebookReport:
    report = inspect(path)
    assert isinstance(report, CodebookReport)
    return report


def latent_report(path: Path) -> LatentReport:
    report = inspect(path)
    assert isinstance(report, LatentReport)
    return report


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)


def rendered(path: Path, top: int = 20, encoding: str = "utf-8") -> str:
    buffer = io.BytesIO()
    file = io.TextIOWrapper(buffer, encoding=encoding)
    show(inspect(path), top, terminal(file))
    file.flush()
    return buffer.getvalue().decode(encoding)


# what is found


def test_rates_count_all_layers(tmp_path: Path) -> None:
    report = codebook_report(tokens_file(tmp_path / "t.h5", [[0, 0], [1, 1], [0, 2], [1, 3]], 2, 4))
    assert report.source.token_frames_per_second == 5
    assert report.tokens_per_second == 10
    assert report.bits_per_second == 5 * (1 + 2)
    assert report.entropy_bits_per_second == pytest.approx(5 * (1 + 2))


def test_compression_is_against_float32_motion(tmp_path: Path) -> None:
    # 8 columns x 32 bits x 20 frames/s over 5 token frames/s x 8 bits.
    report = codebook_report(tokens_file(tmp_path / "t.h5", [0, 1], 256))
    assert report.compression_ratio == 8 * 32 * 20 / (5 * 8)


def test_a_codebook_of_one_code_has_no_compression_ratio(tmp_path: Path) -> None:
    report = codebook_report(tokens_file(tmp_path / "t.h5", [0] * 20, 1))
    assert report.compression_ratio is None
    assert report.layers[0].perplexity == 1.0


def test_top_codes_come_most_used_first_and_lower_index_first_among_equals() -> None:
    layer = LayerUsage(0, np.array([1, 5, 0, 1, 3]))
    assert [(code.code, code.count, code.share) for code in layer.top(9)] == [
        (1, 5, 0.5),
        (4, 3, 0.3),
        (0, 1, 0.1),
        (3, 1, 0.1),
    ]


def test_dead_codes_are_those_never_seen() -> None:
    assert LayerUsage(0, np.array([1, 0, 2, 0])).dead_codes.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("counts", "status"),
    [
        ([10] * 10, "healthy"),
        ([50, 50] + [0] * 8, "some codes idle"),
        ([100] + [0] * 9, "few codes used"),
        ([100000] + [1] * 29, "uneven"),
        ([50] + [0] * 9, "too few tokens"),
        ([0] * 10, "no tokens"),
    ],
)
def test_the_status_of_a_layer(counts: list[int], status: str) -> None:
    assert LayerUsage(0, np.array(counts)).status == status


def test_poor_last_layers_call_for_fewer_layers(tmp_path: Path) -> None:
    codes = [[i % 10, i % 10, 0] for i in range(100)]
    report = codebook_report(tokens_file(tmp_path / "t.h5", codes, 10, 10, 10))
    assert report.verdict == (
        "few codes used in layer 2 (10 %): train longer, or fewer layers (--set bottleneck.num_quantizers=2)"
    )


def test_a_poor_first_layer_calls_for_the_power_of_two_that_holds_its_codes(tmp_path: Path) -> None:
    report = codebook_report(tokens_file(tmp_path / "t.h5", [i % 3 for i in range(200)], 20))
    assert report.verdict == (
        "few codes used (15 %): train longer, or a smaller codebook (--set bottleneck.codebook_size=4)"
    )


def test_fewer_than_ten_tokens_per_code_are_noted(tmp_path: Path) -> None:
    report = codebook_report(tokens_file(tmp_path / "t.h5", [0, 1] * 8, 2, length=99))
    assert report.notes == [
        "fewer than 10 tokens per code (16 for 2): usage is bounded by the token count",
        "bigram bits are too low: pairs were seen under 10 times on average",
    ]


def test_active_units_vary_by_more_than_a_hundredth(tmp_path: Path) -> None:
    # Variances of the mean: 1, 0.0081, 0.
    report = latent_report(latents_file(tmp_path / "l.h5", [[1, 0.09, 5], [-1, -0.09, 5]], np.zeros((2, 3))))
    assert report.variance == pytest.approx([1, 0.0081, 0])
    assert report.active_units == 1


def test_kl_is_the_mean_over_tokens_of_each_dimension(tmp_path: Path) -> None:
    # 0.5 (mu^2 + exp(lv) - 1 - lv): (0.5 + 2) / 2 for mu = 1, 2; 0.5 (e - 2) for lv = 1.
    report = latent_report(latents_file(tmp_path / "l.h5", [[1, 0], [2, 0]], [[0, 1], [0, 1]]))
    assert report.kl == pytest.approx([1.25, 0.5 * (np.e - 2)])


def test_variance_far_from_zero_is_exact_over_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mean = np.random.default_rng(0).normal(10000, 0.5, size=(500, 2)).astype(np.float32)
    path = latents_file(tmp_path / "l.h5", mean, np.zeros_like(mean))
    monkeypatch.setattr("vqtool.hdf5.READ_BYTES", 64)
    assert latent_report(path).variance == pytest.approx(mean.astype(np.float64).var(axis=0), rel=1e-9)


def test_latents_that_are_not_finite_are_refused_with_their_clip(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="clip clip: its latents are not finite"):
        inspect(latents_file(tmp_path / "l.h5", [[0], [np.nan]], [[0], [0]]))


def test_a_run_shows_the_counts_of_its_validation_set(tmp_path: Path) -> None:
    tensors = {
        "usage.counts.0": np.array([3, 1], dtype=np.int64),
        "model.book": np.array([[0, 0], [3, 4]], dtype=np.float32),
    }
    tokenizer_file(tmp_path / "tokenizer.safetensors", [2], tensors, codebook_keys=["model.book"])
    report = codebook_report(tmp_path)
    (layer,) = report.layers
    assert layer.counts.tolist() == [3, 1]
    assert layer.nearest is not None
    assert layer.nearest.distance == 5
    assert layer.bigram_bits is None


def test_an_fsq_run_has_no_code_vectors_to_compare(tmp_path: Path) -> None:
    path = tokenizer_file(tmp_path / "x", [2], {"usage.counts.0": np.array([3, 1], dtype=np.int64)})
    assert codebook_report(path).layers[0].nearest is None


def test_a_vae_run_shows_its_kl(tmp_path: Path) -> None:
    tensors = {"usage.kl": np.array([0.5, 0.0]), "usage.variance": np.array([1.0, 0.0])}
    report = latent_report(tokenizer_file(tmp_path / "x", [], tensors))
    assert (report.kl.tolist(), report.active_units) == ([0.5, 0.0], 1)


# what is refused


def test_a_flipped_bit_is_found_in_the_same_pass(tmp_path: Path) -> None:
    path = tokens_file(tmp_path / "t.h5", [0, 1] * 10, 2)
    import h5py

    with h5py.File(path, "r+") as file:
        file["codes"][3] = 0
    with pytest.raises(DataError, match="SHA-256"):
        inspect(path)


def test_a_file_that_is_neither_run_nor_tokens_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.h5").write_text("hello")
    with pytest.raises(DataError, match="neither a run nor"):
        inspect(tmp_path / "notes.h5")


def test_motion_is_refused_with_the_command_that_makes_tokens(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "walk.h5", "w") as file:
        file["frames"] = np.zeros((3, 2))
    with pytest.raises(DataError, match="vqtool encode"):
        inspect(tmp_path / "walk.h5")


def test_a_missing_file_is_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError):
        inspect(tmp_path / "none.h5")


def test_a_run_without_usage_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no usage\.counts\.0; encode"):
        inspect(tokenizer_file(tmp_path / "x", [2], {}))


def test_counts_that_do_not_fit_the_codebook_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="usage counts"):
        inspect(tokenizer_file(tmp_path / "x", [3], {"usage.counts.0": np.array([3, 1], dtype=np.int64)}))


# what is printed


@pytest.mark.parametrize("sizes", [(1,), (2,), (300,), (512,) * 12, (65536,) * 3])
@pytest.mark.parametrize("count", [0, 1, 2000])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_no_line_is_longer_than_80_columns(tmp_path: Path, sizes: tuple[int, ...], count: int, encoding: str) -> None:
    codes = np.random.default_rng(0).integers(0, sizes, size=(count, len(sizes)))
    text = rendered(tokens_file(tmp_path / "t.h5", codes, *sizes), encoding=encoding)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("dim", [1, 16, 300])
def test_no_line_about_latents_is_longer_than_80_columns(tmp_path: Path, count: int, dim: int) -> None:
    mean = np.random.default_rng(0).normal(size=(count, dim))
    text = rendered(latents_file(tmp_path / "latents.h5", mean, mean))
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [44, 60, 120])
@pytest.mark.parametrize("sizes", [(300,), (512,) * 12, (65536,) * 3])
def test_no_line_is_longer_than_the_terminal(tmp_path: Path, sizes: tuple[int, ...], width: int) -> None:
    codes = np.random.default_rng(0).integers(0, sizes, size=(2000, len(sizes)))
    path = tokens_file(tmp_path / "t.h5", codes, *sizes)
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    show(inspect(path), 20, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    if sizes == (300,):
        assert max(map(len, lines)) > width - 10  # and it is made use of


def test_a_narrow_terminal_leaves_out_what_the_table_can_spare(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=60, markup=False, highlight=False)
    show(inspect(tokens_file(tmp_path / "t.h5", [0, 1] * 20, 512)), 0, console)
    assert "layer    K  used  usage %  perplexity  bits  bigram bits\n" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_that_knows_only_ascii_gets_ascii(tmp_path: Path) -> None:
    text = rendered(tokens_file(tmp_path / "tänze.h5", [0, 1] * 40, 2), encoding="ascii")
    assert "#" in text
    assert r"t\xe4nze.h5" in text.replace("\n", "")


def test_a_file_name_is_printed_as_it_is(tmp_path: Path) -> None:
    assert "[red]x.h5" in rendered(tokens_file(tmp_path / "[red]x.h5", [0], 2)).replace("\n", "")


def test_the_sorted_usage_falls_from_left_to_right(tmp_path: Path) -> None:
    text = rendered(tokens_file(tmp_path / "t.h5", [3] * 8 + [1] * 4, 4))
    lines = text[text.index("usage  ") :].splitlines()[1:7]
    wide = "█" * (75 // 4)
    assert [line.strip() for line in lines] == [wide] * 3 + [wide * 2] * 3


def test_the_table_has_a_row_for_each_layer(tmp_path: Path) -> None:
    text = rendered(tokens_file(tmp_path / "t.h5", [[0, 0], [1, 0]] * 20, 2, 4))
    header, *rows = text[text.index("layer  ") :].splitlines()[:3]
    assert header == "layer  K  used  usage %  perplexity  bits  dead  bigram bits"
    assert [row.split() for row in rows] == [
        ["0", "2", "2", "100.0", "2.0", "1.00", "0", "0.00"],
        ["1", "4", "1", "25.0", "1.0", "0.00", "3", "0.00"],
    ]


def test_top_zero_lists_no_codes(tmp_path: Path) -> None:
    assert "top codes" not in rendered(tokens_file(tmp_path / "t.h5", [0], 2), top=0)


def test_output_off_a_terminal_has_no_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = run(tokens_file(tmp_path / "t.h5", [0], 2))
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout


# --json and --plot


def test_json_is_one_object_with_stable_keys(tmp_path: Path) -> None:
    result = run(tokens_file(tmp_path / "t.h5", [0, 1, 1], 3), "--json", "--top", 1)
    found = json.loads(result.stdout)
    assert found["schema_version"] == 1
    (layer,) = found["layers"]
    assert layer["counts"] == [1, 2, 0]
    assert layer["dead"] == 1
    assert layer["top"] == [{"code": 1, "count": 2, "share": 2 / 3}]


def test_json_of_an_empty_latent_file_says_null_for_nan(tmp_path: Path) -> None:
    result = run(latents_file(tmp_path / "l.h5", np.zeros((0, 2)), np.zeros((0, 2))), "--json")
    found = json.loads(result.stdout, parse_constant=pytest.fail)
    assert found["dimensions"] == [{"variance": None, "kl": None}] * 2


def test_json_of_an_empty_token_file_has_no_nan(tmp_path: Path) -> None:
    result = run(tokens_file(tmp_path / "t.h5", [], 2), "--json")
    assert json.loads(result.stdout, parse_constant=pytest.fail)["status"] == "no tokens"


@pytest.mark.parametrize("count", [0, 40])
@pytest.mark.parametrize("kind", ["tokens", "latents"])
def test_plot_writes_a_png(tmp_path: Path, kind: str, count: int) -> None:
    values = np.zeros((count, 2))
    make = tmp_path / "in.h5"
    path = tokens_file(make, values, 3, 3) if kind == "tokens" else latents_file(make, values, values)
    assert run(path, "--plot", tmp_path / "usage.png").exit_code == 0
    assert (tmp_path / "usage.png").read_bytes().startswith(b"\x89PNG")


def test_an_existing_plot_is_refused_without_force(tmp_path: Path) -> None:
    (tmp_path / "usage.png").write_text("mine")
    path = tokens_file(tmp_path / "t.h5", [0], 2)
    result = run(path, "--plot", tmp_path / "usage.png")
    assert isinstance(result.exception, OutputError)
    assert (tmp_path / "usage.png").read_text() == "mine"
    assert run(path, "--plot", tmp_path / "usage.png", "--force").exit_code == 0


def test_a_plot_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run(tokens_file(tmp_path / "t.h5", [0], 2), "--plot", tmp_path / "usage.png")
    assert isinstance(result.exception, UsageError)
    assert "pip install 'vqtool[plot]'" in str(result.exception)


def test_inspecting_tokens_imports_only_what_it_needs(tmp_path: Path) -> None:
    path = tokens_file(tmp_path / "t.h5", [0, 1], 2)
    script = (
        "import sys, pathlib\n"
        "from vqtool.cli.inspect_codebook import inspect_codebook\n"
        "assert not {'h5py', 'numpy'} & sys.modules.keys()\n"
        f"inspect_codebook(pathlib.Path({str(path)!r}), as_json=True)\n"
        "assert not {'tomllib', 'safetensors', 'rich.console'} & sys.modules.keys()\n"
        f"inspect_codebook(pathlib.Path({str(path)!r}))\n"
        "assert not {'torch', 'matplotlib'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=60)
