from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lorafit.config import MethodConfig, ModelConfig
from lorafit.labels import LabelSet
from lorafit.models.adaptation import AdaptedModel, apply_method
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.training.targets import Standard, build_targets, fold_standard, measure_standard

NUMBERS = np.array([10.0, 20.0, 40.0])
BATCH = {"input_ids": torch.tensor([[2, 5, 6, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


def build(folder: Path, method: str) -> AdaptedModel:
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), LabelSet(("value",), "regression"))
    return apply_method(loaded.model, MethodConfig(name=method), newly_initialised=loaded.newly_initialised)


@pytest.mark.parametrize("method", ["lora", "full", "ln_tuning"])
def test_folded_model_gives_numbers_in_their_own_unit(tiny_distilbert: Path, method: str) -> None:
    adapted = build(tiny_distilbert, method)
    standard = measure_standard(NUMBERS, "regression", adapted)
    model = adapted.model.eval()
    with torch.no_grad():
        before = model(**BATCH).logits.double().numpy()
        fold_standard(adapted, standard)
        assert model(**BATCH).logits.double().numpy() == pytest.approx(standard.undo(before), rel=1e-5)


def test_standardised_numbers_have_mean_0_and_spread_1(tiny_distilbert: Path) -> None:
    standard = measure_standard(NUMBERS, "regression", build(tiny_distilbert, "lora"))
    targets = build_targets(NUMBERS, "regression", standard)
    assert targets.dtype == np.float32
    assert (targets.mean(), targets.std()) == (pytest.approx(0, abs=1e-6), pytest.approx(1))
    assert standard.undo(standard.apply(NUMBERS)) == pytest.approx(NUMBERS)


def test_head_without_an_offset_is_given_the_scale_alone(tiny_distilbert: Path) -> None:
    adapted = build(tiny_distilbert, "full")
    head = adapted.model.get_submodule("classifier")
    assert isinstance(head, nn.Linear)
    head.bias = None
    standard = measure_standard(NUMBERS, "regression", adapted)
    assert standard == Standard(scale=pytest.approx(np.sqrt(700)))  # type: ignore[arg-type]
    weight = head.weight.detach().clone()
    fold_standard(adapted, standard)
    assert torch.allclose(head.weight, weight * standard.scale)


def test_labels_of_other_tasks_are_not_standardised(tiny_distilbert: Path) -> None:
    ids, marks = np.array([0, 1, 1]), np.array([[0, 1], [1, 1]])
    assert measure_standard(ids, "single_label", build(tiny_distilbert, "lora")) == Standard()
    assert build_targets(ids, "single_label", Standard()) is ids
    targets = build_targets(marks, "multi_label", Standard())
    assert targets.dtype == np.float32
    assert np.array_equal(targets, marks)
