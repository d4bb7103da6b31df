"""What long work tells while it runs, and how that is put into words. Who wants to see it passes a `Progress`."""

import datetime
import time
from typing import Final, Protocol

_ENOUGH: Final = 0.05
"""Share of a stage after which its own speed counts, and no longer the forecast."""


class Progress(Protocol):
    """Receives the stages of a long job. Calls come in order: `start`, any number of `update`, `finish`."""

    def start(self, stage: str, *, total: int | None = None, unit: str = "", seconds: float | None = None) -> None:
        """Begin a stage.

        Args:
            stage: What is being done, as a short phrase ("training").
            total: How many units it has, or None if that is unknown.
            unit: What is counted ("step", "text").
            seconds: How long it will take, as far as that was foreseen.
        """

    def update(self, done: int, **figures: float) -> None:
        """Report that `done` units of the current stage are finished, with figures such as `loss`.

        `share` is the share of the work that they are, 0 to 1, where units take different times.
        """

    def finish(self, note: str = "") -> None:
        """End the current stage, with a short result if there is one."""

    def say(self, line: str) -> None:
        """Pass on a line that the user should see."""


class Silent:
    """A `Progress` that says nothing."""

    def start(self, stage: str, *, total: int | None = None, unit: str = "", seconds: float | None = None) -> None:
        """Ignore it."""

    def update(self, done: int, **figures: float) -> None:
        """Ignore it."""

    def finish(self, note: str = "") -> None:
        """Ignore it."""

    def say(self, line: str) -> None:
        """Ignore it."""


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


def count_units(done: int, total: int | None, unit: str) -> str:
    """Write how many units of how many are done; nothing where their number is not known."""
    return "" if total is None else f"{done:,}/{total:,} {unit}s"


def write_clock(seconds: float | None) -> str:
    """Write the time that is left as a clock does; nothing where it is not known."""
    return "" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
