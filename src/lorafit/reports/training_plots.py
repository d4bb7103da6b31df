"""Figures of how training went, from `history.jsonl`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from lorafit.labels import Task
from lorafit.reports.curves import thin
from lorafit.reports.drawing import AFTER, BEFORE, INK, THIRD, Plot, add_legend, new_figure, show_percent
from lorafit.runs.records import TrainingRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_learning", "plot_loss"]

_MOST_POINTS = 400
_MOST_TABLE_ROWS = 60

_LOSSES = {"training": "loss", "validation": "eval_loss", "validation (calibrated)": "eval_calibrated_loss"}
"""Their names in the history, by those for people."""

_SCORES = {"eval_accuracy": "accuracy", "eval_micro_f1": "F1 (micro)", "eval_mae": "MAE"}
"""What tells most about the validation rows, by its name in the history; each task has one of them."""

Series = tuple[list[float], list[float]]
"""Steps, and a figure at each."""


def plot_loss(
    history: Sequence[dict[str, float]], training: TrainingRecord | None, task: Task = "single_label"
) -> Plot | None:
    """Draw the loss of the training rows and of the validation rows over the steps.

    Args:
        history: What was logged, in order.
        training: Which checkpoint was kept; None if that is not recorded.
        task: What a text gets.

    Returns:
        The plot; None where no loss was logged.
    """
    losses = {name: series for name, key in _LOSSES.items() if (series := _pick(history, key))[0]}
    if losses.get("validation (calibrated)") == losses.get("validation"):
        losses.pop("validation (calibrated)", None)
    if not losses:
        return None
    figure, (axes,) = new_figure(3.0)
    chooses = list(losses)[-1]
    for name, series in losses.items():
        style = "-" if name in {"training", chooses} else "--"
        colour, marker = (BEFORE, "") if name == "training" else (AFTER, "o")
        _draw_line(axes, series, colour=colour, label=name, marker=marker, style=style)
    words = [_span(f"{name} loss", series) for name, series in losses.items()]
    if training is not None:
        axes.axvline(training.best_step, color=INK, linewidth=1, linestyle=":", label="kept")
        words.append(
            f"the checkpoint of step {training.best_step:,} was kept, with a validation loss of "
            f"{training.best_validation_loss:.4f}"
        )
    axes.set(xlabel="step", ylabel="loss (squared error)" if task == "regression" else "loss (nats)")
    add_legend(axes)
    return Plot(
        name="loss",
        title="Loss",
        caption="Where the training loss falls and the validation loss rises, the model learns its rows by heart. "
        "What was kept is the checkpoint with the lowest validation loss, after calibration where that is shown."
        + (" Numbers are standardised for it." if task == "regression" else ""),
        label=f"Loss over the steps: {'; '.join(words)}.",
        figure=figure,
        titles=("step", *losses),
        rows=_tabulate(*(("{:.4f}", series) for series in losses.values())),
    )


def plot_learning(history: Sequence[dict[str, float]]) -> Plot | None:
    """Draw how well the validation rows come out, and below it the learning rate, over the steps.

    Args:
        history: What was logged, in order.

    Returns:
        The plot; None where neither was logged.
    """
    key = next((key for key in _SCORES if _pick(history, key)[0]), "eval_accuracy")
    name, is_share = f"validation {_SCORES[key]}", key != "eval_mae"
    score, rate = _pick(history, key), _pick(history, "learning_rate")
    panels = [
        (score, name, AFTER, "o"),
        (rate, "learning rate", THIRD, ""),
    ]
    panels = [panel for panel in panels if panel[0][0]]
    if not panels:
        return None
    figure, places = new_figure(1.5 * len(panels) + 0.5, rows=len(panels))
    for axes, (series, title, colour, marker) in zip(places, panels, strict=True):
        _draw_line(axes, series, colour=colour, label=title, marker=marker)
        axes.set_title(title)
        if series is score and is_share:
            show_percent(axes.yaxis)
        axes.sharex(places[0])
    places[-1].set_xlabel("step")
    for axes in places[:-1]:
        axes.tick_params(labelbottom=False)
    form = "{:.1%}" if is_share else "{:,.0f}" if max(score[1], default=0) >= 1000 else "{:.4g}"
    words = [_span(name, score, form), _span("learning rate", rate, "{:.2g}")]
    return Plot(
        name="learning",
        title=f"{_title(_SCORES[key])} and learning rate",
        caption=f"{_title(_SCORES[key])} on the validation rows at each evaluation, and the learning rate (of the "
        "first group of weights, where there are several).",
        label=f"Over the steps: {'; '.join(filter(None, words))}.",
        figure=figure,
        titles=("step", name, "learning rate"),
        rows=_tabulate((form, score), ("{:.3g}", rate)),
    )


def _title(name: str) -> str:
    return name[0].upper() + name[1:]


def _pick(history: Sequence[dict[str, float]], name: str) -> Series:
    found = [(entry["step"], entry[name]) for entry in history if "step" in entry and name in entry]
    return [step for step, _ in found], [value for _, value in found]


def _draw_line(axes: "Axes", series: Series, *, colour: str, label: str, marker: str, style: str = "-") -> None:
    if series[0]:
        steps, values = thin(np.array(series[0]), np.array(series[1]), most=_MOST_POINTS)
        alone = len(series[0]) == 1
        axes.plot(
            steps, values, color=colour, label=label, marker="o" if alone else marker, markersize=4, linestyle=style
        )


def _span(name: str, series: Series, form: str = "{:.3f}") -> str:
    values = series[1]
    if not values:
        return ""
    return f"{name} from {form.format(values[0])} to {form.format(values[-1])}, {len(values)} values"


def _tabulate(*columns: tuple[str, Series]) -> list[list[str]]:
    """Put series with the same steps into one table; of many rows, some are shown."""
    values = [dict(zip(*series, strict=True)) for _, series in columns]
    steps = sorted({step for column in values for step in column})
    kept = {step for column in values for step in column if len(column) <= _MOST_TABLE_ROWS}
    stride = -(-len(steps) // _MOST_TABLE_ROWS)
    shown = [step for place, step in enumerate(steps) if step in kept or place % stride == 0]
    return [
        [
            f"{step:,.0f}",
            *(
                form.format(column[step]) if step in column else ""
                for (form, _), column in zip(columns, values, strict=True)
            ),
        ]
        for step in shown
    ]
