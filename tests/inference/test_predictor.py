import json
import shlex
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.errors import RunError, UserInputError
from lorafit.inference.predictor import Predictor
from lorafit.runs.folder import ADAPTER_FILES, RunLayout
from lorafit.runs.golden import GoldenRecord
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import compute_digest
from lorafit.tasks.base import Task
from lorafit.tasks.registry import build_task

from .conftest import LABELS

WORDS = ("a", "wonderful", "film", "from", "the", "first", "minute", "to", "last", "was", "superb", "and", "my", "life")


@pytest.fixture(scope="module")
def predictor(build_predictor: Callable[..., Predictor]) -> Predictor:
    return build_predictor(build_task("single_label", LABELS["single_label"]))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunLayout:
    """A copy of the trained run, to be spoiled."""
    return RunLayout(shutil.copytree(trained, tmp_path / "my run"))


def make_texts(count: int) -> list[str]:
    """Texts of 1 to 80 words in no order of length; the longest are cut."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 80))) for _ in range(count)]


def rewrite(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_batch_gives_what_each_text_gives_alone_in_the_order_of_the_texts(predictor: Predictor) -> None:
    texts = make_texts(150)  # several batches, sorted by length inside
    together = predictor.predict_proba(texts)
    alone = np.concatenate([predictor.predict_proba([text]) for text in texts])
    assert together.std(axis=0).min() > 0.01, "the texts must differ for the order to show"
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_probabilities_sum_to_one(predictor: Predictor) -> None:
    probabilities = predictor.predict_proba(make_texts(40))
    assert probabilities.shape == (40, 3)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)


def test_every_task_predicts_in_its_own_class(task: Task, build_predictor: Callable[..., Predictor]) -> None:
    predictor, texts = build_predictor(task), make_texts(20)
    logits, values = predictor.compute_logits(texts), predictor.compute_values(texts)
    assert logits.shape == (20, len(task.output_names))
    assert values.shape == (20, len(task.label_names))
    assert predictor.labels == task.label_names
    np.testing.assert_allclose(values, task.activate(logits))
    for row, prediction in zip(values, predictor.predict(texts), strict=True):
        assert prediction == task.predict(row)


def test_a_calibration_makes_predictions_hold(task: Task, build_predictor: Callable[..., Predictor]) -> None:
    texts, raw = make_texts(40), build_predictor(task)
    logits = raw.compute_logits(texts)
    labels = {"multi_label": (logits > 0).astype(np.int64), "regression": logits[:, 0] + 1}
    y = labels.get(task.name, np.arange(40) % len(task.label_names))
    calibration = task.fit_calibration(y, logits, coverage=0.9)
    predictor = build_predictor(task, calibration=calibration)
    values = task.activate(logits, calibration)
    np.testing.assert_allclose(predictor.compute_values(texts), values)
    assert predictor.predict(texts) == [task.predict(row, calibration) for row in values]


def test_numbers_have_no_probabilities(build_predictor: Callable[..., Predictor]) -> None:
    with pytest.raises(UserInputError, match="gives each text a number, which has no probability"):
        build_predictor(build_task("regression", ("value",))).predict_proba(["fine"])


def test_no_texts_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []
    assert predictor.predict_proba([]).shape == (0, 3)


def test_progress_counts_up_to_the_number_of_texts(predictor: Predictor) -> None:
    done: list[int] = []
    predictor.predict(make_texts(150), on_progress=done.append)
    assert done == sorted(set(done))
    assert done[-1] == 150
    assert len(done) > 1


def test_a_single_string_is_refused(predictor: Predictor) -> None:
    with pytest.raises(UserInputError, match=r"got a single string\. Write predict\(\[text\]\)"):
        predictor.predict("I loved it")


def test_unusable_texts_are_refused_with_their_rows(predictor: Predictor) -> None:
    with pytest.raises(UserInputError) as caught:
        predictor.predict_proba(["fine", "", None, " \n", 7])  # type: ignore[list-item]
    told, *remedy = str(caught.value).splitlines()
    assert told == (
        "4 of 5 texts cannot be predicted: an empty text (rows 2, 4); no text (row 3); a text of type int (row 5). "
        "Leave out what is none:"
    )
    names: dict[str, object] = {"texts": ["fine", "", None, " \n", 7]}
    exec(textwrap.dedent("\n".join(remedy)), names)  # noqa: S102 - a user would paste it
    assert names["texts"] == ["fine"]


def test_a_moved_run_opens_and_gives_the_same(trained: Path, run: RunLayout) -> None:
    texts = make_texts(5)
    before, after = (lorafit.load(path, precision="fp32").predict_proba(texts) for path in (trained, run.root))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_a_missing_file_is_named(run: RunLayout, name: str) -> None:
    (run.adapter / name).unlink()
    with pytest.raises(RunError, match=rf"adapter/{name} is missing"):
        lorafit.load(run.root)


@pytest.mark.parametrize("name", ADAPTER_FILES)
def test_an_altered_file_is_named(run: RunLayout, name: str) -> None:
    with (run.adapter / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(RunError, match=rf"adapter/{name} was altered after training"):
        lorafit.load(run.root)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"run\.json is missing: .* is not a complete run folder"):
        lorafit.load(tmp_path)


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_an_unfinished_run_is_refused_with_the_command_to_go_on(run: RunLayout, status: str) -> None:
    rewrite(run.record, status=status)
    with pytest.raises(RunError, match=rf"its status is '{status}'") as caught:
        lorafit.load(run.root)
    command = str(caught.value).splitlines()[-1]
    assert shlex.split(command) == ["lorafit", "train", "--resume", str(run.root)]


def test_a_model_that_does_not_give_its_golden_logits_is_refused(run: RunLayout) -> None:
    golden = GoldenRecord.read(run.golden)
    golden.model_copy(update={"logits": [[first + 1, *rest] for first, *rest in golden.logits]}).write(run.golden)
    files = RunRecord.read(run.record).files | {"golden.json": compute_digest(run.golden)}
    rewrite(run.record, files=files)
    with pytest.raises(RunError, match=r"does not give its golden logits: they differ by 1, allowed"):
        lorafit.load(run.root)


def test_another_base_model_than_the_one_trained_on_is_refused(
    run: RunLayout, build_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    base = json.loads(run.record.read_text())["base_model"]
    other = shutil.copytree(base["name"], tmp_path / "other")
    shutil.copy(build_encoder("distilbert", initializer_range=0.4) / "model.safetensors", other)
    rewrite(run.record, base_model=base | {"name": str(other)})
    with pytest.raises(RunError, match=r"is not the one this adapter was trained on: its weights have another digest"):
        lorafit.load(run.root)
