"""Make a run into a model that needs neither torch nor peft: merged, as an ONNX graph, in int8 if wanted."""

import copy
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lorafit import __version__
from lorafit.config import load_config
from lorafit.data.rows import Split, Splits
from lorafit.data.sources import identify_source, load_splits
from lorafit.data.splits import sample_rows
from lorafit.errors import ConfigError, LorafitError, RunError, UserInputError
from lorafit.inference.export.graph import build_graph, can_build, refuse
from lorafit.inference.export.int8 import ReachMeter, quantize_graph
from lorafit.inference.export.parity import check_parity, measure_parity
from lorafit.inference.export.records import ExportLayout, ExportRecord, ParityRecord, Precision, SpeedRecord
from lorafit.inference.predictor import Predictor, Runtime, read_calibration
from lorafit.models.adaptation import merge_adapter
from lorafit.models.load import load_tokenizer, quiet_transformers
from lorafit.models.methods import find_method
from lorafit.models.runtimes.onnx import OnnxRuntime
from lorafit.runs.folder import CALIBRATION_FILE, RunLayout
from lorafit.runs.golden import GOLDEN_PRECISION, GoldenRecord, verify_golden
from lorafit.runs.records import RunRecord
from lorafit.runs.saving import compute_plain_logits, load_trained
from lorafit.system import hardware
from lorafit.system.atomic import atomic_directory, compute_digest, describe_obstacle
from lorafit.system.extras import require
from lorafit.system.progress import Progress, Silent

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel

__all__ = ["Export", "export", "export_merged"]

_PRECISIONS: dict[bool, Precision] = {False: "fp32", True: "int8"}
_WHOLE_MODELS = ("full", "bitfit", "head_only")
"""Methods that train the model itself, so that there is nothing to merge."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
_MOST_BYTES = 2**31 - 1
"""A graph with its weights is one protobuf message, which cannot be larger."""

_MOST_ROWS = 1000
"""Validation rows on which the exported model is compared with the original."""

_SAMPLES = 64
"""Training rows by which int8 sees what is usual."""


@dataclass(frozen=True)
class Export:
    """An exported model.

    Attributes:
        path: Its folder.
        record: What it is, and how it compares with the original.
    """

    path: Path
    record: ExportRecord


@dataclass(frozen=True)
class _Logits:
    """What one form of the model said.

    Attributes:
        sentences: Shape (sentences, classes).
        rows: Shape (rows, classes), or None without rows.
        texts_per_second: Speed on the rows, or None.
    """

    sentences: NDArray[np.float64]
    rows: NDArray[np.float64] | None = None
    texts_per_second: float | None = None


@dataclass(frozen=True)
class _Source:
    """A run that is exported.

    Attributes:
        layout: Where it lies.
        record: What it is.
        model: What was trained, in fp32.
        tokenizer: Its tokenizer.
        pad_id: Token id of the padding.
        rows: Validation rows to compare on, or None.
        samples: Texts by which int8 sees what is usual: training rows, or else the golden sentences.
    """

    layout: RunLayout
    record: RunRecord
    model: Any
    tokenizer: Any
    pad_id: int
    rows: Split | None
    samples: Sequence[str]

    def run_by(self, runtime: Runtime) -> Predictor:
        """Return what predicts with any form of the model."""
        return Predictor.for_record(self.record, runtime, (self.tokenizer, self.pad_id))

    def ask(self, runtime: Runtime, texts: list[str], progress: Progress) -> _Logits:
        """Return what any form of the model says of some sentences and of the rows."""
        predictor = self.run_by(runtime)
        sentences = predictor.compute_logits(texts)
        if self.rows is None:
            return _Logits(sentences)
        progress.start(f"asking the model run by {runtime.name}", total=len(self.rows), unit="text")
        began = time.perf_counter()
        rows = predictor.compute_logits(self.rows.texts, on_progress=progress.update)
        seconds = time.perf_counter() - began
        progress.finish()
        return _Logits(sentences, rows, len(self.rows) / seconds)


def export(
    run: str | Path,
    *,
    int8: bool = False,
    output: str | Path | None = None,
    allow_drift: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Write a run as an ONNX model with everything that prediction takes, and compare it with the original.

    Args:
        run: The run folder.
        int8: Whether linear layers are computed in int8.
        output: The folder; None takes `onnx/` or `onnx-int8/` in the run folder.
        allow_drift: Write it even if it says something else than the original.
        overwrite: Whether an export that is there may be replaced.
        progress: Told what is going on.

    Returns:
        The export.

    Raises:
        RunError: The run is not complete or altered, or something stands where the export is to go.
        ConfigError: The method cannot be merged, or the model has parts that no operator is known for.
        ExportDriftError: The exported model says something else than the original.
        MissingExtraError: A package of the extra is not installed; the message gives the pip line.
    """
    progress, precision = progress or Silent(), _PRECISIONS[int8]
    for package in ("torch", "transformers", "peft", "onnx", "onnxruntime", "onnxscript"):
        require(package, extra="export", purpose="Exporting")
    from lorafit.models.runtimes.pytorch import TorchRuntime

    layout = RunLayout(Path(run).expanduser().resolve())
    record = RunRecord.read(layout.record)
    folder = Path(output).expanduser() if output else layout.export("onnx-int8" if int8 else "onnx")
    _check_place(folder, layout, overwrite=overwrite)
    _check_method(record)
    source = _open(layout, record, progress)
    texts = GoldenRecord.read(source.layout.golden).texts
    with _write(folder) as staging:
        target = ExportLayout(staging)
        model = _write_model(source, target, precision)
        before = source.ask(TorchRuntime(source.model, GOLDEN_PRECISION), texts, progress)
        with _name_faults(model):
            after = source.ask(OnnxRuntime(target.model(precision), precision), texts, progress)
        parity = _compare(source, before, after)
        if not allow_drift:
            check_parity(parity, precision)
        GoldenRecord(texts=texts, logits=after.sentences.tolist()).write(target.golden)
        exported = _describe(source, staging, precision, parity, after.texts_per_second)
        exported.write(target.record)
    return Export(folder, exported)


