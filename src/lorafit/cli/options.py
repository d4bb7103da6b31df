"""Options that several commands share, alone or in groups that a command takes as one argument."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

import typer

from lorafit.errors import UserInputError
from lorafit.tasks.registry import TASKS

if TYPE_CHECKING:
    from lorafit.config import Config


SOURCES: Final = "builtin:rotten-tomatoes, imdb, hub:owner/name, or a csv, tsv, jsonl or parquet file."
DataSource = Annotated[str, typer.Argument(help=SOURCES)]
TrainedRun = Annotated[Path, typer.Argument(help="The run folder.")]
RunOrExport = Annotated[Path, typer.Argument(help="The run folder, or the folder of an exported model.")]
Method = Annotated[str | None, typer.Option("--method", help="How the encoder is adapted [lora].")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set training.epochs=2 (repeatable)."),
]
Budget = Annotated[str | None, typer.Option("--budget", metavar="TIME", help="Time limit, e.g. 90s, 10m or 1h30m.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; default: a free name below runs/.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run folder if it exists.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result.")]
TargetAccuracy = Annotated[
    float | None,
    typer.Option(
        "--target-accuracy",
        metavar="SHARE",
        help="Accuracy that accepted predictions should reach; the others are marked to abstain.",
    ),
]
SliceColumns = Annotated[
    list[str] | None,
    typer.Option("--slice", metavar="COLUMN", help="Also measure each value of this column (repeatable)."),
]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="Column with the texts [text].")]
DropBadRows = Annotated[
    bool, typer.Option("--drop-bad-rows", help="Skip rows without a text or label instead of stopping.")
]


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """How labelled rows are read."""

    text_column: TextColumn = None
    label_column: Annotated[str | None, typer.Option("--label-column", help="Column with the labels [label].")] = None
    label_separator: Annotated[
        str | None, typer.Option("--label-separator", help="Separator between several labels in one cell [,].")
    ] = None
    drop_bad_rows: DropBadRows = False

    setting_names: ClassVar[Mapping[str, str]] = {
        "text_column": "data.text_column",
        "label_column": "data.label_column",
        "label_separator": "data.label_separator",
        "drop_bad_rows": "data.drop_bad_rows",
    }

    def collect(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the options and `more` give, by dotted name; None where one was not given."""
        given = {setting: getattr(self, option) for option, setting in self.setting_names.items()}
        return {name: None if value is False or value == [] else value for name, value in (given | dict(more)).items()}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RowOptions):
    """What is trained on those rows."""

    task: Annotated[
        str | None, typer.Option("--task", help=f"Kind of label: {', '.join(TASKS)} [{next(iter(TASKS))}].")
    ] = None
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="builtin:distil-minilm, a Hub id or a local folder.")
    ] = None
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings.")] = None
    settings: Settings = None

    setting_names: ClassVar[Mapping[str, str]] = {
        **RowOptions.setting_names,
        "task": "data.task",
        "model": "model.name",
    }

    def load_config(self, more: Mapping[str, Any]) -> "Config":
        """Return all settings: those of the file, changed by options and `more`, changed by `--set`."""
        from lorafit.config import load_config

        return load_config(self.config, flags=self.collect(more), overrides=self.settings or ())


def take_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as typer calls it.

    A parameter of the type `RowOptions` or `TrainingOptions` becomes the options of that group. In paths, `~` is
    replaced by the home folder, which a shell does not do in quotes.

    Args:
        command: The command.

    Returns:
        The command with one parameter for each option.
    """
    signature = inspect.signature(command)
    groups: dict[str, Callable[..., RowOptions]] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, RowOptions)
    }
    members = {name: inspect.signature(group).parameters for name, group in groups.items()}

    @functools.wraps(command)
    def run(**options: Any) -> None:
        given = {name: _expand_home(value) if isinstance(value, Path) else value for name, value in options.items()}
        taken = {name: {option: given.pop(option) for option in members[name]} for name in groups}
        command(**given, **{name: group(**taken[name]) for name, group in groups.items()})

    parameters = [
        one
        for name, parameter in signature.parameters.items()
        for one in (members[name].values() if name in groups else [parameter])
    ]
    vars(run)["__signature__"] = signature.replace(parameters=parameters)
    return run


def _expand_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserInputError(
            f"{path}: there is no user {path.parts[0][1:]} with a home folder. If the name itself begins with ~, "
            f"write ./{path}"
        ) from error
