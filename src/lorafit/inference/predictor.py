"""A trained model at work: predictions for texts."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lorafit.config import TruncationPolicy
from lorafit.data.checks import describe_rows, describe_text_fault
from lorafit.errors import RunError, UserInputError
from lorafit.models.batching import BatchPlan, plan_batches
from lorafit.models.tokenization import Truncation, average_windows, tokenize
from lorafit.system.text import Text
from lorafit.tasks.base import Array, Prediction, Task
from lorafit.tasks.records import Calibration

AnyText = Text | Mapping[str, str]
"""A text, or a pair as a tuple of two or as a dictionary with `text` and `text_pair`."""

_LEAVE_OUT = (
    "Leave out what is none:\n"
    "  from lorafit.data.checks import describe_text_fault\n"
    "  texts = [text for text in texts if describe_text_fault(text) is None]"
)
_ADVICE = {False: _LEAVE_OUT, True: f"Write predict([(text, text_pair), …]). {_LEAVE_OUT}"}
"""What to do about texts that cannot be predicted, by whether the model takes pairs."""

_BATCH_ROWS = 64
_BATCH_TOKENS = 4096


class Runtime(Protocol):
    """Something that runs a trained model on padded batches."""

    name: str

    @property
    def precision(self) -> Literal["fp32", "bf16", "int8"]:
        """Arithmetic of the forward pass."""

    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> NDArray[np.float32]:
        """Compute logits of shape (rows, outputs) for ids and mask of shape (rows, length).

        `others` is what else the texts' `pad` gave, by its name; a runtime passes over what its model does not read.
        """


class Inputs(Protocol):
    """Texts as a runtime reads them, for example `TokenizedTexts`."""

    def __len__(self) -> int:
        """Return the number of inputs."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens an input, shape (n,)."""

    @property
    def windows(self) -> NDArray[np.int64] | None:
        """How many of the inputs, in order, are windows of each text; None where every text is one."""

    def pad(self, rows: NDArray[np.int64], pad_id: int) -> Mapping[str, Any]:
        """Return `input_ids` and `attention_mask` of shape (rows, longest), and whatever else the runtime takes."""


class ModelRecord(Protocol):
    """What a record says of the model it stands beside, for example `RunRecord`."""

    def build_task(self) -> Task:
        """Return the task with its labels."""

    @property
    def max_length(self) -> int:
        """Longest input in tokens, special tokens included."""

    @property
    def truncation(self) -> TruncationPolicy:
        """What is kept of a longer text."""

    @property
    def window_stride(self) -> int | None:
        """Tokens from the begin of a window to the next; None for half a window."""

    @property
    def pair(self) -> bool:
        """Whether it takes pairs of texts."""


