"""Commands and Python in the README are ones that there are."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

import lorafit
from lorafit.cli import app, main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def find_blocks() -> Iterator[tuple[str, str]]:
    """Give language and content of every fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def find_lines(program: str) -> list[str]:
    """Return the lines of shell blocks, and the code within prose, that call a program."""
    shell = "\n".join(content for language, content in find_blocks() if language in {"", "sh", "bash", "console"})
    lines = [line.removeprefix("$ ").strip() for line in shell.splitlines()]
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
    return [line for line in lines if line.startswith(f"{program} ")]


COMMANDS = find_lines("lorafit")
PYTHON = [content for language, content in find_blocks() if language == "python"]


@pytest.fixture(scope="module")
def group() -> click.Group:
    with pytest.raises(SystemExit):
        main(["--version"])  # the commands join the app when it is called
    return typer.main.get_command(app)  # type: ignore[return-value]


def test_there_is_something_to_check() -> None:
    called = {line.split()[1] for line in COMMANDS}
    assert {"demo", "train", "evaluate", "predict", "doctor"} <= called
    assert len(PYTHON) >= 2
    assert any("import lorafit" in code for code in PYTHON)


@pytest.mark.parametrize("line", COMMANDS)
def test_command_and_its_options_exist(group: click.Group, line: str) -> None:
    name, *words = shlex.split(line, comments=True)[1:]
    if name.startswith("-"):
        assert name in {option for param in group.params for option in param.opts}
        return
    assert name in group.commands, f"there is no command {name}"
    group.commands[name].make_context(name, words)


@pytest.mark.parametrize("line", find_lines("make"))
def test_target_of_the_makefile_exists(line: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    words = [word for word in shlex.split(line, comments=True)[1:] if "=" not in word]
    assert set(words) <= targets


@pytest.mark.parametrize("code", PYTHON)
def test_python_compiles_and_imports_and_settings_are_there(code: str) -> None:
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lorafit":
            assert node.attr in lorafit.__all__


@pytest.mark.parametrize("code", [code for code in PYTHON if "lorafit.Config(" in code])
def test_settings_of_the_python_example_are_accepted(code: str) -> None:
    kept = [node for node in ast.parse(code).body if _sets_config(node)]
    assert len(kept) > 1
    names = {"lorafit": lorafit}
    exec(compile(ast.Module(kept, []), "README.md", "exec"), names)  # noqa: S102 - our own README
    assert isinstance(names["config"], lorafit.Config)


def _sets_config(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).split(".")[0] == "config"
