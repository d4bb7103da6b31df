"""Use a trained model: labels and probabilities for texts."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lorafit.batching import BatchPlan, plan_batches
from lorafit.data.checks import describe_rows, describe_text_fault
from lorafit.encoders.tokenization import Truncation, tokenize
from lorafit.errors import RunError, UserInputError
from lorafit.evidence import CalibrationRecord
from lorafit.labels import LabelSet
from lorafit.metrics.confidence import apply_temperature
from lorafit.metrics.scores import softmax
from lorafit.metrics.selective import choose_accept_threshold, conformal_sets

__all__ = [
    "Prediction",
    "Predictor",
    "Runtime",
    "build_prediction",
    "compute_logits",
    "plan_prediction",
    "read_calibration",
]

_BATCH_ROWS = 64
_BATCH_TOKENS = 4096


class Runtime(Protocol):
    """Something that runs a trained classifier on padded batches."""

    name: str

    @property
    def precision(self) -> Literal["fp32", "bf16", "int8"]:
        """Arithmetic of the forward pass."""

    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], *kept: Any
    ) -> NDArray[np.float32]:
        """Compute logits of shape (rows, classes) for ids and mask of shape (rows, length).

        `kept` is what else the texts' `pad` gave, for a runtime that knows it.
        """


class Inputs(Protocol):
    """Texts as a runtime reads them, for example `TokenizedTexts`."""

    def __len__(self) -> int:
        """Return the number of texts."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens a text, shape (n,)."""

    def pad(self, rows: NDArray[np.int64], pad_id: int) -> tuple[Any, ...]:
        """Return ids and mask of shape (rows, longest), and whatever else the runtime takes."""


@dataclass(frozen=True)
class Prediction:
    """The answer for one text.

    Attributes:
        label: The most probable class.
        score: Its probability, 0 to 1, calibrated where the model has a calibration.
        scores: Probability of every class, in label order; they sum to 1.
        abstain: Whether `score` is below what the target accuracy needs; None where no target was named.
        conformal_set: Classes that hold the true one as often as the calibration's coverage says; None without one.
    """

    label: str
    score: float
    scores: dict[str, float]
    abstain: bool | None = None
    conformal_set: tuple[str, ...] | None = None


