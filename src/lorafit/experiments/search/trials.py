"""One trial: train with the settings drawn, measure on validation rows, and stop early if it is not promising."""

import gc
import math
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorafit.config import Config
from lorafit.errors import ConfigError, LorafitError, TrainingInterruptedError
from lorafit.experiments.keeping import stops_all
from lorafit.experiments.search.page import write_value
from lorafit.experiments.search.records import SearchLayout
from lorafit.experiments.search.space import Space
from lorafit.experiments.search.study import ERROR, INTERRUPTED, SAME_AS, SCORE, WORKER, seed_sampler
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.system.progress import Progress, Silent
from lorafit.training.prepare import Material, Prepared, prepare
from lorafit.training.stages import RunStages

if TYPE_CHECKING:
    import optuna


_IMPOSSIBLE = "impossible"
"""Name under which the study keeps that a trial cannot be trained with its settings."""


class TrialFailedError(Exception):
    """A trial cannot be trained; the others may be."""


@dataclass(frozen=True)
class Trials:
    """What all trials of this process share; the study calls it with each trial.

    Attributes:
        config: The settings.
        space: What is varied.
        layout: The folder.
        material: Rows, tokens and encoder.
        progress: Receives the progress.
        worker: Name of the worker of an engine that this process is; None if it is none.
    """

    config: Config
    space: Space
    layout: SearchLayout
    material: Material
    progress: Progress
    worker: str | None = None

    def __call__(self, trial: "optuna.Trial") -> float:
        """Train a trial and return its lowest validation loss."""
        import optuna

        try:
            if trial.user_attrs.get(WORKER) != self.worker:  # one that was put back has its last worker's
                trial.set_user_attr(WORKER, self.worker)
            seed_sampler(trial.study, self.config.search.seed + trial.number)
            values = self.space.suggest(trial)
            self.progress.say(f"trial {trial.number + 1}: {_describe_values(values)}")
            config = self.space.build_config(self.config, values)
            known = self._find_known(trial, config)
            return self._train(trial, config) if known is None else self._repeat(trial, known)
        except (KeyboardInterrupt, TrainingInterruptedError):
            _begin_again(trial)
            raise
        except optuna.TrialPruned:
            raise
        except Exception as error:
            if stops_all(error):
                with suppress(Exception):  # the study may lie on the disk that is full
                    _begin_again(trial)
                raise
            reason = str(error) if isinstance(error, LorafitError) else f"{type(error).__name__}: {error}"
            trial.set_user_attr(ERROR, reason)
            self.progress.say(f"trial {trial.number + 1} failed: {reason}")
            raise TrialFailedError(reason) from error

    def _repeat(self, trial: "optuna.Trial", known: "optuna.trial.FrozenTrial") -> float:
        """Return what a trial with the same settings gave, or fail as it failed."""
        self.progress.say(f"the same settings as trial {known.number + 1}, which is not repeated")
        trial.set_user_attr(SAME_AS, known.number)
        if known.values is None:
            raise ConfigError(known.user_attrs[ERROR])
        trial.set_user_attr(SCORE, known.user_attrs.get(SCORE))
        return float(known.values[0])

    def _train(self, trial: "optuna.Trial", config: Config) -> float:
        import optuna

        gc.collect()
        release_freed_memory()
        run, watch = self.layout.trial(trial.number), _Watch(trial, self.material.splits.task.primary)
        stages, began = RunStages.begin(self._prepare(trial, config), run, self.progress), time.perf_counter()
        try:
            with stages.cache_frozen_layers(self.layout.prefix_cache):
                stages.fit(on_validation=watch.see)
        except optuna.TrialPruned:
            self.progress.finish()
            self.progress.say(f"pruned after {time.perf_counter() - began:.0f} s: not better than the median so far")
            raise
        finally:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
            run.record.unlink(missing_ok=True)
        return watch.loss

    def _prepare(self, trial: "optuna.Trial", config: Config) -> Prepared:
        """Prepare a trial; settings with which that is impossible are remembered and not tried again."""
        try:
            return prepare(config, Silent(), material=self.material)
        except ConfigError:
            trial.set_user_attr(_IMPOSSIBLE, value=True)
            raise

    def _find_known(self, trial: "optuna.Trial", config: Config) -> "optuna.trial.FrozenTrial | None":
        """Return a trial with the same settings that is complete, or that could not be trained with them."""
        for one in trial.study.get_trials(deepcopy=False):
            is_known = one.state.name == "COMPLETE" or _IMPOSSIBLE in one.user_attrs
            if is_known and SAME_AS not in one.user_attrs:
                known = self.space.build_config(self.config, self.space.decode(one.params))
                if known == config:
                    return one
        return None


class _Watch:
    """Remembers the lowest validation loss of a trial, and prunes the trial where the study's pruner says so."""

    def __init__(self, trial: "optuna.Trial", metric: str) -> None:
        self._trial, self._metric = trial, metric
        self.loss = math.inf

    def see(self, share: float, metrics: Mapping[str, float]) -> None:
        """Record a validation; trials of different lengths are compared at the same share of their steps."""
        import optuna

        loss = metrics["calibrated_loss"]
        if not math.isfinite(loss):
            return  # training ends of itself
        if loss < self.loss:
            self.loss = loss
            self._trial.set_user_attr(SCORE, metrics[self._metric])
        self._trial.report(loss, round(100 * share))
        if self._trial.should_prune():
            raise optuna.TrialPruned


def _begin_again(trial: "optuna.Trial") -> None:
    """Leave a trial to whoever goes on with the search."""
    trial.set_user_attr(INTERRUPTED, value=True)
    trial.study.enqueue_trial(trial.params)


def _describe_values(values: Mapping[str, Any]) -> str:
    """Write the values drawn: `learning_rate 0.00031, r 8`."""
    return ", ".join(f"{name.partition('.')[2]} {write_value(value)}" for name, value in values.items())
