"""A whole check of a source: what is found where nothing is wrong, where training would refuse, and by which remedy."""

import csv
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.config import Config, describe_source, load_config
from lorafit.data.quality import texts
from lorafit.data.quality.findings import Finding, Scope
from lorafit.data.quality.report import CheckReport
from lorafit.errors import DataCheckError
from lorafit.system import extras
from lorafit.training.check import check, enforce
from lorafit.training.label_errors import review_labels

REVIEW = "a quiet film about two brothers who open a bakery and lose it again to the tax office"


def write_csv(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def load(source: object, **settings: object) -> Config:
    return load_config(flags={"data.source": str(source), "model.name": "builtin:distil-minilm", **settings})


def name_findings(report: CheckReport) -> dict[str, int]:
    return {f"{one.severity} {one.name} {one.split}": one.count for one in report.findings}


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    """200 rows with a duplicate, a contradiction and markup."""
    rows = [
        (f"row {number} of the {'first' if number % 3 else 'other'} kind", "yn"[number % 2]) for number in range(196)
    ]
    rows += [(f"{REVIEW}<br />", "y"), (f"{REVIEW}<br />", "y"), ("same text", "y"), ("same text", "n")]
    return write_csv(tmp_path / "my reviews.csv", rows)


def test_a_table_at_hand_is_checked_as_a_file_is() -> None:
    frame = {"text": [f"a text of row {row}" for row in range(40)], "label": list("ab" * 20)}
    frame["text"][1] = frame["text"][0]
    report = check(data=frame)
    assert report.rows == {"train": 40}
    assert [one.count for one in report.findings if one.name == "conflicting-labels"] == [2]
    assert report.source.endswith(".jsonl")


@pytest.mark.usefixtures("builtin_encoder")
def test_nothing_is_wrong_with_the_builtin_reviews() -> None:
    report = check(load("builtin:rotten-tomatoes"))
    assert report.failures == []
    assert set(name_findings(report)) == {
        "note near-duplicates train",
        "note html train",
        "note html validation",
        "note html test",
        "note encoding train",
    }
    assert report.skipped == []
    assert not [one for one in report.findings if "leak" in one.name]
    enforce(report)


def test_every_remedy_names_source_and_options(dirty: Path) -> None:
    config = load(dirty, **{"data.test": str(dirty), "data.format.delimiter": ",", "data.merge_spellings": True})
    report = check(config)
    words = shlex.split(describe_source(config))
    assert words[0] == str(dirty)
    assert words[1:] == (
        ["--test", str(dirty), "--merge-spellings", "--delimiter", ",", "--model", "builtin:distil-minilm"]
    )
    for finding in report.findings:
        if finding.remedy:
            program, command, *rest = shlex.split(finding.remedy)
            assert (program, rest[0]) == ("lorafit", str(dirty))
            assert command in {"check", "train"}
            assert "--delimiter" in rest
            assert ("--test" in rest) is (finding.split != "test" or "leak" in finding.name)


def test_rows_and_kinds_of_a_dirty_file_are_told(dirty: Path) -> None:
    report = check(load(dirty))
    assert name_findings(report) == {
        "warning conflicting-labels None": 2,
        "warning html train": 2,
        "note duplicates train": 1,
    }
    assert report.rows == {"train": 200}
    assert report.labels == {"train": {"n": 99, "y": 101}}
    assert sum(sum(counts) for counts in report.lengths.counts.values()) == 200
    assert REVIEW not in report.model_dump_json()
    with pytest.raises(DataCheckError, match=r"2 warnings, 1 note \(conflicting-labels, html\)"):
        enforce(report)


def test_what_training_refuses_is_reported(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "a.csv", [("one", "x"), ("two", "x"), ("", "x"), ("one", "x")])
    report = check(load(source))
    assert {"error unusable-rows train", "error labels None", "warning duplicates train"} == set(name_findings(report))
    assert report.labels == {"train": {}}


@pytest.mark.usefixtures("builtin_encoder")
def test_unknown_tokens_are_told(tmp_path: Path) -> None:
    signs = "价格很好服务不错菜也很好吃我们下次还会再来电池太差了用了两天就坏"
    rows = [(signs[number % 20 :] + signs[: number % 20], "xy"[number % 2]) for number in range(40)]
    report = check(load(write_csv(tmp_path / "a.csv", rows)))
    (finding,) = [one for one in report.findings if one.name == "unknown-tokens"]
    assert finding.severity in {"warning", "error"}
    assert finding.count == 40
    assert "a base for Chinese" in finding.message


def test_encoder_that_is_not_there_is_no_obstacle(dirty: Path) -> None:
    report = check(load(dirty, **{"model.name": "owner/not-there"}))
    (skipped,) = report.skipped
    assert skipped.what == "unknown tokens"
    assert skipped.why.endswith("a local folder, or --model builtin:distil-minilm.")
    assert "conflicting-labels" in {finding.name for finding in report.findings}


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", "adapter"])
def test_run_to_go_on_from_is_asked_what_it_knows(
    trained_of: Callable[[str], Path], dirty: Path, tmp_path: Path, part: str
) -> None:
    run = trained_of("single_label")
    assert check(load(dirty, **{"model.name": str(run / part)})).skipped == []
    broken = Path(shutil.copytree(run, tmp_path / "run"))
    (broken / "adapter" / "adapter_model.safetensors").unlink()
    (skipped,) = check(load(dirty, **{"model.name": str(broken / part)})).skipped
    assert "adapter_model.safetensors is missing. Name another encoder with --model." in skipped.why


def test_remedy_gives_no_option_twice_and_leaves_paths_alone(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "DATA SPLIT.csv", [("one", "x"), ("two", "y"), ("two", "y"), ("", "x"), ("six", "x")])
    told = Finding(
        name="label-errors",
        severity="note",
        split="train",
        count=1,
        share=1.0,
        scope=Scope(rows=1, of=1),
        message="One.",
        remedy="lorafit train DATA --corrections SPLIT.csv",
    )
    config = load(source, **{"data.bad_rows": "drop", "data.corrections": "old.csv"})
    remedies = {one.name: shlex.split(one.remedy) for one in check(config, more=[told, told]).findings if one.remedy}
    model = ["--model", "builtin:distil-minilm"]
    head = ["lorafit", "train", str(source)]
    drop, old = ["--bad-rows", "drop"], ["--corrections", "old.csv"]
    assert remedies["unusable-rows"] == [*head, *old, *model, *drop]
    assert remedies["label-errors"] == [*head, *drop, *model, "--corrections", "SPLIT.csv"]
    assert remedies["duplicates"] == ["lorafit", "check", str(source), *drop, *model, "--fix", "duplicates"]


def test_what_the_check_tells_is_not_told_again(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b"text;label\n" + b"".join(f"caf\xe9 {row};{'xy'[row % 2]}\n".encode("cp1252") for row in range(40))
    )
    config = load(path)
    found = review_labels(config, tmp_path / "review.csv", folds=2, models=["tfidf"])
    notes = [one.message for one in found if one.message.startswith("a.csv")]
    assert any("cp1252" in note.lower() or "windows-1252" in note.lower() for note in notes), notes
    messages = [one.message for one in check(config, more=found).findings]
    assert all(messages.count(note) == 1 for note in notes)


def test_package_that_is_missing_is_no_obstacle(dirty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = extras.importlib.import_module

    def refuse(name: str) -> object:
        if name.partition(".")[0] in {"rensa", "py3langid"}:
            raise ModuleNotFoundError(name=name)
        return import_module(name)

    monkeypatch.setattr(extras.importlib, "import_module", refuse)
    monkeypatch.setattr(texts, "_load_identifier", texts._load_identifier.__wrapped__)
    report = check(load(dirty))
    assert {one.what for one in report.skipped} >= {"near duplicates", "languages"}
    assert extras.install_line("check") in report.skipped[0].why


def test_page_shows_texts_only_where_it_may(dirty: Path, tmp_path: Path) -> None:
    page = tmp_path / "out" / "page.html"
    check(load(dirty), page=page)
    assert REVIEW in page.read_text(encoding="utf-8")
    check(load(dirty), page=page, texts=False)
    assert REVIEW not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["multi_label", "regression", "ordinal"])
def test_every_task_is_checked(tmp_path: Path, task: str) -> None:
    rows = [(f"text number {number} of many", str(1 + number % 5)) for number in range(60)]
    rows += [("twice the same", "1"), ("twice the same", "2")]
    report = check(load(write_csv(tmp_path / "a.csv", rows), **{"data.task": task}))
    found = {finding.name for finding in report.findings}
    assert ("conflicting-labels" in found) is (task != "regression")
    assert report.task == task
