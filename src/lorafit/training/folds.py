"""Out-of-fold predictions: every row is predicted by a model that was not trained on it."""

import gc
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config
from lorafit.data.loading import CROSS_FITTING_FOLDS, FEWEST_CALIBRATION_ROWS
from lorafit.data.rare_labels import find_rare_labels
from lorafit.data.rows import Split, Splits
from lorafit.data.splits import join_rows
from lorafit.errors import ConfigError, DataError, JobInterruptedError, TrainingInterruptedError
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.models.array_cache import SUFFIX, keep_arrays, read_arrays
from lorafit.models.batching import plan_batches
from lorafit.models.cache import cache_folder
from lorafit.models.load import load_tokenizer
from lorafit.models.tokenization import Truncation
from lorafit.runs.bases import locate_base
from lorafit.runs.folder import RunLayout
from lorafit.system.progress import Progress, Silent
from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Array, Task
from lorafit.training.embedding_baseline import (
    FrozenBase,
    choose_penalty,
    predict_out_of_fold,
    predicts_from_embeddings,
)
from lorafit.training.prepare import Material, Prepared, prepare
from lorafit.training.stages import RunStages

if TYPE_CHECKING:
    from lorafit.training.inputs import ModelInputs

_LAYERS = "top3"
"""What is trained where the settings leave all layers to training: those below are computed once for all folds."""

_MOST_KEPT = 100_000_000
"""Bytes of predictions of folds that the cache keeps."""

_VALIDATION_PARTS = 10
"""One part of so many of a fold's training rows chooses its checkpoint and calibrates it."""


def assign_folds(rows: Split, task: Task, count: int, *, seed: int) -> NDArray[np.int64]:
    """Deal rows out to folds, each stratum in the same proportion.

    Rows with the same text stay together, and so do rows of the same group (`Split.groups`).

    Args:
        rows: The n rows.
        task: The task, which has the strata.
        count: Number of folds, at least 2.
        seed: Decides which rows.

    Returns:
        Shape (n,): the fold of each row, counted from 0; every fold has rows.

    Raises:
        DataError: There are fewer different texts, or groups, than folds.
    """
    units = join_rows(rows)
    if len(units) < count:
        kind = "different texts" if rows.groups is None else "groups that share no text"
        raise DataError(
            f"{count} folds need {count} {kind}, and there are {len(units)}: take fewer folds, or add rows."
        )
    strata = task.strata(rows.y)[[unit[0] for unit in units]].tolist()  # of labels that differ, the first counts
    shuffled = np.random.default_rng(seed).permutation(len(units)).tolist()
    total, filled = [0] * count, {stratum: [0] * count for stratum in set(strata)}
    folds = np.empty(len(rows), dtype=np.int64)
    for place in sorted(shuffled, key=lambda place: -len(units[place])):
        of_stratum = filled[strata[place]]
        _, _, fold = min(zip(of_stratum, total, range(count), strict=True))
        folds[units[place]] = fold
        of_stratum[fold] += len(units[place])
        total[fold] += len(units[place])
    return folds


def assign_held_out_folds(rows: Split, task: Task, *, seed: int) -> NDArray[np.int64]:
    """Deal rows out to five folds, or fewer where there are fewer texts, for cross-fitting.

    Args:
        rows: The n training rows.
        task: The task.
        seed: Decides which rows.

    Returns:
        Shape (n,): the fold of each row, or -1 for those that are in training always: a text (or group) that alone has
        one of its labels, or the first of those that a single fold would hold out, without which nothing would know
        the label; and all rows where they are too few to calibrate.
    """
    folds, is_rare = np.full(len(rows), -1, dtype=np.int64), find_rare_labels(rows, 2, task).rows
    for unit in join_rows(rows):  # the text or group of a rare row is in training, whatever its other labels
        is_rare[unit] |= is_rare[unit].any()
    places = np.flatnonzero(~is_rare)
    dealt = rows.select(places)
    units = len(join_rows(dealt))
    if len(dealt) >= FEWEST_CALIBRATION_ROWS and units > 1 and len(np.unique(dealt.y, axis=0)) > 1:
        folds[places] = assign_folds(dealt, task, min(CROSS_FITTING_FOLDS, units), seed=seed)
    for has_label in task.mark_labels(rows.y).T == 1:
        if len(np.unique(folds[has_label])) == 1 and (folds[has_label] >= 0).all():
            first = np.flatnonzero(has_label)[0]
            folds[next(unit for unit in join_rows(rows) if first in unit)] = -1
    return folds


