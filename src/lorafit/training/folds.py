"""Out-of-fold predictions: every row is predicted by a model that was not trained on it."""

import gc
import hashlib
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config
from lorafit.data.rows import Split, Splits
from lorafit.data.splits import join_rows
from lorafit.errors import ConfigError, DataError, JobInterruptedError, TrainingInterruptedError
from lorafit.inference.predictor import compute_logits
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.models.array_cache import SUFFIX, keep_arrays, read_arrays
from lorafit.models.batching import plan_batches
from lorafit.models.cache import cache_folder
from lorafit.models.load import load_tokenizer
from lorafit.runs.bases import locate_base
from lorafit.runs.folder import RunLayout
from lorafit.system.progress import Progress, Silent
from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Array, Task
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


def predict_baseline_folds(
    name: str, rows: Split, task: Task, folds: NDArray[np.int64], progress: Progress | None = None
) -> Array:
    """Predict each fold with a baseline that is trained on the others.

    Args:
        name: A key of `Task.baselines`.
        rows: The n rows.
        task: The task.
        folds: Shape (n,), from `assign_folds`.
        progress: Told how many folds are done.

    Returns:
        Values of shape (n, labels), in the order of the rows.
    """
    progress = progress or Silent()
    values = np.empty((len(rows), len(task.label_names)))
    numbers = np.unique(folds)
    progress.start(f"{task.baselines[name]}, out of fold", total=len(numbers), unit="fold")
    for done, fold in enumerate(numbers, start=1):
        others, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        values[held_out] = task.predict_baseline(
            name, _pick(rows.texts, others), rows.y[others], _pick(rows.texts, held_out)
        )
        progress.update(done)
    progress.finish()
    return values


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
        kept = {fold: _name_kept(prepared, rows, folds, fold) for fold in numbers}
        missing = [fold for fold, path in kept.items() if not _take_kept(path, values, folds == fold)]
        if len(missing) < len(numbers):
            progress.say(f"going on after {len(numbers) - len(missing)} of {len(numbers)} folds that are done")
        if not missing:
            return values
        inputs = _cache_frozen_layers(prepared, Path(folder), progress)
        del prepared
        for done, fold in enumerate(missing, start=len(numbers) - len(missing) + 1):
            progress.say(f"fold {done} of {len(numbers)}")
            held_out = np.flatnonzero(folds == fold)
            places = _place_rows(rows, task, np.flatnonzero(folds != fold), held_out, seed=config.training.seed)
            part = replace(
                material,
                splits=_build_splits(material.splits, *(rows.select(chosen) for chosen in places.values())),
                tokens={truncation: {name: tokens.select(chosen) for name, chosen in places.items()}},
            )
            chosen_inputs = {name: inputs.select(chosen) for name, chosen in places.items()}
            try:
                values[held_out] = _predict_fold(config, part, chosen_inputs, Path(folder) / f"fold{done}", progress)
            except TrainingInterruptedError:
                raise JobInterruptedError(
                    f"Interrupted. {done - 1} of {len(numbers)} folds are done and kept: the same command goes on "
                    "after them."
                ) from None
            keep_arrays(kept[fold], {"values": values[held_out]}, most=_MOST_KEPT)
    return values


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


def _name_kept(prepared: Prepared, rows: Split, folds: NDArray[np.int64], fold: int) -> Path:
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
    return cache_folder() / "folds" / f"{digest.hexdigest()}{SUFFIX}"


def _take_kept(path: Path, values: Array, held_out: NDArray[np.bool_]) -> bool:
    """Fill in the predictions of a fold where they are kept, and tell whether they are."""
    found = (read_arrays(path) or {}).get("values")
    if found is None or found.shape != values[held_out].shape:
        return False
    values[held_out] = found
    return True


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
    config = config.model_copy(deep=True)
    config.training.budget = None
    config.training.track = []
    if config.method.layers == "all":
        frozen = config.model_copy(deep=True)
        frozen.method.layers = _LAYERS
        with suppress(ConfigError):
            return prepare(frozen, Silent(), material=material)
    return prepare(config, Silent(), material=material)


def _cache_frozen_layers(prepared: Prepared, folder: Path, progress: Progress) -> "ModelInputs":
    """Return all rows with their hidden states, or their tokens alone where caching does not pay or fit."""
    from lorafit.models.acceleration.encoder_block import frozen_depth
    from lorafit.models.acceleration.prefix_cache import PrefixCache
    from lorafit.training.inputs import cache_hidden_states

    config, tokens, model = prepared.config.training, prepared.tokens["train"], prepared.adapted.model
    plan = plan_batches(tokens.lengths, max_rows=config.batch_size, max_tokens=config.batch_tokens)
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
    """Fine-tune on the training rows, and predict the test rows."""
    gc.collect()
    release_freed_memory()
    prepared = prepare(config, Silent(), material=material)
    task, splits = prepared.task, prepared.splits
    folder.mkdir()
    stages = RunStages.begin(prepared, RunLayout(folder), progress)
    stages.inputs = inputs
    stages.fit()
    found = {
        name: compute_logits(stages.trained_runtime, inputs[name], prepared.pad_id, outputs=len(task.output_names))
        for name in ("validation", "test")
    }
    coverage = config.evaluation.coverage
    calibration = task.fit_calibration(splits.validation.y, found["validation"], coverage=coverage)
    return task.activate(found["test"], calibration)
