"""Progress on standard error: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lorafit.system.progress import Progress, RemainingTime, Silent, count_units, describe_metrics, write_clock
from lorafit.system.text import disarm, format_duration

if TYPE_CHECKING:
    from rich.progress import TaskID


_SECONDS_BETWEEN_LINES = 15.0


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
        self._task = self._bars.add_task(
            stage, total=total, count=count_units(0, total, unit), metrics="", left=write_clock(seconds)
        )
        self._bars.start()

    def update(self, done: int, **metrics: float) -> None:
        """Move the bar."""
        if self._task is not None:
            left = write_clock(self._remaining.measure(done, metrics.get("share")))
            described = describe_metrics(metrics)
            self._bars.update(
                self._task,
                completed=done,
                count=count_units(done, self._total, self._unit),
                metrics=described,
                left=left,
            )

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
