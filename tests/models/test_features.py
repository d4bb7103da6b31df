from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lorafit.config import MethodConfig, ModelConfig
from lorafit.models.acceleration.encoder_block import compute_prefix, fuse_encoder
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import apply_method
from lorafit.models.architectures import ARCHITECTURES
from lorafit.models.load import load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.runs.golden import GOLDEN_PRECISION
from lorafit.tasks.registry import build_task

BuildEncoder = Callable[..., Path]
THREE = build_task("single_label", ("neg", "none", "pos"))


def build(build_encoder: BuildEncoder, family: str, **settings: object) -> torch.nn.Module:
    folder = build_encoder(family, initializer_range=0.3, **settings)
    return load_with_head(locate_encoder(ModelConfig(name=str(folder))), THREE).model.eval()


def draw(lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Random ids and their mask, padded at the end."""
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, np.newaxis]).astype(np.int64)
    return np.where(mask == 1, np.random.default_rng(0).integers(5, 30, mask.shape), 0), mask


@pytest.mark.parametrize("family", ["distilbert", "bert", "roberta", "albert", "modernbert", "llama"])
def test_features_are_the_first_tokens_last_state_and_the_mean_one_below_the_last_layer(
    build_encoder: BuildEncoder, family: str
) -> None:
    model, (ids, mask) = build(build_encoder, family), draw([9, 4, 6])
    if model.config.pad_token_id is not None:
        ids = np.where(mask == 1, ids, model.config.pad_token_id)
    _, features = TorchRuntime(model, GOLDEN_PRECISION).outputs(ids, mask)
    assert features is not None
    with torch.no_grad():
        *_, below, top = model(torch.from_numpy(ids), torch.from_numpy(mask), output_hidden_states=True).hidden_states
    slow = [row[: int(length)].mean(dim=0).numpy() for row, length in zip(below, mask.sum(axis=1), strict=True)]
    width = len(slow[0])
    np.testing.assert_allclose(features[:, -width:], slow, atol=1e-4)
    if ARCHITECTURES[family].is_decoder:  # its first token knows nothing of the text
        assert features.shape == (3, width)
        return
    assert features.shape == (3, 2 * width)
    if family != "modernbert":  # which adds a norm
        np.testing.assert_allclose(features[:, :width], top[:, 0], atol=1e-4)


@pytest.mark.parametrize("name", ["lora", "ia3"])
@pytest.mark.parametrize("layers", ["top1", "top2"])
def test_kept_states_of_the_frozen_layers_give_the_same_features(
    build_encoder: BuildEncoder, name: str, layers: str
) -> None:
    folder = build_encoder("distilbert", initializer_range=0.3, n_layers=3, dropout=0.0, attention_dropout=0.0)
    loaded = load_with_head(locate_encoder(ModelConfig(name=str(folder))), THREE)
    config = MethodConfig(name=name, layers=layers)
    model = apply_method(loaded.model, config, newly_initialised=loaded.newly_initialised, seed=0).model.eval()
    ids, mask = draw([9, 4, 6])
    _, expected = TorchRuntime(model, GOLDEN_PRECISION).outputs(ids, mask)
    fuse_encoder(model)
    with torch.no_grad():
        kept = compute_prefix(model, input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    for precision, close in ((GOLDEN_PRECISION, 1e-4), (PrecisionChoice("bf16", "a test"), 0.2)):
        _, features = TorchRuntime(model, precision).outputs(ids, mask, prefix_hidden_states=kept)
        np.testing.assert_allclose(features, expected, atol=close)
