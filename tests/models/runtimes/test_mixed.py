from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lorafit.config import MethodConfig, ModelConfig
from lorafit.models.acceleration import packing
from lorafit.models.acceleration.packing import current_packing, packed
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import apply_method
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.runtimes.mixed import MixedRuntime
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.tasks.registry import build_task

ADAPTERS = [(2, ("neg", "pos")), (5, ("a", "b", "c"))]
"""Rank and labels of each."""

LENGTHS = [9, 1, 4, 9, 6, 2]
OWNERS = [0, 1, 1, 0, 1, 0]


def build_adapted(base: Path, rank: int, labels: tuple[str, ...]) -> Any:  # noqa: ANN401 - a model of transformers, by architecture
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(base))), build_task("single_label", labels))
    model: Any = loaded.model
    with torch.no_grad():  # random weights of 0.02 would hide attention and the feed-forward network
        for name, parameter in model.named_parameters():
            if name.startswith(model.base_model_prefix) and parameter.ndim == 2 and "embeddings" not in name:
                parameter.mul_(8)
    adapted = apply_method(model, MethodConfig(r=rank), newly_initialised=loaded.newly_initialised).model
    generator = torch.Generator().manual_seed(rank)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return adapted.eval()


@pytest.mark.parametrize("architecture", ["distilbert", "bert", "roberta", "electra"])
@pytest.mark.parametrize("owners", [OWNERS, [1] * len(OWNERS)], ids=["two adapters", "one adapter"])
def test_texts_of_unlike_lengths_are_computed_as_each_alone(
    build_encoder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, architecture: str, owners: list[int]
) -> None:
    folder, precision = build_encoder(architecture), PrecisionChoice("fp32", "")
    adapted = [build_adapted(folder, *one) for one in ADAPTERS]
    base = build_adapted(folder, 1, ("neg", "pos")).unload()
    mixed = MixedRuntime(base, precision, places=3)
    numbers = np.array([mixed.add(model) for model in adapted])
    alone = [TorchRuntime(model, precision) for model in adapted]

    lengths = np.array(LENGTHS)
    mask = (np.arange(9) < lengths[:, None]).astype(np.int64)
    ids = np.random.default_rng(0).integers(5, 60, mask.shape) * mask
    seen: list[int] = []
    monkeypatch.setattr(packing.Packing, "pack", _noting(packing.Packing.pack, seen))
    logits, features = mixed.outputs(ids, mask, adapters=numbers[owners])
    assert {*seen} == {sum(LENGTHS)}, "what is computed has no padding"
    assert features is not None
    for row, owner in enumerate(owners):
        text = ids[row : row + 1, : lengths[row]]
        own, read = alone[owner].outputs(text, np.ones_like(text))
        np.testing.assert_allclose(logits[row, : own.shape[1]], own[0], atol=1e-5)
        assert (logits[row, own.shape[1] :] == 0).all()
        assert read is not None
        np.testing.assert_allclose(features[row], read[0], atol=1e-5)


def _noting(pack: Callable[..., torch.Tensor], seen: list[int]) -> Callable[..., torch.Tensor]:
    def note(own: packing.Packing, states: torch.Tensor) -> torch.Tensor:
        found = pack(own, states)
        seen.append(found.shape[1])
        return found

    return note


def test_little_padding_is_left_where_it_is() -> None:
    full, nearly = torch.ones(4, 10).long(), torch.ones(4, 10).long()
    nearly[0, 8:] = 0
    groups = np.zeros(4, dtype=np.int64)
    for mask in (None, full, nearly, torch.tensor([[1, 1, 0, 0]])):
        with packed(mask, groups):
            assert current_packing() is None
    nearly[1, 4:] = 0
    with packed(nearly, groups):
        assert current_packing() is not None
    assert current_packing() is None


def test_tokens_of_a_group_lie_together() -> None:
    mask = torch.arange(4) < torch.tensor([[4], [1], [2]])
    with packed(mask.long(), np.array([7, 3, 7])):
        found = current_packing()
        assert found is not None
        states = torch.arange(12.0).view(3, 4, 1)
        states = states.where(mask[:, :, None], 0.0)
        tokens = found.pack(states)
        assert tokens.flatten().tolist() == [4, 0, 1, 2, 3, 8, 9]
        assert found.groups == {3: slice(0, 1), 7: slice(1, 7)}
        assert found.take_first(tokens).flatten().tolist() == [0, 4, 8]
        torch.testing.assert_close(found.unpack(tokens), states)
