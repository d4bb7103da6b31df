from collections.abc import Callable
from pathlib import Path

import pytest

from lorafit.reports.curves import rank_classes
from lorafit.reports.plots import build_plots
from lorafit.reports.reading import read_run

ALL = [
    *("accuracy", "loss", "learning", "confusion_before", "confusion_after", "reliability", "risk_coverage", "roc"),
    *("precision_recall", "slice1"),
]


@pytest.mark.parametrize(
    ("wishes", "absent"),
    [
        ({}, []),
        ({"baseline": False}, ["confusion_before"]),
        ({"calibrated": False}, ["reliability", "risk_coverage"]),
        ({"history": False}, ["loss", "learning"]),
        ({"names": ["a", "b", "c"]}, ["precision_recall"]),
        ({"names": [str(number) for number in range(13)]}, ["confusion_before", "confusion_after", "precision_recall"]),
    ],
)
def test_a_figure_is_drawn_where_there_are_figures(
    build_run: Callable[..., Path], house_style: None, wishes: dict[str, object], absent: list[str]
) -> None:
    contents = read_run(build_run(**wishes))
    rankings = {"after": rank_classes(contents.labels, contents.finetuned)}
    plots = build_plots(contents, rankings)
    assert list(plots) == [name for name in ALL if name not in absent]
    assert [name for name, plot in plots.items() if plot.name != name] == []
    for plot in plots.values():
        assert plot.label
        assert plot.caption
        assert {len(row) for row in plot.rows} == {len(plot.titles)}
