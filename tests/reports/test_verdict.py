from collections.abc import Callable

import pytest

from lorafit.evidence import CheapBaseline, Estimate, MetricsRecord, ModelScores, PairedComparison
from lorafit.reports.verdict import describe_verdict, judge

VALUE = Estimate(value=0.881, low=0.86, high=0.9)
SCORES = ModelScores(accuracy=VALUE, macro_f1=VALUE, mcc=VALUE, log_loss=VALUE, per_class=[], confusion_matrix=[])


def compare(low: float, high: float, p_value: float = 0.001) -> PairedComparison:
    difference = Estimate(value=(low + high) / 2, low=low, high=high)
    return PairedComparison(
        accuracy_difference=difference, log_loss_difference=VALUE, rows_gained=1, rows_lost=1, mcnemar_p_value=p_value
    )


@pytest.fixture
def measure() -> Callable[..., MetricsRecord]:
    """Makes metrics of what training changed, and of the difference from each cheap baseline."""

    def measure(change: PairedComparison | None, rows: int = 1000, **cheap: PairedComparison) -> MetricsRecord:
        return MetricsRecord(
            split="test",
            rows=rows,
            confidence_level=0.95,
            bootstrap_samples=100,
            baseline=None if change is None else SCORES,
            finetuned=SCORES,
            comparison=change,
            cheap_baselines={name: CheapBaseline(scores=SCORES, comparison=paired) for name, paired in cheap.items()},
        )

    return measure


@pytest.mark.parametrize(
    ("paired", "found"),
    [
        (compare(0.01, 0.03), "better"),
        (compare(-0.03, -0.01), "worse"),
        (compare(-0.01, 0.03), "unclear"),
        (compare(0.01, 0.03, p_value=0.06), "unclear"),
        (compare(-0.03, -0.01, p_value=0.06), "unclear"),
    ],
)
def test_interval_and_test_must_agree(paired: PairedComparison, found: str) -> None:
    assert judge(paired, 0.95) == found


@pytest.mark.parametrize(
    ("change", "cheap", "said"),
    [
        (
            compare(0.215, 0.271),
            {"nb_svm": compare(0.008, 0.034), "tfidf": compare(-0.009, 0.017, 0.5)},
            "Better than before: it gets 88.1 % of 1,000 test rows right, 24.3 points [21.5, 27.1] more, and is better "
            "than NB-SVM (+2.1 points [+0.8, +3.4]) but not shown to be better than TF-IDF and logistic regression "
            "(+0.4 points [-0.9, +1.7]).",
        ),
        (
            compare(-0.03, -0.01),
            {"nb_svm": compare(-0.03, -0.01), "tfidf": compare(-0.03, -0.01)},
            "Worse than before: it gets 88.1 % of 1,000 test rows right, 2.0 points [1.0, 3.0] fewer, and is "
            "worse than NB-SVM (-2.0 points [-3.0, -1.0]) and than TF-IDF and logistic regression (-2.0 points "
            "[-3.0, -1.0]).",
        ),
        (
            compare(0.215, 0.271),
            {"nb_svm": compare(-0.03, -0.01)},
            "Better than before: it gets 88.1 % of 1,000 test rows right, 24.3 points [21.5, 27.1] more, but is worse "
            "than NB-SVM (-2.0 points [-3.0, -1.0]).",
        ),
        (
            compare(-0.01, 0.03),
            {},
            "Not shown to be better than before: it gets 88.1 % of 1,000 test rows right, a change of +1.0 points "
            "[-1.0, +3.0].",
        ),
        (
            None,
            {"nb_svm": compare(-0.01, 0.03), "tfidf": compare(-0.01, 0.03)},
            "It gets 88.1 % of 1,000 test rows right, and is not shown to be better than NB-SVM (+1.0 points [-1.0, "
            "+3.0]) or TF-IDF and logistic regression (+1.0 points [-1.0, +3.0]); the model before training was not "
            "measured.",
        ),
        (None, {}, "It gets 88.1 % of 1,000 test rows right; the model before training was not measured."),
    ],
)
def test_verdict_is_one_plain_sentence(
    measure: Callable[..., MetricsRecord],
    change: PairedComparison | None,
    cheap: dict[str, PairedComparison],
    said: str,
) -> None:
    assert describe_verdict(measure(change, **cheap)) == said


def test_one_row_is_one_row(measure: Callable[..., MetricsRecord]) -> None:
    assert "of 1 test row right" in describe_verdict(measure(None, rows=1))
