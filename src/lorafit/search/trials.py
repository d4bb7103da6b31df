"""One trial: train with what was drawn, measure on validation rows, stop early where it is not promising."""

import gc
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorafit.acceleration.memory import release_freed_memory
from lorafit.atomic import write_atomic
from lorafit.config import Config
from lorafit.errors import LorafitError, TrainingInterruptedError
from lorafit.journal import Journal
from lorafit.preparation import Material, describe, prepare
from lorafit.progress import Progress, Silent
from lorafit.run_stages import train_run
from lorafit.search.records import SearchLayout
from lorafit.search.space import Space

if TYPE_CHECKING:
    import optuna

__all__ = ["ACCURACY", "ERROR", "Trials", "describe_values"]

ACCURACY, ERROR = "accuracy", "error"
"""Names under which the study keeps a trial's validation accuracy and why it failed."""


@dataclass(frozen=True)
class Trials:
    """What all trials of this process share; called by the study with each.

    Attributes:
        config: The settings.
        space: What is varied.
        layout: The folder.
        material: Rows, tokens and encoder.
        progress: Told what is going on.
        total: How many trials there will be.
    """

    config: Config
    space: Space
    layout: SearchLayout
    material: Material
    progress: Progress
    total: int

    def __call__(self, trial: "optuna.Trial") -> float:
        """Train a trial and return its lowest validation loss."""
        import optuna

        values = self.space.suggest(trial)
        self.progress.say(f"trial {trial.number + 1} of {self.total}: {describe_values(values)}")
        known = self._find_known(trial)
        if known is not None:
            self.progress.say(f"the same as trial {known.number + 1}, which is not repeated")
            trial.set_user_attr(ACCURACY, known.user_attrs.get(ACCURACY))
            return float(known.values[0])
        try:
            return self._train(trial, values)
        except (KeyboardInterrupt, TrainingInterruptedError):
            trial.study.enqueue_trial(trial.params)
            raise KeyboardInterrupt from None
        except optuna.TrialPruned:
            raise
        except Exception as error:
            known_kind = isinstance(error, LorafitError)
            self._note(trial, str(error) if known_kind else f"{type(error).__name__}: {error}")
            raise

    def _train(self, trial: "optuna.Trial", values: Mapping[str, Any]) -> float:
        import optuna

        gc.collect()
        release_freed_memory()
        run, watch = self.layout.trial(trial.number), _Watch(trial)
        prepared = prepare(self.space.build_config(self.config, values), Silent(), material=self.material)
        run.root.mkdir(parents=True, exist_ok=True)
        write_atomic(run.config, prepared.config.to_yaml())
        journal, began = Journal(run, describe(prepared)), time.perf_counter()
        try:
            train_run(prepared, journal, self.progress, prefix_folder=self.layout.prefix_cache, on_validation=watch.see)
        except optuna.TrialPruned:
            self.progress.finish()
            self.progress.say(f"pruned after {time.perf_counter() - began:.0f} s: worse than the median at that point")
            raise
        finally:
            shutil.rmtree(run.checkpoints, ignore_errors=True)
            run.record.unlink(missing_ok=True)
        return watch.loss

    def _find_known(self, trial: "optuna.Trial") -> "optuna.trial.FrozenTrial | None":
        import optuna

        complete = trial.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
        return next((one for one in complete if one.params == trial.params), None)

    def _note(self, trial: "optuna.Trial", error: str) -> None:
        trial.set_user_attr(ERROR, error)
        self.progress.finish()
        self.progress.say(f"trial {trial.number + 1} failed: {error}")


class _Watch:
    """Remembers the lowest validation loss of a trial and ends it where the study's pruner says so."""

    def __init__(self, trial: "optuna.Trial") -> None:
        self._trial = trial
        self._evaluations = 0
        self.loss = float("inf")

    def see(self, figures: Mapping[str, float]) -> None:
        """Take in a validation result."""
        import optuna

        self._evaluations += 1
        if figures["loss"] < self.loss:
            self.loss = figures["loss"]
            self._trial.set_user_attr(ACCURACY, figures["accuracy"])
        self._trial.report(figures["loss"], self._evaluations)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def describe_values(values: Mapping[str, Any]) -> str:
    """Write what was drawn: `learning_rate 0.00031, r 8`."""
    return ", ".join(
        f"{name.partition('.')[2]} {f'{value:.3g}' if isinstance(value, float) else value}"
        for name, value in values.items()
    )
