"""The parts of a report that say how good the model is."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape

import numpy as np
from numpy.typing import NDArray

from lorafit.cheap_baselines import CHEAP_BASELINES
from lorafit.evidence import (
    ConfidenceRecord,
    Estimate,
    ExplainedMistake,
    MetricsRecord,
    ModelScores,
    PairedComparison,
    SpanContribution,
)
from lorafit.metrics.scores import find_mistakes
from lorafit.reports.curves import Ranking, find_confusions
from lorafit.reports.drawing import Plot, render_inline
from lorafit.reports.html import render_details, render_table, write_number, write_percent, write_points
from lorafit.reports.reading import RunContents, Texts
from lorafit.reports.rows import (
    LONG_TEXT,
    SHORT_TEXT,
    ShownRow,
    choose_samples,
    render_answer,
    render_label,
    render_rows,
    render_verdict,
)
from lorafit.reports.verdict import describe_verdict, judge
from lorafit.system.text import clean_text

__all__ = [
    "fold_table",
    "render_classes",
    "render_comparison",
    "render_confidence",
    "render_mistakes",
    "render_opening",
    "render_plot",
    "render_samples",
]

_FEW_ROWS = 200
"""With fewer test rows, intervals are so wide that it is said."""

_MOST_OPEN_ROWS = 12
"""A table with more rows is shown when it is asked for."""

_MOST_SIZES, _MOST_NAMED = 8, 20
_MOST_WORDS = 5
_SHOWN = 0.05
"""Contribution below which a word is not listed: it would read 0.0."""

_WEAK = 0.15
"""Share of the strongest contribution below which a word is not marked."""


def render_opening(metrics: MetricsRecord) -> Iterator[str]:
    """Render the verdict, and how to read the numbers.

    Args:
        metrics: The evidence.

    Yields:
        HTML.
    """
    level = f"{100 * metrics.confidence_level:g} %"
    yield f'<p class="lead">{escape(describe_verdict(metrics))}</p>'
    note = f"In brackets: {level} bootstrap intervals over the {metrics.split} rows."
    if metrics.rows < _FEW_ROWS:
        note = f"These are only {metrics.rows:,} rows, so the intervals are wide. {note}"
    if metrics.finetuned.accuracy.low == metrics.finetuned.accuracy.high:
        note += " Where all rows of a class come out alike, an interval has no width; that is not certainty."
    yield f'<p class="quiet">{escape(note)}</p>'


def render_plot(plot: Plot) -> Iterator[str]:
    """Render a figure with its heading, its caption and its table.

    Args:
        plot: The figure.

    Yields:
        HTML.
    """
    yield f"<div><h3>{escape(clean_text(plot.title))}</h3>"
    yield f"<figure>{render_inline(plot)}<figcaption>{escape(clean_text(plot.caption))}</figcaption></figure>"
    yield from render_details("The figure as a table", render_table(plot.titles, plot.rows, label=plot.title))
    yield "</div>"


def render_comparison(metrics: MetricsRecord) -> Iterator[str]:
    """Render the scores before and after with the cheap baselines beside, and the paired comparisons.

    Args:
        metrics: The evidence.

    Yields:
        HTML.
    """
    models: dict[str, ModelScores] = {} if metrics.baseline is None else {"before": metrics.baseline}
    models["after"] = metrics.finetuned
    cheap = {CHEAP_BASELINES.get(name, name): one for name, one in metrics.cheap_baselines.items()}
    models |= {name: one.scores for name, one in cheap.items()}
    rows = [
        [
            name,
            write_percent(scores.accuracy),
            write_percent(scores.macro_f1),
            write_number(scores.log_loss),
            write_number(scores.mcc),
        ]
        for name, scores in models.items()
    ]
    titles: tuple[str, ...] = ("", "accuracy", "F1 (macro)", "log loss (nats)", "MCC")
    yield from render_table(titles, rows, label="Scores of each model")
    others = {} if metrics.comparison is None else {"before": metrics.comparison}
    others |= {name: one.comparison for name, one in cheap.items()}
    if not others:
        return
    yield "<h3>After training, compared row by row</h3>"
    titles = ("against", "after is", "accuracy (points)", "log loss", "put right", "made wrong", "p (McNemar)")
    compared = [_compare(name, paired, metrics.confidence_level) for name, paired in others.items()]
    yield from render_table(titles, compared, label="After training against the others")


def render_samples(contents: RunContents, texts: Texts) -> Iterator[str]:
    """Render some test rows, drawn at random, with what was said of them before and after.

    Args:
        contents: The run.
        texts: Of the test rows.

    Yields:
        HTML.
    """
    rows = choose_samples(len(contents.labels), seed=contents.config.evaluation.seed)
    yield "<p>Test rows drawn at random, with the label given and the model's confidence.</p>"
    yield from render_rows((_show_row(contents, row) for row in rows.tolist()), texts, most=SHORT_TEXT)


def render_mistakes(contents: RunContents, texts: Texts) -> Iterator[str]:
    """Render the rows that are wrong with the most confidence.

    Args:
        contents: The run.
        texts: Of the test rows.

    Yields:
        HTML.
    """
    rows = find_mistakes(contents.labels, contents.finetuned)
    if not len(rows):
        yield "<p>There are none: every test row is right.</p>"
        return
    yield "<p>The rows that are wrong after training with the highest confidence. Some may be mislabelled.</p>"
    if contents.mistakes and texts.texts is not None:
        yield (
            '<p class="quiet">Words <mark>underlined</mark> speak for the wrong label: without them its odds fall. '
            'Words <mark class="against">underlined with dashes</mark> speak against it. Numbers are log-odds.</p>'
        )
    shown = (_show_mistake(contents, texts, row) for row in rows.tolist())
    yield from render_rows(shown, texts, most=LONG_TEXT)


def render_classes(
    contents: RunContents, rankings: dict[str, list[Ranking | None]], *, with_confusions: bool
) -> Iterator[str]:
    """Render the scores of each class, and which classes are taken for which.

    Args:
        contents: The run.
        rankings: How well each class is ranked, by `before` and `after`.
        with_confusions: Whether to list the pairs that are confused most, where no matrix can show them.

    Yields:
        HTML.
    """
    names, metrics = contents.names, contents.metrics
    titles = ("class", "rows", "precision", "recall", "F1", *(["F1 before"] if metrics.baseline else []))
    rows = [
        [
            one.label,
            f"{one.support:,}",
            *(write_percent(value) for value in (one.precision, one.recall, one.f1)),
            *([write_percent(metrics.baseline.per_class[place].f1)] if metrics.baseline else []),
        ]
        for place, one in enumerate(metrics.finetuned.per_class)
    ]
    yield from fold_table("Scores of each class after training", titles, rows)
    if absent := [clean_text(one.label, most=60) for one in metrics.finetuned.per_class if not one.support]:
        listed = ", ".join(absent[:_MOST_NAMED]) + (" and others" if len(absent) > _MOST_NAMED else "")
        yield f"<p>No test row has the label {escape(listed)}: how well it is found is not known.</p>"
    if len(names) > 2:
        areas = [_describe_ranking(name, place, rankings) for place, name in enumerate(names)]
        heads = [f"{what}, {when}" for when in rankings for what in ("area under ROC", "average precision")]
        yield from fold_table("How well each class is ranked against the others", ("class", *heads), areas)
    if with_confusions:
        yield "<h3>Classes taken for each other most often</h3>"
        yield from render_table(
            ("true", "taken for", "rows", "of the class", *(["rows before"] if metrics.baseline else [])),
            _list_confusions(metrics, names),
            label="Most confused classes",
        )


def render_confidence(confidence: ConfidenceRecord | None) -> Iterator[str]:
    """Say how far confidence can be believed, and what abstaining and sets of labels give.

    Args:
        confidence: What was measured, or None.

    Yields:
        HTML.
    """
    if confidence is None:
        yield "<p>This run was not calibrated: its confidence is as the model gives it.</p>"
        return
    calibrated, raw, sizes = confidence.calibrated, confidence.raw, confidence.set_sizes
    sentences = [
        f"Calibrated confidence is off by {write_percent(calibrated.ece)} on average, and by {write_percent(raw.ece)} "
        f"as the model gives it; its temperature, {confidence.temperature:.3f}, comes from "
        f"{confidence.calibration_rows:,} validation rows that neither trained nor chose anything."
    ]
    chosen = confidence.abstention
    if chosen is not None and chosen.accuracy is None:
        sentences.append(
            f"An accuracy of {100 * chosen.target_accuracy:g} % was asked for: no text is answered with so much "
            "confidence that it could be promised, so the model abstains from all of them."
        )
    elif chosen is not None and chosen.accuracy is not None:
        sentences.append(
            f"An accuracy of {100 * chosen.target_accuracy:g} % was asked for: of the answers with a confidence of at "
            f"least {chosen.accept_threshold:.3f}, which {write_percent(chosen.accepted_share)} of the texts get, "
            f"{write_percent(chosen.accuracy)} are right. From the others the model abstains."
        )
    held = [f"{count:,} with {size}" for size, count in enumerate(sizes, start=1) if count]
    sentences.append(
        f"Sets of labels that are to hold the true one for {100 * confidence.coverage_asked:g} % of the texts hold it "
        f"for {write_percent(confidence.coverage)} (sets by their number of labels: {', '.join(held[:_MOST_SIZES])}"
        f"{' and so on' if len(held) > _MOST_SIZES else ''})."
    )
    yield from (f"<p>{escape(sentence)}</p>" for sentence in sentences)
    figures: dict[str, tuple[Estimate | float, Estimate | float]] = {
        "calibration error (ECE)": (raw.ece, calibrated.ece),
        "adaptive calibration error": (raw.adaptive_ece, calibrated.adaptive_ece),
        "Brier score": (raw.brier, calibrated.brier),
        "its part by wrong confidence": (raw.brier_reliability, calibrated.brier_reliability),
        "its part by telling rows apart": (raw.brier_resolution, calibrated.brier_resolution),
        "its part by the classes' shares": (raw.brier_uncertainty, calibrated.brier_uncertainty),
    }
    rows = [[name, _write(before), _write(after)] for name, (before, after) in figures.items()]
    yield from render_details(
        "All calibration figures", render_table(("", "as the model gives it", "calibrated"), rows, label="Calibration")
    )


def fold_table(label: str, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Render a table under its heading; one of many rows is shown when it is asked for.

    Args:
        label: What the table holds.
        titles: Of the columns.
        rows: Cells as plain text, the row's heading first.

    Yields:
        HTML.
    """
    table = render_table(titles, rows, label=label)
    if len(rows) > _MOST_OPEN_ROWS:
        yield from render_details(f"{label} ({len(rows):,})", table)
    else:
        yield f"<h3>{escape(label)}</h3>"
        yield from table


