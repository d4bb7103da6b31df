import pytest

from lorafit.reports.training_plots import plot_learning, plot_loss
from lorafit.runs.records import TrainingRecord

TRAINING = TrainingRecord(
    steps=200,
    epochs=2,
    best_step=100,
    best_validation_loss=0.25,
    stopped_early=False,
    seconds=1,
    tokens=1,
    tokens_per_second=1,
    padding_share=0,
    adapted_modules=1,
)
HISTORY = [
    {"step": 10, "loss": 0.7, "learning_rate": 1e-3, "epoch": 0.1},
    {"step": 100, "loss": 0.4, "learning_rate": 5e-4, "epoch": 1},
    {"step": 100, "eval_loss": 0.3, "eval_calibrated_loss": 0.25, "eval_accuracy": 0.9, "epoch": 1},
    {"train_runtime": 12.0},
]


@pytest.fixture(autouse=True)
def style(house_style: None) -> None:
    """Every figure here is drawn as the report does."""


def test_loss_tells_both_losses_and_what_was_kept() -> None:
    plot = plot_loss(HISTORY, TRAINING)
    assert plot is not None
    assert plot.titles == ("step", "training", "validation", "validation (calibrated)")
    assert plot.rows == [["10", "0.7000", "", ""], ["100", "0.4000", "0.3000", "0.2500"]]
    assert plot.label == (
        "Loss over the steps: training loss from 0.700 to 0.400, 2 values; validation loss from 0.300 to 0.300, 1 "
        "values; validation (calibrated) loss from 0.250 to 0.250, 1 "
        "values; the checkpoint of step 100 was kept, with a validation loss of 0.2500."
    )
    train, validation, calibrated, kept = plot.figure.axes[0].lines
    assert train.get_ydata().tolist() == [0.7, 0.4]
    assert calibrated.get_marker() == "o"
    assert [line.get_linestyle() for line in (train, validation, calibrated)] == ["-", "--", "-"]
    assert kept.get_xdata() == [100, 100]


def test_accuracy_and_rate_have_a_panel_each() -> None:
    plot = plot_learning(HISTORY)
    assert plot is not None
    assert plot.rows == [["10", "", "0.001"], ["100", "90.0%", "0.0005"]]
    assert len(plot.figure.axes) == 2
    assert plot_learning(HISTORY[:2]).figure.axes[0].get_title(loc="left") == "learning rate"  # type: ignore[union-attr]


def test_nothing_logged_gives_no_figure() -> None:
    assert plot_loss([], TRAINING) is None
    assert plot_learning([{"train_runtime": 12.0}]) is None


def test_a_history_without_calibration_is_drawn_as_it_is() -> None:
    plot = plot_loss([{"step": 1, "loss": 0.5}, {"step": 1, "eval_loss": 0.4}], None)
    assert plot is not None
    assert plot.titles == ("step", "training", "validation")
    assert [line.get_linestyle() for line in plot.figure.axes[0].lines] == ["-", "-"]


def test_without_validation_the_training_loss_stands_alone() -> None:
    plot = plot_loss(HISTORY[:2], None)
    assert plot is not None
    assert len(plot.figure.axes[0].lines) == 1
    assert "validation loss" not in plot.label


def test_a_long_history_is_shown_in_part_but_with_every_evaluation() -> None:
    long = [{"step": step, "loss": 1 / step} for step in range(1, 5001)]
    long += [{"step": step, "eval_loss": 0.5} for step in (999, 1999, 2999)]
    plot = plot_loss(long, None)
    assert plot is not None
    assert len(plot.figure.axes[0].lines[0].get_xdata()) <= 400
    assert len(plot.rows) <= 65
    assert {"999", "1,999", "2,999"} <= {row[0] for row in plot.rows if row[2]}
