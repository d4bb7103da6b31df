import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, RobertaConfig
from transformers.utils import logging as transformers_logging

from lorafit.config import ModelConfig
from lorafit.errors import ConfigError, NetworkUnavailableError
from lorafit.models.head import find_output
from lorafit.models.load import (
    Encoder,
    build_model_config,
    check_max_length,
    load_with_head,
    locate_encoder,
)
from lorafit.models.quiet import quiet_transformers
from lorafit.system.atomic import compute_digest
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("negative", "neutral", "positive"))
COMMIT = "0123456789abcdef0123456789abcdef01234567"

ANSWERS = {
    "nobody/no-model": (404, "RepoNotFound"),
    "somebody/no-revision": (404, "RevisionNotFound"),
    "somebody/forbidden": (403, "Forbidden"),
}
ASK_THE_HUB = """
import json, sys
from lorafit.config import ModelConfig
from lorafit.models.load import locate_encoder
found = {}
for name in json.load(sys.stdin):
    try:
        locate_encoder(ModelConfig(name=name, revision="v9"))
    except Exception as error:
        found[name] = [type(error).__name__, str(error)]
json.dump(found, sys.stdout)
"""


@pytest.fixture
def folder(tiny_distilbert: Path, tmp_path: Path) -> Path:
    """A copy that the test may damage."""
    return Path(shutil.copytree(tiny_distilbert, tmp_path / "model"))


