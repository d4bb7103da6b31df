"""A run's graph in lorafit's cache, by which a few texts are answered without torch.

It is made when training ends, never when somebody asks, and found by the digests of all that was trained: a run that
was moved has its graph still, one that was altered has none.
"""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from lorafit.models.array_cache import SUFFIX, keep_arrays, read_arrays
from lorafit.models.cache import cache_folder
from lorafit.models.runtimes.onnx import OnnxRuntime
from lorafit.runs.records import RunRecord
from lorafit.system.alterations import accepts_altered

MOST_KEPT: Final = 1_000_000_000
"""Bytes of graphs that the cache holds: ten of the built-in base's size, three of DistilBERT's."""


class KeptGraph(NamedTuple):
    """What answers for a run.

    Attributes:
        runtime: The graph, in fp32.
        pad_id: Token id of the padding.
    """

    runtime: OnnxRuntime
    pad_id: int


def write_graph(record: RunRecord, graph: bytes, pad_id: int) -> None:
    """Keep the graph of a run; where the cache takes no files, it is not kept.

    Args:
        record: The record of a run that is complete.
        graph: An ONNX model, which has given the run's golden logits.
        pad_id: Token id of the padding.

    Raises:
        EnvironmentUnfitError: There is no place for a cache.
    """
    arrays = {"graph": np.frombuffer(graph, np.uint8), "pad_id": np.array(pad_id)}
    keep_arrays(_find_place(record), arrays, most=MOST_KEPT)


def read_graph(record: RunRecord) -> KeptGraph | None:
    """Open the graph that was kept of a run.

    Args:
        record: The run's record.

    Returns:
        The graph; None where there is none, or altered runs are accepted: what they answer is not what was trained.

    Raises:
        RunError: onnxruntime cannot open it.
        MissingExtraError: onnxruntime is not installed.
        EnvironmentUnfitError: There is no place for a cache.
    """
    if accepts_altered() or (kept := read_arrays(_find_place(record))) is None:
        return None
    return KeptGraph(OnnxRuntime(kept.pop("graph").tobytes(), "fp32"), int(kept["pad_id"]))


def _find_place(record: RunRecord) -> Path:
    """Return where the graph of a run is kept: a name that all that was trained, and the code that wrote it, decide."""
    code = hashlib.sha256(Path(__file__).with_name("graph.py").read_bytes()).hexdigest()
    told = version("lorafit"), code, sorted(record.files.items()), record.base_model.digest, record.pair
    return cache_folder() / "run_graphs" / f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()}{SUFFIX}"
