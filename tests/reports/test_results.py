from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorafit.evidence import ExplainedMistake, MistakesRecord, SpanContribution
from lorafit.reports.curves import rank_classes
from lorafit.reports.html import render_marked
from lorafit.reports.reading import RunContents, Texts, read_run, read_texts
from lorafit.reports.results import (
    render_classes,
    render_comparison,
    render_confidence,
    render_mistakes,
    render_opening,
    render_samples,
)
from lorafit.runs.folder import RunLayout

BuildRun = Callable[..., Path]
TakeApart = Callable[[str], Any]


def rank(contents: RunContents) -> dict[str, Any]:
    return {"after": rank_classes(contents.labels, contents.finetuned)}


def test_few_rows_are_said_to_be_few(build_run: BuildRun) -> None:
    few = read_run(build_run(rows=10)).metrics
    assert "These are only 10 rows, so the intervals are wide. In brackets: 95 % bootstrap" in "".join(
        render_opening(few)
    )
    many = few.model_copy(update={"rows": 1000})
    assert "only" not in "".join(render_opening(many))


def test_an_interval_without_width_is_not_called_certain(build_run: BuildRun) -> None:
    perfect = read_run(build_run(predict=lambda labels, _: 9.0 * np.eye(2)[labels])).metrics
    assert "that is not certainty" in "".join(render_opening(perfect))
    other = perfect.model_copy(update={"finetuned": perfect.baseline})
    assert "that is not certainty" not in "".join(render_opening(other))


def test_confidence_that_was_not_calibrated_is_said_not_to_be() -> None:
    assert "was not calibrated" in "".join(render_confidence(None))


def test_every_model_and_every_comparison_has_a_row(build_run: BuildRun, take_apart: TakeApart) -> None:
    metrics = read_run(build_run()).metrics
    page = "".join(render_comparison(metrics))
    heads = [part.partition("</th>")[0] for part in page.split('<th scope="row">')[1:]]
    cheap = ["NB-SVM", "TF-IDF and logistic regression"]
    assert heads == ["before", "after", *cheap, "before", *cheap]
    assert f"{100 * metrics.finetuned.accuracy.value:.1f} % [" in page
    assert metrics.comparison is not None
    assert f"<td>{metrics.comparison.rows_gained}</td><td>{metrics.comparison.rows_lost}</td>" in page
    take_apart(page)


def test_without_other_models_there_is_no_comparison(build_run: BuildRun) -> None:
    page = "".join(render_comparison(read_run(build_run(baseline=False, cheap=False)).metrics))
    assert "<h3>" not in page
    assert page.count("<tr>") == 2


def test_samples_are_those_that_the_end_of_a_training_shows(build_run: BuildRun) -> None:
    contents = read_run(build_run(rows=60))
    page = "".join(render_samples(contents, read_texts(contents)))
    drawn = sorted(np.random.default_rng(0).choice(60, size=6, replace=False))
    assert [f"film {row}</p>" in page for row in drawn] == [True] * 6
    assert page.count("<li>") == 6
    assert page.count("before: ") == page.count("after: ") == 6


def test_texts_are_cut_and_escaped(build_run: BuildRun, take_apart: TakeApart) -> None:
    contents = read_run(build_run(rows=4))
    page = "".join(render_samples(contents, Texts(("<b>bold</b>", "x" * 1000, "\x00", "&amp;"))))
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert f">{'x' * 299}…<" in page
    assert "&amp;amp;" in page
    assert "\x00" not in page
    assert len(take_apart(page).named("li")) == 4


def test_without_texts_rows_are_named_by_their_number(build_run: BuildRun) -> None:
    contents = read_run(build_run(rows=4))
    page = "".join(render_samples(contents, Texts(None, "Because.")))
    assert "Because." in page
    assert "Row 4, true label <b>pos</b>" in page
    assert "film" not in page


def test_mistakes_come_by_confidence_and_with_what_was_said(build_run: BuildRun) -> None:
    logits = np.array([[0, 5], [0, 3], [1, 0], [0, 1]])  # rows 1 and 3 are wrong: pos for neg, and neg for ... neg
    contents = read_run(build_run(rows=4, predict=lambda *_: logits.astype(float), calibrated=False))
    page = "".join(render_mistakes(contents, read_texts(contents)))
    assert page.count("<li>") == 1
    assert "Row 1, true label <b>neg</b>" in page
    assert 'after: <b>pos</b> 99.3% <span class="wrong">✗ wrong</span>' in page


def test_a_model_without_mistakes_has_none_to_show(build_run: BuildRun) -> None:
    contents = read_run(build_run(predict=lambda labels, _: 9.0 * np.eye(2)[labels]))
    assert "every test row is right" in "".join(render_mistakes(contents, Texts(None, "")))


