"""Make a run into a model that needs neither torch nor peft: merged, as a graph for an engine, in int8 if wanted."""

import copy
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from tokenizers import Tokenizer

from lorafit.data.loading import load_splits
from lorafit.data.rows import Split, Splits
from lorafit.data.sources import identify_source
from lorafit.data.splits import sample_rows
from lorafit.errors import ConfigError, ExportDriftError, LorafitError, RunError, StoppedError, UserInputError
from lorafit.inference.export.graph import build_graph, can_build, refuse
from lorafit.inference.export.int8 import RangeMeter, list_largest, quantize_graph, quantize_statically
from lorafit.inference.export.kept import MOST_KEPT, write_graph
from lorafit.inference.export.openvino import write_for_openvino
from lorafit.inference.export.parity import check_parity, measure_parity
from lorafit.inference.export.records import ExportLayout, ExportRecord, ParityRecord, SpeedRecord
from lorafit.inference.predictor import Predictor, Runtime, read_calibration
from lorafit.models.acceleration.memory import release_freed_memory
from lorafit.models.adaptation import merge_adapter, reads_token_types
from lorafit.models.load import load_tokenizer
from lorafit.models.methods import find_method
from lorafit.models.quiet import quiet_transformers
from lorafit.models.runtimes.graphs import Engine, Precision, open_graph
from lorafit.models.runtimes.onnx import OnnxRuntime
from lorafit.models.runtimes.openvino import find_cause
from lorafit.models.tokenization import marks_pairs
from lorafit.runs.blends import open_blend
from lorafit.runs.evidence import read_settings
from lorafit.runs.folder import BLEND_FILES, CALIBRATION_FILE, TYPICALITY_FILE, ExportKind, RunLayout
from lorafit.runs.golden import GOLDEN_PRECISION, GoldenRecord, verify_golden
from lorafit.runs.hub import locate_run
from lorafit.runs.records import RunRecord
from lorafit.runs.saving import compute_plain_logits, load_trained, write_model
from lorafit.system import hardware
from lorafit.system.atomic import atomic_directory, describe_obstacle
from lorafit.system.digests import digest_folder
from lorafit.system.extras import missing_modules, require
from lorafit.system.faults import find_fault, name_faults
from lorafit.system.locks import hold
from lorafit.system.notebook import progress_here
from lorafit.system.paths import AnyPath, expand_home
from lorafit.system.progress import Progress
from lorafit.system.text import Text, join_text
from lorafit.tasks.base import Array, Task
from lorafit.tasks.blending import Blend

if TYPE_CHECKING:
    import onnx
    from transformers import PreTrainedModel


_PRECISIONS: dict[Engine, Precision] = {"onnxruntime": "fp32", "openvino": "bf16"}
"""What an engine computes in where int8 is not wanted."""

_KINDS: dict[Engine, tuple[ExportKind, ExportKind]] = {
    "onnxruntime": ("onnx", "onnx-int8"),
    "openvino": ("openvino", "openvino-int8"),
}
"""The kinds of export for an engine, without and with int8."""

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
class _Outputs:
    """What one form of a model puts out.

    Attributes:
        golden: Logits of the golden sentences, shape (sentences, outputs).
        rows: Those of the validation rows, shape (rows, outputs), or None without rows.
        texts_per_second: Speed on the rows, or None.
    """

    golden: Array
    rows: Array | None = None
    texts_per_second: float | None = None


