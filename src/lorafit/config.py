"""Every setting of a run, with its type, range, default and meaning; read from YAML and written back resolved.

The evidence for the defaults is in `docs/explanation/defaults.md`.
"""

import difflib
import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args
from urllib.parse import unquote

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from lorafit.errors import ConfigError
from lorafit.system import limits
from lorafit.system.files import read_file, show_path
from lorafit.system.paths import expand_home
from lorafit.system.plain_yaml import UnusableYamlError, parse_yaml
from lorafit.system.text import clean_text, format_count, parse_duration, show_value
from lorafit.tasks.baselines import WORD_MODELS
from lorafit.tasks.records import Resampling
from lorafit.tasks.registry import TaskName

TargetGroup = Literal["all-linear", "attention", "query-value", "value", "feed-forward", "key-value-down"]
"""Named groups of linear layers of the encoder that an adapter can be put on."""


TruncationPolicy = Literal["head", "tail", "head+tail", "windows"]
"""What becomes of a text that is too long."""


VALIDATION_FRACTION = 0.1
"""Share of train cut off for validation where the settings do not say, and rows are not few."""

_FLAGS = {
    "data.label_columns": "--label-column",
    "data.slice_columns": "--slice",
    "data.source": "DATA",
    "data.text_pair_column": "--text-column",
    "method.name": "--method",
    "model.name": "--model",
}
"""Options that are not called as the settings they give."""

SQLITE, JOURNAL = "sqlite", "journal"
"""Those of `search.storage` that are files in the folder of the search."""

_DATABASE = re.compile(
    r"postgresql(\+psycopg)?://([^/?#:@\s]+@)?(\[[0-9a-fA-F:.]+\]|[^/?#:@\s]*)(:[0-9]{1,5})?/[^/?#:@\s]+(\?[^#@\s]*)?"
)
_PASSWORD = re.compile(r":/*[^/:@]*:.*@|\?.*passw", re.IGNORECASE)
"""What looks like one, or names one, in a URL of a database, even one that is not well formed."""
_LARGEST = (1 << 63) - 1
_MOST_FAULTS = 12
_LONGEST_KEY = 80
_FEWEST_TOKENS = 8

_NO_FLAG = {
    "data.calibration_fraction",
    "data.max_rows",
    "data.rename_labels",
    "data.seed",
    "data.test_fraction",
    "data.validation_fraction",
}
"""Settings of the data that no option gives but `--set`."""


if TYPE_CHECKING:  # by a name that is not public, which nothing but the check of types depends on
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Explained(ModelMetaclass):
    """Makes what Python code calls tell of settings what the command line tells; pydantic makes the sections within."""

    def __call__(self, *values: Any, **named: Any) -> Any:  # noqa: ANN401 - a section of the class that is called
        try:
            return super().__call__(*values, **named)
        except ValidationError as error:
            raise _explain(error, within=_name_section(self)) from error


