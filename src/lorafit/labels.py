"""The classes of a task: their names and their order."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lorafit.errors import DataError

__all__ = ["LabelSet"]


@dataclass(frozen=True)
class LabelSet:
    """The classes of a single-label task, in the order of the model's outputs.

    Attributes:
        names: One name a class; its position is the class's id.

    Raises:
        DataError: Fewer than two names, an empty one, or one twice.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2:
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
    def id2label(self) -> dict[int, str]:
        """Class id to name."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Name to class id."""
        return {name: index for index, name in enumerate(self.names)}
