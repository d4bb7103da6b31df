"""Runs, adapters and bases from anybody, rightly sealed: refused in a sentence, soon, and none of their code is run."""

import json
import os
import re
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import lorafit
from lorafit.config import MethodConfig, ModelConfig
from lorafit.errors import UserInputError
from lorafit.models.adaptation import apply_method, count_parameters
from lorafit.models.load import load_tokenizer, load_with_head, locate_encoder
from lorafit.runs.bases import locate_base
from lorafit.runs.folder import RunLayout
from lorafit.runs.golden import GoldenRecord
from lorafit.runs.records import RunRecord
from lorafit.runs.saving import compute_plain_logits, write_trained
from lorafit.system.digests import digest_folder
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("neg", "pos"))
Spoil = Callable[[Path], object]


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sprung),)


@pytest.fixture(scope="module")
def stored(
    build_encoder: Callable[..., Path], write_run_in: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run with a random adapter. Tests do not change it."""
    encoder = locate_encoder(ModelConfig(name=str(build_encoder("distilbert", initializer_range=0.1))))
    loaded = load_with_head(encoder, TASK)
    adapted = apply_method(loaded.model, MethodConfig(r=4), newly_initialised=loaded.newly_initialised)
    written = RunLayout(write_run_in(tmp_path_factory.mktemp("written"), calibration=False))
    layout = RunLayout(tmp_path_factory.mktemp("stored"))
    layout.adapter.mkdir()
    write_trained(adapted, encoder, layout.adapter, max_length=32)
    texts = ["a good film", "a bad, boring film"]
    GoldenRecord(texts=texts, logits=compute_plain_logits(layout.adapter, texts)).write(layout.golden)
    record = RunRecord.read(written.record)
    changes = {
        "max_length": 32,
        "base_model": encoder.record("distilbert"),
        "parameters": count_parameters(adapted),
        "evidence": {},
        "files": digest_folder(layout.adapter),
    }
    record.model_copy(update=changes).write(layout.record)
    return layout.root


@pytest.fixture
def run(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stored, tmp_path / "run"))


@pytest.fixture
def base(tiny_distilbert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_distilbert, tmp_path / "base"))


def edit(name: str, **fields: Any) -> Spoil:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


def settings(**fields: Any) -> Spoil:
    return edit("adapter/adapter_config.json", **fields)


def tensors(
    change: Callable[[dict[str, torch.Tensor]], object], name: str = "adapter/adapter_model.safetensors"
) -> Spoil:
    def spoil(folder: Path) -> None:
        weights = load_file(folder / name)
        change(weights)
        save_file(weights, folder / name, {"format": "pt"})

    return spoil


def write(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def add_pickle(name: str) -> Spoil:
    return lambda folder: torch.save({"a": Trap(folder / "sprung")}, folder / name)


def link(name: str) -> Spoil:
    """Move a file out of the folder and leave a link to it."""

    def spoil(folder: Path) -> None:
        outside = folder.parent / "outside"
        shutil.move(folder / name, outside)
        (folder / name).symlink_to(outside)

    return spoil


def replace_by_pipe(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return spoil


def both(*steps: Spoil) -> Spoil:
    return lambda folder: [step(folder) for step in steps]


def edit_tokenizer(change: Callable[[dict[str, Any]], object], name: str = "adapter/tokenizer.json") -> Spoil:
    def spoil(folder: Path) -> None:
        fields = json.loads((folder / name).read_text())
        change(fields)
        (folder / name).write_text(json.dumps(fields))

    return spoil


def search_with(pattern: str) -> Spoil:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return edit_tokenizer(lambda fields: fields.update(pre_tokenizer=split))


def first(weights: dict[str, torch.Tensor]) -> str:
    return min(name for name in weights if "lora_A" in name)


WEIGHTS = "adapter/adapter_model.safetensors"
NESTED = b'{"a":' * 5000 + b"1" + b"}" * 5000
HOSTILE_RUNS: dict[str, tuple[Spoil, str]] = {
    "a pickle beside the weights": (add_pickle("adapter/adapter_model.bin"), "adapter_model.bin, a pickle"),
    "a pickle instead of the weights": (
        both(add_pickle("adapter/adapter_model.bin"), lambda folder: (folder / WEIGHTS).unlink()),
        "adapter_model.(bin, a pickle|safetensors is missing)",
    ),
    "a pickle of a base beside the weights": (add_pickle("adapter/pytorch_model.bin"), "a pickle"),
    "a pickle by the name of the weights": (add_pickle(WEIGHTS), "adapter_model.safetensors is damaged"),
    "a link to other weights": (link(WEIGHTS), "leads out of that folder|is a link out of its folder"),
    "a link to other settings": (link("adapter/adapter_config.json"), "leads out of|is a link out of its folder"),
    "a pipe": (replace_by_pipe("adapter/tokenizer_config.json"), "tokenizer_config.json (is a pipe|is missing)"),
    "another kind of adapter": (settings(peft_type="XLORA"), "its peft_type is 'XLORA'"),
    "no kind of adapter": (settings(peft_type=["LORA"]), r"its peft_type is \['LORA'\]"),
    "a wrong kind of adapter": (settings(peft_type="IA3"), "PEFT has no setting|cannot be loaded|have no place"),
    "a setting that PEFT has not": (settings(hook="os.system"), "PEFT has no setting 'hook' of LORA"),
    "another kind of task": (settings(task_type="CAUSAL_LM"), "not one of a text classifier, but of 'CAUSAL_LM'"),
    "a pattern of modules": (settings(target_modules="(.*a*)*b"), "which is no plain name"),
    "a pattern in a list": (settings(exclude_modules=["(x+x+)+y"]), "which is no plain name"),
    "a pattern of ranks": (settings(rank_pattern={"(x+x+)+y": 4}), "which is no plain name"),
    "a huge rank": (settings(r=10**9), "r is 1,000,000,000; allowed are 1,024 or the width of the base"),
    "a huge rank of one module": (settings(rank_pattern={"q_lin": 1e300}), "rank_pattern is 1e"),
    "a rank that is no number": (settings(r="eight"), "cannot be loaded onto its base|is of the shape"),
    "a negative rank": (settings(r=-1), "cannot be loaded onto its base"),
    "a rank of nothing": (settings(r=None), "cannot be loaded onto its base"),
    "more layers": (settings(layer_replication=[[0, 10**6]]), "layer_replication changes more than an adapter may"),
    "a module to import": (
        settings(megatron_config={"a": 1}, megatron_core="this"),
        "megatron_config changes more than an adapter may",
    ),
    "names without end": (settings(target_modules=["q_lin"] * 6000), "has 6,000; allowed are 5,000 names"),
    "settings in each other": (
        write("adapter/adapter_config.json", NESTED),
        "adapter_config.json (is damaged|has lists)",
    ),
    "settings that are a list": (write("adapter/adapter_config.json", b"[1]"), "is no JSON object"),
    "another shape": (tensors(lambda one: one.update({first(one): torch.ones(5, 32)})), r"is of the shape \(5, 32\)"),
    "a missing tensor": (tensors(lambda one: one.pop(first(one))), "has no tensor .*lora_A.weight"),
    "one tensor more": (tensors(lambda one: one.update(more=torch.ones(2))), r"1 of its \d+ tensors have no place"),
    "whole numbers": (tensors(lambda one: one.update({first(one): torch.ones(4, 32).int()})), "is of type int32"),
    "NaN": (tensors(lambda one: one[first(one)][0].fill_(float("nan"))), "lora_A.weight has 32 of 128 numbers"),
    "infinite": (tensors(lambda one: one[first(one)][1, 1].fill_(float("-inf"))), "has 1 of 128 numbers"),
    "a header without end": (write(WEIGHTS, struct.pack("<Q", 10**12) + b"{}"), "is damaged"),
    "a header in itself": (write(WEIGHTS, struct.pack("<Q", len(NESTED)) + NESTED), "is damaged"),
    "nothing": (write(WEIGHTS, b""), "is damaged"),
    "a tokenizer in itself": (write("adapter/tokenizer.json", NESTED), "tokenizer.json (is damaged|has lists)"),
    "a pattern that is none": (search_with("("), "tokenizer.json is damaged"),
    "a template without tokens": (
        edit_tokenizer(lambda fields: fields["post_processor"].update(special_tokens={})),
        "tokenizer.json is damaged",
    ),
    "words without end": (
        edit_tokenizer(lambda fields: fields["model"].update(max_input_chars_per_word=2**40)),
        "tokenizer.json: max_input_chars_per_word is",
    ),
    "text that grows": (
        edit_tokenizer(
            lambda fields: fields.update(
                normalizer={
                    "type": "Sequence",
                    "normalizers": [{"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 10}] * 7,
                }
            )
        ),
        "tokenizer.json: its normalizer makes a text up to 10,000,000 times as long",
    ),
    "no settings of the tokenizer": (write("adapter/tokenizer_config.json", b'"x"'), "tokenizer"),
}


def open_and_refuse(ask: Callable[[], object], folder: Path) -> str:
    """Ask for something hostile and return the sentence that it ends with, soon and with little memory."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(UserInputError) as caught:
        ask()
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kilobytes"
    said = str(caught.value)
    assert caught.value.exit_code == 2
    assert "\n" not in said
    assert len(said) < 900
    assert "weights_only" not in said
    assert "trust_remote_code" not in said
    assert not list(folder.parent.rglob("sprung"))
    return said


@pytest.mark.parametrize("name", HOSTILE_RUNS)
def test_hostile_run_is_refused(run: Path, sign_run: Callable[[Path], None], name: str) -> None:
    spoil, message = HOSTILE_RUNS[name]
    spoil(run)
    sign_run(run)
    assert re.search(message, open_and_refuse(lambda: lorafit.load(run), run))


HARMLESS_RUNS: dict[str, Spoil] = {
    "code of a model": edit("adapter/labels/config.json", auto_map={"AutoConfig": "evil.C"}),
    "code of a tokenizer": edit("adapter/tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", None]}),
    "code of an adapter": settings(auto_mapping={"base_model_class": "C", "parent_library": "evil"}),
    "a base elsewhere": settings(base_model_name_or_path="/etc/../etc"),
    "a text to begin from": settings(revision="../../evil"),
}