class Section(BaseModel, metaclass=_Explained):
    """A section of the settings: unknown keys are refused, and values are checked on assignment, too.

    Raises:
        ConfigError: Settings are unknown or out of range; the message lists all of them.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid",
        validate_assignment=True,
        coerce_numbers_to_str=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        hide_input_in_errors=True,
    )

    def __setattr__(self, name: str, value: Any) -> None:  # noqa: ANN401 - of a setting of any type
        values, given = dict(self.__dict__), set(self.model_fields_set)
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            self.__dict__.update(values)  # pydantic checks settings against each other once it has set them
            self.__pydantic_fields_set__.intersection_update(given)
            raise _explain(error, within=_name_section(type(self))) from error

    @field_validator("*", mode="before")
    @classmethod
    def _check_size(cls, value: object) -> object:
        if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
            raise PydanticCustomError("size", "whole numbers must be below 2**63 in size")
        return value


class FormatConfig(Section):
    """How text files are written; what is absent is found in each file."""

    delimiter: str | None = Field(
        None, min_length=1, max_length=1, description="Delimiter of csv and tsv files; found when absent."
    )
    header: bool | None = Field(
        None, description="Whether csv and tsv files begin with column names; found when absent."
    )
    quoting: Literal["standard", "none"] | None = Field(
        None, description="standard: a field may stand in quotes; none: quotes are plain characters; found when absent."
    )
    escape: str | None = Field(
        None, min_length=1, max_length=1, description="Character that takes the meaning from the one after it."
    )
    encoding: str | None = Field(None, min_length=1, description="Encoding of text files; found when absent.")
    encoding_errors: Literal["strict", "replace"] = Field(
        "strict", description="strict: a row with undecodable bytes is a bad row; replace: they become U+FFFD."
    )

    @field_validator("delimiter", mode="before")
    @classmethod
    def _read_tab(cls, delimiter: object) -> object:
        return "\t" if delimiter == "\\t" else delimiter  # as it is typed in a shell


class DataConfig(Section):
    """What to train and test on, and how it is split into rows for each purpose."""

    source: str = Field(
        "builtin:rotten-tomatoes",
        description="builtin:rotten-tomatoes, imdb, hub:owner/name[:subset][@revision], a file with a table, a "
        "pattern of files, or a folder with a folder of texts for each label.",
    )
    files: list[str] = Field(default_factory=list, description="Further files, whose rows follow those of source.")
    validation: str | None = Field(None, description="File with validation rows; cut from train when absent.")
    test: str | None = Field(None, description="File with test rows; cut from train when the source has none.")
    task: TaskName = Field(
        "single_label",
        description="What a text gets: one label, any number of labels (multi_label), a number (regression), or one of "
        "several whole numbers in order (ordinal).",
    )
    format: FormatConfig = Field(FormatConfig(), description="How text files are written.")
    text_column: str = Field("text", min_length=1, description="Column that holds the texts.")
    text_pair_column: str | None = Field(
        None, min_length=1, description="Column that holds the second text of each pair; for single texts absent."
    )
    label_column: str = Field("label", min_length=1, description="Column that holds the labels.")
    label_columns: list[str] = Field(
        default_factory=list,
        description="Columns of 0 and 1, one for each label of multi_label, instead of one column.",
    )
    label_separator: str | None = Field(
        None, min_length=1, description="Separator of several labels in one cell that is no list; found when absent."
    )
    missing_label: str | None = Field(
        None, min_length=1, description="What stands in a cell without a label, as in -1."
    )
    merge_spellings: bool = Field(False, description="Merge labels that differ in upper and lower case alone.")
    accept_labels: bool = Field(False, description="Train on labels that look wrong.")
    rare_labels: str = Field(
        "stop",
        description="What becomes of labels with too few texts to be in every split: stop, drop their rows, keep them "
        "in train alone, or merge:NAME, which makes them one label.",
    )
    rename_labels: dict[str, str] = Field(
        default_factory=dict, description="New name by old one of labels; a run writes here which rare ones it merged."
    )
    group_column: str | None = Field(
        None, min_length=1, description="Column whose values are never split up: all rows of an author, say."
    )
    time_column: str | None = Field(
        None, min_length=1, description="Column by which splits are cut: the latest rows test, those before validate."
    )
    corrections: str | None = Field(None, description="File with corrected labels, as `lorafit check` writes it.")
    validation_fraction: float | None = Field(
        None,
        ge=0,
        lt=0.5,
        description="Share of train cut off for validation; 0 for none, so that all rows train and cross-fitting "
        "calibrates. When absent 0.1, or 0 of fewer than 400 rows.",
    )
    test_fraction: float = Field(0.1, gt=0, lt=0.5, description="Share of train cut off for test.")
    bad_rows: Literal["stop", "drop", "keep"] = Field(
        "stop",
        description="Rows that cannot be used: stop with a list of all, drop them, or keep them: predictions have an "
        "empty row for each, and labels that the model does not know count as wrong.",
    )
    calibration_fraction: float = Field(
        0.5, ge=0, lt=1, description="Share of the validation rows held out for calibration; 0 for none."
    )
    slice_columns: list[str] = Field(
        default_factory=list, description="Columns whose values define slices of the results."
    )
    max_rows: int | None = Field(None, ge=2, description="Largest number of training rows (stratified sample).")
    seed: int = Field(0, ge=0, lt=1 << 32, description="Seed of the splits and of the sample.")

    @field_validator("source", "validation", "test", mode="before")
    @classmethod
    def _check_is_name(cls, source: object) -> object:
        if source is not None and not isinstance(source, str):
            raise PydanticCustomError("name", "a name is needed; a table goes to lorafit.train(config, data=table)")
        return source

    @field_validator("rare_labels")
    @classmethod
    def _check_rare_labels(cls, rare_labels: str) -> str:
        if not re.fullmatch(r"stop|drop|keep|merge:.+", rare_labels):
            raise PydanticCustomError("rare_labels", "allowed are stop, drop, keep and merge:NAME")
        return rare_labels

    @model_validator(mode="after")
    def _check_cuts(self) -> Self:
        if self.group_column is not None and self.time_column is not None:
            raise PydanticCustomError("cuts", "splits are cut by group_column or by time_column, not by both")
        return self

    def holding_out(self) -> Self:
        """Set validation rows aside, however few rows there are: for what chooses by them.

        Returns:
            The settings that do.

        Raises:
            ConfigError: The settings want none.
        """
        if self.validation_fraction == 0 and self.validation is None:
            raise ConfigError(
                "data.validation_fraction=0 leaves no rows to choose by. Leave it out, or give a file of validation "
                "rows with --validation."
            )
        fraction = VALIDATION_FRACTION if self.validation_fraction is None else self.validation_fraction
        return self.model_copy(update={"validation_fraction": fraction})

    def for_source(self, source: str, *, group_column: str | None = None) -> Self:
        """Return the settings for another source: without what is about the files and rows of this one."""
        none = dict.fromkeys(("validation", "test", "max_rows", "time_column", "corrections"))
        return self.model_copy(update={"source": source, "files": [], "group_column": group_column, **none})


class ModelConfig(Section):
    """The pre-trained encoder, and how texts are truncated."""

    name: str = Field(
        "distilbert-base-uncased",
        min_length=1,
        description="builtin:distil-minilm, a Hugging Face Hub id, a local folder, or a run to go on from.",
    )
    revision: str | None = Field(None, description="Branch, tag or commit on the Hub.")
    max_length: int = Field(256, ge=_FEWEST_TOKENS, description="Longest input in tokens, special tokens included.")
    truncation: TruncationPolicy = Field(
        "head+tail",
        description="What is kept of a text that is too long: its head, its tail, its beginning (a quarter) and its "
        "end, or all of it in windows, whose logits are averaged.",
    )
    window_stride: int | None = Field(
        None,
        ge=1,
        description="Tokens from the begin of a window to the next, at most a window; half a window when absent.",
    )
    force: bool = Field(False, description="Train although the tokenizer does not know half of the text.")

    @model_validator(mode="after")
    def _check_stride(self) -> Self:
        if self.window_stride is not None and self.truncation != "windows":
            raise PydanticCustomError(
                "stride",
                "window_stride is for texts that are read in windows: add --truncation windows, or leave it out "
                "(--set model.window_stride=null)",
            )
        return self


class MethodConfig(Section):
    """How the encoder is adapted; absent values are the method's defaults."""

    name: str = Field(
        "lora", description="A method of the METHODS table, or auto: of embedding, setfit and lora what suits the data."
    )
    r: int | None = Field(None, ge=1, description="Rank of the adapter.")
    lora_alpha: int | None = Field(None, ge=1, description="The update is scaled by lora_alpha / r.")
    lora_dropout: float | None = Field(None, ge=0, lt=1, description="Dropout on the adapter's input.")
    loraplus_lr_ratio: float | None = Field(
        None, gt=0, description="LoRA+: the learning rate of the adapter's B, as a multiple of A's."
    )
    virtual_tokens: int | None = Field(
        None, ge=1, description="Number of learned tokens before the text; they count towards max_length."
    )
    reduction_factor: int | None = Field(
        None, ge=1, description="How many times narrower than the encoder bottleneck adapters are."
    )
    target_modules: TargetGroup | Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="A group of linear layers, or a list of module names (whole names or their last parts)."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Further arguments of the method's PEFT config.")
    layers: str = Field("all", description="Encoder layers to adapt: all, or the last ones, such as top3.")

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, layers: str) -> str:
        if not re.fullmatch(r"all|top[1-9][0-9]*", layers):
            raise PydanticCustomError("layers", "allowed are all, and top1, top2, … for the last layers")
        return layers


