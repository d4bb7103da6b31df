"""Open an exported model: onnxruntime, tokenizers and numpy are all it takes."""

from pathlib import Path

from lorafit.errors import RunError
from lorafit.inference.export.records import ExportLayout, ExportRecord
from lorafit.inference.predictor import Predictor, read_calibration
from lorafit.models.runtimes.onnx import OnnxRuntime
from lorafit.models.tokenization import read_tokenizer
from lorafit.runs.golden import verify_golden
from lorafit.system.atomic import compute_digest

__all__ = ["load_export"]


def load_export(
    folder: Path, *, raw: bool = False, target_accuracy: float | None = None, verify: bool = True
) -> Predictor:
    """Open an exported model for prediction.

    The files are compared with their digests, and the loaded model with what it said of the golden sentences when it
    was exported.

    Args:
        folder: The folder that `lorafit export` made.
        raw: Leave the calibration out.
        target_accuracy: Accuracy that accepted answers are to have; None takes the run's own.
        verify: Whether to compare the model with its golden logits.

    Returns:
        The classifier.

    Raises:
        RunError: A file is missing or altered, was written by a newer version, or the model gives other logits.
        UserInputError: A target accuracy out of range, or one without a calibration or with `raw`.
        MissingExtraError: onnxruntime is not installed; the message gives the pip line.
    """
    layout = ExportLayout(folder)
    record = ExportRecord.read(layout.record)
    _check_files(layout, record)
    runtime = OnnxRuntime(layout.model(record.precision), record.precision)
    kept = layout.calibration if layout.calibration.name in record.files else None
    predictor = Predictor.for_record(
        record,
        runtime,
        (read_tokenizer(layout.root), record.pad_id),
        calibration=read_calibration(kept, layout.root, record.build_task(), raw=raw, target_accuracy=target_accuracy),
        settings=(record.files, raw, target_accuracy),
    )
    if verify:
        verify_golden(layout.golden, predictor.compute_logits, runtime=runtime.name)
    return predictor


def _check_files(layout: ExportLayout, record: ExportRecord) -> None:
    for name, digest in record.files.items():
        path = layout.root / name
        if not path.is_file():
            raise RunError(f"{path} is missing: {layout.root} is not a complete export.")
        if compute_digest(path) != digest:
            raise RunError(f"{path} was altered after the export: its digest is another. Export the run again.")
