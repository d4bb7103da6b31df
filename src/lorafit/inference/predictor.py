"""A trained model at work: predictions for texts."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lorafit.config import TruncationPolicy
from lorafit.data.checks import describe_rows
from lorafit.errors import RunError, UserInputError
from lorafit.inference.frames import build_frame
from lorafit.inference.given_texts import NOTHING_LEFT, AnyText, read_texts
from lorafit.inference.typicality import Typicality, add_signs
from lorafit.models.batching import BatchPlan, pad_to_few_shapes, plan_batches
from lorafit.models.tokenization import TokenizedTexts, Truncation, average_windows, tokenize
from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Array, Prediction, Task
from lorafit.tasks.blending import Blend
from lorafit.tasks.records import Calibration

BadTexts = Literal["stop", "keep"]
"""What becomes of rows that cannot be predicted: an error that lists them, or an empty answer in their place."""

_BATCH_ROWS = 64
_BATCH_TOKENS = 4096
_FEWEST_TOKENS, _BATCHES = 1024, 4
"""Of few texts there are so many batches, if these have so many tokens: more bring no less padding. Batches that are
streamed have as many."""


class Runtime(Protocol):
    """Something that runs a trained model on padded batches."""

    name: str

    @property
    def precision(self) -> Literal["fp32", "bf16", "int8"]:
        """Arithmetic of the forward pass."""

    def fewest_positions(self, inputs: int) -> int | None:
        """Return the positions that a batch has at least where a call with so many inputs is to give few shapes.

        What is made for each shape stays, or takes its time; None where batches of any shape will do.
        """

    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> NDArray[np.float32]:
        """Compute logits of shape (rows, outputs) for ids and mask of shape (rows, length).

        `others` is what else the texts' `pad` gave, by its name; a runtime passes over what its model does not read.
        """

    def outputs(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Compute logits, and the features that tell how typical a text is, of shape (rows, width).

        The latter are None where the model gives none.
        """


