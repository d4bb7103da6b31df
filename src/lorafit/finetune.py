"""The main flow: data, model, baseline, training, adapter, evidence."""

import datetime
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lorafit import hardware
from lorafit.acceleration.precision import PrecisionChoice, choose_precision
from lorafit.adapter import save_adapter
from lorafit.artifacts import DataRecord, HardwareRecord, MetricsRecord, RunLayout, RunRecord, SplitRecord
from lorafit.atomic import write_atomic
from lorafit.config import Config, load_config
from lorafit.data.rows import Split, Splits
from lorafit.data.sources import load_splits
from lorafit.encoders.load import Encoder, check_max_length, load_tokenizer, load_with_head, locate_encoder
from lorafit.encoders.tokenization import TokenizedTexts, Truncation, tokenize
from lorafit.errors import RunError
from lorafit.evaluation import build_metrics, compute_validation, read_predictions, write_predictions
from lorafit.extras import require
from lorafit.golden import GOLDEN_PRECISION
from lorafit.journal import Journal
from lorafit.labels import LabelSet
from lorafit.methods import AdaptedModel, apply_method, count_parameters, find_method
from lorafit.metrics.scores import softmax
from lorafit.model_card import render_model_card
from lorafit.predictor import Prediction, Predictor, Runtime, build_prediction, compute_logits, load
from lorafit.progress import Progress, Silent
from lorafit.run_folder import choose_run_folder, claim_run_folder, suggest_name

__all__ = ["Run", "Sample", "resume", "train"]

_PACKAGES = ("lorafit", "torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy")
_SAMPLES = 6


@dataclass(frozen=True)
class Sample:
    """A test row with what the model said of it before and after.

    Attributes:
        text: The text.
        label: Its true label.
        before: The baseline's prediction, or None if there was no baseline.
        after: The fine-tuned model's prediction.
    """

    text: str
    label: str
    before: Prediction | None
    after: Prediction


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: The run folder.
        record: What was done, with what, and what it cost.
        metrics: The evidence: before and after, on the test rows.
        samples: A few test rows, drawn at random, with both predictions. They are not stored in the run.
    """

    path: Path
    record: RunRecord
    metrics: MetricsRecord
    samples: tuple[Sample, ...]

    def load(self) -> Predictor:
        """Open the run for prediction."""
        return load(self.path)


@dataclass(frozen=True)
class _Prepared:
    """Everything that training needs, before anything is written."""

    config: Config
    splits: Splits
    encoder: Encoder
    adapted: AdaptedModel
    tokens: dict[str, TokenizedTexts]
    pad_id: int
    precision: PrecisionChoice
    threads: int

    @property
    def labels(self) -> LabelSet:
        return self.splits.labels


def train(
    config: Config | None = None,
    *,
    output: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Fine-tune an encoder on labelled texts and measure it before and after.

    Args:
        config: The settings; None takes the defaults.
        output: The run folder; None takes a free name below `runs/`.
        overwrite: Whether a run that is already there may be replaced.
        progress: Told what is going on; None for silence.

    Returns:
        The finished run.
    """
    config = config or Config()
    suggestion = suggest_name(config.data.source, config.model.name, config.method.name)
    layout = choose_run_folder(Path(output) if output else None, suggestion=suggestion, overwrite=overwrite)
    prepared = _prepare(config, progress or Silent())
    record = _describe(prepared)
    claim_run_folder(layout, overwrite=overwrite)
    write_atomic(layout.config, prepared.config.to_yaml())
    return _carry_out(prepared, layout, Journal(layout, record), progress or Silent())


def resume(run: str | Path, *, progress: Progress | None = None) -> Run:
    """Go on with a run that was interrupted or failed, from its last complete checkpoint.

    Args:
        run: The run folder.
        progress: Told what is going on; None for silence.

    Returns:
        The finished run.

    Raises:
        RunError: The run is complete already, or its data or base model have changed since.
    """
    layout = RunLayout(Path(run).expanduser().resolve())
    old = RunRecord.read(layout.record)
    if old.status == "complete":
        raise RunError(f"{layout.root} is complete; there is nothing to resume.")
    prepared = _prepare(load_config(layout.config), progress or Silent())
    record = _describe(prepared)
    if record.data.splits != old.data.splits:
        raise RunError(f"The data of {layout.root} have changed since it began (other fingerprints): start a new run.")
    if record.base_model.digest != old.base_model.digest:
        raise RunError(f"The base model of {layout.root} has changed since it began: start a new run.")
    kept = {name: getattr(old, name) for name in ("created", "seconds", "peak_memory_bytes")}
    journal = Journal(layout, record.model_copy(update=kept))
    return _carry_out(prepared, layout, journal, progress or Silent())


