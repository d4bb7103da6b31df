import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import lorafit
from lorafit.answers import build_answer
from lorafit.config import ModelConfig, load_config
from lorafit.errors import RunError, UserInputError
from lorafit.inference.predictor import Predictor
from lorafit.labels import LabelSet
from lorafit.models.acceleration.precision import PrecisionChoice
from lorafit.models.load import load_tokenizer, load_with_head, locate_encoder
from lorafit.models.runtimes.pytorch import TorchRuntime
from lorafit.models.tokenization import Truncation
from lorafit.runs.folder import ADAPTER_FILES, RunLayout
from lorafit.runs.golden import GoldenRecord
from lorafit.runs.records import RunRecord
from lorafit.system.atomic import compute_digest

LABELS = LabelSet(("bad", "fair", "good"))
WORDS = ("a", "wonderful", "film", "from", "the", "first", "minute", "to", "last", "was", "superb", "and", "my", "life")


@pytest.fixture(scope="module")
def encoder(build_encoder: Callable[..., Path]) -> Path:
    return build_encoder("distilbert", initializer_range=0.3)  # wide weights, so that outputs differ from text to text


@pytest.fixture(scope="module")
def predictor(encoder: Path) -> Predictor:
    torch.set_num_threads(1)
    model = load_with_head(locate_encoder(ModelConfig(name=str(encoder))), LABELS).model
    tokenizer, pad_id = load_tokenizer(encoder)
    return Predictor(
        TorchRuntime(model, PrecisionChoice("fp32", "for the test")),
        tokenizer,
        pad_id=pad_id,
        labels=LABELS,
        truncation=Truncation(64),
    )


@pytest.fixture(scope="module")
def trained(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    lines = [json.dumps({"text": f"{WORDS[row % 14]} {WORDS[row // 2]} {row}", "label": row % 2}) for row in range(16)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    flags = {
        "data.source": str(folder / "rows.jsonl"),
        "model.name": str(encoder),
        "model.max_length": 64,
        "training.max_steps": 1,
        "training.threads": 1,
        "evaluation.baseline": False,
        "evaluation.bootstrap_samples": 100,
        "evaluation.report": False,
    }
    return lorafit.train(load_config(flags=flags), output=folder / "run").path


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


def test_predictions_name_the_most_probable_class_and_give_all_of_them(predictor: Predictor) -> None:
    texts = make_texts(20)
    for row, prediction in zip(predictor.predict_proba(texts), predictor.predict(texts), strict=True):
        assert prediction.scores == dict(zip(predictor.labels, row.tolist(), strict=True))
        assert prediction.label == predictor.labels[row.argmax()]
        assert prediction.score == max(prediction.scores.values())


def test_of_equal_probabilities_the_first_class_wins() -> None:
    prediction = build_answer(np.array([0.2, 0.4, 0.4]), LABELS)
    assert (prediction.label, prediction.score) == ("fair", 0.4)


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
    assert str(caught.value) == (
        "4 of 5 texts cannot be classified: an empty text (rows 2, 4); no text (row 3); a text of type int (row 5). "
        "`lorafit predict --drop-bad-rows` leaves them out."
    )


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
    run: RunLayout, encoder: Path, build_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    base = json.loads(run.record.read_text())["base_model"]
    other = shutil.copytree(encoder, tmp_path / "other")
    shutil.copy(build_encoder("distilbert", initializer_range=0.4) / "model.safetensors", other)
    rewrite(run.record, base_model=base | {"name": str(other)})
    with pytest.raises(RunError, match=r"is not the one this adapter was trained on: its weights have another digest"):
        lorafit.load(run.root)
