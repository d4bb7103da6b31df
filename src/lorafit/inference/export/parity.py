"""Does an exported model say what the original says?"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorafit.answers import Calibration, to_values
from lorafit.data.rows import Split
from lorafit.errors import ExportDriftError
from lorafit.inference.export.records import ParityRecord, Precision
from lorafit.labels import LabelSet
from lorafit.metrics.multi_label import compare_multi_label, decide
from lorafit.metrics.paired import measure_ece_difference
from lorafit.metrics.regression import compare_regression
from lorafit.metrics.uncertainty import compare_paired, wilson_interval

__all__ = ["check_parity", "measure_parity"]

_LARGEST_DIFFERENCE: dict[Precision, float] = {"fp32": 1e-3, "int8": 0.25}
"""Of a logit, relative to the largest logit or 1 if that is larger; of numbers, to how far they lie from their mean."""

_LEAST_AGREEMENT, _MOST_LOST = 0.98, 0.01
"""Share of validation rows with the same label, and accuracy (or micro F1, or R²) that may be lost, beyond chance."""


def measure_parity(
    golden: tuple[NDArray[np.floating], NDArray[np.floating]],
    labels: LabelSet,
    rows: Split | None = None,
    logits: tuple[NDArray[np.floating], NDArray[np.floating]] | None = None,
    calibration: Calibration | None = None,
) -> ParityRecord:
    """Compare the logits of the original and of the exported model.

    Args:
        golden: Those of the golden sentences, shape (sentences, outputs) each.
        labels: The task and its classes.
        rows: n validation rows, or None where there are none.
        logits: Those of the rows, shape (n, outputs) each.
        calibration: What makes them probabilities, or None.

    Returns:
        The comparison.
    """
    before, after = golden if logits is None else map(np.concatenate, zip(golden, logits, strict=True))
    centre = before.mean() if labels.task == "regression" else 0.0
    parity = ParityRecord(
        task=labels.task,
        rows=0,
        largest_difference=float(np.abs(before - after).max()),
        largest_logit=float(np.abs(before - centre).max()),
    )
    if rows is None or logits is None or not np.isfinite(after).all():
        return parity
    said, now = (to_values(part, labels, calibration) for part in logits)
    return parity.model_copy(update={"rows": len(rows), **_compare_answers(rows, labels, said, now)})


def _compare_answers(
    rows: Split, labels: LabelSet, before: NDArray[np.float64], after: NDArray[np.float64]
) -> dict[str, Any]:
    """Compare what both say of rows: fields of the record, by task."""
    if labels.task == "regression":
        compared = compare_regression(rows.labels, before[:, 0], after[:, 0])
        return {"score_differences": {"r2": compared.differences["r2"]}}
    if labels.task == "multi_label":
        same = (decide(before) == decide(after)).all(axis=1)
        compared = compare_multi_label(rows.labels, before, after)
        scores: dict[str, Any] = {"score_differences": {"micro_f1": compared.differences["micro_f1"]}}
    else:
        same = before.argmax(axis=1) == after.argmax(axis=1)
        scores = {
            "accuracy_difference": compare_paired(rows.labels, before, after).accuracy_difference,
            "ece_difference": measure_ece_difference(rows.labels, before, after),
        }
    return {"label_agreement": wilson_interval(int(same.sum()), len(rows), 0.95), **scores}


def check_parity(parity: ParityRecord, precision: Precision) -> None:
    """Refuse an export that says something else than the original.

    Args:
        parity: The comparison.
        precision: Of the exported model.

    Raises:
        ExportDriftError: It is further off than is allowed for this precision.
    """
    faults, difference = [], parity.largest_difference
    least = 0.0 if parity.task == "regression" else 1.0
    allowed = _LARGEST_DIFFERENCE[precision] * max(least, parity.largest_logit)
    if not difference <= allowed:
        faults.append(f"a logit differs by {difference:.4g}, allowed are {allowed:.4g}")
    agreement = parity.label_agreement if parity.task == "single_label" else None
    if agreement is not None and agreement.high < _LEAST_AGREEMENT:
        faults.append(f"{agreement.value:.1%} of the labels agree, {_LEAST_AGREEMENT:.0%} must")
    if parity.accuracy_difference is not None and parity.accuracy_difference.high < -_MOST_LOST:
        lost = -100 * parity.accuracy_difference.value
        faults.append(f"{lost:.1f} points of accuracy are lost, at most {100 * _MOST_LOST:g} may be")
    for name, difference_of in parity.score_differences.items():
        if difference_of.high < -_MOST_LOST:
            faults.append(f"{name} falls by {-difference_of.value:.3f}, at most {_MOST_LOST:g} may be lost")
    if faults:
        advice = "Export without --int8, or take" if precision == "int8" else "Take"
        raise ExportDriftError(
            f"The exported model does not say what the original says: {'; '.join(faults)} ({parity.rows:,} validation "
            f"rows). Nothing was written. {advice} it as it is with --allow-drift."
        )
