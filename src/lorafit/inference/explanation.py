"""Explain one prediction: which words it rests on, and whether that holds when they are deleted."""

from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lorafit.data.checks import describe_text_fault
from lorafit.errors import UserInputError
from lorafit.inference.words import Span, cut_spans, leave_out
from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Array, Prediction, Task
from lorafit.tasks.records import Calibration

MAX_SPANS = 256
"""At most so many parts of a text are left out in turn; longer texts are cut into groups of words."""

_SHARES = (10, 20, 50)
"""Per cent of the words that the deletion test deletes."""


class TextModel(Protocol):
    """What is needed of a predictor; `lorafit.load` gives one."""

    @property
    def task(self) -> Task:
        """What it predicts."""

    @property
    def calibration(self) -> Calibration | None:
        """Its calibration, if it has one."""

    def compute_values(self, texts: Sequence[Text]) -> Array:
        """Return values of shape (texts, labels)."""


@dataclass(frozen=True)
class WordContribution:
    """What a word adds to the value of a label.

    Attributes:
        text: The word, or the group of words, as it stands in the text: `text[start:end]` of the whole.
        start: Its first character, counted from 0.
        end: The character after its last.
        contribution: `Task.contribution` with the whole text minus that without the word: log-odds of the label in
            nats, or the number in its unit. Above 0 the word speaks for the label, or raises the number.
    """

    text: str
    start: int
    end: int
    contribution: float


@dataclass(frozen=True)
class Deletion:
    """What a deletion of several words does to the value of a label.

    Attributes:
        share: Share of the words that was asked for, above 0 and below 1.
        count: Words (or groups of words) deleted: the share rounded up.
        drop: Value with the whole text minus that without the words of highest contribution.
        random_drops: The same without as many words drawn at random, one value a draw.
    """

    share: float
    count: int
    drop: float
    random_drops: tuple[float, ...]

    @property
    def random_drop(self) -> float:
        """Mean of the random drops."""
        return sum(self.random_drops) / len(self.random_drops)


@dataclass(frozen=True)
class Explanation:
    """Which words the value of a label rests on.

    Attributes:
        text: The whole text; of a pair both, as `join_text` joins them.
        task: What the model predicts.
        label: The label that is explained; of a regression the name of its number.
        score: Its value: a probability, 0 to 1, or the number, in its unit.
        prediction: The prediction for the text.
        words: One contribution a word, in the order of the text; none for a text of one word, also in a pair, of which
            nothing would be left.
        words_a_span: 1, or for a text of more words than there may be spans, how many adjacent ones each of `words`
            holds (the last may hold fewer).
        deletions: The deletion test by growing shares; none for fewer than three words.
    """

    text: str
    task: Task
    label: str
    score: float
    prediction: Prediction
    words: tuple[WordContribution, ...]
    words_a_span: int
    deletions: tuple[Deletion, ...]

    @property
    def drop(self) -> float | None:
        """Mean drop by contribution (comprehensiveness, as its area over the shares), None without a test."""
        return _mean([deletion.drop for deletion in self.deletions])

    @property
    def random_drop(self) -> float | None:
        """Mean drop at random, None without a test."""
        return _mean([deletion.random_drop for deletion in self.deletions])

    @property
    def faithfulness(self) -> float | None:
        """Mean drop by contribution minus mean drop at random, in the unit of `score`; None without a test."""
        return None if self.drop is None or self.random_drop is None else self.drop - self.random_drop

    @property
    def beats_chance(self) -> bool | None:
        """Whether deleting by contribution takes away more than every random draw does; None without a test."""
        if self.drop is None:
            return None
        draws = zip(*(deletion.random_drops for deletion in self.deletions), strict=True)
        return all(self.drop > sum(draw) / len(draw) for draw in draws)


