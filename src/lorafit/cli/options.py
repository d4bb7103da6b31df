"""Options that several commands share, alone or in groups that a command takes as one argument."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

import typer

from lorafit.errors import ConfigError, UserInputError
from lorafit.system.hardware import use_threads
from lorafit.system.paths import expand_home
from lorafit.system.text import clean_text
from lorafit.tasks.registry import TASKS

if TYPE_CHECKING:
    from lorafit.config import Config
    from lorafit.experiments.engine import Engine


_SWITCHES: Final = {"data.merge_spellings", "data.accept_labels", "model.force"}
"""Settings that an option can only switch on."""

SOURCES: Final = (
    "builtin:rotten-tomatoes, imdb, hub:owner/name[:subset][@revision], a table (csv, tsv, json, jsonl, parquet, xlsx, "
    "txt; also packed), or a folder with a folder of texts for each label."
)
DataSources = Annotated[
    list[str] | None,
    typer.Argument(metavar="DATA", help=f"{SOURCES} Several files follow each other; or train=A validation=B test=C."),
]
TrainedRun = Annotated[Path, typer.Argument(help="The run folder, or hub:owner/name.")]
RunOrExport = Annotated[
    Path, typer.Argument(help="The run folder, the folder of an exported model, or hub:owner/name.")
]
Method = Annotated[str | None, typer.Option("--method", help="How the encoder is adapted, or auto [lora].")]
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
ClusterAddress = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="Of the Ray cluster [RAY_ADDRESS, or this machine]."),
]
_Base = Annotated[
    Path | None,
    typer.Option("--base", metavar="FOLDER", help="Where the run's base model lies now, if that has moved."),
]
_Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", help="Threads to compute with [what the machine leaves].")
]
_AcceptAltered = Annotated[
    bool, typer.Option("--accept-altered", help="Warn of files that were altered since they were written, and go on.")
]
Blended = Annotated[
    bool, typer.Option("--blend/--no-blend", help="Whether word models have a say, where the run keeps a blend.")
]
ResampledGroups = Annotated[
    str | None,
    typer.Option("--group-column", help="Column of other data whose values are resampled together, in intervals."),
]
SliceColumns = Annotated[
    list[str] | None,
    typer.Option("--slice", metavar="COLUMN", help="Also measure each value of this column (repeatable)."),
]


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How files with texts are read."""

    text_columns: Annotated[
        list[str] | None,
        typer.Option("--text-column", help="Column with the texts [text]; given twice, those of the pairs."),
    ] = None
    bad_rows: Annotated[
        str | None,
        typer.Option("--bad-rows", metavar="HOW", help="Rows that cannot be used: stop, drop or keep [stop]."),
    ] = None
    delimiter: Annotated[str | None, typer.Option("--delimiter", help="Delimiter of csv and tsv files [found].")] = None
    header: Annotated[
        bool | None, typer.Option("--header/--no-header", help="Whether a csv file begins with column names [found].")
    ] = None
    quoting: Annotated[
        str | None, typer.Option("--quoting", help="standard, or none: quotes are plain characters [found].")
    ] = None
    escape: Annotated[str | None, typer.Option("--escape", help="Escape character of csv and tsv files.")] = None
    encoding: Annotated[str | None, typer.Option("--encoding", help="Encoding of text files [found].")] = None
    encoding_errors: Annotated[
        str | None, typer.Option("--encoding-errors", help="Bytes that cannot be decoded: strict or replace [strict].")
    ] = None

    setting_names: ClassVar[Mapping[str, str]] = {
        "bad_rows": "data.bad_rows",
        "delimiter": "data.format.delimiter",
        "header": "data.format.header",
        "quoting": "data.format.quoting",
        "escape": "data.format.escape",
        "encoding": "data.format.encoding",
        "encoding_errors": "data.format.encoding_errors",
    }

    def collect(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the options and `more` give, by dotted name; None where one was not given."""
        given = {setting: getattr(self, option) for option, setting in self.setting_names.items()}
        return given | self._name_columns() | dict(more)

    def _name_columns(self) -> dict[str, Any]:
        """Return the settings of the columns; a ConfigError says which option was given too often."""
        texts = self.text_columns or []
        if len(texts) > 2:
            raise ConfigError(
                f"--text-column was given {len(texts)} times: one column holds the texts, two hold pairs of texts. "
                "Join further columns in the file."
            )
        return dict(zip(("data.text_column", "data.text_pair_column"), texts, strict=False))


@dataclass(frozen=True, kw_only=True)
class RowOptions(TextOptions):
    """How labelled rows are read."""

    label_columns: Annotated[
        list[str] | None,
        typer.Option("--label-column", help="Column with the labels [label]; repeated, columns of 0 and 1."),
    ] = None
    listed_label_columns: Annotated[
        str | None, typer.Option("--label-columns", metavar="A,B,…", help="Columns of 0 and 1, one for each label.")
    ] = None
    label_separator: Annotated[
        str | None, typer.Option("--label-separator", help="Separator between several labels in one cell [found].")
    ] = None
    missing_label: Annotated[
        str | None, typer.Option("--missing-label", help="What stands in a cell without a label, as in -1.")
    ] = None
    merge_spellings: Annotated[
        bool, typer.Option("--merge-spellings", help="Merge labels that differ in upper and lower case alone.")
    ] = False

    setting_names: ClassVar[Mapping[str, str]] = {
        **TextOptions.setting_names,
        "label_separator": "data.label_separator",
        "missing_label": "data.missing_label",
        "merge_spellings": "data.merge_spellings",
    }

    def collect(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that the options and `more` give, by dotted name; None where one was not given."""
        given = super().collect(more)
        return {name: None if value is False and name in _SWITCHES else value for name, value in given.items()}

    def _name_columns(self) -> dict[str, Any]:
        named = list(self.label_columns or ())
        if self.listed_label_columns is not None:
            named += [name.strip() for name in self.listed_label_columns.split(",") if name.strip()]
        labels = {"data.label_column": named[0]} if len(named) == 1 else {"data.label_columns": named or None}
        return super()._name_columns() | labels


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(RowOptions):
    """What is trained on those rows."""

    task: Annotated[
        str | None, typer.Option("--task", help=f"Kind of label: {', '.join(TASKS)} [{next(iter(TASKS))}].")
    ] = None
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="builtin:distil-minilm, a Hub id, a local folder, or a run to go on from."),
    ] = None
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML file with settings.")] = None
    rare_labels: Annotated[
        str | None,
        typer.Option(
            "--rare-labels",
            metavar="HOW",
            help="Labels with too few texts: stop, drop, keep (in train alone) or merge:NAME [stop].",
        ),
    ] = None
    accept_labels: Annotated[
        bool, typer.Option("--accept-labels", help="Train on labels that look wrong, without a question.")
    ] = False
    group_column: Annotated[
        str | None, typer.Option("--group-column", help="Column whose values stay on one side of every split.")
    ] = None
    time_column: Annotated[
        str | None, typer.Option("--time-column", help="Column by which splits are cut: the latest rows test.")
    ] = None
    corrections: Annotated[
        str | None, typer.Option("--corrections", metavar="FILE", help="Corrected labels, from `lorafit check`.")
    ] = None
    class_weights: Annotated[
        str | None, typer.Option("--class-weights", help="balanced: rare labels count more in the loss [none].")
    ] = None
    truncation: Annotated[
        str | None,
        typer.Option("--truncation", metavar="HOW", help="Long texts: head, tail, head+tail or windows [head+tail]."),
    ] = None
    force: Annotated[
        bool, typer.Option("--force", help="Train although the tokenizer does not know half of the text.")
    ] = False
    settings: Settings = None

    setting_names: ClassVar[Mapping[str, str]] = {
        **RowOptions.setting_names,
        "task": "data.task",
        "model": "model.name",
        "rare_labels": "data.rare_labels",
        "accept_labels": "data.accept_labels",
        "group_column": "data.group_column",
        "time_column": "data.time_column",
        "corrections": "data.corrections",
        "class_weights": "training.class_weights",
        "truncation": "model.truncation",
        "force": "model.force",
    }

    def load_config(self, more: Mapping[str, Any]) -> "Config":
        """Return all settings: those of the file, changed by options and `more`, changed by `--set`."""
        from lorafit.config import load_config

        return load_config(self.config, flags=self.collect(more), overrides=self.settings or ())


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions(TrainingOptions):
    """What several runs are trained by."""

    engine: Annotated[
        Literal["local", "ray"], typer.Option("--engine", help="ray: on a cluster, several runs at once.")
    ] = "local"
    address: ClusterAddress = None
    cpus_per_worker: Annotated[
        int, typer.Option("--cpus-per-worker", metavar="N", min=1, help="With Ray: CPUs that each run is trained with.")
    ] = 1

    def open_engine(self) -> "AbstractContextManager[Engine | None]":
        """Return a block in which the engine is there; None in it where this process trains."""
        if self.engine != "ray":
            check_no_cluster({"--address": self.address})
            return nullcontext()
        from lorafit.cluster.engine import open_engine

        return open_engine(self.address, cpus_per_worker=self.cpus_per_worker)