@pytest.fixture
def hub_endpoint() -> Iterator[str]:
    """A server on this machine that answers as the Hub does about models that cannot be had."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, code = next(answer for name, answer in ANSWERS.items() if name in self.path)
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the name that the server calls

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def locate(folder: Path) -> Encoder:
    return locate_encoder(ModelConfig(name=str(folder)))


def test_local_folder_is_named_by_its_absolute_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    path = folder.resolve()
    assert locate_encoder(ModelConfig(name="model")) == Encoder(str(path), path, str(path), None)


def test_local_folder_below_the_home_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert locate_encoder(ModelConfig(name="~/model")).folder == folder.resolve()


def test_builtin_encoder_keeps_its_name(builtin_encoder: Path) -> None:
    encoder = locate_encoder(ModelConfig(name="builtin:distil-minilm"))
    assert encoder == Encoder("builtin:distil-minilm", builtin_encoder, str(builtin_encoder), None)


def test_folder_without_a_config_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"model: config\.json missing in .*the Hub's layout.*save_pretrained"):
        locate(folder)


@pytest.mark.parametrize("name", ["no/such/folder", "./nowhere", "~/nowhere", "C:\\models", "-x"])
def test_name_that_is_no_folder_and_no_hub_id_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"There is no folder .*builtin:distil-minilm, a Hub id such as"):
        locate_encoder(ModelConfig(name=name))


@pytest.mark.parametrize("name", ["distilbert-base-uncased", "owner/never-downloaded"])
def test_hub_id_that_is_not_in_the_cache_needs_a_network(name: str) -> None:
    with pytest.raises(
        NetworkUnavailableError,
        match=rf"{name}' and no model of that name in the local cache.*or --model builtin:distil",
    ):
        locate_encoder(ModelConfig(name=name))


def test_hub_id_is_found_in_the_hubs_own_cache(tiny_bert: Path, hub_cache: Path) -> None:
    stored = hub_cache / "models--owner--tiny-bert"
    shutil.copytree(tiny_bert, stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    found = Encoder("owner/tiny-bert", stored / "snapshots" / COMMIT, "owner/tiny-bert", COMMIT)
    assert locate_encoder(ModelConfig(name="owner/tiny-bert")) == found
    assert locate_encoder(ModelConfig(name="owner/tiny-bert", revision=COMMIT)) == found
    assert found.record("bert").model_dump() == {
        "name": "owner/tiny-bert",
        "revision": COMMIT,
        "digest": compute_digest(tiny_bert / "model.safetensors"),
        "architecture": "bert",
    }
    assert load_with_head(found, TASK).model.config.model_type == "bert"


def test_answers_of_the_hub_are_told_apart(hub_endpoint: str) -> None:
    environment = {key: value for key, value in os.environ.items() if key not in {"HF_HUB_OFFLINE", "HF_TOKEN"}}
    environment |= {"HF_ENDPOINT": hub_endpoint, "NO_PROXY": "*", "no_proxy": "*"}
    done = subprocess.run(
        [sys.executable, "-c", ASK_THE_HUB],
        input=json.dumps(list(ANSWERS)),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    found = json.loads(done.stdout)
    assert {name: kind for name, (kind, _) in found.items()} == {
        "nobody/no-model": "ConfigError",
        "somebody/no-revision": "ConfigError",
        "somebody/forbidden": "NetworkUnavailableError",
    }
    assert "There is no model 'nobody/no-model'" in found["nobody/no-model"][1]
    assert "has no revision 'v9'" in found["somebody/no-revision"][1]


def test_digest_of_several_files_is_that_of_each_in_order(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    first, second = (compute_digest(tmp_path / f"{name}.safetensors") for name in ("a", "b"))
    assert Encoder("x", tmp_path, "x", None).digest() == f"{first}:{second}"


def test_labels_stand_in_the_config(folder: Path) -> None:
    config = load_with_head(locate(folder), TASK).model.config
    assert config.id2label == {0: "negative", 1: "neutral", 2: "positive"}
    assert config.label2id == {"negative": 0, "neutral": 1, "positive": 2}
    assert (config.num_labels, config.problem_type) == (3, "single_label_classification")


def test_model_is_loaded_in_fp32_for_evaluation(folder: Path) -> None:
    from transformers import AutoModel

    AutoModel.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    model = load_with_head(locate(folder), TASK).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert not model.training


def test_random_parameters_are_named(folder: Path) -> None:
    assert load_with_head(locate(folder), TASK).newly_initialised == (
        "classifier.bias",
        "classifier.weight",
        "pre_classifier.bias",
        "pre_classifier.weight",
    )


def test_pooler_that_the_weights_lack_is_named(tiny_bert: Path, tmp_path: Path) -> None:
    from transformers import BertModel

    shutil.copytree(tiny_bert, tmp_path, dirs_exist_ok=True)
    BertModel.from_pretrained(tiny_bert, add_pooling_layer=False).save_pretrained(tmp_path)
    assert "bert.pooler.dense.weight" in load_with_head(locate(tmp_path), TASK).newly_initialised
    assert "bert.pooler.dense.weight" not in load_with_head(locate(tiny_bert), TASK).newly_initialised


def test_seed_decides_the_head_and_leaves_the_caller_randomness_alone(folder: Path) -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    heads = [load_with_head(locate(folder), TASK, seed=seed).model.classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("base_dropout", [False, True])
def test_base_dropout_is_off_unless_asked_for(folder: Path, base_dropout: bool) -> None:
    model = load_with_head(locate(folder), TASK, base_dropout=base_dropout).model.train()
    ids = torch.arange(5, 21).reshape(2, 8)
    first, second = (model.distilbert(ids).last_hidden_state for _ in range(2))
    assert torch.equal(first, second) is not base_dropout
    assert model.config.seq_classif_dropout == AutoConfig.from_pretrained(folder).seq_classif_dropout > 0


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def forget_the_kind_of_model(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "no-such-type"}')


def take_a_model_that_cannot_classify(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "vit"}')


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def change_a_size(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_dim": 48}))


CANNOT = r"transformers cannot load .*model as a text classifier: "


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (damage_config, r"model/config\.json is damaged: "),
        (forget_the_kind_of_model, CANNOT),
        (take_a_model_that_cannot_classify, CANNOT),
        (truncate_weights, r"model/model\.safetensors is damaged: "),
        (change_a_size, CANNOT),
    ],
)
def test_model_that_cannot_be_loaded_is_refused(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(ConfigError, match=message):
        load_with_head(locate(folder), TASK)


def test_length_beyond_the_positions_is_refused(folder: Path) -> None:
    config = build_model_config(folder, TASK)
    check_max_length(config, 128)
    with pytest.raises(ConfigError, match=r"model\.max_length=129, but this encoder reads at most 128 tokens"):
        check_max_length(config, 129)


def test_positions_that_an_encoder_never_uses_are_not_counted() -> None:
    config = RobertaConfig(max_position_embeddings=514, pad_token_id=1)
    check_max_length(config, 512)
    with pytest.raises(ConfigError, match="reads at most 512 tokens"):
        check_max_length(config, 513)


def test_encoder_without_a_limit_takes_any_length() -> None:
    check_max_length(AutoConfig.for_model("t5"), 100_000)


@pytest.mark.parametrize("had_bars", [False, True])
def test_transformers_is_quiet_inside_the_block_and_as_before_after_it(had_bars: bool) -> None:
    logging: Any = transformers_logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_info()
        (logging.enable_progress_bar if had_bars else logging.disable_progress_bar)()
        with quiet_transformers():
            assert logging.get_verbosity() == logging.ERROR
            assert not logging.is_progress_bar_enabled()
            warnings.warn("old", FutureWarning, stacklevel=1)
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled() is had_bars
    finally:
        logging.set_verbosity(level)
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


def save_classifier(folder: Path, *labels: str, copy: Path) -> Path:
    """Save a model with a head for other labels."""
    saved = Path(shutil.copytree(folder, copy))
    load_with_head(locate(folder), build_task("single_label", labels), seed=5).model.save_pretrained(saved)
    return saved


def test_head_for_another_number_of_labels_is_made_anew_and_told(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    saved = save_classifier(folder, "no", "yes", copy=tmp_path / "two")
    capfd.readouterr()
    loaded = load_with_head(locate(saved), TASK)
    assert loaded.newly_initialised == ("classifier.bias", "classifier.weight")
    assert loaded.model.config.num_labels == 3
    expected = (
        "its head was trained for other labels ('no', 'yes') than 'negative', 'neutral', 'positive' and is made anew"
    )
    assert loaded.notes == (f"{saved}: {expected}",)
    assert capfd.readouterr() == ("", ""), "transformers warns of the number"


def test_head_for_other_labels_of_the_same_number_is_made_anew_and_told(folder: Path, tmp_path: Path) -> None:
    saved = save_classifier(folder, "toxic", "mild", "kind", copy=tmp_path / "three")
    first, again, other = (load_with_head(locate(saved), TASK, seed=seed) for seed in (1, 1, 2))
    assert first.newly_initialised == ("classifier.bias", "classifier.weight")
    assert "('toxic', 'mild', 'kind') than 'negative', 'neutral', 'positive'" in first.notes[0]
    before = load_file(saved / "model.safetensors")
    weight = first.model.classifier.weight
    assert not torch.allclose(weight, before["classifier.weight"], atol=0.01)
    assert 0.01 < weight.std() < 0.04
    assert torch.equal(first.model.pre_classifier.weight, before["pre_classifier.weight"])
    assert torch.equal(weight, again.model.classifier.weight)
    assert not torch.equal(weight, other.model.classifier.weight)


@pytest.mark.parametrize("labels", [("negative", "neutral", "positive"), ("NEGATIVE", "Neutral", "POSITIVE"), None])
def test_head_for_these_labels_or_for_nameless_ones_is_kept(
    folder: Path, tmp_path: Path, labels: tuple[str, ...] | None
) -> None:
    names = labels or ("LABEL_0", "LABEL_1", "LABEL_2")
    saved = save_classifier(folder, *names, copy=tmp_path / "same")
    loaded = load_with_head(locate(saved), TASK)
    assert (loaded.newly_initialised, loaded.notes) == ((), ())
    assert torch.equal(loaded.model.classifier.weight, load_file(saved / "model.safetensors")["classifier.weight"])
    assert loaded.model.config.id2label == TASK.id2label


def test_number_from_a_classifier_has_a_head_of_its_own(folder: Path, tmp_path: Path) -> None:
    saved = save_classifier(folder, "no", "yes", copy=tmp_path / "two")
    loaded = load_with_head(locate(saved), build_task("regression", ("value",)))
    assert loaded.model.config.num_labels == 1
    assert loaded.newly_initialised == ("classifier.bias", "classifier.weight")
    assert len(loaded.notes) == 1


@pytest.mark.parametrize("model_type", ["roberta", "electra", "modernbert", "deberta-v2", "qwen3"])
def test_layer_of_the_logits_is_found_in_every_kind_of_head(
    build_encoder: Callable[..., Path], model_type: str
) -> None:
    model = load_with_head(locate(build_encoder(model_type)), TASK).model
    shapes = [tuple(model.get_parameter(name).shape) for name in find_output(model)]
    assert shapes in ([(3, 32), (3,)], [(3, 32)])
