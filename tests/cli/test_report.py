import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.system.extras import install_line


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run of its own."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_training_writes_a_report_and_the_command_writes_it_anew(run: Path, call: Callable[..., Any]) -> None:
    report = run / "report.html"
    first = report.read_text(encoding="utf-8")
    assert "Better than before" in first or "ot shown to be better than" in first
    assert ' class="text" ' in first
    report.unlink()
    answer = call("report", run)
    assert (answer.code, answer.out) == (0, f"{report}\n")
    assert ' class="text" ' in report.read_text(encoding="utf-8")


def test_options_choose_places_and_leave_texts_out(run: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    page, plots = tmp_path / "page.html", tmp_path / "plots"
    answer = call("report", run, "--no-texts", "--output", page, "--plots", plots, "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, f"{page}\n", "")
    assert ' class="text" ' not in page.read_text(encoding="utf-8")
    assert (plots / "loss.png").is_file()
    assert (plots / "roc.svg").is_file()


def test_what_is_no_run_ends_with_2(tmp_path: Path, call: Callable[..., Any]) -> None:
    answer = call("report", tmp_path)
    assert answer.code == 2
    assert "run.json is missing" in answer.err


def test_without_matplotlib_the_pip_line_is_given(run: Path, spawn_without: Callable[..., Any]) -> None:
    answer = spawn_without(["matplotlib"], "report", run)
    assert answer.returncode == 3
    assert install_line("report") in answer.stderr


@pytest.mark.slow
def test_training_without_matplotlib_tells_how_to_get_the_report(
    reviews: Path, settings: list[str], tmp_path: Path, spawn_without: Callable[..., Any]
) -> None:
    run = tmp_path / "run"
    answer = spawn_without(["matplotlib"], "train", reviews, *settings, "--output", run)
    assert answer.returncode == 0, answer.stderr
    assert not (run / "report.html").exists()
    assert f"no report was written: {install_line('report')}, then: lorafit report {run}" in answer.stderr