@dataclass(frozen=True)
class _Original:
    """The run that is exported.

    Attributes:
        layout: Where it lies.
        record: Its record.
        model: What was trained, in fp32.
        tokenizer: Its tokenizer, and the token id of the padding.
        golden: The golden sentences.
        rows: Validation rows to compare on, or None.
        blend: What its logits are pooled with, or None.
        samples: Texts by which int8 sees what is usual: training rows, or else the golden sentences.
    """

    layout: RunLayout
    record: RunRecord
    model: Any
    tokenizer: tuple[Any, int]
    golden: Sequence[Text]
    rows: Split | None
    samples: Sequence[Text]
    blend: Blend | None = None

    @classmethod
    def load(cls, layout: RunLayout, record: RunRecord, progress: Progress, *, blend: bool) -> Self:
        """Load the model and, where the run's data still are what they were, some of its rows."""
        progress.start("reading the run")
        model, tokenizer = load_trained(layout, record), load_tokenizer(layout.trained)
        golden = GoldenRecord.read(layout.golden).texts
        pool, _ = open_blend(layout.trained, record, record.build_task(), wanted=blend)
        splits = _read_splits(layout, record, progress.say)
        progress.finish()
        if splits is None:
            return cls(layout, record, model, tokenizer, golden, None, golden, pool)
        rows = sample_rows(splits.validation, _MOST_ROWS, 0, splits.task) if len(splits.validation) else None
        samples = sample_rows(splits.train, _SAMPLES, 0, splits.task)
        return cls(layout, record, model, tokenizer, golden, rows, samples.texts, pool)

    @property
    def task(self) -> Task:
        """What it predicts."""
        return self.record.build_task()

    @property
    def calibration_file(self) -> Path | None:
        """Its calibration, or None."""
        return self.layout.calibration if CALIBRATION_FILE in self.record.files else None

    def run_by(self, runtime: Runtime) -> Predictor:
        """Return what predicts with any form of the model."""
        return Predictor.for_record(self.record, runtime, self.tokenizer)

    def compute_outputs(self, runtime: Runtime, progress: Progress) -> _Outputs:
        """Compute the logits of any form of the model for the golden sentences and the rows."""
        predictor = self.run_by(runtime)
        golden = predictor.compute_logits(self.golden)
        if self.rows is None:
            return _Outputs(golden)
        progress.start(f"predicting with {runtime.name}", total=len(self.rows), unit="text")
        began = time.perf_counter()
        rows = predictor.compute_logits(self.rows.texts, on_progress=progress.update)
        if self.blend is not None:  # what it takes belongs to the speed; its words are the same in every form
            self.blend.pool(self.task, rows, self.blend.read([*map(join_text, self.rows.texts)]))
        seconds = time.perf_counter() - began
        progress.finish()
        return _Outputs(golden, rows, len(self.rows) / seconds)

    def compare(self, before: _Outputs, after: _Outputs, precision: Precision) -> ParityRecord:
        """Compare the exported model with this one."""
        calibration = read_calibration(self.calibration_file, self.layout.root, self.task)
        rows = None if before.rows is None or after.rows is None else (before.rows, after.rows)
        return measure_parity(self.task, precision, (before.golden, after.golden), self.rows, rows, calibration)


def export(  # noqa: PLR0913 - each is a choice of its own, and has a name
    run: AnyPath,
    *,
    int8: bool = False,
    runtime: Engine | Literal["auto"] = "onnxruntime",
    output: str | Path | None = None,
    allow_drift: bool = False,
    overwrite: bool = False,
    blend: bool = True,
    progress: Progress | None = None,
) -> Export:
    """Write a run as a graph with everything that prediction takes, and compare it with the original.

    Args:
        run: The run folder.
        int8: Whether linear layers are computed in int8.
        runtime: What is to run it: `onnxruntime`, everywhere and in the browser, or `openvino`, mostly quicker on x86;
            `auto` takes what predicts some training rows sooner on this machine, of what is installed.
        output: The folder; None takes one in the run folder: `onnx/` or `openvino/`, with `-int8` if it is.
        allow_drift: Write it even if it predicts something else than the original.
        overwrite: Whether an export that is there may be replaced.
        blend: Whether the run's blend is exported, too, where it keeps one.
        progress: Told what is going on.

    Returns:
        The export.

    Raises:
        RunError: The run is not complete or altered, or something stands where the export is to go.
        ConfigError: The method cannot be merged, or the model has parts that no operator is known for.
        ExportDriftError: The exported model predicts something else than the original.
        StoppedError: A signal came when the export was complete; an earlier one raises `KeyboardInterrupt`.
        MissingExtraError: A package of the extra is not installed; the message gives the pip line.
    """
    for package in ("torch", "transformers", "peft", "onnx", "onnxruntime", "onnxscript"):
        require(package, extra="export", purpose="Exporting")
    from lorafit.models.runtimes.pytorch import TorchRuntime

    engines, progress = _list_engines(runtime), progress or progress_here()
    (layout, record), engine, original = _read_run(run), engines[0], None
    if len(engines) > 1:
        _choose_folder(layout, output, _KINDS[engine][int8], overwrite=overwrite)
        original = _Original.load(layout, record, progress, blend=blend)
        engine = _find_quicker(engines, original, int8=int8, progress=progress)
    precision = _choose_precision(engine, int8=int8)
    with _fill(layout, output, _KINDS[engine][int8], overwrite=overwrite) as (folder, staging):
        original = original or _Original.load(layout, record, progress, blend=blend)
        target = ExportLayout(staging)
        before = original.compute_outputs(TorchRuntime(original.model, GOLDEN_PRECISION), progress)
        attempts = list_largest() if precision == "int8" else (127,)
        for most in attempts:
            model = merge_adapter(copy.deepcopy(original.model))
            _write_model(model, original, target, precision, engine, most)
            with _name_refusals(model, engine):
                opened = open_graph(target.model(precision, engine), precision, engine)
                after = original.compute_outputs(opened, progress)
            parity = original.compare(before, after, precision)
            try:
                check_parity(parity, original.task, precision)
                break
            except ExportDriftError:
                if most == attempts[-1] and not allow_drift:
                    raise
            del opened  # its file is written anew
        GoldenRecord(texts=list(original.golden), logits=after.golden.tolist()).write(target.golden)
        exported = _describe(original, target, (precision, engine), parity, after.texts_per_second)
        exported.write(target.record)
    return Export(folder, exported)


