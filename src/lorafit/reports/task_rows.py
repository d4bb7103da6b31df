"""Test rows on the page where a text has several labels or a number: samples, and where the model was wrong."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lorafit.metrics.multi_label import decide, find_multi_label_mistakes
from lorafit.metrics.regression import find_largest_errors
from lorafit.reports.reading import Texts
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
from lorafit.reports.task_reading import TaskContents
from lorafit.task_figures import write_true_value, write_value

__all__ = ["render_task_mistakes", "render_task_samples"]

_MOST_LABELS: Final = 8
"""Of more labels of one row, it is said how many are not shown."""


def render_task_samples(contents: TaskContents, texts: Texts) -> Iterator[str]:
    """Render some test rows, drawn at random, with what was said of them before and after.

    Args:
        contents: The run.
        texts: Of the test rows.

    Yields:
        HTML.
    """
    rows = choose_samples(len(contents.labels), seed=contents.config.evaluation.seed)
    said = "labels given and their probabilities"
    if contents.record.task == "regression":
        said = "number given" if contents.half_width is None else "number given and, after training, its interval"
    yield f"<p>Test rows drawn at random, with the {said}.</p>"
    yield from render_rows(_show_rows(contents, rows), texts, most=SHORT_TEXT)


def render_task_mistakes(contents: TaskContents, texts: Texts) -> Iterator[str]:
    """Render the rows with the largest errors, or those with wrong labels of which the model was surest.

    Args:
        contents: The run.
        texts: Of the test rows.

    Yields:
        HTML.
    """
    if contents.record.task == "regression":
        rows = find_largest_errors(contents.labels, contents.finetuned[:, 0])
        found = "The rows whose number is farthest off after training. Some may have a wrong number in the data."
        none = "every number is exactly right"
    else:
        rows = find_multi_label_mistakes(contents.labels, contents.finetuned)
        found = (
            "The rows with a label wrongly given or left out after training, by how sure the model was of that. Some "
            "may be mislabelled."
        )
        none = "every test row gets exactly its labels"
    if not len(rows):
        yield f"<p>There are none: {none}.</p>"
        return
    yield f"<p>{found}</p>"
    yield from render_rows(_show_rows(contents, rows), texts, most=LONG_TEXT)


def _show_rows(contents: TaskContents, rows: NDArray[np.int64]) -> Iterator[ShownRow]:
    show = _show_number if contents.record.task == "regression" else _show_labels
    return (show(contents, row) for row in rows.tolist())


def _show_labels(contents: TaskContents, row: int) -> ShownRow:
    has = contents.labels[row] == 1
    names = [render_label(contents.names[place]) for place in np.flatnonzero(has)]
    truth = f"true label{'' if len(names) == 1 else 's'} {_join(names)}" if names else "no true label"
    answers = [render_answer(when, _say_labels(said[row], has, contents.names)) for when, said in contents.said.items()]
    return ShownRow(place=row, row_id=int(contents.row_ids[row]), truth=truth, answers=answers)


def _say_labels(probabilities: NDArray[np.float64], has: NDArray[np.bool_], names: Sequence[str]) -> str:
    """Say which labels were given, which of them are not true, and which are missing; each time the surest first."""
    given, surest = decide(probabilities), np.argsort(-np.maximum(probabilities, 1 - probabilities), kind="stable")
    labels = [render_label(name) for name in names]
    shares = [f"{label} {share:.1%}" for label, share in zip(labels, probabilities, strict=True)]
    shown = [shares[place] for place in surest if given[place]]
    faults = {
        "not true": [labels[place] for place in surest if given[place] and not has[place]],
        "missing": [shares[place] for place in surest if has[place] and not given[place]],
    }
    listed = "; ".join(f"{fault}: {_join(found)}" for fault, found in faults.items() if found)
    verdict = render_verdict("wrong" if listed else "right", is_good=not listed)
    return f"{_join(shown) or 'no label'} {verdict}" + (f" ({listed})" if listed else "")


def _join(parts: Sequence[str]) -> str:
    left = len(parts) - _MOST_LABELS
    return ", ".join(parts[:_MOST_LABELS]) + (f" and {left:,} more" if left > 0 else "")


def _show_number(contents: TaskContents, row: int) -> ShownRow:
    true = float(contents.labels[row])
    widths = {"after": contents.half_width}  # the baseline was not calibrated
    return ShownRow(
        place=row,
        row_id=int(contents.row_ids[row]),
        truth=f"true number <b>{write_true_value(true)}</b>",
        answers=[
            render_answer(when, _say_number(float(said[row, 0]), true, widths.get(when)))
            for when, said in contents.said.items()
        ],
    )


def _say_number(value: float, true: float, half_width: float | None) -> str:
    """Say which number was given, how far off it is, and whether its interval holds the true one."""
    error = value - true
    off = f"{write_value(abs(error))} too {'high' if error > 0 else 'low'}" if error else "exactly right"
    if half_width is None:
        return f"<b>{write_value(value)}</b>, {off}"
    holds = abs(error) <= half_width
    verdict = render_verdict(f"the interval {'holds' if holds else 'misses'} the true number", is_good=holds)
    interval = f"[{write_value(value - half_width)}, {write_value(value + half_width)}]"
    return f"<b>{write_value(value)}</b> {interval}, {off} {verdict}"
