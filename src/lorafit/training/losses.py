"""The loss of training rows that do not all count the same: by weights, or by how well they are known already."""

import torch
from torch import Tensor
from torch.nn import functional


def compute_weighted_loss(
    logits: Tensor, labels: Tensor, problem_type: str, *, weights: Tensor | None = None, gamma: float = 0.0
) -> Tensor:
    """Return the mean over a batch of transformers' loss for a problem type, each loss times its weight.

    The mean is over the rows and not over their weights, so that a batch of light rows moves the model less.

    Args:
        logits: Shape (rows, outputs).
        labels: The targets, as `Task.targets` makes them.
        problem_type: Transformers' word for the loss.
        weights: Shape (rows,), (rows, 1) or (rows, outputs): what each loss counts; None where all count the same.
        gamma: Above 0, a loss counts (1 - p) ** gamma, where p is the probability of the truth: the focal loss (Lin et
            al. 2017, "Focal Loss for Dense Object Detection", arXiv:1708.02002), for classes.

    Returns:
        A scalar.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if problem_type == "single_label_classification":
        losses = functional.cross_entropy(logits, labels, reduction="none")[:, None]
    elif problem_type == "multi_label_classification":
        losses = functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    else:
        losses = functional.mse_loss(logits, labels.reshape(logits.shape), reduction="none")
    if gamma:
        missing = -torch.expm1(-losses)  # 1 - p; never 0, where the power has no finite slope if gamma is below 1
        losses = missing.clamp(min=torch.finfo(losses.dtype).eps) ** gamma * losses
    return torch.mean(losses if weights is None else losses * weights.reshape(len(weights), -1))
