"""The parts of a report that say how good a model with several labels a text, or with a number, is."""

from collections.abc import Iterator, Sequence
from html import escape

from lorafit.cheap_baselines import cheap_baselines_for
from lorafit.reports.html import render_details, render_facts, render_table, write_percent
from lorafit.reports.results import fold_table
from lorafit.reports.verdict import describe_task_verdict
from lorafit.system.text import clean_text
from lorafit.task_evidence import TaskComparison, TaskConfidence, TaskMetricsRecord, TaskScores
from lorafit.task_figures import (
    FIGURES,
    LEADING,
    describe_chance,
    judge_task,
    name_difference,
    name_figure,
    write_difference,
    write_figure,
    write_value,
)

__all__ = ["render_labels", "render_task_comparison", "render_task_confidence", "render_task_opening"]

_FEW_ROWS = 200
"""With fewer test rows, intervals are so wide that it is said."""

_MOST_NAMED = 20
_VERDICTS = {"better": "better", "worse": "worse", "unclear": "not shown to be better"}


def render_task_opening(metrics: TaskMetricsRecord) -> Iterator[str]:
    """Render the verdict, and how to read the numbers.

    Args:
        metrics: The evidence.

    Yields:
        HTML.
    """
    yield f'<p class="lead">{escape(clean_text(describe_task_verdict(metrics)))}</p>'
    note = f"In brackets: {100 * metrics.confidence_level:g} % bootstrap intervals over the {metrics.split} rows."
    if metrics.rows < _FEW_ROWS:
        few = "This is only 1 row" if metrics.rows == 1 else f"These are only {metrics.rows:,} rows"
        note = f"{few}, so the intervals are wide. {note}"
    leading = metrics.finetuned.figures[LEADING[metrics.task]]
    if leading.low == leading.high:
        note += " Where all rows come out alike, an interval has no width; that is not certainty."
    yield f'<p class="quiet">{escape(clean_text(note))}</p>'


def render_task_comparison(metrics: TaskMetricsRecord) -> Iterator[str]:
    """Render the figures before and after with the cheap baselines beside, and the paired comparisons.

    Args:
        metrics: The evidence.

    Yields:
        HTML.
    """
    names = cheap_baselines_for(metrics.task)
    cheap = {names.get(name, name): one for name, one in metrics.cheap_baselines.items()}
    models: dict[str, TaskScores] = {} if metrics.baseline is None else {"before": metrics.baseline}
    models |= {"after": metrics.finetuned, **{name: one.scores for name, one in cheap.items()}}
    figures = list(metrics.finetuned.figures)
    rows = [
        [model, *(write_figure(name, scores.figures[name]) if name in scores.figures else "" for name in figures)]
        for model, scores in models.items()
    ]
    yield from render_table(("", *map(name_figure, figures)), rows, label="Figures of each model")
    meanings = [(FIGURES[name].title, FIGURES[name].meaning) for name in figures if name in FIGURES]
    yield from render_details("What the figures say", render_facts(meanings))
    others = {} if metrics.comparison is None else {"before": metrics.comparison}
    others |= {name: one.comparison for name, one in cheap.items()}
    if not others:
        return
    yield "<h3>After training, compared row by row</h3>"
    yield from render_table(
        ("against", "after is", *map(name_difference, figures), *_title_counts(metrics)),
        [_compare(name, paired, figures, metrics) for name, paired in others.items()],
        label="After training against the others",
    )


def render_labels(metrics: TaskMetricsRecord) -> Iterator[str]:
    """Render the scores of each label.

    Args:
        metrics: The evidence of a model with several labels a text.

    Yields:
        HTML.
    """
    scores, before = metrics.finetuned.per_class, metrics.baseline
    earlier = {} if before is None else {one.label: one.f1 for one in before.per_class}
    titles = ("label", "rows", "precision", "recall", "F1", *(["F1 before"] if earlier else []))
    rows = [
        [
            one.label,
            f"{one.support:,}",
            *(write_percent(value) for value in (one.precision, one.recall, one.f1)),
            *([write_percent(earlier[one.label]) if one.label in earlier else ""] if earlier else []),
        ]
        for one in scores
    ]
    yield from fold_table("Scores of each label after training", titles, rows)
    if absent := [clean_text(one.label, most=60) for one in scores if not one.support]:
        listed = ", ".join(absent[:_MOST_NAMED]) + (" and others" if len(absent) > _MOST_NAMED else "")
        yield f"<p>No test row has the label {escape(listed)}: how well it is found is not known.</p>"


def render_task_confidence(metrics: TaskMetricsRecord) -> Iterator[str]:
    """Say how far probabilities, or the intervals around numbers, can be believed.

    Args:
        metrics: The evidence.

    Yields:
        HTML.
    """
    confidence = metrics.confidence
    if confidence is None:
        missing = (
            "it gives numbers without intervals around them"
            if metrics.task == "regression"
            else "its probabilities are as the model gives them"
        )
        yield f"<p>This run was not calibrated: {missing}.</p>"
        return
    describe = _describe_intervals if metrics.task == "regression" else _describe_probabilities
    yield from (f"<p>{escape(sentence)}</p>" for sentence in describe(confidence))
    yield (
        f'<p class="quiet">The calibration comes from {confidence.calibration_rows:,} '
        "validation rows that neither trained nor chose anything.</p>"
    )


def _describe_probabilities(confidence: TaskConfidence) -> Iterator[str]:
    raw, calibrated = confidence.figures.get("ece_raw"), confidence.figures.get("ece")
    if calibrated is not None:
        before = "" if raw is None else f", and by {write_percent(raw)} as the model gives them"
        yield (
            f"Calibrated probabilities are off by {write_percent(calibrated)} on average{before}: the expected "
            "calibration error over all decisions, of which there is one for each text and label."
        )


def _describe_intervals(confidence: TaskConfidence) -> Iterator[str]:
    held, width = confidence.figures.get("coverage"), confidence.figures.get("half_width")
    asked = confidence.coverage_asked
    if held is None or asked is None:
        return
    found = "which agrees with what was asked for"
    if not held.low <= asked <= held.high:
        found = f"{'fewer' if held.high < asked else 'more'} than was asked for"
    yield (
        f"Intervals that are to hold the true number for {100 * asked:g} % of the texts hold it for "
        f"{write_percent(held)}, {found}."
    )
    if width is not None:
        yield f"They reach {write_value(width.value)} to each side of the number given."


def _title_counts(metrics: TaskMetricsRecord) -> tuple[str, str, str]:
    if metrics.task == "regression":
        return "rows nearer", "rows farther", "p (sign test)"
    return "fewer wrong labels", "more", "p (sign test)"


def _compare(name: str, paired: TaskComparison, figures: Sequence[str], metrics: TaskMetricsRecord) -> list[str]:
    differences = paired.differences
    return [
        name,
        _VERDICTS[judge_task(paired, metrics.task, metrics.confidence_level)],
        *(write_difference(key, differences[key]) if key in differences else "" for key in figures),
        f"{paired.rows_gained:,}",
        f"{paired.rows_lost:,}",
        describe_chance(paired.p_value).removeprefix("p ").removeprefix("= "),
    ]
