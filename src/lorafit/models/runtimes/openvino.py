"""Inference with an exported model in OpenVINO: no torch, no transformers."""

import hashlib
import io
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lorafit.errors import EnvironmentUnfitError, RunError
from lorafit.models.array_cache import SUFFIX, keep_arrays, read_arrays
from lorafit.models.cache import cache_folder
from lorafit.system.extras import require
from lorafit.system.hardware import choose_threads, cpu_flags, cpu_name
from lorafit.system.text import clean_text

_MANY = 64
"""Inputs of a call from which on padding them to few shapes costs more than compiling code for those that come."""

_SHORTEST = 8
"""Positions below which a single text takes as long."""

_WORTH_STREAMS = 100_000
"""Tokens that were asked, in all, from which on a second compiled graph pays, one that takes a batch a core."""

_FEWEST = 2048
"""Tokens a core from which on every core gets some batches of a call."""

_MOST_KERNELS = 1000
"""Pieces of code for a shape that are kept in memory, about ten a shape."""

_MOST_KEPT = 500_000_000
"""Bytes of compiled graphs that the cache keeps."""

_PLACES = ("Exception from ", "Check '", "FrontEnd API failed")
"""How lines of OpenVINO's errors begin that say where it was, and not what is wrong."""

_MOST_CHARACTERS = 200
"""Of an engine's error that are told."""


class OpenvinoRuntime:
    """Runs an exported classifier on the CPU. Products that are not in int8 are in bf16 where the CPU has it.

    `name` is for messages: `openvino` or `openvino-int8`.
    """

    def __init__(self, file: Path, precision: Literal["bf16", "int8"]) -> None:
        openvino: Any = require("openvino", extra="openvino", purpose="Loading a model exported for OpenVINO")
        try:
            core = openvino.Core()
            has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            self._threads = choose_threads()
            self._settings = {
                "INFERENCE_NUM_THREADS": self._threads,
                "INFERENCE_PRECISION_HINT": "bf16" if has_bf16 else "f32",
                "CPU_RUNTIME_CACHE_CAPACITY": _MOST_KERNELS,
                "ENABLE_CPU_PINNING": False,  # a thread bound to a core waits for whatever else runs on it
            }
            self._content = _digest(file)
            self._model = _compile(core, file, self._content, {"PERFORMANCE_HINT": "LATENCY", **self._settings})
        except Exception as error:  # pybind11 raises what comes
            raise RunError(f"{file} cannot be loaded: OpenVINO says {find_cause(error)}") from error
        self.name = "openvino-int8" if precision == "int8" else "openvino"
        self._precision: Literal["fp32", "bf16", "int8"] = "fp32" if precision == "bf16" and not has_bf16 else precision
        self._inputs = {name for one in self._model.inputs for name in one.get_names()}
        self._outputs = {name for one in self._model.outputs for name in one.get_names()}
        self._requests = threading.local()
        self._core, self._file, self._asked = core, file, 0
        self._opening = threading.Lock()

    @property
    def precision(self) -> Literal["fp32", "bf16", "int8"]:
        """Arithmetic of the linear layers."""
        return self._precision

    def fewest_positions(self, inputs: int) -> int | None:
        """Return those of a short text where there are few inputs, as compiling for every shape would take the time."""
        return _SHORTEST if inputs < _MANY else None

    def logits(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> NDArray[np.float32]:
        """Compute logits.

        Args:
            input_ids: Shape (rows, length).
            attention_mask: Same shape; 1 = token, 0 = padding.
            **others: `token_type_ids` of the same shape, where the texts are pairs.

        Returns:
            Shape (rows, classes).
        """
        return self.outputs(input_ids, attention_mask, **others)[0]

    def outputs(
        self, input_ids: NDArray[np.int64], attention_mask: NDArray[np.int64], **others: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Compute logits, and the features that tell how typical a text is.

        Args:
            input_ids: As in `logits`.
            attention_mask: As in `logits`.
            **others: As in `logits`.

        Returns:
            Logits of shape (rows, classes), and features of shape (rows, width); None of a graph that gives none.
        """
        if not hasattr(self._requests, "own"):  # one for each thread: a request holds the outputs of its last call
            self._requests.own = self._model.create_infer_request()
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, **others}
        return self._read(self._requests.own.infer(self._select(batch)))

    def wants_stream(self, tokens: int) -> bool:
        """Return whether a call with so many tokens is to be streamed: once all calls together had enough of them.

        One graph with all threads answers a text soonest. Of many, a graph that takes a batch a core answers more in
        the same time, and waits for no core that is busy; it has to be compiled, or read from the cache.
        """
        self._asked += tokens
        pays = self._threads > 1 and self._asked >= _WORTH_STREAMS and tokens >= _FEWEST * self._threads
        if not pays:
            return False
        with self._opening:
            return self._streams is not None

    def stream(
        self, batches: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
        """Compute batch after batch, as many at once as there are threads.

        Args:
            batches: What `outputs` takes, each as a mapping.

        Yields:
            What `outputs` returns, in order.
        """
        idle = [self._streams.create_infer_request() for _ in range(self._threads + 1)]
        running: deque[Any] = deque()  # one more than threads, so that none of them waits for the next batch
        for batch in batches:
            if not idle:
                idle.append(running.popleft())
                idle[0].wait()
                yield self._read(idle[0].results)
            running.append(idle.pop())
            running[-1].start_async(self._select(batch))
        for request in running:
            request.wait()
            yield self._read(request.results)

    @cached_property
    def _streams(self) -> Any:  # noqa: ANN401 - openvino has no types
        """The graph as one that takes a batch a thread; None where its file is no longer the one that was loaded."""
        with suppress(OSError, RuntimeError):  # the first graph answers as well
            if _digest(self._file) == self._content:
                hints = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": self._threads}
                return _compile(self._core, self._file, self._content, hints | self._settings)
        return None

    def _select(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {name: batch[name] for name in batch.keys() & self._inputs}

    def _read(self, found: Any) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:  # noqa: ANN401 - as above
        return found["logits"].copy(), found["features"].copy() if "features" in self._outputs else None


def find_cause(error: BaseException) -> str:
    """Return what an engine's error says is wrong, without the lines that say where, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if not line.startswith(_PLACES)]
    return clean_text(" ".join(lines), most=_MOST_CHARACTERS).strip()


def _digest(file: Path) -> str:
    """Return the digest of a graph and its weights."""
    digest = hashlib.sha256()
    for part in (file, file.with_suffix(".bin")):
        digest.update(part.read_bytes())
    return digest.hexdigest()


def _compile(core: Any, file: Path, content: str, settings: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as above
    """Compile a graph for this CPU, or take it from lorafit's cache, where the least recently used ones make room."""
    try:
        folder = cache_folder()
    except EnvironmentUnfitError:  # there is no home folder
        return core.compile_model(str(file), "CPU", settings)
    told = core.get_versions("CPU")["CPU"].build_number, cpu_name(), sorted(cpu_flags()), sorted(settings.items())
    path = folder / "graphs" / f"{hashlib.sha256(repr((content, told)).encode()).hexdigest()}{SUFFIX}"
    if (kept := read_arrays(path)) is not None:
        with suppress(RuntimeError):
            return core.import_model(io.BytesIO(kept.pop("model").data), "CPU", settings)
    model = core.compile_model(str(file), "CPU", settings)
    with suppress(RuntimeError):  # of a graph that cannot be written
        keep_arrays(path, {"model": np.frombuffer(model.export_model().getbuffer(), np.uint8)}, most=_MOST_KEPT)
    return model