def predict_baseline_folds(
    name: str, rows: Split, task: Task, folds: NDArray[np.int64], progress: Progress | None = None
) -> Array:
    """Predict each fold with a baseline that is trained on the others.

    Args:
        name: A key of `Task.baselines` but `embedding`.
        rows: The n rows.
        task: The task.
        folds: Shape (n,), from `assign_folds` or `assign_held_out_folds`.
        progress: Told how many folds are done.

    Returns:
        Values of shape (rows of any fold, labels), in the order of the rows.
    """
    progress = progress or Silent()
    values = np.empty((len(folds), len(task.label_names)))
    numbers = np.unique(folds[folds >= 0])
    progress.start(f"{task.baselines[name]}, out of fold", total=len(numbers), unit="fold")
    for done, fold in enumerate(numbers, start=1):
        others, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        values[held_out] = task.predict_baseline(
            name, _pick(rows.texts, others), rows.y[others], _pick(rows.texts, held_out)
        )
        progress.update(done)
    progress.finish()
    return values[folds >= 0]


def predict_embedding_folds(
    config: Config,
    material: Material,
    folds: NDArray[np.int64],
    progress: Progress | None = None,
    *,
    common_penalty: bool = False,
) -> Array:
    """Predict each fold with the baseline `embedding`, fitted to the others; the texts are embedded once.

    Args:
        config: The settings; those of the model, and where and how it runs, count.
        material: From `build_material`, with the n rows.
        folds: Shape (n,), from `assign_folds` or `assign_held_out_folds`.
        progress: Receives the progress.
        common_penalty: Whether all folds have the penalty that all rows choose, as the model of a run does: its logits
            are then as large as those of the folds, which a calibration needs. Else each fold chooses its own, so that
            the rows are judged by what has not seen them.

    Returns:
        Values of shape (rows of any fold, labels), in the order of the rows.

    Raises:
        ConfigError: As `FrozenBase.load`.
    """
    progress = progress or Silent()
    rows, task, model = material.splits.train, material.splits.task, config.model
    tokens = material.tokenize(Truncation(model.max_length, model.truncation, model.window_stride))["train"]
    base = FrozenBase.load(material.encoder, task, material.pad_id, config)
    progress.start("embedding texts", total=len(rows), unit="text")
    states = base.embed(tokens, on_progress=progress.update)
    progress.finish()
    seed = config.training.seed
    strength = choose_penalty(task, states, rows.y, seed=seed) if common_penalty else None
    return predict_out_of_fold(task, states, rows.y, folds, strength=strength, seed=seed)


def predict_encoder_folds(
    config: Config, material: Material, folds: NDArray[np.int64], progress: Progress | None = None
) -> Array:
    """Predict each fold with an encoder that is fine-tuned on the others.

    Where `method.layers` is `all`, the last three layers are adapted, so that the hidden states below them are computed
    once and serve all folds. A tenth of a fold's training rows chooses the checkpoint and calibrates the predictions.
    Folds that are done are kept in lorafit's cache, so that what was interrupted goes on after them.

    Args:
        config: The settings; those of data, evaluation and budget play no part.
        material: From `build_material`, with the n rows.
        folds: Shape (n,), from `assign_folds`.
        progress: Receives the progress.

    Returns:
        Calibrated values of shape (n, labels), in the order of the rows.

    Raises:
        JobInterruptedError: It was interrupted; folds that are done are kept.
    """
    progress = progress or Silent()
    rows, task = material.splits.train, material.splits.task
    values = np.empty((len(rows), len(task.label_names)))
    numbers = np.unique(folds)
    with tempfile.TemporaryDirectory(prefix="lorafit-folds-") as folder:
        progress.start("reading model and texts")
        prepared = _prepare_rows(config, replace(material, tokens={}))
        progress.finish(f"{len(rows):,} texts")
        config, truncation, tokens = prepared.config, prepared.truncation, prepared.tokens["train"]
        place = cache_folder() / "folds"
        kept = {fold: _name_kept(prepared, rows, folds, fold, place) for fold in numbers.tolist()}
        missing = _take_kept(kept, values, folds, progress)
        if not missing:
            return values
        inputs = _cache_frozen_layers(prepared, Path(folder), progress)
        del prepared

        def predict(fold: int) -> Array:
            held_out = np.flatnonzero(folds == fold)
            places = _place_rows(rows, task, np.flatnonzero(folds != fold), held_out, seed=config.training.seed)
            part = replace(
                material,
                splits=_build_splits(material.splits, *(rows.select(chosen) for chosen in places.values())),
                tokens={truncation: {name: tokens.select(chosen) for name, chosen in places.items()}},
            )
            chosen_inputs = {name: inputs.select(chosen) for name, chosen in places.items()}
            return _predict_fold(config, part, chosen_inputs, Path(folder) / f"fold{fold + 1}", progress)

        try:
            _predict_missing(missing, kept, values, folds, predict, progress)
        except _FoldInterruptedError as error:
            raise JobInterruptedError(
                f"Interrupted. {error.done} of {len(numbers)} folds are done and kept: the same command goes on after "
                "them."
            ) from None
    return values


