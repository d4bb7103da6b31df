"""What a server does with texts, whatever dialect they came in: checked, tokenised, batched, remembered."""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, TypeVar

import numpy as np

from lorafit.errors import UserInputError
from lorafit.inference.explanation import Explanation, explain_by_steps
from lorafit.inference.given_texts import NOTHING_LEFT, AnyText, read_texts
from lorafit.inference.predictor import Answer
from lorafit.serving.batching import Batcher, OverloadedError, Ticket
from lorafit.serving.measures import Measures
from lorafit.serving.shelf import Served, Shelf, Work
from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Array

T = TypeVar("T")

_WARM_UP_WORD: Final = "film"
_TOKENIZERS: Final = 2
"""Threads that read texts, beside the event loop."""

_MOST_PREPARED: Final = 256
"""Requests at most that wait for them."""

_MOST_EXPLAINED: Final = 4
"""Explanations at most that wait, that which is being made among them."""

_EXPLAINED_CHARACTERS: Final = 20_000
"""Of a text at most: it is computed again without each of its words."""

_DELETIONS: Final = 34
"""How often an explanation computes a text beside once without each of its parts."""

_KEPT_CHARACTERS: Final = 10_000
"""Of a text at most whose answer is kept with it."""


class TooMuchError(Exception):
    """More, or longer, texts than a request may have."""


class TokenlessError(UserInputError):
    """A text of which the tokenizer leaves nothing."""


@dataclass(frozen=True)
class Limits:
    """What requests may ask for.

    Attributes:
        texts: Most texts a request.
        characters: Longest text.
        body: Most bytes of a request.
        seconds: Longest time until an answer.
        wait: Longest time that a text may wait in the queue, as foreseen, before its request is refused.
        batch_tokens: Most tokens in a batch.
        delay: Seconds that a text waits for others to be computed with.
        cache: Answers that are kept, of texts of at most 10,000 characters.
    """

    texts: int = 1024
    characters: int = 200_000
    body: int = 16_000_000
    seconds: float = 30.0
    wait: float = 2.0
    batch_tokens: int = 4096
    delay: float = 0.003
    cache: int = 0


class Answered(NamedTuple):
    """Answers of a model, and how many tokens it read for them."""

    model: Served
    answers: list[Answer]
    tokens: int