def _compare(name: str, paired: PairedComparison, level: float) -> list[str]:
    verdicts = {"better": "better", "worse": "worse", "unclear": "not shown to be better"}
    chance = paired.mcnemar_p_value
    return [
        name,
        verdicts[judge(paired, level)],
        write_points(paired.accuracy_difference),
        write_number(paired.log_loss_difference, sign=True),
        f"{paired.rows_gained:,}",
        f"{paired.rows_lost:,}",
        f"{chance:.2g}" if chance >= 1e-6 else "< 0.000001",
    ]


def _show_row(contents: RunContents, row: int) -> ShownRow:
    truth = contents.names[contents.labels[row]]
    return ShownRow(
        place=row,
        row_id=int(contents.row_ids[row]),
        truth=f"true label {render_label(truth)}",
        answers=[_answer(when, said[row], contents, truth) for when, said in contents.said.items()],
    )


def _show_mistake(contents: RunContents, texts: Texts, row: int) -> ShownRow:
    """Show a row with the words that its wrong label rests on, where these were found and the text is there."""
    shown = _show_row(contents, row)
    explained = contents.mistakes.get(shown.row_id)
    if explained is None or texts.texts is None:
        return shown
    return replace(shown, marks=_choose_marks(explained), note=_render_words(explained, texts.texts[row]))


