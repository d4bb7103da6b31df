import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import lorafit
from lorafit.config import Config, load_config
from lorafit.data.sources import load_splits
from lorafit.errors import ConfigError, DataError, RunError, UserInputError
from lorafit.evidence import Estimate, MetricsRecord
from lorafit.experiments.diff.diff import diff
from lorafit.experiments.diff.records import DiffRecord
from lorafit.inference.export.records import ExportLayout, ExportRecord
from lorafit.runs.folder import RunLayout
from lorafit.runs.golden import GoldenRecord
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import compute_digest
from lorafit.system.progress import Silent

WriteRun = Callable[..., Path]
ZERO = Estimate(value=0, low=0, high=0)
TRUTH = ["neg", "pos"] * 100
GOOD, BAD = ("fine", "great", "lovely", "superb"), ("awful", "boring", "dull", "poor")


def flip(answers: list[str], *rows: int) -> list[str]:
    return [{"neg": "pos", "pos": "neg"}[one] if row in rows else one for row, one in enumerate(answers)]


def read_slices(record: DiffRecord, column: str) -> dict[str, tuple[int, int, int]]:
    """Rows, rows gained and rows lost of each slice of a column."""
    return {
        one.value: (one.rows, one.comparison.rows_gained, one.comparison.rows_lost)
        for one in record.slices
        if one.column == column
    }


def test_known_flips_are_counted(write_run: WriteRun) -> None:
    a = write_run("a", TRUTH, flip(TRUTH, 0, 1, 2, 3, 4))
    b = write_run("b", TRUTH, flip(TRUTH, 0, 1, 7, 9, 11, 13))
    record = diff(a, b)
    paired = record.comparison
    assert (record.rows, paired.rows_gained, paired.rows_lost) == (200, 3, 4)
    assert paired.accuracy_difference.value == -1 / 200
    assert paired.mcnemar_p_value == 1
    assert (record.negative_flips.value, record.churn.value) == (4 / 200, 7 / 200)
    assert record.negative_flips.low < 4 / 200 < record.negative_flips.high
    assert (record.a.scores.accuracy.value, record.b.scores.accuracy.value) == (195 / 200, 194 / 200)
    assert read_slices(record, "label") == {"neg": (100, 2, 0), "pos": (100, 1, 4)}
    macro_f1 = record.b.scores.macro_f1.value - record.a.scores.macro_f1.value
    assert record.macro_f1_difference.value == pytest.approx(macro_f1)
    assert record.ece_difference == pytest.approx(record.b.ece.value - record.a.ece.value)
    turned = diff(b, a)
    assert (turned.comparison.rows_gained, turned.comparison.rows_lost) == (4, 3)
    assert turned.negative_flips.value == 3 / 200


def test_a_run_against_itself_changes_nothing(write_run: WriteRun) -> None:
    run = write_run("run", TRUTH, flip(TRUTH, 5, 6))
    record = diff(run, run, gate="accuracy>=0,log_loss<=0,ece<=0,churn<=0,negative_flips<=0,slowdown<=1")
    paired = record.comparison
    differences = [paired.accuracy_difference, paired.log_loss_difference, record.macro_f1_difference]
    assert [*differences, record.mcc_difference] == [ZERO] * 4
    assert record.ece_difference == 0
    assert (paired.rows_gained, paired.rows_lost, paired.mcnemar_p_value) == (0, 0, 1)
    assert (record.negative_flips.value, record.churn.value, record.slowdown) == (0, 0, 1)
    assert all(result.holds for result in record.gates)
    assert {one.adjusted_p_value for one in record.slices} == {1}
    assert record.a == record.b
    assert DiffRecord.model_validate_json(record.model_dump_json()) == record


def test_calibration_change_is_seen_where_no_label_changes(write_run: WriteRun) -> None:
    answers = flip(TRUTH, *range(20))
    sure, calibrated = write_run("sure", TRUTH, answers, confidence=0.999), write_run("calibrated", TRUTH, answers)
    record = diff(sure, calibrated)
    assert record.churn.value == 0
    assert record.a.ece.value == pytest.approx(0.099)
    assert record.b.ece.value == pytest.approx(0)
    assert record.ece_difference == pytest.approx(-0.099)
    assert record.comparison.log_loss_difference.high < 0


def test_ten_rows_are_measured_and_called_few(write_run: WriteRun) -> None:
    a, b = write_run("a", TRUTH[:10], TRUTH[:10]), write_run("b", TRUTH[:10], flip(TRUTH[:10], 3))
    record = diff(a, b)
    assert record.rows == 10
    assert record.negative_flips.value == 0.1
    assert record.negative_flips.high > 0.4
    assert any(note.startswith("10 rows are few: the intervals are wide") for note in record.notes)
    assert not any("few" in note for note in diff(*(write_run(n, TRUTH, TRUTH) for n in "cd")).notes)