@runtime_checkable
class StreamingRuntime(Runtime, Protocol):
    """A runtime that can take several batches at once, each on a core of its own."""

    def wants_stream(self, tokens: int) -> bool:
        """Return whether a call with so many tokens, padding aside, is to be streamed."""

    def stream(
        self, batches: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        """Yield what `outputs` gives of each batch, in order."""


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


class Answer(NamedTuple):
    """What a model says of one text: the prediction, and the numbers it was made of.

    `logits` of shape (outputs,) are those of the blend where there is one; `values` of shape (labels,) are calibrated.
    """

    prediction: Prediction
    values: Array
    logits: Array


class Predictor:
    """A trained model. Thread-safe as far as its runtime is; make one with `lorafit.load`.

    `runtime` runs it; `tokenizer` comes with the token id of the padding. `task` is what it predicts, `calibration` how
    its logits become predictions that hold, or None; `blend` pools its logits with word models, or is None;
    `fingerprint` tells models apart that were made from different `settings`. `pair` says whether it takes pairs of
    texts: tuples of two, or dictionaries with `text` and `text_pair`, as in transformers' pipelines. `typicality` says
    how like the training rows a text is, or is None; `pad_id` is the token id of the padding. `reopen` opens it again
    from its folder, with other `threads` if they are given; None where it comes from none.
    """

    def __init__(  # noqa: PLR0913 - each is a part of its own, and has a name
        self,
        runtime: Runtime,
        tokenizer: tuple[Tokenizer, int],
        *,
        task: Task,
        truncation: Truncation,
        pair: bool = False,
        calibration: Calibration | None = None,
        blend: Blend | None = None,
        settings: object = None,
    ) -> None:
        self.task = task
        self.calibration = calibration
        self.typicality: Typicality | None = None
        self.pair = pair
        self.fingerprint = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self.runtime = runtime
        self._tokenizer, self.pad_id = tokenizer
        self._truncation = truncation
        self._blend = blend
        self.reopen: Callable[..., Predictor] | None = None

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
        blend: Blend | None = None,
        typicality: Typicality | None = None,
        settings: object = None,
    ) -> Self:
        """Build the predictor of a recorded model.

        Args:
            record: The model's record.
            runtime: Runs the model.
            tokenizer: Its tokenizer and the token id of the padding, as `load_tokenizer` returns them.
            calibration: How its logits become confidence, or None.
            blend: What its logits are pooled with, or None for the encoder alone.
            typicality: What typical texts are like, or None.
            settings: What else decides its predictions, for `fingerprint`.

        Returns:
            The predictor.
        """
        predictor = cls(
            runtime,
            tokenizer,
            task=record.build_task(),
            truncation=Truncation(record.max_length, record.truncation, record.window_stride),
            pair=record.pair,
            calibration=calibration,
            blend=blend,
            settings=settings,
        )
        predictor.typicality = typicality
        return predictor

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels, in the order of `predict_proba`'s columns."""
        return self.task.label_names

    @overload
    def predict(
        self,
        texts: Iterable[AnyText],
        *,
        bad_rows: Literal["stop"] = "stop",
        as_frame: Literal[False] = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        texts: Iterable[AnyText],
        *,
        bad_rows: BadTexts,
        as_frame: Literal[False] = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Prediction | None]: ...

    @overload
    def predict(
        self,
        texts: Iterable[AnyText],
        *,
        bad_rows: BadTexts = "stop",
        as_frame: bool,
        on_progress: Callable[[int], None] | None = None,
    ) -> Any: ...  # noqa: ANN401 - pandas has no types

    def predict(
        self,
        texts: Iterable[AnyText],
        *,
        bad_rows: BadTexts = "stop",
        as_frame: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Any:  # as the overloads have it
        """Predict texts.

        Args:
            texts: Any number of texts, or of pairs for a model that takes pairs: a list, a column of a table, an array,
                a generator.
            bad_rows: What becomes of rows that cannot be predicted, because they are empty or no text: `stop` refuses
                all of them with a list, `keep` answers None in their place.
            as_frame: Whether to give a table, with the columns that `lorafit predict` adds to a file.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            One prediction a text, in the same order, of the task's own class; or a DataFrame with a row a text: of
            polars for a Series of polars, else of pandas, with the index of a Series.

        Raises:
            UserInputError: As `compute_logits`.
            RunError: As `compute_logits`.
            MissingExtraError: A table is asked for, and pandas is not installed.
        """
        logits, features = self._compute(
            texts, bad_rows=bad_rows, on_progress=on_progress, with_features=self.typicality is not None
        )
        answered = _is_answered(logits)
        known = None if features is None else features[answered]
        described = iter(self._describe(self._activate(logits)[answered], known))
        predictions = [next(described) if is_answered else None for is_answered in answered.tolist()]
        return build_frame(texts, predictions, self.find_example()) if as_frame else predictions

    def _describe(self, values: Array, features: Array | None) -> list[Prediction]:
        """Return the predictions of values, marked by how typical their texts are where that is known."""
        predictions = [self.task.predict(row, self.calibration) for row in values]
        typicality = self.typicality
        if typicality is None or features is None:
            return predictions
        ranks = typicality.rank(features).tolist()
        return [_mark(one, rank, typicality) for one, rank in zip(predictions, ranks, strict=True)]

    @property
    def max_length(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self._truncation.max_length

    def tokenize(self, texts: Sequence[Text]) -> TokenizedTexts:
        """Cut texts, or pairs, into what `runtime` reads, as this model was trained to."""
        return tokenize(self._tokenizer, texts, self._truncation)

    def conclude(self, texts: Sequence[Text], outputs: Array, features: Array | None) -> list[Answer]:
        """Turn what `runtime` computed of texts, by whatever way, into answers.

        Args:
            texts: n texts or pairs, each with a token at least.
            outputs: Its logits, shape (n, outputs).
            features: Its features, shape (n, width), or None.

        Returns:
            One answer a text.

        Raises:
            RunError: The logits are no finite numbers.
        """
        self._check_finite(outputs, [*range(len(texts))])
        logits, features = self._pool([join_text(text) for text in texts], outputs, features)
        values = self.task.activate(logits, self.calibration)
        return [Answer(*parts) for parts in zip(self._describe(values, features), values, logits, strict=True)]

    def find_example(self) -> Prediction:
        """Return any prediction; it tells which columns predictions have."""
        prediction = self.task.predict(np.zeros(len(self.task.label_names)), self.calibration)
        return prediction if self.typicality is None else _mark(prediction, 1.0, self.typicality)

    def compute_features(
        self, texts: Iterable[AnyText], *, on_progress: Callable[[int], None] | None = None
    ) -> tuple[Array, Array]:
        """Compute the model's raw outputs and the features that tell how typical a text is.

        Args:
            texts: n texts or pairs, as in `predict`.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            Logits of shape (n, outputs), and features as `Typicality.score` takes them.

        Raises:
            UserInputError: As `compute_logits`.
            RunError: As `compute_logits`, or the model has no such features.
        """
        logits, features = self._compute(texts, bad_rows="stop", on_progress=on_progress, with_features=True)
        if features is None:
            raise RunError("This model gives no features of a whole text.")
        return logits, features

    def predict_proba(
        self, texts: Iterable[AnyText], *, bad_rows: BadTexts = "stop", on_progress: Callable[[int], None] | None = None
    ) -> Array:
        """Compute the probability of every class, calibrated where there is a calibration.

        Args:
            texts: n texts or pairs, as in `predict`.
            bad_rows: As in `predict`; with `keep` their rows are NaN.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            Shape (n, classes); columns in the order of `labels`. Rows sum to 1, unless a text may have several labels.

        Raises:
            UserInputError: The model gives numbers, or as `compute_logits`.
            RunError: As `compute_logits`.
        """
        self.task.require_probabilities()
        return self.compute_values(texts, bad_rows=bad_rows, on_progress=on_progress)

    def compute_values(
        self, texts: Iterable[AnyText], *, bad_rows: BadTexts = "stop", on_progress: Callable[[int], None] | None = None
    ) -> Array:
        """Compute probabilities, calibrated where there is a calibration, or the numbers of a regression.

        Args:
            texts: n texts or pairs, as in `predict`.
            bad_rows: As in `predict`; with `keep` their rows are NaN.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            Shape (n, labels); columns in the order of `labels`.

        Raises:
            UserInputError: As `compute_logits`.
            RunError: As `compute_logits`.
        """
        return self._activate(self.compute_logits(texts, bad_rows=bad_rows, on_progress=on_progress))

    def _activate(self, logits: Array) -> Array:
        """Return the values of logits; rows without an answer stay NaN."""
        answered = _is_answered(logits)
        if answered.all():
            return self.task.activate(logits, self.calibration)
        values = np.full((len(logits), len(self.task.label_names)), np.nan)
        values[answered] = self.task.activate(logits[answered], self.calibration)
        return values

    def compute_logits(
        self, texts: Iterable[AnyText], *, bad_rows: BadTexts = "stop", on_progress: Callable[[int], None] | None = None
    ) -> Array:
        """Compute the model's raw outputs, those of the blend where it has one.

        Args:
            texts: n texts or pairs, as in `predict`.
            bad_rows: As in `predict`; with `keep` their rows are NaN.
            on_progress: Called with the number of texts done, now and then.

        Returns:
            Shape (n, outputs); finite but for rows that were kept.

        Raises:
            UserInputError: `texts` is no sequence of texts, some of them are empty or not strings, or they are pairs
                for a model of single texts or the other way round.
            RunError: The model gives something else than finite numbers.
        """
        return self._compute(texts, bad_rows=bad_rows, on_progress=on_progress)[0]

    def _compute(
        self,
        texts: Iterable[AnyText],
        *,
        bad_rows: BadTexts,
        on_progress: Callable[[int], None] | None,
        with_features: bool = False,
    ) -> tuple[Array, Array | None]:
        """Compute the raw outputs as `compute_logits` says, and the features where wanted and there are any."""
        given = read_texts(texts, pair=self.pair)
        if bad_rows == "stop":
            given.refuse_faults()
        elif bad_rows != "keep":
            raise UserInputError(f'bad_rows={bad_rows!r}: allowed are "stop" and "keep".')
        usable = given.usable
        tokens = self.tokenize([given.texts[place] for place in usable])
        if (empty := self.find_tokenless(tokens)).any():
            given.faults.update((usable[place], NOTHING_LEFT) for place in np.flatnonzero(empty).tolist())
            if bad_rows == "stop":
                given.refuse_faults()
            usable, tokens = given.usable, tokens.select(np.flatnonzero(~empty))
        outputs = len(self.task.output_names)
        answers, features = compute_outputs(
            self.runtime,
            tokens,
            self.pad_id,
            outputs=outputs,
            most_tokens=self._truncation.max_length,
            on_progress=on_progress,
            with_features=with_features,
        )
        self._check_finite(answers, usable)
        answers, features = self._pool([join_text(given.texts[place]) for place in usable], answers, features)
        logits = _put_back(answers, usable, len(given.texts))
        return logits, None if features is None else _put_back(features, usable, len(given.texts))

    def _pool(self, texts: list[str], answers: Array, features: Array | None) -> tuple[Array, Array | None]:
        """Return logits pooled with those of the word models, and features with the other signs of typicality."""
        doubts = [] if features is None else [self.task.doubt(self.task.activate(answers))]
        if self._blend is not None:
            read = self._blend.read(texts)
            answers = self._blend.pool(self.task, answers, read)
            doubts.append(self._blend.doubt(self.task, read))
        return answers, None if features is None else add_signs(features, texts, *doubts)

    def find_tokenless(self, tokens: TokenizedTexts) -> NDArray[np.bool_]:
        """Return which of the texts have no tokens but the special ones, shape (texts,)."""
        lengths = tokens.lengths
        if tokens.windows is not None:
            lengths = lengths[np.cumsum(tokens.windows) - tokens.windows]
        return lengths <= self._tokenizer.num_special_tokens_to_add(self.pair)

    def _check_finite(self, logits: Array, places: list[int]) -> None:
        """Refuse answers that are no numbers: a weight is damaged, or a text drives the model out of range."""
        finite = np.asarray(np.isfinite(logits).all(axis=1))
        if finite.all():
            return
        rows = [place + 1 for place, is_finite in zip(places, finite, strict=True) if not is_finite]
        told = (
            f"The model's outputs are not finite numbers in {len(rows)} of {len(finite)} texts ({describe_rows(rows)})"
        )
        if self.runtime.name.startswith("torch") and self.runtime.precision == "bf16":
            raise RunError(f'{told}, in bf16. Load it with precision="fp32"; if that gives the same, it is damaged.')
        raise RunError(f"{told}: its weights are damaged, or it was trained to no good. Train it again.")


def _mark(prediction: Prediction, rank: float, typicality: Typicality) -> Prediction:
    """Return a prediction that says how typical its text is and, where texts are rejected, whether it is."""
    atypical = None if typicality.reject is None else rank <= typicality.reject
    return replace(prediction, typicality=rank, atypical=atypical)  # type: ignore[type-var]  # all are dataclasses


def _put_back(answers: Array, places: list[int], texts: int) -> Array:
    """Return answers in the places of their texts; the rows of the others are NaN."""
    if len(places) == texts:
        return answers
    rows = np.full((texts, answers.shape[1]), np.nan)
    rows[places] = answers
    return rows


def _is_answered(values: Array) -> NDArray[np.bool_]:
    """Return which rows hold an answer: those of texts that cannot be predicted are NaN."""
    return np.asarray(~np.isnan(values).any(axis=1))


def plan_prediction(lengths: NDArray[np.int64], *, few_shapes: bool = False) -> BatchPlan:
    """Return the batches in which texts of these lengths are predicted: of few texts small ones, with less padding."""
    tokens = min(_BATCH_TOKENS, max(_FEWEST_TOKENS, int(lengths.sum()) // _BATCHES))
    return plan_batches(lengths, max_rows=_BATCH_ROWS, max_tokens=tokens, few_shapes=few_shapes)


def compute_logits(
    runtime: Runtime,
    tokens: Inputs,
    pad_id: int,
    *,
    outputs: int,
    most_tokens: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Array:
    """Run a model over tokenised texts in length-sorted batches and put the results back into input order.

    Args:
        runtime: The model.
        tokens: n tokenised texts; the logits of a text in windows are the mean of theirs.
        pad_id: Token id of the padding.
        outputs: Number of the model's outputs.
        most_tokens: Longest input that the model takes, to let batches come in few shapes, however many calls there
            are; None to pad them to no more than the longest of these texts.
        on_progress: Called after each batch with the number of texts done.

    Returns:
        Logits of shape (n, outputs); row i belongs to text i.
    """
    return compute_outputs(runtime, tokens, pad_id, outputs=outputs, most_tokens=most_tokens, on_progress=on_progress)[
        0
    ]


def compute_outputs(
    runtime: Runtime,
    tokens: Inputs,
    pad_id: int,
    *,
    outputs: int,
    most_tokens: int | None = None,
    on_progress: Callable[[int], None] | None = None,
    with_features: bool = True,
) -> tuple[Array, Array | None]:
    """Compute logits as `compute_logits` does, and the features that tell how typical a text is.

    Args:
        runtime: As in `compute_logits`.
        tokens: As in `compute_logits`; the features of a text in windows are the mean of theirs, too.
        pad_id: As in `compute_logits`.
        outputs: As in `compute_logits`.
        most_tokens: As in `compute_logits`.
        on_progress: As in `compute_logits`.
        with_features: Whether features are wanted.

    Returns:
        Logits of shape (n, outputs), and features of shape (n, width); None where they are not wanted, there are no
        texts, or the model has none of a whole text.
    """
    logits = np.zeros((len(tokens), outputs))
    features: Array | None = None
    texts = len(tokens) if tokens.windows is None else len(tokens.windows)
    found: Iterable[tuple[NDArray[np.float32], NDArray[np.float32] | None]]
    total = int(tokens.lengths.sum())
    fewest = None if most_tokens is None else runtime.fewest_positions(len(tokens))
    if fewest is None and isinstance(runtime, StreamingRuntime) and runtime.wants_stream(total):
        plan = plan_batches(tokens.lengths, max_rows=_BATCH_ROWS, max_tokens=_FEWEST_TOKENS)
        found = runtime.stream(tokens.pad(plan[batch], pad_id) for batch in range(len(plan)))
    else:
        plan = plan_prediction(tokens.lengths, few_shapes=fewest is not None)
        padded = (tokens.pad(plan[batch], pad_id) for batch in range(len(plan)))
        if most_tokens is not None and fewest is not None:
            padded = (_pad_further(batch, pad_id, longest=most_tokens, fewest=fewest) for batch in padded)
        found = (runtime.outputs(**one) if with_features else (runtime.logits(**one), None) for one in padded)
    for batch, (answered, read) in enumerate(found):
        rows = plan[batch]
        logits[rows] = answered
        if with_features and read is not None:
            features = np.zeros((len(tokens), read.shape[1])) if features is None else features
            features[rows] = read
        if on_progress is not None:
            on_progress(int(plan.bounds[batch + 1]) * texts // len(tokens))
    averaged = average_windows(logits, tokens.windows)
    return averaged, None if features is None else average_windows(features, tokens.windows)


def _pad_further(batch: Mapping[str, Any], pad_id: int, *, longest: int, fewest: int) -> Mapping[str, Any]:
    """Return a batch padded to one of few lengths."""
    rows, length = batch["input_ids"].shape
    missing = pad_to_few_shapes(rows, length, longest=longest, fewest=fewest) - length
    fills = {"input_ids": pad_id}
    return {
        name: np.pad(ids, ((0, 0), (0, missing)), constant_values=fills.get(name, 0)) if np.ndim(ids) == 2 else ids
        for name, ids in batch.items()
    }


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
