"""The models that a server holds, by name: opened, found, and put away again."""

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from lorafit.errors import LorafitError, UserInputError
from lorafit.inference.export.records import ExportLayout
from lorafit.inference.loading import Opened, load, load_with
from lorafit.inference.predictor import Predictor, Runtime, compute_outputs
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.models.methods import METHODS
from lorafit.models.tokenization import TokenizedTexts
from lorafit.runs.folder import RunLayout
from lorafit.runs.records import RunRecord
from lorafit.system.extras import missing_modules
from lorafit.system.hardware import choose_threads, memory_bytes, memory_room
from lorafit.system.text import Text
from lorafit.tasks.base import Array

if TYPE_CHECKING:
    from lorafit.models.runtimes.mixed import MixedRuntime

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a model may be called."""

NAME_RULE: Final = "small letters, digits, '.', '_' and '-', at most 64, the first a letter or a digit"

_FORGIVE: Final = 10.0
"""Seconds until a model that could not be opened is tried again."""

_DIGEST: Final = 12
"""Characters of a fingerprint that answers and `name@digest` have."""


class UnknownModelError(LorafitError):
    """There is no model of that name."""


class OccupiedError(LorafitError):
    """A name is taken, or no more models fit."""


class Work(NamedTuple):
    """One text to compute."""

    model: "Served"
    text: Text
    tokens: TokenizedTexts


class Engine:
    """An encoder at work: that of one model, or one that several adapters share."""

    def __init__(self, runtime: Runtime, shared: "MixedRuntime | None" = None) -> None:
        self.runtime = runtime
        self.shared = shared
        self.rate = 0.0
        """Most tokens a second that a batch has shown; 0 before one has."""

    def compute(self, works: Sequence[Work]) -> list[tuple[Array, Array | None]]:
        """Compute texts in as few passes as their lengths allow.

        Args:
            works: Texts of models that run here.

        Returns:
            For each its logits, shape (1, outputs), and its features, shape (1, width), or None.
        """
        tokens = TokenizedTexts.join([work.tokens for work in works])
        predictors = [work.model.predictor for work in works]
        logits, features = compute_outputs(
            self.runtime,
            tokens if self.shared is None else _Owned.of(tokens, works),
            predictors[0].pad_id,
            outputs=len(predictors[0].task.output_names) if self.shared is None else self.shared.width,
            most_tokens=max(one.max_length for one in predictors),
            with_features=any(one.typicality is not None for one in predictors),
        )
        return [
            (
                logits[row : row + 1, : len(one.task.output_names)],
                None if features is None or one.typicality is None else features[row : row + 1],
            )
            for row, one in enumerate(predictors)
        ]


@dataclass(frozen=True)
class _Owned:
    """Tokenised texts, and the number of each input's adapter in a shared engine, shape (n,)."""

    tokens: TokenizedTexts
    numbers: NDArray[np.int64]

    @classmethod
    def of(cls, tokens: TokenizedTexts, works: Sequence[Work]) -> "_Owned":
        numbers = np.array([work.model.number for work in works], dtype=np.int64)
        return cls(tokens, np.repeat(numbers, [len(work.tokens) for work in works]))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.tokens.lengths

    @property
    def windows(self) -> NDArray[np.int64] | None:
        return self.tokens.windows

    def pad(self, rows: NDArray[np.int64], pad_id: int) -> Mapping[str, Any]:
        return {**self.tokens.pad(rows, pad_id), "adapters": self.numbers[rows]}


@dataclass(eq=False)
class Served:
    """A model that answers.

    Attributes:
        name: What it is asked for by.
        folder: Where it lies.
        predictor: It, as `lorafit.load` would open it.
        engine: What runs its encoder.
        number: That of its adapter in a shared engine.
        alone: Why it shares its base with no other, as a clause; None if it does.
        pinned: Whether it stays however long nobody asks for it.
        used: When it was last asked for, in seconds of a clock of its own.
        uses: Requests that it is held for, until they are answered.
        is_closed: Whether it was put away.
    """

    name: str
    folder: Path
    predictor: Predictor
    engine: Engine
    number: int = 0
    alone: str | None = None
    pinned: bool = False
    used: float = field(default_factory=time.monotonic)
    uses: int = 0
    is_closed: bool = False

    @property
    def digest(self) -> str:
        """What tells it from another model that had its name."""
        return self.predictor.fingerprint[:_DIGEST]

    @property
    def report(self) -> Path | None:
        """Its report, where it lies beside it, and not elsewhere."""
        return self._find(RunLayout(self.folder).report)

    @property
    def card(self) -> Path | None:
        """Its model card, likewise."""
        return self._find(RunLayout(self.folder).card)

    def _find(self, path: Path) -> Path | None:
        return path if path.is_file() and path.resolve().is_relative_to(self.folder.resolve()) else None


