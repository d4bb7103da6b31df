"""One command writes a run, a comparison or an export; another is refused at once, and nothing changes."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import lorafit
from lorafit.config import Config, override_config
from lorafit.errors import RunError
from lorafit.experiments.compare.compare import compare
from lorafit.inference.export.export import export, export_merged
from lorafit.reports.page import write_report
from lorafit.runs.folder import RunLayout, find_free_name
from lorafit.system.locks import hold, is_held
from lorafit.training.pipeline import resume

_HOLDER = """
import sys
from pathlib import Path
from lorafit.system.locks import hold
with hold(Path(sys.argv[1]), kind="run"):
    print("held", flush=True)
    sys.stdin.read()
"""

Write = Callable[..., Path]


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Let another process hold a folder; yield its id."""
    command = [sys.executable, "-c", _HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.kill()


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["train", "resume", "report", "compare", "export", "merged"])
def test_a_folder_that_is_being_written_is_refused_before_any_work(
    write_run: Write, tmp_path: Path, command: str
) -> None:
    run = write_run(status="interrupted" if command == "resume" else "complete")
    folder = run / "onnx" if command in {"export", "merged"} else tmp_path / "new" if command == "compare" else run
    nowhere = override_config(Config(), {"data.source": str(tmp_path / "nowhere.csv")})
    work: dict[str, Callable[[], object]] = {
        "train": lambda: lorafit.train(nowhere, output=run, overwrite=True),
        "resume": lambda: resume(run),
        "report": lambda: write_report(run),
        "compare": lambda: compare(nowhere, ["lora"], output=folder),
        "export": lambda: export(run, output=folder),
        "merged": lambda: export_merged(run, output=folder),
    }
    before = read_all(run)
    with held(folder) as process, pytest.raises(RunError, match=rf"is in use: process {process} on .* is writing this"):
        work[command]()
    left = {name: content for name, content in read_all(run).items() if not name.endswith(".lorafit-lock")}
    assert left == before


def test_a_report_elsewhere_needs_no_lock(write_run: Write, tmp_path: Path) -> None:
    run = write_run()
    with held(run):
        assert write_report(run, output=tmp_path / "report.html").is_file()


def test_a_complete_run_without_a_report_says_how_to_write_it(write_run: Write) -> None:
    run = write_run()
    with pytest.raises(RunError, match=rf"nothing to resume\. It has no report yet: Write.*\n  lorafit report {run}$"):
        resume(run)
    RunLayout(run).report.touch()
    with pytest.raises(RunError, match=r"nothing to resume\.$"):
        resume(run)


def test_what_was_refused_or_failed_holds_nothing(tmp_path: Path) -> None:
    nowhere = override_config(Config(), {"data.source": str(tmp_path / "nowhere.csv")})
    with pytest.raises(lorafit.errors.DataError):
        lorafit.train(nowhere, output=tmp_path / "a/b/run")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_about_to_be_taken_is_not_free(tmp_path: Path) -> None:
    with hold(tmp_path / "run", kind="run"):
        assert find_free_name(tmp_path / "run") == tmp_path / "run-2"
    assert find_free_name(tmp_path / "run") == tmp_path / "run"


def test_a_run_that_is_taken_away_leaves_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "run"
    with hold(folder, kind="run"):
        folder.mkdir()
        shutil.rmtree(tmp_path / "runs")
    assert not is_held(folder)
    assert list(tmp_path.iterdir()) == []
