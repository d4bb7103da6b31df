"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Budget",
    "ConfigFile",
    "DropBadRows",
    "InterruptedRun",
    "LabelColumn",
    "LabelSeparator",
    "Model",
    "Output",
    "Overwrite",
    "Quiet",
    "Settings",
    "SliceColumns",
    "TargetAccuracy",
    "Task",
    "TextColumn",
]

Budget = Annotated[
    str | None, typer.Option("--budget", metavar="TIME", help="Time it may take, e.g. 90s, 10m or 1h30m.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set training.epochs=2 (repeatable)."),
]
ConfigFile = Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings.")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="builtin:distil-minilm, a Hub id or a local folder.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Run folder; default: a free name below runs/.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the run folder if it is there.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result.")]
TargetAccuracy = Annotated[
    float | None,
    typer.Option("--target-accuracy", metavar="SHARE", help="Mark answers to abstain so that the others reach it."),
]
InterruptedRun = Annotated[Path | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run.")]
LabelSeparator = Annotated[
    str | None, typer.Option("--label-separator", help="What stands between several labels in one cell [,].")
]
Task = Annotated[
    str | None, typer.Option("--task", help="What a text gets: single_label, multi_label or regression [single_label].")
]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="Column that holds the texts [text].")]
LabelColumn = Annotated[str | None, typer.Option("--label-column", help="Column that holds the labels [label].")]
SliceColumns = Annotated[
    list[str] | None,
    typer.Option("--slice", metavar="COLUMN", help="Tell results apart by this column's values, too (repeatable)."),
]
DropBadRows = Annotated[
    bool, typer.Option("--drop-bad-rows", help="Leave out rows with an empty text or label instead of stopping.")
]
