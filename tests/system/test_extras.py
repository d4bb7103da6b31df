import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lorafit.errors import MissingExtraError
from lorafit.system.extras import EXTRAS, install_line, missing_modules, require

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
MODULE_OF = {"scikit-learn": "sklearn", "mlflow-skinny": "mlflow", "prometheus-client": "prometheus_client"}
"""Import names that differ from the package's name."""


def test_extras_are_those_of_pyproject() -> None:
    declared = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    packages = {extra: [re.split(r"[<>=!~\[; ]", line)[0] for line in lines] for extra, lines in declared.items()}
    packages = {extra: [name for name in names if name != "lorafit"] for extra, names in packages.items()}
    modules = {extra: {MODULE_OF.get(name, name) for name in names} for extra, names in packages.items()}
    assert modules == {extra: set(names) for extra, names in EXTRAS.items()}


def test_require_returns_the_module() -> None:
    assert require("json.decoder", extra="train", purpose="a test").JSONDecoder


def test_a_missing_package_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError) as caught:
        require("pyarrow.parquet", extra="train", purpose="Reading parquet files")
    assert str(caught.value) == (
        "Reading parquet files needs the package 'pyarrow', which is not installed. Install it with:\n"
        f"  {install_line('train')}"
    )


def test_a_package_without_its_own_dependency_is_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed_but_broken.py").write_text("import its_missing_dependency\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="its_missing_dependency") as caught:
        require("installed_but_broken", extra="train", purpose="A test")
    assert not isinstance(caught.value, MissingExtraError)


def test_missing_modules_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_modules("train") == []
    monkeypatch.setitem(sys.modules, "peft", None)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert missing_modules("train") == ["peft", "sklearn"]


def test_looking_for_modules_imports_none() -> None:
    script = (
        "import sys; from lorafit.system.extras import EXTRAS, missing_modules; missing_modules('train'); "
        "print([name for name in EXTRAS['train'] if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("origin", "line", "shared"),
    [
        (None, "pip install 'lorafit[train]'", "pip install 'lorafit[train]'"),
        (
            {"url": "file:///home/ann/my%20code", "dir_info": {"editable": True}},
            "pip install -e '/home/ann/my code[train]'",
            "pip install -e '.[train]'",
        ),
        ({"url": "file:///code", "dir_info": {}}, "pip install '/code[train]'", "pip install '.[train]'"),
        (
            {"url": "file:///tmp/lorafit-1-py3-none-any.whl", "archive_info": {}},
            "pip install '/tmp/lorafit-1-py3-none-any.whl[train]'",
            "pip install './lorafit-1-py3-none-any.whl[train]'",
        ),
        (
            {"url": "https://a.b/lorafit", "vcs_info": {"vcs": "git", "commit_id": "12ab"}},
            "pip install 'lorafit[train] @ git+https://a.b/lorafit@12ab'",
            "pip install 'lorafit[train] @ git+https://a.b/lorafit@12ab'",
        ),
    ],
)
def test_an_extra_is_installed_from_where_lorafit_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, origin: dict[str, object] | None, line: str, shared: str
) -> None:
    folder = tmp_path / "lorafit-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: lorafit\nVersion: 1\n", encoding="utf-8")
    if origin is not None:
        (folder / "direct_url.json").write_text(json.dumps(origin), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert install_line("train") == line
    assert install_line("train", shared=True) == shared


@pytest.mark.network
def test_pip_takes_the_line() -> None:
    words = [*shlex.split(install_line("onnx"))[1:], "--dry-run", "--no-deps"]
    told = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)
    assert "Would install lorafit" in told.stdout, told.stderr
