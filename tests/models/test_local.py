import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel

from lorafit.config import ModelConfig
from lorafit.errors import ConfigError
from lorafit.models.load import Encoder, load_tokenizer, load_with_head, locate_encoder
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("neg", "pos"))
TOKENS = torch.arange(5, 21).reshape(2, 8)


@pytest.fixture
def folder(tiny_bert: Path, tmp_path: Path) -> Path:
    """A copy in a folder whose name must be quoted."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "my model"))


def locate(folder: Path) -> Encoder:
    return locate_encoder(ModelConfig(name=str(folder)))


def hidden_states(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        states: torch.Tensor = model(input_ids=TOKENS).last_hidden_state
    return states


def assert_same_encoder(encoder: Encoder, genuine: Path) -> None:
    expected = hidden_states(AutoModel.from_pretrained(genuine).eval())
    model = load_with_head(encoder, TASK).model
    assert torch.allclose(hidden_states(model.base_model), expected, atol=1e-5)
    assert expected.abs().max() > 1


def list_files(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


def rename_tensors(folder: Path, rename: Callable[[str], str]) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({rename(key): one for key, one in weights.items()}, folder / "model.safetensors", {"format": "pt"})


def keep_vocabulary_alone(folder: Path) -> list[str]:
    """Leave `vocab.txt` in the place of the tokenizer's other files; return the pieces."""
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    pieces = sorted(vocabulary, key=lambda piece: vocabulary[piece])
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    return pieces


def pickle_weights(folder: Path, name: str = "pytorch_model.bin") -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / name)
    (folder / "model.safetensors").unlink()


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))


def test_tokenizer_is_made_from_the_vocabulary_and_the_folder_stays_as_it_is(folder: Path, tiny_bert: Path) -> None:
    keep_vocabulary_alone(folder)
    before = list_files(folder)
    encoder = locate(folder)
    tokenizer, pad_id = load_tokenizer(encoder.folder)
    genuine, _ = load_tokenizer(tiny_bert)
    text = "A Superb film, xyz!"
    assert tokenizer.encode(text).ids == genuine.encode(text).ids
    assert pad_id == 0
    assert (encoder.name, encoder.reference) == (str(folder), str(folder)), "plain libraries need no copy"
    assert encoder.digest() == locate(tiny_bert).digest()
    assert encoder.notes == (f"{folder}: tokenizer.json was made from vocab.txt; capitals become small letters",)
    assert list_files(folder) == before
    made = list_files(encoder.folder)
    assert locate(folder) == encoder
    assert list_files(encoder.folder) == made, "it is made once"


def test_vocabulary_with_capitals_keeps_them(folder: Path) -> None:
    pieces = keep_vocabulary_alone(folder)
    (folder / "vocab.txt").write_text("\n".join([*pieces[:-1], "Film"]) + "\n")
    encoder = locate(folder)
    tokenizer, _ = load_tokenizer(encoder.folder)
    assert tokenizer.encode("Film", add_special_tokens=False).tokens == ["Film"]
    assert encoder.notes[0].endswith("made from vocab.txt; capitals are kept")


def test_other_vocabulary_gets_another_copy(folder: Path) -> None:
    pieces = keep_vocabulary_alone(folder)
    first = locate(folder).folder
    (folder / "vocab.txt").write_text("\n".join([*pieces[:-1], "prose"]) + "\n")
    assert locate(folder).folder != first


def test_folder_without_any_vocabulary_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json missing in .*my model, and no vocab\.txt.*save_pretrained"):
        locate(folder)


@pytest.mark.parametrize("prefix", ["bert.", ""])
def test_kind_of_model_is_told_by_the_weights(folder: Path, tiny_bert: Path, prefix: str) -> None:
    rename_tensors(folder, lambda key: f"{prefix}{key}")
    keep_vocabulary_alone(folder)
    change_config(folder, model_type=None, architectures=None)
    encoder = locate(folder)
    assert encoder.notes[0] == f'{folder}: config.json has no model_type; by its weights it is "bert"'
    assert encoder.reference == str(encoder.folder), "plain libraries cannot open the folder itself"
    assert AutoConfig.from_pretrained(encoder.reference).model_type == "bert"
    assert_same_encoder(encoder, tiny_bert)


