"""How good the model of a run is, as tables: metrics, comparisons, labels, calibration."""

from lorafit.reports.contents import Measured, RunContents
from lorafit.reports.curves import find_confusions
from lorafit.reports.html import Table
from lorafit.system.text import clean_text
from lorafit.tasks.evaluation import find_weak_slices, judge
from lorafit.tasks.format import write_estimate
from lorafit.tasks.records import Estimate

_VERDICTS = {"better": "better", "worse": "worse", "inconclusive": "not shown to be better"}
_MOST_NAMED = 20
_LONGEST_NAME = 60


def list_scores(measured: Measured) -> Table:
    """List the metrics of every model."""
    metrics = measured.task.metrics
    rows = [
        [model, *(metric.write(scores.metrics[name]) for name, metric in metrics.items())]
        for model, scores in measured.scores.items()
    ]
    return Table("Metrics of each model", ("", *(metric.title for metric in metrics.values())), rows)


def list_comparisons(measured: Measured) -> Table | None:
    """List the fine-tuned model against every other on the same rows; None where there is no other."""
    task, level = measured.task, measured.metrics.confidence_level
    rows = [
        [
            model,
            _VERDICTS[judge(task, comparison, level)],
            *(metric.write_difference(comparison.differences[name]) for name, metric in task.metrics.items()),
        ]
        for model, comparison in measured.comparisons.items()
    ]
    titles = ("against", "after is", *(metric.difference_title for metric in task.metrics.values()))
    return Table("After training, compared row by row", titles, rows) if rows else None


def list_labels(contents: RunContents) -> Table | None:
    """List the scores of each label; None where rows have no labels that could be told apart."""
    before = contents.metrics.before
    earlier = {} if before is None else {one.label: one.f1 for one in before.per_class}
    rows = [
        [
            one.label,
            f"{one.support:,}",
            *(write_estimate("percent", value) for value in (one.precision, one.recall, one.f1)),
            *([write_estimate("percent", earlier[one.label])] if earlier else []),
        ]
        for one in contents.metrics.after.per_class
    ]
    titles = ("label", "rows", "precision", "recall", "F1", *(["F1 before"] if earlier else []))
    return Table("Scores of each label after training", titles, rows) if rows else None


def name_absent_labels(contents: RunContents) -> str:
    """Name the labels that no test row has; nothing where there are none."""
    absent = [clean_text(one.label, most=_LONGEST_NAME) for one in contents.metrics.after.per_class if not one.support]
    return ", ".join(absent[:_MOST_NAMED]) + (" and others" if len(absent) > _MOST_NAMED else "")


def list_confusions(contents: RunContents) -> Table | None:
    """List the labels taken for each other most often; None where there are none or a row has no one label."""
    names, before = contents.task.label_names, contents.metrics.before
    rows = [
        [
            names[pair.true],
            names[pair.predicted],
            f"{pair.rows:,}",
            f"{pair.share:.1%}",
            *([] if before is None else [f"{before.confusion_matrix[pair.true][pair.predicted]:,}"]),
        ]
        for pair in find_confusions(contents.metrics.after.confusion_matrix)
    ]
    titles = ("true", "taken for", "rows", "of the label", *([] if before is None else ["rows before"]))
    return Table("Labels taken for each other most often", titles, rows) if rows else None


def list_calibration(contents: RunContents) -> Table | None:
    """List the calibration metrics, beside those of uncalibrated values and what was asked for; None without any."""
    scores = contents.metrics.calibration
    if scores is None:
        return None
    metrics = {name: metric for name, metric in contents.task.calibration_metrics.items() if name in scores.metrics}
    columns = {
        "uncalibrated": {
            name: metric.write(scores.raw[name]) for name, metric in metrics.items() if name in scores.raw
        },
        "calibrated": {name: metric.write(scores.metrics[name]) for name, metric in metrics.items()},
        "asked for": {
            name: metric.write_value(scores.asked[name]) + _compare(scores.metrics[name], scores.asked[name])
            for name, metric in metrics.items()
            if name in scores.asked
        },
    }
    shown = {title: column for title, column in columns.items() if column}
    rows = [[metric.title, *(column.get(name, "") for column in shown.values())] for name, metric in metrics.items()]
    return Table("Calibration metrics", ("", *shown), rows)


def list_weak_slices(contents: RunContents) -> list[str]:
    """Describe the slices shown to be worse than all rows together, the weakest first."""
    metric, name = contents.task.primary_metric, contents.task.primary
    weak = find_weak_slices(contents.task, contents.metrics.slices, contents.metrics.confidence_level)
    return [
        f"{one.column} {one.value} ({metric.title} {metric.write_value(one.metrics[name].value)} on {one.rows:,} rows)"
        for one in weak
    ]


def _compare(found: Estimate, asked: float) -> str:
    """Say whether something is shown to be less or more than was asked for."""
    return ", not reached" if found.high < asked else ", exceeded" if found.low > asked else ""