class Shelf:
    """Opens models and finds them. Thread-safe.

    `folder` holds models that are opened when somebody asks for them, one a subfolder; None for none. At most `most`
    models are open, and one makes room for the next where this process may take less than `spare` bytes more; None for
    a tenth of what it may have. `precision` is that of runs, as `lorafit.load` has it.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        most: int = 100,
        spare: int | None = None,
        precision: Literal["auto", "fp32", "bf16"] = "auto",
    ) -> None:
        self.folder = None if folder is None else folder.resolve()
        self.most = most
        self._spare = memory_bytes() // 10 if spare is None else spare
        self._precision = precision
        self._served: dict[str, Served] = {}
        self._shared: dict[str, Engine] = {}
        self._tokenizers: dict[str, tuple[Tokenizer, int]] = {}
        self._failed: dict[str, tuple[float, LorafitError]] = {}
        self._lock = threading.RLock()
        self._using = threading.Lock()
        """Held where models are taken into use or out of it, and never for long."""
        self._context = copy_context()  # threads know nothing of `lorafit.opening`

    def __iter__(self) -> Iterator[Served]:
        """Yield the models that are open, by name."""
        return iter(sorted(self._served.copy().values(), key=lambda one: one.name))

    def __len__(self) -> int:
        return len(self._served)

    def list_waiting(self) -> list[str]:
        """Return the names in `folder` that are not open."""
        if self.folder is None:
            return []
        names = sorted(one.name for one in self.folder.iterdir() if NAME.fullmatch(one.name))
        return [name for name in names if name not in self._served and self._find_inside(name) is not None]

    def find_open(self, name: str | None) -> Served | None:
        """Find a model that is open; None where it may wait in `folder`. Raises `UnknownModelError` as `find`."""
        if name is None:
            served = list(self._served.copy().values())
            if len(served) == 1:
                return _use(served[0])
            raise UnknownModelError(f"Name the model: {self._describe()}.")
        plain, _, digest = name.partition("@")
        found = self._served.get(plain)
        if found is not None and digest:
            _check_digest(found, digest)
        return None if found is None else _use(found)

    def find(self, name: str | None) -> Served:
        """Find a model, and open it where it waits in `folder`.

        Args:
            name: Its name, with `@` and its digest or not; None for the only one.

        Returns:
            The model.

        Raises:
            UnknownModelError: There is none, or it has another digest, or several are open and none was named.
            LorafitError: It cannot be opened; nor is that tried again for some seconds.
        """
        found = self.find_open(name)
        if found is not None:
            return found
        plain, _, digest = (name or "").partition("@")
        folder = self._find_inside(plain) if NAME.fullmatch(plain) else None
        if folder is None:
            raise UnknownModelError(f"There is no model of that name. {self._describe()}.")
        with self._lock:
            served = self._served.get(plain)
            if served is None:
                failed = self._failed.get(plain)
                if failed is not None and time.monotonic() - failed[0] < _FORGIVE:
                    raise failed[1].with_traceback(None)
                try:
                    served = self.open(plain, folder)
                except OccupiedError:
                    raise
                except LorafitError as error:
                    self._failed[plain] = time.monotonic(), _strip(error)
                    raise
                self._failed.pop(plain, None)
        if digest:
            _check_digest(served, digest)
        return _use(served)

    def _describe(self) -> str:
        names = [one.name for one in self]
        return f"There are {', '.join(names[:10])}{' …' if len(names) > 10 else ''}" if names else "None is open"

    def locate(self, path: str) -> Path:
        """Return a folder below `folder`.

        Args:
            path: Its path from there.

        Returns:
            The folder, links followed.

        Raises:
            UserInputError: It leads out of `folder`, or there is none that holds models.
        """
        if self.folder is None:
            raise UserInputError("This server opens no further models: it was started without --adapters-dir.")
        found = self._find_inside(path)
        if found is None:
            raise UserInputError("The path is not that of a model below --adapters-dir, with all its files there.")
        return found

    def _find_inside(self, path: str) -> Path | None:
        """Return a model's folder below `folder`; None where there is none, or a link in it leads out."""
        if self.folder is None:
            return None
        with suppress(OSError, ValueError, RuntimeError):  # too long, NUL in it, links in a circle
            found = (self.folder / path).resolve()
            if found == self.folder or not found.is_relative_to(self.folder) or not _is_model(found):
                return None
            links = (one for one in found.rglob("*") if one.is_symlink())
            return found if all(one.resolve().is_relative_to(self.folder) for one in links) else None
        return None

    def open(self, name: str, folder: Path, *, pinned: bool = False) -> Served:
        """Open a model, in place of the one that was asked for least lately where there are too many.

        Args:
            name: What it shall be called.
            folder: A run or an export.
            pinned: Whether it stays open.

        Returns:
            The model, checked against its golden logits.

        Raises:
            UserInputError: The name is not one that models may have.
            OccupiedError: There is one of that name, or there is no room, and all that are open are pinned.
            LorafitError: It cannot be opened.
        """
        if not NAME.fullmatch(name):
            raise UserInputError(f"A model's name has {NAME_RULE}. Give it another one: NAME=FOLDER.")
        with self._lock:
            if name in self._served:
                raise OccupiedError(f"There is a model {name} already.")
            if len(self._served) >= self.most and all(one.pinned for one in self._served.values()):
                raise OccupiedError(f"{self.most} models are open, and all of them are to stay.")
            if not pinned:
                self._spare_memory()
            served = self._context.copy().run(self._open, name, folder.resolve())
            served.pinned = pinned
            if len(self._served) >= self.most and (idle := self._find_idle()) is not None:
                self.close(idle.name)
            self._served[name] = served
            return served

    def _find_idle(self) -> Served | None:
        """Return the model that was asked for least lately, of those that need not stay."""
        idle = (one for one in self._served.values() if not one.pinned)
        return min(idle, key=lambda one: (one.uses > 0, one.used), default=None)

    def _spare_memory(self) -> None:
        """Put a model away where memory is short, before another one takes more."""
        if not self._served or (room := memory_room()) is None or room >= self._spare:
            return
        idle = self._find_idle()
        if idle is None:
            raise OccupiedError("Memory is short, and all models that are open are to stay.")
        self.close(idle.name)
        release_freed_memory()

    def close(self, name: str) -> None:
        """Put a model away; requests that hold it are still answered.

        Args:
            name: Its name.

        Raises:
            UnknownModelError: None of that name is open.
            OccupiedError: It is to stay.
        """
        with self._lock:
            with self._using:
                served = self._served.get(name)
                if served is None:
                    raise UnknownModelError("No model of that name is open.")
                if served.pinned:
                    raise OccupiedError(f"The model {name} stays: the server was started with it.")
                del self._served[name]
                served.is_closed = True
                is_idle = served.uses == 0
            if is_idle:
                self.forget(served)

    def hold(self, served: Served) -> bool:
        """Keep a model for a request until `release`, even if it is put away; return whether it is still open."""
        with self._using:
            if not served.is_closed:
                served.uses += 1
            return not served.is_closed

    def release(self, served: Served) -> bool:
        """End what `hold` began; return whether the model is to be forgotten, which may wait for a pass to end."""
        with self._using:
            served.uses -= 1
            return served.is_closed and served.uses == 0

    def forget(self, served: Served) -> None:
        """Give up the place of a model that was put away and that nothing holds."""
        with self._lock:
            if served.engine.shared is not None:
                served.engine.shared.remove(served.number)
            self._forget_unused()

    def _forget_unused(self) -> None:
        """Let go of bases without adapters, and of tokenizers without models."""
        self._shared = {key: engine for key, engine in self._shared.items() if engine.shared}
        if not self._shared:
            self._tokenizers.clear()

    def _open(self, name: str, folder: Path) -> Served:
        layout = RunLayout(folder)
        if ExportLayout(folder).record.is_file() or not layout.record.is_file():
            predictor = load(folder)
            return Served(name, folder, predictor, Engine(predictor.runtime), alone="it is an export")
        alone = _describe_obstacle(RunRecord.read(layout.record))
        if alone is None:
            from lorafit.models.runtimes.mixed import FullError, UnmixableError

            with ExitStack() as failed:
                placed: list[tuple[Engine, int]] = []
                failed.callback(self._take_back, placed)
                try:
                    predictor = load_with(folder, partial(self._share, placed=placed))
                except FullError:
                    raise OccupiedError("Too many models that were put away still answer; ask again.") from None
                except UnmixableError as reason:
                    alone = str(reason)
                else:
                    failed.pop_all()
                    ((engine, number),) = placed
                    return Served(name, folder, predictor, engine, number)
        predictor = load(folder, precision=self._precision)
        return Served(name, folder, predictor, Engine(predictor.runtime), alone=alone)

    def _share(self, layout: RunLayout, record: RunRecord, *, placed: list[tuple[Engine, int]]) -> Opened:
        """Put a run's adapter on its base, which others may be on, and tell of its place."""
        from lorafit.models.runtimes.pytorch import TorchRuntime
        from lorafit.runs.golden import GOLDEN_PRECISION
        from lorafit.runs.saving import load_trained

        model = load_trained(layout, record)
        tokenizer = self._share_tokenizer(layout, record)
        engine = self._shared.get(record.base_model.digest)
        if engine is None:
            engine = self._shared[record.base_model.digest] = self._open_base(layout, record, tokenizer[1])
        if engine.shared is None:
            raise TypeError("a base that adapters share is run by a runtime for several")
        number = engine.shared.add(model)
        placed.append((engine, number))
        exact = TorchRuntime(model, GOLDEN_PRECISION)
        return Opened(exact, engine.shared.view(number), tokenizer)

    def _take_back(self, placed: Sequence[tuple[Engine, int]]) -> None:
        """Take adapters from a base again."""
        for engine, number in placed:
            if engine.shared is not None:
                engine.shared.remove(number)
        self._forget_unused()

    def _open_base(self, layout: RunLayout, record: RunRecord, pad_id: int) -> Engine:
        """Open a base for all adapters that were trained on it."""
        import torch

        from lorafit.models.acceleration.precision import choose_precision
        from lorafit.models.load import load_with_head
        from lorafit.models.runtimes.mixed import MixedRuntime
        from lorafit.runs.bases import find_own_base

        base = load_with_head(find_own_base(layout, record), record.build_task(), pad_id=pad_id).model
        threads = choose_threads(torch.get_num_threads())
        places = 2 * self.most + 1  # those that were put away keep theirs until they have answered
        shared = MixedRuntime(base, choose_precision(self._precision), places=places, threads=threads)
        return Engine(shared, shared)

    def _share_tokenizer(self, layout: RunLayout, record: RunRecord) -> tuple[Tokenizer, int]:
        """Open a tokenizer once, however many adapters have it."""
        from lorafit.models.load import load_tokenizer

        key = " ".join(record.files[name] for name in ("tokenizer.json", "tokenizer_config.json"))
        if key not in self._tokenizers:
            self._tokenizers[key] = load_tokenizer(layout.trained)
        return self._tokenizers[key]


def _check_digest(served: Served, digest: str) -> None:
    if len(digest) < _DIGEST or not served.predictor.fingerprint.startswith(digest):
        raise UnknownModelError(f"The model {served.name} has another digest now: {served.digest}.")


def _strip(error: LorafitError) -> LorafitError:
    """Return the same error without its traceback, whose frames hold whole models."""
    bare = type(error).__new__(type(error), *error.args)
    bare.__dict__.update(error.__dict__)
    return bare


def _use(served: Served) -> Served:
    served.used = time.monotonic()
    return served


def _is_model(folder: Path) -> bool:
    with suppress(OSError):
        return RunLayout(folder).record.is_file() or ExportLayout(folder).record.is_file()
    return False


def _describe_obstacle(record: RunRecord) -> str | None:
    """Say why a run cannot share its base, as far as its method and this machine tell."""
    method = METHODS[record.method]
    if not method.is_adapter:
        return f"{method.title} has no adapter"
    if "mixed-batches" in method.limits or method.bottleneck is not None:
        return f"{method.title} is not computed beside other adapters"
    return "torch is not installed" if missing_modules("train") else None
