from collections.abc import Callable

import numpy as np
import pytest

from lorafit.data.quality.findings import MOST_ROWS
from lorafit.data.quality.quick import quick_findings
from lorafit.data.quality.rows import Rows, draw_samples, gather_rows
from lorafit.data.quality.texts import find_languages, find_short_texts
from lorafit.data.rows import RawRows, RawSplits, Split, Splits
from lorafit.errors import DataError
from lorafit.tasks.labels import LabelReading
from lorafit.tasks.registry import build_task, get_task

MakeRows = Callable[..., Rows]

ENGLISH = "The waiter was friendly and the soup was hot, so we will certainly come back next week."
GERMAN = "Der Kellner war freundlich und die Suppe heiß, also kommen wir nächste Woche sicher wieder."


def gather(raw: RawSplits, task: str = "single_label") -> object:
    return gather_rows(raw, get_task(task), LabelReading())


def test_what_training_would_refuse_is_reported() -> None:
    raw = RawRows("a.csv", ["a", "", None, "b", 3], ["x", "y", "x", None, "y"], faults={0: "4 fields instead of 2"})
    rows, findings = gather_rows(
        RawSplits(RawRows("a.csv", [*raw.texts, "c", "d"], [*raw.labels, "x", "y"], faults=raw.faults)),
        get_task("single_label"),
        LabelReading(),
    )
    assert list(rows.texts) == ["c", "d"]
    assert rows.ids.tolist() == [6, 7]
    (finding,) = findings
    assert (finding.name, finding.severity, finding.count) == ("unusable-rows", "error", 5)
    assert [row.row for row in finding.rows] == [1, 2, 3, 4, 5]
    for kind in ("4 fields instead of 2 (1)", "an empty text (1)", "no text (1)", "an empty label (1)"):
        assert kind in finding.message


def test_labels_of_one_kind_are_an_error_and_the_texts_are_still_checked(make_rows: MakeRows) -> None:
    rows, findings = gather_rows(
        RawSplits(RawRows("a.csv", ["a", "b"], ["x", "x"])), get_task("single_label"), LabelReading()
    )
    assert rows.task is None
    assert rows.y is None
    assert [finding.name for finding in findings if finding.severity == "error"] == ["labels"]


def test_source_without_a_usable_row_is_refused() -> None:
    with pytest.raises(DataError, match=r"a\.csv: none of its 2 rows can be used.*--text-column"):
        gather(RawSplits(RawRows("a.csv", ["", None], ["x", "y"])))


def test_constant_columns_are_told() -> None:
    raw = RawRows("a.csv", ["a", "b"], ["x", "y"], columns={"site": ["s", "s"], "author": ["p", "q"]})
    _, findings = gather_rows(RawSplits(raw), get_task("single_label"), LabelReading())
    assert [(one.name, one.count, one.share) for one in findings] == [("constant-columns", 1, 0.5)]


def test_sample_is_repeatable_and_told(make_rows: MakeRows) -> None:
    rows = make_rows(([f"text {number}" for number in range(50)], list("xy") * 25))
    (sample,) = draw_samples(rows, 3, most=10)
    assert (sample.scope.rows, sample.scope.of, sample.scope.seed) == (10, 50, 3)
    assert np.array_equal(sample.positions, draw_samples(rows, 3, most=10)[0].positions)
    assert len(set(sample.positions.tolist())) == 10
    assert draw_samples(rows, 3, most=None)[0].scope.seed is None


def test_rows_of_a_finding_are_limited_and_its_count_is_not(make_rows: MakeRows) -> None:
    count = MOST_ROWS + 5
    rows = make_rows((["ok"] * count, list("xy" * count)[:count]))
    (finding,) = find_short_texts(rows)
    assert (finding.count, len(finding.rows), finding.severity) == (count, MOST_ROWS, "warning")


def test_languages_are_told_where_they_are_mixed(make_rows: MakeRows) -> None:
    texts = [ENGLISH.replace("soup", f"soup {number}") for number in range(30)]
    rows = make_rows((texts, list("xy") * 15))
    assert list(find_languages(rows, draw_samples(rows, 0))) == []
    mixed = [*texts, *(GERMAN.replace("Suppe", f"Suppe {number}") for number in range(10))]
    rows = make_rows((mixed, list("xy") * 20), test=([GERMAN, GERMAN + "!"], ["x", "y"]))
    train, test = find_languages(rows, draw_samples(rows, 0))
    assert "en 75 %, de 25 %" in train.message
    assert (train.severity, test.severity) == ("note", "warning")
    assert "Those of train are mostly in 'en'." in test.message


def test_short_form_says_what_every_training_should_hear() -> None:
    texts = tuple(f"text {number % 60}" for number in range(120))
    train = Split(np.arange(1, 121), texts, np.repeat([0, 1], 60))
    few = Split(np.arange(1, 3), ("a<br>b", "c"), np.array([0, 1]))
    splits = Splits("a.csv", build_task("single_label", ["x", "y"]), train, few, few)
    (conflicts,) = quick_findings(splits)
    assert conflicts.startswith("60 texts have contradictory labels")
    dirty = Split(np.arange(1, 5), ("a<br>b", "cafÃ©", "e", "f"), np.array([0, 1, 0, 1]))
    html, encoding = quick_findings(Splits("a.csv", splits.task, dirty, few, few))
    assert "tags or entities of HTML" in html
    assert "wrong encoding" in encoding