def test_a_class_without_test_rows_is_measured(write_run: WriteRun) -> None:
    truth, labels = ["neg", "pos"] * 20, ("neg", "neutral", "pos")
    a = write_run("a", truth, ["neutral", *truth[1:]], labels=labels)
    b = write_run("b", truth, [*truth[:-1], "neutral"], labels=labels)
    record = diff(a, b)
    assert (record.comparison.rows_gained, record.comparison.rows_lost) == (1, 1)
    assert list(read_slices(record, "label")) == ["neg", "pos"]
    assert [one.support for one in record.a.scores.per_class] == [20, 0, 20]


def test_a_constant_predictor_is_measured(write_run: WriteRun) -> None:
    record = diff(write_run("a", TRUTH, ["neg"] * 200), write_run("b", TRUTH, ["pos"] * 200))
    assert (record.comparison.rows_gained, record.comparison.rows_lost) == (100, 100)
    assert record.churn.value == 1
    assert (record.mcc_difference, record.macro_f1_difference.value) == (ZERO, 0)


def test_labels_in_another_order_are_aligned_by_name(write_run: WriteRun, tmp_path: Path) -> None:
    for name in ("train", "test"):
        lines = [f"{name} {row},{label}\n" for row, label in enumerate(TRUTH)]
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(lines), encoding="utf-8")
    flags = {"data.source": str(tmp_path / "train.csv"), "data.test": str(tmp_path / "test.csv")}
    rows = load_splits(load_config(flags=flags).data).test
    turned = type(rows)(rows.ids, rows.texts, 1 - rows.labels)
    answers, settings = flip(TRUTH, 0, 2, 4), {"flags": flags, "labels": ("neg", "pos")}
    a = write_run("a", TRUTH, answers, rows=rows, fingerprint=rows.fingerprint(), **settings)
    settings["labels"] = ("pos", "neg")
    b = write_run("b", TRUTH, flip(answers, 1), rows=turned, fingerprint=turned.fingerprint(), **settings)
    record = diff(a, b)
    assert record.labels == ["neg", "pos"]
    assert (record.comparison.rows_gained, record.comparison.rows_lost) == (0, 1)
    assert [one.label for one in record.b.scores.per_class] == ["neg", "pos"]


def test_other_labels_are_refused(write_run: WriteRun) -> None:
    a, b = write_run("a", TRUTH, TRUTH), write_run("b", ["bad", "good"], ["bad", "good"], labels=("bad", "good"))
    with pytest.raises(RunError, match=r"same labels apart: \S+a has \['neg', 'pos'\], \S+b has \['bad', 'good'\]"):
        diff(a, b)


def test_other_test_rows_are_refused_with_what_to_do(write_run: WriteRun) -> None:
    a, b = write_run("a", TRUTH, TRUTH), write_run("b", TRUTH, TRUTH, fingerprint="other rows")
    with pytest.raises(DataError, match=r"measured on different test rows.*lorafit diff A B DATA"):
        diff(a, b)


def test_predictions_of_other_rows_under_the_same_fingerprint_are_refused(write_run: WriteRun) -> None:
    a, b = write_run("a", TRUTH, TRUTH), write_run("b", TRUTH[::-1], TRUTH)
    with pytest.raises(RunError, match=r"are of different rows.*one was altered"):
        diff(a, b)


def test_gates_are_read_before_any_row(write_run: WriteRun) -> None:
    run = write_run("run", TRUTH, TRUTH)
    with pytest.raises(ConfigError, match="cannot limit 'acc'"):
        diff(run, run, "none.csv", gate="acc>=0")