def _prepare(config: Config, progress: Progress) -> _Prepared:
    torch = require("torch", extra="train", purpose="Training")
    for package in ("transformers", "peft", "accelerate", "pyarrow"):
        require(package, extra="train", purpose="Training")
    find_method(config.method.name)
    precision = choose_precision(config.training.precision)
    threads = config.training.threads or hardware.available_cores()
    torch.set_num_threads(threads)
    progress.start("reading data and model")
    splits = load_splits(config.data)
    encoder = locate_encoder(config.model)
    tokenizer, pad_id = load_tokenizer(encoder.folder)
    loaded = load_with_head(
        encoder, splits.labels, seed=config.training.seed, base_dropout=config.training.base_dropout
    )
    check_max_length(loaded.model.config, config.model.max_length)
    adapted = apply_method(
        loaded.model, config.method, newly_initialised=loaded.newly_initialised, seed=config.training.seed
    )
    truncation = Truncation(config.model.max_length, config.model.truncation)
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    tokens = {name: tokenize(tokenizer, split.texts, truncation) for name, split in parts.items()}
    progress.finish(", ".join(f"{len(split):,} {name}" for name, split in parts.items()))
    for line in (*splits.notes, *_truncation_notes(tokens, truncation)):
        progress.say(line)
    return _Prepared(
        config=_absolute(config, splits, encoder),
        splits=splits,
        encoder=encoder,
        adapted=adapted,
        tokens=tokens,
        pad_id=pad_id,
        precision=precision,
        threads=threads,
    )


def _carry_out(prepared: _Prepared, layout: RunLayout, journal: Journal, progress: Progress) -> Run:
    from lorafit.runtimes.pytorch import TorchRuntime
    from lorafit.training.batching import TrainingRows
    from lorafit.training.checkpoints import find_latest_checkpoint
    from lorafit.training.engine import TrainingJob, fit

    config, splits, tokens = prepared.config, prepared.splits, prepared.tokens
    runtime = TorchRuntime(prepared.adapted.model, prepared.precision)
    checkpoint, damaged = find_latest_checkpoint(layout.checkpoints)
    for path in damaged:
        progress.say(f"{path.name} is incomplete or altered and is passed over")
    with journal.kept():
        baseline = None
        if config.evaluation.baseline:
            with journal.stage("baseline"):
                baseline = _measure(prepared, runtime, layout, "baseline", progress)
        job = TrainingJob(
            adapted=prepared.adapted,
            rows=TrainingRows(tokens["train"], splits.train.labels, prepared.pad_id),
            config=config.training,
            layout=layout,
            precision=prepared.precision,
            validate=lambda: compute_validation(splits.validation, _score(prepared, runtime, "validation")),
        )
        with journal.stage("training"):
            training = fit(job, progress=progress, resume_from=checkpoint)
        journal.update(training=training.model_copy(update={"seconds": journal.record.seconds["training"]}))
        with journal.stage("saving"):
            progress.start("saving the adapter and opening it in a fresh process")
            journal.update(files=_save(prepared, layout))
            progress.finish()
        with journal.stage("evaluation"):
            finetuned = _measure(prepared, runtime, layout, "finetuned", progress)
            metrics = build_metrics(
                "test", splits.test, splits.labels, config.evaluation, finetuned=finetuned, baseline=baseline
            )
            metrics.write(layout.metrics)
            write_atomic(layout.card, render_model_card(journal.record, metrics))
    samples = _draw_samples(splits.test, splits.labels, baseline, finetuned, seed=config.evaluation.seed)
    return Run(path=layout.root, record=journal.record, metrics=metrics, samples=samples)


