from collections.abc import Sequence

import numpy as np
import pytest

from lorafit.reports.verdict import (
    describe_balancing,
    describe_exchangeability,
    describe_unpredicted,
    describe_verdict,
)
from lorafit.tasks.base import Array, Task
from lorafit.tasks.baselines import MAJORITY
from lorafit.tasks.evaluation import score_models
from lorafit.tasks.records import (
    BaselineScores,
    Comparison,
    Estimate,
    Exchangeability,
    MetricsRecord,
    Resampling,
    Scores,
)
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


CLAIMS = np.array([0] * 20 + [1] * 480)
"""True labels of 500 rows: 20 of `fraud`, the others `ok`."""


def judge_claims(after: Sequence[int], before: Sequence[int] | None = None, *, level: float = 0.95) -> MetricsRecord:
    """Measure models that predict these labels of the claims with certainty, beside the majority class."""
    task, resampling = build_task("single_label", ("fraud", "ok")), Resampling(level, 500)
    values: list[Array] = [np.eye(2)[np.asarray(part)] * 0.9 + 0.05 for part in (after, before or after)]
    others = {"before": values[1], MAJORITY: task.predict_baseline(MAJORITY, ["a"] * 500, CLAIMS, ["b"] * 500)}
    scores, compared = score_models(task, CLAIMS, values[0], others, resampling)
    untrained = compared.pop("before")
    return MetricsRecord(
        task=task.name,
        split="test",
        rows=500,
        confidence_level=level,
        bootstrap_samples=500,
        before=None if before is None else untrained.scores,
        after=scores,
        comparison=None if before is None else untrained.comparison,
        baselines=compared,
    )


TASK = build_task("single_label", ("fraud", "ok"))
ALWAYS_OK = [1] * 500
HALF_WRONG = [*[0] * 40, *[1] * 460]


def test_model_that_always_says_the_frequent_label_is_not_better() -> None:
    said = describe_verdict(TASK, judge_claims(ALWAYS_OK, [0] * 250 + [1] * 250))
    assert said.startswith(
        "Not shown to be better than always answering 'ok', though better than before: it gets 96.0 % of 500 test rows "
        "right, 42.0 points ["
    )
    assert said.endswith("] more.")
    unmeasured = describe_verdict(TASK, judge_claims(ALWAYS_OK))
    assert unmeasured == (
        "Not shown to be better than always answering 'ok': it gets 96.0 % of 500 test rows right; the model before "
        "training was not measured."
    )
    same = describe_verdict(TASK, judge_claims(ALWAYS_OK, ALWAYS_OK))
    assert same.startswith("Not shown to be better than always answering 'ok', and not shown to be better than before")


def test_model_that_finds_the_rare_label_is_better() -> None:
    right = CLAIMS.tolist()
    said = describe_verdict(TASK, judge_claims(right, ALWAYS_OK))
    assert said.startswith("Better than before: it gets 100.0 % of 500 test rows right")
    assert "always" not in said, "what is beaten by far is not spoken of"


def test_balanced_metric_is_named_where_accuracy_pays_for_it() -> None:
    said = describe_verdict(TASK, judge_claims([0] * 60 + [1] * 440, [0] * 250 + [1] * 250))
    assert said.startswith("Worse than always answering 'ok', though better than before: it gets 92.0 % of 500")
    assert " By F1 (macro) it is better than that (+" in said


def test_label_that_is_never_predicted_is_said_in_words() -> None:
    metrics = judge_claims(ALWAYS_OK)
    said = "'fraud' is never predicted (recall 0 of 20). Look at F1 (macro) and MCC, which are high only where rare "
    advice = " To let rare labels count more in training: --class-weights balanced."
    assert describe_unpredicted(TASK, metrics) == f"{said}labels are found, too."
    assert describe_unpredicted(TASK, metrics, []) == f"{said}labels are found, too.{advice}"
    assert describe_unpredicted(TASK, metrics, ["training.class_weights=balanced"]) == f"{said}labels are found, too."
    assert describe_unpredicted(TASK, judge_claims(HALF_WRONG), []) == ""


def test_label_that_training_did_not_have_is_not_to_count_more() -> None:
    task, metrics = build_task("single_label", ["ok", "other"]), judge_claims(ALWAYS_OK)
    assert "fraud" not in task.label_names
    assert describe_unpredicted(task, metrics, []).endswith("rare labels are found, too.")


def test_a_label_that_is_not_rare_is_not_to_count_more() -> None:
    metrics = judge_claims(ALWAYS_OK)
    even = [one.model_copy(update={"support": 250}) for one in metrics.after.per_class]
    metrics = metrics.model_copy(update={"after": metrics.after.model_copy(update={"per_class": even})})
    assert describe_unpredicted(TASK, metrics, []).endswith("rare labels are found, too.")


def test_a_single_metric_takes_the_singular() -> None:
    said = describe_unpredicted(build_task("multi_label", ("fraud", "ok")), judge_claims(ALWAYS_OK))
    assert ", which is high only where rare labels are found, too." in said


def test_of_many_labels_never_predicted_some_are_named() -> None:
    task, y = build_task("single_label", [f"intent {place}" for place in range(9)]), np.arange(9).repeat(2)
    scores = score_models(task, y, np.tile(np.eye(9)[0], (18, 1)), {}, Resampling(samples=100))[0]
    metrics = judge_claims(ALWAYS_OK).model_copy(update={"after": scores})
    assert describe_unpredicted(task, metrics).startswith(
        "8 labels are never predicted (recall): 'intent 1' (0 of 2), 'intent 2' (0 of 2), 'intent 3' (0 of 2), "
        "'intent 4' (0 of 2), 'intent 5' (0 of 2), and 3 more."
    )
    numbers = build_task("regression", ("value",))
    assert describe_unpredicted(numbers, metrics.model_copy(update={"after": Scores(metrics=score(1))}), []) == ""


def test_probabilities_after_balancing_are_explained() -> None:
    assert describe_balancing([]) == ""
    said = describe_balancing(["training.class_weights=balanced", "training.loss=focal"])
    assert said.startswith("Trained with training.class_weights=balanced and training.loss=focal: probabilities are")


def test_rows_of_another_kind_are_told_where_that_is_shown() -> None:
    metrics = measure(build("single_label"), 0.8, None)
    assert describe_exchangeability(metrics) == ""
    found = Exchangeability(rows=1000, calibration_rows=500, p_value=0.02, false_alarms=0.01, distance=0.0)
    assert describe_exchangeability(metrics.model_copy(update={"exchangeability": found})) == ""
    shown = found.model_copy(update={"p_value": 0.001})
    sentence = describe_exchangeability(metrics.model_copy(update={"exchangeability": shown}))
    assert sentence == (
        "The test rows are of another kind than the calibration rows (permutation test, p = 0.001): what was "
        "calibrated, such as a coverage, is guaranteed less for them than was asked for."
    )
    far = shown.model_copy(update={"distance": 0.034})
    sentence = describe_exchangeability(metrics.model_copy(update={"exchangeability": far}))
    assert sentence.endswith("is guaranteed less for them than was asked for, by at least 3.4 points.")
