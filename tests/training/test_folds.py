from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lorafit.config import Config, DataConfig, ModelConfig, load_config
from lorafit.data.loading import load_source_rows
from lorafit.data.rows import Split
from lorafit.errors import DataError, JobInterruptedError, TrainingInterruptedError
from lorafit.models.tokenization import Truncation
from lorafit.system.progress import Silent
from lorafit.tasks.registry import TASKS, build_task, get_task
from lorafit.training import folds as module
from lorafit.training.embedding_baseline import EmbeddingModel, FrozenBase, choose_penalty
from lorafit.training.folds import (
    assign_folds,
    build_material,
    predict_baseline_folds,
    predict_embedding_folds,
    predict_encoder_folds,
)
from lorafit.training.prepare import Material

TASK = build_task("single_label", ("bad", "fine", "good"))


def build_rows(labels: list[int], texts: list[str] | None = None, groups: tuple[str, ...] | None = None) -> Split:
    texts = texts or [f"text {row}" for row in range(len(labels))]
    return Split(np.arange(1, len(labels) + 1), tuple(texts), np.array(labels), groups=groups)


def test_folds_hold_each_label_in_proportion() -> None:
    labels = [0] * 50 + [1] * 25 + [2] * 7
    folds = assign_folds(build_rows(labels), TASK, 5, seed=3)
    for label, counts in ((0, {10}), (1, {5}), (2, {1, 2})):
        assert set(Counter(folds[np.array(labels) == label].tolist()).values()) == counts
    assert max(np.bincount(folds)) - min(np.bincount(folds)) <= 1


def test_folds_depend_on_the_seed_alone() -> None:
    rows = build_rows([0, 1, 2] * 30)
    assert assign_folds(rows, TASK, 3, seed=1).tolist() == assign_folds(rows, TASK, 3, seed=1).tolist()
    assert assign_folds(rows, TASK, 3, seed=1).tolist() != assign_folds(rows, TASK, 3, seed=2).tolist()


def test_folds_keep_texts_and_groups_together() -> None:
    rng = np.random.default_rng(0)
    texts = [f"text {number}" for number in rng.integers(0, 60, size=200)]
    groups = tuple(f"group {number}" if number else "" for number in rng.integers(0, 150, size=200))
    folds = assign_folds(build_rows(rng.integers(0, 3, size=200).tolist(), texts, groups), TASK, 4, seed=0)
    assert set(folds) == {0, 1, 2, 3}
    for values in (texts, groups):
        for value in set(values) - {""}:  # without a group, a row stands alone
            assert len({fold for fold, other in zip(folds, values, strict=True) if other == value}) == 1


def test_every_fold_has_rows_where_labels_are_rare_and_units_large() -> None:
    texts = ["same"] * 30 + [f"other {row}" for row in range(4)]
    folds = assign_folds(build_rows([0] * 30 + [1, 1, 2, 2], texts), TASK, 5, seed=0)
    assert set(folds) == set(range(5))


def test_folds_that_cannot_be_filled_are_refused() -> None:
    with pytest.raises(DataError, match=r"5 folds need 5 different texts, and there are 2: take fewer folds"):
        assign_folds(build_rows([0, 1, 0], ["a", "b", "a"]), TASK, 5, seed=0)
    with pytest.raises(DataError, match=r"3 folds need 3 groups that share no text, and there are 2"):
        assign_folds(build_rows([0, 1, 0], groups=("x", "x", "y")), TASK, 3, seed=0)


def test_baselines_predict_each_row_by_a_model_of_the_other_folds() -> None:
    task = build_task("single_label", ("neg", "pos"))
    rows = build_rows([0, 1] * 20, [f"{('awful', 'lovely')[row % 2]} film {row}" for row in range(40)])
    folds = assign_folds(rows, task, 2, seed=0)
    values = predict_baseline_folds("tfidf", rows, task, folds)
    for fold in range(2):
        others, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        texts = [rows.texts[row] for row in others], [rows.texts[row] for row in held_out]
        assert np.array_equal(values[held_out], task.predict_baseline("tfidf", texts[0], rows.y[others], texts[1]))


