"""What README and docs name is there: commands, options, settings, make targets, files, links, Python, fields."""

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest
import typer

import lorafit
from lorafit.cli import COMMANDS, app, main
from lorafit.config import Config, load_config
from lorafit.tasks.registry import TASKS, get_task

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
GENERATED = ("settings", "methods", "commands", "limits")
"""Pages of `docs/reference` that scripts/reference.py writes."""

SUFFIXES = ("html", "json", "onnx", "py")
"""Of files, whose names look like settings or functions."""

PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md")))
    if path.stem not in GENERATED
}


def find_blocks(page: str) -> Iterator[tuple[str, str]]:
    """Yield language and content of every fenced block."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", PAGES[page], flags=re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def find_code(page: str) -> list[str]:
    """Return the code within prose, each on one line."""
    prose = re.sub(r"^```.*?^```$", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]


def find_lines(page: str, program: str) -> list[str]:
    """Return the lines of shell blocks and workflows, and the code within prose, that call a program."""
    shell = "\n".join(content for language, content in find_blocks(page) if language in {"", "yaml"})
    lines = [re.sub(r"^(- run: |[A-Z_]+=\S+ )", "", line.strip()) for line in shell.splitlines()]
    return [line for line in (*lines, *find_code(page)) if line.startswith(f"{program} ")]


CALLS = sorted({(page, line) for page in PAGES for line in find_lines(page, "lorafit")})
PYTHON = [(page, code) for page in PAGES for language, code in find_blocks(page) if language == "python"]
YAML = [
    (page, code) for page in PAGES for language, code in find_blocks(page) if language == "yaml" and "run:" not in code
]
SETTINGS = sorted(
    {
        change.strip("'\"`),")
        for text in PAGES.values()
        for change in re.findall(r"--set\s+('[^']+'|[a-z_]+\.\w+=[^\s`]+)", text)
    }
)


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def group() -> click.Group:
    with pytest.raises(SystemExit):
        main(["--version"])  # the commands join the app when it is called
    return typer.main.get_command(app)  # type: ignore[return-value]


def test_there_is_something_to_check() -> None:
    assert {"demo", "train", "evaluate", "predict", "doctor"} <= {line.split()[1] for _, line in CALLS}
    assert any("import lorafit" in code for page, code in PYTHON if page == "README.md")
    assert YAML
    assert SETTINGS


@pytest.mark.parametrize("page", GENERATED)
def test_reference_page_is_what_the_code_says(reference: ModuleType, page: str) -> None:
    written = (DOCS / "reference" / f"{page}.md").read_text(encoding="utf-8")
    assert written == getattr(reference, f"render_{page}")(), "run: python scripts/reference.py"


@pytest.mark.parametrize(("page", "line"), CALLS)
def test_command_and_its_options_exist(group: click.Group, page: str, line: str) -> None:
    name, *words = shlex.split(line, comments=True)[1:]
    if name.startswith("-"):
        assert name in {option for param in group.params for option in param.opts} | {"--help"}
        return
    assert name in group.commands, f"there is no command {name}"
    if words:
        group.commands[name].make_context(name, words)


@pytest.mark.parametrize("page", PAGES)
def test_targets_of_the_makefile_exist(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    called = [shlex.split(line, comments=True)[1:] for line in find_lines(page, "make")]
    assert {word for words in called for word in words if "=" not in word} <= targets


ELSEWHERE = {"sentence_transformers"}
"""Modules of libraries that lorafit's tests open models with in environments of their own."""


@pytest.mark.parametrize(("page", "code"), PYTHON)
def test_python_compiles_and_what_it_imports_is_there(page: str, code: str) -> None:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module in ELSEWHERE:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            known = dir(importlib.import_module(str(node.module)))  # to ask for a name of transformers would load it
            assert [alias.name for alias in node.names if alias.name not in known] == []
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lorafit":
            assert node.attr in lorafit.__all__


@pytest.mark.parametrize("page", PAGES)
def test_functions_of_the_prose_are_there(page: str) -> None:
    for code in find_code(page):
        if (named := re.match(r"lorafit((?:\.\w+)+)(?=\(|$)", code)) is None or code.endswith(SUFFIXES):
            continue
        found: object = lorafit
        for name in named[1][1:].split("."):
            found = getattr(found, name, None) or importlib.import_module(f"{found.__name__}.{name}")
        assert found is not None, code


@pytest.mark.parametrize(("page", "code"), [(page, code) for page, code in PYTHON if "lorafit.Config(" in code])
def test_settings_of_python_are_accepted(page: str, code: str) -> None:
    kept = [node for node in ast.parse(code).body if _sets_config(node)]
    assert len(kept) > 1
    names = {"lorafit": lorafit, "os": os}
    exec(compile(ast.Module(kept, []), page, "exec"), names)  # noqa: S102 - our own docs
    assert isinstance(names["config"], Config)