def export_merged(run: str | Path, *, output: str | Path | None = None, overwrite: bool = False) -> Path:
    """Write a run as a plain transformers model, the adapter merged into the base.

    Args:
        run: The run folder.
        output: The folder; None takes `merged/` in the run folder.
        overwrite: Whether an export that is there may be replaced.

    Returns:
        The folder, which `transformers.pipeline("text-classification")` opens.

    Raises:
        RunError: The run is not complete or altered, or something stands where the export is to go.
        ConfigError: The method cannot be merged.
    """
    for package in ("torch", "transformers", "peft"):
        require(package, extra="train", purpose="Exporting")
    layout = RunLayout(Path(run).expanduser().resolve())
    record = RunRecord.read(layout.record)
    folder = Path(output).expanduser() if output else layout.export("merged")
    _check_place(folder, layout, overwrite=overwrite)
    _check_method(record)
    model = merge_adapter(load_trained(layout, record))
    with _write(folder) as staging:
        with quiet_transformers():
            model.save_pretrained(staging)
        _copy_tokenizer(layout, staging)
        golden = ExportLayout(staging).golden
        shutil.copyfile(layout.golden, golden)
        verify_golden(golden, lambda texts: np.array(compute_plain_logits(staging, texts)), runtime="torch")
    return folder


def _open(layout: RunLayout, record: RunRecord, progress: Progress) -> _Source:
    """Read the run and, where its data still are what they were, some of its rows."""
    progress.start("reading the run")
    model = load_trained(layout, record)
    tokenizer, pad_id = load_tokenizer(layout.trained)
    splits = _read_splits(layout, record, progress.say)
    progress.finish()
    if splits is None:
        return _Source(layout, record, model, tokenizer, pad_id, None, GoldenRecord.read(layout.golden).texts)
    rows, samples = sample_rows(splits.validation, _MOST_ROWS, seed=0), sample_rows(splits.train, _SAMPLES, seed=0)
    return _Source(layout, record, model, tokenizer, pad_id, rows, samples.texts)


def _read_splits(layout: RunLayout, record: RunRecord, say: Callable[[str], None]) -> Splits | None:
    try:
        splits = load_splits(load_config(layout.config).data)
    except LorafitError as error:
        say(f"compared on the golden sentences alone: the run's data cannot be read ({error})")
        return None
    if splits.validation.fingerprint() != record.data.splits["validation"].fingerprint:
        say("compared on the golden sentences alone: the run's data have changed since training")
        return None
    return splits


def _check_place(folder: Path, layout: RunLayout, *, overwrite: bool) -> None:
    """Refuse a place that cannot be written to, or where something else than an export stands."""
    if folder.is_dir() and any(folder.iterdir()):
        place = ExportLayout(folder.resolve())
        is_merged = place.golden.is_file() and (folder / "model.safetensors").is_file()
        if place.root in {layout.model, layout.adapter, layout.root} or not (place.record.is_file() or is_merged):
            raise RunError(f"{folder} holds something else than an export. Choose another --output.")
        if not overwrite:
            raise RunError(
                f"{folder} holds an export already. Choose another --output, or replace it with --overwrite."
            )
    elif folder.exists() and not folder.is_dir():
        raise UserInputError(f"{folder} is a file; --output takes a folder.")
    if (obstacle := describe_obstacle(folder.parent if folder.exists() else folder)) is not None:
        raise UserInputError(f"{folder} cannot be written: {obstacle}. Choose another --output.")


