"""Prepare a run before anything is written: data, model, tokens, precision."""

import datetime
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from types import ModuleType

from tokenizers import Tokenizer

from lorafit.config import VALIDATION_FRACTION, Config, override_config
from lorafit.data.loading import calibrates_out_of_fold, load_splits
from lorafit.data.quality.quick import quick_findings
from lorafit.data.rows import Split, Splits
from lorafit.data.sources import name_source
from lorafit.errors import ConfigError
from lorafit.models.acceleration.memory import keep_freed_memory
from lorafit.models.acceleration.precision import PrecisionChoice, choose_device, choose_precision
from lorafit.models.adaptation import AdaptedModel, apply_method, count_parameters, reads_token_types
from lorafit.models.batching import plan_batches
from lorafit.models.coverage import MUCH, TOO_MUCH, count_unknown, measure_coverage, suggest_base
from lorafit.models.load import Encoder, check_max_length, load_tokenizer, load_with_head
from lorafit.models.method_settings import complete_settings
from lorafit.models.methods import find_method
from lorafit.models.token_cache import tokenize_once
from lorafit.models.tokenization import MOST_WINDOWS, TokenizedTexts, Truncation
from lorafit.reports.tracking import require_trackers
from lorafit.runs.bases import locate_base
from lorafit.runs.lineage import describe_seen_texts
from lorafit.runs.records import DataRecord, ForecastRecord, HardwareRecord, RunRecord, SplitRecord
from lorafit.system import hardware
from lorafit.system.extras import require
from lorafit.system.progress import Progress, Silent
from lorafit.tasks.base import TargetScaler, Task
from lorafit.tasks.registry import get_task
from lorafit.training.planning.schedule import choose_length_warmup, complete_schedule, slow_down
from lorafit.training.ranks import ALONE, Ranks

_KEPT = 2
"""How many truncations of the texts are kept in memory for several runs."""

_SHORTEST = 8
"""Fewest tokens that a text may be truncated to."""

