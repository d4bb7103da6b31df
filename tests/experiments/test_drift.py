import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.cli.render.drift import show_drift
from lorafit.config import load_config
from lorafit.data.loading import load_splits
from lorafit.errors import DataDriftError, DataError, RunError, UserInputError
from lorafit.experiments.drift import DriftRecord, enforce_no_drift, measure_drift
from lorafit.runs.folder import TYPICALITY_FILE, RunLayout

EditRecord = Callable[..., None]


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(params=["single_label", "multi_label", "regression"])
def run(request: pytest.FixtureRequest, trained_of: Callable[[str], Path]) -> RunLayout:
    return RunLayout(trained_of(request.param))


@pytest.fixture
def copy(trained_of: Callable[[str], Path], tmp_path: Path) -> RunLayout:
    return RunLayout(shutil.copytree(trained_of("single_label"), tmp_path / "run"))


def read_test_texts(run: RunLayout) -> list[str]:
    return list(load_splits(load_config(run.config).data).test.texts)


def test_texts_of_the_same_kind_are_not_said_to_have_drifted(run: RunLayout, tmp_path: Path) -> None:
    record = measure_drift(run.root, write(tmp_path / "new.jsonl", read_test_texts(run)))
    assert record.test.p_value > 0.01
    assert not record.words
    enforce_no_drift(record)
    assert DriftRecord.model_validate_json(record.model_dump_json()) == record


def test_what_changed_is_named(run: RunLayout, tmp_path: Path) -> None:
    texts = [f"wonderful wonderful story, and a superb end {number % 7}" for number in range(1200)]
    record = measure_drift(run.root, write(tmp_path / "new.jsonl", texts), false_alarms=0.05)
    assert (record.texts, record.test.rows) == (1200, 1000)
    assert record.test.is_refuted
    assert record.test.p_value == 1 / 1000
    assert {"film", "wonderful", "story"} <= {one.name for one in record.words}
    film = next(one for one in record.words if one.name == "film")
    assert (film.before, film.after) == (1.0, 0.0)
    (words, *numbers) = record.numbers
    assert (words.before, words.after) == (4, 8)
    assert words.p_value < 1e-6
    assert len(record.labels) + len(numbers) > 0
    if record.coverage is not None:
        assert record.highest_coverage == pytest.approx(max(record.coverage - record.test.distance, 0))
    with pytest.raises(DataDriftError, match="of another kind than the calibration rows"):
        enforce_no_drift(record)


def test_rare_false_alarms_can_still_be_raised(copy: RunLayout, tmp_path: Path) -> None:
    file = write(tmp_path / "new.jsonl", [f"wonderful story, and a superb end {number}" for number in range(100)])
    found = measure_drift(copy.root, file, false_alarms=0.0004).test
    assert found.is_refuted
    assert found.p_value == 1 / 2501


def test_groups_are_compared_as_a_whole(
    tiny_distilbert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"text": f"{'good' if row % 2 else 'bad'} film {row}", "label": row % 2, "author": f"a{row // 20}"}
        for row in range(600)
    ]
    source = tmp_path / "reviews.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [f"data.source={source}", f"model.name={tiny_distilbert}", "model.max_length=64", "training.max_steps=1"]
    given += ["data.group_column=author", "evaluation.baselines=false", "evaluation.report=false"]
    given += ["data.accept_labels=true"]
    run = lorafit.train(load_config(overrides=given), output=tmp_path / "run")
    texts = [{"text": f"wonderful story, and an end {number}"} for number in range(60)]
    one_author = tmp_path / "one.jsonl"
    one_author.write_text("".join(json.dumps({**text, "author": "b"}) + "\n" for text in texts))
    grouped = measure_drift(run.path, one_author)
    assert (grouped.group_column, grouped.ungrouped, grouped.test.is_refuted) == ("author", False, False)
    alone = measure_drift(run.path, write(tmp_path / "new.jsonl", [text["text"] for text in texts]))
    assert (alone.group_column, alone.ungrouped) == ("author", True)
    show_drift(grouped)
    assert "were cut by groups" not in capsys.readouterr().out
    show_drift(alone)
    assert "were cut by groups of author, a column that the new texts lack" in capsys.readouterr().out
    assert run.metrics.exchangeability is not None


def test_the_same_seed_gives_the_same_record(copy: RunLayout, tmp_path: Path) -> None:
    file = write(tmp_path / "new.jsonl", read_test_texts(copy))
    assert measure_drift(copy.root, file, seed=3) == measure_drift(copy.root, file, seed=3)


def test_a_run_whose_data_have_changed_is_refused(copy: RunLayout, tmp_path: Path, edit_record: EditRecord) -> None:
    edit_record(copy.record, lambda record: record["data"]["splits"]["calibration"].update(fingerprint="0" * 64))
    with pytest.raises(RunError, match="its calibration rows are not known any more"):
        measure_drift(copy.root, write(tmp_path / "new.jsonl", ["a film"]))


def test_a_run_that_knows_no_typical_texts_is_refused(copy: RunLayout, tmp_path: Path, edit_record: EditRecord) -> None:
    copy.typicality.unlink()
    edit_record(copy.record, lambda record: record["files"].pop(TYPICALITY_FILE))
    with pytest.raises(RunError, match=r"does not know what typical texts are like.*Train it on more rows"):
        measure_drift(copy.root, write(tmp_path / "new.jsonl", ["a film"]))


def test_wrong_input_is_refused(copy: RunLayout, tmp_path: Path) -> None:
    file = write(tmp_path / "new.jsonl", ["a film", ""])
    with pytest.raises(UserInputError, match="an empty text"):
        measure_drift(copy.root, file)
    for share, said in ((2, "2"), (0.00005, "5e-05")):
        with pytest.raises(UserInputError, match=f"--false-alarms {said}: it is a share below 1 and at least 0.0001"):
            measure_drift(copy.root, file, false_alarms=share)
    with pytest.raises(DataError, match="no column"):
        measure_drift(copy.root, file, text_columns=("words",))


def test_rows_drawn_alike_are_shown_to_differ_as_rarely_as_is_said() -> None:
    from lorafit.inference.typicality import Typicality

    rng = np.random.default_rng(0)
    fitted = Typicality.fit(rng.standard_normal((60, 3)), np.zeros(60, dtype=np.int64), rng.standard_normal((30, 3)))
    found = [
        fitted.compare(rng.standard_normal((30, 3)), rng.standard_normal((25, 3)), false_alarms=0.1, seed=seed)
        for seed in range(100)
    ]
    assert sum(one.is_refuted for one in found) < 20
    assert sum(one.distance > 0 for one in found) < 20
    far = fitted.compare(rng.standard_normal((300, 3)), 9 + rng.standard_normal((300, 3)))
    assert far.is_refuted
    assert 0.7 < far.distance <= 1
