import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lorafit.errors import MissingExtraError
from lorafit.system.extras import EXTRAS, install_line, missing_modules, require

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
MODULE_OF = {"scikit-learn": "sklearn", "mlflow-skinny": "mlflow"}
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
        "  pip install 'lorafit[train]'"
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


def test_the_install_line_is_quoted_for_the_shell() -> None:
    assert install_line("train") == "pip install 'lorafit[train]'"