_Number = TypeVar("_Number", int, float)


def _require_complete(value: _Number | None) -> _Number:
    if value is None:
        raise ValueError("the settings were not completed")
    return value


class TrainingConfig(Section):
    """The optimization with AdamW and a learning rate that rises and falls."""

    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate; when absent the method's default, less for an adapter of few rows.",
    )
    head_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the head; when absent learning_rate, or the method's default."
    )
    schedule: Literal["linear", "cosine"] = Field(
        "cosine",
        description="How the learning rate decays to 0 after warm-up; cosine with warmup_ratio=0.3 is one-cycle.",
    )
    epochs: int | None = Field(
        None, ge=1, description="Passes over the training rows; by their number when absent: 2, or more of few rows."
    )
    max_steps: int | None = Field(None, ge=1, description="Number of optimizer steps, instead of epochs.")
    length_warmup: int | None = Field(
        None,
        ge=0,
        description="Longest text in tokens in the first half of the steps, 8 at least; 0 leaves all as long as they "
        "are, and so are windows. When absent 128, of 1,280 rows and more, where all layers learn and inputs may be "
        "twice as long. With setfit that of all pairs' texts: 128 when absent or 0.",
    )
    budget: str | None = Field(
        None, description="Time for the whole run, such as 90s, 10m or 1h30m; the best settings that fit are chosen."
    )
    batch_size: int | None = Field(
        None, ge=1, description="Largest number of rows in a batch; by that of training rows when absent: 32, or fewer."
    )
    batch_tokens: int = Field(4096, ge=8, description="Largest number of tokens in a batch, with padding.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's decoupled weight decay.")
    warmup_ratio: float = Field(0.3, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    max_grad_norm: float = Field(1.0, gt=0, description="Largest gradient norm; larger gradients are clipped.")
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: rows count in the loss in inverse proportion to the frequency of their label."
    )
    loss: Literal["cross_entropy", "focal"] = Field(
        "cross_entropy", description="focal: rows that are right already count less (Lin et al. 2017)."
    )
    focal_gamma: float = Field(2.0, gt=0, description="How much less, of the focal loss.")
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled", description="balanced: every epoch draws as many rows of each label, rare ones repeatedly."
    )
    base_dropout: bool = Field(False, description="Keep the dropout of the encoder's own config in training.")
    evaluations_per_epoch: int | None = Field(
        None, ge=1, description="Number of validations per epoch; when absent 2, or 1 where epochs are many."
    )
    early_stopping_patience: int = Field(
        4, ge=0, description="Stop after so many validations without a lower loss; 0 never stops early."
    )
    on_divergence: Literal["stop", "retry"] = Field(
        "stop",
        description="retry: when losses or gradients are no longer numbers, go on once from the best checkpoint, in "
        "fp32 where bf16 is too coarse, else with a fifth of the learning rate.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a CUDA GPU where torch finds one.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto takes bf16 where the processor multiplies in bf16, else fp32."
    )
    blend: str = Field(
        "auto",
        description="Word models that are blended with the encoder where held-out rows show that it helps: auto takes "
        "the task's first, off none; or names of baselines, with commas.",
    )
    prefix_cache: Literal["auto", "shared", "never"] = Field(
        "auto",
        description="Cache the hidden states of frozen lower layers on disk: auto for runs of several epochs and for "
        "all runs of a comparison or a search, shared in lorafit's cache for later runs, too.",
    )
    prefix_cache_gb: float = Field(10.0, gt=0, description="Largest size of the prefix cache, in GB.")
    track: list[Literal["tensorboard", "mlflow"]] = Field(
        default_factory=list, description="Trackers that parameters, learning curves and metrics are logged to."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; all that the process may use when absent.")
    seed: int = Field(0, ge=0, lt=1 << 32, description="Seed of the head, the order of the batches, and the dropout.")

    @field_validator("blend", mode="before")
    @classmethod
    def _read_off(cls, blend: object) -> object:
        return "off" if blend is False else blend  # as YAML reads it

    @property
    def peak_learning_rate(self) -> float:
        """`learning_rate`, which `complete_settings` has set."""
        return _require_complete(self.learning_rate)

    @property
    def epoch_count(self) -> int:
        """`epochs`, which `complete_schedule` has set."""
        return _require_complete(self.epochs)

    @property
    def batch_rows(self) -> int:
        """`batch_size`, which `complete_schedule` has set."""
        return _require_complete(self.batch_size)

    @property
    def validations_per_epoch(self) -> int:
        """`evaluations_per_epoch`, which `complete_schedule` has set."""
        return _require_complete(self.evaluations_per_epoch)

    @property
    def balancing(self) -> list[str]:
        """The settings by which some rows count more than others, as one may type them."""
        plain = {"class_weights": "none", "loss": "cross_entropy", "sampling": "shuffled"}
        return [f"training.{name}={getattr(self, name)}" for name, off in plain.items() if getattr(self, name) != off]

    def name_members(self, baselines: Iterable[str]) -> tuple[str, ...]:
        """Return the word models that are blended with the encoder.

        Args:
            baselines: Names of the task's baselines.

        Returns:
            Their names.

        Raises:
            ConfigError: One is named that the task does not have, or that is no word model.
        """
        known = [name for name in baselines if name in WORD_MODELS]
        if self.blend in ("auto", "off"):
            return tuple(known[:1]) if self.blend == "auto" else ()
        names = list(dict.fromkeys(name.strip() for name in self.blend.split(",")))
        for name in names:
            if name == "embedding":
                raise ConfigError(
                    "training.blend: embedding cannot be blended, as every prediction would need a second pass of an "
                    f"encoder. Allowed are auto, off and {', '.join(known)}."
                )
            if name not in known:
                raise ConfigError(
                    f"training.blend: there is no word model '{clean_text(name, most=_LONGEST_KEY)}' for this task. "
                    f"Allowed are auto, off and {', '.join(known)}, several with commas."
                )
        return tuple(names)

    @property
    def gamma(self) -> float:
        """The exponent of the focal loss, 0 without it."""
        return self.focal_gamma if self.loss == "focal" else 0.0

    @field_validator("length_warmup")
    @classmethod
    def _check_length_warmup(cls, length: int | None) -> int | None:
        if length is not None and 0 < length < _FEWEST_TOKENS:
            raise PydanticCustomError("length", f"allowed are 0 and {_FEWEST_TOKENS} tokens or more")
        return length

    @field_validator("budget")
    @classmethod
    def _check_budget(cls, budget: str | None) -> str | None:
        if budget is not None and parse_duration(budget) is None:
            raise PydanticCustomError("duration", "a time is written like 90s, 10m, 1h30m or 1h")
        return budget


class EvaluationConfig(Section):
    """How results are measured."""

    before: bool = Field(True, description="Measure the model before training, too.")
    baselines: bool = Field(
        True,
        description="Train NB-SVM, and logistic or, for numbers, ridge regression on TF-IDF and on what the encoder "
        "gives before training, for comparison; what gives every row the same is always compared with.",
    )
    coverage: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="Share of texts whose true label is in the conformal set, or whose true number in the interval.",
    )
    target_accuracy: float | None = Field(
        None, gt=0, lt=1, description="Target accuracy of the predictions that do not abstain."
    )
    report: bool = Field(True, description="Write report.html at the end of a run.")
    report_texts: bool = Field(True, description="Show sample texts and mistakes in the report.")
    confidence_level: float = Field(0.95, gt=0.5, lt=1, description="Confidence level of the intervals.")
    bootstrap_samples: int = Field(2000, ge=100, le=100_000, description="Bootstrap samples per interval.")
    seed: int = Field(0, ge=0, lt=1 << 32, description="Seed of the bootstrap.")

    @property
    def resampling(self) -> Resampling:
        """How confidence intervals are computed."""
        return Resampling(self.confidence_level, self.bootstrap_samples, self.seed)


