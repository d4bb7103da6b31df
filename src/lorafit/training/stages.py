"""The stages of a run, from measuring the untrained model to the report."""

import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from lorafit.data.rows import Splits
from lorafit.data.writing import write_table
from lorafit.errors import ConfigError, RunError, TrainingDivergedError, TrainingInterruptedError
from lorafit.inference.export.export import keep_graph
from lorafit.inference.mistakes import explain_mistakes
from lorafit.inference.predictor import Predictor, Runtime, compute_outputs, plan_prediction
from lorafit.inference.typicality import Typicality, add_signs, draw_rows
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.models.batching import plan_batches
from lorafit.models.cache import cache_folder
from lorafit.models.load import load_tokenizer
from lorafit.models.methods import find_method
from lorafit.reports.model_card import render_model_card
from lorafit.reports.page import write_report
from lorafit.reports.tracking import open_trackers, track_results
from lorafit.runs.blends import Calibrated
from lorafit.runs.evidence import add_evidence, is_intact
from lorafit.runs.folder import TYPICALITY_FILE, RunLayout
from lorafit.runs.golden import GOLDEN_PRECISION
from lorafit.runs.journal import Journal
from lorafit.runs.predictions import read_predictions, write_predictions
from lorafit.runs.records import DivergenceRecord, ForecastRecord, RunRecord, TrainingRecord
from lorafit.runs.saving import is_proven, rehearse_saving, save_trained
from lorafit.system.atomic import write_atomic
from lorafit.system.extras import install_line, missing_modules
from lorafit.system.progress import Progress
from lorafit.system.text import join_text
from lorafit.tasks.base import Array
from lorafit.tasks.baselines import EMBEDDING, ENCODER, MAJORITY, WORD_MODELS
from lorafit.tasks.blending import Blend, HeldOut, compare_losses, fit_blend
from lorafit.tasks.records import MetricsRecord
from lorafit.tasks.word_model import MOST_BYTES, WordModel
from lorafit.training.checkpoints import find_checkpoint, go_back_to_best
from lorafit.training.embedding_baseline import is_embedding, predict_embedding
from lorafit.training.evaluation import Predicted, build_metrics
from lorafit.training.planning.memory import advise_on_memory
from lorafit.training.prepare import Prepared, describe, describe_hardware, prepare_again

if TYPE_CHECKING:
    from lorafit.training.inputs import ModelInputs
    from lorafit.training.job import OnValidation

_TIMED_BATCHES = 8
"""Batches that the speed is measured on where the test rows were predicted from cached hidden states."""


