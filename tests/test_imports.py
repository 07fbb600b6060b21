"""Who may import whom: the rules that keep torch, h5py and matplotlib out of where they are not needed."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

import vqtool

PACKAGE = Path(vqtool.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
NN = [module for module in MODULES if module.startswith("nn/")]
CLI = [module for module in MODULES if module.startswith("cli/")]
TORCH_FREE = [module for module in MODULES if module not in NN and module not in CLI]


def guarded(test: ast.expr) -> bool:
    """Whether it is `TYPE_CHECKING`: what it guards never runs."""
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


@functools.cache
def imports(module: str, *, inside_functions: bool = True) -> set[str]:
    """Every module that `module` imports, in full: `vqtool.store.MotionSet` as well as `vqtool.store`."""
    here = ["vqtool", *module.removesuffix(".py").removesuffix("/__init__").split("/")]
    package = here if module.endswith("__init__.py") else here[:-1]

    def visit(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*parent, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{name.name}" for name in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not inside_functions:
            return
        children: list[ast.AST] = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.If) and guarded(node.test):
            children = list(node.orelse)
        for child in children:
            yield from visit(child)

    return set(visit(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))))


def of(names: set[str], *roots: str) -> set[str]:
    """Those of `names` that are one of `roots` or below it."""
    return {name for name in names if any(name == root or name.startswith(root + ".") for root in roots)}


def test_the_rules_see_the_whole_package() -> None:
    assert {"store.py", "nn/model.py", "cli/__init__.py"} <= set(MODULES)
    assert of(imports("nn/model.py"), "torch")
    assert of(imports("cli/train.py"), "vqtool.nn") and not of(imports("cli/train.py", inside_functions=False), "torch")


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free_module_imports_no_torch(module: str) -> None:
    assert not of(imports(module), "torch")


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free_module_never_imports_nn(module: str) -> None:
    assert not of(imports(module), "vqtool.nn")


@pytest.mark.parametrize("module", CLI)
def test_cli_module_imports_torch_and_nn_only_in_a_command(module: str) -> None:
    assert not of(imports(module, inside_functions=False), "torch", "vqtool.nn")


def loaded_with(module: str) -> set[str]:
    """The modules of the package that importing `module` loads, itself included."""
    found, waiting = set[str](), [module]
    while waiting:
        if (here := waiting.pop()) not in found:
            found.add(here)
            loads = imports(here, inside_functions=False)
            names = {name.removeprefix("vqtool.").replace(".", "/") for name in loads}
            waiting += [
                f"{name}{end}" for name in names for end in (".py", "/__init__.py") if f"{name}{end}" in MODULES
            ]
    return found


@pytest.mark.parametrize("module", sorted(loaded_with("cli/__init__.py")))
def test_what_help_loads_imports_neither_numpy_nor_h5py(module: str) -> None:
    assert not of(imports(module, inside_functions=False), "numpy", "h5py", "vqtool.hdf5", "vqtool.store")


@pytest.mark.parametrize("module", [module for module in MODULES if module not in CLI and module != "__main__.py"])
def test_nobody_imports_the_cli(module: str) -> None:
    assert not of(imports(module), "vqtool.cli")


@pytest.mark.parametrize("module", NN)
def test_nn_imports_no_formats_report_page_or_cli(module: str) -> None:
    assert not of(imports(module), "vqtool.formats", "vqtool.report", "vqtool.page", "vqtool.cli")


@pytest.mark.parametrize("module", MODULES)
def test_matplotlib_is_imported_only_in_functions_of_report(module: str) -> None:
    assert not of(imports(module, inside_functions=module != "report.py"), "matplotlib")


@pytest.mark.parametrize("module", MODULES)
def test_pillow_is_imported_only_in_functions_of_pictures(module: str) -> None:
    assert not of(imports(module, inside_functions=module != "pictures.py"), "PIL")


@pytest.mark.parametrize("module", MODULES)
def test_pyarrow_is_imported_only_in_functions_of_the_two_parquet_modules(module: str) -> None:
    parquet = module in ("token_formats/parquet.py", "formats/lerobot.py")
    assert not of(imports(module, inside_functions=not parquet), "pyarrow")


def test_no_module_is_named_utils() -> None:
    assert not [module for module in MODULES if Path(module).stem in ("utils", "util", "helpers", "misc", "common")]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_unpickles(module: str) -> None:
    pickles = of(imports(module), "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal")
    assert not pickles
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in ("torch.load", "torch.save"), called
        pickled = [word for word in node.keywords if word.arg == "allow_pickle"]
        assert all(isinstance(word.value, ast.Constant) and word.value.value is False for word in pickled), called
