"""The baseline `embedding`: a regression on the mean states of the encoder as it was pre-trained."""

from dataclasses import dataclass
from typing import Any, Self

from numpy.typing import NDArray

from lorafit.models.acceleration.encoder_block import fuse_encoder
from lorafit.models.acceleration.precision import Device
from lorafit.models.load import Encoder, load_with_head
from lorafit.models.pooling import MeanPooledForSequenceClassification
from lorafit.tasks.base import Array, Task
from lorafit.training.embeddings import HeadTargets, LinearHead, choose_strength, fit_head


@dataclass(frozen=True)
class EmbeddingModel:
    """A regression on mean states, and the task whose labels it predicts."""

    task: Task
    head: LinearHead

    @classmethod
    def fit(cls, task: Task, states: Array, y: NDArray[Any], *, strength: float | None = None) -> Self:
        """Fit it to n rows.

        Args:
            task: The task.
            states: Shape (n, width), from `embed_texts`.
            y: Their labels.
            strength: Of the penalty; None chooses it by cross-validation.

        Returns:
            The model.
        """
        scaler = task.fit_scaler(y, has_bias=True)
        targets = HeadTargets(task.targets(y, scaler), task.problem_type, len(task.output_names))
        head = fit_head(states, targets, strength=strength or choose_strength(states, targets, seed=0))
        return cls(task, LinearHead(head.weight * scaler.scale, scaler.undo(head.bias)))

    def compute_logits(self, states: Array) -> Array:
        """Return logits of shape (m, outputs) for states of shape (m, width)."""
        return self.head.apply(states)

    def compute_values(self, states: Array) -> Array:
        """Return values of shape (m, labels) for states of shape (m, width)."""
        return self.task.activate(self.compute_logits(states))


def load_frozen_base(
    encoder: Encoder, task: Task, pad_id: int, device: Device = "cpu"
) -> MeanPooledForSequenceClassification:
    """Load an encoder as it was pre-trained, with a head of random weights on the mean of its states.

    Args:
        encoder: The encoder.
        task: The task.
        pad_id: Token id of the padding.
        device: Where it is to run.

    Returns:
        The classifier, its blocks fused where that is possible.

    Raises:
        ConfigError: As `load_with_head`.
    """
    model: Any = load_with_head(encoder, task, pad_id=pad_id, pooling="mean").model
    model.to(device)
    if device == "cpu":
        fuse_encoder(model)
    found: MeanPooledForSequenceClassification = model
    return found
