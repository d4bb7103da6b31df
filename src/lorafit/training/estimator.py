"""lorafit as estimators of scikit-learn: `TextClassifier` and `TextRegressor`.

They fit on all rows that they are given and measure nothing, as whoever calls them does: `GridSearchCV`,
`cross_val_predict`, a split of one's own. For a run with its evidence there is `lorafit.train`.
"""

import io
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from lorafit.config import Config, override_config
from lorafit.data.rows import Split
from lorafit.errors import UserInputError
from lorafit.inference.given_texts import AnyText, read_texts
from lorafit.inference.loading import load
from lorafit.inference.predictor import Predictor
from lorafit.system.extras import require
from lorafit.tasks.base import Array
from lorafit.tasks.registry import CLASSIFICATION, REGRESSION, TaskName, get_task
from lorafit.training.pipeline import fit

require("sklearn", extra="train", purpose="An estimator")
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin  # noqa: E402 - its lack was told just before
from sklearn.utils import check_random_state, column_or_1d  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # noqa: E402

_OF_DATA: Final = frozenset({"data.calibration_fraction", "data.max_rows", "data.validation_fraction"})
"""Settings of the data that say something of rows that are at hand."""

_NEVER: Final = frozenset({"training.budget"})
_MOST_COPIES: Final = 100
"""Of a row, on average."""


class _Fitted:
    """A model by the content of its files, so that it can be pickled and opened elsewhere."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the files of a folder that `fit` has filled."""
        return cls({str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()})

    def __getstate__(self) -> dict[str, object]:
        return {"files": self.files}

    @cached_property
    def predictor(self) -> Predictor:
        """The model, opened."""
        return _open(self.files)


def _open(files: Mapping[str, bytes], threads: int | None = None) -> Predictor:
    """Open the model that files make up."""
    with tempfile.TemporaryDirectory(prefix="lorafit-estimator-") as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        predictor = load(folder, threads=threads)
    predictor.reopen = partial(_open, files)
    return predictor


class _TextEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """What both estimators have in common."""

    _task: ClassVar[TaskName]

    def __init__(
        self,
        *,
        model: str = "distilbert-base-uncased",
        method: str = "lora",
        max_length: int = 256,
        epochs: int | None = None,
        learning_rate: float | None = None,
        random_state: Any = 0,  # noqa: ANN401 - whatever scikit-learn takes
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.model = model
        self.method = method
        self.max_length = max_length
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.random_state = random_state
        self.settings = settings

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn has no types
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        tags.non_deterministic = self.random_state is None
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "fitted_")

    @property
    def predictor_(self) -> Predictor:
        """The model, as `lorafit.load` opens one."""
        check_is_fitted(self)
        fitted: _Fitted = self.fitted_
        return fitted.predictor

    def _compute(self, texts: Iterable[AnyText]) -> Array:
        """Return the values of texts, shape (n, labels of the predictor)."""
        predictor = self.predictor_
        given = read_texts(texts, pair=predictor.pair)
        given.refuse_faults(keeps=False)
        return predictor.compute_values(given.texts)

    def _fit(
        self, given: Iterable[AnyText], labels: list[Any], strata: NDArray[np.int64], sample_weight: object
    ) -> Self:
        config, texts = self._build_config(), _read(given)
        if len(texts) != len(labels):
            raise UserInputError(f"X has {len(texts):,} texts and y {len(labels):,} labels: each text needs one.")
        if not texts:
            raise UserInputError("X holds no texts.")
        counts = _count_rows(sample_weight, strata, config.data.seed)
        task = get_task(self._task).from_labels(labels, "y")
        places = np.repeat(np.arange(len(texts)), counts)
        rows = Split(np.arange(len(texts)) + 1, tuple(texts), task.encode(labels)).select(places)
        if isinstance(texts[0], tuple):
            config.data.text_pair_column = "text_pair"
        with tempfile.TemporaryDirectory(prefix="lorafit-estimator-") as folder:
            fit(config, rows, task, Path(folder))
            self.fitted_ = _Fitted.read(Path(folder))
        return self

    def _build_config(self) -> Config:
        state, settings = self.random_state, self.settings or {}
        wrong = [name for name in settings if (name.startswith("data.") and name not in _OF_DATA) or name in _NEVER]
        if wrong:
            raise UserInputError(
                f"settings: {', '.join(wrong)} cannot be set, as fit is given its rows. Of the data's settings there "
                f"are {', '.join(sorted(_OF_DATA))}."
            )
        seed = int(state if isinstance(state, int | np.integer) else check_random_state(state).randint(2**31 - 1))
        given = {
            "data.task": self._task,
            "data.rare_labels": "keep",
            "data.seed": seed,
            "evaluation.report": False,
            "method.name": self.method,
            "model.max_length": self.max_length,
            "model.name": self.model,
            "training.epochs": self.epochs,
            "training.learning_rate": self.learning_rate,
            "training.seed": seed,
        }
        return override_config(Config(), {**given, **settings})


