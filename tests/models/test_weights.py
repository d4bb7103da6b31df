"""Weights are checked before a model gets them, and a model is not larger than its weights say."""

import json
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from lorafit.errors import ConfigError
from lorafit.models.classifiers import load_classifier
from lorafit.models.quiet import quiet_transformers
from lorafit.models.weights import read_tensors, read_weights

NAME = "transformer.layer.1.ffn.lin2.weight"


@pytest.fixture
def folder(tiny_distilbert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_distilbert, tmp_path / "model"))


def change(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    path = folder / "model.safetensors"
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, {"format": "pt"})
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("values", [(float("nan"),), (float("inf"),), (float("inf"), float("-inf"))])
def test_number_that_is_none_is_refused_by_tensor_and_file(
    folder: Path, dtype: torch.dtype, values: tuple[float, ...]
) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights[NAME] = weights[NAME].to(dtype)
        for place, value in enumerate(values):
            weights[NAME][place, 3] = value

    path = change(folder, spoil)
    with pytest.raises(ConfigError) as caught:
        read_weights(folder)
    assert str(caught.value) == f"{path}: {NAME} has {len(values)} of 2,048 numbers that are NaN or infinite."


def test_sum_that_is_too_large_is_no_fault(folder: Path) -> None:
    def enlarge(weights: dict[str, torch.Tensor]) -> None:
        weights[NAME] = torch.full((32, 64), 60_000.0, dtype=torch.float16)
        weights["transformer.layer.0.ffn.lin2.weight"] = torch.full((32, 64), 3e38)

    change(folder, enlarge)
    assert read_weights(folder)[NAME].isfinite().all()


def test_weights_that_are_whole_numbers_are_refused_and_positions_are_not(folder: Path) -> None:
    def add_positions(weights: dict[str, torch.Tensor]) -> None:
        weights["embeddings.position_ids"] = torch.arange(4)

    change(folder, add_positions)
    assert "embeddings.position_ids" in read_weights(folder)
    change(folder, lambda weights: weights.update({NAME: weights[NAME].to(torch.int8)}))
    with pytest.raises(ConfigError, match=r"lin2\.weight is of type int8, where weights are fractions\.$"):
        read_weights(folder)


def write_header(path: Path, size: int, content: bytes) -> None:
    path.write_bytes(struct.pack("<Q", size) + content)


@pytest.mark.parametrize(
    ("size", "content", "message"),
    [
        (10**12, b"{}", "is damaged: "),
        (0, b"", "is damaged: "),
        (11_000_000, b" " * 11_000_001, "has a header of 11,000,000 bytes; allowed are 10,000,000"),
        (60_000, b'{"a":' * 12_000, "is damaged: "),
        (50, b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,', "is damaged: "),
        (70, b'{"a":{"dtype":"F32","shape":[99999999],"data_offsets":[0,399999996]}}  ', "is damaged: "),
        (0x80, b"\x80\x04csubprocess\nPopen\n", "is damaged: "),
    ],
)
def test_file_that_holds_something_else_is_refused(folder: Path, size: int, content: bytes, message: str) -> None:
    write_header(folder / "model.safetensors", size, content)
    with pytest.raises(ConfigError, match=rf"model\.safetensors {message}"):
        read_tensors(folder / "model.safetensors")


def test_model_is_that_of_transformers(folder: Path) -> None:
    change(folder, lambda weights: weights.pop(NAME))
    config = AutoConfig.from_pretrained(folder, num_labels=3)
    with quiet_transformers():
        torch.manual_seed(0)
        wanted, account = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, dtype=torch.float32, output_loading_info=True
        )
    torch.manual_seed(0)
    model, own_account = load_classifier(folder, config, "model")
    assert own_account["missing_keys"] == account["missing_keys"] == {f"distilbert.{NAME}", *_head(wanted)}
    found, expected = model.state_dict(), wanted.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert model.config.to_dict() == wanted.config.to_dict()
    assert model.name_or_path == wanted.name_or_path


def _head(model: torch.nn.Module) -> set[str]:
    return {name for name, _ in model.named_parameters() if "classifier" in name}


def test_weights_in_several_files_are_read_by_their_index(folder: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(folder)
    whole, _ = load_classifier(folder, config, "model")
    with quiet_transformers():
        whole.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    again, account = load_classifier(tmp_path / "shards", config, "shards")
    assert account["missing_keys"] == set()
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), whole.parameters(), strict=True))


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "model.bin", "a/b.safetensors", ""])
def test_index_names_files_beside_it_alone(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NAME: name}}))
    with pytest.raises(ConfigError, match=r"index\.json names '.*'; it may name \.safetensors files beside it alone"):
        read_weights(folder)


@pytest.mark.parametrize(
    "changes",
    [{"dim": 10**9}, {"vocab_size": 10**9}, {"hidden_dim": 10**9}, {"max_position_embeddings": 10**9}],
)
def test_config_of_a_far_larger_model_is_refused_before_memory_is_taken(folder: Path, changes: dict[str, int]) -> None:
    config = AutoConfig.from_pretrained(folder, **changes)
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"^model: its config\.json speaks of [\d,]+ numbers, and its weights have"):
        load_classifier(folder, config, "model")
    assert time.process_time() - began < 2
