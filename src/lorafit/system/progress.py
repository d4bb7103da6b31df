"""What long work tells while it runs. The library prints nothing: a caller passes a `Progress` that does."""

from typing import Protocol


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