_PACKAGES = ("lorafit", "torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Prepared:
    """Everything that training needs, before anything is written.

    Attributes:
        config: The completed settings, with absolute paths, the encoder's revision, and what the data's size decides.
        splits: The rows.
        encoder: The pre-trained encoder.
        adapted: The model with its adapter, and with fused blocks where possible.
        scaler: That of the targets.
        tokens: The texts of each split as tokens.
        short: The training texts cut shorter, for pairs or the first half of the steps; None where none is.
        unknown: Share of unknown tokens in each split, 0 to 1.
        truncation: What becomes of long texts; its `max_length` is without virtual tokens.
        pad_id: Token id of the padding.
        precision: Arithmetic of the encoder.
        threads: CPU threads.
        blocks: `fused`, or `stock:` and why.
        ranks: This process among those that train the run.
    """

    config: Config
    splits: Splits
    encoder: Encoder
    adapted: AdaptedModel
    scaler: TargetScaler
    tokens: dict[str, TokenizedTexts]
    short: TokenizedTexts | None
    unknown: dict[str, float]
    truncation: Truncation
    pad_id: int
    precision: PrecisionChoice
    threads: int
    blocks: str
    ranks: Ranks = ALONE

    @property
    def max_length(self) -> int:
        """Longest text in tokens, without virtual tokens."""
        return self.truncation.max_length

    @property
    def task(self) -> Task:
        """The task, with the labels of the training rows."""
        return self.splits.task


@dataclass(frozen=True)
class Material:
    """What runs with the same data and encoder share.

    Attributes:
        splits: The rows.
        encoder: The pre-trained encoder.
        tokenizer: Its tokenizer, without truncation of its own.
        pad_id: Token id of the padding.
        tokens: Texts as tokens, by truncation and split; the last two truncations asked for.
    """

    splits: Splits
    encoder: Encoder
    tokenizer: Tokenizer
    pad_id: int
    tokens: dict[Truncation, dict[str, TokenizedTexts]] = field(default_factory=dict)

    def tokenize(self, truncation: Truncation) -> dict[str, TokenizedTexts]:
        """Tokenize the texts of every split."""
        if truncation not in self.tokens:
            for oldest in list(self.tokens)[: 1 - _KEPT]:
                del self.tokens[oldest]
            self.tokens[truncation] = {
                name: tokenize_once(self.tokenizer, split.texts, truncation)
                for name, split in self.splits.by_name.items()
            }
        return self.tokens[truncation]


def load_material(config: Config, splits: Splits | None = None) -> Material:
    """Read data, unless they are at hand, and tokenizer, and find the encoder."""
    _require_training()
    require_trackers(config.training.track)
    get_task(config.data.task).check_target_accuracy(config.evaluation.target_accuracy)
    _check_balancing(config)
    splits = load_splits(config.data) if splits is None else splits
    _check_blend(config, splits)
    splits = replace(splits, notes=(*splits.notes, *quick_findings(splits)))
    encoder = locate_base(config.model)
    splits = replace(splits, notes=(*splits.notes, *describe_seen_texts(config.model.name, splits, config.data)))
    tokenizer, pad_id = load_tokenizer(encoder.folder)
    return Material(splits, encoder, tokenizer, pad_id)


@contextmanager
def restoring_threads() -> Iterator[None]:
    """Leave torch, after the block, as many threads as it had before: `use_threads` says how many train."""
    torch = _require_training()
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_threads(config: Config) -> int:
    """Let torch use as many threads as are set, or as `choose_threads` says, and return their number."""
    threads = config.training.threads or hardware.choose_threads()
    _require_training().set_num_threads(threads)
    return threads


def prepare(config: Config, progress: Progress, *, material: Material | None = None) -> Prepared:
    """Read data and model, apply the method, and tokenize the texts; nothing is written.

    Args:
        config: The settings.
        progress: Receives the progress, and what was left out or truncated.
        material: From `load_material` with the same data and encoder; None loads it.

    Returns:
        Everything that training needs.
    """
    torch = _require_training()
    require_trackers(config.training.track)
    from lorafit.models.acceleration.encoder_block import fuse_encoder
    from lorafit.training.targets import find_output_layer, unfold_known_head

    is_rate_given, config = config.training.learning_rate is not None, complete_settings(config)
    method = find_method(config.method.name)
    device = choose_device(config.training.device)
    precision = choose_precision(config.training.precision, device)
    threads = use_threads(config)
    keep_freed_memory()
    progress.start("reading data and model")
    material = material or load_material(config)
    splits, encoder = material.splits, material.encoder
    config = complete_schedule(config, len(splits.train))
    if not is_rate_given:
        config = slow_down(config, len(splits.train))
    loaded = load_with_head(
        encoder,
        splits.task,
        seed=config.training.seed,
        base_dropout=config.training.base_dropout,
        pad_id=material.pad_id,
        pooling=method.pooling,
    )
    check_max_length(loaded.model.config, config.model.max_length)
    adapted = apply_method(
        loaded.model, config.method, newly_initialised=loaded.newly_initialised, seed=config.training.seed
    )
    scaler = splits.task.fit_scaler(splits.train.y, has_bias=find_output_layer(adapted).bias is not None)
    unfold_known_head(adapted, scaler, loaded.newly_initialised)
    truncation = Truncation(_text_length(config), config.model.truncation, config.model.window_stride)
    tokens = material.tokenize(truncation)
    warmup = choose_length_warmup(config, len(splits.train))
    config = override_config(config, {"training.length_warmup": warmup})
    short = _shorten(material, truncation, warmup, tokens["train"])
    config = bound_steps(config, tokens["train"] if short is None else short)
    unknown = {name: count_unknown(material.tokenizer, texts, pair=splits.pair) for name, texts in tokens.items()}
    coverage_notes = list(_check_coverage(material, unknown, force=config.model.force))
    if not reads_token_types(adapted.model):
        tokens = {name: replace(texts, type_ids=None) for name, texts in tokens.items()}
        short = None if short is None else replace(short, type_ids=None)
    progress.finish(", ".join(f"{texts.texts:,} {name}" for name, texts in tokens.items()))
    torch.nn.Module.to(adapted.model, device)
    obstacle = fuse_encoder(adapted.model) if device == "cpu" else "they are made for CPUs"
    if obstacle is not None and device == "cpu":
        progress.say(f"not all blocks are fused, which is slower: {obstacle}")
    notes = (*encoder.notes, *loaded.notes, *splits.notes, *coverage_notes, *_truncation_notes(tokens, truncation))
    for line in notes:
        progress.say(line)
    return Prepared(
        config=_absolute(config, splits, encoder),
        splits=splits,
        encoder=encoder,
        adapted=adapted,
        scaler=scaler,
        tokens=tokens,
        short=short,
        unknown=unknown,
        truncation=truncation,
        pad_id=material.pad_id,
        precision=precision,
        threads=threads,
        blocks="fused" if obstacle is None else f"stock: {obstacle}",
    )


def _shorten(material: Material, truncation: Truncation, length: int, whole: TokenizedTexts) -> TokenizedTexts | None:
    """Return the training texts cut to so many tokens; None where none is longer, or they are read in windows."""
    if not length or truncation.policy == "windows" or whole.lengths.max() <= length:
        return None
    return tokenize_once(material.tokenizer, material.splits.train.texts, replace(truncation, max_length=length))


def describe_warmup(prepared: Prepared) -> str | None:
    """Say that training begins with shorter texts, where it does."""
    length = prepared.config.training.length_warmup
    if prepared.short is None or not length:
        return None
    if find_method(prepared.config.method.name).objective == "pairs":
        return f"pairs are learned of texts of at most {length} tokens"
    return f"training begins with texts of at most {length} tokens, for half of the steps"


def bound_steps(config: Config, texts: TokenizedTexts) -> Config:
    """Set the steps where the method has a bound and the epochs make more of them.

    Args:
        config: The completed settings; steps that are given stay.
        texts: The training rows.

    Returns:
        The settings.
    """
    training, most = config.training, find_method(config.method.name).most_steps
    if most is None or training.max_steps is not None:
        return config
    per_epoch = len(plan_batches(texts.lengths, max_rows=training.batch_rows, max_tokens=training.batch_tokens))
    return override_config(config, {"training.max_steps": most}) if per_epoch * training.epoch_count > most else config


def prepare_again(prepared: Prepared, settings: Mapping[str, object]) -> Prepared:
    """Prepare the same rows with an untrained model and some other settings of training.

    Args:
        prepared: As it was.
        settings: Dotted key to value.

    Returns:
        As it is now.
    """
    tokenizer, pad_id = load_tokenizer(prepared.encoder.folder)
    tokens = {prepared.truncation: prepared.tokens}
    material = Material(prepared.splits, prepared.encoder, tokenizer, pad_id, tokens)
    again = prepare(override_config(prepared.config, settings), Silent(), material=material)
    return replace(again, ranks=prepared.ranks, threads=prepared.threads)


def _require_training() -> ModuleType:
    torch = require("torch", extra="train", purpose="Training")
    for package in ("transformers", "peft", "accelerate", "pyarrow"):
        require(package, extra="train", purpose="Training")
    return torch


def _check_balancing(config: Config) -> None:
    training = config.training
    get_task(config.data.task).check_balancing(training.balancing)
    if training.class_weights == training.sampling == "balanced":
        raise ConfigError(
            "training.class_weights=balanced and training.sampling=balanced each balance the labels; together they "
            "would let rare ones count more than frequent ones. Leave one of them out."
        )


def _check_blend(config: Config, splits: Splits) -> None:
    """Refuse a blend that was asked for by name and has nothing to be fitted on."""
    names = config.training.name_members(splits.task.baselines)
    if config.training.blend == "auto" or not names:
        return
    if not config.evaluation.baselines:
        raise ConfigError(
            f"training.blend={config.training.blend} needs the baselines that evaluation.baselines=false leaves out. "
            "Leave one of the two out."
        )
    out_of_fold = calibrates_out_of_fold(config.data, train=len(splits.train), validation=len(splits.validation))
    if splits.calibration is None and not out_of_fold:
        more = "more rows" if config.data.calibration_fraction else "a data.calibration_fraction above 0"
        raise ConfigError(
            f"training.blend={config.training.blend} needs calibration rows, and there are none: give {more}, or leave "
            "--blend out."
        )


def _check_coverage(material: Material, unknown: Mapping[str, float], *, force: bool) -> Iterator[str]:
    """Yield a note where the tokenizer does not know the texts; refuse to train where it knows less than half."""
    worst = max(unknown, key=lambda name: unknown[name])
    coverage = measure_coverage(material.tokenizer, material.splits.by_name[worst].texts)
    kind = coverage.script or "signs"
    if unknown[worst] >= MUCH:
        shares = ", ".join(f"{share:.0%} of {name}" for name, share in unknown.items())
        said = (
            f"unknown tokens: {shares}, mostly {kind}. To the tokenizer of {material.encoder.name} all of them are the "
            f"same. Use {suggest_base(coverage.script)}"
        )
        if unknown[worst] >= TOO_MUCH and not force:
            raise ConfigError(f"{said[0].upper()}{said[1:]}. To train all the same, add --force (model.force=true).")
        yield said
    elif coverage.is_spelled:
        yield (
            f"the tokenizer of {material.encoder.name} spells these texts out: {coverage.characters_per_token:.1f} "
            f"characters a token. It was not made for {kind}. Better use {suggest_base(coverage.script)}"
        )


def _text_length(config: Config) -> int:
    """Return the longest text in tokens: `max_length` less the virtual tokens."""
    length = config.model.max_length - (config.method.virtual_tokens or 0)
    if length < _SHORTEST:
        raise ConfigError(
            f"method.virtual_tokens={config.method.virtual_tokens} leaves {length} of model.max_length="
            f"{config.model.max_length} tokens for the text; at least {_SHORTEST} are needed."
        )
    return length


def describe(prepared: Prepared, forecast: ForecastRecord | None = None) -> RunRecord:
    """Return the record of a run as it is known before its first stage."""
    config, splits = prepared.config, prepared.splits
    return RunRecord(
        status="running",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions=collect_versions(),
        seed=config.training.seed,
        method=config.method.name,
        task=splits.task.name,
        labels=list(splits.task.label_names),
        max_length=prepared.max_length,
        truncation=config.model.truncation,
        window_stride=config.model.window_stride,
        pair=splits.pair,
        data=DataRecord(
            source=splits.source,
            splits={
                name: _describe_split(rows, splits.task, prepared.tokens[name], prepared.unknown[name])
                for name, rows in splits.by_name.items()
            },
            notes=list(splits.notes),
        ),
        base_model=prepared.encoder.record(prepared.adapted.model.config.model_type),
        hardware=describe_hardware(prepared),
        encoder_blocks=prepared.blocks,
        balancing=config.training.balancing,
        forecast=forecast,
        peak_memory_bytes=0 if forecast is None else forecast.peak_memory_bytes,
        parameters=count_parameters(prepared.adapted),
    )


def describe_hardware(prepared: Prepared) -> HardwareRecord:
    """Return the record of the machine, and of what a run uses of it."""
    return HardwareRecord(
        cpu=hardware.cpu_name(),
        cores=hardware.available_cores(),
        threads=prepared.threads,
        memory_bytes=hardware.memory_bytes(),
        precision=prepared.precision.name,
        precision_reason=prepared.precision.reason,
    )


def collect_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def _describe_split(rows: Split, task: Task, tokens: TokenizedTexts, unknown: float) -> SplitRecord:
    return SplitRecord(
        rows=len(rows),
        label_counts=task.count(rows.y),
        fingerprint=rows.fingerprint(),
        tokens=int(tokens.lengths.sum()),
        truncated=tokens.truncated,
        unknown_share=unknown,
        windows=None if tokens.windows is None else len(tokens),
    )


def _absolute(config: Config, splits: Splits, encoder: Encoder) -> Config:
    resolved = config.model_copy(deep=True)
    resolved.data.rename_labels = {**config.data.rename_labels, **splits.renamed}
    resolved.data.source = splits.source
    if config.data.validation_fraction is None:
        resolved.data.validation_fraction = VALIDATION_FRACTION if len(splits.validation) else 0.0
    resolved.model.name = encoder.name
    resolved.model.revision = encoder.revision
    resolved.data.files = list(map(name_source, config.data.files))
    for setting in ("validation", "test", "corrections"):
        if (file := getattr(config.data, setting)) is not None:
            setattr(resolved.data, setting, name_source(file))
    return resolved


def _truncation_notes(tokens: dict[str, TokenizedTexts], truncation: Truncation) -> Iterator[str]:
    length, policy = truncation.max_length, truncation.policy
    for name, texts in tokens.items():
        if texts.windows is not None:
            long = int((texts.windows > 1).sum())
            yield (
                f"{name}: {long:,} of {texts.texts:,} texts ({long / texts.texts:.1%}) are longer than {length} tokens "
                f"and are read in windows, {len(texts):,} in all"
            )
        if texts.truncated:
            cut = f"{texts.truncated:,} of {texts.texts:,} texts ({texts.truncated / texts.texts:.1%})"
            how = f"({policy})" if policy != "windows" else f"after {MOST_WINDOWS} windows"
            yield f"{name}: {cut} are longer than {length} tokens and are cut {how}"
