import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import lorafit
from lorafit.errors import RunError, UserInputError
from lorafit.inference.export.export import export
from lorafit.inference.typicality import Typicality, add_signs
from lorafit.runs.folder import TYPICALITY_FILE, RunLayout
from lorafit.system.text import join_text

TEXTS = ["a superb film", "a dull, boring story", "great great great hours", "zq xx jj vv kk", "the end"]


EditRecord = Callable[..., None]


@pytest.fixture
def trained_without(trained_of: Callable[[str], Path], tmp_path: Path, edit_record: EditRecord) -> Path:
    """A run as it was made before typicality was kept."""
    layout = RunLayout(shutil.copytree(trained_of("single_label"), tmp_path / "old"))
    layout.typicality.unlink()
    edit_record(layout.record, lambda record: record["files"].pop(TYPICALITY_FILE))
    return layout.root


def draw(rng: np.random.Generator, rows: int, width: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Features in two heaps, of which some never vary, and the heap of each row."""
    strata = rng.integers(2, size=rows)
    features = rng.standard_normal((rows, width)) * np.arange(1, width + 1) + 8 * strata[:, np.newaxis]
    features[:, 0] = 3.0
    return features, strata


@pytest.fixture
def fitted() -> Typicality:
    rng = np.random.default_rng(0)
    return Typicality.fit(*draw(rng, 300), draw(rng, 99)[0])


def add_random_signs(rng: np.random.Generator, features: np.ndarray) -> np.ndarray:
    """Features with lengths and doubts of encoder and word models beside them."""
    return np.column_stack([features, rng.normal(5, 0.5, len(features)), rng.random((len(features), 2))])


@pytest.mark.parametrize("columns", [6, 8, 9])
def test_typical_texts_are_rejected_as_often_as_is_said(columns: int) -> None:
    rng, found = np.random.default_rng(1), []
    for _ in range(60):
        held_out, texts = (add_random_signs(rng, draw(rng, rows)[0])[:, :columns] for rows in (49, 100))
        found.append(Typicality.fit(*draw(rng, 80), held_out).rank(texts))
    ranks = np.concatenate(found)
    assert ranks.min() > 0
    assert ranks.max() <= 1
    for share in (0.02, 0.1, 0.5, 0.9):
        assert (ranks <= share).mean() == pytest.approx(share, abs=0.02)


def test_the_rank_is_that_of_its_definition(fitted: Typicality) -> None:
    features, strata = draw(np.random.default_rng(2), 30)
    rows = draw(np.random.default_rng(0), 300)[0]
    scores = fitted.score(features)
    known = fitted.calibration[:, 0]
    slow = [(1 + sum(score >= one for score in known)) / 100 for one in scores.astype(np.float32)]
    np.testing.assert_allclose(fitted.rank(features), slow)
    assert fitted.rank(features + 100).max() == 1 / 100
    whitening = fitted.whitening.whole().astype(float)
    inverse = whitening.T @ whitening
    offsets = [row - fitted.means for row in features]
    np.testing.assert_allclose(scores, [min(one @ inverse @ one for one in each) for each in offsets], rtol=1e-3)
    assert len(rows) == 300
    assert set(strata) == {0, 1}


def test_lengths_and_doubts_count_as_much_as_distances_where_they_are_given() -> None:
    rng = np.random.default_rng(0)
    rows, strata = draw(rng, 300)
    held_out, texts = (add_random_signs(rng, draw(rng, count)[0]) for count in (99, 30))
    fitted, plain = Typicality.fit(rows, strata, held_out), Typicality.fit(rows, strata, held_out[:, :6])
    lengths = held_out[:, 6].astype(np.float32)

    def list_parts(features: np.ndarray) -> list[np.ndarray]:
        unusual = np.abs(features[:, 6] - lengths.mean()) / lengths.std() - 2
        return [plain.score(features), 2 * np.maximum(unusual, 0), features[:, 7], features[:, 8]]

    spreads = [1.0 if place == 1 else part.std() for place, part in enumerate(list_parts(held_out))]
    for count in (3, 4):  # without the word models, and with them
        known, scores = (
            sum(part / spread for part, spread in zip(list_parts(each)[:count], spreads, strict=False))
            for each in (held_out, texts)
        )
        given = texts[:, : 5 + count]
        np.testing.assert_allclose(fitted.score(given), scores, rtol=1e-4)
        np.testing.assert_allclose(fitted.rank(given), [(1 + (known >= one).sum()) / 100 for one in scores], atol=0.011)
    np.testing.assert_array_equal(fitted.rank(texts[:, :6]), plain.rank(texts[:, :6]))  # by distances alone
    for column, value in ((6, 0.0), (6, 15.0), (7, 9.0), (8, 9.0)):
        strange = texts.copy()
        strange[:, column] = value
        assert fitted.rank(strange).max() == 1 / 100


def test_calibration_rows_that_are_all_as_long_make_other_lengths_unusual() -> None:
    rng = np.random.default_rng(0)
    held_out, texts = (np.column_stack([draw(rng, rows)[0], np.full((rows, 2), (5.0, 0.5))]) for rows in (99, 30))
    fitted = Typicality.fit(*draw(rng, 300), held_out)
    np.testing.assert_array_equal(fitted.rank(texts), fitted.rank(texts[:, :6]))
    texts[:, 6] = 500.0
    assert fitted.rank(texts).max() == 1 / 100


def test_signs_are_characters_and_doubts() -> None:
    features = np.arange(6.0).reshape(2, 3)
    found = add_signs(features, ["  film\n\n", ("a", "b")], np.array([0.1, 0.2]), np.array([0.3, 0.4]))
    np.testing.assert_allclose(found[:, :3], features)
    np.testing.assert_allclose(
        found[:, 3:], [[np.log(5), 0.1, 0.3], [np.log(len(join_text(("a", "b"))) + 1), 0.2, 0.4]]
    )


def test_much_longer_texts_are_not_typical(trained_of: Callable[[str], Path]) -> None:
    predictor = lorafit.load(trained_of("single_label"))
    usual = predictor.predict(["superb film hours 7"])[0].typicality
    long = predictor.predict(["superb film hours 7 " * 50])[0].typicality
    assert long == pytest.approx(1 / (1 + len(predictor.typicality.calibration)))
    assert usual > long


def test_few_texts_have_the_scores_that_they_have_among_many(fitted: Typicality) -> None:
    rows = np.random.default_rng(5).standard_normal((200, fitted.means.shape[1]))
    together = fitted.score(rows)
    for count in (1, 64, 65):
        np.testing.assert_allclose(fitted.score(rows[:count]), together[:count], rtol=1e-5)


def test_it_is_read_as_it_was_saved(fitted: Typicality, tmp_path: Path) -> None:
    features = draw(np.random.default_rng(3), 20)[0]
    for columns in (1, 3, 4):
        one = replace(fitted, calibration=np.repeat(fitted.calibration, columns, axis=1))
        one.save(tmp_path / "kept.safetensors")
        again = Typicality.read(tmp_path / "kept.safetensors")
        for texts in (features, np.column_stack([features, np.arange(60).reshape(20, 3)])):
            np.testing.assert_array_equal(again.rank(texts), one.rank(texts))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path, _: path.unlink(), "There is no file"),
        (lambda path, _: path.write_bytes(path.read_bytes()[:-5]), "damaged: it cannot be read as safetensors"),
        (lambda path, one: replace(one, means=one.means * np.nan).save(path), "damaged: it does not hold means"),
        (lambda path, one: replace(one, means=one.means.astype(np.float16)).save(path), "as finite numbers in fp32"),
        (lambda path, one: replace(one, means=one.means[:, :3]).save(path), "do not fit each other"),
        (lambda path, one: replace(one, calibration=one.calibration.repeat(2, axis=1)).save(path), "do not fit each"),
    ],
)
def test_what_is_damaged_is_refused(
    fitted: Typicality, tmp_path: Path, spoil: Callable[[Path, Typicality], None], said: str
) -> None:
    path = tmp_path / "kept.safetensors"
    fitted.save(path)
    spoil(path, fitted)
    with pytest.raises(RunError, match=said):
        Typicality.read(path)


@pytest.mark.parametrize("name", ["single_label", "multi_label", "regression"])
def test_every_runtime_tells_how_typical_a_text_is(
    name: str, trained_of: Callable[[str], Path], tmp_path: Path
) -> None:
    run = trained_of(name)
    assert RunLayout(run).typicality.is_file()
    torch = lorafit.load(run, precision="fp32", reject_atypical=0.05)
    graphs = [export(run, int8=int8, output=tmp_path / str(int8), allow_drift=True).path for int8 in (False, True)]
    ranks = []
    for predictor in (torch, *(lorafit.load(path, reject_atypical=0.05) for path in graphs)):
        predictions = predictor.predict(TEXTS)
        ranks.append([one.typicality for one in predictions])
        assert [one.atypical for one in predictions] == [one.typicality <= 0.05 for one in predictions]
        assert list(predictions[0].columns()) == list(predictor.find_example().columns())
    assert all(0 < rank <= 1 for rank in ranks[0])
    np.testing.assert_allclose(ranks[1], ranks[0], atol=0.03)  # a rank or two of the few calibration rows
    np.testing.assert_allclose(ranks[2], ranks[0], atol=0.25)
    assert torch.predict(["", TEXTS[0]], bad_rows="keep")[1] == torch.predict(TEXTS[:1])[0]


def test_a_run_without_it_predicts_as_before_and_marks_nothing(
    trained_of: Callable[[str], Path], trained_without: Path
) -> None:
    assert lorafit.load(trained_of("single_label"), raw=True).predict(TEXTS)[0].typicality is None
    prediction = lorafit.load(trained_without).predict(TEXTS)[0]
    assert prediction.typicality is None
    assert "typicality" not in prediction.columns()
    with pytest.raises(RunError, match=r"does not know what typical texts are like.*leave out --reject-atypical"):
        lorafit.load(trained_without, reject_atypical=0.01)


@pytest.mark.parametrize("share", [0, 1, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(trained_of: Callable[[str], Path], share: float) -> None:
    with pytest.raises(UserInputError, match=r"above 0 and below 1, for example 0\.01"):
        lorafit.load(trained_of("single_label"), reject_atypical=share)


def test_a_share_that_could_mark_nothing_is_refused(fitted: Typicality) -> None:
    assert fitted.rejecting(0.01).reject == 0.01
    with pytest.raises(UserInputError, match=r"with 99 calibration rows no typicality is below 0\.01\. Give a larger"):
        fitted.rejecting(0.009)


def test_raw_probabilities_have_no_typicality_to_reject_by(trained_of: Callable[[str], Path]) -> None:
    with pytest.raises(UserInputError, match="leave out --raw or --reject-atypical"):
        lorafit.load(trained_of("single_label"), raw=True, reject_atypical=0.1)