def explain(
    predictor: TextModel,
    text: Text,
    *,
    label: str | None = None,
    most_spans: int = MAX_SPANS,
    draws: int = 10,
    seed: int = 0,
) -> Explanation:
    """Find the words a prediction rests on by leaving out each in turn.

    Source: occlusion as in Zeiler & Fergus (2014), arXiv:1311.2901, for words as in Li, Monroe & Jurafsky (2016),
    arXiv:1612.08220. It needs predictions alone, so it is the same for every runtime. A word is removed, not
    replaced by a mask or unknown token: fine-tuning has shown the model shorter texts but no masks, and not every
    tokenizer has one. What counts as a word: `lorafit.inference.words`.

    It is tested by deletion (DeYoung et al. 2020, ERASER, arXiv:1911.03429): the label's probability, or the number,
    must fall more when the top 10, 20 and 50 % of the words are deleted than when as many are at random. A share that
    amounts to one word is left out: that deletion is what was measured, so it could not fail.

    Args:
        predictor: A trained model.
        text: The text or the pair of texts, none empty.
        label: The label to explain; None takes the one that the text is first of all given.
        most_spans: Parts left out in turn, at least 1; longer texts are cut into groups of words.
        draws: Random deletions of each size, at least 1.
        seed: Of the draws; the same seed gives the same explanation.

    Returns:
        The contributions and the deletion test.

    Raises:
        UserInputError: The text cannot be predicted, there is no such label, or fewer draws than 1.
    """
    steps = explain_by_steps(
        predictor.task, predictor.calibration, text, label=label, most_spans=most_spans, draws=draws, seed=seed
    )
    texts = next(steps)
    while True:
        values = predictor.compute_values(texts)
        try:
            texts = steps.send(values)
        except StopIteration as end:
            found: Explanation = end.value
            return found


def explain_by_steps(
    task: Task,
    calibration: Calibration | None,
    text: Text,
    *,
    label: str | None = None,
    most_spans: int = MAX_SPANS,
    draws: int = 10,
    seed: int = 0,
) -> Generator[list[Text], Array, Explanation]:
    """Explain as `explain` does, of a model that is asked elsewhere.

    Args:
        task: What the model predicts.
        calibration: Its calibration, if it has one.
        text: As in `explain`.
        label: As in `explain`.
        most_spans: As in `explain`.
        draws: As in `explain`.
        seed: As in `explain`.

    Returns:
        A generator: it yields texts, is to be sent their values, of shape (texts, labels), and returns the
        contributions and the deletion test.

    Raises:
        UserInputError: As `explain`.
    """
    _check_request(text, label, task.label_names, draws)
    spans, words_a_span = cut_spans(text, most_spans)
    single = [{index} for index in range(len(spans)) if len(spans) > 1]
    texts, places = _list_different(text, spans, [set(), *single])
    answered = yield texts
    values = answered[places]
    output = int(task.main_output(values[:1])[0]) if label is None else task.label_names.index(label)
    added = task.contribution(values, output)
    contributions = added[0] - added[1:]
    counts, removed = _choose_deletions(contributions, draws=draws, seed=seed)
    score, drops = float(values[0, output]), list[list[float]]()
    if removed:
        texts, places = _list_different(text, spans, removed)
        answered = yield texts
        drops = (score - answered[places, output]).reshape(len(counts), 1 + draws).tolist()
    return Explanation(
        text=join_text(text),
        task=task,
        label=task.label_names[output],
        score=score,
        prediction=task.predict(values[0], calibration),
        words=_list_words(join_text(text), spans if single else (), contributions),
        words_a_span=words_a_span,
        deletions=tuple(
            Deletion(share=share / 100, count=count, drop=first, random_drops=tuple(others))
            for (share, count), (first, *others) in zip(counts.items(), drops, strict=True)
        ),
    )


def _list_words(text: str, spans: Sequence[Span], contributions: Array) -> tuple[WordContribution, ...]:
    return tuple(
        WordContribution(text[start:end], start, end, contribution)
        for (start, end), contribution in zip(spans, contributions.tolist(), strict=True)
    )


def _check_request(text: Text, label: str | None, labels: tuple[str, ...], draws: int) -> None:
    if (fault := describe_text_fault(text)) is not None:
        raise UserInputError(f"This cannot be explained: {fault}. Give a text with more than white space in it.")
    if draws < 1:
        raise UserInputError(f"draws must be at least 1, got {draws}.")
    if label is not None and label not in labels:
        raise UserInputError(f"There is no label {label!r}. Allowed: {', '.join(map(repr, labels))}.")


def _choose_deletions(contributions: Array, *, draws: int, seed: int) -> tuple[dict[int, int], list[set[int]]]:
    """Return how many words each share deletes, and which: by contribution first, then at random, share by share."""
    total = len(contributions)
    counts = {share: -(-total * share // 100) for share in _SHARES}
    told = {share: count for share, count in counts.items() if count > 1}
    rng = np.random.default_rng(seed)
    ranked = np.argsort(-contributions, kind="stable")
    return told, [
        set(choice.tolist())
        for count in told.values()
        for choice in (ranked[:count], *(rng.choice(total, count, replace=False) for _ in range(draws)))
    ]


def _list_different(
    text: Text, spans: Sequence[Span], removed: Sequence[Collection[int]]
) -> tuple[list[Text], list[int]]:
    """Return the different texts without some words, and which of them each is: equal neighbours leave the same."""
    texts = [leave_out(text, spans, indices) for indices in removed]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return list(places), [places[text] for text in texts]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
