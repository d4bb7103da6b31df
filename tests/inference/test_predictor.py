import io
import itertools
import json
import shlex
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest
import torch
from tokenizers.normalizers import Replace, Sequence

import lorafit
from lorafit.errors import RunError, UserInputError
from lorafit.inference.predictor import Predictor
from lorafit.runs.folder import ADAPTER_FILES, RunLayout
from lorafit.runs.golden import GoldenRecord
from lorafit.tasks.base import Task
from lorafit.tasks.registry import build_task

from .conftest import LABELS

EditRecord = Callable[..., None]
SignRun = Callable[[Path], None]
WORDS = ("a", "wonderful", "film", "from", "the", "first", "minute", "to", "last", "was", "superb", "and", "my", "life")


@pytest.fixture(scope="module")
def predictor(build_predictor: Callable[..., Predictor]) -> Predictor:
    return build_predictor(build_task("single_label", LABELS["single_label"]))


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunLayout:
    """A copy of the trained run, to be spoiled."""
    return RunLayout(shutil.copytree(trained, tmp_path / "my run"))


HOLDERS: dict[str, Callable[[list[str]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": lambda texts: (text for text in texts),
    "map": lambda texts: map(str, texts),
    "values of a dictionary": lambda texts: dict(enumerate(texts)).values(),
    "array": np.array,
    "array of objects": lambda texts: np.array(texts, dtype=object),
    "column of a DataFrame": lambda texts: pd.DataFrame({"text": texts})["text"],
    "column of pandas' strings": lambda texts: pd.Series(texts, index=[5, 3, 4]).astype("string"),
    "array of arrow": pyarrow.array,
    "column of an arrow table": lambda texts: pyarrow.table({"text": texts})["text"],
    "column of a data set": lambda texts: datasets.Dataset.from_dict({"text": texts})["text"],
}
WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "one text": (lambda: "I loved it", r"a single string\. Write predict\(\[text\]\)\.$"),
    "bytes": (lambda: b"fine", r"bytes, which have no encoding\."),
    "DataFrame": (
        lambda: pd.DataFrame({"id": [1], "text": ["fine"]}),
        r'a table \(DataFrame\)\. Give its column: write predict\(df\["text"\]\)\.$',
    ),
    "LazyFrame": (
        lambda: pl.LazyFrame({"text": ["fine"]}),
        r'a LazyFrame, which has no rows yet\. Write df = texts\.collect\(\), then predict\(df\["text"\]\)\.$',
    ),
    "DataFrame of one column": (lambda: pd.DataFrame({"text": ["fine"]}), r"a table \(DataFrame\)"),
    "arrow table": (lambda: pyarrow.table({"text": ["fine"]}), r"a table \(Table\)"),
    "data set": (lambda: datasets.Dataset.from_dict({"text": ["fine"]}), r"a table \(Dataset\)"),
    "set": (lambda: {"fine", "dull"}, r"a set, which has no order\."),
    "dictionary": (lambda: {"text": "fine"}, r"a dict\. Write predict\(\[text\]\), or predict\(texts\.values\(\)\)"),
    "file": (lambda: io.StringIO("fine\n"), r"an open file\. Write predict\(file\.read\(\)\.splitlines\(\)\)\.$"),
    "numbers": (lambda: np.arange(3), r"values of type int64\."),
    "column of numbers": (lambda: pd.Series([0.5, 1.5]), r"values of type float64\."),
    "matrix": (lambda: np.array([["a", "b"]]), r"an array of 2 dimensions\."),
    "number": (lambda: 3, r"a value of type int\. Write predict\(\[text\]\)\.$"),
    "nothing": (lambda: None, r"a value of type NoneType\."),
}


def make_texts(count: int) -> list[str]:
    """Texts of 1 to 80 words in no order of length; the longest are cut."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, size=rng.integers(1, 80))) for _ in range(count)]


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


@pytest.mark.parametrize("hold", HOLDERS)
def test_texts_are_taken_from_whatever_holds_them_in_order(predictor: Predictor, hold: str) -> None:
    texts = ["fine film", "dull, boring", "fine film"]
    np.testing.assert_array_equal(predictor.predict_proba(HOLDERS[hold](texts)), predictor.predict_proba(texts))


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_sequence_of_texts_is_refused_with_what_to_write(predictor: Predictor, what: str) -> None:
    wrong, told = WRONG[what]
    with pytest.raises(UserInputError, match=rf"^predict takes a list of texts, got {told}"):
        predictor.predict(wrong())


def test_unusable_texts_are_refused_with_their_rows(predictor: Predictor) -> None:
    with pytest.raises(UserInputError) as caught:
        predictor.predict_proba(["fine", "", None, " \n", 7])  # type: ignore[list-item]
    told, *remedy = str(caught.value).splitlines()
    assert told == (
        "4 of 5 texts cannot be predicted: an empty text (rows 2, 4); no text (row 3); a text of type int (row 5). "
        'Keep their places empty with bad_rows="keep", or leave out what is none:'
    )
    names: dict[str, object] = {"texts": ["fine", "", None, " \n", 7]}
    exec(textwrap.dedent("\n".join(remedy)), names)  # noqa: S102 - a user would paste it
    assert names["texts"] == ["fine"]


@pytest.mark.parametrize(
    "bad", ["", None, float("nan"), pd.NA, " \n", "\u200b\u200b", "\ufeff", "\x01\x02", "\ue000", 7]
)
def test_a_row_without_a_text_can_keep_its_place(predictor: Predictor, bad: object) -> None:
    texts: list[Any] = ["fine", bad, "a superb film"]
    with pytest.raises(UserInputError, match=r"^1 of 3 texts cannot be predicted: .* \(row 2\)"):
        predictor.predict_proba(texts)
    probabilities = predictor.predict_proba(texts, bad_rows="keep")
    assert np.isnan(probabilities[1]).all()
    np.testing.assert_allclose(probabilities[[0, 2]], predictor.predict_proba(["fine", "a superb film"]), atol=1e-6)
    first, none, last = predictor.predict(texts, bad_rows="keep")
    assert none is None
    assert [first, last] == [predictor.task.predict(row) for row in probabilities[[0, 2]]]


def test_nothing_but_rows_without_a_text(predictor: Predictor) -> None:
    assert predictor.predict(["", None], bad_rows="keep") == [None, None]  # type: ignore[list-item]
    assert np.isnan(predictor.predict_proba(["", ""], bad_rows="keep")).all()


def test_another_word_for_bad_rows_is_refused(predictor: Predictor) -> None:
    with pytest.raises(UserInputError, match=r'bad_rows=\'drop\': allowed are "stop" and "keep"'):
        predictor.predict(["fine"], bad_rows="drop")  # type: ignore[call-overload]


def test_a_text_of_which_the_tokenizer_leaves_nothing_is_no_text(build_predictor: Callable[..., Predictor]) -> None:
    predictor = build_predictor(build_task("single_label", LABELS["single_label"]))
    tokenizer, _ = predictor._tokenizer, predictor.pad_id
    tokenizer.normalizer = Sequence([Replace("!", ""), tokenizer.normalizer])
    with pytest.raises(UserInputError, match=r"a text of which the tokenizer leaves nothing \(rows 2, 3\)"):
        predictor.predict(["fine", "!!", "!"])
    kept = predictor.predict_proba(["!", "fine", "!!"], bad_rows="keep")
    assert np.isnan(kept).any(axis=1).tolist() == [True, False, True]
    np.testing.assert_allclose(kept[1:2], predictor.predict_proba(["fine"]), atol=1e-6)


def test_an_explainer_that_takes_all_words_away_gets_numbers(predictor: Predictor) -> None:
    """What LIME does: a linear model over the answers to texts with words taken out, of some of which nothing stays."""
    masks = np.array(list(itertools.product([0, 1], repeat=3)))
    texts = [
        " ".join(word for word, kept in zip(("superb", "dull", "film"), mask, strict=True) if kept) for mask in masks
    ]
    assert "" in texts
    probabilities = np.nan_to_num(predictor.predict_proba(texts, bad_rows="keep"), nan=1 / len(predictor.labels))
    coefficients, *_ = np.linalg.lstsq(np.column_stack([np.ones(8), masks]), probabilities, rcond=None)
    assert np.isfinite(coefficients).all()


@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_outputs_that_are_no_numbers_are_never_an_answer(
    build_predictor: Callable[..., Predictor], fault: float
) -> None:
    predictor = build_predictor(build_task("single_label", LABELS["single_label"]))
    head = predictor.runtime._model.classifier
    with torch.no_grad():
        head.bias[1] = fault
    with pytest.raises(
        RunError, match=r"not finite numbers in 2 of 2 texts \(rows 1, 3\): its weights are damaged"
    ) as e:
        predictor.predict(["fine", "", "dull"], bad_rows="keep")
    assert e.value.exit_code == 2


def test_a_weight_that_is_no_number_shows_in_the_rows_that_read_it(build_predictor: Callable[..., Predictor]) -> None:
    predictor = build_predictor(build_task("single_label", LABELS["single_label"]))
    model, tokenizer = predictor.runtime._model, predictor._tokenizer
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer.token_to_id("superb")] = torch.nan
    assert len(predictor.predict(["a dull film"])) == 1
    with pytest.raises(RunError, match=r"not finite numbers in 1 of 2 texts \(row 2\)"):
        predictor.predict_proba(["a dull film", "a superb film"])


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
def test_an_unfinished_run_is_refused_with_the_command_to_go_on(
    run: RunLayout, edit_record: EditRecord, status: str
) -> None:
    edit_record(run.record, status=status)
    with pytest.raises(RunError, match=rf"its status is '{status}'") as caught:
        lorafit.load(run.root)
    command = str(caught.value).splitlines()[-1]
    assert shlex.split(command) == ["lorafit", "train", "--resume", str(run.root)]


def test_a_model_that_does_not_give_its_golden_logits_is_refused(run: RunLayout, sign_run: SignRun) -> None:
    golden = GoldenRecord.read(run.golden)
    golden.model_copy(update={"logits": [[first + 1, *rest] for first, *rest in golden.logits]}).write(run.golden)
    sign_run(run.root)
    with pytest.raises(RunError, match=r"does not give its golden logits: they differ by 1, allowed"):
        lorafit.load(run.root)


def test_another_base_model_than_the_one_trained_on_is_refused(
    run: RunLayout, build_encoder: Callable[..., Path], edit_record: EditRecord, tmp_path: Path
) -> None:
    base = json.loads(run.record.read_text())["base_model"]
    other = shutil.copytree(base["name"], tmp_path / "other")
    shutil.copy(build_encoder("distilbert", initializer_range=0.4) / "model.safetensors", other)
    edit_record(run.record, base_model=base | {"name": str(other)})
    with pytest.raises(RunError, match=r"is not the one this adapter was trained on: its weights have another digest"):
        lorafit.load(run.root)
