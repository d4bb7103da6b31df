"""What is printed fits the terminal: no line too long, no interval or command torn apart."""

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorafit.answers import LabelsPrediction, NumberPrediction, Prediction
from lorafit.cli.render.render import show_metrics, show_run
from lorafit.evidence import Estimate, MetricsRecord, SliceScores
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import ForecastRecord, RunRecord
from lorafit.training.pipeline import Run, Sample

LONG = "a film that goes on and on and on, with a story nobody asked for and an ending that comes two hours late " * 3
SAMPLES = tuple(
    Sample(
        text=text,
        label="positive",
        before=Prediction("negative", 0.512, {"negative": 0.512, "positive": 0.488}),
        after=Prediction("positive", 0.934, {"negative": 0.066, "positive": 0.934}),
    )
    for text in ("fine", LONG, "été 🎬 評論\nin two [bold]lines[/bold]")
)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(trained: Path) -> Run:
    layout = RunLayout(trained)
    return Run(trained, RunRecord.read(layout.record), MetricsRecord.read(layout.metrics), SAMPLES)


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None], int], str]:
    """Calls something that prints, on a terminal of so many columns, and gives back what was printed."""

    def show(action: Callable[[], None], columns: int) -> str:
        stream = Terminal()
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setattr("sys.stdout", stream)
        action()
        return stream.getvalue()

    return show


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_tables_fit_the_terminal(run: Run, show: Callable[..., str], columns: int) -> None:
    shown = re.sub(r"\x1b\[[0-9;]*m", "", show(lambda: show_run(run, quiet=False), columns))
    tables, commands = shown.split("run folder")
    assert max(len(line) for line in tables.splitlines()) <= columns
    for line in tables.partition("Test rows")[0].splitlines():
        assert line.count("[") == line.count("]"), "an interval is torn apart"
    assert f"lorafit evaluate {run.path}\n" in commands, "commands are never wrapped"
    assert "[bold]lines[/bold]" in " ".join(shown.split()), "texts are no markup"


def test_wide_terminals_have_value_and_interval_on_one_line(run: Run, show: Callable[..., str]) -> None:
    wide, narrow = (show(lambda: show_run(run, quiet=False), columns) for columns in (140, 70))
    assert re.search(r"accuracy +\d+\.\d % \[", wide)
    assert not re.search(r"accuracy +\d+\.\d % \[", narrow)


def test_colours_are_left_out_where_they_are_not_wanted(
    run: Run, show: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "\x1b[32m" in show(lambda: show_run(run, quiet=False), 100)

    def without_colour() -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        show_run(run, quiet=False)

    assert "\x1b[32m" not in show(without_colour, 100)


def test_one_thread_is_not_several(run: Run, show: Callable[..., str]) -> None:
    assert "on 1 thread, padding" in show(lambda: show_run(run, quiet=False), 120)


def test_forecast_stands_beside_the_time_and_what_was_given_up_for_a_budget(run: Run, show: Callable[..., str]) -> None:
    assert re.search(r"time +\d+ s \(forecast \d+ s\): ", show(lambda: show_run(run, quiet=False), 120))
    forecast = ForecastRecord(
        seconds={"training": 171.2}, peak_memory_bytes=1, budget_seconds=600, given_up=["1 epoch instead of 2"]
    )
    fitted = replace(run, record=run.record.model_copy(update={"forecast": forecast}))
    shown = show(lambda: show_run(fitted, quiet=False), 120)
    assert re.search(r"time +\d+ s \(forecast 171 s\): ", shown)
    assert re.search(r"given up +1 epoch instead of 2, to fit 10 min", shown)


@pytest.mark.parametrize(
    ("low", "p", "verdict"),
    [
        (0.1, 0.001, "Better than before: "),
        (0.1, 0.0625, "Not shown to be better than before: "),
        (-0.1, 0.001, "Not shown to be better than before: "),
    ],
)
def test_better_is_said_only_where_interval_and_test_agree(
    run: Run, show: Callable[..., str], low: float, p: float, verdict: str
) -> None:
    assert run.metrics.comparison is not None
    difference = Estimate(value=0.2, low=low, high=0.3)
    comparison = run.metrics.comparison.model_copy(update={"accuracy_difference": difference, "mcnemar_p_value": p})
    metrics = run.metrics.model_copy(update={"comparison": comparison})
    shown = show(lambda: show_metrics(metrics), 120)
    assert any(line.startswith(verdict) for line in shown.splitlines())


@pytest.mark.parametrize("columns", [80, 120])
def test_slices_fit_the_terminal_and_of_many_values_the_weakest_are_shown(
    run: Run, show: Callable[..., str], columns: int
) -> None:
    def build(column: str, value: str, accuracy: float) -> SliceScores:
        estimate = Estimate(value=accuracy, low=accuracy, high=accuracy)
        return SliceScores(column=column, value=value, rows=10, accuracy=estimate, difference=estimate)

    slices = [build("[bold]movie", f"{number} {'x' * 30}\x1b]0;evil", number / 60) for number in range(50, 20, -1)]
    metrics = run.metrics.model_copy(update={"slices": [build("words", "1-15", 0.5), *slices]})
    shown = re.sub(r"\x1b\[[0-9;]*m", "", show(lambda: show_metrics(metrics), columns))
    table = shown.partition("Accuracy by length")[2]
    assert max(len(line) for line in table.splitlines()) <= columns
    assert "Of [bold]movie the 12 weakest values are shown, 18 are not." in shown
    assert re.findall(r"movie (\d+)", table) == [str(number) for number in range(21, 33)]
    assert re.search(r"words 1-15 +10 +50\.0 % \[50\.0, 50\.0\] +\+50\.0 % ", table)
    assert "\x1b" not in shown


@pytest.mark.parametrize("columns", [80, 120])
def test_samples_with_several_labels_and_with_numbers_fit_the_terminal(
    run: Run, show: Callable[..., str], columns: int
) -> None:
    evil, names = "[bold]<b>\x1b]0;evil\n", tuple(f"label {number}" for number in range(30))
    several, none = (LabelsPrediction(labels, dict.fromkeys((evil, *names), 0.5)) for labels in ((evil, *names), ()))
    samples = (Sample(LONG, (evil, *names), none, several), Sample("fine", (), none, none))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", show(lambda: show_run(replace(run, samples=samples), quiet=False), columns))
    table = shown.partition("Test rows drawn")[2].partition("trained")[0]
    assert max(len(line) for line in table.splitlines()) <= columns
    assert "[bold]" in table, "names are no markup"
    assert "\x1b" not in table
    assert (table.count("✓"), table.count("✗")) == (3, 1)
    assert "label 29" in " ".join(table.split())

    numbers = tuple(
        Sample("fine", true, NumberPrediction(61.5), NumberPrediction(78.9, 70.1, 87.7)) for true in (80.0, 2.5)
    )
    shown = show(lambda: show_run(replace(run, samples=numbers), quiet=False), columns)
    assert re.search(r"fine +80 +61\.50 +78\.90  \[70\.10, 87\.70\]", shown)
    assert re.search(r"fine +2\.500 +61\.50 ", shown)
    assert "true number" in shown