@pytest.mark.parametrize("name", HARMLESS_RUNS)
def test_what_names_code_or_places_is_not_followed(
    run: Path, stored: Path, sign_run: Callable[[Path], None], name: str
) -> None:
    (run / "adapter" / "evil.py").write_text("raise SystemExit('code of the folder was run')")
    HARMLESS_RUNS[name](run)
    sign_run(run)
    wanted, found = (lorafit.load(folder).predict(["a superb film"])[0] for folder in (stored, run))
    assert found == wanted


def test_pattern_that_explodes_ends_in_a_sentence(run: Path, sign_run: Callable[[Path], None]) -> None:
    search_with("(a+)+$")(run)
    sign_run(run)
    predictor = lorafit.load(run, verify=False)
    assert re.search("tokenizer cannot take", open_and_refuse(lambda: predictor.predict([f"{'a' * 40}b"]), run))


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "c"], [], ["a", "a"], ["x" * 10**6, "y"]])
def test_labels_of_another_count_are_refused(run: Path, edit_record: Callable[..., None], labels: list[str]) -> None:
    edit_record(run / "run.json", labels=labels)
    assert re.search("[Ll]abel|class", open_and_refuse(lambda: lorafit.load(run), run))


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../outside", "..\\outside"])
def test_record_that_names_files_elsewhere_is_refused(run: Path, edit_record: Callable[..., None], name: str) -> None:
    edit_record(run / "run.json", lambda fields: fields["files"].update({name: "0" * 64}))
    assert re.search("which leads out of that folder", open_and_refuse(lambda: lorafit.load(run), run))


