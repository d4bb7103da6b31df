"""What is said of a model's confidence: calibration, sets of labels, and the answers that are accepted."""

from collections.abc import Iterator

from lorafit.evidence import AbstentionScores, ConfidenceRecord, Estimate

__all__ = ["describe_confidence"]


def describe_confidence(record: ConfidenceRecord) -> Iterator[str]:
    """Yield a sentence each about the calibration, the sets and, where a target was named, the operating point."""
    yield (
        f"Confidence is off by {_percent(record.calibrated.ece)} on average (expected calibration error; "
        f"{100 * record.raw.ece.value:.1f} % before calibration: temperature {record.temperature:.2f} from "
        f"{record.calibration_rows:,} rows)."
    )
    rows = sum(record.set_sizes)
    size = sum(count * labels for labels, count in enumerate(record.set_sizes, start=1)) / rows
    yield (
        f"Sets of {size:.2f} labels on average hold the true one in {_percent(record.coverage)} of rows; asked for: "
        f"{100 * record.coverage_asked:g} %."
    )
    if record.abstention is not None:
        yield _describe_abstention(record.abstention)


def _describe_abstention(scores: AbstentionScores) -> str:
    target = f"{100 * scores.target_accuracy:g} %"
    if scores.accuracy is None:
        return f"No confidence is high enough for an accuracy of {target}: every answer abstains."
    return (
        f"Accepting answers with a confidence of at least {100 * scores.accept_threshold:.1f} % gives "
        f"{_percent(scores.accuracy)} right on {_percent(scores.accepted_share)} of the rows; asked for: {target}."
    )


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
