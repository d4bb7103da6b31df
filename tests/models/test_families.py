"""Every architecture of the table, on a tiny random model: targets, head, training, and what plain PEFT opens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lorafit.config import MethodConfig, ModelConfig, TargetGroup
from lorafit.errors import ConfigError
from lorafit.models.adaptation import apply_method
from lorafit.models.architectures import ARCHITECTURES, find_norms, find_targets
from lorafit.models.load import LoadedModel, load_with_head, locate_encoder
from lorafit.models.methods import METHODS
from lorafit.models.quiet import quiet_transformers
from lorafit.models.runtimes import plain
from lorafit.runs.saving import write_trained
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("bad", "good"))
TEXTS = ["a wonderful film", "dull and far too long", "not bad"]

SAME = {"mistral", "qwen2", "qwen3", "gemma", "gemma2", "camembert"}
"""Architectures with the modules of another one of the table, which stands for them where only these count."""

FAMILIES = sorted(set(ARCHITECTURES) - {"gemma2"})
DIFFERENT = sorted(set(FAMILIES) - SAME)

ADAPTED = {"lora": DIFFERENT, **dict.fromkeys(("ia3", "ln_tuning", "prompt_tuning", "bitfit"), ("distilbert", "llama"))}
"""Architectures by method that `make test` trains: each once, and the other methods on an encoder and a decoder."""


@pytest.fixture(scope="module")
def folders(build_encoder: Callable[..., Path]) -> dict[str, Path]:
    return {model_type: build_encoder(model_type, initializer_range=0.2) for model_type in FAMILIES}


def load(folder: Path) -> LoadedModel:
    return load_with_head(locate_encoder(ModelConfig(name=str(folder))), TASK)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_groups_are_found_in_every_layer(model_type: str, folders: dict[str, Path]) -> None:
    model = load(folders[model_type]).model
    architecture = ARCHITECTURES[model_type]
    layers = len(model.get_submodule(architecture.layers))
    groups: dict[TargetGroup, list[str]] = {
        group: find_targets(model, group)
        for group in ("all-linear", "attention", "query-value", "feed-forward", "key-value-down")
    }
    for group, found in groups.items():
        assert len(found) == layers * len(architecture.group(group))
    assert set(groups["attention"]) | set(groups["feed-forward"]) == set(groups["all-linear"])
    linears = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert {n for n in linears if n.startswith(f"{architecture.layers}.")} == set(groups["all-linear"])
    assert len(find_norms(model)) >= 2 * layers


@pytest.mark.parametrize(
    ("method", "model_type"),
    [
        pytest.param(method, model_type, marks=() if model_type in trained else pytest.mark.slow)
        for method, trained in ADAPTED.items()
        for model_type in DIFFERENT
    ],
)
def test_it_trains_and_plain_libraries_open_it(
    method: str, model_type: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = folders[model_type]
    loaded = load(folder)
    settings: dict[str, Any] = {"virtual_tokens": 3} if method == "prompt_tuning" else {}
    if ARCHITECTURES[model_type].is_decoder and "decoder" in METHODS[method].limits:
        with pytest.raises(ConfigError, match=f"cannot adapt a decoder such as this {model_type}.*Methods that can"):
            apply_method(loaded.model, MethodConfig(name=method, **settings))
        return
    if method == "bitfit" and not any(name.endswith(".bias") for name in encoder_parameters(loaded)):
        with pytest.raises(ConfigError, match=f"this {model_type} encoder has nothing that BitFit trains"):
            apply_method(loaded.model, MethodConfig(name=method))
        return
    adapted = apply_method(
        loaded.model, MethodConfig(name=method, **settings), newly_initialised=loaded.newly_initialised
    )
    trained = {
        name.removeprefix("base_model.").removeprefix("model.").replace("modules_to_save.default.", "")
        for name, parameter in adapted.model.named_parameters()
        if parameter.requires_grad
    }
    assert set(loaded.newly_initialised) <= trained, "what is random must be trained"
    losses = take_steps(adapted.model)
    assert losses[-1] < losses[0]
    write_trained(adapted, locate_encoder(ModelConfig(name=str(folder))), tmp_path, max_length=64)
    with quiet_transformers():
        logits = np.array(plain.compute_plain_logits(tmp_path, TEXTS))
    assert np.abs(logits - compute(adapted.model, tmp_path)).max() < 1e-4


def encoder_parameters(loaded: LoadedModel) -> list[str]:
    prefix = f"{loaded.model.base_model_prefix}."
    return [name for name, _ in loaded.model.named_parameters() if name.startswith(prefix)]


def test_decoder_without_a_padding_token_gets_the_tokenizers(
    build_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    folder = build_encoder("llama", pad_token_id=None, initializer_range=0.2)
    encoder = locate_encoder(ModelConfig(name=str(folder)))
    loaded = load_with_head(encoder, TASK, pad_id=0)
    adapted = apply_method(loaded.model, MethodConfig(), newly_initialised=loaded.newly_initialised)
    write_trained(adapted, encoder, tmp_path, max_length=64)
    with quiet_transformers():
        logits = np.array(plain.compute_plain_logits(tmp_path, TEXTS))
    assert np.abs(logits - compute(adapted.model, tmp_path)).max() < 1e-4


def test_old_names_in_a_checkpoint_are_not_written_again(build_encoder: Callable[..., Path], tmp_path: Path) -> None:
    """bert-base-uncased calls a norm's weight gamma; a checkpoint with that name would be passed over when loaded."""
    folder = build_encoder("bert")
    weights = load_file(folder / "model.safetensors")
    old = {
        n.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): w
        for n, w in weights.items()
    }
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    loaded = load(folder)
    assert not any("LayerNorm" in name for name in loaded.newly_initialised)
    adapted = apply_method(loaded.model, MethodConfig(name="full"))
    adapted.model.save_pretrained(tmp_path)
    assert not any("gamma" in name for name in load_file(tmp_path / "model.safetensors"))


def take_steps(model: torch.nn.Module) -> list[float]:
    """Train for some steps on one batch with padding, and return the losses."""
    ids = torch.randint(5, 60, (4, 9), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(9) < torch.tensor([[9], [4], [6], [3]])).long()
    batch = {"input_ids": ids * mask, "attention_mask": mask, "labels": torch.tensor([0, 1, 1, 0])}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for _ in range(8):
        loss = model.eval()(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def compute(model: torch.nn.Module, folder: Path) -> np.ndarray:
    from transformers import AutoTokenizer

    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits.numpy()


def test_top_layers_of_an_encoder_that_shares_them_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"method\.layers=top1: all layers of this encoder share their weights"):
        find_targets(load(folders["albert"]).model, "all-linear", layers="top1")


def test_linear_layer_that_the_table_does_not_know_is_not_left_out_silently(build_encoder: Callable[..., Path]) -> None:
    odd = build_encoder("deberta-v2", share_att_key=False)
    with pytest.raises(ConfigError, match=r"all-linear would leave out pos_key_proj \(2x\), pos_query_proj \(2x\)"):
        find_targets(load(odd).model, "all-linear")
    assert len(find_targets(load(odd).model, "attention")) == 8