def _check_method(record: RunRecord) -> None:
    method = find_method(record.method)
    if record.method not in _WHOLE_MODELS and "merge" in method.limits:
        raise ConfigError(
            f"This run cannot be exported: what {method.title} trains cannot be merged into the base model. The run "
            "predicts with torch as it is."
        )


@contextmanager
def _write(folder: Path) -> Iterator[Path]:
    """Fill the folder atomically."""
    try:
        with atomic_directory(folder) as staging:
            yield staging
    except OSError as error:
        raise UserInputError(f"{folder} cannot be written: {error.strerror or error}.") from error


def _write_model(source: _Source, target: ExportLayout, precision: Precision) -> "PreTrainedModel":
    """Write the graph, and beside it what else prediction takes, here and in other tools; return the merged model."""
    merged = merge_adapter(copy.deepcopy(source.model))
    merged.config.architectures = [type(merged).__name__]
    _check_size(merged, sum(value.numel() * value.element_size() for value in merged.state_dict().values()))
    graph = _make_graph(merged)
    _check_size(merged, graph.ByteSize())
    if precision == "int8":
        with _name_faults(merged):
            meter = ReachMeter(graph)
            source.run_by(meter).compute_logits(source.samples)
        if not meter.reach:
            raise refuse(merged, "it has no linear layers that int8 is known for")
        graph = quantize_graph(graph, meter.reach)
    target.model(precision).write_bytes(graph.SerializeToString())
    with quiet_transformers():
        merged.config.save_pretrained(target.root)
    _copy_tokenizer(source.layout, target.root)
    if CALIBRATION_FILE in source.record.files:
        shutil.copyfile(source.layout.calibration, target.calibration)
    return merged


@contextmanager
def _name_faults(model: "PreTrainedModel") -> Iterator[None]:
    """Name what onnxruntime cannot do with a graph, and the way out."""
    try:
        yield
    except Exception as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        raise refuse(model, f"onnxruntime says '{cause}'") from error


def _make_graph(model: "PreTrainedModel") -> "onnx.ModelProto":
    if can_build(model):
        return build_graph(model)
    from lorafit.inference.export.tracing import trace_graph

    return trace_graph(model)


def _check_size(model: "PreTrainedModel", size: int) -> None:
    if size > _MOST_BYTES - 2**20:
        raise refuse(model, f"its weights take {size / 1e9:.1f} GB, a file can have 2 GB")


def _copy_tokenizer(layout: RunLayout, folder: Path) -> None:
    for name in _TOKENIZER_FILES:
        shutil.copyfile(layout.trained / name, folder / name)


def _compare(source: _Source, before: _Logits, after: _Logits) -> ParityRecord:
    layout, labels = source.layout, source.record.label_set
    kept = layout.calibration if CALIBRATION_FILE in source.record.files else None
    calibration = read_calibration(kept, layout.root, labels.task)
    rows = None if before.rows is None or after.rows is None else (before.rows, after.rows)
    return measure_parity((before.sentences, after.sentences), labels, source.rows, rows, calibration)


def _describe(
    source: _Source, staging: Path, precision: Precision, parity: ParityRecord, texts_per_second: float | None
) -> ExportRecord:
    record, data = source.record, load_config(source.layout.config).data
    identities = {"source": identify_source(data.source)}
    if data.validation is not None:
        identities["validation"] = identify_source(data.validation)
    name = Path(record.base_model.name)
    speed = None
    if texts_per_second is not None:
        speed = SpeedRecord(
            texts_per_second=texts_per_second, cpu=hardware.cpu_name(), threads=hardware.available_cores()
        )
    return ExportRecord(
        lorafit=__version__,
        precision=precision,
        method=record.method,
        base_model=record.base_model.model_copy(update={"name": name.name})
        if name.is_absolute()
        else record.base_model,
        task=record.task,
        labels=record.labels,
        max_length=record.max_length,
        truncation=record.truncation,
        pad_id=source.pad_id,
        parameters=record.parameters,
        data={name: identity for name, identity in identities.items() if identity is not None},
        test_fingerprint=record.data.splits["test"].fingerprint,
        parity=parity,
        speed=speed,
        files={path.name: compute_digest(path) for path in sorted(staging.iterdir())},
    )
