"""Is a text like those that a model was trained on? A distance in the model's own features, as a conformal p-value.

The score adds up three signs. One is the squared Mahalanobis distance of a text's features (`models.features`: the last
state that the head reads, and the mean one below the last encoder layer) to the nearest mean of a stratum of training
rows, with one shrunken covariance (Lee et al. 2018, "A Simple Unified Framework for Detecting Out-of-Distribution
Samples and Adversarial Attacks", arXiv:1807.03888; Ledoit and Wolf 2004, "A Well-Conditioned Estimator for
Large-Dimensional Covariance Matrices", J. Multivariate Analysis 88). A mean over many tokens lies near the centre,
whatever they say, so a text's length counts where it is unusual; and so does the doubt of the encoder and, in a blend,
of its word models: the entropy of their answers. The calibration rows, which trained nothing, turn the score into a
p-value (Vovk et al. 2005, "Algorithmic Learning in a Random World"; Bates et al. 2023, "Testing for Outliers with
Conformal p-values", arXiv:2104.08279).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from lorafit.errors import RunError, UserInputError
from lorafit.inference.triangular import Triangular
from lorafit.system.files import check_file
from lorafit.system.text import Text, join_text
from lorafit.tasks.records import Exchangeability
from lorafit.tasks.statistics import energy_test

Array = NDArray[np.float64]

MOST_ROWS: Final = 1000
"""Rows of a split, at most, that are looked at: training rows for means and covariance, calibration rows for ranks."""

FALSE_ALARMS: Final = 0.01
"""How often texts that are like the calibration rows may be said to be of another kind."""

_PERMUTATIONS: Final = 999

_LEAST_SPREAD: Final = 1e-6
"""Added to the covariance, as a share of the mean variance: features that never vary have none."""

_USUAL_LENGTHS: Final = 2.0
"""Standard deviations of the logarithm of a text's characters within which its length counts for nothing."""

_LENGTH_WEIGHT: Final = 2.0
"""What each further one counts, where a standard deviation of another sign counts 1."""

_PARTS: Final = ("means", "whitening", "calibration")


