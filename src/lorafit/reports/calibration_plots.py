"""Plots of how far a model's confidence can be believed."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lorafit.reports.contents import RunContents
from lorafit.reports.drawing import AFTER, BEFORE, INK, THIRD, Plot, add_legend, new_figure, show_percent
from lorafit.tasks.base import share
from lorafit.tasks.format import write_estimate
from lorafit.tasks.records import ReliabilityBin, RiskPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_TABLE_ROWS = 21
_SHADE = 0.18


def plot_reliability(contents: RunContents) -> Iterator[Plot]:
    """Draw the reliability diagram: accuracy over confidence, uncalibrated and calibrated."""
    scores = contents.metrics.calibration
    if scores is None or not scores.reliability:
        return
    named = {"uncalibrated": scores.reliability_raw, "calibrated": scores.reliability}
    figure, (axes,) = new_figure(3.6)
    low = min(one.confidence for bins in named.values() for one in bins)
    axes.plot([low, 1], [low, 1], color=INK, linewidth=1, linestyle=":", label="as confident as right")
    _draw_bins(axes, named["uncalibrated"], colour=BEFORE, label="uncalibrated", style="--")
    _draw_bins(axes, named["calibrated"], colour=AFTER, label="calibrated", style="-")
    axes.set(xlabel="confidence", ylabel="accuracy", ylim=(None, 1.02))
    show_percent(axes.xaxis)
    show_percent(axes.yaxis)
    add_legend(axes)
    errors = [write_estimate("percent", one["ece"]) for one in (scores.raw, scores.metrics)]
    yield Plot(
        name="reliability",
        title="Reliability diagram",
        caption="On the dotted line, confidence is accuracy; below it the model is too sure of itself. Each point "
        "stands for equally many rows; bands are intervals of the accuracy.",
        label=f"Accuracy over confidence. Expected calibration error: {errors[0]} uncalibrated, {errors[1]} "
        "calibrated.",
        figure=figure,
        titles=("", "confidence", "accuracy", "rows"),
        rows=[
            [name, f"{one.confidence:.1%}", write_estimate("percent", one.accuracy), f"{one.rows:,}"]
            for name, bins in named.items()
            for one in bins
        ],
    )


def plot_risk(contents: RunContents) -> Iterator[Plot]:
    """Draw the risk-coverage curve: the share of wrong predictions among those accepted, over how many are."""
    scores, level = contents.metrics.calibration, contents.metrics.confidence_level
    if scores is None or not scores.risk_coverage:
        return
    points = scores.risk_coverage
    rows = points[-1].accepted
    risks = [share(point.errors, point.accepted, level) for point in points]
    shares = [point.accepted / rows for point in points]
    figure, (axes,) = new_figure(3.0)
    lows, highs = [risk.low for risk in risks], [risk.high for risk in risks]
    axes.fill_between(shares, lows, highs, color=AFTER, alpha=_SHADE, linewidth=0)
    axes.plot(shares, [risk.value for risk in risks], color=AFTER, marker="o" if len(points) == 1 else "")
    words = [f"all predictions: {write_estimate('percent', risks[-1])} wrong"]
    accepted, accuracy = (scores.metrics.get(name) for name in ("accepted_share", "accepted_accuracy"))
    if accepted is not None and accuracy is not None and accepted.value > 0:
        risk = 1 - accuracy.value
        axes.plot([accepted.value], [risk], color=THIRD, marker="D", linestyle="", label="operating point")
        add_legend(axes)
        words.append(f"at the operating point {accepted.value:.1%} are accepted, {risk:.1%} of them wrong")
    top = max(1.4 * risks[-1].high, *(risk.value for risk in risks[len(risks) // 4 :]), 0.01)
    axes.set(xlabel="accepted", ylabel="wrong among them", xlim=(0, 1.02), ylim=(0, min(top, 1)))
    show_percent(axes.xaxis)
    show_percent(axes.yaxis)
    yield Plot(
        name="risk_coverage",
        title="Risk-coverage curve",
        caption="The most confident predictions are accepted first. The further left, the more texts the model "
        "abstains from and the fewer of the accepted predictions are wrong.",
        label=f"Share of wrong predictions over the share that is accepted; {'; '.join(words)}.",
        figure=figure,
        titles=("confidence at least", "accepted", "right among them"),
        rows=[_describe_point(point, rows, level) for point in _select(points, rows)],
    )


def _draw_bins(axes: "Axes", bins: Sequence[ReliabilityBin], *, colour: str, label: str, style: str) -> None:
    places, values = [one.confidence for one in bins], [one.accuracy.value for one in bins]
    lows, highs = [one.accuracy.low for one in bins], [one.accuracy.high for one in bins]
    axes.fill_between(places, lows, highs, color=colour, alpha=_SHADE, linewidth=0)
    if len(bins) == 1:
        axes.plot([places[0]] * 2, [lows[0], highs[0]], color=colour)
    axes.plot(places, values, color=colour, label=label, linestyle=style, marker="o", markersize=4)


def _select(points: Sequence[RiskPoint], rows: int) -> list[RiskPoint]:
    """Return the points nearest above 5 %, 10 %, … of the rows, each once."""
    wanted = [rows * place / (_TABLE_ROWS - 1) for place in range(1, _TABLE_ROWS)]
    found = [next((point for point in points if point.accepted >= least), points[-1]) for least in wanted]
    return list({point.accepted: point for point in found}.values())


def _describe_point(point: RiskPoint, rows: int, level: float) -> list[str]:
    right = share(point.accepted - point.errors, point.accepted, level)
    accepted = f"{point.accepted:,} ({point.accepted / rows:.1%})"
    return [f"{point.threshold:.3f}", accepted, write_estimate("percent", right)]
