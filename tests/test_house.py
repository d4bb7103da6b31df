"""The rules of the house that a machine can keep: docs/explanation/architecture.md has them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lorafit
from lorafit.tasks.registry import TASKS, get_task

ROOT = Path(lorafit.__file__).parent
MODULES = sorted(path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] != "tasks")
"""All that is outside `tasks`."""

OF_TASKS = {path.partition(":")[0] for path in TASKS.values()}
"""The modules of single tasks."""

CLASSES = {
    name
    for path in OF_TASKS
    for node in ast.walk(ast.parse((ROOT.parent / f"{path.replace('.', '/')}.py").read_text(encoding="utf-8")))
    if isinstance(node, ast.ClassDef)
    for name in (node.name,)
} | {"Task", "Prediction", "Calibration"}
"""Tasks, their predictions and their calibrations."""

FLAGS = {
    f"{prefix}{what}" for prefix in ("is_", "has_") for what in (*TASKS, "number", "numbers", "classes", "classless")
}


def list_task_questions(tree: ast.Module) -> Iterator[str]:
    """Yield what in a module depends on which task there is, but for names of tasks as such."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module in OF_TASKS:
                yield f"line {node.lineno} imports {module}"
            case ast.ImportFrom(module="lorafit.tasks") if (
                found := {f"lorafit.tasks.{a.name}" for a in node.names} & OF_TASKS
            ):
                yield f"line {node.lineno} imports {found}"
            case ast.Import() if found := {alias.name for alias in node.names} & OF_TASKS:
                yield f"line {node.lineno} imports {found}"
            case ast.Call(func=ast.Name(id="isinstance" | "issubclass"), args=[_, classes]):
                found = {part.id for part in ast.walk(classes) if isinstance(part, ast.Name)} | {
                    part.attr for part in ast.walk(classes) if isinstance(part, ast.Attribute)
                }
                if found & CLASSES:
                    yield f"line {node.lineno} asks for the class {found & CLASSES}"
            case ast.MatchClass(cls=ast.Name(id=name) | ast.Attribute(attr=name)) if name in CLASSES:
                yield f"line {node.lineno} asks for the class {name}"
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=name) if (
                name in FLAGS
            ):
                yield f"line {node.lineno} has {name}"
            case ast.FunctionDef(name=name) if name in FLAGS:
                yield f"line {node.lineno} has {name}"


def list_task_names(tree: ast.Module) -> Iterator[tuple[int, ast.Constant]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in TASKS:
            yield node.lineno, node


def list_allowed_names(path: Path, tree: ast.Module) -> set[ast.Constant]:
    """Return where a task may be named: the keys of the table of plots, and the default of the settings."""
    allowed = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if path == ROOT / "reports" / "plots.py" and node.target.id == "PLOTS" and isinstance(node.value, ast.Dict):
            allowed |= {key for key in node.value.keys if isinstance(key, ast.Constant)}
        if path == ROOT / "config.py" and node.target.id == "task" and node.value is not None:
            default = node.value.args[0] if isinstance(node.value, ast.Call) and node.value.args else node.value
            allowed |= {default} if isinstance(default, ast.Constant) else set()
    return allowed


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(ROOT)) for path in MODULES])
def test_nobody_outside_asks_which_task_it_is(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path == ROOT / "__init__.py":  # the facade, which loads nothing: type checkers follow its imports
        tree.body = [
            node for node in tree.body if not isinstance(node, ast.If) or "TYPE_CHECKING" not in ast.dump(node.test)
        ]
    found, allowed = list(list_task_questions(tree)), list_allowed_names(path, tree)
    found += [f"line {line} names {node.value}" for line, node in list_task_names(tree) if node not in allowed]
    assert not found, "outside lorafit.tasks, the Task is asked (docs/explanation/architecture.md)"


@pytest.mark.parametrize(
    "code",
    [
        "from lorafit.tasks.ordinal import Ordinal",
        "from lorafit.tasks import regression",
        "import lorafit.tasks.multi_label",
        "isinstance(task, MultiLabel)",
        "isinstance(prediction, (str, single_label.Prediction))",
        "issubclass(kind, RegressionCalibration | None)",
        "match prediction:\n    case RegressionPrediction(): pass",
        "def write(value, *, is_number): pass",
        "write(1, is_number=True)",
        "if task.is_regression: pass",
    ],
)
def test_questions_are_found(code: str) -> None:
    assert list(list_task_questions(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ["task == 'single_label'", "task.name in ('ordinal', 'regression')", "{'multi_label': 1}[task]", "'regression'"],
)
def test_names_are_found(code: str) -> None:
    assert list(list_task_names(ast.parse(code)))


def test_other_code_is_no_question() -> None:
    code = "from lorafit.tasks.registry import get_task\nisinstance(value, str | float)\ntask.is_right\nlabel == 'a'"
    assert not list(list_task_questions(ast.parse(code)))
    assert not list(list_task_names(ast.parse(code)))


def test_there_are_few_rooms_and_no_lumber() -> None:
    here = {path.name for path in ROOT.iterdir()} - {"__pycache__"}
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert here - rooms == {"config.py", "errors.py", "__init__.py", "__main__.py", "py.typed"}
    assert len(rooms) <= 12
    lumber = {"helpers", "helper", "common", "misc", "utils", "util"}
    assert not [path for path in ROOT.rglob("*") if path.stem in lumber]


def test_every_task_has_its_plots() -> None:
    from lorafit.reports.plots import PLOTS

    assert list(PLOTS) == list(TASKS)
    assert all(get_task(name).name == name for name in PLOTS)
