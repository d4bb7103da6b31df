"""The baseline `embedding`: a regression on the mean states of the encoder as it was pre-trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config
from lorafit.data.rows import Splits
from lorafit.errors import ConfigError
from lorafit.models.acceleration.precision import PrecisionChoice, choose_device, choose_precision
from lorafit.models.load import Encoder, check_max_length, load_with_head
from lorafit.models.methods import find_method
from lorafit.models.tokenization import TokenizedTexts
from lorafit.system.progress import Progress
from lorafit.tasks.base import Array, TargetScaler, Task
from lorafit.tasks.baselines import EMBEDDING

if TYPE_CHECKING:
    from lorafit.models.pooling import MeanPooledForSequenceClassification
    from lorafit.training.embeddings import HeadTargets, LinearHead

_MOST_TOKENS: Final = 3_000_000
_MOST_PRODUCTS: Final = 500_000_000
"""Tokens that are embedded, and rows times weights that a regression is fitted to: either takes a few minutes on two
cores. All rows are embedded or none: on fewer, the baseline would be easier to beat than it is."""


@dataclass(frozen=True)
class EmbeddingModel:
    """A regression on mean states, and the task whose labels it predicts."""

    task: Task
    head: "LinearHead"

    @classmethod
    def fit(cls, task: Task, states: Array, y: NDArray[Any], *, strength: float | None = None, seed: int = 0) -> Self:
        """Fit it to n rows.

        Args:
            task: The task.
            states: Shape (n, width), from `FrozenBase.embed`.
            y: Their labels.
            strength: Of the penalty; None chooses it (`choose_penalty`).
            seed: Of the folds of that.

        Returns:
            The model.
        """
        from lorafit.training.embeddings import LinearHead, fit_head

        scaler = task.fit_scaler(y, has_bias=True)
        strength = strength or choose_penalty(task, states, y, seed=seed)
        head = fit_head(states, _build_targets(task, y, scaler), strength=strength)
        return cls(task, LinearHead(head.weight * scaler.scale, scaler.undo(head.bias)))

    def compute_logits(self, states: Array) -> Array:
        """Return logits of shape (m, outputs) for states of shape (m, width)."""
        return self.head.apply(states)

    def compute_values(self, states: Array) -> Array:
        """Return values of shape (m, labels) for states of shape (m, width)."""
        return self.task.activate(self.compute_logits(states))


@dataclass(frozen=True)
class FrozenBase:
    """An encoder as it was pre-trained, which gives texts their mean states.

    Attributes:
        model: The encoder, with a head that plays no part.
        precision: Its arithmetic.
        pad_id: Token id of the padding.
    """

    model: "MeanPooledForSequenceClassification"
    precision: PrecisionChoice
    pad_id: int

    @classmethod
    def load(cls, encoder: Encoder, task: Task, pad_id: int, config: Config) -> Self:
        """Load an encoder from its folder.

        Args:
            encoder: The encoder.
            task: The task.
            pad_id: Token id of the padding.
            config: The settings: where and how it runs, and how long its inputs are.

        Returns:
            The encoder, its blocks fused where that is possible.

        Raises:
            ConfigError: As `load_with_head`, or its positions are fewer than an input has tokens.
        """
        from lorafit.models.acceleration.encoder_block import fuse_encoder

        device = choose_device(config.training.device)
        model: Any = load_with_head(encoder, task, pad_id=pad_id, pooling="mean").model
        check_max_length(model.config, config.model.max_length)
        model.to(device)
        if device == "cpu":
            fuse_encoder(model)
        return cls(model, choose_precision(config.training.precision, device), pad_id)

    def embed(self, texts: TokenizedTexts, *, on_progress: Callable[[int], None] | None = None) -> Array:
        """Compute the mean states of n texts, shape (n, width); of one in windows the mean over these."""
        from lorafit.training.embeddings import embed_texts

        return embed_texts(self.model, self.precision, texts, self.pad_id, on_progress=on_progress)


def is_embedding(method: str) -> bool:
    """Return whether a method trains what the baseline is, so that this would stand twice."""
    return find_method(method).objective == "none"


def predicts_from_embeddings(config: Config) -> bool:
    """Tell whether `predict_out_of_fold` does what a run does: every row counts alike, and is one input."""
    is_plain = not config.training.balancing and config.model.truncation != "windows"
    return is_plain and is_embedding(config.method.name)


def check_size(lengths: Mapping[str, NDArray[Any]], *, rows: int, width: int, outputs: int) -> None:
    """Refuse what would take too long for a baseline.

    Args:
        lengths: Tokens an input, by split.
        rows: Number of training rows.
        width: Width of the states.
        outputs: Number of outputs.

    Raises:
        ConfigError: There is too much to embed or to fit.
    """
    tokens = int(lengths["train"].sum() + lengths["test"].sum())
    if tokens > _MOST_TOKENS:
        raise ConfigError(
            f"training and test rows have {tokens:,} tokens, and at most {_MOST_TOKENS:,} are embedded for a baseline"
        )
    if rows * width * outputs > _MOST_PRODUCTS:
        raise ConfigError(f"{rows:,} training rows with {outputs:,} outputs are too many for a baseline")


def predict_embedding(
    splits: Splits,
    tokens: Mapping[str, TokenizedTexts],
    encoder: Encoder,
    pad_id: int,
    config: Config,
    progress: Progress,
    *,
    folds: NDArray[np.int64] | None = None,
) -> tuple[Array, Array | None]:
    """Train the baseline on the training rows and predict the test rows, and others that trained nothing.

    Args:
        splits: The rows.
        tokens: Their tokens, by split.
        encoder: The encoder; what was trained of it plays no part, as it is loaded anew.
        pad_id: Token id of the padding.
        config: As `FrozenBase.load` takes it.
        progress: Receives the progress.
        folds: Shape (training rows,): training rows that are predicted out of fold, -1 for those that are not. None to
            predict calibration rows.

    Returns:
        Values of shape (test rows, labels), and of shape (rows of any fold or calibration rows, labels), or None where
        there are none.

    Raises:
        ConfigError: It would take too long, or the encoder cannot be loaded so.
    """
    task, train, test = splits.task, tokens["train"], tokens["test"]
    try:
        base = FrozenBase.load(encoder, task, pad_id, config)
    except ConfigError as error:
        raise ConfigError("this encoder cannot be loaded without its own head") from error
    check_size(
        {name: texts.lengths for name, texts in tokens.items()},
        rows=train.texts,
        width=base.model.config.hidden_size,
        outputs=len(task.output_names),
    )
    progress.start(f"for comparison: {task.baselines[EMBEDDING]}", total=train.texts + test.texts, unit="text")
    states = base.embed(train, on_progress=progress.update)
    model = EmbeddingModel.fit(task, states, splits.train.y)
    values = model.compute_values(base.embed(test, on_progress=lambda done: progress.update(train.texts + done)))
    held_out = None
    if folds is not None:
        held_out = predict_out_of_fold(task, states, splits.train.y, folds)
    elif "calibration" in tokens:
        held_out = model.compute_values(base.embed(tokens["calibration"]))
    progress.finish()
    return values, held_out


def predict_out_of_fold(
    task: Task,
    states: Array,
    y: NDArray[Any],
    folds: NDArray[np.int64],
    *,
    strength: float | None = None,
    seed: int = 0,
) -> Array:
    """Predict rows with a model that was fitted to the rows of other folds.

    Args:
        task: The task.
        states: Shape (n, width).
        y: n labels.
        folds: Shape (n,); rows of -1 are always fitted to.
        strength: As in `EmbeddingModel.fit`, where None chooses one for each fold.
        seed: As in `EmbeddingModel.fit`.

    Returns:
        Values of shape (rows of any fold, labels), in their order.
    """
    values = np.empty((len(folds), len(task.label_names)))
    for fold in np.unique(folds[folds >= 0]):
        own = folds == fold
        model = EmbeddingModel.fit(task, states[~own], y[~own], strength=strength, seed=seed)
        values[own] = model.compute_values(states[own])
    return values[folds >= 0]


def choose_penalty(task: Task, states: Array, y: NDArray[Any], *, seed: int) -> float:
    """Choose the strength of the penalty for n rows by cross-validation; arguments as in `EmbeddingModel.fit`."""
    from lorafit.training.embeddings import choose_strength

    return choose_strength(states, _build_targets(task, y, task.fit_scaler(y, has_bias=True)), seed=seed)


def _build_targets(task: Task, y: NDArray[Any], scaler: TargetScaler) -> "HeadTargets":
    from lorafit.training.embeddings import HeadTargets

    return HeadTargets(task.targets(y, scaler), task.problem_type, len(task.output_names))
