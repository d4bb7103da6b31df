from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.errors import RunError
from lorafit.runs.folder import RunLayout, choose_run_folder, claim_run_folder, find_free_name, suggest_name
from lorafit.runs.records import RunRecord


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path.resolve()


@pytest.fixture
def old_run(working_folder: Path, run_record: RunRecord) -> RunLayout:
    layout = RunLayout(working_folder / "mine")
    layout.checkpoints.mkdir(parents=True)
    run_record.write(layout.record)
    return layout


def test_free_name_below_runs_is_taken_where_none_is_asked_for(working_folder: Path) -> None:
    assert choose_run_folder(None, suggestion="data-model-lora").root == working_folder / "runs" / "data-model-lora"
    assert not (working_folder / "runs").exists()


def test_names_in_use_are_counted_on(working_folder: Path) -> None:
    (working_folder / "runs" / "data").mkdir(parents=True)
    (working_folder / "runs" / "data-2").write_text("")
    assert choose_run_folder(None, suggestion="data").root == working_folder / "runs" / "data-3"


def test_named_folder_is_made_absolute(working_folder: Path) -> None:
    assert choose_run_folder(Path("mine"), suggestion="x").root == working_folder / "mine"


def test_home_is_expanded(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(working_folder))
    assert choose_run_folder(Path("~/mine"), suggestion="x").root == working_folder / "mine"


def test_empty_folder_is_taken(working_folder: Path) -> None:
    (working_folder / "mine").mkdir()
    assert choose_run_folder(Path("mine"), suggestion="x").root == working_folder / "mine"


def test_run_in_the_way_is_kept_and_a_free_name_proposed(old_run: RunLayout) -> None:
    with pytest.raises(RunError, match=r"mine already exists.*--output mine-2.*--overwrite"):
        choose_run_folder(Path("mine"), suggestion="x")
    assert old_run.record.is_file()


def test_proposed_name_is_free_below_the_home_too(old_run: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(old_run.root.parent))
    with pytest.raises(RunError, match=r"--output \S*mine-2,"):
        choose_run_folder(Path("~/mine"), suggestion="x")


def test_run_is_replaced_where_the_user_allows_it_and_nothing_else_is_removed(old_run: RunLayout) -> None:
    (old_run.root / "notes.txt").write_text("mine")
    layout = choose_run_folder(Path("mine"), suggestion="x", overwrite=True)
    assert layout == old_run
    assert old_run.record.is_file()
    old_run.report.write_text("a page")
    old_run.export("onnx-int8").mkdir()
    claim_run_folder(layout, overwrite=True)
    assert [path.name for path in old_run.root.iterdir()] == ["notes.txt"]


def test_folder_that_is_no_run_is_never_overwritten(working_folder: Path) -> None:
    (working_folder / "thesis").mkdir()
    (working_folder / "thesis" / "run.json").write_text('{"mine": 1}')
    with pytest.raises(RunError, match="thesis holds something else than a run of lorafit"):
        choose_run_folder(Path("thesis"), suggestion="x", overwrite=True)
    with pytest.raises(RunError, match="taken by another run"):
        claim_run_folder(RunLayout(working_folder / "thesis"), overwrite=True)
    assert (working_folder / "thesis" / "run.json").read_text() == '{"mine": 1}'


def test_run_begun_in_the_meantime_is_kept(working_folder: Path, run_record: RunRecord) -> None:
    first, second = choose_run_folder(None, suggestion="data"), choose_run_folder(None, suggestion="data")
    assert first == second
    claim_run_folder(first, overwrite=False)
    run_record.write(first.record)
    with pytest.raises(RunError, match="taken by another run in the meantime"):
        claim_run_folder(second, overwrite=False)
    assert first.record.is_file()


def test_claimed_folder_is_made(working_folder: Path) -> None:
    claim_run_folder(RunLayout(working_folder / "runs" / "new"), overwrite=False)
    assert (working_folder / "runs" / "new").is_dir()


@pytest.mark.parametrize("overwrite", [False, True])
def test_file_in_the_way_is_refused(working_folder: Path, overwrite: bool) -> None:
    (working_folder / "mine").write_text("")
    with pytest.raises(RunError, match="mine is a file; --output takes a folder"):
        choose_run_folder(Path("mine"), suggestion="x", overwrite=overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_with_what_a_killed_process_left_of_a_beginning_is_free(working_folder: Path, overwrite: bool) -> None:
    (working_folder / "killed").mkdir()
    (working_folder / "killed" / ".run.json.abcdefgh.lorafit-part").write_text("{")
    layout = choose_run_folder(Path("killed"), suggestion="x", overwrite=overwrite)
    claim_run_folder(layout, overwrite=overwrite)
    (working_folder / "killed" / ".run.json.mine").write_text("{")
    with pytest.raises(RunError, match=r"holds something else|already exists"):
        choose_run_folder(Path("killed"), suggestion="x", overwrite=overwrite)


def test_free_name_is_the_first_that_does_not_exist(working_folder: Path) -> None:
    path = working_folder / "run"
    names = []
    for _ in range(3):
        names.append(find_free_name(path).name)
        find_free_name(path).mkdir()
    assert names == ["run", "run-2", "run-3"]


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        (("builtin:rotten-tomatoes", "builtin:distil-minilm", "lora"), "rotten-tomatoes-distil-minilm-lora"),
        (("hub:stanfordnlp/imdb", "distilbert-base-uncased", "lora"), "imdb-distilbert-base-uncased-lora"),
        (("imdb", "Owner/My_Model.v2", "lora"), "imdb-my-model-v2-lora"),
        (("some/folder/Reviews 2024.CSV", "/models/tiny/", "lora"), "reviews-2024-tiny-lora"),
        (("données.jsonl",), "donn-es"),
        (("評論.parquet", "m"), "run-m"),
    ],
)
def test_suggested_name_is_short_and_safe_in_a_shell(parts: tuple[str, ...], name: str) -> None:
    assert suggest_name(*parts) == name


def test_run_of_another_version_or_altered_by_hand_can_be_replaced(
    old_run: RunLayout, edit_record: Callable[..., None]
) -> None:
    edit_record(old_run.record, schema_version=1)
    assert choose_run_folder(Path("mine"), suggestion="x", overwrite=True) == old_run
    old_run.record.write_text(old_run.record.read_text().replace("1", "2"))
    claim_run_folder(old_run, overwrite=True)
    assert not old_run.record.exists()