def test_classes_of_a_binary_task_have_scores_and_no_areas(build_run: BuildRun) -> None:
    contents = read_run(build_run())
    page = "".join(render_classes(contents, rank(contents), with_confusions=False))
    assert page.count("<table>") == 1
    assert "F1 before" in page


def test_many_classes_are_shown_when_asked_for_and_the_most_confused_at_once(build_run: BuildRun) -> None:
    names = [f"class {number}" for number in range(30)]
    contents = read_run(build_run(names=names, rows=90))
    page = "".join(render_classes(contents, rank(contents), with_confusions=True))
    assert page.count("<details>") == 2
    assert "Scores of each class after training (30)" in page
    confused = page.partition("Classes taken for each other most often")[2]
    assert 10 <= confused.count("<tr>") <= 21


def test_a_class_without_test_rows_is_named(build_run: BuildRun) -> None:
    contents = read_run(build_run(names=["a", "b", "<c>"], rows=2))
    page = "".join(render_classes(contents, rank(contents), with_confusions=False))
    assert "No test row has the label &lt;c&gt;: how well it is found is not known." in page


def test_confidence_is_told_in_sentences(build_run: BuildRun) -> None:
    confidence = read_run(build_run(rows=400)).metrics.confidence
    assert confidence is not None
    page = "".join(render_confidence(confidence))
    assert "An accuracy of 90 % was asked for: of the answers with a confidence of at least 0." in page
    assert "Sets of labels that are to hold the true one for 95 % of the texts hold it for " in page
    assert " with 1" in page
    nobody = confidence.abstention.model_copy(update={"accuracy": None})  # type: ignore[union-attr]
    assert "abstains from all" in "".join(render_confidence(confidence.model_copy(update={"abstention": nobody})))
    page = "".join(render_confidence(confidence.model_copy(update={"abstention": None, "set_sizes": [5] * 30})))
    assert "asked for" not in page
    assert "5 with 8 and so on)" in page


@pytest.mark.parametrize("wishes", [{}, {"names": ["a", "b", "c"]}])
def test_parts_are_well_formed(build_run: BuildRun, take_apart: TakeApart, wishes: dict[str, object]) -> None:
    contents = read_run(build_run(**wishes))
    assert contents.metrics.confidence is not None
    parts = [
        *render_opening(contents.metrics),
        *render_classes(contents, rank(contents), with_confusions=True),
        *render_confidence(contents.metrics.confidence),
        *render_mistakes(contents, read_texts(contents)),
    ]
    assert take_apart("".join(parts)).open == []


def test_words_of_a_mistake_are_marked_and_named(build_run: BuildRun, take_apart: TakeApart) -> None:
    run = build_run(
        rows=4, predict=lambda labels, _: 9.0 * np.eye(2)[1 - labels], texts="dull <b> superb end {0}".format
    )
    words = [
        SpanContribution(start=0, end=4, contribution=2.0),
        SpanContribution(start=5, end=8, contribution=-1.5),
        SpanContribution(start=9, end=15, contribution=0.1),
    ]
    mistake = ExplainedMistake(row_id=int(read_run(run).row_ids[0]), label="pos", words=words, beats_chance=False)
    MistakesRecord(mistakes=[mistake]).write(RunLayout(run).mistakes)
    contents = read_run(run)
    page = "".join(render_mistakes(contents, read_texts(contents)))
    assert '<mark class="for">dull</mark> <mark class="against">&lt;b&gt;</mark> superb end 0' in page
    assert page.count('<mark class="for">') == 1
    assert (
        "for <b>pos</b>: “dull” +2.0, “superb” +0.1; against <b>pos</b>: “&lt;b&gt;” -1.5; not shown to matter" in page
    )
    take_apart(page)
    assert "dull" not in "".join(render_mistakes(contents, Texts(None, "left out")))


@pytest.mark.parametrize(
    ("text", "mark", "most", "shown"),
    [
        ("x" * 20 + "  word  " + "y" * 400, (22, 26), 30, f"{'x' * 20} [word] yyy…"),
        ("x" * 20 + "  word  " + "y" * 400, (22, 26), 22, f"{'x' * 20} […]"),
        ("aaa bbb ccc", (8, 11), 5, "aaa…"),
        ("aaaa bbb", (5, 8), 5, "aaaa […]"),
        ("aaaa bbb", (5, 8), 8, "aaaa [bbb]"),
        ("a\x00b", (2, 3), 9, "a\N{REPLACEMENT CHARACTER}[b]"),
        (" short ", (1, 6), 30, "[short]"),
    ],
)
def test_a_marked_text_is_cut_where_any_other_is(text: str, mark: tuple[int, int], most: int, shown: str) -> None:
    html = render_marked(text, [(*mark, "for")], most=most)
    assert html.replace('<mark class="for">', "[").replace("</mark>", "]") == shown