def _choose_marks(explained: ExplainedMistake) -> list[tuple[int, int, str]]:
    """Choose the words that matter, those for the wrong label and those against it."""
    strongest = max((abs(word.contribution) for word in explained.words), default=0)
    return [
        (word.start, word.end, "for" if word.contribution > 0 else "against")
        for word in explained.words
        if word.contribution and abs(word.contribution) >= _WEAK * strongest
    ]


def _render_words(explained: ExplainedMistake, text: str) -> str:
    """Render the strongest words with their numbers: some may stand in a part that is not shown."""
    ranked = sorted(explained.words, key=lambda word: -word.contribution)
    sides = {
        "for": [word for word in ranked if word.contribution >= _SHOWN],
        "against": [word for word in reversed(ranked) if word.contribution <= -_SHOWN],
    }
    said = [
        f"{side} {render_label(explained.label)}: " + ", ".join(_write_word(word, text) for word in words[:_MOST_WORDS])
        for side, words in sides.items()
        if words
    ]
    if not said:
        return ""
    doubt = "; not shown to matter more than other words" if explained.beats_chance is False else ""
    return f'<p class="quiet" dir="auto">{"; ".join(said)}{doubt}</p>'


def _write_word(word: SpanContribution, text: str) -> str:
    return f"“{escape(clean_text(text[word.start : word.end], most=40))}” {word.contribution:+.1f}"


def _answer(when: str, probabilities: NDArray[np.float64], contents: RunContents, truth: str) -> str:
    best = int(probabilities.argmax())
    label = contents.names[best]
    is_right = label == truth
    verdict = render_verdict("right" if is_right else "wrong", is_good=is_right)
    return render_answer(when, f"{render_label(label)} {probabilities[best]:.1%} {verdict}")


def _describe_ranking(name: str, place: int, rankings: dict[str, list[Ranking | None]]) -> list[str]:
    cells = [name]
    for ranked in rankings.values():
        one = ranked[place]
        cells += ["", ""] if one is None else [f"{one.roc_area:.4f}", f"{one.average_precision:.4f}"]
    return cells


def _list_confusions(metrics: MetricsRecord, names: Sequence[str]) -> list[list[str]]:
    before = None if metrics.baseline is None else metrics.baseline.confusion_matrix
    return [
        [
            names[pair.true],
            names[pair.predicted],
            f"{pair.rows:,}",
            f"{pair.share:.1%}",
            *([] if before is None else [f"{before[pair.true][pair.predicted]:,}"]),
        ]
        for pair in find_confusions(metrics.finetuned.confusion_matrix)
    ]


def _write(value: Estimate | float) -> str:
    return write_number(value) if isinstance(value, Estimate) else f"{value:.3f}"