def export_merged(run: AnyPath, *, output: str | Path | None = None, overwrite: bool = False) -> Path:
    """Write a run as a plain transformers model, the adapter merged into the base.

    Args:
        run: The run folder.
        output: The folder; None takes `merged/` in the run folder.
        overwrite: Whether an export that is there may be replaced.

    Returns:
        The folder, which `transformers.pipeline("text-classification")` opens, or sentence-transformers, where the head
        reads the mean of the tokens.

    Raises:
        RunError: The run is not complete or altered, or something stands where the export is to go.
        ConfigError: The method cannot be merged.
    """
    for package in ("torch", "transformers", "peft"):
        require(package, extra="train", purpose="Exporting")
    layout, record = _read_run(run, merged=True)
    with _fill(layout, output, "merged", overwrite=overwrite) as (folder, staging):
        model = merge_adapter(load_trained(layout, record))
        write_model(model, staging, max_length=record.max_length)
        _copy_tokenizer(layout, staging)
        golden = ExportLayout(staging).golden
        shutil.copyfile(layout.golden, golden)
        verify_golden(
            golden,
            lambda texts: np.array(compute_plain_logits(staging, texts)),
            record.build_task(),
            runtime="torch",
        )
    return folder


def keep_graph(run: AnyPath) -> None:
    """Keep the graph of a run in lorafit's cache, by which `load` answers without torch, if it gives its golden logits.

    Nothing is kept where a package of the extra `export` is missing, the graph would be larger than the cache, or not
    one of fused operators.

    Args:
        run: The run folder.

    Raises:
        RunError: The run is not complete or altered, or the graph gives other logits.
        EnvironmentUnfitError: There is no place for a cache.
    """
    if missing_modules("export"):
        return
    try:
        layout, record = _read_run(run)
    except ConfigError:  # it cannot be merged
        return
    if record.parameters.total * np.float32().nbytes > MOST_KEPT:
        return
    release_freed_memory()  # training's; the model is loaded once more
    model, tokenizer = merge_adapter(load_trained(layout, record)), load_tokenizer(layout.trained)
    if not can_build(model):
        return
    written = _build_graph(model, token_types=_reads_types(model, record, tokenizer[0])).SerializeToString()
    del model
    runtime = OnnxRuntime(written, "fp32")
    predictor = Predictor.for_record(record, runtime, tokenizer)
    verify_golden(layout.golden, predictor.compute_logits, predictor.task, runtime=runtime.name)
    write_graph(record, written, tokenizer[1])


