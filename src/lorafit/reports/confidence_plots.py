"""Figures of how far a model's confidence can be believed, and how well it ranks rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.evidence import CalibrationBin, ConfidenceRecord, RiskPoint
from lorafit.metrics.uncertainty import wilson_interval
from lorafit.reports.curves import Ranking, average_roc, thin
from lorafit.reports.drawing import AFTER, BEFORE, INK, THIRD, Plot, add_legend, new_figure, show_percent
from lorafit.reports.html import write_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_precision_recall", "plot_reliability", "plot_risk", "plot_roc"]

_TABLE_ROWS = 21
_SHADE = 0.18

Rankings = dict[str, list[Ranking | None]]
"""By `before` and `after`: one ranking a class, None for a class that cannot be ranked."""


def plot_reliability(confidence: ConfidenceRecord) -> Plot:
    """Draw accuracy over confidence, as the model gives it and calibrated.

    Args:
        confidence: What was measured.

    Returns:
        The plot.
    """
    figure, (axes,) = new_figure(3.6)
    low = min(one.confidence for one in (*confidence.raw.bins, *confidence.calibrated.bins))
    axes.plot([low, 1], [low, 1], color=INK, linewidth=1, linestyle=":", label="as confident as right")
    _draw_bins(axes, confidence.raw.bins, colour=BEFORE, label="as the model gives it", style="--")
    _draw_bins(axes, confidence.calibrated.bins, colour=AFTER, label="calibrated", style="-")
    axes.set(xlabel="confidence", ylabel="share that is right", ylim=(None, 1.02))
    show_percent(axes.xaxis)
    show_percent(axes.yaxis)
    add_legend(axes)
    raw, calibrated = confidence.raw.ece, confidence.calibrated.ece
    named = (("as the model gives it", confidence.raw.bins), ("calibrated", confidence.calibrated.bins))
    return Plot(
        name="reliability",
        title="Is it as right as it is confident?",
        caption="On the dotted line, confidence can be taken at its word; below it the model is too sure of itself. "
        "Each point stands for equally many rows; bands are intervals of the share that is right.",
        label="Share of right answers over confidence. Expected calibration error: "
        f"{write_percent(raw)} as the model gives it, {write_percent(calibrated)} calibrated.",
        figure=figure,
        titles=("", "confidence", "right", "rows"),
        rows=[
            [name, f"{one.confidence:.1%}", write_percent(one.accuracy), f"{one.rows:,}"]
            for name, bins in named
            for one in bins
        ],
    )


def plot_risk(confidence: ConfidenceRecord, level: float) -> Plot:
    """Draw how many of the accepted answers are wrong, over the share that is accepted.

    Args:
        confidence: What was measured.
        level: Level of the band, above 0 and below 1.

    Returns:
        The plot.
    """
    points = confidence.risk_coverage
    rows = points[-1].accepted
    risks = [wilson_interval(point.errors, point.accepted, level) for point in points]
    shares = [point.accepted / rows for point in points]
    figure, (axes,) = new_figure(3.0)
    axes.fill_between(
        shares, [risk.low for risk in risks], [risk.high for risk in risks], color=AFTER, alpha=_SHADE, linewidth=0
    )
    axes.plot(shares, [risk.value for risk in risks], color=AFTER, marker="o" if len(points) == 1 else "")
    words = [f"all answers: {write_percent(risks[-1])} wrong"]
    chosen = confidence.abstention
    if chosen is not None and chosen.accuracy is not None:
        risk = 1 - chosen.accuracy.value
        axes.plot([chosen.accepted_share.value], [risk], color=THIRD, marker="D", linestyle="", label="operating point")
        add_legend(axes)
        words.append(f"at the operating point {chosen.accepted_share.value:.1%} are accepted, {risk:.1%} of them wrong")
    top = max(1.4 * risks[-1].high, *(risk.value for risk in risks[len(risks) // 4 :]), 0.01)
    axes.set(
        xlabel="share of texts that get an answer", ylabel="wrong among them", xlim=(0, 1.02), ylim=(0, min(top, 1))
    )
    show_percent(axes.xaxis)
    show_percent(axes.yaxis)
    return Plot(
        name="risk_coverage",
        title="What abstaining buys",
        caption="The most confident texts are answered first. The further left, the more texts the model abstains "
        "from and the fewer of its answers are wrong.",
        label=f"Share of wrong answers over the share of texts that get one; {'; '.join(words)}.",
        figure=figure,
        titles=("confidence at least", "accepted", "right among them"),
        rows=[_describe_point(point, rows, level) for point in _select(points, rows)],
    )


def plot_roc(rankings: Rankings, names: Sequence[str]) -> Plot | None:
    """Draw recall over the false positive rate: of the second of two classes, or the mean of several.

    Args:
        rankings: Of each model.
        names: The classes.

    Returns:
        The plot; None where no class can be ranked.
    """
    curves = {when: curve for when, ranked in rankings.items() if (curve := _find_roc(ranked)) is not None}
    if not curves:
        return None
    figure, (axes,) = new_figure(3.6)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=":", label="by chance")
    _draw_curves(axes, curves)
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    area = "; ".join(f"{when} {_mean_area(rankings[when]):.4f}" for when in curves)
    binary = len(names) == 2
    what = f"of the class {names[1]}" if binary else "mean of all classes, each against the others"
    return Plot(
        name="roc",
        title="ROC curve",
        caption=f"How well the probability tells rows apart, {what}. Area under the curve: {area}.",
        label=f"ROC curve, {what}. Area under it: {area}.",
        figure=figure,
        titles=("model", "false positive rate", "true positive rate"),
        rows=_tabulate(curves),
    )


def plot_precision_recall(rankings: Rankings, names: Sequence[str]) -> Plot | None:
    """Draw precision over recall for the second of two classes.

    Args:
        rankings: Of each model.
        names: The classes.

    Returns:
        The plot; None where there are more classes, whose figures stand in a table, or the class cannot be ranked.
    """
    if len(names) != 2 or rankings["after"][1] is None:
        return None
    ranked = {when: one[1] for when, one in rankings.items() if one[1] is not None}
    curves = {when: (one.recall[1:], one.precision[1:]) for when, one in ranked.items()}
    figure, (axes,) = new_figure(3.6)
    _draw_curves(axes, curves)
    axes.set(xlabel="recall", ylabel="precision", ylim=(None, 1.02))
    area = "; ".join(f"{when} {one.average_precision:.4f}" for when, one in ranked.items())
    return Plot(
        name="precision_recall",
        title="Precision and recall",
        caption=f"Of the class {names[1]}: how many of the rows found are right, the more of them are found. Average "
        f"precision: {area}.",
        label=f"Precision over recall of the class {names[1]}. Average precision: {area}.",
        figure=figure,
        titles=("model", "recall", "precision"),
        rows=_tabulate(curves),
    )


def _draw_bins(axes: "Axes", bins: Sequence[CalibrationBin], *, colour: str, label: str, style: str) -> None:
    places = [one.confidence for one in bins]
    lows, highs = [one.accuracy.low for one in bins], [one.accuracy.high for one in bins]
    axes.fill_between(places, lows, highs, color=colour, alpha=_SHADE, linewidth=0)
    if len(bins) == 1:
        axes.plot([places[0]] * 2, [lows[0], highs[0]], color=colour)
    axes.plot(
        places,
        [one.accuracy.value for one in bins],
        color=colour,
        label=label,
        linestyle=style,
        marker="o",
        markersize=4,
    )


def _draw_curves(axes: "Axes", curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> None:
    for when, curve in curves.items():
        across, up = thin(*curve)
        before = when == "before"
        axes.plot(across, up, color=BEFORE if before else AFTER, linestyle="--" if before else "-", label=when)
    show_percent(axes.xaxis)
    show_percent(axes.yaxis)
    add_legend(axes)


def _find_roc(ranked: list[Ranking | None]) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    present = [one for one in ranked if one is not None]
    if not present:
        return None
    if len(ranked) == 2:
        return present[-1].false_positive_rate, present[-1].recall
    return average_roc(ranked)


def _mean_area(ranked: list[Ranking | None]) -> float:
    return float(np.mean([one.roc_area for one in ranked if one is not None]))


def _tabulate(curves: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> list[list[str]]:
    return [
        [when, f"{across:.1%}", f"{up:.1%}"]
        for when, curve in curves.items()
        for across, up in zip(*thin(*curve, most=_TABLE_ROWS), strict=True)
    ]


def _select(points: Sequence[RiskPoint], rows: int) -> list[RiskPoint]:
    """Return the points nearest above 5 %, 10 %, … of the rows, each once."""
    wanted = [rows * place / (_TABLE_ROWS - 1) for place in range(1, _TABLE_ROWS)]
    found = [next((point for point in points if point.accepted >= least), points[-1]) for least in wanted]
    return list({point.accepted: point for point in found}.values())


def _describe_point(point: RiskPoint, rows: int, level: float) -> list[str]:
    right = wilson_interval(point.accepted - point.errors, point.accepted, level)
    return [f"{point.threshold:.3f}", f"{point.accepted:,} ({point.accepted / rows:.1%})", write_percent(right)]