class SearchRange(Section):
    """A range of numbers for a setting in a search, both ends included."""

    low: int | float = Field(description="Lowest value.")
    high: int | float = Field(description="Highest value.")
    log: bool = Field(False, description="Whether values are drawn on a logarithmic scale.")

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.low >= self.high:
            raise PydanticCustomError("range", "low must be below high")
        if self.log and self.low <= 0:
            raise PydanticCustomError("range", "a logarithmic range must begin above 0")
        return self


_Varied = Annotated[
    Annotated[list[Any], Field(min_length=1), Tag("list")] | Annotated[SearchRange, Tag("range")],
    Discriminator(lambda given: "range" if isinstance(given, dict | SearchRange) else "list"),
]
"""What a setting is varied over, of which only the one that is given is spoken of when it cannot be used."""


class SearchConfig(Section):
    """What `lorafit search` tries; other commands ignore it."""

    space: dict[str, _Varied] = Field(
        default_factory=dict,
        description="Settings to vary, each a list of values, or low, high and log; the method's own when empty.",
    )
    pruning: bool = Field(
        True,
        description="Stop a trial whose loss is above the median of the complete ones at the same share of its steps.",
    )
    seed: int = Field(0, ge=0, lt=1 << 32, description="Seed of the sampler.")
    storage: str = Field(
        SQLITE,
        description="Where trials are kept: sqlite or journal, in the folder, or postgresql://USER@HOST/DATABASE; of "
        "these, sqlite is for one machine.",
    )

    @field_validator("storage")
    @classmethod
    def _check_storage(cls, storage: str) -> str:
        if storage in {SQLITE, JOURNAL}:
            return storage
        if _PASSWORD.search(unquote(storage)):
            raise PydanticCustomError(
                "storage", "leave the password out, as records would hold it: put it into PGPASSWORD or ~/.pgpass"
            )
        if not _DATABASE.fullmatch(storage):
            raise PydanticCustomError("storage", "give sqlite, journal or postgresql://USER@HOST/DATABASE")
        return storage

    @property
    def has_database(self) -> bool:
        """Whether trials are kept by a server, not in a file of the folder."""
        return self.storage not in {SQLITE, JOURNAL}

    @field_validator("space", mode="before")
    @classmethod
    def _flatten(cls, space: object) -> object:
        return dict(flatten(space)) if isinstance(space, dict) else space


