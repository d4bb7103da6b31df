"""What the commands print: tables for people, JSON for programs."""

import json as json_format
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorafit.artifacts import Estimate, MetricsRecord, ModelScores, RunRecord

if TYPE_CHECKING:
    from lorafit.batch_prediction import PredictedTable
    from lorafit.finetune import Run, Sample
    from lorafit.predictor import Prediction

__all__ = ["show_metrics", "show_predictions", "show_run"]

_WIDTH_WITHOUT_TERMINAL = 110


def show_run(run: "Run", *, quiet: bool) -> None:
    """Print what a run achieved, what it cost and what to do next; with `quiet` only the run folder."""
    console = _console()
    if quiet:
        console.print(str(run.path), soft_wrap=True)
        return
    console.print(_metrics_table(run.metrics))
    for line in _verdict(run.metrics):
        console.print(line)
    console.print()
    console.print(_samples_table(run.samples))
    for line in (*_cost(run.record), "", *_next_steps(run)):
        console.print(line, soft_wrap=True)


def show_metrics(metrics: MetricsRecord) -> None:
    """Print the scores of an evaluation."""
    console = _console()
    console.print(_metrics_table(metrics))
    for line in _verdict(metrics):
        console.print(line)


def show_predictions(scored: "PredictedTable", *, json: bool) -> None:
    """Print one prediction a line: label, confidence and text, or a JSON object."""
    texts = scored.table.columns[scored.text_column]
    if json:
        for text, prediction in zip(texts, scored.predictions, strict=True):
            answer = {"text": text, "label": prediction.label, "score": prediction.score, "scores": prediction.scores}
            sys.stdout.write(json_format.dumps(answer, ensure_ascii=False) + "\n")
        return
    width = max(len(prediction.label) for prediction in scored.predictions)
    for text, prediction in zip(texts, scored.predictions, strict=True):
        sys.stdout.write(f"{prediction.label:<{width}}  {prediction.score:6.1%}  {' '.join(str(text).split())}\n")


def _console() -> Console:
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    return Console(highlight=False, markup=False, width=width)


def _metrics_table(metrics: MetricsRecord) -> Table:
    level = f"{metrics.confidence_level:.0%} interval"
    table = Table(
        title=f"Measured on {metrics.rows:,} {metrics.split} rows ({level} in brackets)",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("")
    if metrics.baseline is not None:
        table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    if metrics.comparison is not None:
        table.add_column("difference", justify="right")
    for cells in _metric_rows(metrics):
        table.add_row(*cells)
    return table


def _metric_rows(metrics: MetricsRecord) -> Iterator[list[str]]:
    models = [_named_estimates(scores) for scores in (metrics.baseline, metrics.finetuned) if scores is not None]
    paired = metrics.comparison
    for name in models[-1]:
        percent = name not in {"log loss", "MCC"}
        cells = [name, *(_interval(model[name], percent=percent) for model in models)]
        if paired is not None:
            differences = {"accuracy": paired.accuracy_difference, "log loss": paired.log_loss_difference}
            cells.append(_interval(differences[name], percent=percent, sign=True) if name in differences else "")
        yield cells


def _named_estimates(scores: ModelScores) -> dict[str, Estimate]:
    estimates = {
        "accuracy": scores.accuracy,
        "F1 (macro)": scores.macro_f1,
        "log loss": scores.log_loss,
        "MCC": scores.mcc,
    }
    for one in scores.per_class:
        estimates[f"precision {one.label}"] = one.precision
        estimates[f"recall {one.label}"] = one.recall
    return estimates


def _interval(estimate: Estimate, *, percent: bool = False, sign: bool = False) -> str:
    plus = "+" if sign else ""
    if percent:
        return f"{100 * estimate.value:{plus}.1f} % [{100 * estimate.low:{plus}.1f}, {100 * estimate.high:{plus}.1f}]"
    return f"{estimate.value:{plus}.3f} [{estimate.low:{plus}.3f}, {estimate.high:{plus}.3f}]"


def _verdict(metrics: MetricsRecord) -> Iterator[str]:
    paired = metrics.comparison
    if paired is None:
        return
    better = paired.accuracy_difference.low > 0
    verdict = "Better than before" if better else "Not shown to be better than before"
    chance = f"p = {paired.mcnemar_p_value:.2g}" if paired.mcnemar_p_value >= 1e-6 else "p < 0.000001"
    yield (
        f"{verdict}: {paired.rows_gained:,} rows put right, {paired.rows_lost:,} made wrong "
        f"(exact McNemar test, {chance})."
    )


def _samples_table(samples: "tuple[Sample, ...]") -> Table:
    table = Table(
        title="Test rows drawn at random, with the label given and the model's confidence",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("text", ratio=1)
    table.add_column("true label")
    if any(sample.before for sample in samples):
        table.add_column("before", justify="right", no_wrap=True)
    table.add_column("after", justify="right", no_wrap=True)
    for sample in samples:
        before = [_answer(sample.before, sample.label)] if sample.before else []
        text = " ".join(sample.text.split())
        table.add_row(
            text if len(text) <= 120 else text[:119] + "…", sample.label, *before, _answer(sample.after, sample.label)
        )
    return table


def _answer(prediction: "Prediction", truth: str) -> Text:
    right = prediction.label == truth
    return Text(f"{'✓' if right else '✗'} {prediction.label} {prediction.score:.0%}", style="green" if right else "red")


def _cost(record: RunRecord) -> Iterator[str]:
    parameters, training = record.parameters, record.training
    trained = parameters.adapter + parameters.head
    yield (
        f"trained     {trained:,} of {parameters.total:,} parameters ({parameters.trainable_share:.2%}): "
        f"adapter {parameters.adapter:,} ({parameters.adapter / parameters.total:.2%}), "
        f"head {parameters.head:,} ({parameters.head / parameters.total:.2%})"
    )
    if training is not None:
        stopped = ", stopped early" if training.stopped_early else ""
        yield (
            f"training    {training.epochs:.1f} epochs, {training.steps:,} steps{stopped}; best after step "
            f"{training.best_step:,} (validation loss {training.best_validation_loss:.3f})"
        )
        yield (
            f"speed       {training.tokens_per_second:,.0f} tokens/s in {record.hardware.precision} on "
            f"{record.hardware.threads} threads, padding {training.padding_share:.1%}"
        )
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in record.seconds.items())
    memory = record.peak_memory_bytes / 1e9
    yield f"time        {sum(record.seconds.values()):.0f} s: {stages}; peak memory {memory:.1f} GB"


def _next_steps(run: "Run") -> Iterator[str]:
    yield f"run folder  {run.path}"
    yield "next        " + f'lorafit predict {run.path} "What a lovely surprise."'
    yield f"            lorafit predict {run.path} --file reviews.csv --output predictions.csv"
    yield f"            lorafit evaluate {run.path}"
