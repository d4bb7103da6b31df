"""Progress in a notebook: a real kernel runs the cells."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from lorafit.system.notebook import progress_here
from lorafit.system.progress import Silent

_STAGES = """
from lorafit.system.notebook import progress_here
progress = progress_here()
progress.start("reading")
progress.finish("2 rows")
progress.start("training\\x1b[31m", total=1200, unit="step", seconds=70)
progress.say("a note of <b>markup</b> \x1b[31m")
progress._shown = 0
progress.update(600, loss=0.25, tokens_per_second=1234.5)
progress.update(601)
"""
_CHECK = """
import lorafit
found = lorafit.check(data={"text": [f"text number {n} of them" for n in range(40)], "label": [0, 1] * 20})
"""
_INTERRUPTED = """
from lorafit.system.notebook import progress_here
progress_here().start("reading")
raise KeyboardInterrupt
"""


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What the cells show."""
    given = [nbformat.v4.new_code_cell(code) for code in (_STAGES, _CHECK, _INTERRUPTED)]
    notebook = nbformat.v4.new_notebook(cells=given)
    folder = tmp_path_factory.mktemp("notebook")
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.allow_errors = True
    client.execute()
    return [cell.outputs for cell in notebook.cells]


def test_a_notebook_shows_lines_and_a_bar_in_one_place(cells: list[list[dict[str, Any]]]) -> None:
    (shown,) = (output["data"] for output in cells[0] if output["output_type"] == "display_data")
    first, note, bar = shown["text/plain"].splitlines()
    assert first.startswith("✓ reading: 0.")
    assert first.endswith(", 2 rows")
    assert note.startswith("a note of <b>markup</b>")
    assert "\x1b" not in shown["text/plain"]
    assert bar.startswith("training\ufffd[31m  600/1,200 steps  0:0")
    assert bar.endswith("left  loss 0.250  1,234 tokens/s"), "the second update came too soon to be shown"
    assert '<progress value="600" max="1200"></progress>' in shown["text/html"]
    assert "&lt;b&gt;markup" in shown["text/html"]


def test_what_python_calls_shows_its_progress_by_itself(cells: list[list[dict[str, Any]]]) -> None:
    (shown,) = (output["data"] for output in cells[1] if output["output_type"] == "display_data")
    assert "✓ duplicates: " in shown["text/plain"]
    assert "<progress" not in shown["text/html"], "no bar is left behind"


def test_no_bar_stays_after_what_stopped_it(cells: list[list[dict[str, Any]]]) -> None:
    (shown,) = (output["data"] for output in cells[2] if output["output_type"] == "display_data")
    assert shown["text/plain"].startswith("✗ reading: stopped after 0.")
    assert "<progress" not in shown["text/html"]


def test_elsewhere_the_library_is_silent(tmp_path: Path) -> None:
    assert isinstance(progress_here(), Silent)