def test_rows_are_told_apart_by_length_and_column_where_the_data_are_still_there(
    write_run: WriteRun, tmp_path: Path
) -> None:
    texts = [f"{'word ' * (20 if row % 4 < 2 else 2)}{row}" for row in range(200)]
    with (tmp_path / "test.csv").open("w", newline="") as file:
        kinds = ["book" if row < 50 else "film" for row in range(200)]
        csv.writer(file).writerows([("text", "label", "kind"), *zip(texts, TRUTH, kinds, strict=True)])
    (tmp_path / "train.csv").write_text(
        "text,label,kind\n" + "".join(f"{name} {row},{name},film\n" for name in ("neg", "pos") for row in range(20))
    )
    flags = {
        "data.source": str(tmp_path / "train.csv"),
        "data.test": str(tmp_path / "test.csv"),
        "data.slice_columns": ["kind"],
    }
    rows = load_splits(load_config(flags=flags).data).test
    settings: dict[str, Any] = {"rows": rows, "fingerprint": rows.fingerprint(), "flags": flags}
    a = write_run("a", TRUTH, flip(TRUTH, 0), **settings)
    b = write_run("b", TRUTH, flip(TRUTH, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19), **settings)
    record = diff(a, b)
    assert record.notes == []
    assert read_slices(record, "words") == {"1-15": (100, 0, 10), "16-63": (100, 1, 0)}
    assert read_slices(record, "kind") == {"film": (150, 0, 0), "book": (50, 1, 10)}
    short = next(one for one in record.slices if one.value == "1-15")
    assert short.accuracy == (1.0, 0.9)
    assert short.comparison.mcnemar_p_value == pytest.approx(2 / 2**10)
    assert short.adjusted_p_value == pytest.approx(6 * 2 / 2**10), "of six slices the clearest"
    (tmp_path / "test.csv").write_text("text,label,kind\nfine,pos,film\n")
    record = diff(a, b)
    assert [one.column for one in record.slices] == ["label", "label"]
    assert any("cannot be read as it was" in note for note in record.notes)
    (tmp_path / "train.csv").unlink()
    assert diff(a, b).notes == record.notes


def test_speeds_of_different_machines_are_called_so(write_run: WriteRun, run_record: RunRecord) -> None:
    hardware = run_record.hardware.model_copy(update={"threads": 1})
    a, b = write_run("a", TRUTH, TRUTH), write_run("b", TRUTH, TRUTH, hardware=hardware)
    (note,) = (note for note in diff(a, b).notes if "machines" in note)
    assert note == "Speeds were measured on different machines: A on c, 2 threads, fp32; B on c, 1 thread, fp32."


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


