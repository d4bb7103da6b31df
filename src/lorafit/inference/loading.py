"""Open what was trained: a run with torch, an export with onnxruntime or OpenVINO, tokenizers and numpy alone."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lorafit.errors import RunError, UserInputError
from lorafit.inference.export.records import ExportLayout, ExportRecord, check_export
from lorafit.inference.predictor import Predictor, read_calibration
from lorafit.inference.typicality import Typicality, check_rejection
from lorafit.models.runtimes.graphs import open_graph
from lorafit.models.tokenization import read_tokenizer
from lorafit.runs.blends import open_blend
from lorafit.runs.folder import TYPICALITY_FILE, RunLayout
from lorafit.runs.golden import GOLDEN_PRECISION, verify_golden
from lorafit.runs.opening import opening
from lorafit.runs.records import RunRecord
from lorafit.system.extras import require
from lorafit.system.hardware import choose_threads
from lorafit.system.paths import expand_home


def load(  # noqa: PLR0913 - each is a choice of its own, and has a name
    path: str | Path,
    *,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    raw: bool = False,
    target_accuracy: float | None = None,
    reject_atypical: float | None = None,
    verify: bool = True,
    accept_altered: bool = False,
    blend: bool = True,
    base: str | Path | None = None,
    threads: int | None = None,
) -> Predictor:
    """Open a run folder, or the folder of an exported model, for prediction.

    Files are compared with their digests and with each other, and the loaded model with its golden logits. What is
    opened can be pickled: the pickle names the folder and opens it again.

    Args:
        path: The folder.
        precision: Of a run: `auto` takes bf16 where the CPU multiplies in bf16, else fp32. An export has its own.
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
            `raw`, the precision of an export, or fewer threads than one.
        MissingExtraError: What runs it is not installed; the message gives the pip line.
    """
    folder = expand_home(path).resolve()
    check_rejection(reject_atypical, raw=raw)
    how: dict[str, Any] = {
        "raw": raw,
        "target_accuracy": target_accuracy,
        "reject_atypical": reject_atypical,
        "verify": verify,
        "blend": blend,
    }
    with opening(base=base, accept_altered=accept_altered, threads=threads):
        predictor = _load_folder(folder, precision, how)
    how |= {"precision": precision, "accept_altered": accept_altered, "base": base, "threads": threads}
    predictor.reopen = partial(load, folder, **how)
    return predictor


def _load_folder(folder: Path, precision: Literal["auto", "fp32", "bf16"], how: dict[str, Any]) -> Predictor:
    """Open a run or an export, whichever the folder is."""
    run, export = RunLayout(folder), ExportLayout(folder)
    if export.record.is_file():
        if precision != "auto":
            raise UserInputError(f"{folder} is an exported model: its precision was chosen when it was exported.")
        return _load_export(export, **how)
    if run.record.is_file():
        return _load_run(run, precision=precision, **how)
    whole = RunLayout(folder.parent)
    if whole.record.is_file() and folder in {whole.adapter, whole.model}:
        raise RunError(f"{folder} is a part of a run. Give the folder of the run, which is its parent: {whole.root}")
    raise RunError(
        f"{run.record} is missing: {folder} is not a complete run folder, nor an export of one, which would have "
        f"{export.record.name}."
    )


def _load_run(
    layout: RunLayout,
    *,
    precision: Literal["auto", "fp32", "bf16"],
    raw: bool,
    target_accuracy: float | None,
    reject_atypical: float | None,
    verify: bool,
    blend: bool,
) -> Predictor:
    """Open a run with torch."""
    torch, *_ = (require(name, extra="train", purpose="Loading a run") for name in ("torch", "transformers", "peft"))
    from lorafit.config import load_config
    from lorafit.models.acceleration.encoder_block import fuse_encoder
    from lorafit.models.acceleration.inference import make_fast
    from lorafit.models.acceleration.precision import choose_device, choose_precision
    from lorafit.models.load import load_tokenizer
    from lorafit.models.runtimes.pytorch import TorchRuntime
    from lorafit.runs.agreement import check_settings
    from lorafit.runs.saving import load_trained

    record = RunRecord.read(layout.record)
    if layout.config.is_file():  # prediction does without it
        check_settings(load_config(layout.config), record, layout)
    with torch.random.fork_rng(devices=[]):  # weights are drawn before they are read
        model = load_trained(layout, record)
    task = record.build_task()
    pool, kept = open_blend(layout.trained, record, task, wanted=blend)
    calibration = read_calibration(kept, layout.root, task, raw=raw, target_accuracy=target_accuracy)
    typicality = _read_typicality(layout.typicality, record.files, raw=raw, reject_atypical=reject_atypical)
    device = choose_device("auto")
    torch.nn.Module.to(model, device)
    if device == "cpu" and fuse_encoder(model) is not None:
        model = make_fast(model)
    tokenizer = load_tokenizer(layout.trained)
    threads = choose_threads(torch.get_num_threads())
    exact, predictor = (
        Predictor.for_record(
            record,
            TorchRuntime(model, choice, threads=threads),
            tokenizer,
            calibration=calibration,
            blend=part,
            typicality=typicality,
            settings=(record.files, raw, target_accuracy, reject_atypical, pool is not None),
        )
        for choice, part in ((GOLDEN_PRECISION, None), (choose_precision(precision, device), pool))
    )
    if verify:
        verify_golden(layout.golden, exact.compute_logits, exact.task, runtime=TorchRuntime.name)
    return predictor


def _load_export(
    layout: ExportLayout,
    *,
    raw: bool,
    target_accuracy: float | None,
    reject_atypical: float | None,
    verify: bool,
    blend: bool,
) -> Predictor:
    """Open an exported model with what it was exported for."""
    record = ExportRecord.read(layout.record)
    check_export(layout, record)
    runtime = open_graph(layout.model(record.precision, record.engine), record.precision, record.engine)
    task = record.build_task()
    pool, kept = open_blend(layout.root, record, task, wanted=blend)
    calibration = read_calibration(kept, layout.root, task, raw=raw, target_accuracy=target_accuracy)
    typicality = _read_typicality(layout.typicality, record.files, raw=raw, reject_atypical=reject_atypical)
    tokenizer = read_tokenizer(layout.root), record.pad_id
    encoder, predictor = (
        Predictor.for_record(
            record,
            runtime,
            tokenizer,
            calibration=calibration,
            blend=part,
            typicality=typicality,
            settings=(record.files, raw, target_accuracy, reject_atypical, pool is not None),
        )
        for part in (None, pool)
    )
    if verify:
        verify_golden(layout.golden, encoder.compute_logits, task, runtime=runtime.name)
    return predictor


def _read_typicality(
    path: Path, files: Mapping[str, str], *, raw: bool, reject_atypical: float | None
) -> Typicality | None:
    """Read what typical texts are like, unless it is to be left out or the model does not know it."""
    if raw:
        return None
    if TYPICALITY_FILE in files:
        return Typicality.read(path).rejecting(reject_atypical)
    if reject_atypical is not None:
        raise RunError(
            f"{path.parent} does not know what typical texts are like, so that none can be marked: it had no "
            "calibration rows, or was made before lorafit kept that. Train it again, or leave out --reject-atypical."
        )
    return None