def cross_fit(stages: RunStages, folds: NDArray[np.int64], progress: Progress) -> Array:
    """Predict each fold of the training rows with a model that is trained on the others as the run's own is.

    Folds that are done are kept in the run folder, so that what was interrupted goes on after them; those of the
    embeddings take no time.

    Args:
        stages: The run, whose model stays as it is, trained or not.
        folds: Shape (n,), from `assign_held_out_folds`, with n of 0 or more.
        progress: Receives the progress.

    Returns:
        Logits of shape (rows of any fold, outputs), in the order of the rows.

    Raises:
        TrainingInterruptedError: It was interrupted; folds that are done are kept.
    """
    prepared = stages.prepared
    splits, task, truncation = prepared.splits, prepared.task, prepared.truncation
    rows, tokens = splits.train, prepared.tokens["train"]
    config = _without_extras(prepared.config)
    material = Material(splits, prepared.encoder, *load_tokenizer(prepared.encoder.folder))
    if predicts_from_embeddings(config):
        part = replace(material, tokens={truncation: {"train": tokens}})
        return task.deactivate(predict_embedding_folds(config, part, folds, progress, common_penalty=True))
    logits = np.empty((len(rows), len(task.output_names)))
    numbers, place = np.unique(folds[folds >= 0]).tolist(), stages.layout.cross_fitting
    kept = {fold: _name_kept(prepared, rows, folds, fold, place) for fold in numbers}
    with tempfile.TemporaryDirectory(prefix="lorafit-folds-") as folder:

        def predict(fold: int) -> Array:
            others, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            nothing = rows.select(np.arange(0))
            part = replace(
                material,
                splits=_build_splits(splits, rows.select(others), nothing, rows.select(held_out)),
                tokens={truncation: {"train": tokens.select(others), "test": tokens.select(held_out)}},
            )
            return _fit_fold(config, part, None, Path(folder) / f"fold{fold + 1}", progress).compute_logits("test")

        missing = _take_kept(kept, logits, folds, progress)
        try:
            _predict_missing(missing, kept, logits, folds, predict, progress)
        except _FoldInterruptedError as error:
            raise TrainingInterruptedError(
                f"Interrupted after {error.done} of {len(numbers)} folds.", run=stages.layout.root
            ) from None
    return logits[folds >= 0]


def build_material(config: Config, task: Task, rows: Split) -> Material:
    """Find the encoder, and put together what the models of all folds share.

    Args:
        config: The settings; the section of the model counts.
        task: The task, with the labels of all rows.
        rows: The rows of all folds.

    Returns:
        Encoder, tokenizer and rows. All rows are those of train; the other splits hold one, as there are none.
    """
    encoder = locate_base(config.model)
    tokenizer, pad_id = load_tokenizer(encoder.folder)
    one = rows.select(np.arange(1))
    return Material(Splits(config.data.source, task, rows, one, one), encoder, tokenizer, pad_id)


def _name_kept(prepared: Prepared, rows: Split, folds: NDArray[np.int64], fold: int, place: Path) -> Path:
    """Return the file of a fold's predictions, named by a digest of everything that they depend on."""
    config, precision = prepared.config, prepared.precision
    told = [
        version("lorafit"),
        version("torch"),
        str(precision),
        prepared.encoder.digest(),
        prepared.task.name,
        json.dumps(prepared.task.label_names),
        rows.fingerprint(),
        config.model_dump_json(include={"model", "method", "training"}),
        str(config.evaluation.coverage),
        str(fold),
    ]
    digest = hashlib.sha256("\n".join(told).encode("utf-8", "surrogatepass"))
    digest.update(prepared.tokens["train"].ids.tobytes())
    digest.update(folds.astype("<i8").tobytes())
    if rows.group_ids is not None:
        digest.update(rows.group_ids.astype("<i8").tobytes())  # which rows choose a fold's checkpoint
    return place / f"{digest.hexdigest()}{SUFFIX}"


class _FoldInterruptedError(Exception):
    """A signal came; `done` folds are done and kept."""

    def __init__(self, done: int) -> None:
        super().__init__(done)
        self.done = done


