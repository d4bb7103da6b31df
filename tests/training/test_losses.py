"""The loss of rows that do not all count the same, against transformers' own and against the papers' equations."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from lorafit.tasks.base import TargetScaler
from lorafit.tasks.registry import build_task
from lorafit.training.losses import compute_weighted_loss

CLASSES, MARKS, NUMBERS = "single_label_classification", "multi_label_classification", "regression"


def draw(kind: str, rows: int = 12, outputs: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(rows, 1 if kind == NUMBERS else outputs, generator=random)
    labels = {
        CLASSES: torch.arange(rows) % outputs,
        MARKS: (torch.rand(rows, outputs, generator=random) < 0.4).float(),
        NUMBERS: torch.randn(rows, generator=random),
    }
    return logits.requires_grad_(), labels[kind]


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (CLASSES, functional.cross_entropy),
        (MARKS, functional.binary_cross_entropy_with_logits),
        (NUMBERS, lambda logits, labels: functional.mse_loss(logits.squeeze(), labels)),
    ],
)
def test_without_weights_it_is_the_plain_loss(kind: str, plain: object) -> None:
    logits, labels = draw(kind)
    assert callable(plain)
    torch.testing.assert_close(compute_weighted_loss(logits, labels, kind), plain(logits, labels))
    ones = torch.ones(len(labels))
    torch.testing.assert_close(compute_weighted_loss(logits, labels, kind, weights=ones), plain(logits, labels))


def test_balanced_weights_are_those_of_torch_over_the_whole_set() -> None:
    logits, _ = draw(CLASSES)
    y = np.array([0] * 8 + [1] * 3 + [2])
    weights = torch.from_numpy(build_task("single_label", "abc").loss_weights(y))
    per_class = torch.tensor([12 / 3 / count for count in (8, 3, 1)])
    torch.testing.assert_close(
        compute_weighted_loss(logits, torch.from_numpy(y), CLASSES, weights=weights),
        functional.cross_entropy(logits, torch.from_numpy(y), weight=per_class),
    )


def test_balanced_weights_of_a_label_are_a_weight_of_its_positive_rows() -> None:
    logits, _ = draw(MARKS, outputs=2)
    y = np.array([[1, 1]] * 2 + [[0, 1]] + [[0, 0]] * 9)
    task = build_task("multi_label", "ab")
    weights = torch.from_numpy(task.loss_weights(y))
    labels = torch.from_numpy(task.targets(y, TargetScaler()))
    found = compute_weighted_loss(logits, labels, MARKS, weights=weights)
    expected = torch.stack(
        [
            12
            / (2 * (12 - rows))  # so that both sides weigh 1 on the average
            * functional.binary_cross_entropy_with_logits(
                logits[:, label], labels[:, label], pos_weight=torch.tensor((12 - rows) / rows)
            )
            for label, rows in enumerate((2, 3))
        ]
    )
    torch.testing.assert_close(found, expected.mean())


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_loss_of_classes_is_that_of_the_paper(gamma: float) -> None:
    logits, labels = draw(CLASSES)
    p = logits.softmax(dim=1)[torch.arange(len(labels)), labels]
    expected = (-((1 - p) ** gamma) * p.log()).mean()
    torch.testing.assert_close(compute_weighted_loss(logits, labels, CLASSES, gamma=gamma), expected)


def test_focal_loss_of_decisions_is_that_of_the_paper() -> None:
    logits, labels = draw(MARKS)
    p = logits.sigmoid()
    p = torch.where(labels == 1, p, 1 - p)
    alpha = torch.rand(labels.shape, generator=torch.Generator().manual_seed(2))
    expected = (-alpha * (1 - p) ** 2 * p.log()).mean()
    torch.testing.assert_close(compute_weighted_loss(logits, labels, MARKS, weights=alpha, gamma=2.0), expected)


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
def test_focal_loss_has_finite_gradients_where_rows_are_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0], [0.0, 0.0]], requires_grad=True)
    loss = compute_weighted_loss(logits, torch.tensor([0, 0, 1]), CLASSES, gamma=gamma)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()
    assert gradient[0].abs().max() == 0
