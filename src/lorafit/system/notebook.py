"""Progress in a Jupyter notebook: a bar in the output of the cell, which needs no extension."""

import html
import sys
import time
from importlib import import_module
from typing import Any, Final
from uuid import uuid4

from lorafit.system.progress import (
    Progress,
    RemainingTime,
    Silent,
    count_units,
    describe_metrics,
    write_clock,
)
from lorafit.system.text import disarm

_SECONDS_BETWEEN_UPDATES: Final = 0.2


def progress_here() -> Progress:
    """Return what shows progress in a notebook, and silence anywhere else: the library prints nothing there."""
    ipython: Any = sys.modules.get("IPython")
    shell: Any = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is None:
        return Silent()
    progress = NotebookProgress()

    def close(result: Any) -> None:  # noqa: ANN401 - IPython has no types
        shell.events.unregister("post_run_cell", close)
        if not result.success:
            progress.close()

    shell.events.register("post_run_cell", close)
    return progress


class NotebookProgress:
    """The stages that are done, a line each, and a bar for the one under way."""

    def __init__(self) -> None:
        self._id: str | None = None
        self._lines: list[str] = []
        self._now: tuple[str, str] | None = None  # the stage under way: a line, and its bar
        self._stage = self._unit = ""
        self._total: int | None = None
        self._began = self._shown = 0.0
        self._remaining = RemainingTime()

    def start(self, stage: str, *, total: int | None = None, unit: str = "", seconds: float | None = None) -> None:
        """Show a new bar; that of a stage without a total only moves."""
        self._stage, self._total, self._unit, self._began = stage, total, unit, time.monotonic()
        self._remaining = RemainingTime(total, seconds)
        self._show(0, write_clock(seconds))

    def update(self, done: int, **metrics: float) -> None:
        """Move the bar, a few times a second at most."""
        left = write_clock(self._remaining.measure(done, metrics.get("share")))
        if time.monotonic() - self._shown >= _SECONDS_BETWEEN_UPDATES:
            self._show(done, left and f"{left} left", describe_metrics(metrics))

    def finish(self, note: str = "") -> None:
        """Replace the bar by a line."""
        self._now = None
        self.say(f"✓ {self._stage}: {time.monotonic() - self._began:.1f} s" + (f", {note}" if note else ""))

    def say(self, line: str) -> None:
        """Add the line above the bar."""
        self._lines.append(line)
        self._display()

    def close(self) -> None:
        """Replace the bar of a stage that an error or an interruption ended; the cell is over then."""
        if self._now is not None:
            self._now = None
            self.say(f"✗ {self._stage}: stopped after {time.monotonic() - self._began:.1f} s")

    def _show(self, done: int, *figures: str) -> None:
        """Show the bar below the lines."""
        self._shown = time.monotonic()
        place = "" if self._total is None else f' value="{done}" max="{self._total}"'
        parts = [self._stage, count_units(done, self._total, self._unit), *figures]
        self._now = "  ".join(filter(None, parts)), f"<progress{place}></progress>"
        self._display()

    def _display(self) -> None:
        line, bar = self._now or (None, "")
        text = disarm("\n".join([*self._lines, *([] if line is None else [line])]))
        page = f'<pre style="margin: 0">{html.escape(text)}</pre>{bar}'
        display = import_module("IPython.display").display
        begun, self._id = self._id is not None, self._id or uuid4().hex
        display({"text/plain": text, "text/html": page}, raw=True, display_id=self._id, update=begun)
