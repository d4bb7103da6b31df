"""What is said once for a block, in Python, holds for all that opens runs inside it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import lorafit
from lorafit.config import load_config
from lorafit.errors import RunError, UserInputError
from lorafit.inference.export.export import export_merged
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.digests import digest_file
from lorafit.system.hardware import choose_threads
from lorafit.training.evaluation import evaluate
from lorafit.training.pipeline import resume

EditRecord = Callable[..., None]


@pytest.fixture
def run(trained_of: Callable[[str], Path], tmp_path: Path) -> Path:
    return shutil.copytree(trained_of("single_label"), tmp_path / "run")


@pytest.fixture
def base(run: Path, edit_record: EditRecord, tmp_path: Path) -> Path:
    """Where the base of the run lies now, which is not where its record says."""
    layout, gone = RunLayout(run), str(tmp_path / "gone")
    name = RunRecord.read(layout.record).base_model.name
    layout.config.write_text(layout.config.read_text().replace(load_config(layout.config).model.name, gone))
    edit_record(layout.record, lambda fields: fields["base_model"].update(name=gone))
    digest = digest_file(layout.config)
    edit_record(layout.record, lambda fields: fields["evidence"].update({layout.config.name: digest}))
    return shutil.copytree(name, tmp_path / "moved")


def test_a_run_is_exported_and_measured_on_a_base_that_has_moved(run: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserInputError, match="gone"):
        evaluate(run)
    with lorafit.opening(base=base):
        assert export_merged(run, output=tmp_path / "merged").is_dir()
        assert evaluate(run).after.metrics["accuracy"].value > 0.8


@pytest.mark.slow  # trains twice
def test_a_run_is_repeated_resumed_and_exported_on_a_base_that_has_moved(
    run: Path, base: Path, edit_record: EditRecord, tmp_path: Path
) -> None:
    source = load_config(RunLayout(run).config).data.source
    with lorafit.opening(base=base):
        assert lorafit.reproduce(run, output=tmp_path / "again").identical
        assert lorafit.export(run, output=tmp_path / "onnx").record.parity is not None
        assert lorafit.diff(run, run, source, flags={"data.label_column": "label"}).rows > 0
        edit_record(RunLayout(run).record, status="interrupted")
        assert resume(run).record.status == "complete"


def test_an_altered_run_is_compared_with_a_warning(run: Path) -> None:
    with RunLayout(run).config.open("a") as file:
        file.write("# mine\n")
    with pytest.raises(RunError, match=r"config\.yaml was altered .* lorafit\.opening\(accept_altered=True\)"):
        lorafit.diff(run, run)
    with (
        pytest.warns(UserWarning, match=r"accepted, as was asked for: .*config\.yaml was altered"),
        lorafit.opening(accept_altered=True),
    ):
        assert lorafit.diff(run, run).rows > 0


def test_threads_are_those_of_the_innermost_block() -> None:
    with lorafit.opening(threads=3):
        assert choose_threads(1) == 3
        with lorafit.opening(threads=2):
            assert choose_threads(1) == 2
        with lorafit.opening():
            assert choose_threads(1) == 3
    with pytest.raises(UserInputError, match="At least 1 thread"), lorafit.opening(threads=0):
        pass