class TextClassifier(ClassifierMixin, _TextEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A classifier of texts, or of pairs of texts, with the interface of scikit-learn.

    Args:
        model: `builtin:distil-minilm`, a Hugging Face Hub id, or a local folder.
        method: A method of `lorafit methods`, or `auto`.
        max_length: Longest text in tokens.
        epochs: Passes over the rows; None for as many as suit their number.
        learning_rate: Peak learning rate; None for the method's.
        random_state: A seed, a `numpy.random.RandomState`, or None for another seed each time.
        settings: Any other settings by their dotted names, such as `{"training.blend": "off"}`.

    Attributes:
        classes_: Shape (classes,): the labels in order, of their own type.
        predictor_: The model as `lorafit.load` opens one, which knows more: conformal sets, typicality, explanations.
    """

    _task = CLASSIFICATION

    def fit(
        self,
        X: Iterable[AnyText],  # noqa: N803 - scikit-learn's name
        y: Any,  # noqa: ANN401 - any sequence
        sample_weight: object = None,
    ) -> Self:
        """Fine-tune the model on all rows.

        Args:
            X: n texts, or pairs as tuples of two: a list, an array, a column of a table.
            y: n labels: strings, whole numbers or booleans.
            sample_weight: How often each row counts, n numbers of 0 or more; None for once. Fractions are scaled to a
                mean of 1, and each is rounded up or down by chance (systematic resampling within classes, Kitagawa
                1996), so that rows train as often as they weigh on average.

        Returns:
            This estimator.

        Raises:
            UserInputError: X are no texts, y no labels, or there are not as many.
            DataError: There is nothing to learn from the rows.
        """
        labels = _read_labels(y)
        classes, codes = np.unique(labels, return_inverse=True)
        names = list(map(str, classes.tolist()))
        self._fit(X, [names[code] for code in codes.tolist()], codes, sample_weight)
        self.classes_ = classes
        return self

    def predict_proba(self, X: Iterable[AnyText]) -> Array:  # noqa: N803 - scikit-learn's name
        """Return calibrated probabilities.

        Args:
            X: n texts or pairs.

        Returns:
            Shape (n, classes), in the order of `classes_`; rows sum to 1.
        """
        predictor, values = self.predictor_, self._compute(X)
        columns = list(map(predictor.labels.index, map(str, self.classes_.tolist())))
        return np.asarray(values[:, columns])

    def predict(self, X: Iterable[AnyText]) -> NDArray[Any]:  # noqa: N803 - scikit-learn's name
        """Return the most probable label of each of n texts or pairs, shape (n,), as in `classes_`."""
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])


class TextRegressor(RegressorMixin, _TextEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """A regression from texts, or pairs of texts, with the interface of scikit-learn.

    Its arguments are those of `TextClassifier`.

    Attributes:
        predictor_: The model as `lorafit.load` opens one, which knows more: intervals, typicality, explanations.
    """

    _task = REGRESSION

    def fit(
        self,
        X: Iterable[AnyText],  # noqa: N803 - scikit-learn's name
        y: Any,  # noqa: ANN401 - any sequence
        sample_weight: object = None,
    ) -> Self:
        """Fine-tune the model on all rows.

        Args:
            X: n texts, or pairs as tuples of two.
            y: n finite numbers.
            sample_weight: As `TextClassifier.fit` takes it.

        Returns:
            This estimator.

        Raises:
            UserInputError: X are no texts, y no finite numbers, or there are not as many.
            DataError: There is nothing to learn from the rows.
        """
        numbers = np.asarray(y)
        if numbers.dtype.kind not in "iufb":
            raise UserInputError("y holds something else than numbers: TextClassifier takes labels.")
        numbers = numbers.astype(np.float64)
        if numbers.ndim != 1 or not np.isfinite(numbers).all():
            raise UserInputError("y must be one finite number for each text.")
        return self._fit(X, numbers.tolist(), np.zeros(len(numbers), dtype=np.int64), sample_weight)

    def predict(self, X: Iterable[AnyText]) -> Array:  # noqa: N803 - scikit-learn's name
        """Return the number of each of n texts or pairs, shape (n,)."""
        return np.asarray(self._compute(X)[:, 0])


def _read(texts: Iterable[AnyText]) -> list[Any]:
    """Return texts, or pairs where the first is one."""
    held: Any = texts
    if isinstance(held, Iterator) and not isinstance(held, io.IOBase):
        held = list(held)
    first = next(iter(held), None) if hasattr(held, "__len__") else None
    is_pair = isinstance(first, tuple) or (isinstance(first, Mapping) and "text_pair" in first)
    given = read_texts(held, pair=is_pair, call="fit")
    if (faults := given.describe_faults("fitted to")) is not None:
        raise UserInputError(f"X: {faults} Leave them out.")
    return given.texts


def _read_labels(y: Any) -> NDArray[Any]:  # noqa: ANN401 - any sequence
    """Return labels, shape (n,), of one type that has an order."""
    labels = np.asarray(y) if hasattr(y, "dtype") else np.array(list(y), dtype=object)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = column_or_1d(labels, warn=True)
    if labels.ndim != 1:
        raise UserInputError(f"y has {labels.ndim} dimensions: each text needs one label. For several, lorafit.train.")
    if labels.dtype.kind not in "Uiufb":  # Python's objects, or a type for strings alone
        values = labels.tolist()
        if len(set(map(_find_kind, values))) > 1:
            raise UserInputError(
                "y mixes types, or a label is missing: each text needs a string, a number or a boolean."
            )
        labels = np.asarray(values)
    kind = labels.dtype.kind
    if kind == "f" and not (np.isfinite(labels).all() and (labels == np.round(labels)).all()):
        raise UserInputError("y holds numbers that are not whole, or none: TextRegressor predicts numbers.")
    if kind not in "Uiufb":
        raise UserInputError(f"y is of type {labels.dtype}: labels are strings, whole numbers or booleans.")
    return labels


def _find_kind(label: object) -> type:
    """Return the type of a label; numbers are of one."""
    kinds: dict[type, tuple[type, ...]] = {str: (str,), bool: (bool, np.bool_), float: (int, float, np.number)}
    return next((kind for kind, types in kinds.items() if isinstance(label, types)), type(label))


def _count_rows(sample_weight: object, strata: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return how often each row trains, shape (rows,); of each stratum as often as it weighs, and at least once."""
    rows = len(strata)
    if sample_weight is None:
        return np.ones(rows, dtype=np.int64)
    weights = np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (rows,) or not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
        raise UserInputError(
            f"sample_weight says how often each of the {rows:,} rows counts: as many numbers of 0 or more, not all 0."
        )
    if (weights == np.round(weights)).all():
        if weights.sum() > _MOST_COPIES * rows:
            raise UserInputError(
                f"sample_weight repeats each row {weights.mean():,.0f} times on average: divide it by its mean."
            )
        return weights.astype(np.int64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    order = order[np.argsort(strata[order], kind="stable")]
    ends = np.cumsum(weights[order]) * (rows / weights.sum()) + rng.random()
    counts = np.empty(rows, dtype=np.int64)
    counts[order] = np.diff(np.floor(ends + 1e-9), prepend=0)
    for stratum in np.unique(strata):
        own = np.flatnonzero(strata == stratum)
        if not counts[own].any() and weights[own].any():
            counts[own[weights[own].argmax()]] = 1
    return counts