@pytest.mark.parametrize("model_type", ["distilbert", "albert", "mpnet"])
def test_kind_of_model_is_told_by_names_that_it_alone_has(
    build_encoder: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    folder = Path(shutil.copytree(build_encoder(model_type), tmp_path / "model"))
    change_config(folder, model_type=None, architectures=None)
    assert AutoConfig.from_pretrained(locate(folder).folder).model_type == model_type


def test_kind_of_model_is_told_by_its_class(build_encoder: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(build_encoder("xlm-roberta"), tmp_path / "model"))
    change_config(folder, model_type=None, architectures=["XLMRobertaForMaskedLM"])
    assert AutoConfig.from_pretrained(locate(folder).folder).model_type == "xlm-roberta"


def test_kind_of_model_that_nothing_tells_is_asked_for(build_encoder: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(build_encoder("roberta"), tmp_path / "model"))
    change_config(folder, model_type=None, architectures=None)
    with pytest.raises(ConfigError, match=r'no model_type, .*Add the line that is true to it: "model_type": "…"'):
        locate(folder)
    change_config(folder, model_type="roberta")
    assert load_with_head(locate(folder), TASK).model.config.model_type == "roberta"


@pytest.mark.parametrize("prefix", ["module.", "model.bert.", "encoder.module.bert."])
def test_prefix_of_the_weights_is_left_out(folder: Path, tiny_bert: Path, prefix: str) -> None:
    rename_tensors(folder, lambda key: f"{prefix}{key}")
    encoder = locate(folder)
    outer = prefix.removesuffix("bert.")
    assert encoder.notes == (f"{folder}: the names of its weights begin with '{outer}', which is left out",)
    assert encoder.reference == str(encoder.folder)
    assert_same_encoder(encoder, tiny_bert)


def test_head_behind_a_prefix_is_kept(folder: Path) -> None:
    load_with_head(locate(folder), TASK).model.save_pretrained(folder)
    rename_tensors(folder, lambda key: f"module.{key}")
    assert load_with_head(locate(folder), TASK).newly_initialised == ()


def test_weights_of_several_encoders_are_refused(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    both = {f"{side}.{key}": one.clone() for side in ("question", "answer") for key, one in weights.items()}
    save_file(both, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"several encoders, whose names begin with answer\., question\..*save_pret"):
        locate(folder)


def rename_strangely(folder: Path) -> None:
    rename_tensors(folder, lambda key: key.replace("attention", "attn").replace("layer", "block"))


def keep_a_third(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(dict(list(weights.items())[::3]), folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("spoil", [rename_strangely, keep_a_third])
def test_encoder_of_which_too_little_is_found_is_never_trained(folder: Path, spoil: Callable[[Path], None]) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=r"its weights have \d+ of the 39 tensors of a bert encoder .*random numbers"):
        load_with_head(locate(folder), TASK)


def test_part_of_the_encoder_that_is_random_is_told(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {key: one for key, one in weights.items() if "layer.1.output.dense" not in key}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    (note,) = load_with_head(locate(folder), TASK).notes
    assert re.search(
        r"2 of the 39 tensors of the encoder are not among its weights \(bert\.encoder\.layer\.1\.out", note
    )


@pytest.mark.parametrize("name", ["0_Transformer", "1_encoder"])
def test_encoder_in_a_sub_folder_is_used(tiny_bert: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny_bert, tmp_path / "sentences" / name)
    (tmp_path / "sentences" / "1_Pooling").mkdir()
    (tmp_path / "sentences" / "1_Pooling" / "config.json").write_text("{}")
    modules = [
        {"idx": 0, "name": "0", "path": name, "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    (tmp_path / "sentences" / "modules.json").write_text(json.dumps(modules))
    encoder = locate(tmp_path / "sentences")
    assert encoder.folder == tmp_path / "sentences" / name
    assert encoder.reference == str(encoder.folder)
    assert encoder.notes == (f"{tmp_path / 'sentences'}: the encoder is in {name}",)
    (tmp_path / "sentences" / "modules.json").unlink()
    assert locate(tmp_path / "sentences") == encoder, "the only one with weights"


def test_encoder_at_the_root_of_sentence_transformers_is_used(folder: Path) -> None:
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert locate(folder) == Encoder(str(folder), folder, str(folder), None)


def test_damaged_list_of_modules_is_named(tiny_bert: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bert, tmp_path / "sentences" / "0_Transformer")
    (tmp_path / "sentences" / "modules.json").write_text('[{"path": ')
    with pytest.raises(ConfigError, match=r"modules\.json is damaged: Expecting value"):
        locate(tmp_path / "sentences")


def test_several_models_in_a_folder_are_named(tiny_bert: Path, tmp_path: Path) -> None:
    for name in ("a", "b c"):
        shutil.copytree(tiny_bert, tmp_path / "models" / name)
    with pytest.raises(ConfigError, match=r"holds several models\. Name one of them: .*/a, '.*/b c'\."):
        locate(tmp_path / "models")


def test_weights_of_another_library_are_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "tf_model.h5")
    with pytest.raises(ConfigError, match=r"no \.safetensors weights in .* \(tf_model\.h5 is of another library\)"):
        locate(folder)


def paste_conversion(error: ConfigError, place: Path) -> Path:
    """Type what the message says; return the folder that it says to train with."""
    lines = str(error).splitlines()
    for command in (line for line in lines if line.startswith("  ")):
        subprocess.run(command, shell=True, cwd=place, check=True, capture_output=True)  # noqa: S602  as a user pastes it
    (model,) = re.findall(r"--model '?([^']*)'?$", lines[-1])
    return Path(model)


def test_old_folder_loads_after_the_one_command_that_the_error_gives(folder: Path, tiny_bert: Path) -> None:
    keep_vocabulary_alone(folder)
    change_config(folder, model_type=None, architectures=None)
    pickle_weights(folder)
    before = list_files(folder)
    with pytest.raises(ConfigError, match=r"my model: no \.safetensors weights, only pickled ones") as caught:
        locate(folder)
    encoder = locate(paste_conversion(caught.value, folder.parent))
    assert_same_encoder(encoder, tiny_bert)
    assert load_tokenizer(encoder.folder)[0].encode("film").tokens == ["[CLS]", "film", "[SEP]"]
    assert list_files(folder) == before


def test_tied_wrapped_and_scattered_weights_are_converted(folder: Path, tiny_bert: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    names = list(weights)
    half = len(names) // 2
    tied = {"cls.decoder.weight": weights["embeddings.word_embeddings.weight"]}
    torch.save(
        {"epoch": 3, "state_dict": {name: weights[name] for name in names[:half]}}, folder / "pytorch_model-1.bin"
    )
    torch.save({name: weights[name] for name in names[half:]} | tied, folder / "pytorch_model-2.bin")
    torch.save({"lr": 1e-3}, folder / "training_args.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError) as caught:
        locate(folder)
    copy = paste_conversion(caught.value, folder.parent)
    with safe_open(copy / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == {*names, *tied}
    assert_same_encoder(locate(copy), tiny_bert)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(PROOF), "w")


PROOF = Path("payload-ran")


def test_pickle_that_would_run_code_is_not_converted(folder: Path) -> None:
    torch.save({"weight": Payload()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ConfigError) as caught:
        locate(folder)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        paste_conversion(caught.value, folder.parent)
    assert b"my model cannot be converted" in failed.value.stderr
    assert b"Traceback" not in failed.value.stderr
    assert b"weights_only" not in failed.value.stderr
    assert sorted(path.name for path in folder.parent.iterdir()) == ["my model"]


def test_pickles_of_the_hub_get_a_download_and_a_conversion(hub_cache: Path, tiny_bert: Path) -> None:
    commit = "00000000000000000000000000000000000000aa"
    stored = hub_cache / "models--owner--pickled"
    shutil.copytree(tiny_bert, stored / "snapshots" / commit, ignore=shutil.ignore_patterns("*.safetensors"))
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)
    with pytest.raises(ConfigError) as caught:
        locate_encoder(ModelConfig(name="owner/pickled"))
    first, second = (line for line in str(caught.value).splitlines() if line.startswith("  "))
    assert first == "  hf download owner/pickled --local-dir pickled"
    assert second.endswith(" -m lorafit.models.pickled pickled pickled-safetensors")
    assert str(caught.value).endswith("--model pickled-safetensors")
