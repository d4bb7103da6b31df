"""What a run begins from, and that it can be saved is known before it is trained."""

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lorafit
from lorafit.cli import main
from lorafit.config import MethodConfig, ModelConfig, load_config
from lorafit.errors import ConfigError, LorafitError, NetworkUnavailableError, RunError, UserInputError
from lorafit.inference.predictor import Predictor
from lorafit.models.adaptation import AdaptedModel, apply_method, count_parameters
from lorafit.models.load import Encoder, load_tokenizer, load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.runs import saving
from lorafit.runs.bases import locate_base
from lorafit.runs.folder import RunLayout
from lorafit.runs.golden import GOLDEN_PRECISION, GoldenRecord
from lorafit.runs.records import RunRecord
from lorafit.runs.saving import (
    is_proven,
    load_trained,
    rehearse_saving,
    save_trained,
    write_trained,
)
from lorafit.system.digests import digest_file
from lorafit.system.text import Text
from lorafit.tasks.base import Task
from lorafit.tasks.registry import build_task

TASKS = {
    "other number": build_task("single_label", ("bad", "fair", "good")),
    "number": build_task("regression", ("value",)),
}
FIVE = build_task("single_label", [f"{count} stars" for count in range(1, 6)])


class Untrained:
    """A model before training, on a base that was fine-tuned with five labels."""

    def __init__(self, folder: Path, task: Task, record: RunRecord) -> None:
        self.encoder = locate_encoder(ModelConfig(name=str(folder)))
        loaded = load_with_head(self.encoder, task)
        self.adapted = apply_method(loaded.model, MethodConfig(r=4), newly_initialised=loaded.newly_initialised)
        self.record = record.model_copy(
            update={
                "task": task.name,
                "labels": list(task.label_names),
                "base_model": self.encoder.record("distilbert"),
                "parameters": count_parameters(self.adapted),
            }
        )

    def compute_logits(self, texts: Sequence[Text]) -> np.ndarray:
        runtime = TorchRuntime(self.adapted.model, GOLDEN_PRECISION)
        return Predictor.for_record(self.record, runtime, load_tokenizer(self.encoder.folder)).compute_logits(texts)

    def rehearse(self) -> None:
        with rehearse_saving(self.adapted, self.encoder, self.record, compute_logits=self.compute_logits) as check:
            check()


@pytest.fixture
def five_stars(tiny_distilbert: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(tiny_distilbert, tmp_path / "five"))
    load_with_head(locate_encoder(ModelConfig(name=str(folder))), FIVE).model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("task", TASKS)
def test_base_with_another_head_is_trained_saved_and_opened(
    five_stars: Path, run_record: RunRecord, tmp_path: Path, task: str
) -> None:
    one = Untrained(five_stars, TASKS[task], run_record)
    layout = RunLayout(tmp_path / "run")
    files = save_trained(one.adapted, one.encoder, layout, one.record, compute_logits=one.compute_logits)
    golden = GoldenRecord.read(layout.golden)
    assert np.array(golden.logits).shape == (len(golden.texts), len(TASKS[task].output_names))
    again = load_trained(layout, one.record.model_copy(update={"files": files}))
    assert again.config.id2label == TASKS[task].id2label


def test_rehearsal_leaves_the_model_as_it_is(five_stars: Path, run_record: RunRecord) -> None:
    one = Untrained(five_stars, TASKS["other number"], run_record)
    before = {name: value.clone() for name, value in one.adapted.model.state_dict().items()}
    one.rehearse()
    after = one.adapted.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def lose_the_adapter(folder: Path) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    kept = {name: one for name, one in weights.items() if "lora_" not in name}
    save_file(kept, folder / "adapter_model.safetensors", {"format": "pt"})