@pytest.mark.parametrize("change", SETTINGS)
def test_changed_setting_is_accepted(change: str) -> None:
    name, _, _ = change.partition("=")
    section, _, field = name.partition(".")
    assert field.partition(".")[0] in getattr(load_config(overrides=[change]), section).model_fields_set


@pytest.mark.parametrize(("page", "code"), YAML)
def test_settings_file_is_accepted(page: str, code: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(code, encoding="utf-8")
    assert load_config(path).model_fields_set


@pytest.mark.parametrize("page", PAGES)
def test_settings_of_the_prose_are_there(page: str) -> None:
    for code in find_code(page):
        section, _, rest = code.partition(".")
        if section in Config.model_fields and (named := re.fullmatch(r"(\w+)(=.*)?", rest)):
            assert named[1] in {*type(getattr(Config(), section)).model_fields, *SUFFIXES}, code


def test_every_link_between_documents_leads_somewhere() -> None:
    broken, links = [], 0
    for page, text in PAGES.items():
        for target, _, heading in re.findall(r"\]\((?!https?:|mailto:)([^)#]*)(#([^)]*))?\)", text):
            links += 1
            path = (ROOT / page).parent / target if target else ROOT / page
            if not path.exists() or (heading and heading not in list_headings(path)):
                broken.append(f"{page}: {target}#{heading}")
    assert links
    assert broken == []


def list_headings(page: Path) -> set[str]:
    """Return the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_code_file_that_the_documents_name_exists() -> None:
    names = {
        name
        for text in PAGES.values()
        for name in re.findall(r"`(?:python )?((?:benchmarks|scripts|docs|src|tests)/[\w./-]+)(?=[`\s])", text)
    }
    assert names
    assert [name for name in sorted(names) if not (ROOT / name).exists()] == []


def test_architecture_draws_the_rooms_of_the_import_contract_and_every_file() -> None:
    drawing = next(content for _, content in find_blocks("docs/explanation/architecture.md"))
    drawn = re.findall(r"^(?:(?!__)(\w+)(?:/|\.py))", drawing, flags=re.MULTILINE)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "rooms")
    assert drawn == [layer for layer in layers if layer != "__main__"]
    package = Path(lorafit.__file__).parent
    files = {path.stem for path in package.rglob("*.py")} - {"__init__", *COMMANDS}
    assert files - set(re.findall(r"\w+", drawing)) == set()


@pytest.mark.parametrize("task", TASKS)
def test_gates_of_the_task_are_listed(task: str) -> None:
    from lorafit.experiments.diff.gates import list_gates

    (row,) = re.findall(rf"^\| `{task}` \| (`.*`) \|$", PAGES["docs/how-to/guard-a-model-in-ci.md"], flags=re.MULTILINE)
    assert tuple(name.strip("`") for name in row.split(", ")) == list_gates(get_task(task))


def test_fields_of_the_metrics_are_listed() -> None:
    from lorafit.tasks.records import MetricsRecord

    named = set(re.findall(r"`(\w+)`", PAGES["docs/reference/run-folder.md"]))
    assert set(MetricsRecord.model_fields) - named == set()


def test_coverage_of_intervals_is_that_of_the_record() -> None:
    cases = json.loads((ROOT / "benchmarks" / "results" / "coverage.json").read_text(encoding="utf-8"))["cases"]
    page = PAGES["docs/explanation/measurement.md"]
    for scenario in ("4 classes, 10 to 40 % of the rows", "4 classes, in groups of 8 rows"):
        held: dict[str, dict[int, list[str]]] = {}
        for case in cases:
            if case["scenario"] == scenario:
                held.setdefault(case["metric"], {}).setdefault(case["rows"], []).append(f"{100 * case['held']:.1f}")
        assert len(held) == 7
        for metric, by_rows in held.items():
            row = " | ".join([metric, *(", ".join(shares) for shares in by_rows.values())])
            assert f"| {row} |" in page
    below = sum(case["held"] < 0.93 for case in cases)
    assert (len(cases), below) == (374, 10), "the page gives these numbers in words"


def test_scale_is_that_of_the_records() -> None:
    spec = importlib.util.spec_from_file_location("scale", ROOT / "benchmarks" / "scale.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = PAGES["docs/explanation/scale.md"].splitlines()
    assert [line for line in module.render_tables() if line not in page] == [], "run: python benchmarks/scale.py"


def _sets_config(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).split(".")[0] == "config"
