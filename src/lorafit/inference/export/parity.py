"""Does an exported model predict what the original predicts?"""

from typing import Final

import numpy as np

from lorafit.data.rows import Split
from lorafit.errors import ExportDriftError
from lorafit.inference.export.records import ParityRecord
from lorafit.models.runtimes.graphs import Precision
from lorafit.tasks.base import Array, Task, share
from lorafit.tasks.evaluation import compare
from lorafit.tasks.format import write_numbers
from lorafit.tasks.records import Calibration, Estimate, Resampling

_LARGEST_DIFFERENCE: Final[dict[Precision, float]] = {"fp32": 1e-3, "bf16": 0.1, "int8": 0.25}
"""Of a logit, relative to `Task.logit_scale`."""

_LEAST_SCALE: Final = 1.0
_MOST_LOST: Final = 0.01
"""Of a parity metric, beyond chance."""


def measure_parity(
    task: Task,
    precision: Precision,
    golden: tuple[Array, Array],
    rows: Split | None = None,
    logits: tuple[Array, Array] | None = None,
    calibration: Calibration | None = None,
) -> ParityRecord:
    """Compare the logits of the original and of the exported model.

    Args:
        task: What they predict.
        precision: Of the exported model.
        golden: Those of the golden sentences, shape (sentences, outputs) each.
        rows: n validation rows, or None where there are none.
        logits: Those of the rows, shape (n, outputs) each.
        calibration: That of both models, or None.

    Returns:
        The comparison.
    """
    before, after = golden if logits is None else map(np.concatenate, zip(golden, logits, strict=True))
    parity = ParityRecord(
        rows=0,
        largest_difference=float(np.abs(before - after).max()),
        allowed_difference=_LARGEST_DIFFERENCE[precision] * task.logit_scale(before, least=_LEAST_SCALE),
    )
    if rows is None or logits is None or not np.isfinite(after).all():
        return parity
    original, exported = (task.activate(part, calibration) for part in logits)
    same = task.same_prediction(original, exported)
    agreement = None if same is None else share(int(same.sum()), len(rows), Resampling.level)
    differences = _measure_differences(task, rows, original, exported, calibration)
    return parity.model_copy(update={"rows": len(rows), "agreement": agreement, "differences": differences})


def _measure_differences(
    task: Task, rows: Split, before: Array, after: Array, calibration: Calibration | None
) -> dict[str, Estimate]:
    resampling = Resampling()
    compared = compare(task, rows.y, before, after, resampling).differences
    measured = task.measure_diff(rows.y, before, after, (calibration, calibration), resampling)
    found = {name: compared[name] for name in task.parity_metrics}
    return found | {name: measured[name] for name in ("ece",) if name in measured}


def check_parity(parity: ParityRecord, task: Task, precision: Precision) -> None:
    """Refuse an export that predicts something else than the original.

    Args:
        parity: The comparison.
        task: What both predict.
        precision: Of the exported model.

    Raises:
        ExportDriftError: It is further off than is allowed.
    """
    faults, difference = [], parity.largest_difference
    if not difference <= parity.allowed_difference:
        faults.append(f"a logit differs by {difference:.4g}, allowed are {parity.allowed_difference:.4g}")
    if parity.agreement is not None and parity.agreement.high < task.parity_agreement:
        faults.append(f"{parity.agreement.value:.1%} of the predictions agree, {task.parity_agreement:.0%} must")
    for name in task.parity_metrics:
        metric, lost = task.metrics[name], parity.differences.get(name)
        if lost is not None and lost.high < -_MOST_LOST:
            (most,) = write_numbers(metric.form, _MOST_LOST)
            faults.append(f"{metric.difference_title}: {metric.write_difference(lost)}, at most {most} may be lost")
    if faults:
        advice = "Export without --int8, or take" if precision == "int8" else "Take"
        raise ExportDriftError(
            f"The exported model does not predict what the original predicts: {'; '.join(faults)} ({parity.rows:,} "
            f"validation rows). Nothing was written. {advice} it as it is with --allow-drift."
        )
