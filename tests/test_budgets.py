"""The house's limits: sizes, names, and a place in the layers for every module."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "lorafit"
MODULES = sorted(PACKAGE.rglob("*.py"))
SHELVES_FOR_ANYTHING = {"utils", "helpers", "common", "misc"}
PACKAGES_WITH_CODE = {PACKAGE / "__init__.py", PACKAGE / "cli" / "__init__.py"}


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_modules_are_found() -> None:
    assert PACKAGE / "errors.py" in MODULES
    assert len(MODULES) > 10


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_stays_within_its_budget(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    is_command = path.parent.name == "cli"
    assert lines <= (120 if is_command else 400)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_functions_stay_within_their_budget(path: Path) -> None:
    lengths = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions(path)}
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_no_module_is_a_shelf_for_anything() -> None:
    parts = {part for path in MODULES for part in path.relative_to(PACKAGE).with_suffix("").parts}
    assert parts & SHELVES_FOR_ANYTHING == set()


def test_package_files_hold_no_code() -> None:
    for path in MODULES:
        if path.name == "__init__.py" and path not in PACKAGES_WITH_CODE:
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert len(body) == 1, f"{dotted(path)} holds code"
            assert ast.get_docstring(ast.Module(body, []))


def test_every_module_has_a_place_in_the_layers() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {contract["id"]: contract for contract in settings["tool"]["importlinter"]["contracts"]}
    layers = {layer.strip("()") for layer in contracts["layers"]["layers"]}
    code = [path for path in MODULES if path.name != "__init__.py" or path.parent.name == "cli"]
    placed = {dotted(path): {dotted(path), dotted(path).rpartition(".")[0]} & layers for path in code}
    assert [name for name, places in placed.items() if not places] == []