def _read_run(run: AnyPath, *, merged: bool = False) -> tuple[RunLayout, RunRecord]:
    """Read the record of a run, and refuse one whose method cannot be merged into its base.

    A graph can hold what PEFT does not know as it is.
    """
    layout = RunLayout(locate_run(run))
    record = RunRecord.read(layout.record)
    method = find_method(record.method)
    if "merge" in method.limits and (method.build is not None or (merged and method.is_adapter)):
        way_out = "" if method.build is not None else " Without --merged it is exported as a graph."
        raise ConfigError(
            f"This run cannot be exported: what {method.title} trains cannot be merged into the base model. The run "
            f"predicts with torch as it is.{way_out}"
        )
    return layout, record


def _choose_folder(layout: RunLayout, output: str | Path | None, kind: ExportKind, *, overwrite: bool) -> Path:
    """Return where to export to; refuse a place that cannot be written to, or that something else stands in."""
    folder = expand_home(output) if output else layout.export(kind)
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
    return folder


def _read_splits(layout: RunLayout, record: RunRecord, say: Callable[[str], None]) -> Splits | None:
    try:
        splits = load_splits(read_settings(layout, record).data)
    except LorafitError as error:
        say(f"compared on the golden sentences alone: the run's data cannot be read ({error})")
        return None
    if any(splits.by_name[name].fingerprint() != part.fingerprint for name, part in record.data.splits.items()):
        say("compared on the golden sentences alone: the run's data have changed since training")
        return None
    return splits


@contextmanager
def _fill(
    layout: RunLayout, output: str | Path | None, kind: ExportKind, *, overwrite: bool
) -> Iterator[tuple[Path, Path]]:
    """Choose the folder to export to and keep others from it; yield it, and a folder to fill that takes its place."""
    folder = _choose_folder(layout, output, kind, overwrite=overwrite)
    filled: os.stat_result | None = None
    try:
        with (
            name_faults(f"Nothing was written to {folder}. Then export again."),
            hold(folder, kind="export"),
            atomic_directory(_choose_folder(layout, output, kind, overwrite=overwrite)) as staging,
        ):
            yield folder, staging
            filled = staging.stat()
    except KeyboardInterrupt:
        if filled is None or not folder.is_dir() or not os.path.samestat(filled, folder.stat()):
            raise
        raise StoppedError(f"Interrupted when the export was complete: {folder}") from None


def _list_engines(runtime: Engine | Literal["auto"]) -> tuple[Engine, ...]:
    """Return what may run an export; refuse an engine that is unknown or not installed."""
    if runtime == "auto":
        return ("onnxruntime",) if find_spec("openvino") is None else ("openvino", "onnxruntime")
    if runtime not in _KINDS:
        raise UserInputError(f"runtime={runtime!r}: allowed are {', '.join(_KINDS)} and auto.")
    require(runtime, extra="openvino" if runtime == "openvino" else "export", purpose=f"Exporting for {runtime}")
    return (runtime,)


def _choose_precision(engine: Engine, *, int8: bool) -> Precision:
    return "int8" if int8 else _PRECISIONS[engine]


def _find_quicker(engines: Sequence[Engine], original: _Original, *, int8: bool, progress: Progress) -> Engine:
    """Return the engine that predicts the samples sooner, or that predicts them at all, the first of several."""
    seconds: dict[Engine, float] = {}
    with tempfile.TemporaryDirectory(prefix="lorafit-export-") as place:
        for engine in engines:
            target, precision = ExportLayout(Path(place) / engine), _choose_precision(engine, int8=int8)
            target.root.mkdir()
            progress.start(f"trying {engine}")
            try:
                _write_model(merge_adapter(copy.deepcopy(original.model)), original, target, precision, engine)
                with _name_refusals(original.model, engine):
                    predictor = original.run_by(open_graph(target.model(precision, engine), precision, engine))
                    predictor.compute_logits(original.samples)  # it may compile code for their shapes
                    began = time.perf_counter()
                    predictor.compute_logits(original.samples)
                    seconds[engine] = time.perf_counter() - began
            except (ConfigError, RunError) as error:
                seconds[engine], told = inf, str(error)
            else:
                told = f"{len(original.samples) / seconds[engine]:,.0f} texts a second"
            progress.finish()
            progress.say(f"{engine}: {told}")
    return min(seconds, key=lambda engine: seconds[engine])