def lose_the_labels(folder: Path) -> None:
    shutil.rmtree(folder / "labels")


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lose_the_adapter, "does not give its golden logits"), (lose_the_labels, "fresh process with plain PEFT cannot")],
)
def test_what_could_not_be_opened_is_not_trained(
    five_stars: Path,
    run_record: RunRecord,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    def write_damaged(adapted: AdaptedModel, encoder: Encoder, folder: Path, **settings: Any) -> None:
        write_trained(adapted, encoder, folder, **settings)
        damage(folder)

    def compute_in_process(folder: Path, texts: list[str]) -> list[list[float]]:
        try:
            return plain(folder, texts)
        except AssertionError as error:  # as the tests' own server tells it
            raise LorafitError(f"A fresh process with plain PEFT cannot load: {error}") from error

    plain = saving.compute_plain_logits
    monkeypatch.setattr(saving, "compute_plain_logits", compute_in_process)
    monkeypatch.setattr(saving, "write_trained", write_damaged)
    one = Untrained(five_stars, TASKS["other number"], run_record)
    with pytest.raises(
        ConfigError, match=rf"^Nothing was trained, because no other tool could .*five: (.|\n)*{message}"
    ):
        one.rehearse()


def test_own_encoder_with_a_known_method_is_not_rehearsed() -> None:
    builtin, local = ModelConfig(name="builtin:distil-minilm"), ModelConfig(name="/models/mine")
    assert is_proven(builtin, MethodConfig(name="lora"))
    assert not is_proven(builtin, MethodConfig(name="lora", options={"use_dora": True}))
    assert not is_proven(local, MethodConfig(name="lora"))


def test_run_that_cannot_be_saved_ends_before_training(
    trained_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(trained_of("single_label") / "config.yaml")

    def refuse(folder: Path, texts: list[str]) -> list[list[float]]:
        raise LorafitError("no")

    monkeypatch.setattr(saving, "compute_plain_logits", refuse)
    with pytest.raises(ConfigError, match="Nothing was trained"):
        lorafit.train(config, output=tmp_path / "run")
    record = RunRecord.read(tmp_path / "run" / "run.json")
    assert (record.status, list(record.seconds)) == ("failed", ["save check"])


@pytest.mark.parametrize("part", [".", "adapter"])
def test_training_goes_on_from_a_run(trained_of: Callable[[str], Path], part: str) -> None:
    run = trained_of("single_label")
    encoder = locate_base(ModelConfig(name=str(run / part)))
    base = RunRecord.read(run / "run.json").base_model.name
    assert encoder == Encoder(
        str(run),
        encoder.folder,
        str(encoder.folder),
        None,
        (f"training goes on from the run {run}, trained on {base}",),
    )
    loaded = load_with_head(encoder, build_task("single_label", ("neg", "pos")))
    assert (loaded.newly_initialised, loaded.notes) == ((), ())
    golden = GoldenRecord.read(RunLayout(run).golden)
    record = RunRecord.read(run / "run.json")
    runtime = TorchRuntime(loaded.model, GOLDEN_PRECISION)
    logits = Predictor.for_record(record, runtime, load_tokenizer(encoder.folder)).compute_logits(golden.texts)
    assert np.abs(logits - np.array(golden.logits)).max() < 1e-4


def test_second_run_outlives_the_first(
    trained_of: Callable[[str], Path], train_run: Callable[..., Path], tmp_path: Path
) -> None:
    first = Path(shutil.copytree(trained_of("single_label"), tmp_path / "first"))
    (tmp_path / "data").mkdir()
    second = train_run("single_label", "training.max_steps=2", encoder=first, folder=tmp_path / "data")
    assert RunRecord.read(second / "run.json").base_model.name == str(first)
    shutil.rmtree(first)
    before = lorafit.load(second).predict(["superb film hours"])
    third = locate_base(ModelConfig(name=str(second)))
    task = build_task("single_label", ("neg", "pos"))
    assert load_with_head(third, task).newly_initialised == ()
    assert before


def test_run_that_is_not_finished_is_no_base(trained_of: Callable[[str], Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained_of("single_label"), tmp_path / "run"))
    record = RunRecord.read(run / "run.json")
    record.model_copy(update={"status": "interrupted"}).write(run / "run.json")
    with pytest.raises(RunError, match=r"has no finished model: its status is 'interrupted'\. Go on with:"):
        locate_base(ModelConfig(name=str(run)))


def test_altered_run_is_no_base(trained_of: Callable[[str], Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained_of("single_label"), tmp_path / "run"))
    lose_the_adapter(run / "adapter")
    with pytest.raises(RunError, match=r"adapter_model\.safetensors was altered after training"):
        locate_base(ModelConfig(name=str(run / "adapter")))


@pytest.fixture
def moved(trained_of: Callable[[str], Path], edit_record: Callable[..., None], tmp_path: Path) -> tuple[Path, Path]:
    """A run whose base is no longer where the record says, and where it is now."""
    run = Path(shutil.copytree(trained_of("single_label"), tmp_path / "run"))
    base = Path(shutil.copytree(RunRecord.read(run / "run.json").base_model.name, tmp_path / "moved"))
    rename_base(run, edit_record, str(tmp_path / "gone"))
    return run, base


def rename_base(run: Path, edit_record: Callable[..., None], name: str) -> None:
    edit_record(run / "run.json", lambda fields: fields["base_model"].update(name=name))
    config = (run / "config.yaml").read_text(encoding="utf-8")
    before = load_config(run / "config.yaml").model.name
    (run / "config.yaml").write_text(config.replace(before, name), encoding="utf-8")
    edit_record(
        run / "run.json", lambda fields: fields["evidence"].update({"config.yaml": digest_file(run / "config.yaml")})
    )


def test_base_is_taken_from_where_it_lies_now(moved: tuple[Path, Path], trained_of: Callable[[str], Path]) -> None:
    run, base = moved
    text = ["superb film hours"]
    wanted = lorafit.load(trained_of("single_label")).predict(text)
    predictor = lorafit.load(run, base=base)
    assert predictor.predict(text) == wanted
    assert copy.copy(predictor).predict(text) == wanted


def test_missing_base_is_said_with_the_option_that_gives_it(moved: tuple[Path, Path]) -> None:
    run, base = moved
    with pytest.raises(ConfigError, match=r"no folder '.*gone'.*If that lies elsewhere now, .*--base FOLDER") as caught:
        lorafit.load(run)
    assert "--model" not in str(caught.value)
    assert "model.name" not in str(caught.value)
    with pytest.raises(UserInputError, match=rf"^There is no folder {base}-2, where the base should be\.$"):
        lorafit.load(run, base=f"{base}-2")


def test_other_base_than_that_of_training_is_refused(moved: tuple[Path, Path]) -> None:
    run, base = moved
    weights = load_file(base / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match=rf"{base} is not it: its weights have another digest\."):
        lorafit.load(run, base=base)


@pytest.mark.parametrize(
    "command",
    ["predict", *(pytest.param(name, marks=pytest.mark.slow) for name in ("explain", "evaluate", "export", "diff"))],
)
def test_commands_take_the_base(
    moved: tuple[Path, Path], command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, base = moved
    more: dict[str, list[str]] = {
        "predict": ["superb film", "--runtime", "torch"],  # a graph that was kept needs no base
        "explain": ["superb film"],
        "evaluate": [],
        "export": ["--merged", "--output", str(tmp_path / "merged")],
        "diff": [str(run), str(load_config(run / "config.yaml").data.source)],
    }
    words = [command, str(run), *more[command]]
    if command != "diff":
        with pytest.raises(SystemExit) as failed:
            main(words)
        assert failed.value.code == 2
        assert "--base FOLDER" in capsys.readouterr().err
    with pytest.raises(SystemExit) as done:
        main([*words, "--base", str(base)])
    assert done.value.code == 0, capsys.readouterr().err


def test_base_of_the_hub_that_is_not_here_is_asked_for_in_words_that_predict_takes(
    moved: tuple[Path, Path], edit_record: Callable[..., None]
) -> None:
    run, _ = moved
    rename_base(run, edit_record, "owner/of-the-hub")
    with pytest.raises(NetworkUnavailableError, match=r"Go online once.*--base FOLDER") as caught:
        lorafit.load(run)
    assert "--model" not in str(caught.value)


@pytest.mark.slow  # trains once more, and a run to its end
def test_run_is_resumed_and_repeated_on_a_base_that_has_moved(
    moved: tuple[Path, Path],
    edit_record: Callable[..., None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, base = moved
    with pytest.raises(SystemExit) as failed:
        main(["reproduce", str(run), "--output", str(tmp_path / "again")])
    assert failed.value.code == 2
    assert "--base FOLDER" in capsys.readouterr().err
    with pytest.raises(SystemExit) as done:
        main(["reproduce", str(run), "--output", str(tmp_path / "again"), "--base", str(base)])
    assert done.value.code == 0, capsys.readouterr().err
    edit_record(run / "run.json", status="interrupted")
    with pytest.raises(SystemExit) as resumed:
        main(["train", "--resume", str(run), "--base", str(base)])
    assert resumed.value.code == 0, capsys.readouterr().err
