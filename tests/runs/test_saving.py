import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from lorafit.config import MethodConfig, ModelConfig
from lorafit.errors import LorafitError, RunError
from lorafit.inference.predictor import Predictor
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.adaptation import AdaptedModel, apply_method, count_parameters
from lorafit.models.load import Encoder, load_tokenizer, load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.models.tokenization import Truncation
from lorafit.runs import saving
from lorafit.runs.evidence import check_trained
from lorafit.runs.folder import ADAPTER_FILES, RunLayout
from lorafit.runs.golden import GOLDEN_PAIRS, GOLDEN_TEXTS, GoldenRecord, verify_golden
from lorafit.runs.records import DataRecord, HardwareRecord, RunRecord
from lorafit.runs.saving import compute_plain_logits, load_trained, save_trained, write_trained
from lorafit.system.digests import digest_file
from lorafit.system.text import Text
from lorafit.tasks.registry import build_task

TASK = build_task("single_label", ("negative", "neutral", "positive"))
MAX_LENGTH = 20
COMMIT = "89abcdef0123456789abcdef0123456789abcdef"
FP32 = PrecisionChoice("fp32", "asked for")


@contextmanager
def fresh_process() -> Iterator[None]:
    """Load what is saved in a process that is started anew, as `train` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "compute_plain_logits", compute_plain_logits)
        yield


@dataclass(frozen=True)
class Trained:
    """A model with a random adapter in the place of a trained one."""

    encoder: Encoder
    adapted: AdaptedModel
    pair: bool = False

    def compute_logits(self, texts: Sequence[Text]) -> NDArray[np.float64]:
        return predict_with(self.adapted.model, self.encoder.folder, pair=self.pair)(texts)

    @property
    def record(self) -> RunRecord:
        return RunRecord(
            status="complete",
            created="2025-01-01T00:00:00+00:00",
            versions={},
            seed=0,
            method="lora",
            task=TASK.name,
            labels=list(TASK.label_names),
            max_length=MAX_LENGTH,
            truncation="head+tail",
            pair=self.pair,
            data=DataRecord(source="imdb", splits={}),
            base_model=self.encoder.record("distilbert"),
            hardware=HardwareRecord(
                cpu="c", cores=2, threads=2, memory_bytes=1, precision="fp32", precision_reason="asked for"
            ),
            encoder_blocks="fused",
            parameters=count_parameters(self.adapted),
        )

    def save(self, layout: RunLayout) -> dict[str, str]:
        return save_trained(self.adapted, self.encoder, layout, self.record, compute_logits=self.compute_logits)


@dataclass(frozen=True)
class Saved:
    """A run folder that holds a saved adapter."""

    layout: RunLayout
    record: RunRecord


def predict_with(
    model: torch.nn.Module, folder: Path, *, pair: bool = False
) -> Callable[[Sequence[Text]], NDArray[np.float64]]:
    """Compute logits as lorafit does, with a truncation that other tools do not know."""
    truncation = Truncation(MAX_LENGTH, "head+tail")
    return Predictor(
        TorchRuntime(model, FP32), load_tokenizer(folder), task=TASK, truncation=truncation, pair=pair
    ).compute_logits


@pytest.fixture(scope="module")
def trained(tiny_distilbert: Path) -> Trained:
    return randomize(tiny_distilbert)


def randomize(folder: Path, *, pair: bool = False) -> Trained:
    encoder = locate_encoder(ModelConfig(name=str(folder)))
    loaded = load_with_head(encoder, TASK)
    adapted = apply_method(loaded.model, MethodConfig(r=4), newly_initialised=loaded.newly_initialised)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3, generator=generator)
    return Trained(encoder, adapted, pair)


@pytest.fixture(scope="module")
def stored(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The adapter saved once, with its proof in a fresh process. Tests do not change it."""
    layout = RunLayout(tmp_path_factory.mktemp("run"))
    with fresh_process():
        files = trained.save(layout)
    return Saved(layout, trained.record.model_copy(update={"files": files}))