def _take_kept(kept: Mapping[int, Path], values: Array, folds: NDArray[np.int64], progress: Progress) -> list[int]:
    """Fill in the predictions of the folds that are kept, and return the other folds."""
    missing = []
    for fold, path in kept.items():
        found = (read_arrays(path) or {}).get("values")
        if found is None or found.shape != values[folds == fold].shape:
            missing.append(fold)
        else:
            values[folds == fold] = found
    if len(missing) < len(kept):
        progress.say(f"going on after {len(kept) - len(missing)} of {len(kept)} folds that are done")
    return missing


def _predict_missing(
    missing: Sequence[int],
    kept: Mapping[int, Path],
    values: Array,
    folds: NDArray[np.int64],
    predict: Callable[[int], Array],
    progress: Progress,
) -> None:
    """Fill in the predictions of the missing folds, and keep each; _FoldInterruptedError says where it ended."""
    for done, fold in enumerate(missing, start=len(kept) - len(missing)):
        progress.say(f"fold {done + 1} of {len(kept)}")
        try:
            values[folds == fold] = predict(fold)
        except TrainingInterruptedError:
            raise _FoldInterruptedError(done) from None
        keep_arrays(kept[fold], {"values": values[folds == fold]}, most=_MOST_KEPT)


def _pick(texts: Sequence[Text], places: NDArray[np.int64]) -> list[str]:
    return [join_text(texts[place]) for place in places]


def _build_splits(of: Splits, train: Split, validation: Split, test: Split) -> Splits:
    return Splits(of.source, of.task, train, validation, test)


def _place_rows(
    rows: Split, task: Task, others: NDArray[np.int64], held_out: NDArray[np.int64], *, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Return the places of the rows that train, choose and are predicted, by split."""
    remaining = rows.select(others)
    count = max(2, min(_VALIDATION_PARTS, len(join_rows(remaining))))
    parts = assign_folds(remaining, task, count, seed=seed)
    return {"train": others[parts > 0], "validation": others[parts == 0], "test": held_out}


def _prepare_rows(config: Config, material: Material) -> Prepared:
    """Prepare a model of all rows, with lower layers frozen where encoder and method allow it."""
    config = _without_extras(config)
    if config.method.layers == "all":
        frozen = config.model_copy(deep=True)
        frozen.method.layers = _LAYERS
        with suppress(ConfigError):
            return prepare(frozen, Silent(), material=material)
    return prepare(config, Silent(), material=material)


def _without_extras(config: Config) -> Config:
    """Return the settings of a training that is part of something else: without budget and trackers."""
    plain = config.model_copy(deep=True)
    plain.training.budget = None
    plain.training.track = []
    return plain


def _cache_frozen_layers(prepared: Prepared, folder: Path, progress: Progress) -> "ModelInputs":
    """Return all rows with their hidden states, or their tokens alone where caching does not pay or fit."""
    from lorafit.models.acceleration.encoder_block import frozen_depth
    from lorafit.models.acceleration.prefix_cache import PrefixCache
    from lorafit.training.inputs import cache_hidden_states

    config, tokens, model = prepared.config.training, prepared.tokens["train"], prepared.adapted.model
    plan = plan_batches(tokens.lengths, max_rows=config.batch_rows, max_tokens=config.batch_tokens)
    if not prepared.config.wants_prefix_cache(steps_per_epoch=len(plan), frozen=frozen_depth(model), again=True):
        return tokens
    cache = PrefixCache(model, prepared.precision, base_digest=prepared.encoder.digest(), folder=folder / "prefix")
    return cache_hidden_states(
        cache,
        {"train": (tokens, plan)},
        limit_bytes=int(config.prefix_cache_gb * 1e9),
        pad_id=prepared.pad_id,
        progress=progress,
    )["train"]


def _predict_fold(
    config: Config, material: Material, inputs: "dict[str, ModelInputs]", folder: Path, progress: Progress
) -> Array:
    """Fine-tune on the training rows, and predict the test rows, calibrated on the validation rows."""
    fitted = _fit_fold(config, material, inputs, folder, progress)
    task, y = fitted.prepared.task, fitted.prepared.splits.validation.y
    logits = fitted.compute_logits("validation")
    calibration = task.fit_calibration(y, logits, coverage=config.evaluation.coverage)
    return task.activate(fitted.compute_logits("test"), calibration)


def _fit_fold(
    config: Config, material: Material, inputs: "dict[str, ModelInputs] | None", folder: Path, progress: Progress
) -> RunStages:
    """Fine-tune on the training rows; without inputs the texts are read as tokens."""
    gc.collect()
    release_freed_memory()
    prepared = prepare(config, Silent(), material=material)
    folder.mkdir()
    stages = RunStages.begin(prepared, RunLayout(folder), progress)
    stages.inputs = inputs or stages.inputs
    stages.fit(resumable=False)
    return stages
