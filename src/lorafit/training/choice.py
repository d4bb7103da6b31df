"""Choose a method by the data: what `method.name=auto` stands for.

Of few rows the regression on embeddings and SetFit are tried, and LoRA, too, where there are rows to validate on: the
lowest loss of rows that a model was not trained on decides. Of a handful of rows the embeddings are taken, as nothing
could decide, and of many LoRA. The evidence is in `docs/explanation/defaults.md`.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, isfinite
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config, override_config
from lorafit.data.loading import FEWEST_CALIBRATION_ROWS
from lorafit.errors import ConfigError, OutOfMemoryError, TrainingDivergedError, TrainingInterruptedError
from lorafit.models.adaptation import suits
from lorafit.models.load import build_model_config
from lorafit.models.method_settings import select_settings
from lorafit.models.methods import AUTO, find_method
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import ChoiceRecord
from lorafit.system.progress import Progress, Silent
from lorafit.tasks.base import Array, TargetScaler, Task
from lorafit.training.embedding_baseline import predicts_from_embeddings
from lorafit.training.folds import (
    assign_held_out_folds,
    cross_fit,
    predict_embedding_folds,
)
from lorafit.training.planning.memory import advise_on_memory, fit_to_memory
from lorafit.training.prepare import Material, load_material, prepare, use_threads
from lorafit.training.stages import RunStages

EMBEDDING: Final = "embedding"
SETFIT: Final = "setfit"
LORA: Final = "lora"

_BATCH_TOKENS: Final = "training.batch_tokens"
_MANY_ROWS: Final = 5_000
"""Training rows from which on nothing but LoRA is tried."""


@dataclass(frozen=True)
class Choice:
    """What to train.

    Attributes:
        config: The settings, with a method that is named.
        record: How it was chosen; None where it was named in the first place.
        tried: Its training, or that of its folds, where that is done.
        seconds: What choosing took by stage, named as in `RunRecord.seconds`.
    """

    config: Config
    record: ChoiceRecord | None = None
    tried: RunStages | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    def hand_over(self, stages: RunStages) -> None:
        """Record how the method of a new run was chosen, and let it go on from what is trained already."""
        seconds, tried, new = dict(self.seconds), self.tried, stages.layout
        if tried is not None:
            seconds |= tried.journal.record.seconds
            for folder, target in (
                (tried.layout.checkpoints, new.checkpoints),
                (tried.layout.cross_fitting, new.cross_fitting),
            ):
                if folder.is_dir():
                    shutil.move(folder, target)
        stages.journal.update(choice=self.record, seconds=seconds)


@contextmanager
def choose_method(config: Config, progress: Progress, *, material: Material | None = None) -> Iterator[Choice]:
    """Choose a method where the settings leave that open; other settings stay.

    Args:
        config: The settings.
        progress: Receives the progress.
        material: From `load_material`; None loads it.

    Yields:
        What was chosen, to be handed over inside the block.

    Raises:
        ConfigError: There is a budget, too: what trying takes is not known before.
        KeyboardInterrupt: It was interrupted; nothing is kept.
    """
    if config.method.name != AUTO:
        yield Choice(config)
        return
    if config.training.budget is not None:
        raise ConfigError(f"method.name={AUTO} cannot be planned for a budget: name a method, or leave --budget out.")
    progress.start("choosing a method")
    use_threads(config)
    material = material or load_material(config)
    progress.finish()
    names, reason = _list_candidates(material)
    if len(names) == 1:
        yield Choice(_name_method(config, names[0]), ChoiceRecord(method=names[0], reason=reason))
        return
    with tempfile.TemporaryDirectory(prefix="lorafit-choice-") as folder:
        began = time.perf_counter()
        try:
            trials = [_try(_name_method(config, name), material, Path(folder) / name, progress) for name in names]
        except TrainingInterruptedError:  # there is no run yet that could go on
            raise KeyboardInterrupt from None
        best = min(trials, key=lambda trial: trial.loss)
        losses = {trial.config.method.name: trial.loss for trial in trials if isfinite(trial.loss)}
        kept = 0.0 if best.stages is None else sum(best.stages.journal.record.seconds.values())
        yield Choice(
            best.config,
            ChoiceRecord(method=best.config.method.name, reason=reason, losses=losses),
            best.stages,
            {"choosing": time.perf_counter() - began - kept},
        )


def _list_candidates(material: Material) -> tuple[tuple[str, ...], str]:
    """Return the methods that are tried, and why one is chosen, as a phrase that goes on "was chosen"."""
    splits, task = material.splits, material.splits.task
    rows, validation = len(splits.train), len(splits.validation)
    kind = build_model_config(material.encoder.folder, task).model_type
    if not suits(find_method(EMBEDDING), kind):
        return (LORA,), f"as {EMBEDDING} cannot adapt {kind}"
    if rows >= _MANY_ROWS:
        return (LORA,), f"for {rows:,} training rows"
    if validation:
        held_out = validation + (0 if splits.calibration is None else len(splits.calibration))
        return (EMBEDDING, SETFIT, LORA), f"by the lowest loss of {held_out:,} held-out rows"
    if rows < FEWEST_CALIBRATION_ROWS:
        return (EMBEDDING,), f"for {rows:,} training rows"
    return (EMBEDDING, SETFIT), f"by the lowest loss of {rows:,} training rows out of fold"


@dataclass(frozen=True)
class _Trial:
    """A method that was tried.

    Attributes:
        config: The settings, with the method named and batches that fit into the memory.
        loss: Of rows that it was not trained on; infinite where it could not be trained.
        stages: Its training, of few rows that of its folds; None where it takes no time to train again.
    """

    config: Config
    loss: float
    stages: RunStages | None = None


def _try(config: Config, material: Material, folder: Path, progress: Progress) -> _Trial:
    progress.say(f"trying {find_method(config.method.name).title}")
    rows, task = material.splits.train, material.splits.task
    folds = None if len(material.splits.validation) else assign_held_out_folds(rows, task, seed=config.data.seed)
    if folds is not None and not (folds >= 0).any():
        return _Trial(config, inf)
    if folds is not None and predicts_from_embeddings(config):
        values = predict_embedding_folds(config, material, folds, progress)
        return _Trial(config, _score(task, rows.y[folds >= 0], task.deactivate(values)))
    folder.mkdir()
    prepared = prepare(config, Silent(), material=material)
    try:
        with advise_on_memory():
            plan = fit_to_memory(prepared)
            for note in plan.notes:
                progress.say(note)
            stages = RunStages.begin(plan.prepared, RunLayout(folder), progress, events=plan.notes)
            fitted = override_config(config, {_BATCH_TOKENS: plan.prepared.config.training.batch_tokens})
            if folds is None:
                stages.fit()
                return _Trial(fitted, _score_held_out(stages), stages)
            with stages.journal.stage("cross-fitting"):
                logits = cross_fit(stages, folds, progress)
    except (OutOfMemoryError, TrainingDivergedError) as error:
        progress.finish()
        progress.say(str(error))
        return _Trial(config, inf)
    return _Trial(fitted, _score(task, rows.y[folds >= 0], logits), stages)


def _score_held_out(stages: RunStages) -> float:
    """Return the loss of validation and calibration rows."""
    splits = stages.prepared.splits.by_name
    names = [name for name in ("validation", "calibration") if name in splits]
    y = np.concatenate([splits[name].y for name in names])
    return _score(stages.prepared.task, y, np.concatenate([*map(stages.compute_logits, names)]))


def _score(task: Task, y: NDArray[Any], logits: Array) -> float:
    return task.validation_metrics(y, logits, TargetScaler())["calibrated_loss"]


def _name_method(config: Config, name: str) -> Config:
    named = config.model_copy(deep=True)
    named.method = select_settings(config.method, name)
    return named
