"""Rows that two models predict now: runs, and exported models."""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas
import pytest
from safetensors.numpy import load_file, save_file

import lorafit
from lorafit.config import Config, load_config
from lorafit.data.loading import load_splits
from lorafit.data.rows import Split
from lorafit.data.sources import identify_source
from lorafit.errors import ConfigError, DataError, RunError, UserInputError
from lorafit.experiments.diff.diff import diff
from lorafit.inference.export.records import ExportLayout, ExportRecord
from lorafit.runs.folder import RunLayout
from lorafit.runs.golden import GoldenRecord
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import compute_digest
from lorafit.system.progress import Silent

Alter = Callable[[np.ndarray], np.ndarray]
GOOD, BAD = ("fine", "great", "lovely", "superb"), ("awful", "boring", "dull", "poor")


class Recorder(Silent):
    """A progress that remembers the stages."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def start(self, stage: str, **_: object) -> None:
        self.stages.append(stage)


def list_reviews(count: int, *, first: int = 0) -> list[tuple[str, str]]:
    return [
        (f"the film was {(BAD, GOOD)[row % 2][row // 2 % 4]} {row}", ("neg", "pos")[row % 2])
        for row in range(first, first + count)
    ]


def write_reviews(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


@pytest.fixture(scope="module")
def trained(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a second or two, not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    flags = {
        "data.source": str(write_reviews(folder / "reviews.csv", list_reviews(120))),
        "data.validation_fraction": 0.1,
        "data.test_fraction": 0.3,
        "model.name": str(build_encoder("distilbert", initializer_range=0.3)),
        "model.max_length": 32,
        "training.max_steps": 8,
        "training.learning_rate": 0.005,
        "training.precision": "fp32",
        "training.threads": 1,
        "evaluation.bootstrap_samples": 200,
        "evaluation.report": False,
        "evaluation.before": False,
        "evaluation.baselines": False,
    }
    return lorafit.train(load_config(flags=flags), output=folder / "run").path


@pytest.fixture(scope="module")
def config(trained: Path) -> Config:
    return load_config(RunLayout(trained).config)


@pytest.fixture(scope="module")
def other(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, but for a head that favours the first class."""
    favour = np.array([1.0, 0.0], dtype=np.float32)
    return alter_head(
        trained,
        tmp_path_factory.mktemp("other") / "run",
        head=lambda values: values + favour if values.ndim == 1 else values,
        logits=lambda values: values + favour,
    )