class Service:
    """Answers requests, by the models on a shelf. `run` and `stop` are called once each."""

    def __init__(self, shelf: Shelf, limits: Limits, measures: Measures) -> None:
        self.shelf, self.limits, self.measures = shelf, limits, measures
        self.is_ready = self.is_ending = False
        self._tokenizing = ThreadPoolExecutor(_TOKENIZERS, thread_name_prefix="tokens")
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="opening")
        self._explaining = asyncio.Lock()
        self._prepared = self._explained = 0
        self._cache: OrderedDict[tuple[str, Text], Answer] = OrderedDict()
        self._batcher = Batcher(
            tokens=limits.batch_tokens,
            delay=limits.delay,
            patience=limits.wait,
            tell=measures.count_batch,
        )

    def run(self, *, warm_up_tokens: int) -> None:
        """Answer until `stop` is called, once some texts were computed on every engine, so that the first one is quick.

        Args:
            warm_up_tokens: Length of those texts; 0 for none.
        """
        try:
            self._warm_up(warm_up_tokens)
            self.is_ready = True
            self.measures.count_models(len(self.shelf))
            self._batcher.run()
        finally:
            self._batcher.end()

    def _warm_up(self, longest: int) -> None:
        for served in {id(one.engine): one for one in self.shelf}.values():
            if self.is_ending:
                return
            tokens = max(1, min(longest, served.predictor.max_length) - 2)
            for rows in (1, 8) if longest else ():
                words = " ".join([_WARM_UP_WORD] * tokens)
                text: Text = (words, _WARM_UP_WORD) if served.predictor.pair else words
                work = Work(served, text, served.predictor.tokenize([text]))
                began = time.monotonic()
                served.engine.compute([work] * rows)
                self._batcher.learn(served.engine, rows * len(work.tokens.ids), time.monotonic() - began)

    def stop(self) -> None:
        """Answer what waits, and refuse what comes after."""
        self.is_ending = True
        self._batcher.stop()
        for threads in (self._tokenizing, self._opening):
            threads.shutdown(wait=False, cancel_futures=True)

    @property
    def waiting(self) -> int:
        """Tokens in the queue."""
        return self._batcher.waiting

    def admit(self) -> None:
        """Raise `OverloadedError` where a request would wait too long, before it is parsed, unless answers are kept.

        Of several models it is not known which one is asked, and each has its turn: all that waits may take as long as
        an answer.
        """
        is_only = len(self.shelf) == 1 and self.shelf.folder is None
        if not self.limits.cache:
            self._batcher.admit(self.limits.wait if is_only else self.limits.seconds)

    async def find(self, name: str | None) -> Served:
        """Find a model, and open it where it waits to be asked for; raises as `Shelf.find`."""
        found = self.shelf.find_open(name)
        return found if found is not None else await self.open(partial(self.shelf.find, name))

    async def open(self, work: Callable[[], T]) -> T:
        """Open or close models, one after the other, beside the event loop."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._opening, work)
        finally:
            self.measures.count_models(len(self.shelf))

    @asynccontextmanager
    async def _holding(self, name: str | None) -> AsyncIterator[Served]:
        """Find a model, and keep it until the block ends, even if it is put away meanwhile."""
        served = await self.find(name)
        while not self.shelf.hold(served):
            served = await self.find(name)
        try:
            yield served
        finally:
            if self.shelf.release(served):
                with suppress(RuntimeError):  # the server has ended
                    self._opening.submit(self.shelf.forget, served)

    def _check_time(self, served: Served, tokens: int) -> None:
        """Refuse what could not be computed in time even if nothing else waited, as quickly as a batch ever was."""
        seconds = tokens / served.engine.rate if served.engine.rate else 0.0
        if seconds > self.limits.seconds:
            raise TooMuchError(
                f"That would take about {seconds:.0f} s to compute, and an answer may take {self.limits.seconds:g} s. "
                "Ask for less at once."
            )

    def _check_explanation(self, served: Served, tokens: int) -> None:
        """Refuse one that would take too long, alone or, as its batches wait for others', now."""
        self._check_time(served, tokens)
        budget = self._batcher.budget
        seconds = tokens / budget * (self._batcher.foretell_wait(served) + budget / self._batcher.rate)
        if seconds > self.limits.seconds:
            raise OverloadedError(math.ceil(seconds - self.limits.seconds))

    async def ask(self, name: str | None, texts: Sequence[AnyText]) -> Answered:
        """Answer texts.

        Args:
            name: The model, as `Shelf.find` takes it.
            texts: Texts, or pairs of texts for a model that takes them.

        Returns:
            The answers, in the order of the texts.

        Raises:
            UnknownModelError: As `Shelf.find`.
            TooMuchError: There are too many texts, one is too long, or all could not be computed in time.
            UserInputError: There are none, or some of them cannot be predicted.
            OverloadedError: Too much waits already.
            TimeoutError: No answer came in time.
            RunError: The model cannot be opened, or gives no numbers.
        """
        if not texts:
            raise UserInputError("The request is empty: it holds no text.")
        if len(texts) > self.limits.texts:
            raise TooMuchError(f"A request has at most {self.limits.texts:,} texts, and this one has {len(texts):,}.")
        async with asyncio.timeout(self.limits.seconds), self._holding(name) as served:
            works = await self._tokenize(served, texts)
            answers = {place: known for place, work in enumerate(works) if (known := self._recall(work)) is not None}
            self.measures.count_cached(len(answers))
            places = [place for place in range(len(works)) if place not in answers]
            missing = [works[place] for place in places]
            if len(missing) > 1:  # a single text is tried however long it may take
                self._check_time(served, sum(len(work.tokens.ids) for work in missing))
            found = await self._compute(missing, keep=lambda place, answer: self._remember(missing[place], answer))
            answers |= zip(places, found, strict=True)
        return Answered(
            served, [answers[place] for place in range(len(works))], sum(len(work.tokens.ids) for work in works)
        )

    async def explain(self, name: str | None, text: AnyText, label: str | None) -> tuple[Served, Explanation]:
        """Say which words a prediction rests on; one at a time. Raises as `ask`, and where the label is unknown."""
        if self._explained >= _MOST_EXPLAINED:
            raise OverloadedError(round(self.limits.seconds))
        self._explained += 1
        try:
            async with asyncio.timeout(self.limits.seconds), self._holding(name) as served, self._explaining:
                predictor = served.predictor
                (work,) = await self._tokenize(served, [text], characters=_EXPLAINED_CHARACTERS)
                steps = explain_by_steps(predictor.task, predictor.calibration, work.text, label=label)
                found = await self._beside(partial(_advance, steps, None))
                if not isinstance(found, Explanation):
                    self._check_explanation(served, len(work.tokens.ids) * (len(found) + _DELETIONS))
                while not isinstance(found, Explanation):
                    values = await self._compute_values(served, found)
                    found = await self._beside(partial(_advance, steps, values))
                return served, found
        finally:
            self._explained -= 1

    async def _compute_values(self, served: Served, texts: Sequence[Text]) -> Array:
        """Compute values of shape (texts, labels); no more than a batch of them waits, as others wait, too."""
        tokens = await self._beside(partial(served.predictor.tokenize, texts))
        answers: list[Answer] = []
        works = [Work(served, text, tokens.select(np.array([place]))) for place, text in enumerate(texts)]
        while left := works[len(answers) :]:
            ends = np.cumsum([len(work.tokens.ids) for work in left])
            part = left[: max(1, int((ends <= self._batcher.budget).sum()))]
            answers += await self._compute(part, patience=math.inf)  # it was admitted as a whole
        return np.stack([answer.values for answer in answers])

    async def _compute(
        self,
        works: Sequence[Work],
        *,
        keep: Callable[[int, Answer], None] | None = None,
        patience: float | None = None,
    ) -> list[Answer]:
        """Let texts wait in the queue for their answers, unless nobody waits for these any more."""
        if not works:
            return []
        ticket = Ticket(len(works), keep)
        try:
            self._batcher.put(ticket, works, patience=patience)
            return await ticket.done
        finally:
            ticket.done.cancel()

    async def _tokenize(self, served: Served, texts: Sequence[AnyText], *, characters: int | None = None) -> list[Work]:
        """Check and tokenise texts beside the event loop."""
        if self._prepared >= _MOST_PREPARED:
            raise OverloadedError(1)
        self._prepared += 1
        try:
            most = min(characters or self.limits.characters, self.limits.characters)
            prepare = partial(self._prepare, served, texts, most)
            return await self._beside(prepare)
        finally:
            self._prepared -= 1

    async def _beside(self, work: Callable[[], T]) -> T:
        """Do something beside the event loop that takes longer than it may."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, work)

    def _prepare(self, served: Served, texts: Sequence[AnyText], most: int) -> list[Work]:
        """Check and tokenise texts of at most so many characters."""
        predictor = served.predictor
        given = read_texts(texts, pair=predictor.pair)
        for row, text in enumerate(given.texts, start=1):
            if sum(map(len, text)) > most if isinstance(text, tuple) else isinstance(text, str) and len(text) > most:
                raise TooMuchError(f"A text has at most {most:,} characters, and text {row} has more.")
        if (faults := given.describe_faults()) is not None:
            pairs = "This model takes pairs of texts. " if predictor.pair else ""
            raise UserInputError(f"{faults} {pairs}Leave them out of the request.")
        tokens = predictor.tokenize(given.texts)
        empty = np.flatnonzero(predictor.find_tokenless(tokens)).tolist()
        if empty:
            raise TokenlessError(f"Text {empty[0] + 1} cannot be predicted: {NOTHING_LEFT}.")
        return [Work(served, text, tokens.select(np.array([place]))) for place, text in enumerate(given.texts)]

    def _recall(self, work: Work) -> Answer | None:
        if not self.limits.cache:
            return None
        answer = self._cache.get((work.model.predictor.fingerprint, work.text))
        if answer is not None:
            self._cache.move_to_end((work.model.predictor.fingerprint, work.text))
        return answer

    def _remember(self, work: Work, answer: Answer) -> None:
        if not self.limits.cache or len(join_text(work.text)) > _KEPT_CHARACTERS:
            return
        self._cache[work.model.predictor.fingerprint, work.text] = answer
        while len(self._cache) > self.limits.cache:
            self._cache.popitem(last=False)


def _advance(steps: Generator[list[Text], Array, Explanation], values: Array | None) -> list[Text] | Explanation:
    """Return the texts that an explanation asks of next, or itself; values are of those before, None at first."""
    try:
        return next(steps) if values is None else steps.send(values)
    except StopIteration as end:
        found: Explanation = end.value
        return found