def _measure(
    prepared: _Prepared,
    runtime: Runtime,
    layout: RunLayout,
    model: Literal["baseline", "finetuned"],
    progress: Progress,
) -> NDArray[np.float64]:
    rows, path = prepared.splits.test, layout.predictions("test", model)
    kept = read_predictions(path, rows, prepared.labels) if model == "baseline" else None
    if kept is not None:
        return kept
    progress.start(f"measuring the {model} model", total=len(rows), unit="text")
    probabilities = _score(prepared, runtime, "test", progress)
    write_predictions(path, rows, prepared.labels, probabilities)
    progress.finish()
    return probabilities


def _score(prepared: _Prepared, runtime: Runtime, split: str, progress: Progress | None = None) -> NDArray[np.float64]:
    return softmax(
        compute_logits(
            runtime,
            prepared.tokens[split],
            prepared.pad_id,
            classes=len(prepared.labels),
            on_progress=progress.update if progress else None,
        )
    )


def _save(prepared: _Prepared, layout: RunLayout) -> dict[str, str]:
    from lorafit.runtimes.pytorch import TorchRuntime

    config = prepared.config.model
    tokenizer, pad_id = load_tokenizer(prepared.encoder.folder)
    predictor = Predictor(
        TorchRuntime(prepared.adapted.model, GOLDEN_PRECISION),
        tokenizer,
        pad_id=pad_id,
        labels=prepared.labels,
        truncation=Truncation(config.max_length, config.truncation),
    )
    return save_adapter(
        prepared.adapted,
        prepared.encoder,
        layout,
        max_length=config.max_length,
        compute_logits=predictor.compute_logits,
    )


def _describe(prepared: _Prepared) -> RunRecord:
    config, splits = prepared.config, prepared.splits
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    return RunRecord(
        status="running",
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        seed=config.training.seed,
        method=config.method.name,
        labels=list(splits.labels.names),
        max_length=config.model.max_length,
        truncation=config.model.truncation,
        data=DataRecord(
            source=splits.source,
            splits={name: _describe_split(rows, splits.labels, prepared.tokens[name]) for name, rows in parts.items()},
            notes=list(splits.notes),
        ),
        base_model=prepared.encoder.record(prepared.adapted.model.config.model_type),
        hardware=HardwareRecord(
            cpu=hardware.cpu_name(),
            cores=hardware.available_cores(),
            threads=prepared.threads,
            memory_bytes=hardware.memory_bytes(),
            precision=prepared.precision.name,
            precision_reason=prepared.precision.reason,
        ),
        parameters=count_parameters(prepared.adapted.model),
    )


def _describe_split(rows: Split, labels: LabelSet, tokens: TokenizedTexts) -> SplitRecord:
    counts = np.bincount(rows.labels, minlength=len(labels)).tolist()
    return SplitRecord(
        rows=len(rows),
        label_counts=dict(zip(labels.names, counts, strict=True)),
        fingerprint=rows.fingerprint(),
        tokens=int(tokens.lengths.sum()),
        truncated=tokens.truncated,
    )


def _absolute(config: Config, splits: Splits, encoder: Encoder) -> Config:
    resolved = config.model_copy(deep=True)
    resolved.data.source = splits.source
    resolved.model.name = encoder.name
    resolved.model.revision = encoder.revision
    if config.data.validation:
        resolved.data.validation = str(Path(config.data.validation).expanduser().resolve())
    if config.data.test:
        resolved.data.test = str(Path(config.data.test).expanduser().resolve())
    return resolved


def _truncation_notes(tokens: dict[str, TokenizedTexts], truncation: Truncation) -> Sequence[str]:
    return [
        f"{name}: {texts.truncated:,} of {len(texts):,} texts ({texts.truncated / len(texts):.1%}) are longer than "
        f"{truncation.max_length} tokens and are cut ({truncation.policy})"
        for name, texts in tokens.items()
        if texts.truncated
    ]


def _draw_samples(
    rows: Split,
    labels: LabelSet,
    baseline: NDArray[np.float64] | None,
    finetuned: NDArray[np.float64],
    *,
    seed: int,
) -> tuple[Sample, ...]:
    drawn = np.random.default_rng(seed).choice(len(rows), size=min(_SAMPLES, len(rows)), replace=False)
    return tuple(
        Sample(
            text=rows.texts[row],
            label=labels.names[rows.labels[row]],
            before=None if baseline is None else build_prediction(baseline[row], labels),
            after=build_prediction(finetuned[row], labels),
        )
        for row in sorted(drawn)
    )
