"""The tasks there are. A new one is a file in this package, a line here and a row in `reports.plots.PLOTS`."""

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from lorafit.tasks.base import Task


TASKS: Final = {
    "single_label": "lorafit.tasks.single_label:SingleLabel",
    "multi_label": "lorafit.tasks.multi_label:MultiLabel",
    "regression": "lorafit.tasks.regression:Regression",
    "ordinal": "lorafit.tasks.ordinal:Ordinal",
}
"""Module and class by name. They are imported when asked for: `lorafit --help` loads neither numpy nor pydantic."""

CLASSIFICATION: Final = "single_label"
"""What scikit-learn calls that."""

REGRESSION: Final = "regression"


def get_task(name: str) -> "type[Task]":
    """Return the class of a task by its name, a key of `TASKS`."""
    module, _, attribute = TASKS[name].partition(":")
    task: type[Task] = getattr(import_module(module), attribute)
    return task


def build_task(name: str, label_names: Sequence[str]) -> "Task":
    """Return a task with its labels, as a record holds them."""
    return get_task(name)(tuple(label_names))


class _KnownName:
    """Lets pydantic, which is not imported before it is needed, check the name of a task."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":  # noqa: ANN401
        from pydantic_core import PydanticCustomError, core_schema

        def check(name: str) -> str:
            if name not in TASKS:
                raise PydanticCustomError("task", "allowed are {names}", {"names": ", ".join(TASKS)})
            return name

        return core_schema.no_info_after_validator_function(check, handler(source))


TaskName = Annotated[str, _KnownName]
"""A key of `TASKS`, checked by pydantic."""
