"""Open what was trained: a run with torch or by its kept graph, an export with the engine that it was made for."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from tokenizers import Tokenizer

from lorafit.config import load_config
from lorafit.errors import RunError, UserInputError
from lorafit.inference.export.kept import read_graph
from lorafit.inference.export.records import ExportLayout, ExportRecord, check_export
from lorafit.inference.predictor import Predictor, Runtime, read_calibration
from lorafit.inference.typicality import Typicality, check_rejection
from lorafit.models.runtimes.graphs import open_graph
from lorafit.models.tokenization import read_tokenizer
from lorafit.runs.agreement import check_settings
from lorafit.runs.blends import open_blend
from lorafit.runs.evidence import check_trained
from lorafit.runs.folder import TYPICALITY_FILE, RunLayout
from lorafit.runs.golden import GOLDEN_PRECISION, verify_golden
from lorafit.runs.hub import locate_run
from lorafit.runs.moved import list_moved
from lorafit.runs.opening import opening
from lorafit.runs.records import RunRecord
from lorafit.system.extras import require
from lorafit.system.hardware import choose_threads
from lorafit.system.paths import AnyPath


@dataclass(frozen=True)
class _How:
    """What `load` was asked for, beside what is to run it."""

    raw: bool = False
    target_accuracy: float | None = None
    reject_atypical: float | None = None
    verify: bool = True
    blend: bool = True


@dataclass(frozen=True)
class Opened:
    """A model that is open.

    Attributes:
        exact: Runs it in the precision in which golden logits are compared.
        runtime: Runs it in the precision that was asked for.
        tokenizer: Its tokenizer, and the token id of the padding.
    """

    exact: Runtime
    runtime: Runtime
    tokenizer: tuple[Tokenizer, int]


def load(  # noqa: PLR0913 - each is a choice of its own, and has a name
    path: AnyPath,
    *,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    runtime: Literal["torch", "auto"] | None = None,
    raw: bool = False,
    target_accuracy: float | None = None,
    reject_atypical: float | None = None,
    verify: bool = True,
    accept_altered: bool = False,
    blend: bool = True,
    base: AnyPath | None = None,
    threads: int | None = None,
) -> Predictor:
    """Open a run folder, or the folder of an exported model, for prediction.

    Files are compared with their digests and with each other, and the loaded model with its golden logits. What is
    opened can be pickled: the pickle names the folder and opens it again.

    Args:
        path: The folder.
        precision: Of a run: `auto` takes bf16 where the CPU multiplies in bf16, else fp32. An export has its own.
        runtime: Of a run: None and `torch` take torch; `auto` takes the graph that was kept of it when it was trained,
            where there is one that gives its golden logits, `precision` is `auto`, and no `base` is named. It is there
            sooner, and answers in fp32; for many texts torch is quicker. An export has its own.
        raw: Leave the calibration out: probabilities as the model gives them, no conformal sets, no abstaining.
        target_accuracy: Accuracy that accepted predictions are to have, above 0 and below 1; None takes the run's own.
        reject_atypical: Share of texts like the training rows that may be marked as atypical, above 0 and below 1, with
            those that are not: texts with a typicality of at most this; None marks none.
        verify: Whether to compare the loaded model with its golden logits.
        accept_altered: Whether to warn of files that were altered, rather than to refuse them. This, `base` and
            `threads` hold for all functions inside a block of `lorafit.opening`.
        blend: Whether word models have a say, where the run keeps a blend; else the encoder answers alone.
        base: Of a run: where the base that it was trained on lies now, if it has moved. Its digest is checked.
        threads: Threads to compute with; None for as many as `OMP_NUM_THREADS`, affinity and CPU quota leave.

    Returns:
        The predictor.

    Raises:
        RunError: There is no such folder, a file is missing or altered, or the model gives other logits.
        UserInputError: A target accuracy or share out of range, one that the model knows nothing for, either with
            `raw`, the precision or torch of an export, another runtime, or fewer threads than one.
        MissingExtraError: What runs it is not installed; the message gives the pip line.
    """
    folder = locate_run(path)
    check_rejection(reject_atypical, raw=raw)
    how = _How(raw, target_accuracy, reject_atypical, verify, blend)
    with opening(base=base, accept_altered=accept_altered, threads=threads):
        predictor = _load_folder(folder, precision, runtime, how)
    predictor.reopen = partial(
        load,
        folder.absolute(),
        precision=precision,
        runtime=runtime,
        **asdict(how),
        accept_altered=accept_altered,
        base=base,
        threads=threads,
    )
    return predictor


def load_with(folder: Path, open_run: Callable[[RunLayout, RunRecord], Opened]) -> Predictor:
    """Open a run folder as `load` does, its encoder by other means.

    Args:
        folder: The run folder.
        open_run: Opens the encoder, and checks what it reads.

    Returns:
        The predictor, its encoder compared with its golden logits, in the precision that it predicts in, too.

    Raises:
        RunError: As `load`.
    """
    layout = RunLayout(folder)
    record = _read_run(layout)
    opened = open_run(layout, record)
    _verify(layout, record, opened)
    _verify(layout, record, replace(opened, exact=opened.runtime))
    return _assemble(layout, record, opened, _How())


def _read_run(layout: RunLayout) -> RunRecord:
    """Read a run's record, and compare it with the settings."""
    record = RunRecord.read(layout.record)
    if layout.config.is_file():  # prediction does without it
        check_settings(load_config(layout.config), record, layout)
    return record


