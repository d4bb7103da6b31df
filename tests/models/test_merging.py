import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification, LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from lorafit.config import MethodConfig, ModelConfig
from lorafit.errors import ConfigError
from lorafit.models.adaptation import apply_method
from lorafit.models.load import Encoder, load_with_head, locate_encoder
from lorafit.models.quiet import quiet_transformers
from lorafit.runs.saving import write_trained
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("negative", "neutral", "positive"))
TOKENS = torch.arange(5, 21).reshape(2, 8)


def locate(folder: Path) -> Encoder:
    return locate_encoder(ModelConfig(name=str(folder)))


def compute_logits(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = model.eval()(input_ids=TOKENS).logits.numpy()
    return logits


def write_adapter(base: Path, folder: Path, method: str = "lora") -> np.ndarray:
    """Write an adapter with random numbers as lorafit does; return the logits of base and adapter."""
    encoder = locate(base)
    loaded = load_with_head(encoder, TASK)
    adapted = apply_method(loaded.model, MethodConfig(name=method), newly_initialised=loaded.newly_initialised)
    shake(adapted.model)
    folder.mkdir()
    write_trained(adapted, encoder, folder, max_length=64)
    return compute_logits(adapted.model)


def shake(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3, generator=generator)


@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "ln_tuning"])
def test_merged_adapter_gives_the_logits_of_base_and_adapter(tiny_bert: Path, tmp_path: Path, method: str) -> None:
    expected = write_adapter(tiny_bert, tmp_path / "adapter", method)
    encoder = locate(tmp_path / "adapter")
    assert encoder.name == str(tmp_path / "adapter")
    assert encoder.reference == str(encoder.folder)
    assert encoder.notes == (f"{tmp_path / 'adapter'}: the adapter is merged into its base, {tiny_bert}",)
    loaded = load_with_head(encoder, TASK)
    assert (loaded.newly_initialised, loaded.notes) == ((), ()), "the labels agree"
    assert np.abs(compute_logits(loaded.model) - expected).max() < 1e-4
    assert np.ptp(expected, axis=1).min() > 0.05
    plain = AutoModelForSequenceClassification.from_pretrained(encoder.folder)
    assert np.abs(compute_logits(plain) - expected).max() < 1e-4
    assert AutoTokenizer.from_pretrained(encoder.folder).model_max_length == 64


def test_adapter_is_merged_once_for_each_content(tiny_bert: Path, tmp_path: Path) -> None:
    write_adapter(tiny_bert, tmp_path / "adapter")
    merged = locate(tmp_path / "adapter").folder
    made = (merged / "model.safetensors").stat().st_mtime_ns
    moved = Path(shutil.copytree(tmp_path / "adapter", tmp_path / "moved"))
    assert locate(moved).folder == merged
    assert (merged / "model.safetensors").stat().st_mtime_ns == made
    weights = load_file(moved / "adapter_model.safetensors")
    save_file({name: 2 * one for name, one in weights.items()}, moved / "adapter_model.safetensors", {"format": "pt"})
    assert locate(moved).folder != merged


def write_plain_adapter(base: Path, folder: Path, labels: int) -> np.ndarray:
    """Write an adapter as any user of PEFT does, without labels and tokenizer."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    with quiet_transformers():
        adapted = get_peft_model(model, LoraConfig(task_type=TaskType.SEQ_CLS, target_modules=["query"]))
    shake(adapted)
    adapted.save_pretrained(folder)
    return compute_logits(adapted)


@pytest.mark.parametrize("labels", [2, 5])
def test_adapter_of_another_tool_is_merged(tiny_bert: Path, tmp_path: Path, labels: int) -> None:
    expected = write_plain_adapter(tiny_bert, tmp_path / "adapter", labels)
    encoder = locate(tmp_path / "adapter")
    plain = AutoModelForSequenceClassification.from_pretrained(encoder.folder)
    assert np.abs(compute_logits(plain) - expected).max() < 1e-4
    assert (encoder.folder / "tokenizer.json").read_bytes() == (tiny_bert / "tokenizer.json").read_bytes()
    task = build_task("single_label", [f"{label} stars" for label in range(5)])
    assert bool(load_with_head(encoder, task).newly_initialised) is (labels == 2)


def test_adapter_on_a_base_with_another_head_is_merged(tiny_bert: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_bert, tmp_path / "base"))
    two = load_with_head(locate(tiny_bert), build_task("single_label", ("no", "yes"))).model
    two.save_pretrained(base)
    expected = write_adapter(base, tmp_path / "adapter")
    assert np.abs(compute_logits(load_with_head(locate(tmp_path / "adapter"), TASK).model) - expected).max() < 1e-4
    with quiet_transformers():
        opened = AutoPeftModelForSequenceClassification.from_pretrained(
            tmp_path / "adapter", id2label=TASK.id2label, ignore_mismatched_sizes=True
        )
    assert np.abs(compute_logits(opened) - expected).max() < 1e-5


def lose_the_weights(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()


def lose_the_base(folder: Path) -> None:
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "/no/where"}))


def name_no_base(folder: Path) -> None:
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": None}))


def damage_the_settings(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


def truncate_the_weights(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lose_the_weights, "an adapter without adapter_model.safetensors"),
        (lose_the_base, "its base, /no/where, cannot be loaded: .*Correct base_model_name_or_path in .*adapter_config"),
        (name_no_base, "does not name its base: base_model_name_or_path is None"),
        (damage_the_settings, "adapter_config.json is damaged"),
        (truncate_the_weights, "adapter_model.safetensors is damaged"),
    ],
)
def test_adapter_that_is_not_complete_is_refused(
    tiny_bert: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    write_adapter(tiny_bert, tmp_path / "adapter")
    spoil(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=message):
        locate(tmp_path / "adapter")


def test_adapter_of_another_kind_of_model_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    bare = AutoModel.from_pretrained(tiny_bert)
    with quiet_transformers():
        get_peft_model(bare, LoraConfig(target_modules=["query"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"not one of a text classifier with this base: 4 of its 4 tensors have no"):
        locate(tmp_path / "adapter")


def test_method_that_cannot_be_merged_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    write_adapter(tiny_bert, tmp_path / "adapter", "prompt_tuning")
    with pytest.raises(ConfigError, match=r"PROMPT_TUNING cannot be merged into its base\. Train on the base itself"):
        locate(tmp_path / "adapter")
