"""Texts of many requests in the same forward passes, fairly and without endless queues.

One thread computes, best of all the process's first: in any other, libgomp's threads sleep after 100 looks for work
where cores are no more than threads, and small batches take longer. What waits is taken model by
model in turn, up to so many tokens, so that a model with thousands of texts does not keep another one's single text
waiting. What nobody waits for any more is dropped.
"""

import asyncio
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import numpy as np

from lorafit.errors import LorafitError
from lorafit.inference.predictor import Answer
from lorafit.serving.shelf import Engine, Served, UnknownModelError, Work
from lorafit.tasks.base import Array

_FORGET: Final = 0.2
"""Weight of the last batch in the speed by which waiting times are foretold."""

_USUAL_RATE: Final = 5000.0
"""Tokens a second, until a batch has shown another."""

_LONGEST: Final = 0.25
"""Seconds that a batch is to take at most: what comes meanwhile waits for its end."""

_FEWEST: Final = 256
"""Tokens that a batch may have however slow the machine is: fewer are computed hardly sooner."""

_TELLING: Final = 0.25
"""Share of a full batch that shows the speed: in a smaller one much of the time goes into other things than tokens."""


class ModelFailedError(LorafitError):
    """A model gave no answer."""


class OverloadedError(Exception):
    """More waits than can be answered in time; `seconds` says when to ask again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"The server is busy; ask again in {seconds} s.")
        self.seconds = seconds


class Ticket:
    """A request that waits for the answers to its texts, in the event loop that made it.

    `keep` gets each answer as it comes, with the place of its text, even if others fail or come too late.
    """

    def __init__(self, texts: int, keep: Callable[[int, Answer], None] | None = None) -> None:
        self._loop, self._keep = asyncio.get_running_loop(), keep
        self._answers: list[Answer | None] = [None] * texts
        self._left = texts
        self.done: asyncio.Future[list[Answer]] = self._loop.create_future()

    def deliver(self, place: int, answer: Answer | Exception) -> None:
        """Hand over the answer to a text, or what went wrong, from any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._take, place, answer)

    def _take(self, place: int, answer: Answer | Exception) -> None:
        if self.done.done():
            return
        if isinstance(answer, Exception):
            self.done.set_exception(answer)
            return
        self._answers[place] = answer
        if self._keep is not None:
            self._keep(place, answer)
        self._left -= 1
        if self._left == 0:
            self.done.set_result([one for one in self._answers if one is not None])


@dataclass(eq=False)
class _Waiting:
    """A text in the queue, and who waits for it at which place."""

    work: Work
    size: int
    since: float
    waiters: list[tuple[Ticket, int]] = field(default_factory=list)

    @property
    def is_wanted(self) -> bool:
        return any(not ticket.done.done() for ticket, _ in self.waiters)


@dataclass(frozen=True)
class Batch:
    """What one forward pass, or a few, was about: for measures. `waiting` are the tokens that still wait."""

    models: Sequence[str]
    tokens: int
    seconds: float
    waits: Sequence[float]
    dropped: int
    waiting: int


