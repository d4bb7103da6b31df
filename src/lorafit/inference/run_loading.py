"""Open a run folder with torch."""

from pathlib import Path
from typing import Literal

from lorafit.inference.predictor import Predictor, read_calibration
from lorafit.models.load import load_tokenizer
from lorafit.runs.folder import CALIBRATION_FILE, RunLayout
from lorafit.runs.golden import GOLDEN_PRECISION, verify_golden
from lorafit.runs.records import RunRecord
from lorafit.runs.saving import load_trained
from lorafit.system.extras import require

__all__ = ["load_run"]


def load_run(
    run: str | Path,
    *,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    raw: bool = False,
    target_accuracy: float | None = None,
    verify: bool = True,
) -> Predictor:
    """Open a run folder for prediction.

    The files are compared with the digests in the run record, and the loaded model with its golden logits.

    Args:
        run: The run folder.
        precision: `auto` takes bf16 where the CPU multiplies in bf16, else fp32.
        raw: Leave the calibration out: probabilities as the model gives them, no sets, nothing abstains.
        target_accuracy: Accuracy that accepted answers are to have, above 0 and below 1; None takes the run's own.
        verify: Whether to compare the loaded model with its golden logits.

    Returns:
        The classifier.

    Raises:
        RunError: The run is not complete or altered, or the model gives other logits than its golden ones.
        UserInputError: A target accuracy out of range, or one without a calibration or with `raw`.
        MissingExtraError: torch, transformers or peft is not installed; the message gives the pip line.
    """
    torch, *_ = (require(name, extra="train", purpose="Loading a run") for name in ("torch", "transformers", "peft"))
    from lorafit.models.acceleration.encoder_block import fuse_encoder
    from lorafit.models.acceleration.inference import make_fast
    from lorafit.models.acceleration.memory import keep_freed_memory
    from lorafit.models.acceleration.precision import choose_device, choose_precision
    from lorafit.models.runtimes.pytorch import TorchRuntime

    layout = RunLayout(Path(run).expanduser().resolve())
    record = RunRecord.read(layout.record)
    keep_freed_memory()
    model = load_trained(layout, record)
    kept = layout.calibration if CALIBRATION_FILE in record.files else None
    calibration = read_calibration(kept, layout.root, record.build_task(), raw=raw, target_accuracy=target_accuracy)
    device = choose_device("auto")
    torch.nn.Module.to(model, device)
    if device == "cpu" and fuse_encoder(model) is not None:
        model = make_fast(model)
    tokenizer = load_tokenizer(layout.trained)
    exact, predictor = (
        Predictor.for_record(
            record,
            TorchRuntime(model, choice),
            tokenizer,
            calibration=calibration,
            settings=(record.files, raw, target_accuracy),
        )
        for choice in (GOLDEN_PRECISION, choose_precision(precision, device))
    )
    if verify:
        verify_golden(layout.golden, exact.compute_logits, runtime=TorchRuntime.name)
    return predictor