class Predictor:
    """A trained classifier. Thread-safe as far as its runtime is; make one with `lorafit.load`.

    `calibration` is how its logits become confidence, or None; `fingerprint` tells models apart that were made from
    different `settings`.
    """

    def __init__(
        self,
        runtime: Runtime,
        tokenizer: Tokenizer,
        *,
        pad_id: int,
        labels: LabelSet,
        truncation: Truncation,
        calibration: CalibrationRecord | None = None,
        settings: object = None,
    ) -> None:
        self.calibration = calibration
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._runtime = runtime
        self._tokenizer = tokenizer
        self._pad_id = pad_id
        self._labels = labels
        self._truncation = truncation

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of `predict_proba`'s columns."""
        return self._labels.names

    def predict(self, texts: Sequence[str], *, on_progress: Callable[[int], None] | None = None) -> list[Prediction]:
        """Classify texts.

        Args:
            texts: Any number of texts, none of them empty.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            One prediction a text, in the same order.
        """
        return [
            build_prediction(row, self._labels, self.calibration)
            for row in self.predict_proba(texts, on_progress=on_progress)
        ]

    def predict_proba(
        self, texts: Sequence[str], *, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """Compute the probability of every class, calibrated where there is a calibration.

        Args:
            texts: n texts, none of them empty.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            Shape (n, classes); columns in the order of `labels`, rows sum to 1.
        """
        temperature = 1.0 if self.calibration is None else self.calibration.temperature
        return softmax(apply_temperature(self.compute_logits(texts, on_progress=on_progress), temperature))

    def compute_logits(
        self, texts: Sequence[str], *, on_progress: Callable[[int], None] | None = None
    ) -> NDArray[np.float64]:
        """Compute the model's raw outputs.

        Args:
            texts: n texts, none of them empty.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            Shape (n, classes).

        Raises:
            UserInputError: `texts` is a single string, or some of them are empty or not strings.
        """
        _check_texts(texts)
        tokens = tokenize(self._tokenizer, texts, self._truncation)
        return compute_logits(self._runtime, tokens, self._pad_id, classes=len(self.labels), on_progress=on_progress)


def build_prediction(
    probabilities: NDArray[np.float64], labels: LabelSet, calibration: CalibrationRecord | None = None
) -> Prediction:
    """Name the most probable class.

    Args:
        probabilities: Shape (classes,).
        labels: The classes.
        calibration: What the probabilities were calibrated with, or None.

    Returns:
        The prediction; of equal probabilities the first class wins.
    """
    best, abstain, inside = int(probabilities.argmax()), None, None
    if calibration is not None:
        held = conformal_sets(probabilities[np.newaxis], calibration.set_threshold)[0]
        inside = tuple(name for name, is_in in zip(labels.names, held, strict=True) if is_in)
        if calibration.accept_threshold is not None:
            abstain = bool(probabilities[best] < calibration.accept_threshold)
    return Prediction(
        label=labels.names[best],
        score=float(probabilities[best]),
        scores=dict(zip(labels.names, probabilities.tolist(), strict=True)),
        abstain=abstain,
        conformal_set=inside,
    )


def plan_prediction(lengths: NDArray[np.int64]) -> BatchPlan:
    """Return the batches in which texts of these lengths are predicted."""
    return plan_batches(lengths, max_rows=_BATCH_ROWS, max_tokens=_BATCH_TOKENS)


def compute_logits(
    runtime: Runtime,
    tokens: Inputs,
    pad_id: int,
    *,
    classes: int,
    on_progress: Callable[[int], None] | None = None,
) -> NDArray[np.float64]:
    """Run a model over tokenised texts in length-sorted batches and put the results back into input order.

    Args:
        runtime: The model.
        tokens: n tokenised texts.
        pad_id: Token id of the padding.
        classes: Number of classes.
        on_progress: Called after each batch with the number of texts done.

    Returns:
        Logits of shape (n, classes); row i belongs to text i.
    """
    logits = np.zeros((len(tokens), classes))
    plan = plan_prediction(tokens.lengths)
    for batch in range(len(plan)):
        rows = plan[batch]
        logits[rows] = runtime.logits(*tokens.pad(rows, pad_id))
        if on_progress is not None:
            on_progress(int(plan.bounds[batch + 1]))
    return logits


def read_calibration(
    path: Path | None, owner: Path, *, raw: bool = False, target_accuracy: float | None = None
) -> CalibrationRecord | None:
    """Read a model's calibration, with its operating point for another target where one is named.

    Args:
        path: The calibration, or None where the model has none.
        owner: The model's folder, for messages.
        raw: Whether it is to be left out.
        target_accuracy: What accepted answers are to reach, or None.

    Returns:
        The calibration, or None.

    Raises:
        UserInputError: A target out of range, or together with `raw`.
        RunError: A target without a calibration.
    """
    if raw and target_accuracy is not None:
        raise UserInputError("A target accuracy needs the calibrated confidence: leave out --raw or --target-accuracy.")
    if target_accuracy is not None and not 0 < target_accuracy < 1:
        raise UserInputError(f"A target accuracy lies between 0 and 1 (0.98, say), got {target_accuracy:g}.")
    if raw:
        return None
    if path is None:
        if target_accuracy is not None:
            raise RunError(
                f"{owner} has no calibration, so that no confidence can be chosen for an accuracy of "
                f"{target_accuracy:g}: it had too few validation rows, or data.calibration_fraction was 0."
            )
        return None
    calibration = CalibrationRecord.read(path)
    if target_accuracy is None:
        return calibration
    threshold = choose_accept_threshold(calibration.curve, target_accuracy)
    return calibration.model_copy(update={"target_accuracy": target_accuracy, "accept_threshold": threshold})


def _check_texts(texts: Sequence[str]) -> None:
    if isinstance(texts, str):
        raise UserInputError("predict takes a list of texts, got a single string. Write predict([text]).")
    faults: dict[str, list[int]] = {}
    for row, text in enumerate(texts, start=1):
        if (fault := describe_text_fault(text)) is not None:
            faults.setdefault(fault, []).append(row)
    if faults:
        listed = "; ".join(f"{fault} ({describe_rows(rows)})" for fault, rows in faults.items())
        count = sum(map(len, faults.values()))
        raise UserInputError(
            f"{count} of {len(texts)} texts cannot be classified: {listed}. "
            "`lorafit predict --drop-bad-rows` leaves them out."
        )
