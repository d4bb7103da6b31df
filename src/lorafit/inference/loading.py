"""Open what was trained, whatever form it has."""

from pathlib import Path
from typing import Literal

from lorafit.errors import RunError, UserInputError
from lorafit.inference.export.loading import load_export
from lorafit.inference.export.records import ExportLayout
from lorafit.inference.predictor import Predictor
from lorafit.runs.folder import RunLayout

__all__ = ["load"]


def load(
    path: str | Path,
    *,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    raw: bool = False,
    target_accuracy: float | None = None,
    verify: bool = True,
) -> Predictor:
    """Open a run folder, or the folder of an exported model, for prediction.

    Files are compared with their digests, and the loaded model with its golden logits.

    Args:
        path: The folder.
        precision: Of a run: `auto` takes bf16 where the CPU multiplies in bf16, else fp32. An export has its own.
        raw: Leave the calibration out: probabilities as the model gives them, no sets, nothing abstains.
        target_accuracy: Accuracy that accepted answers are to have, above 0 and below 1; None takes the run's own.
        verify: Whether to compare the loaded model with its golden logits.

    Returns:
        The classifier.

    Raises:
        RunError: There is no such folder, a file is missing or altered, or the model gives other logits.
        UserInputError: A target accuracy out of range, or one without a calibration or with `raw`.
        MissingExtraError: What runs it is not installed; the message gives the pip line.
    """
    folder = Path(path).expanduser().resolve()
    if not any(known.is_file() for known in (ExportLayout(folder).record, RunLayout(folder).record)):
        raise RunError(
            f"{RunLayout(folder).record} is missing: {folder} is not a complete run folder, nor an export of one, "
            f"which would have {ExportLayout(folder).record.name}."
        )
    if not ExportLayout(folder).record.is_file():
        from lorafit.inference.run_loading import load_run  # an exported model needs none of what this brings

        return load_run(folder, precision=precision, raw=raw, target_accuracy=target_accuracy, verify=verify)
    if precision != "auto":
        raise UserInputError(f"{folder} is an exported model: its precision was chosen when it was exported.")
    return load_export(folder, raw=raw, target_accuracy=target_accuracy, verify=verify)
