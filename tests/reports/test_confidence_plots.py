from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lorafit.evidence import ConfidenceRecord, Estimate
from lorafit.reports.confidence_plots import plot_precision_recall, plot_reliability, plot_risk, plot_roc
from lorafit.reports.curves import rank_classes
from lorafit.reports.reading import read_run

LABELS = np.array([0, 1] * 50)


@pytest.fixture(autouse=True)
def style(house_style: None) -> None:
    """Every figure here is drawn as the report does."""


@pytest.fixture
def confidence(build_run: Callable[..., Path]) -> ConfidenceRecord:
    found = read_run(build_run(rows=400)).metrics.confidence
    assert found is not None
    return found


def score(strength: float, classes: int = 2) -> np.ndarray:
    """Return probabilities of 100 rows; the stronger, the more of them are right."""
    rng = np.random.default_rng(0)
    powers = np.exp(strength * np.eye(classes)[LABELS % classes] + rng.normal(size=(100, classes)))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def test_reliability_has_a_band_and_a_line_for_raw_and_for_calibrated(confidence: ConfidenceRecord) -> None:
    plot = plot_reliability(confidence)
    (axes,) = plot.figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(lines) == ["as confident as right", "as the model gives it", "calibrated"]
    assert lines["calibrated"].get_xdata().tolist() == [one.confidence for one in confidence.calibrated.bins]
    assert len(axes.collections) == 2
    assert len(plot.rows) == len(confidence.raw.bins) + len(confidence.calibrated.bins)
    assert f"{100 * confidence.calibrated.ece.value:.1f} %" in plot.label


def test_risk_shows_the_operating_point(confidence: ConfidenceRecord) -> None:
    plot = plot_risk(confidence, 0.95)
    chosen = confidence.abstention
    assert chosen is not None
    assert chosen.accuracy is not None
    curve, point = plot.figure.axes[0].lines
    last = confidence.risk_coverage[-1]
    assert curve.get_ydata()[-1] == last.errors / last.accepted
    assert curve.get_xdata()[-1] == 1
    assert (point.get_xdata(), point.get_ydata()) == ([chosen.accepted_share.value], [1 - chosen.accuracy.value])
    assert f"{chosen.accepted_share.value:.1%} are accepted" in plot.label
    assert plot.rows[-1][1] == "400 (100.0%)"
    assert 5 <= len(plot.rows) <= 21


@pytest.mark.parametrize("accuracy", [None, Estimate(value=1, low=0.9, high=1)])
def test_risk_without_an_operating_point(confidence: ConfidenceRecord, accuracy: Estimate | None) -> None:
    assert confidence.abstention is not None
    nobody = None if accuracy else confidence.abstention.model_copy(update={"accuracy": None})
    plot = plot_risk(confidence.model_copy(update={"abstention": nobody}), 0.95)
    assert len(plot.figure.axes[0].lines) == 1


def test_roc_of_two_classes_is_that_of_the_second() -> None:
    rankings = {"before": rank_classes(LABELS, score(0)), "after": rank_classes(LABELS, score(2))}
    plot = plot_roc(rankings, ["neg", "pos"])
    assert plot is not None
    after = rankings["after"][1]
    assert after is not None
    assert f"after {after.roc_area:.4f}" in plot.label
    assert "of the class pos" in plot.caption
    assert plot.figure.axes[0].lines[2].get_ydata().tolist() == after.recall.tolist()
    assert len(plot.rows) <= 42


def test_roc_of_several_classes_is_their_mean() -> None:
    plot = plot_roc({"after": rank_classes(LABELS % 2, score(2, classes=3))}, ["a", "b", "c"])
    assert plot is not None
    assert "mean of all classes" in plot.label
    assert plot_precision_recall({"after": rank_classes(LABELS % 2, score(2, classes=3))}, ["a", "b", "c"]) is None


def test_precision_and_recall_begin_with_the_first_row_found() -> None:
    rankings = {"after": rank_classes(LABELS, score(2))}
    plot = plot_precision_recall(rankings, ["neg", "pos"])
    assert plot is not None
    assert "Average precision: after 0." in plot.label
    (line,) = plot.figure.axes[0].lines
    assert line.get_xdata()[0] > 0


def test_rows_of_one_class_have_no_curves() -> None:
    rankings = {"after": rank_classes(np.zeros(100, dtype=np.int64), score(2))}
    assert plot_roc(rankings, ["neg", "pos"]) is None
    assert plot_precision_recall(rankings, ["neg", "pos"]) is None


def test_many_points_are_thinned() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=25_000)
    values = rng.uniform(size=25_000)
    plot = plot_roc({"after": rank_classes(labels, np.stack([1 - values, values], axis=1))}, ["neg", "pos"])
    assert plot is not None
    assert len(plot.figure.axes[0].lines[1].get_xdata()) <= 200