class Batcher:
    """Computes texts in batches, in the thread that calls `run`.

    A batch has at most `tokens` tokens, unless one text alone has more; it waits `delay` seconds for company. Texts
    that would wait longer than `patience` seconds are refused, as all are after `stop`. `tell` gets every batch.
    """

    def __init__(
        self,
        *,
        tokens: int,
        delay: float,
        patience: float,
        tell: Callable[[Batch], None],
    ) -> None:
        self._tokens, self._delay, self._patience = tokens, delay, patience
        self._tell = tell
        self._queues: OrderedDict[Served, deque[_Waiting]] = OrderedDict()
        self._known: dict[tuple[Served, object], _Waiting] = {}
        self._waiting = self._computing = 0
        self.rate = _USUAL_RATE
        """Tokens a second, of late."""
        self._ended_at = 0.0
        self._stopped = False
        self._changed = threading.Condition()
        self._ended = threading.Event()

    def run(self) -> None:
        """Compute what comes until `stop` is called."""
        self._ended_at = time.monotonic()
        while (taken := self._take()) is not None:
            if taken:
                self._compute(taken)

    def end(self) -> None:
        """Let `stop` wait for nothing more: `run` has returned, or will not be called."""
        self._ended.set()

    def stop(self) -> None:
        """Let what waits be computed, take nothing new, and return when `end` was called."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._ended.wait()

    @property
    def waiting(self) -> int:
        """Tokens that wait."""
        return self._waiting

    def admit(self, patience: float) -> None:
        """Raise `OverloadedError` where all that waits takes more than so many seconds."""
        self._check((self._waiting + self._computing) / self.rate, patience)

    def _check(self, wait: float, patience: float) -> None:
        if self._stopped or wait > patience:
            raise OverloadedError(max(1, math.ceil(wait - patience)))

    def foretell_wait(self, model: Served) -> float:
        """Return the seconds until a text that came now for a model is computed: models take turns, text by text."""
        with self._changed:
            turns = len(self._queues.get(model, ()))
            before = sum(one.size for queue in self._queues.values() for one in islice(queue, turns))
            return (self._computing + before) / self.rate

    def put(self, ticket: Ticket, works: Sequence[Work], *, patience: float | None = None) -> None:
        """Let a request wait for texts; one that waits already is not computed twice.

        Args:
            ticket: The request.
            works: Its texts.
            patience: Longest wait in seconds; None for that of any text.

        Raises:
            OverloadedError: They would wait too long; none of them waits.
        """
        now = time.monotonic()
        with self._changed:
            wait = max(map(self.foretell_wait, {work.model for work in works}), default=0.0)
            self._check(wait, self._patience if patience is None else patience)
            for place, work in enumerate(works):
                known = self._known.get((work.model, work.text))
                if known is None:
                    known = _Waiting(work, len(work.tokens.ids), now)
                    self._known[work.model, work.text] = known
                    self._queues.setdefault(work.model, deque()).append(known)
                    self._waiting += known.size
                known.waiters.append((ticket, place))
            self._changed.notify()

    def _take(self) -> list[_Waiting] | None:
        """Wait for texts, and take some for one engine; None when there will be no more."""
        with self._changed:
            while not self._queues:
                if self._stopped:
                    return None
                self._changed.wait()
            first = min(queue[0].since for queue in self._queues.values())
            while not self._stopped and self._waiting < self.budget:
                left = first + self._delay - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return self._take_fairly(next(iter(self._queues)).engine)

    def _take_fairly(self, engine: Engine) -> list[_Waiting]:
        """Take texts of an engine's models in turn; whose turn it was is the last of all."""
        taken: list[_Waiting] = []
        tokens, most = 0, self.budget
        models = [model for model in self._queues if model.engine is engine]
        while models and tokens < most:
            for model in list(models):
                queue = self._queues[model]
                if taken and tokens + queue[0].size > most:
                    return taken
                one = queue.popleft()
                self._waiting -= one.size
                taken.append(one)
                tokens += one.size
                if queue:
                    self._queues.move_to_end(model)
                else:
                    del self._queues[model]
                    models.remove(model)
        return taken

    def _compute(self, taken: list[_Waiting]) -> None:
        with self._changed:
            wanted = [one for one in taken if one.is_wanted]
            for one in taken:
                if not one.is_wanted:
                    self._forget(one)
            tokens = self._computing = sum(one.size for one in wanted)
        began = time.monotonic()
        could_begin = max(self._ended_at, min(one.since for one in taken))
        self._answer(wanted)
        self._ended_at = time.monotonic()
        if tokens >= _TELLING * self.budget:
            self.learn(taken[0].work.model.engine, tokens, self._ended_at - could_begin)
        self._tell(
            Batch(
                models=[one.work.model.name for one in wanted],
                tokens=tokens,
                seconds=self._ended_at - began,
                waits=[began - one.since for one in wanted],
                dropped=len(taken) - len(wanted),
                waiting=self.waiting,
            )
        )

    @property
    def budget(self) -> float:
        """Tokens of the next batch, at most: fewer where so many would take too long."""
        return min(self._tokens, max(_FEWEST, self.rate * _LONGEST))

    def learn(self, engine: Engine, tokens: int, seconds: float) -> None:
        """Take into account how long a batch took, from when it could begin: what is between batches counts, too."""
        engine.rate = max(engine.rate, tokens / max(seconds, 1e-6))
        self.rate = (1 - _FORGET) * self.rate + _FORGET * tokens / max(seconds, 1e-6)

    def _answer(self, wanted: Sequence[_Waiting]) -> None:
        """Compute texts of one engine, and hand the answers over; what one has spoiled is computed one by one."""
        if not wanted:
            return
        try:
            answers = self._conclude(wanted)
        except Exception as error:  # noqa: BLE001 - who asked is told, whatever it is
            if len(wanted) > 1:
                for one in wanted:
                    self._answer([one])
            elif wanted[0].work.model.is_closed:
                self._deliver(wanted[0], UnknownModelError("The model was put away meanwhile."))
            else:
                known = isinstance(error, LorafitError)
                self._deliver(
                    wanted[0], error if known else ModelFailedError(f"The model failed: {type(error).__name__}.")
                )
            return
        for one, answer in answers:
            self._deliver(one, answer)

    def _conclude(self, wanted: Sequence[_Waiting]) -> list[tuple[_Waiting, Answer]]:
        """Compute texts of one engine."""
        outputs = wanted[0].work.model.engine.compute([one.work for one in wanted])
        owners: dict[Served, list[tuple[_Waiting, Array, Array | None]]] = {}
        for one, computed in zip(wanted, outputs, strict=True):
            owners.setdefault(one.work.model, []).append((one, *computed))
        answers: list[tuple[_Waiting, Answer]] = []
        for model, own in owners.items():
            waiting, logits, features = zip(*own, strict=True)
            known = None if features[0] is None else np.concatenate(features)
            given = model.predictor.conclude([one.work.text for one in waiting], np.concatenate(logits), known)
            answers += zip(waiting, given, strict=True)
        return answers

    def _deliver(self, one: _Waiting, answer: Answer | Exception) -> None:
        """Hand an answer to all who wait for it by now."""
        with self._changed:
            self._forget(one)
            self._computing -= one.size
        for ticket, place in one.waiters:
            ticket.deliver(place, answer)

    def _forget(self, one: _Waiting) -> None:
        """Let nobody wait for a text any more."""
        self._known.pop((one.work.model, one.work.text), None)
