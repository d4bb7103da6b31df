"""Texts that a run has seen because the run that it goes on from was trained on them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.config import Config, load_config
from lorafit.data.loading import load_splits
from lorafit.errors import DataError
from lorafit.runs.evidence import add_evidence
from lorafit.runs.folder import RunLayout
from lorafit.runs.lineage import describe_seen_texts, list_base_runs
from lorafit.runs.records import DataRecord, RunRecord, SplitRecord
from lorafit.training.prepare import load_material

WriteBase = Callable[..., Path]


def write_rows(path: Path, rows: range) -> Path:
    """Write rows, each with a text of its own."""
    lines = [json.dumps({"text": f"Film {row}", "label": ("neg", "pos")[row % 2]}) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def build_config(*sources: Path, **settings: Any) -> Config:
    names = [str(source) for source in sources]
    flags = {
        "data.source": names[0],
        "data.files": names[1:],
        "data.validation_fraction": 0.1,
        "data.calibration_fraction": 0,
    }
    return load_config(flags=flags | {f"data.{name}": value for name, value in settings.items()})


@pytest.fixture
def write_base(run_record: RunRecord, tmp_path: Path) -> WriteBase:
    """Writes record and settings of a run: its name, its settings, what it goes on from, and when it was made."""

    def write(name: str, config: Config, base: str = "builtin:distil-minilm", created: str = "2026-01-01") -> Path:
        layout = RunLayout(tmp_path / name)
        layout.root.mkdir()
        layout.config.write_text(config.to_yaml(), encoding="utf-8")
        rows = load_splits(config.data).train
        split = SplitRecord(rows=len(rows), label_counts={}, fingerprint=rows.fingerprint(), tokens=9, truncated=0)
        changes = {
            "created": created,
            "truncation": config.model.truncation,
            "evidence": add_evidence(layout, run_record, layout.config),
            "data": DataRecord(source=config.data.source, splits={"train": split}),
            "base_model": run_record.base_model.model_copy(update={"name": base}),
        }
        run_record.model_copy(update=changes).write(layout.record)
        return layout.root

    return write


def count_slowly(base: Config, config: Config) -> dict[str, int]:
    """The twin of the count."""
    trained, splits = load_splits(base.data).train.texts, load_splits(config.data)
    return {
        name: len([text for text in rows.texts if text in trained])
        for name, rows in splits.by_name.items()
        if name != "train"
    }


def describe(run: Path, config: Config) -> list[str]:
    return list(describe_seen_texts(str(run), load_splits(config.data), config.data))


def test_another_cut_of_the_same_rows_is_refused_and_the_remedy_works(write_base: WriteBase, tmp_path: Path) -> None:
    files = [write_rows(tmp_path / "a.jsonl", range(60)), write_rows(tmp_path / "b.jsonl", range(60, 200))]
    first = build_config(*files, seed=42)
    run = write_base("ab", first)
    other = build_config(*files, seed=7, test_fraction=0.2)
    counts = count_slowly(first, other)
    assert counts["test"] > 20
    with pytest.raises(DataError) as refused:
        describe(run, other)
    said = str(refused.value)
    assert said.startswith(
        f"{run}, which training goes on from, was trained on {counts['test']} of 40 test texts, "
        f"{counts['validation']} of {len(load_splits(other.data).validation)} validation texts: scores on them would "
    )
    settings = dict(re.findall(r"--set data\.(\w+)=([\d.]+)", said))
    assert settings == {"seed": "42", "test_fraction": "0.1"}
    assert describe(run, build_config(*files, **settings)) == []


def test_some_test_texts_that_were_seen_are_told(write_base: WriteBase, tmp_path: Path) -> None:
    first = build_config(write_rows(tmp_path / "a.jsonl", range(100)))
    run = write_base("a", first)
    seen = [int(text.split()[1]) for text in load_splits(first.data).train.texts][:10]
    test = write_rows(tmp_path / "test.jsonl", range(500, 530))
    copies = [json.dumps({"text": f" film  {row}", "label": "neg"}) for row in seen]
    test.write_text("\n".join([test.read_text(encoding="utf-8"), *copies]), encoding="utf-8")
    config = build_config(write_rows(tmp_path / "b.jsonl", range(200, 300)), test=str(test))
    (note,) = describe(run, config)
    assert note == (
        f"{run}, which training goes on from, was trained on 10 of 40 test texts: scores on them are too good. "
        "Give test rows that it has not seen (--test FILE)."
    )
    assert describe(run, build_config(write_rows(tmp_path / "c.jsonl", range(300, 400)))) == []
    own = build_config(Path(first.data.source), test=str(test))
    assert describe(run, own) == [], "what is trained on now is told where the rows are read"


def test_runs_are_followed_to_the_first(write_base: WriteBase, tmp_path: Path) -> None:
    rows = [
        write_rows(tmp_path / f"{name}.jsonl", range(at, at + 50)) for name, at in (("a", 0), ("b", 50), ("c", 100))
    ]
    first = write_base("first", build_config(rows[0]))
    second = write_base("second", build_config(rows[1]), str(first), "2026-01-02")
    third = write_base("third", build_config(rows[2]), str(second), "2026-01-03")
    found = list(list_base_runs(str(third)))
    assert [base.root for base in found] == [third, second, first]
    trained = load_splits(build_config(rows[0]).data).train.texts
    assert found[-1].texts == {text.lower() for text in trained}
    assert list(list_base_runs(str(third / "adapter"))) == found
    assert list(list_base_runs("builtin:distil-minilm")) == []


def test_run_that_goes_on_from_itself_ends_the_list(write_base: WriteBase, tmp_path: Path) -> None:
    own = build_config(write_rows(tmp_path / "a.jsonl", range(50)))
    run = write_base("run", own, str(tmp_path / "run"))
    assert [base.fault for base in list_base_runs(str(run))][1:] == ["another run is there now"]


@pytest.mark.parametrize("damage", ["gone", "replaced", "data gone", "data changed", "record", "settings"])
def test_what_cannot_be_checked_is_told(write_base: WriteBase, tmp_path: Path, damage: str) -> None:
    rows = [write_rows(tmp_path / f"{name}.jsonl", range(at, at + 50)) for name, at in (("a", 0), ("b", 50))]
    first = write_base("first", build_config(rows[0]), created="2027" if damage == "replaced" else "2025")
    second = write_base("second", build_config(rows[1]), str(first))
    faults = {
        "gone": "it is no longer there",
        "replaced": "another run is there now",
        "data gone": f"its data ({rows[0]}) cannot be read any more",
        "data changed": f"its data ({rows[0]}) have changed",
        "record": "its record cannot be read",
        "settings": "its settings are missing or were altered",
    }
    if damage == "gone":
        shutil.rmtree(first)
    elif damage == "data gone":
        rows[0].unlink()
    elif damage == "data changed":
        write_rows(rows[0], range(1, 51))
    elif damage == "record":
        (first / "run.json").write_text("{}", encoding="utf-8")
    elif damage == "settings":
        (first / "config.yaml").write_text("data: {}", encoding="utf-8")
    notes = describe(second, build_config(write_rows(tmp_path / "c.jsonl", range(200, 250))))
    assert notes == [
        f"whether {first}, which training goes on from, was trained on any of the test or validation texts cannot be "
        f"checked: {faults[damage]}."
    ]


def test_going_on_from_a_trained_run_tells_it_in_the_notes(trained_of: Callable[[str], Path]) -> None:
    run = trained_of("single_label")
    config = load_config(run / "config.yaml")
    config.model.name = str(run)
    assert not any("goes on from" in note for note in load_material(config).splits.notes)
    base = config.model_copy(deep=True)
    config.data.seed, config.data.test_fraction = 5, 0.25
    counts = count_slowly(base, config)
    assert 0 < counts["test"] <= 30
    (note,) = (note for note in load_material(config).splits.notes if "goes on from" in note)
    assert f"was trained on {counts['test']} of 60 test texts" in note
    assert "--set data.seed=0 --set data.test_fraction=0.2), or give test rows" in note