@pytest.fixture
def saved(stored: Saved, tmp_path: Path) -> Saved:
    """A copy that the test may change."""
    return replace(stored, layout=RunLayout(Path(shutil.copytree(stored.layout.root, tmp_path / "run"))))


def test_files_are_those_of_plain_peft_with_their_digests(stored: Saved) -> None:
    assert sorted(stored.record.files) == sorted(ADAPTER_FILES)
    folder = stored.layout.adapter
    assert stored.record.files == {name: digest_file(folder / name) for name in ADAPTER_FILES}
    assert not (folder / "config.json").exists()
    assert [path.name for path in stored.layout.root.iterdir()] == ["adapter"]


def test_adapter_config_names_base_head_and_task(stored: Saved, trained: Trained) -> None:
    config = json.loads((stored.layout.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(trained.encoder.folder)
    assert config["revision"] is None
    assert config["modules_to_save"][:2] == ["pre_classifier", "classifier"]
    assert config["task_type"] == "SEQ_CLS"
    assert config["peft_type"] == "LORA"
    assert config["inference_mode"] is True


def test_weights_are_adapter_and_head_alone(stored: Saved, trained: Trained) -> None:
    weights = load_file(stored.layout.adapter / "adapter_model.safetensors")
    counts = stored.record.parameters
    assert sum(tensor.numel() for tensor in weights.values()) == counts.adapter + counts.head
    assert len(weights) == 2 * len(trained.adapted.targets) + 4


def test_labels_stand_in_their_own_config(stored: Saved) -> None:
    config = json.loads((stored.layout.labels / "config.json").read_text())
    assert config["id2label"] == {"0": "negative", "1": "neutral", "2": "positive"}
    assert config["label2id"] == {"negative": 0, "neutral": 1, "positive": 2}
    assert config["problem_type"] == "single_label_classification"


def test_saved_tokenizer_cuts_at_the_length_of_training(stored: Saved) -> None:
    tokenizer = AutoTokenizer.from_pretrained(stored.layout.adapter)
    assert tokenizer.model_max_length == MAX_LENGTH
    assert len(tokenizer("good film " * 50, truncation=True)["input_ids"]) == MAX_LENGTH


def test_golden_logits_are_those_of_the_trained_model(stored: Saved, trained: Trained) -> None:
    golden = GoldenRecord.read(stored.layout.golden)
    assert 1 <= len(golden.texts) < len(GOLDEN_TEXTS)
    expected = trained.compute_logits(golden.texts)
    assert np.abs(np.array(golden.logits) - expected).max() < 1e-5
    assert np.ptp(expected, axis=1).min() > 0.05


def test_golden_logits_of_a_model_for_pairs_are_those_of_plain_libraries(tiny_bert: Path, tmp_path: Path) -> None:
    trained, layout = randomize(tiny_bert, pair=True), RunLayout(tmp_path)
    trained.save(layout)
    golden = GoldenRecord.read(layout.golden)
    assert 1 <= len(golden.texts) < len(GOLDEN_PAIRS)
    assert set(golden.texts) <= set(GOLDEN_PAIRS)
    swapped = trained.compute_logits([(second, first) for first, second in golden.texts])
    assert np.abs(np.array(golden.logits) - trained.compute_logits(golden.texts)).max() < 1e-5
    assert np.abs(np.array(golden.logits) - swapped).max() > 1e-3


def test_loaded_adapter_gives_the_golden_logits(saved: Saved) -> None:
    model = load_trained(saved.layout, saved.record)
    assert not model.training
    compute = predict_with(model, saved.layout.adapter)
    assert verify_golden(saved.layout.golden, compute, TASK, runtime="torch") < 1e-5


def test_seed_of_the_fresh_head_leaves_no_trace(saved: Saved, trained: Trained) -> None:
    ours, theirs = (
        dict(m.named_parameters()) for m in (load_trained(saved.layout, saved.record), trained.adapted.model)
    )
    learned = [name for name, tensor in theirs.items() if tensor.requires_grad]
    assert learned
    assert all(torch.equal(ours[name], theirs[name]) for name in learned)


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_altered_file_is_refused(saved: Saved, name: str) -> None:
    path = saved.layout.adapter / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(RunError, match=rf"{name} was altered after training: .*run\.json"):
        load_trained(saved.layout, saved.record)


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_missing_file_is_refused(saved: Saved, name: str) -> None:
    (saved.layout.adapter / name).unlink()
    with pytest.raises(RunError, match=rf"{name} is missing"):
        load_trained(saved.layout, saved.record)


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_run_that_is_not_finished_is_refused_with_the_command_to_go_on(saved: Saved, status: str) -> None:
    with pytest.raises(RunError, match=rf"its status is '{status}'. Go on with:\n  lorafit train --resume .*run"):
        check_trained(saved.layout, saved.record.model_copy(update={"status": status}))


def test_other_base_model_is_refused(saved: Saved, tiny_distilbert: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_distilbert, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    base = saved.record.base_model.model_copy(update={"name": str(other)})
    with pytest.raises(RunError, match="is not the one this adapter was trained on: its weights have another digest"):
        load_trained(saved.layout, saved.record.model_copy(update={"base_model": base}))


def test_moved_base_model_is_taken_from_its_new_place(saved: Saved, tiny_distilbert: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny_distilbert, tmp_path / "moved")
    base = saved.record.base_model.model_copy(update={"name": str(moved)})
    model = load_trained(saved.layout, saved.record.model_copy(update={"base_model": base}))
    compute = predict_with(model, saved.layout.adapter)
    assert verify_golden(saved.layout.golden, compute, TASK, runtime="torch") < 1e-5


def truncate_weights(folder: Path) -> None:
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])


def exchange_weights(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    flipped = {name: -tensor if "classifier" in name else tensor for name, tensor in weights.items()}
    save_file(flipped, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "process", "message"),
    [
        (
            truncate_weights,
            fresh_process,
            "fresh process with plain PEFT cannot load what was just written:\n(.|\n)*Error",
        ),
        (exchange_weights, nullcontext, r"run by torch does not give its golden logits"),
    ],
)
def test_adapter_that_fails_the_proof_does_not_appear(
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    process: Callable[[], AbstractContextManager[None]],
    message: str,
) -> None:
    def write_damaged(adapted: AdaptedModel, encoder: Encoder, folder: Path, **settings: Any) -> None:
        write_trained(adapted, encoder, folder, **settings)
        damage(folder)

    monkeypatch.setattr(saving, "write_trained", write_damaged)
    with process(), pytest.raises(LorafitError, match=message):
        trained.save(RunLayout(tmp_path / "run"))
    assert list((tmp_path / "run").iterdir()) == []


def test_base_from_the_hub_is_named_with_its_commit_and_found_by_plain_peft(
    trained: Trained, hub_cache: Path, tmp_path: Path
) -> None:
    stored = hub_cache / "models--owner--tiny-distilbert"
    shutil.copytree(trained.encoder.folder, stored / "snapshots" / COMMIT)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(COMMIT)
    encoder = locate_encoder(ModelConfig(name="owner/tiny-distilbert"))
    write_trained(trained.adapted, encoder, tmp_path, max_length=128)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/tiny-distilbert", COMMIT)
    assert str(hub_cache) not in "".join(path.read_text() for path in tmp_path.rglob("*.json"))
    plain = saving.compute_plain_logits(tmp_path, ["a good film", "a bad, boring film"])
    assert np.abs(np.array(plain) - trained.compute_logits(["a good film", "a bad, boring film"])).max() < 1e-5