def check_no_cluster(options: Mapping[str, object]) -> None:
    """Refuse options that are for a cluster where there is none.

    Args:
        options: By name; those that were not given are None.

    Raises:
        UserInputError: One was given.
    """
    for name, value in options.items():
        if value is not None:
            raise UserInputError(f"{name} is for a cluster: give --engine ray with it, or leave it out.")


def name_sources(
    words: Sequence[str] | None, *, validation: str | None = None, test: str | None = None
) -> dict[str, Any]:
    """Return the settings that say where rows come from.

    Args:
        words: A source, or files whose rows follow each other; `train=`, `validation=` and `test=` before a name say
            what its rows are for.
        validation: What `--validation` gave.
        test: What `--test` gave.

    Returns:
        Settings by dotted name; None of a source that was not given.

    Raises:
        ConfigError: Two sources are for validation or for test, or one of several is not said to be for anything.
    """
    given: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for word in words or ():
        purpose, sign, name = word.partition("=")
        is_named = bool(sign) and purpose in given and not Path(word).exists()
        given[purpose if is_named else "train"].append(name if is_named else word)
    for purpose in ("validation", "test"):
        if len(given[purpose]) > 1:
            raise ConfigError(f"{purpose}= was given more than once. Give one file, or a pattern in quotes.")
    for purpose, file in (("validation", validation), ("test", test)):
        if file is not None and given[purpose]:
            raise ConfigError(f"{purpose}= and --{purpose} name two files. Give one of them.")
        given[purpose] += [] if file is None else [file]
    train = given["train"]
    return {
        "data.source": train[0] if train else None,
        "data.files": train[1:] or None,
        "data.validation": next(iter(given["validation"]), None),
        "data.test": next(iter(given["test"]), None),
    }


