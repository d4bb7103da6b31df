"""The task and its classes: their names and their order."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from lorafit.errors import DataError, UserInputError

__all__ = ["ClasslessTask", "LabelSet", "Task", "require_single_label"]

Task = Literal["single_label", "multi_label", "regression"]
"""What a text gets: one of several classes, any number of them, or a number."""

ClasslessTask = Literal["multi_label", "regression"]
"""The tasks in which no text has one class."""

_PROBLEM_TYPES: Final[dict[Task, str]] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}


def require_single_label(task: Task, what: str) -> None:
    """Refuse another task for what knows one label a text alone.

    Args:
        task: What a text gets.
        what: What was asked for.

    Raises:
        UserInputError: The task is another.
    """
    if task != "single_label":
        raise UserInputError(f"{what} is for one label a text so far; the task here is {task}.")


@dataclass(frozen=True)
class LabelSet:
    """What a model gives a text, in the order of its outputs.

    Attributes:
        names: One name a class; its position is the class's id. A regression has one, that of its number.
        task: What a text gets.

    Raises:
        DataError: Fewer than two names of classes, an empty one, or one twice.
    """

    names: tuple[str, ...]
    task: Task = "single_label"

    def __post_init__(self) -> None:
        if self.task != "regression" and len(self.names) < 2:
            raise DataError(
                f"A classifier needs at least two different labels, got {len(self.names)}: {list(self.names)}. "
                "Check that the right label column was chosen (--label-column)."
            )
        if any(not name for name in self.names):
            raise DataError(f"Label names must not be empty, got {list(self.names)}.")
        if len(set(self.names)) != len(self.names):
            raise DataError(f"Label names must differ, got {list(self.names)}.")

    @classmethod
    def from_values(cls, values: Iterable[str]) -> "LabelSet":
        """Build the set of the labels seen: whole numbers in numeric order, anything else in alphabetical order.

        Args:
            values: Label of every row, as text.

        Returns:
            The label set.
        """
        distinct = sorted(set(values))
        if all(re.fullmatch(r"-?\d+", value) for value in distinct):
            distinct.sort(key=int)
        return cls(tuple(distinct))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def problem_type(self) -> str:
        """The task by transformers' name, by which its models choose the loss."""
        return _PROBLEM_TYPES[self.task]

    @property
    def id2label(self) -> dict[int, str]:
        """Class id to name."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Name to class id."""
        return {name: index for index, name in enumerate(self.names)}