class Predictor:
    """A trained model. Thread-safe as far as its runtime is; make one with `lorafit.load`.

    `tokenizer` comes with the token id of the padding. `task` is what it predicts, `calibration` how its logits become
    predictions that hold, or None; `fingerprint` tells models apart that were made from different `settings`. `pair`
    says whether it takes pairs of texts: tuples of two, or dictionaries with `text` and `text_pair`, as in
    transformers' pipelines. `reopen` opens it again from its folder; None where it comes from none.
    """

    def __init__(
        self,
        runtime: Runtime,
        tokenizer: tuple[Tokenizer, int],
        *,
        task: Task,
        truncation: Truncation,
        pair: bool = False,
        calibration: Calibration | None = None,
        settings: object = None,
    ) -> None:
        self.task = task
        self.calibration = calibration
        self.pair = pair
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._runtime = runtime
        self._tokenizer, self._pad_id = tokenizer
        self._truncation = truncation
        self.reopen: Callable[[], Predictor] | None = None

    def __reduce__(self) -> tuple[Callable[[], "Predictor"], tuple[()]]:
        """Pickle what opens it again, in this process or another."""
        if self.reopen is None:
            raise TypeError("A predictor that was not opened from a folder by lorafit.load cannot be pickled.")
        return self.reopen, ()

    @classmethod
    def for_record(
        cls,
        record: ModelRecord,
        runtime: Runtime,
        tokenizer: tuple[Tokenizer, int],
        *,
        calibration: Calibration | None = None,
        settings: object = None,
    ) -> Self:
        """Build the predictor of a recorded model.

        Args:
            record: The model's record.
            runtime: Runs the model.
            tokenizer: Its tokenizer and the token id of the padding, as `load_tokenizer` returns them.
            calibration: How its logits become confidence, or None.
            settings: What else decides its predictions, for `fingerprint`.

        Returns:
            The predictor.
        """
        return cls(
            runtime,
            tokenizer,
            task=record.build_task(),
            truncation=Truncation(record.max_length, record.truncation, record.window_stride),
            pair=record.pair,
            calibration=calibration,
            settings=settings,
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of `predict_proba`'s columns."""
        return self.task.label_names

    def predict(
        self, texts: Sequence[AnyText], *, on_progress: Callable[[int], None] | None = None
    ) -> list[Prediction]:
        """Predict texts.

        Args:
            texts: Any number of texts, or of pairs for a model that takes pairs, none of them empty.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            One prediction a text, in the same order, of the task's own class.
        """
        values = self.compute_values(texts, on_progress=on_progress)
        return [self.task.predict(row, self.calibration) for row in values]

    def predict_proba(self, texts: Sequence[AnyText], *, on_progress: Callable[[int], None] | None = None) -> Array:
        """Compute the probability of every class, calibrated where there is a calibration.

        Args:
            texts: n texts, none of them empty.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            Shape (n, classes); columns in the order of `labels`. Rows sum to 1, unless a text may have several labels.

        Raises:
            UserInputError: The model gives numbers, or as `compute_logits`.
        """
        self.task.require_probabilities()
        return self.compute_values(texts, on_progress=on_progress)

    def compute_values(self, texts: Sequence[AnyText], *, on_progress: Callable[[int], None] | None = None) -> Array:
        """Compute probabilities, calibrated where there is a calibration, or the numbers of a regression.

        Args:
            texts: n texts, none of them empty.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            Shape (n, labels); columns in the order of `labels`.
        """
        return self.task.activate(self.compute_logits(texts, on_progress=on_progress), self.calibration)

    def compute_logits(self, texts: Sequence[AnyText], *, on_progress: Callable[[int], None] | None = None) -> Array:
        """Compute the model's raw outputs.

        Args:
            texts: n texts, none of them empty.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            Shape (n, outputs).

        Raises:
            UserInputError: `texts` is a single string, some of them are empty or not strings, or they are pairs for a
                model of single texts or the other way round.
        """
        tokens = tokenize(self._tokenizer, _read_texts(texts, pair=self.pair), self._truncation)
        outputs = len(self.task.output_names)
        return compute_logits(self._runtime, tokens, self._pad_id, outputs=outputs, on_progress=on_progress)


def plan_prediction(lengths: NDArray[np.int64]) -> BatchPlan:
    """Return the batches in which texts of these lengths are predicted."""
    return plan_batches(lengths, max_rows=_BATCH_ROWS, max_tokens=_BATCH_TOKENS)


def compute_logits(
    runtime: Runtime,
    tokens: Inputs,
    pad_id: int,
    *,
    outputs: int,
    on_progress: Callable[[int], None] | None = None,
) -> Array:
    """Run a model over tokenised texts in length-sorted batches and put the results back into input order.

    Args:
        runtime: The model.
        tokens: n tokenised texts; the logits of a text in windows are the mean of theirs.
        pad_id: Token id of the padding.
        outputs: Number of the model's outputs.
        on_progress: Called after each batch with the number of texts done.

    Returns:
        Logits of shape (n, outputs); row i belongs to text i.
    """
    logits = np.zeros((len(tokens), outputs))
    texts = len(tokens) if tokens.windows is None else len(tokens.windows)
    plan = plan_prediction(tokens.lengths)
    for batch in range(len(plan)):
        rows = plan[batch]
        logits[rows] = runtime.logits(**tokens.pad(rows, pad_id))
        if on_progress is not None:
            on_progress(int(plan.bounds[batch + 1]) * texts // len(tokens))
    return average_windows(logits, tokens.windows)


def read_calibration(
    path: Path | None, owner: Path, task: Task, *, raw: bool = False, target_accuracy: float | None = None
) -> Calibration | None:
    """Read a model's calibration, with its operating point for another target where one is named.

    Args:
        path: The calibration, or None where the model has none.
        owner: The model's folder, for messages.
        task: The model's task.
        raw: Whether it is to be left out.
        target_accuracy: Accuracy that accepted predictions are to have, or None.

    Returns:
        The calibration, or None.

    Raises:
        UserInputError: A target out of range, together with `raw`, or of a task that takes none.
        RunError: A target without a calibration.
    """
    if raw and target_accuracy is not None:
        raise UserInputError("A target accuracy needs the calibrated confidence: leave out --raw or --target-accuracy.")
    task.check_target_accuracy(target_accuracy)
    if raw:
        return None
    if path is None:
        if target_accuracy is not None:
            raise RunError(
                f"{owner} has no calibration, so that no confidence can be chosen for an accuracy of "
                f"{target_accuracy:g}: it had too few validation rows, or data.calibration_fraction was 0."
            )
        return None
    calibration = task.calibration_type.read(path)
    return calibration if target_accuracy is None else task.choose_operating_point(calibration, target_accuracy)


def _read_texts(texts: Sequence[AnyText], *, pair: bool) -> Sequence[Text]:
    """Check texts, and return those in dictionaries as the others are."""
    if isinstance(texts, str):
        raise UserInputError("predict takes a list of texts, got a single string. Write predict([text]).")
    read = [_unpack(text) if isinstance(text, Mapping) else text for text in texts]
    faults: dict[str, list[int]] = {}
    for row, text in enumerate(read, start=1):
        if (fault := _describe_fault(text, pair=pair)) is not None:
            faults.setdefault(fault, []).append(row)
    if faults:
        listed = "; ".join(f"{fault} ({describe_rows(rows)})" for fault, rows in faults.items())
        count = sum(map(len, faults.values()))
        raise UserInputError(f"{count} of {len(texts)} texts cannot be predicted: {listed}. {_ADVICE[pair]}")
    return read


def _describe_fault(text: object, *, pair: bool) -> str | None:
    if pair and isinstance(text, str):
        return "a single text for a model that takes pairs"
    if not pair and isinstance(text, tuple):
        return "a pair for a model that takes single texts"
    if pair and isinstance(text, tuple) and len(text) != 2:
        return f"a tuple of {len(text)} texts"
    return describe_text_fault(text)


def _unpack(fields: Mapping[str, str]) -> Any:  # noqa: ANN401 - what is missing in it is found by the check
    """Return the text, or the pair, of a dictionary as transformers' pipelines take it."""
    if fields.keys() == {"text", "text_pair"}:
        return fields["text"], fields["text_pair"]
    return fields["text"] if fields.keys() == {"text"} else fields
