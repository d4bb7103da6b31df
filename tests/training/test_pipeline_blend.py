"""A run whose predictions are a blend, from training to its export."""

import csv
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

import lorafit
from lorafit.config import Config, TrainingConfig, load_config
from lorafit.data.loading import load_splits
from lorafit.data.rows import Split
from lorafit.errors import ConfigError, RunError
from lorafit.experiments.diff.diff import diff
from lorafit.inference.explanation import explain
from lorafit.inference.export.export import export
from lorafit.inference.export.records import ExportLayout, ExportRecord
from lorafit.runs.blends import BlendFile
from lorafit.runs.folder import BLEND_FILE, BLEND_FILES, WORDS_FILE, RunLayout
from lorafit.runs.predictions import read_predictions
from lorafit.runs.records import RunRecord
from lorafit.tasks.baselines import ENCODER
from lorafit.training.evaluation import evaluate
from lorafit.training.pipeline import Run

WORDS = {"neg": ("awful", "boring", "dull", "poor"), "pos": ("fine", "great", "lovely", "superb")}


def write_reviews(path: Path, rows: int) -> Path:
    """Rows whose label a word tells, but for one in ten."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for row in range(rows):
            label, other = ("neg", "pos")[:: 1 if row % 2 else -1]
            word = WORDS[other if row % 10 == 0 else label][row // 2 % 4]
            writer.writerow([f"{word} film of number {row}", label])
    return path


@pytest.fixture(scope="module")
def config(build_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Config:
    flags = {
        "data.source": str(write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv", 500)),
        "data.test_fraction": 0.2,
        "data.validation_fraction": 0.4,
        "model.name": str(build_encoder("distilbert", initializer_range=0.1)),
        "model.max_length": 16,
        "training.max_steps": 2,
        "training.threads": 1,
        "evaluation.before": False,
        "evaluation.report": False,
        "evaluation.bootstrap_samples": 100,
    }
    return load_config(flags=flags)


@pytest.fixture(scope="module")
def run(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return lorafit.train(config, output=tmp_path_factory.mktemp("runs") / "blended")


@pytest.fixture(scope="module")
def rows(config: Config) -> Split:
    return load_splits(config.data).test


@pytest.fixture(scope="module")
def exported(run: Run) -> Path:
    return export(run.path).path


def test_blend_is_kept_where_words_know_more(run: Run) -> None:
    blend, layout = run.record.blend, RunLayout(run.path)
    assert blend is not None
    assert (blend.kept, blend.members) == (True, ["nb_svm"])
    assert set(BLEND_FILES) <= run.record.files.keys()
    assert RunRecord.read(layout.record).blend == blend
    accuracy = {name: one.scores.metrics["accuracy"].value for name, one in run.metrics.baselines.items()}
    assert list(accuracy) == [ENCODER, "majority", "nb_svm", "tfidf", "embedding"]
    assert run.metrics.after.metrics["accuracy"].value > accuracy[ENCODER] + 0.1


def test_run_predicts_what_it_was_measured_with(run: Run, rows: Split) -> None:
    layout, task = RunLayout(run.path), run.record.build_task()
    for model, blend in {"after": True, ENCODER: False}.items():
        predictor = lorafit.load(run.path, blend=blend)
        expected = read_predictions(layout.predictions("test", model), rows, task)
        np.testing.assert_allclose(predictor.predict_proba(rows.texts), expected, atol=2e-3)
        again = pickle.loads(pickle.dumps(predictor))  # noqa: S301 - its own
        assert again.fingerprint == predictor.fingerprint
        np.testing.assert_allclose(again.predict_proba(rows.texts[:3]), expected[:3], atol=2e-3)
    assert lorafit.load(run.path).fingerprint != lorafit.load(run.path, blend=False).fingerprint


def test_the_kept_graph_predicts_as_the_run_does(run: Run, rows: Split) -> None:
    for blend in (True, False):
        graph, torch = (lorafit.load(run.path, blend=blend, runtime=name) for name in ("auto", "torch"))
        assert graph.runtime.name == "onnx"
        np.testing.assert_allclose(graph.predict_proba(rows.texts), torch.predict_proba(rows.texts), atol=1e-2)


def test_evaluation_has_the_encoder_beside_the_blend_or_alone(run: Run) -> None:
    both, alone = evaluate(run.path), evaluate(run.path, blend=False)
    known = run.metrics.baselines[ENCODER].scores
    assert both.after.metrics["accuracy"] == run.metrics.after.metrics["accuracy"]
    assert both.baselines[ENCODER].scores.metrics["accuracy"] == known.metrics["accuracy"]
    assert alone.after.metrics["accuracy"] == known.metrics["accuracy"]
    assert ENCODER not in alone.baselines


def test_export_predicts_as_the_run_does(run: Run, exported: Path, rows: Split) -> None:
    record = ExportRecord.read(ExportLayout(exported).record)
    assert record.blend == run.record.blend
    for blend in (True, False):
        theirs, ours = (lorafit.load(path, blend=blend).predict_proba(rows.texts) for path in (exported, run.path))
        np.testing.assert_allclose(theirs, ours, atol=1e-2)
    alone = export(run.path, output=exported.parent / "alone", blend=False).path
    assert ExportRecord.read(ExportLayout(alone).record).blend is None
    assert not any((alone / name).exists() for name in BLEND_FILES)
    np.testing.assert_allclose(lorafit.load(alone).predict_proba(rows.texts), theirs, atol=1e-6)


def test_run_and_export_rank_texts_by_words_too_unless_the_encoder_is_alone(
    run: Run, exported: Path, rows: Split
) -> None:
    found = {}
    for blend in (True, False):
        ours, theirs = (lorafit.load(path, blend=blend) for path in (run.path, exported))
        assert ours.typicality is not None
        assert ours.typicality.calibration.shape[1] == 4
        (_, features), (_, exact) = ours.compute_features(rows.texts), theirs.compute_features(rows.texts)
        assert features.shape[1] == ours.typicality.means.shape[1] + 2 + blend
        np.testing.assert_allclose(exact, features, atol=0.05)
        found[blend] = [one.typicality for one in ours.predict(rows.texts)]
        np.testing.assert_array_equal(found[blend], ours.typicality.rank(features))
    assert found[True] != found[False]


def test_run_and_export_are_compared_blended_or_alone(run: Run, exported: Path) -> None:
    for blend in (True, False):
        record = diff(run.path, exported, blend=blend)
        assert abs(record.comparison.differences["accuracy"].value) <= 0.02
        expected = run.metrics.after if blend else run.metrics.baselines[ENCODER].scores
        assert record.a.scores.metrics["accuracy"].value == expected.metrics["accuracy"].value


def test_words_that_count_explain_the_blend(run: Run) -> None:
    found = explain(lorafit.load(run.path), "a superb film of number seven")
    strongest = max(found.words, key=lambda word: abs(word.contribution))
    assert strongest.text == "superb"


def test_card_says_what_the_adapter_reaches_alone(run: Run) -> None:
    card = RunLayout(run.path).card.read_text(encoding="utf-8")
    results = yaml.safe_load(card.split("---\n")[1])["model-index"][0]["results"][0]["metrics"]
    alone = run.metrics.baselines[ENCODER].scores.metrics["accuracy"].value
    assert {one["type"]: one["value"] for one in results}["accuracy"] == pytest.approx(alone, rel=1e-4)
    assert "the encoder alone |" in card
    assert "other libraries is the encoder alone, without calibration" in card
    assert "same classes" not in card


@pytest.mark.parametrize("name", BLEND_FILES)
def test_altered_blend_is_refused(name: str, run: Run, tmp_path: Path) -> None:
    copy = shutil.copytree(run.path, tmp_path / "copy")
    path = RunLayout(copy).trained / name
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))
    with pytest.raises(RunError, match=name):
        lorafit.load(copy, base=None)
    path.write_bytes(b"")
    with pytest.raises(RunError, match=name):
        lorafit.load(copy)
    path.unlink()
    with pytest.raises(RunError, match=name):
        lorafit.load(copy)


def test_weights_that_contradict_the_record_are_refused(run: Run, tmp_path: Path) -> None:
    copy = RunLayout(shutil.copytree(run.path, tmp_path / "copy"))
    record = RunRecord.read(copy.record)
    assert record.blend is not None
    weights = {**record.blend.weights, "nb_svm": 9.0}
    record.model_copy(update={"blend": record.blend.model_copy(update={"weights": weights})}).write(copy.record)
    with pytest.raises(RunError, match="the weights of the blend are"):
        lorafit.load(copy.root)


def test_blend_that_is_off_leaves_nothing(config: Config, tmp_path: Path) -> None:
    off = config.model_copy(deep=True)
    off.training.blend = "off"
    run = lorafit.train(off, output=tmp_path / "run")
    assert run.record.blend is None
    assert not set(BLEND_FILES) & run.record.files.keys()
    assert ENCODER not in run.metrics.baselines


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"training.blend": "nb_svm", "data.calibration_fraction": 0}, "give a data.calibration_fraction above 0, or"),
        ({"training.blend": "nb_svm", "evaluation.baselines": False}, "evaluation.baselines=false"),
        ({"training.blend": "embedding"}, "second pass of an encoder"),
        ({"training.blend": "ridge"}, "auto, off and nb_svm, tfidf"),
    ],
)
def test_blend_that_cannot_be_is_refused_before_training(
    config: Config, tmp_path: Path, flags: dict[str, object], message: str
) -> None:
    changed = config.model_copy(deep=True)
    for name, value in flags.items():
        section, _, setting = name.partition(".")
        setattr(getattr(changed, section), setting, value)
    with pytest.raises(ConfigError, match=message):
        lorafit.train(changed, output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_members_are_named_or_the_first_word_model() -> None:
    names = ["majority", "nb_svm", "tfidf"]
    found = {blend: TrainingConfig(blend=blend).name_members(names) for blend in ("auto", "off", "tfidf, nb_svm")}
    assert found == {"auto": ("nb_svm",), "off": (), "tfidf, nb_svm": ("tfidf", "nb_svm")}


def spoil_words(**arrays: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        known = load_file(folder / WORDS_FILE)
        save_file(
            known | {f"nb_svm.{name}": change(known[f"nb_svm.{name}"]) for name, change in arrays.items()},
            folder / WORDS_FILE,
        )

    return spoil


def spoil_facts(**facts: object) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = BlendFile.read(folder / BLEND_FILE)
        models = {"nb_svm": file.models["nb_svm"].model_copy(update=facts)}
        file.model_copy(update={"models": models}).write(folder / BLEND_FILE)

    return spoil


FORGED: dict[str, Callable[[Path], None]] = {
    "weights that are no numbers": spoil_words(weights=lambda known: np.full_like(known, np.nan)),
    "weights beyond the largest": spoil_words(weights=lambda known: known * np.float16(1e4)),
    "biases beyond single precision": spoil_words(biases=lambda known: known + 1e300),
    "infinite biases": spoil_words(biases=lambda known: known + np.inf),
    "scales beyond single precision": spoil_words(scales=lambda known: known * 1e300),
    "columns in no order": spoil_words(columns=lambda known: known[::-1].copy()),
    "columns beyond all hashes": spoil_words(columns=lambda known: known + np.uint32(2**24)),
    "fewer weights than columns": spoil_words(weights=lambda known: known[:-1]),
    "weights of another type": spoil_words(weights=lambda known: known.astype(np.float32)),
    "a label that there is not": spoil_facts(fitted=[7]),
    "no label with weights": spoil_facts(fitted=[], reference=None),
    "a class that is certain, too": spoil_facts(certain=[0, 1]),
    "labels of another task": spoil_facts(labels=3),
    "an unknown link": spoil_facts(link="magic"),
    "numbers for classes": spoil_facts(link="numbers"),
    "marks for classes": spoil_facts(link="marks"),
    "sequences of nine words": spoil_facts(words=9),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_words_are_refused(name: str, run: Run, tmp_path: Path, sign_run: Callable[[Path], None]) -> None:
    copy = shutil.copytree(run.path, tmp_path / "copy")
    FORGED[name](RunLayout(copy).trained)
    sign_run(copy)
    with pytest.raises(RunError, match=r"nb_svm|blend"):
        lorafit.load(copy)


def test_forged_weights_are_refused(run: Run, tmp_path: Path, sign_run: Callable[[Path], None]) -> None:
    layout = RunLayout(shutil.copytree(run.path, tmp_path / "copy"))
    weights = {ENCODER: 1e308, "nb_svm": 1e308}
    file = BlendFile.read(layout.trained / BLEND_FILE)
    file.model_copy(update={"weights": weights}).write(layout.trained / BLEND_FILE)
    record = RunRecord.read(layout.record)
    assert record.blend is not None
    record.model_copy(update={"blend": record.blend.model_copy(update={"weights": weights})}).write(layout.record)
    sign_run(layout.root)
    with pytest.raises(RunError, match=r"blend\.json"):
        lorafit.load(layout.root)