@pytest.fixture(scope="module")
def config(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Settings of a run of a second or two."""
    source = tmp_path_factory.mktemp("data") / "reviews.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *list_reviews(120)])
    flags = {
        "data.source": str(source),
        "data.test_fraction": 0.3,
        "model.name": str(build_encoder("distilbert", initializer_range=0.3)),
        "model.max_length": 32,
        "training.max_steps": 8,
        "training.learning_rate": 0.005,
        "training.precision": "fp32",
        "training.threads": 1,
        "evaluation.bootstrap_samples": 200,
        "evaluation.report": False,
        "evaluation.baseline": False,
        "evaluation.cheap_baselines": False,
    }
    return load_config(flags=flags)


@pytest.fixture(scope="module")
def trained(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs on the same rows, of which the second has hardly learned anything."""
    folder, short = tmp_path_factory.mktemp("runs"), config.model_copy(deep=True)
    short.training.max_steps = 1
    return lorafit.train(config, output=folder / "a").path, lorafit.train(short, output=folder / "b").path


def test_runs_of_the_same_data_are_compared_by_what_they_said(trained: tuple[Path, Path]) -> None:
    a, b = trained
    record = diff(a, b)
    told = [RunRecord.read(RunLayout(run).record) for run in trained]
    assert record.rows == told[0].data.splits["test"].rows == 36
    assert [side.texts_per_second for side in (record.a, record.b)] == [one.texts_per_second for one in told]
    assert record.a.parameters == told[0].parameters
    assert read_slices(record, "words")["1-15"][0] == 36
    metrics = [MetricsRecord.read(RunLayout(run).metrics).finetuned for run in trained]
    assert [record.a.scores, record.b.scores] == metrics
    assert record.churn.value > 0


def test_other_rows_are_predicted_by_both(
    trained: tuple[Path, Path], write_reviews: Callable[[str, list[tuple[str, str]]], Path]
) -> None:
    path, progress = write_reviews("more.csv", list_reviews(40, first=1000)), Recorder()
    record = diff(*trained, str(path), progress=progress)
    texts, labels = zip(*list_reviews(40, first=1000), strict=True)
    answers = [[one.label for one in lorafit.load(run, precision="fp32").predict(texts)] for run in trained]
    assert record.rows == 40
    assert record.source == str(path)
    right = [[answer == label for answer, label in zip(told, labels, strict=True)] for told in answers]
    assert [side.scores.accuracy.value for side in (record.a, record.b)] == [sum(one) / 40 for one in right]
    assert record.comparison.rows_lost == sum(was and not now for was, now in zip(*right, strict=True))
    assert progress.stages == ["measuring A", "measuring B", "comparing slices", "comparing"]


def test_the_own_data_as_other_rows_are_the_test_rows_again(trained: tuple[Path, Path], config: Config) -> None:
    kept, again = diff(*trained), diff(*trained, config.data.source)
    assert again.comparison.rows_gained == kept.comparison.rows_gained
    assert again.churn == kept.churn
    assert again.comparison.log_loss_difference.value == pytest.approx(
        kept.comparison.log_loss_difference.value, abs=1e-6
    )


def test_rows_that_a_run_was_trained_on_are_refused(trained: tuple[Path, Path], config: Config, tmp_path: Path) -> None:
    b = RunLayout(Path(shutil.copytree(trained[1], tmp_path / "b")))
    record = RunRecord.read(b.record)
    split = record.data.splits["test"].model_copy(update={"fingerprint": "cut with another seed"})
    data = record.data.model_copy(update={"splits": {**record.data.splits, "test": split}})
    record.model_copy(update={"data": data}).write(b.record)
    with pytest.raises(DataError, match="different test rows"):
        diff(trained[0], b.root)
    with pytest.raises(DataError, match=r"\S+/b was trained on \S+reviews\.csv, and these rows are not its test rows"):
        diff(trained[0], b.root, config.data.source)


def test_a_link_to_the_training_file_is_the_training_file(
    trained: tuple[Path, Path], config: Config, tmp_path: Path
) -> None:
    (tmp_path / "link.csv").symlink_to(config.data.source)
    record = diff(*trained, str(tmp_path / "link.csv"))
    assert record.rows == 36, "the test rows, not those of training"


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("side", [0, 1])
def test_the_validation_file_of_either_run_is_refused(
    trained: tuple[Path, Path],
    tmp_path: Path,
    write_reviews: Callable[[str, list[tuple[str, str]]], Path],
    linked: bool,
    side: int,
) -> None:
    data = write_reviews("validation.csv", list_reviews(40, first=1000))
    layout, runs = RunLayout(Path(shutil.copytree(trained[side], tmp_path / "run"))), list(trained)
    runs[side] = layout.root
    layout.config.write_text(load_config(layout.config, flags={"data.validation": str(data)}).to_yaml())
    (tmp_path / "link.csv").symlink_to(data)
    with pytest.raises(DataError, match=r"is the validation file of \S+run: its rows chose and calibrated"):
        diff(*runs, str(tmp_path / "link.csv") if linked else str(data))


def test_a_run_with_its_classes_turned_round_is_the_same(
    trained: tuple[Path, Path],
    tmp_path: Path,
    config: Config,
    write_reviews: Callable[[str, list[tuple[str, str]]], Path],
) -> None:
    turned = turn_classes_round(trained[0], tmp_path / "turned")
    assert lorafit.load(turned).labels == ("pos", "neg")
    for data in (str(write_reviews("more.csv", list_reviews(40, first=1000))), config.data.source):
        record = diff(trained[0], turned, data)
        assert record.labels == ["neg", "pos"]
        assert record.churn.value == 0
        assert record.comparison.log_loss_difference.value == pytest.approx(0, abs=1e-6)


def turn_classes_round(run: Path, target: Path) -> Path:
    """Copy a run of two classes and exchange them everywhere: in the head, the golden logits, labels and record."""
    layout = RunLayout(Path(shutil.copytree(run, target)))
    record, weights = RunRecord.read(layout.record), load_file(layout.adapter / "adapter_model.safetensors")
    heads = {name: np.ascontiguousarray(value[::-1]) for name, value in weights.items() if ".classifier." in name}
    assert len(heads) == 2
    save_file({**weights, **heads}, layout.adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    labels = json.loads((layout.labels / "config.json").read_text())
    labels |= {"id2label": {"0": "pos", "1": "neg"}, "label2id": {"pos": 0, "neg": 1}}
    (layout.labels / "config.json").write_text(json.dumps(labels))
    golden = GoldenRecord.read(layout.golden)
    golden.model_copy(update={"logits": [row[::-1] for row in golden.logits]}).write(layout.golden)
    rows = load_splits(load_config(layout.config).data).test
    split = record.data.splits["test"].model_copy(
        update={"fingerprint": type(rows)(rows.ids, rows.texts, 1 - rows.labels).fingerprint()}
    )
    changes = {
        "labels": ["pos", "neg"],
        "files": {name: compute_digest(layout.adapter / name) for name in record.files},
        "data": record.data.model_copy(update={"splits": {**record.data.splits, "test": split}}),
    }
    record.model_copy(update=changes).write(layout.record)
    return layout.root


@pytest.fixture(scope="module")
def exported(trained: tuple[Path, Path]) -> Path:
    return lorafit.export(trained[0], int8=True).path


def test_an_exported_model_is_compared_with_its_run(trained: tuple[Path, Path], exported: Path, config: Config) -> None:
    record = diff(trained[0], exported, gate="accuracy>=-0.1,churn<=0.1")
    kept = diff(*trained)
    assert (record.rows, record.source, record.a) == (kept.rows, kept.source, kept.a)
    assert (record.b.exported, record.b.method, record.b.parameters) == ("int8", "lora", record.a.parameters)
    assert all(result.holds for result in record.gates)
    assert 0 < abs(record.comparison.log_loss_difference.value) < 0.05
    rows = load_splits(config.data).test
    truth, said = rows.labels, lorafit.load(exported).predict_proba(rows.texts)
    assert record.b.scores.accuracy.value == (said.argmax(axis=1) == truth).mean()
    assert record.b.scores.log_loss.value == pytest.approx(-np.log(said[np.arange(len(truth)), truth]).mean())
    assert record.b.texts_per_second == ExportRecord.read(ExportLayout(exported).record).speed.texts_per_second > 0
    assert any("speed of B was measured when it was exported" in note for note in record.notes)
    turned = diff(exported, trained[0])
    assert turned.comparison.log_loss_difference.value == pytest.approx(-record.comparison.log_loss_difference.value)
    assert turned.a.scores == record.b.scores


def test_exported_models_are_compared_on_rows_that_they_predict_now(
    trained: tuple[Path, Path], exported: Path, write_reviews: Callable[[str, list[tuple[str, str]]], Path]
) -> None:
    with pytest.raises(UserInputError, match=r"do not hold what they said of their test rows.*lorafit diff A B DATA"):
        diff(exported, exported)
    path = write_reviews("more.csv", list_reviews(40, first=1000))
    record = diff(exported, exported, str(path))
    assert (record.rows, record.churn.value, record.a.exported) == (40, 0, "int8")
    assert diff(trained[1], exported, str(path)).b.scores.accuracy.value == record.b.scores.accuracy.value


def test_rows_that_an_exported_model_was_trained_on_are_refused(
    exported: Path, config: Config, write_reviews: Callable[[str, list[tuple[str, str]]], Path], tmp_path: Path
) -> None:
    moved = shutil.copy(config.data.source, tmp_path / "elsewhere.csv")
    for source in (config.data.source, str(moved)):
        with pytest.raises(DataError, match=r"was trained on .* and these rows are not its test rows"):
            diff(exported, exported, source)
    held = write_reviews("validation.csv", list_reviews(40, first=2000))
    own, other = config.model_copy(deep=True), write_reviews("other.csv", list_reviews(40, first=3000))
    own.data.validation, own.training.max_steps = str(held), 1
    chosen = lorafit.export(lorafit.train(own, output=tmp_path / "run").path).path
    assert diff(chosen, chosen, str(other)).rows == 40
    for file in (held, shutil.copy(held, tmp_path / "held.csv")):
        with pytest.raises(DataError, match="is the validation file of"):
            diff(chosen, chosen, str(file))


def test_an_exported_model_cannot_predict_test_rows_that_have_changed(
    trained: tuple[Path, Path], exported: Path, config: Config, tmp_path: Path
) -> None:
    source = tmp_path / "reviews.csv"
    source.write_text("\n".join(Path(config.data.source).read_text().splitlines()[:-30]) + "\n")
    with pytest.raises(DataError, match=r"has changed since training.*lorafit diff A B DATA"):
        diff(trained[0], exported, flags={"data.source": str(source)})
    with pytest.raises(DataError, match=r"cannot predict the run's test rows: .*gone\.csv.*lorafit diff A B DATA"):
        diff(trained[0], exported, flags={"data.source": str(tmp_path / "gone.csv")})


def test_an_exported_model_without_a_measured_speed_cannot_be_held_to_one(
    trained: tuple[Path, Path], exported: Path, tmp_path: Path
) -> None:
    copy = ExportLayout(Path(shutil.copytree(exported, tmp_path / "copy")))
    ExportRecord.read(copy.record).model_copy(update={"speed": None}).write(copy.record)
    record = diff(trained[0], copy.root)
    assert (record.b.texts_per_second, record.slowdown) == (None, None)
    assert not any("speed" in note.lower() for note in record.notes)
    with pytest.raises(RunError, match="slowdown"):
        diff(trained[0], copy.root, gate="slowdown<=2")