def takes_base(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the option `--base`, by which runs inside it find a base that has moved."""

    def look(base: Path | None) -> AbstractContextManager[object]:
        from lorafit.runs.moved import look_for_bases

        return look_for_bases(base)

    return _add_option(command, "base", _Base, None, look)


def accepts_altered(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the option `--accept-altered`, by which it warns of altered files and goes on."""

    def choose(accept: bool) -> AbstractContextManager[object]:
        from lorafit.system.alterations import choose_about_altered

        return choose_about_altered(accept=accept, say=lambda text: sys.stderr.write(f"{clean_text(text)}\n"))

    return _add_option(command, "accept_altered", _AcceptAltered, default=False, inside=choose)


def takes_threads(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the option `--threads`, which models that it opens take."""
    return _add_option(command, "threads", _Threads, None, use_threads)


def _add_option(
    command: Callable[..., None],
    name: str,
    annotation: object,
    default: object,
    inside: Callable[[Any], AbstractContextManager[object]],
) -> Callable[..., None]:
    """Return a command with one option more, which runs inside what that option's value opens."""
    signature = inspect.signature(command)

    @functools.wraps(command)
    def run(*words: Any, **options: Any) -> None:
        with inside(options.pop(name, default)):
            command(*words, **options)

    option = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
    vars(run)["__signature__"] = signature.replace(parameters=[*signature.parameters.values(), option])
    return run


def take_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as typer calls it.

    A parameter of the type `TextOptions`, or one derived from it, becomes the options of that group. In paths, `~` is
    replaced by the home folder, which a shell does not do in quotes.

    Args:
        command: The command.

    Returns:
        The command with one parameter for each option.
    """
    signature = inspect.signature(command)
    groups: dict[str, Callable[..., TextOptions]] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, TextOptions)
    }
    members = {name: inspect.signature(group).parameters for name, group in groups.items()}

    @functools.wraps(command)
    def run(**options: Any) -> None:
        given = {name: expand_home(value) if isinstance(value, Path) else value for name, value in options.items()}
        taken = {name: {option: given.pop(option) for option in members[name]} for name in groups}
        command(**given, **{name: group(**taken[name]) for name, group in groups.items()})

    parameters = [
        one
        for name, parameter in signature.parameters.items()
        for one in (members[name].values() if name in groups else [parameter])
    ]
    vars(run)["__signature__"] = signature.replace(parameters=parameters)
    return run