@pytest.mark.parametrize("task", TASKS)
def test_embedding_predicts_each_row_by_a_regression_on_the_other_folds(tiny_distilbert: Path, task: str) -> None:
    y = {"multi_label": np.array([[0, 1], [1, 0]] * 20), "regression": np.arange(40.0)}
    kind = build_task(task, {"regression": ("value",), "ordinal": ("1", "2")}.get(task, ("a", "b")))
    config, rows = embedded_rows(tiny_distilbert, y.get(task, np.array([0, 1] * 20)))
    material, folds = build_material(config, kind, rows), np.arange(40) // 2 % 3
    values = predict_embedding_folds(config, material, folds)
    states = embed(material, config)
    for fold in range(3):
        model = EmbeddingModel.fit(kind, states[folds != fold], rows.y[folds != fold])
        np.testing.assert_allclose(values[folds == fold], model.compute_values(states[folds == fold]), atol=1e-6)


def test_folds_that_calibrate_have_the_penalty_of_the_model(tiny_distilbert: Path) -> None:
    kind, y = build_task("single_label", ("a", "b")), np.array([0, 1] * 20)
    y[np.random.default_rng(0).permutation(40)[:12]] ^= 1  # with labels so wrong, a fold's choice is chance
    config, rows = embedded_rows(tiny_distilbert, y)
    material, folds = build_material(config, kind, rows), np.arange(40) // 2 % 5
    states = embed(material, config)
    strength = choose_penalty(kind, states, y, seed=config.training.seed)
    own = {choose_penalty(kind, states[folds != fold], y[folds != fold], seed=0) for fold in range(5)}
    assert own != {strength}
    values = predict_embedding_folds(config, material, folds, common_penalty=True)
    for fold in range(5):
        model = EmbeddingModel.fit(kind, states[folds != fold], y[folds != fold], strength=strength)
        np.testing.assert_allclose(values[folds == fold], model.compute_values(states[folds == fold]), atol=1e-6)


def embedded_rows(encoder: Path, y: NDArray[Any]) -> tuple[Config, Split]:
    texts = tuple(f"{('awful', 'lovely')[row % 2]} film {row}" for row in range(len(y)))
    config = load_config(overrides=[f"model.name={encoder}", "model.max_length=16"])
    return config, Split(np.arange(1, len(y) + 1), texts, y)


def embed(material: Material, config: Config) -> NDArray[np.float64]:
    base = FrozenBase.load(material.encoder, material.splits.task, material.pad_id, config)
    return base.embed(material.tokenize(Truncation(16, config.model.truncation))["train"])


@pytest.fixture(scope="module")
def readable_encoder(build_encoder: Callable[..., Path]) -> Path:
    """A tiny encoder whose random weights are large enough to tell words apart."""
    return build_encoder("distilbert", initializer_range=0.1)


def small_config(reviews: Path, encoder: Path, *overrides: str) -> Config:
    settings = [
        "model.max_length=32",
        "training.epochs=4",
        "training.learning_rate=1e-2",
        "training.batch_size=16",
        "training.threads=1",
    ]
    return load_config(overrides=[f"data.source={reviews}", f"model.name={encoder}", *settings, *overrides])