@dataclass(frozen=True)
class Typicality:
    """What typical features are like.

    Attributes:
        means: Shape (strata, width), of the training rows.
        whitening: Shape (width, width), W with Wᵀ W = the inverse of the shrunken covariance about the means.
        calibration: Shape (n, 1 + signs): of the calibration rows the squared distances, and what `add_signs` adds.
        reject: Texts whose typicality is at most this are marked as atypical, above 0 and below 1; None marks none.
    """

    means: NDArray[np.float32]
    whitening: Triangular
    calibration: NDArray[np.float32]
    reject: float | None = None

    @classmethod
    def fit(cls, features: NDArray[np.floating], strata: NDArray[np.int64], held_out: NDArray[np.floating]) -> Self:
        """Fit means and covariance to training rows, and the scores to rows that trained nothing.

        Args:
            features: Shape (rows, width), of training rows.
            strata: Shape (rows,): the groups that have means of their own, from `Task.strata`.
            held_out: Of calibration rows, n at least 1, as `score` takes them.

        Returns:
            The fitted score.
        """
        from scipy.linalg import solve_triangular
        from sklearn.covariance import ledoit_wolf

        rows = np.asarray(features, dtype=np.float64)
        names, places = np.unique(strata, return_inverse=True)
        means = np.stack([rows[places == place].mean(axis=0) for place in range(len(names))])
        covariance, _ = ledoit_wolf(rows - means[places], assume_centered=True)
        floor = max(np.trace(covariance) / len(covariance), np.finfo(np.float32).tiny) * _LEAST_SPREAD
        lower = np.linalg.cholesky(covariance + floor * np.eye(len(covariance)))
        whitening = Triangular.of(solve_triangular(lower, np.eye(len(lower)), lower=True))
        unranked = cls(means.astype(np.float32), whitening, np.empty((0, 1), np.float32))
        return replace(unranked, calibration=unranked._measure(held_out))

    def whiten(self, features: NDArray[np.floating]) -> Array:
        """Return features as `score` takes them, without other signs, about a centre, so that all vary alike."""
        centre = self.means.mean(axis=0, dtype=np.float64)
        return self.whitening.multiply(np.asarray(features, dtype=np.float64)[:, : len(centre)] - centre)

    @cached_property
    def _whitened_means(self) -> Array:
        return self.whiten(self.means)

    def score(self, features: NDArray[np.floating]) -> Array:
        """Score how untypical texts are.

        Args:
            features: Shape (rows, width), or (rows, width + signs), from `add_signs`. Texts are compared by the signs
                that they and the calibration rows have: without a blend, those of the encoder alone.

        Returns:
            Shape (rows,): the squared distance to the nearest mean; with other signs the sum of all, each divided by
            its standard deviation over the calibration rows. The length's is how far it is from usual ones, twice.
        """
        return self._combine(self._measure(features))

    def _measure(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return squared distances and, if they are given, other signs, in columns; rounded as they are kept."""
        rows, means = self.whiten(features), self._whitened_means
        squares = (rows**2).sum(axis=1)[:, np.newaxis] - 2 * rows @ means.T + (means**2).sum(axis=1)
        parts = np.column_stack([squares.min(axis=1).clip(min=0.0), features[:, rows.shape[1] :]])
        return parts.astype(np.float32)

    def _combine(self, parts: NDArray[np.float32]) -> Array:
        """Return scores from what `_measure` gives."""
        known, signs = self.calibration.astype(np.float64), parts.astype(np.float64)
        count = min(known.shape[1], signs.shape[1])
        if count == 1:
            return signs[:, 0]
        centre, spreads = known[:, 1].mean(), known.std(axis=0)
        signs = signs[:, :count] / np.where(spreads > 0, spreads, 1.0)[:count]
        unusual = np.abs(signs[:, 1] - centre / (spreads[1] or 1.0)) - _USUAL_LENGTHS
        signs[:, 1] = _LENGTH_WEIGHT * unusual.clip(min=0.0)
        return np.asarray(signs.sum(axis=1))

    def rank(self, features: NDArray[np.floating]) -> Array:
        """Return the typicality of each text: its score's rank among those of the calibration rows.

        It is (1 + the calibration rows with a score at least as large) / (n + 1). Of a text drawn like the calibration
        rows it is at most a with a probability of at most a, for every a; with other signs but for the standard
        deviations, which a single row hardly moves.

        Args:
            features: As `score` takes them.

        Returns:
            Shape (rows,), above 0 and at most 1.
        """
        n = len(self.calibration)
        parts = self._measure(features)
        known = np.sort(self._combine(self.calibration[:, : parts.shape[1]]))
        below = np.searchsorted(known, self._combine(parts), side="left")
        return np.asarray((1 + n - below) / (n + 1))

    def rejecting(self, share: float | None) -> Self:
        """Return the same with marks for atypical texts.

        Args:
            share: Texts whose typicality is at most this are marked; None marks none.

        Returns:
            The fitted score.

        Raises:
            UserInputError: So few calibration rows give no text so small a typicality.
        """
        least = 1 / (len(self.calibration) + 1)
        if share is not None and share < least:
            raise UserInputError(
                f"--reject-atypical {share:g} would mark nothing: with {len(self.calibration):,} calibration rows no "
                f"typicality is below {least:.3g}. Give a larger share, or train with more validation rows."
            )
        return replace(self, reject=share)

    def compare(
        self,
        held_out: NDArray[np.floating],
        features: NDArray[np.floating],
        *,
        units: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
        false_alarms: float = FALSE_ALARMS,
        seed: int = 0,
    ) -> Exchangeability:
        """Test whether texts are exchangeable with calibration rows: whether all that rests on these holds for them.

        The distance is that of the distributions of both scores, less what chance adds to it (Massart 1990, "The Tight
        Constant in the Dvoretzky-Kiefer-Wolfowitz Inequality", Annals of Probability 18); of rows in groups, chance
        draws whole groups.

        Args:
            held_out: Of m calibration rows, m at least 1, as `score` takes them.
            features: Those of n texts, n at least 1.
            units: As `energy_test` takes them.
            false_alarms: As in `Exchangeability`, above 0 and below 1.
            seed: Of the permutations.

        Returns:
            What was found.
        """
        p_value = energy_test(
            self.whiten(held_out),
            self.whiten(features),
            units=units,
            permutations=max(_PERMUTATIONS, math.ceil(1 / false_alarms)),
            seed=seed,
        )
        known, new = (np.sort(self.score(one)) for one in (held_out, features))
        places = np.concatenate([known, new])
        shares = (np.searchsorted(one, places, side="right") / len(one) for one in (known, new))
        apart = float(np.abs(np.subtract(*shares)).max())
        counts = [len(known), len(new)] if units is None else [len(np.unique(one)) for one in units]
        chance = sum(np.sqrt(np.log(4 / false_alarms) / (2 * count)) for count in counts)
        return Exchangeability(
            rows=len(features),
            calibration_rows=len(held_out),
            p_value=p_value,
            false_alarms=false_alarms,
            distance=max(apart - float(chance), 0.0),
        )

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        from safetensors.numpy import save_file

        parts = {"means": self.means, "whitening": self.whitening.whole().T, "calibration": self.calibration}
        save_file({name: np.ascontiguousarray(part) for name, part in parts.items()}, path)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Args:
            path: The file.

        Returns:
            The fitted score.

        Raises:
            RunError: It is missing, damaged, or holds something else.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        check_file(path, RunError)
        try:
            parts = load_file(path)
        except (OSError, SafetensorError) as error:
            raise RunError(f"{path} is damaged: it cannot be read as safetensors ({error}).") from error
        if set(parts) != set(_PARTS) or not all(_is_sound(part) for part in parts.values()):
            raise RunError(f"{path} is damaged: it does not hold {', '.join(_PARTS)} as finite numbers in fp32.")
        means, whitening, calibration = (parts[name] for name in _PARTS)
        width = means.shape[-1]
        shapes = means.ndim, whitening.shape, calibration.ndim
        if shapes != (2, (width, width), 2) or calibration.shape[1] not in {1, 3, 4} or np.tril(whitening, -1).any():
            raise RunError(
                f"{path} is damaged, or of another version of lorafit: the shapes of its parts do not fit each other. "
                "Train the run again."
            )
        return cls(means, Triangular.of(whitening.T), calibration)


def add_signs(features: NDArray[np.floating], texts: Sequence[Text], *doubts: Array) -> Array:
    """Return features with what else tells how typical a text is, as `Typicality` takes them.

    Args:
        features: Shape (n, width).
        texts: The n texts, or pairs.
        *doubts: How undecided encoder and, in a blend, word models are (`Task.doubt`): each of shape (n,).

    Returns:
        Shape (n, width + 1 + doubts): after the features the logarithm of the characters, blanks beside
            blanks left out, then the doubts.
    """
    characters = np.log1p([len(" ".join(join_text(text).split())) for text in texts])
    return np.column_stack([features, characters, *doubts])


def draw_rows(rows: int, seed: int) -> NDArray[np.int64]:
    """Return the places of the rows of a split that are looked at, in order."""
    return np.sort(np.random.default_rng(seed).permutation(rows)[:MOST_ROWS])


def check_rejection(share: float | None, *, raw: bool = False) -> None:
    """Refuse a share of typical texts to reject that is none, or any together with `raw`; None is fine."""
    if share is None:
        return
    if not 0 < share < 1:
        raise UserInputError(
            f"--reject-atypical {share:g}: it is the share of typical texts that may be marked as well, above 0 and "
            "below 1, for example 0.01."
        )
    if raw:
        raise UserInputError("What is atypical is known by the calibration rows: leave out --raw or --reject-atypical.")


def _is_sound(part: NDArray[np.generic]) -> bool:
    return part.dtype == np.float32 and part.size > 0 and bool(np.isfinite(part).all())
