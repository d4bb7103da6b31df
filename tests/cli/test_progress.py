import io
import math
import re
import sys

import pytest

from lorafit.cli.render import progress
from lorafit.cli.render.progress import BarProgress, PlainProgress, open_progress
from lorafit.system import progress as system_progress
from lorafit.system.progress import Silent

HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What was written, without escape codes, a line for every state of the bar."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue()).replace("\r", "\n").splitlines()


class Clock:
    """A clock that goes on when it is told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (progress, system_progress):
        monkeypatch.setattr(module, "time", clock)
    return clock


def take_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in the place of standard error. No fixture: pytest sets standard error anew before each test."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return stream


def test_plain_progress_writes_a_line_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress()
    plain.start("training", total=1000, unit="step")
    for step in range(1, 41):
        clock.now += 1
        plain.update(step, loss=0.5, tokens_per_second=1234.5)
    plain.say("epoch 1.00: validation loss 0.4")
    plain.finish("good")
    assert capsys.readouterr().err.splitlines() == [
        "training: 1,000 steps …",
        "  step 15 of 1,000, 985 s left  loss 0.500  1,234 tokens/s",
        "  step 30 of 1,000, 970 s left  loss 0.500  1,234 tokens/s",
        "epoch 1.00: validation loss 0.4",
        "  done in 40.0 s: good",
    ]


def test_plain_progress_begins_with_the_forecast_until_it_has_measured_enough(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = PlainProgress()
    plain.start("training", total=1000, unit="step", seconds=500)
    for step in (1, 20, 101):
        clock.now += 20
        plain.update(step)
    assert capsys.readouterr().err.splitlines() == [
        "training: 1,000 steps, about 8.3 min …",
        "  step 1 of 1,000, 500 s left",
        "  step 20 of 1,000, 490 s left",
        "  step 101 of 1,000, 360 s left",
    ]


def test_plain_progress_of_resumed_work_counts_only_its_own_speed(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = PlainProgress()
    plain.start("training", total=1000, unit="step")
    for step in (501, 511):
        clock.now += 20
        plain.update(step, loss=math.nan)
    assert capsys.readouterr().err.splitlines()[1:] == ["  step 501 of 1,000", "  step 511 of 1,000, 978 s left"]


def test_time_left_goes_by_the_share_of_the_work_where_steps_differ(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = PlainProgress()
    plain.start("training", total=100, unit="step", seconds=300)
    for step, share in ((0, 0.0), (50, 0.25)):
        plain.update(step, share=share)
        clock.now += 80
    plain.update(50, share=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1:] == ["  step 50 of 100, 240 s left", "  step 50 of 100, 480 s left"]


def test_plain_progress_of_a_stage_without_a_total(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    plain = PlainProgress()
    plain.start("saving")
    clock.now += 1.25
    plain.finish()
    assert capsys.readouterr().err.splitlines() == ["saving …", "  done in 1.2 s"]


def test_bar_shows_how_far_it_is_and_leaves_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = take_terminal(monkeypatch)
    bar = BarProgress()
    bar.start("training", total=1200, unit="step")
    bar.update(600, loss=0.25, tokens_per_second=2500)
    bar.say("epoch 0.50: validation [loss] 0.4")
    bar.finish("all [good]")
    lines = terminal.lines()
    assert any(re.search(r"training [━╺╸]+ +600/1,200 steps loss 0\.250 +2,500 tokens/s", line) for line in lines), (
        terminal.getvalue()
    )
    assert "  epoch 0.50: validation [loss] 0.4" in [line.rstrip() for line in lines]
    assert re.fullmatch(r"✓ training: \d+\.\d s, all \[good\]", lines[-1])
    assert max(map(len, lines)) <= 100


def test_bar_begins_with_the_forecast_until_it_has_measured_enough(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = take_terminal(monkeypatch)
    bar = BarProgress()
    bar.start("training", total=1000, unit="step", seconds=3600)
    for step in (1, 20, 101):
        clock.now += 20
        bar.update(step)
        bar.say(f"step {step}")
    bar.finish()
    shown = re.findall(r"(\d+)/1,000 steps +(\d+:\d\d:\d\d)", "\n".join(terminal.lines()))
    assert (shown[0], shown[-1]) == (("0", "1:00:00"), ("101", "0:06:00"))


def test_bar_of_a_stage_without_a_total_shows_no_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = take_terminal(monkeypatch)
    bar = BarProgress()
    bar.start("saving")
    bar.finish()
    assert any("saving ━" in line for line in terminal.lines())
    assert not any("?" in line or "None" in line for line in terminal.lines())


def test_bars_follow_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = take_terminal(monkeypatch)
    bar = BarProgress()
    for stage in ("reading", "training"):
        bar.start(stage, total=2, unit="text")
        bar.update(2)
        bar.finish()
    done = [line for line in terminal.lines() if line.startswith("✓")]
    assert [line.partition(":")[0] for line in done] == ["✓ reading", "✓ training"]
    assert terminal.getvalue().count(HIDE_CURSOR) == terminal.getvalue().count(SHOW_CURSOR) == 2


def test_bar_is_taken_off_the_terminal_when_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = take_terminal(monkeypatch)

    def work() -> None:
        with open_progress(quiet=False) as bar:
            bar.start("training", total=10, unit="step")
            bar.update(3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    shown = terminal.getvalue()
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR)
    terminal.write("the error")
    assert terminal.lines()[-1] == "the error"


def test_what_suits_standard_error_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    take_terminal(monkeypatch)
    with open_progress(quiet=False) as on_terminal, open_progress(quiet=True) as quiet:
        assert isinstance(on_terminal, BarProgress)
        assert isinstance(quiet, Silent)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with open_progress(quiet=False) as elsewhere:
        assert isinstance(elsewhere, PlainProgress)