def alter_head(run: Path, target: Path, *, head: Alter, logits: Alter) -> Path:
    """Copy a run and change weights and bias of its head, and the golden logits with them."""
    layout = RunLayout(Path(shutil.copytree(run, target)))
    weights = load_file(layout.adapter / "adapter_model.safetensors")
    heads = {name: np.ascontiguousarray(head(value)) for name, value in weights.items() if ".classifier." in name}
    assert len(heads) == 2
    save_file({**weights, **heads}, layout.adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    golden = GoldenRecord.read(layout.golden)
    golden.model_copy(update={"logits": logits(np.array(golden.logits)).tolist()}).write(layout.golden)
    change_record(layout)
    return layout.root


def change_record(layout: RunLayout, fingerprint: str | None = None, **changes: object) -> None:
    """Write a run's record anew: digests of its files as they are, fingerprint of its test rows, and what is given."""
    record = RunRecord.read(layout.record)
    files = {name: compute_digest(layout.adapter / name) for name in record.files}
    split = record.data.splits["test"]
    split = split.model_copy(update={"fingerprint": fingerprint or split.fingerprint})
    data = record.data.model_copy(update={"splits": {**record.data.splits, "test": split}})
    record.model_copy(update={"files": files, "data": data, **changes}).write(layout.record)


@pytest.fixture
def more(tmp_path: Path) -> str:
    """Rows that no run has seen."""
    return str(write_reviews(tmp_path / "more.csv", list_reviews(40, first=1000)))


def test_other_rows_are_predicted_by_both(trained: Path, other: Path, more: str) -> None:
    progress = Recorder()
    record = diff(trained, other, more, progress=progress)
    texts, labels = zip(*list_reviews(40, first=1000), strict=True)
    guesses = [[one.label for one in lorafit.load(run, precision="fp32").predict(texts)] for run in (trained, other)]
    right = [[guess == label for guess, label in zip(told, labels, strict=True)] for told in guesses]
    assert (record.rows, record.source) == (40, more)
    assert [side.scores.metrics["accuracy"].value for side in (record.a, record.b)] == [sum(one) / 40 for one in right]
    assert record.comparison.rows_broken == sum(was and not now for was, now in zip(*right, strict=True)) > 0
    assert progress.stages == ["measuring A", "measuring B", "comparing slices", "comparing"]


def test_other_rows_may_be_a_table(trained: Path, other: Path, more: str) -> None:
    kept = diff(trained, other, more)
    asked = diff(trained, other, pandas.read_csv(more))
    assert asked.model_copy(update={"source": kept.source, "a": kept.a, "b": kept.b}) == kept


def test_other_rows_of_a_group_are_resampled_together(trained: Path, other: Path, tmp_path: Path) -> None:
    lines = [f"{text},{label},{text[-1]}" for text, label in list_reviews(40)]
    path = tmp_path / "more.csv"
    path.write_text("\n".join(["text,label,author", *lines]))
    alone, together = (diff(trained, other, str(path), flags={"data.group_column": one}) for one in (None, "author"))
    assert (alone.comparison.grouped, together.comparison.grouped) == (False, True)
    assert together.a.scores.metrics["accuracy"].value == alone.a.scores.metrics["accuracy"].value
    with pytest.raises(ConfigError, match="--group-column author is for other rows: lorafit diff A B DATA"):
        diff(trained, other, flags={"data.group_column": "author"})


def test_the_own_data_as_other_rows_are_the_test_rows_again(trained: Path, config: Config, tmp_path: Path) -> None:
    """The training file under another name is the training file, too."""
    link = tmp_path / "link.csv"
    link.symlink_to(config.data.source)
    kept = diff(trained, trained)
    for source in (config.data.source, str(link)):
        again = diff(trained, trained, source)
        assert (again.rows, again.diff_metrics["churn"].value) == (36, 0)
        for name, estimate in kept.a.scores.metrics.items():
            assert again.a.scores.metrics[name].value == pytest.approx(estimate.value, abs=1e-6)


def test_rows_that_a_run_was_trained_on_are_refused(trained: Path, config: Config, tmp_path: Path) -> None:
    b = RunLayout(Path(shutil.copytree(trained, tmp_path / "b")))
    change_record(b, fingerprint="cut with another seed")
    with pytest.raises(DataError, match="different test rows"):
        diff(trained, b.root)
    with pytest.raises(DataError, match=r"\S+/b was trained on \S+reviews\.csv, and these rows are not its test rows"):
        diff(trained, b.root, config.data.source)


def test_training_texts_among_other_rows_are_told(trained: Path, other: Path, config: Config, tmp_path: Path) -> None:
    train = load_splits(config.data).train
    seen = list(zip(train.texts, ("neg", "neg", "pos", "pos"), strict=False))
    rows = write_reviews(tmp_path / "rows.csv", [*seen, *list_reviews(4, first=1000)])
    told = [note for note in diff(trained, other, data=str(rows)).notes if "was trained on" in note]
    assert any(f"{trained} was trained on 4 of these 8 texts" in note for note in told)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("side", [0, 1])
def test_the_validation_file_of_either_run_is_refused(
    trained: Path, sign_run: Callable[[Path], None], tmp_path: Path, more: str, linked: bool, side: int
) -> None:
    layout, runs = RunLayout(Path(shutil.copytree(trained, tmp_path / "run"))), [trained, trained]
    runs[side] = layout.root
    layout.config.write_text(load_config(layout.config, flags={"data.validation": more}).to_yaml())
    sign_run(layout.root)
    (tmp_path / "link.csv").symlink_to(more)
    with pytest.raises(DataError, match=r"is the validation file of \S+run: its rows chose and calibrated"):
        diff(*runs, str(tmp_path / "link.csv") if linked else more)


def test_a_run_with_its_classes_turned_round_is_the_same(
    trained: Path, tmp_path: Path, config: Config, more: str
) -> None:
    turned = RunLayout(
        alter_head(trained, tmp_path / "turned", head=lambda one: one[::-1], logits=lambda one: one[:, ::-1])
    )
    labels = json.loads((turned.labels / "config.json").read_text())
    labels |= {"id2label": {"0": "pos", "1": "neg"}, "label2id": {"pos": 0, "neg": 1}}
    (turned.labels / "config.json").write_text(json.dumps(labels))
    rows = load_splits(config.data).test
    change_record(turned, fingerprint=Split(rows.ids, rows.texts, 1 - rows.y).fingerprint(), labels=["pos", "neg"])
    assert lorafit.load(turned.root).labels == ("pos", "neg")
    for data in (more, config.data.source):
        record = diff(trained, turned.root, data)
        assert record.labels == ["neg", "pos"]
        assert record.diff_metrics["churn"].value == 0
        assert record.comparison.differences["log_loss"].value == pytest.approx(0, abs=1e-6)


def test_rows_of_a_test_file_are_named_by_it(trained: Path, config: Config, tmp_path: Path) -> None:
    test = write_reviews(tmp_path / "test.csv", [(f"{text} again", label) for text, label in list_reviews(20)])
    other = config.model_copy(deep=True)
    other.data.test = str(test)
    run = lorafit.train(other, output=tmp_path / "run").path
    assert diff(run, run).source == str(test)


# Exported models


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    return lorafit.export(trained, int8=True).path


def test_an_exported_model_is_compared_with_its_run(trained: Path, exported: Path, config: Config) -> None:
    record, kept = diff(trained, exported, gate="accuracy>=-0.1,churn<=0.1"), diff(trained, trained)
    assert (record.rows, record.source, record.a) == (kept.rows, kept.source, kept.a)
    assert (record.b.exported, record.b.method, record.b.parameters) == ("int8", "lora", record.a.parameters)
    assert all(result.holds for result in record.gates)
    assert 0 < abs(record.comparison.differences["log_loss"].value) < 0.05
    rows = load_splits(config.data).test
    values = lorafit.load(exported).predict_proba(rows.texts)
    assert record.b.scores.metrics["accuracy"].value == (values.argmax(axis=1) == rows.y).mean()
    loss = -np.log(values[np.arange(len(rows)), rows.y]).mean()
    assert record.b.scores.metrics["log_loss"].value == pytest.approx(loss)
    speed = ExportRecord.read(ExportLayout(exported).record).speed
    assert speed is not None
    assert record.b.texts_per_second == speed.texts_per_second > 0
    assert any("speed of B was measured when it was exported" in note for note in record.notes)
    turned = diff(exported, trained)
    assert turned.comparison.differences["log_loss"].value == -record.comparison.differences["log_loss"].value
    assert turned.a.scores == record.b.scores


def test_an_export_for_openvino_is_compared_with_one_for_onnxruntime(
    trained: Path, exported: Path, tmp_path: Path
) -> None:
    other = lorafit.export(trained, runtime="openvino", output=tmp_path / "openvino").path
    record = diff(exported, other, str(write_reviews(tmp_path / "many.csv", list_reviews(400, first=1000))))
    assert (record.a.exported, record.a.engine) == ("int8", "onnxruntime")
    assert (record.b.exported, record.b.engine) == ("bf16", "openvino")
    assert record.diff_metrics["churn"].value < 0.1


def test_exported_models_are_compared_on_rows_that_they_predict_now(trained: Path, exported: Path, more: str) -> None:
    with pytest.raises(UserInputError, match=r"no predictions of their test rows\..*lorafit diff A B DATA"):
        diff(exported, exported)
    record = diff(exported, exported, more)
    assert (record.rows, record.diff_metrics["churn"].value, record.a.exported) == (40, 0, "int8")
    other = diff(trained, exported, more)
    assert other.b.scores.confusion_matrix == record.b.scores.confusion_matrix


def test_rows_that_an_exported_model_was_trained_or_chosen_on_are_refused(
    exported: Path, config: Config, more: str, tmp_path: Path
) -> None:
    """They are known by what is in them, wherever they lie."""
    for source in (config.data.source, shutil.copy(config.data.source, tmp_path / "elsewhere.csv")):
        with pytest.raises(DataError, match=r"was trained on .* and these rows are not its test rows"):
            diff(exported, exported, str(source))
    chosen = ExportLayout(Path(shutil.copytree(exported, tmp_path / "chosen")))
    record = ExportRecord.read(chosen.record)
    held = {**record.data, "validation": identify_source(more)}
    record.model_copy(update={"data": held}).write(chosen.record)
    for file in (more, shutil.copy(more, tmp_path / "held.csv")):
        with pytest.raises(DataError, match="is the validation file of"):
            diff(exported, chosen.root, str(file))
    assert (
        diff(exported, chosen.root, str(write_reviews(tmp_path / "new.csv", list_reviews(40, first=3000)))).rows == 40
    )


def test_an_exported_model_cannot_predict_test_rows_that_have_changed(
    trained: Path, exported: Path, config: Config, tmp_path: Path
) -> None:
    source = tmp_path / "reviews.csv"
    source.write_text("\n".join(Path(config.data.source).read_text().splitlines()[:-30]) + "\n")
    with pytest.raises(DataError, match=r"has changed since training.*lorafit diff A B DATA"):
        diff(trained, exported, flags={"data.source": str(source)})
    with pytest.raises(DataError, match=r"cannot predict the run's test rows: .*gone\.csv.*\n.*lorafit diff A B DATA"):
        diff(trained, exported, flags={"data.source": str(tmp_path / "gone.csv")})


def test_an_exported_model_without_a_measured_speed_cannot_be_held_to_one(
    trained: Path, exported: Path, tmp_path: Path
) -> None:
    copy = ExportLayout(Path(shutil.copytree(exported, tmp_path / "copy")))
    ExportRecord.read(copy.record).model_copy(update={"speed": None}).write(copy.record)
    record = diff(trained, copy.root)
    assert (record.b.texts_per_second, record.slowdown) == (None, None)
    assert not any("speed" in note.lower() for note in record.notes)
    with pytest.raises(RunError, match="slowdown"):
        diff(trained, copy.root, gate="slowdown<=2")