def _load_folder(
    folder: Path, precision: Literal["auto", "fp32", "bf16"], runtime: Literal["torch", "auto"] | None, how: _How
) -> Predictor:
    """Open a run or an export, whichever the folder is."""
    run, export = RunLayout(folder), ExportLayout(folder)
    if runtime not in {None, "torch", "auto"}:
        raise UserInputError(f"runtime={runtime!r}: allowed are torch and auto.")
    if export.record.is_file():
        for name, is_chosen in (("precision", precision != "auto"), ("runtime", runtime == "torch")):
            if is_chosen:
                raise UserInputError(f"{folder} is an exported model: its {name} was chosen when it was exported.")
        return _load_export(export, how)
    if run.record.is_file():
        return _load_run(run, precision, how, may_take_graph=runtime == precision == "auto")
    whole = RunLayout(folder.parent)
    if whole.record.is_file() and folder in {whole.adapter, whole.model}:
        raise RunError(f"{folder} is a part of a run. Give the folder of the run, which is its parent: {whole.root}")
    if (folder / "config.json").is_file():
        raise RunError(
            f"{run.record} is missing: {folder} holds a whole model, as `lorafit export --merged` writes one for "
            "transformers. Open it there, or give the folder of the run, which has its calibration, too."
        )
    raise RunError(
        f"{run.record} is missing: {folder} is not a complete run folder, nor an export of one, which would have "
        f"{export.record.name}."
    )


def _load_run(
    layout: RunLayout, precision: Literal["auto", "fp32", "bf16"], how: _How, *, may_take_graph: bool
) -> Predictor:
    """Open a run with torch, or by its graph where that may be and there is one."""
    record = _read_run(layout)
    opened = _open_graph_of(layout, record) if may_take_graph and not list_moved() else None
    if opened is None:
        opened = _open_with_torch(layout, record, precision)
        if how.verify:
            _verify(layout, record, opened)
    return _assemble(layout, record, opened, how)


def _open_graph_of(layout: RunLayout, record: RunRecord) -> Opened | None:
    """Open the kept graph of a run; None where there is none, or anything is wrong: torch finds the same or answers."""
    try:
        kept = read_graph(record)
        if kept is None:
            return None
        check_trained(layout, record)
        opened = Opened(kept.runtime, kept.runtime, (read_tokenizer(layout.trained), kept.pad_id))
        _verify(layout, record, opened)
    except Exception:  # noqa: BLE001 - onnxruntime raises kinds of its own
        return None
    return opened


def _open_with_torch(layout: RunLayout, record: RunRecord, precision: Literal["auto", "fp32", "bf16"]) -> Opened:
    torch, *_ = (require(name, extra="train", purpose="Loading a run") for name in ("torch", "transformers", "peft"))
    from lorafit.models.acceleration.encoder_block import fuse_encoder
    from lorafit.models.acceleration.inference import make_fast
    from lorafit.models.acceleration.precision import choose_device, choose_precision
    from lorafit.models.load import load_tokenizer
    from lorafit.models.runtimes.pytorch import TorchRuntime
    from lorafit.runs.saving import load_trained

    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
        model = load_trained(layout, record)
    device = choose_device("auto")
    torch.nn.Module.to(model, device)
    if device == "cpu" and fuse_encoder(model) is not None:
        model = make_fast(model)
    threads = choose_threads(torch.get_num_threads())
    exact, runtime = (
        TorchRuntime(model, choice, threads=threads)
        for choice in (GOLDEN_PRECISION, choose_precision(precision, device))
    )
    return Opened(exact, runtime, load_tokenizer(layout.trained))


def _load_export(layout: ExportLayout, how: _How) -> Predictor:
    """Open an exported model with what it was exported for."""
    record = ExportRecord.read(layout.record)
    check_export(layout, record)
    runtime = open_graph(layout.model(record.precision, record.engine), record.precision, record.engine)
    opened = Opened(runtime, runtime, (read_tokenizer(layout.root), record.pad_id))
    if how.verify:
        _verify(layout, record, opened)
    return _assemble(layout, record, opened, how)


def _verify(layout: RunLayout | ExportLayout, record: RunRecord | ExportRecord, opened: Opened) -> None:
    """Compare an open model with its golden logits."""
    encoder = Predictor.for_record(record, opened.exact, opened.tokenizer)
    verify_golden(layout.golden, encoder.compute_logits, encoder.task, runtime=opened.exact.name)


def _assemble(
    layout: RunLayout | ExportLayout, record: RunRecord | ExportRecord, opened: Opened, how: _How
) -> Predictor:
    """Put together what predicts."""
    task, trained = record.build_task(), layout.golden.parent
    pool, file = open_blend(trained, record, task, wanted=how.blend)
    calibration = read_calibration(file, layout.root, task, raw=how.raw, target_accuracy=how.target_accuracy)
    typicality = _read_typicality(layout.typicality, record.files, how)
    return Predictor.for_record(
        record,
        opened.runtime,
        opened.tokenizer,
        calibration=calibration,
        blend=pool,
        typicality=typicality,
        settings=(record.files, how.raw, how.target_accuracy, how.reject_atypical, pool is not None),
    )


def _read_typicality(path: Path, files: Mapping[str, str], how: _How) -> Typicality | None:
    """Read what typical texts are like, unless it is to be left out or the model does not know it."""
    if how.raw:
        return None
    if TYPICALITY_FILE in files:
        return Typicality.read(path).rejecting(how.reject_atypical)
    if how.reject_atypical is not None:
        raise RunError(
            f"{path.parent} does not know what typical texts are like, so that none can be marked: it set too few rows "
            "aside to calibrate, or was made before lorafit kept that. Train it on more rows, or with a larger "
            "data.validation_fraction; or leave out --reject-atypical."
        )
    return None