class RunStages:
    """A run under way. Its stages are methods, in the order in which a run calls them; what is not wanted is skipped.

    `fit` trains the model of `prepared` in place, and `journal` keeps `run.json`. `inputs` are the texts by split as
    the model reads them: as tokens or, inside `cache_frozen_layers`, as hidden states.
    """

    def __init__(self, prepared: Prepared, journal: Journal, progress: Progress) -> None:
        self.prepared = prepared
        self.journal = journal
        self.progress = progress
        self.inputs: Mapping[str, ModelInputs] = prepared.tokens
        self.calibrated = Calibrated()
        self._words: dict[str, WordModel] = {}
        self._seconds_of_words = 0.0
        self._features: dict[str, tuple[Array, Array]] = {}
        self._typicality: Typicality | None = None
        self._held_out: HeldOut | None = None

    @classmethod
    def begin(
        cls,
        prepared: Prepared,
        layout: RunLayout,
        progress: Progress,
        *,
        forecast: ForecastRecord | None = None,
        events: Sequence[str] = (),
    ) -> Self:
        """Write the record and the settings of a new run into its folder, with what went wrong before it began.

        The record comes first, because a folder without one is not taken for a run.
        """
        record = describe(prepared, forecast).model_copy(update={"events": list(events)})
        journal = Journal(layout, record)
        write_atomic(layout.config, prepared.config.to_yaml())
        if left_out := prepared.splits.left_out:
            columns = dict(zip(("source", "row", "reason"), zip(*left_out, strict=True), strict=True))
            write_table(layout.left_out, columns, csv_safe=True)
        journal.update(evidence=add_evidence(layout, record, layout.config, layout.left_out))
        return cls(prepared, journal, progress)

    @classmethod
    def resume(cls, prepared: Prepared, layout: RunLayout, progress: Progress) -> Self:
        """Open a run that did not end, with what it has cost so far.

        Args:
            prepared: Data and model, prepared again from the run's settings.
            layout: The run folder.
            progress: Receives the progress of every stage.

        Returns:
            The run.

        Raises:
            RunError: The data or the base model have changed since the run began.
        """
        old, record = RunRecord.read(layout.record), describe(prepared)
        if record.data.splits != old.data.splits:
            raise RunError(f"The data of {layout.root} have changed since it began: start a new run.")
        if record.base_model.digest != old.base_model.digest:
            raise RunError(f"The base model of {layout.root} has changed since it began: start a new run.")
        names = (
            "created",
            "forecast",
            "seconds",
            "peak_memory_bytes",
            "energy_joules",
            "evidence",
            "divergence",
            "events",
            "choice",
        )
        kept = {name: getattr(old, name) for name in names}
        stages = cls(prepared, Journal(layout, record.model_copy(update=kept)), progress)
        if old.divergence is not None and old.divergence.settings:
            stages._change(old.divergence)
        return stages

    @property
    def layout(self) -> RunLayout:
        """The run folder."""
        return self.journal.layout

    def measure_before(self) -> Array | None:
        """Predict the test rows with the untrained model.

        Returns:
            Values of shape (n, labels), which a resumed run reads from its folder; None where they are not wanted.
        """
        if not self.prepared.config.evaluation.before:
            return None
        with self.journal.stage("before training"):
            path = self.layout.predictions("test", "before")
            kept = None
            if is_intact(self.layout, self.journal.record, path):
                kept = read_predictions(path, self.prepared.splits.test, self.prepared.task)
            if kept is not None:
                return kept
            logits = self._compute_test_logits("before", self._current_runtime())
            logits = self.prepared.scaler.undo(logits)  # `fit` folds the scaler into the head
            return self._keep_predictions("before", self.prepared.task.activate(logits))

    @contextmanager
    def rehearse_saving(self) -> Iterator[None]:
        """After the block, check that plain libraries load what would be saved of the untrained model.

        They do so in a fresh process while the block runs. What lorafit's own tests show is not checked again.
        """
        from lorafit.models.runtimes.pytorch import TorchRuntime

        prepared, stage = self.prepared, "save check"
        if is_proven(prepared.config.model, prepared.config.method):
            yield
            return
        exact = TorchRuntime(prepared.adapted.model, GOLDEN_PRECISION)
        with ExitStack() as stack:
            with self.journal.stage(stage):
                rehearsal = rehearse_saving(
                    prepared.adapted,
                    prepared.encoder,
                    self.journal.record,
                    compute_logits=self._build_predictor(exact).compute_logits,
                )
                check = stack.enter_context(rehearsal)
            yield
            self.progress.start("checking that other tools can load this model")
            with self.journal.stage(stage):
                check()
            self.progress.finish()

    @contextmanager
    def cache_frozen_layers(self, folder: Path | None = None, *, with_test_rows: bool = False) -> Iterator[None]:
        """Inside the block read the hidden states of the frozen layers from disk, where that pays.

        Args:
            folder: A folder that later runs read, too; None for this run's own, which is removed after the block unless
                the run is interrupted. With `training.prefix_cache: shared` both are lorafit's cache, which stays.
            with_test_rows: Whether calibration and test rows are cached, too, because other runs predict them as well;
                they are not where everything takes more than half of `training.prefix_cache_gb`, so that there is room
                for another method.
        """
        from lorafit.models.acceleration.encoder_block import frozen_depth
        from lorafit.models.acceleration.prefix_cache import PrefixCache
        from lorafit.training.inputs import cache_hidden_states

        config, tokens, model = self.prepared.config.training, self.prepared.tokens, self.prepared.adapted.model
        plans = {name: plan_prediction(texts.lengths) for name, texts in tokens.items() if name != "train"}
        plans["train"] = plan_batches(
            tokens["train"].lengths, max_rows=config.batch_rows, max_tokens=config.batch_tokens
        )
        if not self.prepared.config.wants_prefix_cache(
            steps_per_epoch=len(plans["train"]), frozen=frozen_depth(model), again=folder is not None
        ):
            yield
            return
        is_shared = config.prefix_cache == "shared"
        place = cache_folder() / "prefix_cache" if is_shared else folder or self.layout.prefix_cache
        remove = place if folder is None and not is_shared else None
        cache = PrefixCache(model, self.prepared.precision, base_digest=self.prepared.encoder.digest(), folder=place)
        groups: list[tuple[str, ...]] = [tuple(name for name in ("train", "validation") if name in tokens)]
        if with_test_rows and cache.size(list(tokens.values())) <= config.prefix_cache_gb * 1e9 / 2:
            groups.append(tuple(name for name in tokens if name not in groups[0]))
        inputs: dict[str, ModelInputs] = dict(tokens)
        try:
            with self.journal.stage("frozen layers"):
                for names in groups:
                    inputs |= cache_hidden_states(
                        cache,
                        {name: (tokens[name], plans[name]) for name in names},
                        limit_bytes=int(config.prefix_cache_gb * 1e9),
                        pad_id=self.prepared.pad_id,
                        progress=self.progress,
                    )
            self.inputs = inputs
            yield
        except (KeyboardInterrupt, TrainingInterruptedError):
            remove = None
            raise
        finally:
            self.inputs = tokens
            inputs.clear()  # some systems remove no file that is open
            if remove is not None:
                shutil.rmtree(remove, ignore_errors=True)

    def fit(
        self,
        *,
        expected_seconds: float | None = None,
        on_validation: "OnValidation | None" = None,
        resumable: bool = True,
    ) -> None:
        """Train the model, from the newest complete checkpoint of the run folder where there is one.

        Args:
            expected_seconds: Forecast of the training time, for the progress bar.
            on_validation: Called with the share of the steps done and the validation metrics; what it raises ends
                training.
            resumable: Whether it is worth a checkpoint to go on from.
        """
        from lorafit.training.targets import fold_scaler

        with open_trackers(self.prepared.config, self.layout, self.journal.record), self.journal.stage("training"):
            training, command = None, self.layout.resume_command
            while training is None:
                try:
                    with advise_on_memory(f"What was done is kept; go on with:\n  {command}"):
                        training = self._train(expected_seconds, on_validation, resumable=resumable)
                except TrainingDivergedError as error:
                    self._answer_divergence(error)
        fold_scaler(self.prepared.adapted, self.prepared.scaler)
        seconds = self.journal.record.seconds["training"]
        self.journal.update(training=training.model_copy(update={"seconds": seconds}))
        self._keep(self.layout.history)

    def _train(
        self, expected_seconds: float | None, on_validation: "OnValidation | None", *, resumable: bool
    ) -> TrainingRecord:
        """Train the model from the newest checkpoint that can be used."""
        from lorafit.training.contrastive import fit_by_pairs
        from lorafit.training.head import fit_head_alone
        from lorafit.training.inputs import build_rows, give_inputs
        from lorafit.training.job import TrainingJob
        from lorafit.training.trainer import fit

        prepared, splits, runtime = self.prepared, self.prepared.splits, self._current_runtime()
        task, scaler, texts = prepared.task, prepared.scaler, self.inputs["train"]
        config, y = prepared.config.training, splits.train.y
        job = TrainingJob(
            adapted=prepared.adapted,
            rows=build_rows(
                texts,
                task.targets(y, scaler),
                prepared.pad_id,
                task.loss_weights(y) if config.class_weights == "balanced" else None,
                task.balance_groups(y) if config.sampling == "balanced" else None,
                prepared.short,
            ),
            config=config,
            method=prepared.config.method,
            layout=self.layout,
            precision=prepared.precision,
            validate=None
            if not len(splits.validation)
            else lambda: task.validation_metrics(
                splits.validation.y, self._compute_logits(runtime, "validation"), scaler
            ),
            metrics=task.metrics,
            row_numbers=give_inputs(splits.train.ids, texts.windows),
            on_validation=on_validation,
            expected_seconds=expected_seconds,
            resumable=resumable,
            ranks=prepared.ranks,
        )
        checkpoint = self._find_checkpoint()
        objective = find_method(prepared.config.method.name).objective
        if objective == "none":
            return fit_head_alone(job)
        if objective == "pairs":
            marks = give_inputs(task.pair_marks(y), texts.windows)
            return fit_by_pairs(job, marks, progress=self.progress, resume_from=checkpoint)
        return fit(job, progress=self.progress, resume_from=checkpoint)

    def _answer_divergence(self, error: TrainingDivergedError) -> None:
        """Record that training diverged; change what may help, or raise the error if training is not to go on."""
        self.note_event(str(error))
        tried = self.journal.record.divergence
        if tried is not None and tried.settings:
            raise TrainingDivergedError(
                f"{error} It had diverged before, and went on with {tried.describe_settings()}."
            ) from error
        divergence = DivergenceRecord(fault=str(error), settings=error.settings)
        self.journal.update(divergence=divergence)
        if divergence.settings:
            go_back_to_best(self.layout.checkpoints)
        if not divergence.settings or self.prepared.config.training.on_divergence == "stop":
            raise error
        self.progress.finish()
        self.progress.say(divergence.fault)
        self._change(divergence)

    def _change(self, divergence: DivergenceRecord) -> None:
        """Go on with settings that may help where training has diverged."""
        self.prepared = prepare_again(self.prepared, divergence.settings)
        if "training.precision" in divergence.settings:
            self.inputs = self.prepared.tokens  # hidden states of the other precision are of no use
        self.journal.update(hardware=describe_hardware(self.prepared))
        event = f"training goes on with {divergence.describe_settings()}, because it had diverged"
        self.progress.say(event)
        self.note_event(event)

    def note_event(self, event: str) -> None:
        """Record once what went wrong on the way."""
        self.journal.update(events=list(dict.fromkeys([*self.journal.record.events, event])))

    @property
    def blended_words(self) -> tuple[str, ...]:
        """The word models that the blend may take up; none where no baselines are wanted."""
        config = self.prepared.config
        return tuple(config.training.name_members(self.prepared.task.baselines)) if config.evaluation.baselines else ()

    def calibrate(self, held_out: HeldOut | None) -> None:
        """Fit the trained model's calibration on held-out rows, and its blend with word models where that helps.

        The calibration of a blend is fitted to its cross-fitted logits, as its weights have seen the rows.

        Args:
            held_out: From `predict_held_out`, or training rows out of fold; None where there are none.
        """
        task, config = self.prepared.task, self.prepared.config.evaluation
        if held_out is None:
            if config.target_accuracy is not None:
                self.progress.say(
                    f"there are no calibration rows, so no confidence is chosen for an accuracy of "
                    f"{config.target_accuracy:g}"
                )
            return
        if len(held_out.y) < task.fewest_calibration_rows(config.coverage):
            self.progress.say(
                f"{len(held_out.y)} calibration rows are too few for a coverage of {config.coverage:g}: it may be less"
            )
        with self.journal.stage("calibration"):
            self._held_out = held_out
            self.journal.update(cross_fitted_folds=held_out.models)
            limits: dict[str, Any] = {"coverage": config.coverage, "target_accuracy": config.target_accuracy}
            self.calibrated = Calibrated(task.fit_calibration(held_out.y, held_out.logits, **limits))
            if not held_out.words:
                return
            record, logits = fit_blend(task, held_out, seed=config.seed)
            self.journal.update(blend=record)
            if record.kept:
                words = {name: self._fit_words(name).compact(MOST_BYTES) for name in record.members}
                blended = task.fit_calibration(held_out.y, logits, **limits)
                self.calibrated = Calibrated(self.calibrated.alone, Blend(record.weights, words), blended)
                self._held_out = replace(held_out, logits=logits)

    def predict_held_out(self) -> HeldOut | None:
        """Predict the calibration rows with the trained model and word models; return None where there are none."""
        rows, task = self.prepared.splits.calibration, self.prepared.task
        if rows is None:
            return None
        with self.journal.stage("calibration"):
            self.progress.start("calibrating", total=len(rows), unit="text")
            logits = self._compute_logits(self.trained_runtime, "calibration", self.progress, keep_features=True)
            self.progress.finish()
        names = self.blended_words
        with self.journal.stage("baselines") if names else nullcontext():
            texts = [*map(join_text, rows.texts)]
            models = {name: self._fit_words(name).compact(MOST_BYTES) for name in names}
            words = {name: task.deactivate(model.score(texts)) for name, model in models.items()}
        return HeldOut(rows.y, logits, words, rows.group_ids)

    def _fit_words(self, name: str) -> WordModel:
        """Return a baseline that reads words, trained on the training rows when it is first asked for."""
        if name not in self._words:
            release_freed_memory()  # training's; the n-gram models need memory of their own
            self._words[name] = fit_words(name, self.prepared.splits, self.progress)
        return self._words[name]

    def fit_typicality(self) -> None:
        """Fit what typical texts are like to training rows, ranked by the calibration rows that `calibrate` read."""
        if self.prepared.splits.calibration is None:
            self.progress.say(
                "there are no calibration rows, so it is not known which texts are like the training rows"
            )
            return
        if "calibration" not in self._features:
            self.progress.say(
                "the model gives no features of a whole text, so it is not known which texts are like the training rows"
            )
            return
        tokens, y = self.prepared.tokens["train"], self.prepared.splits.train.y
        places = self._draw(tokens.texts)
        with self.journal.stage("typicality"):
            self.progress.start("reading what typical texts are like", total=len(places), unit="text")
            _, features = compute_outputs(
                self.trained_runtime,
                tokens.select(places),
                self.prepared.pad_id,
                outputs=len(self.prepared.task.output_names),
                on_progress=self.progress.update,
            )
            self.progress.finish()
            strata = self.prepared.task.strata(y)[places]
            if features is not None:
                self._typicality = Typicality.fit(features, strata, self._read_features("calibration"))

    def _draw(self, rows: int) -> NDArray[np.int64]:
        return draw_rows(rows, self.prepared.config.evaluation.seed)

    def _read_features(self, split: str) -> Array:
        """Return the kept features of a split, with what else tells how typical its texts are."""
        task, blend, rows = self.prepared.task, self.calibrated.blend, self.prepared.splits.by_name[split]
        features, logits = self._features[split]
        texts, doubts = (
            [join_text(rows.texts[place]) for place in self._draw(len(rows)).tolist()],
            [task.doubt(task.activate(logits))],
        )
        if blend is not None:
            doubts.append(blend.doubt(task, blend.read(texts)))
        return add_signs(features, texts, *doubts)

    def save(self, *, trust_proven: bool = False) -> None:
        """Save what was trained, and check in a fresh process that plain libraries load it with the same logits.

        Args:
            trust_proven: Whether to leave out the process for what lorafit's own tests show, as it takes seconds.
        """
        from lorafit.models.runtimes.pytorch import TorchRuntime

        def write_more(folder: Path) -> None:
            self.calibrated.write(folder)
            if self._typicality is not None:
                self._typicality.save(folder / TYPICALITY_FILE)

        exact = TorchRuntime(self.prepared.adapted.model, GOLDEN_PRECISION)
        release_freed_memory()  # training's; the fresh process needs memory of its own
        with self.journal.stage("saving"):
            self.progress.start("saving the result and loading it in a fresh process")
            files = save_trained(
                self.prepared.adapted,
                self.prepared.encoder,
                self.layout,
                self.journal.record,
                compute_logits=self._build_predictor(exact).compute_logits,
                is_checked=not (trust_proven and is_proven(self.prepared.config.model, self.prepared.config.method)),
                write_more=write_more,
            )
            self.journal.update(files=files)
            self.progress.finish()

    def evaluate(self, before: Array | None = None) -> tuple[Predicted, MetricsRecord]:
        """Compute the test metrics of the trained model and of the baselines, and write metrics and model card.

        Where the model is a blend, the encoder alone is among the baselines.

        Args:
            before: From `measure_before`.

        Returns:
            The predictions of every model for the test rows, and the metrics.
        """
        splits, config, baselines = self.prepared.splits, self.prepared.config.evaluation, {}
        if config.baselines:
            with self.journal.stage("baselines"):
                baselines = self._measure_baselines([name for name in splits.task.baselines if name in WORD_MODELS])
                self._words.clear()
                baselines |= self._measure_embedding()
        with self.journal.stage("evaluation"):
            baselines = self._measure_baselines([MAJORITY]) | baselines
            began = time.perf_counter()
            logits = self._compute_test_logits("after", self.trained_runtime)
            if self.calibrated.blend is not None:
                alone = splits.task.activate(logits, self.calibrated.alone)
                baselines = {ENCODER: self._keep_predictions(ENCODER, alone), **baselines}
                logits = self._blend(logits)
            after = self._keep_predictions("after", splits.task.activate(logits, self.calibrated.calibration))
            seconds = time.perf_counter() - began
            is_cached = self.inputs["test"] is not self.prepared.tokens["test"]
            self.journal.update(texts_per_second=self._measure_speed() if is_cached else len(splits.test) / seconds)
            predicted = Predicted(after, before, baselines, self.calibrated.calibration)
            metrics = build_metrics("test", splits.test, splits.task, config, predicted)
            if self._typicality is not None:
                sides = ("calibration", "test")
                rows = [splits.by_name[side].select(self._draw(len(splits.by_name[side]))) for side in sides]
                found = self._typicality.compare(
                    *map(self._read_features, sides), units=(rows[0].unit_ids, rows[1].unit_ids)
                )
                metrics = metrics.model_copy(update={"exchangeability": found})
            metrics.write(self.layout.metrics)
            self._keep(self.layout.metrics)
            write_atomic(self.layout.card, render_model_card(self.journal.record, metrics))
        return predicted, metrics

    def explain_mistakes(self, predicted: Predicted) -> None:
        """Write down, without texts, which words the most confident mistakes rest on, where a report is to show them.

        Args:
            predicted: From `evaluate`.
        """
        config = self.prepared.config.evaluation
        if not (config.report and config.report_texts):
            return
        with self.journal.stage("report"):
            predictor = self._build_predictor(self.trained_runtime, self.calibrated)
            found = explain_mistakes(predictor, self.prepared.splits.test, predicted.after, self.progress)
            found.write(self.layout.mistakes)
            self._keep(self.layout.mistakes)

    def report(self) -> None:
        """Write `report.html` where it is wanted and can be; the run is complete without it.

        Raises:
            TrainingInterruptedError: It was interrupted; the message names the command that writes the report.
        """
        config, command = self.prepared.config.evaluation, f"lorafit report {shlex.quote(str(self.layout.root))}"
        if not config.report:
            return
        if missing_modules("report"):
            self.progress.say(f"no report was written: {install_line('report')}, then: {command}")
            return
        try:
            with self.journal.stage("report"):
                write_report(self.layout.root, rows=self.prepared.splits.test, progress=self.progress)
        except KeyboardInterrupt:
            raise TrainingInterruptedError(
                f"Interrupted while the report was written; the run is complete. Write the report with:\n  {command}",
                run=self.layout.root,
            ) from None

    def keep_graph(self) -> None:
        """Keep the run's graph in lorafit's cache, by which a few texts are answered without torch, where it can be."""
        self.progress.start("keeping a graph for quick answers")
        try:
            with self.journal.stage("graph"):
                keep_graph(self.layout.root)
        except Exception as error:  # noqa: BLE001 - the run is complete without it, whatever three libraries say
            self.progress.say(f"no graph is kept for quick answers: {error}")
        self.progress.finish()

    def track(self, metrics: MetricsRecord) -> None:
        """Log the metrics to the trackers of `training.track`, and to MLflow the report without texts, if there is one.

        Args:
            metrics: From `evaluate`.

        Raises:
            NetworkUnavailableError: MLflow's server or store cannot be reached.
        """
        config, report = self.prepared.config, None
        if not config.training.track:
            return
        with tempfile.TemporaryDirectory() as folder:
            if "mlflow" in config.training.track and self.layout.report.is_file():
                report = write_report(self.layout.root, texts=False, output=Path(folder) / self.layout.report.name)
            track_results(config, self.layout, self.journal.record, metrics, report)

    def _measure_baselines(self, names: Iterable[str]) -> dict[str, Array]:
        paths = {name: self.layout.predictions("test", name) for name in names}
        values = {
            name: measure_baseline(name, self.prepared.splits, path, self.progress, self._words.pop(name, None))
            for name, path in paths.items()
        }
        self._keep(*paths.values())
        return values

    def _measure_embedding(self) -> dict[str, Array]:
        """Measure the baseline `embedding`, or say and record why it is left out."""
        prepared, path = self.prepared, self.layout.predictions("test", EMBEDDING)
        if is_embedding(prepared.config.method.name):
            return {}
        release_freed_memory()  # training's; the encoder is loaded once more
        try:
            values, others = predict_embedding(
                prepared.splits,
                prepared.tokens,
                prepared.encoder,
                prepared.pad_id,
                prepared.config,
                self.progress,
                folds=None if self._held_out is None else self._held_out.folds,
            )
        except ConfigError as error:
            self.progress.say(f"not measured: {prepared.task.baselines[EMBEDDING]}: {error}")
            self.journal.update(left_out_baselines={EMBEDDING: str(error)})
            return {}
        write_predictions(path, prepared.splits.test, prepared.task, values)
        self._keep(path)
        if self._held_out is not None and others is not None:
            seed = prepared.config.evaluation.seed
            found = compare_losses(prepared.task, self._held_out, prepared.task.deactivate(others), seed=seed)
            self.journal.update(embedding=found)
        return {EMBEDDING: values}

    def _keep(self, *paths: Path) -> None:
        """Name files in the record that were just written; those that are not there are left out."""
        self.journal.update(evidence=add_evidence(self.layout, self.journal.record, *paths))

    @cached_property
    def trained_runtime(self) -> Runtime:
        """Runs the trained model as `lorafit.load` does: on a CPU with the adapter merged where that is faster.

        It is built at the first use, which must come after `fit`; the model itself stays as it is.
        """
        from lorafit.models.acceleration.inference import make_fast
        from lorafit.models.runtimes.pytorch import TorchRuntime

        model = self.prepared.adapted.model
        return TorchRuntime(make_fast(model) if model.device.type == "cpu" else model, self.prepared.precision)

    def compute_logits(self, split: str) -> Array:
        """Compute the trained model's logits of a split, shape (rows, outputs)."""
        return self._compute_logits(self.trained_runtime, split)

    def _current_runtime(self) -> Runtime:
        """Return a runtime of the model at its current weights, also while they change."""
        from lorafit.models.runtimes.pytorch import TorchRuntime

        return TorchRuntime(self.prepared.adapted.model, self.prepared.precision)

    def _find_checkpoint(self) -> Path | None:
        """Return the checkpoint to resume from; those of a method that cannot resume are removed."""
        point = find_checkpoint(self.layout.checkpoints)
        for event in point.describe():
            self.progress.say(event)
            self.note_event(event)
        point.discard_rest()
        checkpoint = point.checkpoint
        method = find_method(self.prepared.config.method.name)
        if checkpoint is not None and "resume" in method.limits:
            self.progress.say(f"{method.title} cannot resume from a checkpoint: training starts over")
            shutil.rmtree(self.layout.checkpoints)
            return None
        return checkpoint

    def _compute_logits(
        self, runtime: Runtime, split: str, progress: Progress | None = None, *, keep_features: bool = False
    ) -> Array:
        """Compute the logits of a split, and keep the features of as many of its rows as are looked at."""
        from lorafit.training.divergence import check_outputs

        logits, features = compute_outputs(
            runtime,
            self.inputs[split],
            self.prepared.pad_id,
            outputs=len(self.prepared.task.output_names),
            on_progress=progress.update if progress else None,
            with_features=keep_features,
        )
        check_outputs(logits, self.prepared.splits.by_name[split].ids, split=split)
        if features is not None:
            places = self._draw(len(features))
            self._features[split] = features[places], logits[places]
        return logits

    def _compute_test_logits(self, model: Literal["before", "after"], runtime: Runtime) -> Array:
        self.progress.start(f"measuring the model {model} training", total=len(self.prepared.splits.test), unit="text")
        logits = self._compute_logits(
            runtime, "test", self.progress, keep_features=model == "after" and self._typicality is not None
        )
        self.progress.finish()
        return logits

    def _blend(self, logits: Array) -> Array:
        """Pool the encoder's logits of the test rows with those of word models, and keep the time that takes."""
        blend, began = self.calibrated.blend, time.perf_counter()
        if blend is None:
            return logits
        pooled = blend.pool(self.prepared.task, logits, blend.read([*map(join_text, self.prepared.splits.test.texts)]))
        self._seconds_of_words = time.perf_counter() - began
        return pooled

    def _keep_predictions(self, model: str, values: Array) -> Array:
        """Write what a model predicts for the test rows, and return it."""
        from lorafit.training.divergence import check_outputs

        rows, path = self.prepared.splits.test, self.layout.predictions("test", model)
        check_outputs(values, rows.ids, split="test")
        write_predictions(path, rows, self.prepared.task, values)
        self._keep(path)
        return values

    def _measure_speed(self) -> float:
        """Time the whole model on batches from all over the test texts, after one to warm up; return texts a second."""
        tokens, pad_id, runtime = self.prepared.tokens["test"], self.prepared.pad_id, self.trained_runtime
        plan = plan_prediction(tokens.lengths)
        middles = ((np.arange(_TIMED_BATCHES) + 0.5) / _TIMED_BATCHES * len(plan)).astype(int)
        batches = [plan[batch] for batch in np.unique(middles)]
        runtime.logits(**tokens.pad(batches[0], pad_id))
        began = time.perf_counter()
        for rows in batches:
            runtime.logits(**tokens.pad(rows, pad_id))
        seconds = (time.perf_counter() - began) / (sum(map(len, batches)) * tokens.texts / len(tokens))
        return 1 / (seconds + self._seconds_of_words / tokens.texts)

    def _build_predictor(self, runtime: Runtime, calibrated: Calibrated | None = None) -> Predictor:
        """Return what predicts as the run does with `calibrated`, or as the encoder alone does."""
        tokenizer, how = load_tokenizer(self.prepared.encoder.folder), calibrated or Calibrated()
        return Predictor.for_record(
            self.journal.record, runtime, tokenizer, calibration=how.calibration, blend=how.blend
        )


def fit_words(name: str, splits: Splits, progress: Progress) -> WordModel:
    """Train a baseline that reads words on the training rows.

    Args:
        name: A key of `Task.baselines`.
        splits: The rows.
        progress: Receives the progress.

    Returns:
        The model.
    """
    progress.start(f"for comparison: {splits.task.baselines[name]}")
    model = splits.task.fit_words(name, [*map(join_text, splits.train.texts)], splits.train.y)
    progress.finish()
    return model


def measure_baseline(
    name: str, splits: Splits, path: Path, progress: Progress, model: WordModel | None = None
) -> Array:
    """Train a baseline on the training rows, predict the test rows, and write the predictions.

    Args:
        name: A key of `Task.baselines`.
        splits: The rows.
        path: Where to write.
        progress: Receives the progress.
        model: The baseline where it is trained already.

    Returns:
        Values of shape (test rows, labels).
    """
    task, train, texts = splits.task, splits.train, [*map(join_text, splits.test.texts)]
    progress.start(f"for comparison: {task.baselines[name]}")
    if model is None:
        values = task.predict_baseline(name, [*map(join_text, train.texts)], train.y, texts)
    else:
        values = model.score(texts)
    write_predictions(path, splits.test, task, values)
    progress.finish()
    return values
