import pytest

from lorafit.reports.verdict import describe_verdict
from lorafit.tasks.base import Task
from lorafit.tasks.records import BaselineScores, Comparison, Estimate, MetricsRecord, Scores
from lorafit.tasks.registry import TASKS, build_task


def score(value: float) -> dict[str, Estimate]:
    estimate = Estimate(value=value, low=value, high=value)
    return dict.fromkeys(("accuracy", "micro_f1", "mae"), estimate)


def compare(low: float, high: float, p_value: float = 0.001) -> Comparison:
    """Compare with more rows fixed than broken where more is better, which agrees with the difference."""
    difference = Estimate(value=(low + high) / 2, low=low, high=high)
    differences = dict.fromkeys(("accuracy", "micro_f1", "mae"), difference)
    return Comparison(differences=differences, rows_fixed=20, rows_broken=10, p_value=p_value)


def turn(comparison: Comparison) -> Comparison:
    """Exchange rows fixed and broken."""
    return comparison.model_copy(update={"rows_fixed": 10, "rows_broken": 20})


def build(name: str) -> Task:
    return build_task(name, ("value",) if name == "regression" else ("1", "2"))


def measure(
    task: Task, value: float, change: Comparison | None, rows: int = 1000, **baselines: Comparison
) -> MetricsRecord:
    scores = Scores(metrics=score(value))
    return MetricsRecord(
        task=task.name,
        split="test",
        rows=rows,
        confidence_level=0.95,
        bootstrap_samples=100,
        before=None if change is None else scores,
        after=scores,
        comparison=change,
        baselines={name: BaselineScores(scores=scores, comparison=one) for name, one in baselines.items()},
    )


WORSE = turn(compare(-0.03, -0.01))
OPEN = compare(-0.01, 0.03)


@pytest.mark.parametrize(
    ("change", "baselines", "verdict"),
    [
        (
            compare(0.215, 0.271),
            {"nb_svm": compare(0.008, 0.034), "tfidf": compare(-0.009, 0.017, 0.5)},
            "Better than before: it gets 88.1 % of 1,000 test rows right, 24.3 points [21.5, 27.1] more, and is better "
            "than NB-SVM (+2.1 points [+0.8, +3.4]) but not shown to be better than TF-IDF and logistic regression "
            "(+0.4 points [-0.9, +1.7]).",
        ),
        (
            WORSE,
            {"nb_svm": WORSE, "tfidf": WORSE},
            "Worse than before: it gets 88.1 % of 1,000 test rows right, 2.0 points [1.0, 3.0] fewer, and is "
            "worse than NB-SVM (-2.0 points [-3.0, -1.0]) and than TF-IDF and logistic regression (-2.0 points "
            "[-3.0, -1.0]).",
        ),
        (
            compare(0.215, 0.271),
            {"nb_svm": WORSE},
            "Better than before: it gets 88.1 % of 1,000 test rows right, 24.3 points [21.5, 27.1] more, but is worse "
            "than NB-SVM (-2.0 points [-3.0, -1.0]).",
        ),
        (
            OPEN,
            {},
            "Not shown to be better than before: it gets 88.1 % of 1,000 test rows right, a change of +1.0 points "
            "[-1.0, +3.0].",
        ),
        (
            compare(0.01, 0.03, p_value=0.06),
            {},
            "Not shown to be better than before: it gets 88.1 % of 1,000 test rows right, a change of +2.0 points "
            "[+1.0, +3.0].",
        ),
        (
            None,
            {"nb_svm": OPEN, "tfidf": OPEN},
            "It gets 88.1 % of 1,000 test rows right, and is not shown to be better than NB-SVM (+1.0 points [-1.0, "
            "+3.0]) or TF-IDF and logistic regression (+1.0 points [-1.0, +3.0]); the model before training was not "
            "measured.",
        ),
        (None, {}, "It gets 88.1 % of 1,000 test rows right; the model before training was not measured."),
    ],
)
def test_verdict_is_one_plain_sentence(
    change: Comparison | None, baselines: dict[str, Comparison], verdict: str
) -> None:
    task = build("single_label")
    assert describe_verdict(task, measure(task, 0.881, change, **baselines)) == verdict


@pytest.mark.parametrize(
    ("name", "better", "worse", "unclear"),
    [
        (
            "multi_label",
            "it reaches an F1 (micro) of 50.0 % on 1,000 test rows, 40.0 points [30.0, 50.0] more",
            "it reaches an F1 (micro) of 50.0 % on 1,000 test rows, 40.0 points [30.0, 50.0] less",
            "it reaches an F1 (micro) of 50.0 % on 1,000 test rows, a change of +10.0 points [-10.0, +30.0]",
        ),
        *(
            (
                name,
                "on 1,000 test rows it is off by 0.500 on average, 0.400 [0.300, 0.500] less",
                "on 1,000 test rows it is off by 0.500 on average, 0.400 [0.300, 0.500] more",
                "on 1,000 test rows it is off by 0.500 on average, a change of +0.100 [-0.100, +0.300]",
            )
            for name in ("regression", "ordinal")
        ),
    ],
)
def test_every_task_has_its_words(name: str, better: str, worse: str, unclear: str) -> None:
    task = build(name)
    sign = 1 if task.primary_metric.higher_is_better else -1
    gain, loss = (compare(*sorted((turn * 0.3, turn * 0.5))) for turn in (sign, -sign))
    assert describe_verdict(task, measure(task, 0.5, gain)) == f"Better than before: {better}."
    assert describe_verdict(task, measure(task, 0.5, turn(loss))) == f"Worse than before: {worse}."
    assert (
        describe_verdict(task, measure(task, 0.5, compare(-0.1, 0.3)))
        == f"Not shown to be better than before: {unclear}."
    )


@pytest.mark.parametrize("name", TASKS)
def test_one_row_is_one_row(name: str) -> None:
    task = build(name)
    assert "1 test row" in describe_verdict(task, measure(task, 0.5, None, rows=1))
    assert "1 test rows" not in describe_verdict(task, measure(task, 0.5, None, rows=1))


def test_an_undefined_metric_has_no_verdict() -> None:
    task = build("multi_label")
    said = describe_verdict(task, measure(task, float("nan"), compare(0.1, 0.2), nb_svm=compare(0.1, 0.2)))
    assert said.startswith("F1 (micro) is undefined on 1,000 test rows")
    assert "better" not in said