def flatten(space: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names: `method: {r: [4, 8]}` is the same as `method.r: [4, 8]`."""
    for name, value in space.items():
        if isinstance(value, dict) and not {"low", "high"} & set(value):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


class Config(Section):
    """All settings of a run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    method: MethodConfig = MethodConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    search: SearchConfig = SearchConfig()

    @field_validator("data", mode="before")
    @classmethod
    def _check_is_section(cls, data: object) -> object:
        if not isinstance(data, DataConfig | dict):
            raise PydanticCustomError(
                "section", "settings are needed; a table goes to lorafit.train(config, data=table)"
            )
        return data

    def wants_prefix_cache(self, *, steps_per_epoch: int, frozen: int, again: bool = False) -> bool:
        """Return whether caching the hidden states of the `frozen` lowest layers pays: they are read more than once.

        `again` says that later runs read them, too.
        """
        training = self.training
        repeats = (training.max_steps or training.epoch_count * steps_per_epoch) > steps_per_epoch
        pays = training.prefix_cache == "shared" or (training.prefix_cache == "auto" and (repeats or again))
        return pays and frozen > 0

    def to_yaml(self) -> str:
        """Return all settings, defaults included, as YAML for `load_config`; an unused search section is left out.

        So is SQLite as storage, which searches of before there were others do not name.
        """
        is_plain = self.search == SearchConfig()
        values = self.model_dump(mode="json", exclude={"search"} if is_plain else None)
        if self.search.storage == SQLITE and not is_plain:
            del values["search"]["storage"]
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def load_config(
    path: Path | None = None,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Iterable[str] = (),
) -> Config:
    """Load the settings: defaults, overridden by the file, by the flags, and by the overrides.

    Args:
        path: YAML file with any of the sections of `Config`, or None.
        flags: Dotted key to value; None means that the flag was not given.
        overrides: Strings of the form `section.key=value`, the value in YAML.

    Returns:
        The checked settings.

    Raises:
        ConfigError: The file cannot be read, or settings are unknown or out of range; the message lists all of them.
    """
    path = None if path is None else expand_home(path)
    values = _read_yaml(path) if path is not None else {}
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    for key, value in given.items():
        _set_dotted(values, key, value)
    for number, override in enumerate(overrides, start=1):
        limits.SETTINGS.check(number, "There are more overrides (--set) than can be read", ConfigError)
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise ConfigError(
                f"--set takes section.key=value, got {show_value(override)}. Example: --set training.epochs=2"
            )
        _set_dotted(values, key.strip(), _parse_value(text, override))
        given.pop(key.strip(), None)
    return _check(values, origin=str(path) if path else None, flags=given)


def name_flag(key: str) -> str:
    """Return the option of the command line that gives the setting of this dotted name, where one does."""
    return _FLAGS.get(key, f"--{key.rpartition('.')[2].replace('_', '-')}")


def describe_source(config: Config, *, without: Collection[str] = ()) -> str:
    """Return a source, the options that read it and the encoder as words of `lorafit check` and `lorafit train`.

    Args:
        config: The settings; of the data, those that are not the defaults.
        without: Options to leave out, such as `--bad-rows`.

    Returns:
        The words, quoted for a shell.
    """
    words = [config.data.source, *config.data.files]
    for key, value in _list_changed(config.data):
        if name_flag(key) not in without:
            words += _write_option(key, value)
    if config.model.name != ModelConfig().name:
        words += [name_flag("model.name"), config.model.name]
    return shlex.join(words)


def _list_changed(data: DataConfig) -> Iterator[tuple[str, Any]]:
    """Yield the settings of the data that are not the defaults, without those that name its files."""
    told = {"source", "files", "format"} | ({"label_column"} if data.label_columns else set())
    needed = {"text_column"} if data.text_pair_column is not None else set()
    for prefix, section, default in (("data", data, DataConfig()), ("data.format", data.format, FormatConfig())):
        for name in type(section).model_fields:
            value = getattr(section, name)
            if name not in told and (name in needed or value != getattr(default, name)):
                yield f"{prefix}.{name}", value


def _write_option(key: str, value: Any) -> list[str]:  # noqa: ANN401 - of a setting of any type
    """Return the words that give a setting."""
    flag = name_flag(key)
    is_single_column = key == "data.label_columns" and len(value) == 1  # its option would give label_column
    if key in _NO_FLAG or is_single_column:
        return ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    if isinstance(value, bool):
        return [flag if value else f"--no-{flag[2:]}"]
    if isinstance(value, list):
        return [word for one in value for word in (flag, one)]
    return [flag, "\\t" if key == "data.format.delimiter" and value == "\t" else value]


def override_config(config: Config, values: Mapping[str, Any]) -> Config:
    """Change settings by their dotted names.

    Args:
        config: The settings, which stay as they are.
        values: Dotted key to value.

    Returns:
        The checked settings.

    Raises:
        ConfigError: Settings are unknown or out of range; the message lists all of them.
    """
    changed = config.model_dump()
    for key, value in values.items():
        _set_dotted(changed, key, value)
    return _check(changed)


def _check(values: dict[str, Any], *, origin: str | None = None, flags: Collection[str] = ()) -> Config:
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise _explain(error, origin=origin, flags=flags) from error


def _explain(
    error: ValidationError,
    *,
    origin: str | None = None,
    flags: Collection[str] = (),
    within: tuple[str, ...] = (),
) -> ConfigError:
    """Say what pydantic finds wrong; names of settings are those `within` a section."""
    return ConfigError(_describe(_faults(error, flags, within), origin=origin))


def _name_section(kind: type) -> tuple[str, ...]:
    """Return the names by which the settings reach a section: none of `Config`, its own where they do not."""
    return next((names for names, section in _walk_sections(Config) if section is kind), (kind.__name__,))


def _walk_sections(section: type[BaseModel], *names: str) -> Iterator[tuple[tuple[str, ...], type[BaseModel]]]:
    """Yield each section with the names that lead to it, outer ones first."""
    yield names, section
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _walk_sections(field.annotation, *names, name)


def _read_yaml(path: Path) -> dict[str, Any]:
    content = read_file(path, ConfigError, limits.SETTINGS_BYTES, what="a file of settings")
    try:
        values = parse_yaml(content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ConfigError(f"The config file {show_path(path)} is not valid YAML: it is not UTF-8.") from None
    except UnusableYamlError as error:
        raise ConfigError(f"The config file {show_path(path)} {error}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"The config file {show_path(path)} must hold sections ({', '.join(Config.model_fields)}), "
            f"got {type(values).__name__}."
        )
    return {name: {} if section is None else section for name, section in values.items()}


def _parse_value(text: str, override: str) -> Any:  # noqa: ANN401 - YAML may hold any type; pydantic checks it
    try:
        return parse_yaml(text)
    except UnusableYamlError as error:
        fault = "is not valid YAML" if "is not valid" in str(error) else str(error)
        raise ConfigError(f"--set {show_value(override)}: the value {fault}.") from None


def _set_dotted(values: dict[str, Any], key: str, value: object) -> None:
    *sections, last = key.split(".")
    limits.DEPTH.check(len(sections), f"{_show_key(key)} has {len(sections):,} levels", ConfigError)
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{_show_key(key)}: {_show_key(section)} holds a value, not a section.")
        values = inner
    values[last] = value


def _describe(faults: list[str], *, origin: str | None) -> str:
    count, where = format_count(len(faults), "setting"), f" ({origin} and flags)" if origin else ""
    more = [f"… {len(faults) - _MOST_FAULTS:,} more"] if len(faults) > _MOST_FAULTS else []
    return "\n".join([f"{count} cannot be used{where}:", *(f"  {fault}" for fault in (*faults[:_MOST_FAULTS], *more))])


def _show_key(key: str) -> str:
    return clean_text(key, most=_LONGEST_KEY)


def _faults(error: ValidationError, flags: Collection[str], within: tuple[str, ...]) -> list[str]:
    faults, sections = dict[str, str](), dict(_walk_sections(Config))
    for fault in error.errors():
        location = [*within, *(str(part) for part in fault["loc"])]
        if location[:2] == ["method", "target_modules"]:
            groups = ", ".join(get_args(TargetGroup))
            faults["method.target_modules"] = (
                f"got {show_value(fault['input'])}; allowed: {groups}, or a list of module names"
            )
        elif fault["type"] in {"extra_forbidden", "no_such_attribute"}:
            faults[".".join(location)] = f"unknown setting{_suggest(location)}"
        elif fault["type"] == "model_type" and tuple(location) in sections:
            first = next(iter(sections[tuple(location)].model_fields))
            text = f"a section of settings, such as {'.'.join([*location, first])}, got {show_value(fault['input'])}"
            faults[".".join(location)] = text
        else:
            got = (
                ""
                if fault["type"] in {"section", "name", "stride", "cuts", "range", "storage"}
                else f", got {show_value(fault['input'])}"
            )
            faults[".".join(location)] = f"{fault['msg']}{got}"
    return [f"{_show_key(key)}: {text}{f' ({name_flag(key)})' if key in flags else ''}" for key, text in faults.items()]


def _suggest(location: list[str]) -> str:
    *within, name = (_show_key(part) for part in location)
    sections = dict(_walk_sections(Config))
    if tuple(within) not in sections:
        return ""
    allowed = list(sections[tuple(within)].model_fields)
    if nearest := difflib.get_close_matches(name, allowed, n=1):
        return f"; did you mean {'.'.join([*within, nearest[0]])}?"
    for names, section in sections.items():
        if name in section.model_fields:
            return f"; did you mean {'.'.join([*names, name])}?"
    return f"; allowed here: {', '.join(allowed)}"