def test_encoder_predicts_each_row_by_a_model_of_the_other_folds(
    word_reviews: Path, readable_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(word_reviews, readable_encoder, "method.layers=top1", "training.precision=fp32")
    task, parts, _ = load_source_rows(config.data)
    rows = parts["train"]
    folds = assign_folds(rows, task, 2, seed=0)
    seen: list[tuple[set[int], set[int], set[int]]] = []
    predict_fold = module._predict_fold

    def watch(config, material, inputs, folder, progress):  # noqa: ANN001, ANN202
        splits = material.splits
        seen.append((set(splits.train.ids), set(splits.validation.ids), set(splits.test.ids)))
        return predict_fold(config, material, inputs, folder, progress)

    monkeypatch.setattr(module, "_predict_fold", watch)
    values = predict_encoder_folds(config, build_material(config, task, rows), folds, Silent())
    for fold, (train, validation, test) in enumerate(seen):
        assert test == set(rows.ids[folds == fold])
        assert train | validation == set(rows.ids[folds != fold])
        assert not train & validation
        assert len(validation) == 8
    assert np.allclose(values.sum(axis=1), 1)
    assert (values.argmax(axis=1) == rows.y).mean() > 0.9  # words tell the label
    cached = values
    config.training.prefix_cache = "never"
    plain = predict_encoder_folds(config, build_material(config, task, rows), folds)
    assert np.allclose(plain, cached, atol=1e-4)


def test_folds_that_are_done_are_not_trained_again(
    word_reviews: Path, readable_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAFIT_CACHE", str(tmp_path))
    config = small_config(word_reviews, readable_encoder, "training.max_steps=2")
    task, parts, _ = load_source_rows(config.data)
    rows, trained = parts["train"], list[str]()
    folds, predict_fold = assign_folds(rows, task, 3, seed=0), module._predict_fold

    def predict(folder: Path, *rest: Any) -> Any:  # noqa: ANN401 - as the function that it stands for
        if folder.name == "fold3" and not trained[2:]:
            trained.append("stopped")
            raise TrainingInterruptedError("stopped", run=folder)
        trained.append(folder.name)
        return predict_fold(*rest[:3], folder, *rest[3:])

    monkeypatch.setattr(module, "_predict_fold", lambda *given: predict(given[3], *given[:3], *given[4:]))

    def run(seed: int = 0) -> Any:  # noqa: ANN401 - an array
        config.training.seed = seed
        return predict_encoder_folds(config, build_material(config, task, rows), folds)

    with pytest.raises(JobInterruptedError, match="2 of 3 folds are done and kept: the same command goes on after"):
        run()
    values = run()
    assert trained == ["fold1", "fold2", "stopped", "fold3"]
    assert np.array_equal(run(), values)
    assert len(trained) == 4, "all are kept"
    kept = sorted((tmp_path / "folds").iterdir())
    kept[0].write_bytes(kept[0].read_bytes()[:-1] + b"x")
    assert np.allclose(run(), values, atol=1e-6)
    assert len(trained) == 5, "what was altered is not believed"
    run(seed=1)
    assert len(trained) == 8, "other settings"


def test_folds_go_on_from_a_run(trained_of: Callable[[str], Path], word_reviews: Path) -> None:
    run = trained_of("single_label")
    config = Config(data=DataConfig(source=str(word_reviews)), model=ModelConfig(name=str(run)))
    task, parts, _ = load_source_rows(config.data)
    encoder = build_material(config, task, parts["train"]).encoder
    assert encoder.notes[0].startswith(f"training goes on from the run {run}")


def test_encoder_of_few_layers_is_trained_whole(word_reviews: Path, readable_encoder: Path) -> None:
    config = small_config(word_reviews, readable_encoder)
    before = config.to_yaml()
    task, parts, _ = load_source_rows(config.data)
    rows = parts["train"]
    values = predict_encoder_folds(
        config, build_material(config, task, rows), assign_folds(rows, task, 2, seed=0), Silent()
    )
    assert (values.argmax(axis=1) == rows.y).mean() > 0.9
    assert config.to_yaml() == before


@pytest.mark.slow
@pytest.mark.parametrize("task_name", TASKS)
def test_encoder_predicts_few_rows_of_every_task(task_name: str, readable_encoder: Path) -> None:
    labels: dict[str, list[Any]] = {
        "single_label": ["neg", "pos"] * 8,
        "multi_label": [("a",), ("b",), ("a", "b"), ()] * 4,
        "regression": [1.0, 2.0, 3.0, 4.0] * 4,
        "ordinal": ["1", "2"] * 8,
    }
    task = get_task(task_name).from_labels(labels[task_name], "rows")
    texts = tuple(f"{('awful', 'lovely')[row % 2]} film {row // 2}" for row in range(16))
    rows = Split(np.arange(1, 17), texts, task.encode(labels[task_name]), groups=tuple("aabbccddeeffgghh"))
    config = small_config(Path("rows.csv"), readable_encoder, "training.epochs=1", f"data.task={task_name}")
    folds = assign_folds(rows, task, 4, seed=0)
    values = predict_encoder_folds(config, build_material(config, task, rows), folds)
    task.check_values(values)
    assert values.shape == (16, len(task.label_names))
