"""The package as it is installed: light to import, complete, locked, and of one version."""

import importlib.resources
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lorafit

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "src" / "lorafit" / "reports" / "templates"
HEAVY = (
    "torch",
    "transformers",
    "peft",
    "datasets",
    "accelerate",
    "sklearn",
    "scipy",
    "jinja2",
    "pandas",
    "pyarrow",
    "numpy",
    "matplotlib",
)
START_SECONDS = 0.3
STARTS = {
    "import": ["-c", "import lorafit"],
    "help": ["-m", "lorafit", "--help"],
}


def start(arguments: list[str]) -> float:
    """Run this interpreter without coverage's hooks and return the processor's seconds, whatever else is running."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    before = os.times()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


@pytest.mark.parametrize("how", STARTS)
def test_start_imports_nothing_heavy(how: str) -> None:
    report = subprocess.run(
        [sys.executable, "-X", "importtime", *STARTS[how]], check=True, capture_output=True, text=True
    ).stderr
    imported = {line.rpartition("|")[2].strip() for line in report.splitlines() if line.startswith("import time:")}
    assert "lorafit" in imported
    assert imported & set(HEAVY) == set()


@pytest.mark.parametrize("how", STARTS)
def test_start_answers_at_once(how: str) -> None:
    assert min(start(STARTS[how]) for _ in range(5)) < START_SECONDS


@pytest.mark.parametrize("name", lorafit.__all__)
def test_facade_resolves_every_name(name: str) -> None:
    assert getattr(lorafit, name) is not None


def test_facade_lists_its_names_in_order() -> None:
    assert lorafit.__all__ == sorted(lorafit.__all__)
    assert dir(lorafit) == lorafit.__all__


def test_facade_refuses_other_names() -> None:
    with pytest.raises(AttributeError, match="'lorafit' has no attribute 'trian'"):
        _ = lorafit.trian


def test_changelog_begins_with_this_version() -> None:
    headings = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert headings[0] == lorafit.__version__


def test_package_ships_its_data_files() -> None:
    files = importlib.resources.files("lorafit")
    assert "--hash=sha256:" in files.joinpath("system", "assets.txt").read_text(encoding="utf-8")
    assert files.joinpath("py.typed").is_file()


def test_wheel_holds_code_data_files_and_licence(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"lorafit/__init__.py", "lorafit/cli/__init__.py", "lorafit/system/assets.txt", "lorafit/py.typed"} <= names
    assert {f"lorafit/reports/templates/{path.name}" for path in TEMPLATES.iterdir()} <= names
    assert f"lorafit-{lorafit.__version__}.dist-info/licenses/LICENSE" in names
    assert {name.partition("/")[0] for name in names} == {"lorafit", f"lorafit-{lorafit.__version__}.dist-info"}


def read_lock(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith(("#", "-r "))]
    assert [line for line in pins if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line)] == []
    return dict(line.split("==") for line in pins)


def test_locks_satisfy_the_project() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    train, dev, docs = read_lock("train.lock"), read_lock("dev.lock"), read_lock("docs.lock")
    extras = settings["project"]["optional-dependencies"]
    demo = [line for extra in ("train", "report") for line in extras[extra] if not line.startswith("lorafit[")]
    runtime = settings["project"]["dependencies"] + demo
    groups = settings["dependency-groups"]
    wanted = [(text, train) for text in runtime]
    wanted += [(text, train | dev) for text in groups["dev"]] + [(text, train | dev | docs) for text in groups["docs"]]
    for text, lock in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)]), text