def test_run_that_goes_on_from_itself_is_refused(run: Path, edit_record: Callable[..., None]) -> None:
    edit_record(run / "run.json", lambda fields: fields["base_model"].update(name=str(run)))
    assert re.search("goes on from itself", open_and_refuse(lambda: lorafit.load(run), run))
    assert re.search("goes on from itself", open_and_refuse(lambda: locate_base(ModelConfig(name=str(run))), run))


def config(**fields: Any) -> Spoil:
    return edit("config.json", **fields)


HOSTILE_BASES: dict[str, tuple[Spoil, str]] = {
    "a million layers": (config(n_layers=10**6), "n_layers is 1,000,000; allowed are 512 layers"),
    "layers by another name": (config(num_hidden_layers=10**6), "num_hidden_layers is 1,000,000"),
    "as many layers as are allowed": (config(n_layers=512, dim=4096), "speaks of .* numbers, and its weights have"),
    "a huge width": (config(dim=10**9), "speaks of .* numbers, and its weights have"),
    "a huge vocabulary": (config(vocab_size=10**9), "speaks of .* numbers, and its weights have"),
    "positions without end": (config(max_position_embeddings=10**9), "speaks of .* numbers, and its weights have"),
    "labels without end": (config(num_labels=10**8), "num_labels is 100,000,000; allowed are 50,000 labels"),
    "a width that is none": (config(dim="wide"), "transformers cannot load"),
    "a negative width": (config(dim=-1), "transformers cannot load"),
    "no heads": (config(n_heads=0), "transformers cannot load"),
    "a kind that is none": (config(model_type=["bert"]), "model_type is"),
    "its own code": (
        config(model_type="mine", auto_map={"AutoConfig": "evil.C", "AutoModelForSequenceClassification": "evil.M"}),
        "it needs code that comes with it, which lorafit never runs",
    ),
    "kernels of others": (config(attn_implementation="evil/kernels"), "attn_implementation is 'evil/kernels'"),
    "quantized weights": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "weights are quantized"),
    "weights elsewhere": (config(transformers_weights="../outside.bin"), "transformers cannot load"),
    "settings in each other": (write("config.json", NESTED), "config.json (is damaged|has lists)"),
    "a number of too many digits": (write("config.json", b'{"dim": ' + b"9" * 5000 + b"}"), "config.json is damaged"),
    "NaN": (
        tensors(lambda one: one["transformer.layer.0.ffn.lin1.weight"].fill_(float("nan")), "model.safetensors"),
        "model.safetensors: transformer.layer.0.ffn.lin1.weight has 2,048 of 2,048 numbers that are NaN",
    ),
    "a link to other weights": (link("model.safetensors"), "is a link out of its folder"),
    "a link to itself": (
        both(
            lambda folder: (folder / "config.json").rename(folder / "a"),
            lambda folder: (folder / "vocab.txt").symlink_to("vocab.txt"),
            lambda folder: (folder / "a").rename(folder / "config.json"),
        ),
        "is a link that leads back to itself",
    ),
    "a device": (lambda folder: (folder / "merges.txt").symlink_to("/dev/zero"), "is a device"),
    "an adapter beside it that is its own base": (
        lambda folder: [
            (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(folder)})),
            shutil.copyfile(folder / "model.safetensors", folder / "adapter_model.safetensors"),
        ],
        "goes on from itself",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_BASES)
def test_hostile_base_is_refused(base: Path, name: str) -> None:
    spoil, message = HOSTILE_BASES[name]
    spoil(base)

    def begin() -> None:
        encoder = locate_encoder(ModelConfig(name=str(base)))
        load_tokenizer(encoder.folder)
        load_with_head(encoder, TASK)

    assert re.search(message, open_and_refuse(begin, base))