def _write_model(
    model: "PreTrainedModel",
    original: _Original,
    target: ExportLayout,
    precision: Precision,
    engine: Engine,
    most: int = 127,
) -> None:
    """Write a merged model as a graph, and beside it what else prediction takes, here and in other tools."""
    _check_size(model, sum(value.numel() * value.element_size() for value in model.state_dict().values()))
    graph = _build_graph(model, token_types=_reads_types(model, original.record, original.tokenizer[0]))
    _check_size(model, graph.ByteSize())
    if precision == "int8":
        meter = RangeMeter(graph)
        with _name_refusals(model, "onnxruntime"):
            original.run_by(meter).compute_logits(original.samples)
        if not meter.ranges:
            raise refuse(model, "it has no linear layers that int8 is known for")
        quantize = quantize_graph if engine == "onnxruntime" else quantize_statically
        graph = quantize(graph, meter.ranges, most=most)
    path = target.model(precision, engine)
    if engine == "onnxruntime":
        path.write_bytes(graph.SerializeToString())
    else:
        with _name_refusals(model, engine):
            write_for_openvino(graph, path)
    model.config.architectures = [type(model).__name__]
    with quiet_transformers():
        model.config.save_pretrained(target.root)
    _copy_tokenizer(original.layout, target.root)
    for name in (CALIBRATION_FILE, TYPICALITY_FILE, *(BLEND_FILES if original.blend is not None else ())):
        if name in original.record.files:
            shutil.copyfile(original.layout.trained / name, target.root / name)


def _reads_types(model: "PreTrainedModel", record: RunRecord, tokenizer: Tokenizer) -> bool:
    """Return whether a model is given types of tokens, and reads them."""
    return record.pair and reads_token_types(model) and marks_pairs(tokenizer)


def _build_graph(model: "PreTrainedModel", *, token_types: bool) -> "onnx.ModelProto":
    if can_build(model):
        return build_graph(model, token_types=token_types)
    from lorafit.inference.export.tracing import trace_graph

    return trace_graph(model, token_types=token_types)


@contextmanager
def _name_refusals(model: "PreTrainedModel", engine: Engine) -> Iterator[None]:
    """Name what an engine cannot do with a graph, and the way out."""
    try:
        yield
    except Exception as error:
        if find_fault(error) is not None:
            raise
        why = f"{engine} says '{find_cause(error.__cause__ or error)}'"
        raise refuse(model, why, other_engine=engine == "openvino") from error


def _check_size(model: "PreTrainedModel", size: int) -> None:
    if size > _MOST_BYTES - 2**20:
        raise refuse(model, f"its weights take {size / 1e9:.1f} GB, a file can have 2 GB")


def _copy_tokenizer(layout: RunLayout, folder: Path) -> None:
    for name in _TOKENIZER_FILES:
        shutil.copyfile(layout.trained / name, folder / name)


def _describe(
    original: _Original,
    target: ExportLayout,
    form: tuple[Precision, Engine],
    parity: ParityRecord,
    texts_per_second: float | None,
) -> ExportRecord:
    record, data = original.record, read_settings(original.layout, original.record).data
    identities = {"source": identify_source(data.source)}
    if data.validation is not None:
        identities["validation"] = identify_source(data.validation)
    base, name = record.base_model, Path(record.base_model.name)
    speed = None
    if texts_per_second is not None:
        speed = SpeedRecord(
            texts_per_second=texts_per_second, cpu=hardware.cpu_name(), threads=hardware.choose_threads()
        )
    return ExportRecord(
        lorafit=version("lorafit"),
        precision=form[0],
        engine=form[1],
        method=record.method,
        base_model=base.model_copy(update={"name": name.name}) if name.is_absolute() else base,
        task=record.task,
        labels=record.labels,
        max_length=record.max_length,
        truncation=record.truncation,
        window_stride=record.window_stride,
        pair=record.pair,
        pad_id=original.tokenizer[1],
        blend=record.blend if original.blend is not None else None,
        parameters=record.parameters,
        data={name: identity for name, identity in identities.items() if identity is not None},
        test_fingerprint=record.data.splits["test"].fingerprint,
        parity=parity,
        speed=speed,
        files=digest_folder(target.root),
    )
