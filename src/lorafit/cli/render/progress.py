"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

import datetime
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lorafit.system.progress import Progress, Silent
from lorafit.system.text import disarm, format_duration

if TYPE_CHECKING:
    from rich.progress import TaskID


_SECONDS_BETWEEN_LINES = 15.0
_ENOUGH = 0.05
"""Share of a stage after which its own speed counts, and no longer the forecast."""


@contextmanager
def open_progress(*, quiet: bool) -> Iterator[Progress]:
    """Give what suits standard error: silence if asked for, a bar on a terminal, else plain lines.

    Args:
        quiet: Whether silence is asked for.

    Yields:
        The progress. A bar is taken off the terminal however the block ends, before an error is shown.
    """
    if quiet:
        yield Silent()
    elif not sys.stderr.isatty():
        yield PlainProgress()
    else:
        bar = BarProgress()
        try:
            yield bar
        finally:
            bar.close()


def describe_metrics(metrics: dict[str, float]) -> str:
    """Put metrics such as `loss` and `tokens_per_second` into words; a loss that is not known yet (NaN) is left out."""
    words = []
    if (loss := metrics.get("loss")) is not None and loss == loss:  # noqa: PLR0124 - NaN is the one value that differs
        words.append(f"loss {loss:.3f}")
    if (speed := metrics.get("tokens_per_second")) is not None:
        words.append(f"{speed:,.0f} tokens/s")
    return "  ".join(words)


class RemainingTime:
    """How long a stage will go on: by its forecast, if it has one, until enough of it was measured."""

    def __init__(self, total: int | None = None, seconds: float | None = None) -> None:
        self._total = total
        self._seconds = seconds
        self._first: tuple[float, float] | None = None

    def measure(self, done: int, share: float | None = None) -> float | None:
        """Return the seconds left when so many units are done, or None while they are not known.

        `share` is that of the work, where units differ. It counts from the first call on, not from the beginning:
        resumed work starts in the middle, and the first step is slow.
        """
        if not self._total:
            return None
        now, share = time.monotonic(), done / self._total if share is None else share
        first, since = self._first = self._first or (share, now)
        measured = share - first
        if self._seconds is not None and measured < _ENOUGH:
            return self._seconds * (1 - share)
        return (now - since) / measured * (1 - share) if measured > 0 else None


class PlainProgress:
    """A line when a stage begins, now and then, and when it ends."""

    def __init__(self) -> None:
        self._stage = ""
        self._total: int | None = None
        self._unit = ""
        self._began = self._last = 0.0
        self._remaining = RemainingTime()

    def start(self, stage: str, *, total: int | None = None, unit: str = "", seconds: float | None = None) -> None:
        """Say what begins."""
        self._stage, self._total, self._unit = stage, total, unit
        self._began = self._last = time.monotonic()
        self._remaining = RemainingTime(total, seconds)
        count = "" if total is None else f": {total:,} {unit}s"
        self.say(f"{stage}{count}{'' if seconds is None else f', about {format_duration(seconds)}'} …")

    def update(self, done: int, **metrics: float) -> None:
        """Say how far it is, at most every few seconds."""
        left = self._remaining.measure(done, metrics.get("share"))
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES:
            return
        self._last = now
        of = f" of {self._total:,}" if self._total else ""
        until = "" if left is None else f", {left:,.0f} s left"
        self.say(f"  {self._unit} {done:,}{of}{until}  {describe_metrics(metrics)}".rstrip())

    def finish(self, note: str = "") -> None:
        """Say how long it took."""
        self.say(f"  done in {time.monotonic() - self._began:.1f} s" + (f": {note}" if note else ""))

    def say(self, line: str) -> None:
        """Write the line."""
        sys.stderr.write(f"{disarm(line)}\n")
        sys.stderr.flush()


class BarProgress:
    """A live bar with loss, speed and remaining time."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bars

        from lorafit.cli.render.tables import SafeConsole

        self._console = SafeConsole(stderr=True)
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", style="progress.download"),
            TextColumn("{task.fields[metrics]}"),
            TextColumn("{task.fields[left]}", style="progress.remaining"),
            console=self._console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # predictions are printed above the bar, unless they go into a pipe
        )
        self._task: TaskID | None = None
        self._stage = self._unit = ""
        self._total: int | None = None
        self._began = 0.0
        self._remaining = RemainingTime()

    def start(self, stage: str, *, total: int | None = None, unit: str = "", seconds: float | None = None) -> None:
        """Show a new bar; a stage without a total gets a pulsing one."""
        self._stage, self._total, self._unit, self._began = stage, total, unit, time.monotonic()
        self._remaining = RemainingTime(total, seconds)
        self._task = self._bars.add_task(stage, total=total, count=self._count(0), metrics="", left=_clock(seconds))
        self._bars.start()

    def update(self, done: int, **metrics: float) -> None:
        """Move the bar."""
        if self._task is not None:
            left = _clock(self._remaining.measure(done, metrics.get("share")))
            described = describe_metrics(metrics)
            self._bars.update(self._task, completed=done, count=self._count(done), metrics=described, left=left)

    def finish(self, note: str = "") -> None:
        """Replace the bar by a line."""
        from rich.text import Text

        self.close()
        text = f" {self._stage}: {time.monotonic() - self._began:.1f} s" + (f", {note}" if note else "")
        self._console.print(Text.assemble(("✓", "green"), text))

    def say(self, line: str) -> None:
        """Print the line above the bar."""
        from rich.text import Text

        self._console.print(Text(f"  {line}", style="dim"))

    def close(self) -> None:
        """Take the bar off the terminal and show the cursor again."""
        self._bars.stop()
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def _count(self, done: int) -> str:
        return "" if self._total is None else f"{done:,}/{self._total:,} {self._unit}s"


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
