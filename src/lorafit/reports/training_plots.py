"""Plots of how training went, from `history.jsonl`."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from lorafit.reports.contents import RunContents
from lorafit.reports.curves import thin
from lorafit.reports.drawing import AFTER, BEFORE, INK, THIRD, Plot, add_legend, new_figure, show_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_MOST_POINTS = 400
_MOST_TABLE_ROWS = 60

_LOSSES = {"training": "loss", "validation": "eval_loss", "validation (calibrated)": "eval_calibrated_loss"}
"""Their names in the history, by those for people."""

_KEPT = (
    "Where the training loss falls and the validation loss rises, the model overfits. The checkpoint with the lowest "
    "validation loss is kept, after calibration where that is shown."
)
_LAST_KEPT = "No rows were set aside for validation: all trained, and the model is that of the last step."

Series = tuple[list[float], list[float]]
"""Steps, and a value at each."""


def plot_loss(contents: RunContents) -> Iterator[Plot]:
    """Draw the loss of the training rows and of the validation rows over the steps."""
    losses = {name: series for name, key in _LOSSES.items() if (series := _pick(contents, key))[0]}
    if losses.get("validation (calibrated)") == losses.get("validation"):
        losses.pop("validation (calibrated)", None)
    if not losses:
        return
    figure, (axes,) = new_figure(3.0)
    for name, series in losses.items():
        style = "-" if name in {"training", list(losses)[-1]} else "--"  # the last one chooses the checkpoint
        colour, marker = (BEFORE, "") if name == "training" else (AFTER, "o")
        _draw_line(axes, series, colour=colour, label=name, marker=marker, style=style)
    words = [_span(f"{name} loss", series, "{:.3f}".format) for name, series in losses.items()]
    training, wording = contents.record.training, contents.task.wording
    if training is not None:
        axes.axvline(training.best_step, color=INK, linewidth=1, linestyle=":", label="checkpoint kept")
        words.append(f"kept is the checkpoint of {training.describe_checkpoint()}")
    axes.set(xlabel="step", ylabel=wording.loss)
    add_legend(axes)
    caption = f"{_KEPT if 'validation' in losses else _LAST_KEPT} {wording.loss_note}"
    yield Plot(
        name="loss",
        title="Loss",
        caption=caption.strip(),
        label=f"Loss over the steps: {'; '.join(words)}.",
        figure=figure,
        titles=("step", *losses),
        rows=_tabulate(*(("{:.4f}".format, series) for series in losses.values())),
    )


def plot_learning(contents: RunContents) -> Iterator[Plot]:
    """Draw the primary metric of the validation rows, and below it the learning rate, over the steps."""
    metric = contents.task.primary_metric
    score, rate = _pick(contents, f"eval_{contents.task.primary}"), _pick(contents, "learning_rate")
    panels = [(score, f"validation {metric.title}", AFTER, "o"), (rate, "learning rate", THIRD, "")]
    shown = [panel for panel in panels if panel[0][0]]
    if not shown:
        return
    figure, places = new_figure(1.5 * len(shown) + 0.5, rows=len(shown))
    for axes, (series, title, colour, marker) in zip(places, shown, strict=True):
        _draw_line(axes, series, colour=colour, label=title, marker=marker)
        axes.set_title(title)
        axes.sharex(places[0])
        if series is score and metric.form == "percent":
            show_percent(axes.yaxis)
    places[-1].set_xlabel("step")
    for axes in places[:-1]:
        axes.tick_params(labelbottom=False)
    title = metric.title[:1].upper() + metric.title[1:]
    words = [_span(panels[0][1], score, metric.write_value), _span("learning rate", rate, "{:.2g}".format)]
    shown_rate = "the learning rate (of the first group of weights, where there are several)."
    validated = f"{title} on the validation rows at each evaluation, and " if score[0] else ""
    yield Plot(
        name="learning",
        title=f"{title} and learning rate" if score[0] else "Learning rate",
        caption=validated + shown_rate if score[0] else shown_rate[:1].upper() + shown_rate[1:],
        label=f"Over the steps: {'; '.join(filter(None, words))}.",
        figure=figure,
        titles=("step", *(title for _, title, *_ in panels)),
        rows=_tabulate((metric.write_value, score), ("{:.3g}".format, rate)),
    )


def _pick(contents: RunContents, name: str) -> Series:
    found = [(entry["step"], entry[name]) for entry in contents.history if "step" in entry and name in entry]
    return [step for step, _ in found], [value for _, value in found]


def _draw_line(axes: "Axes", series: Series, *, colour: str, label: str, marker: str, style: str = "-") -> None:
    if series[0]:
        steps, values = thin(np.array(series[0]), np.array(series[1]), most=_MOST_POINTS)
        alone = len(series[0]) == 1
        axes.plot(
            steps, values, color=colour, label=label, marker="o" if alone else marker, markersize=4, linestyle=style
        )


def _span(name: str, series: Series, write: Callable[[float], str]) -> str:
    values = series[1]
    return f"{name} from {write(values[0])} to {write(values[-1])}, {len(values)} values" if values else ""


def _tabulate(*columns: tuple[Callable[[float], str], Series]) -> list[list[str]]:
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
                write(column[step]) if step in column else ""
                for (write, _), column in zip(columns, values, strict=True)
            ),
        ]
        for step in shown
    ]
