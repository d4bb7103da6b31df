"""A model's answer for a text on one line."""

from rich.text import Text

from lorafit.answers import Answer, LabelsPrediction, NumberPrediction, Prediction
from lorafit.data.label_values import LabelValue
from lorafit.system.text import clean_text
from lorafit.task_figures import write_true_value, write_value

__all__ = ["describe_answer", "judge_answer", "write_label"]

_LONGEST_NAME = 40
"""Characters that are shown of a label beside a text."""


def describe_answer(answer: Answer) -> str:
    """Describe an answer in columns of the same width for every text of a model.

    Args:
        answer: What a model said.

    Returns:
        Label, confidence and doubt; the labels with their confidence; or the number with its interval.
    """
    if isinstance(answer, Prediction):
        width = max(len(clean_text(label)) for label in answer.scores)  # of all labels: a file comes part by part
        doubt = "" if answer.abstain is None else "  abstain" if answer.abstain else "         "
        return f"{clean_text(answer.label):<{width}}  {answer.score:6.1%}{doubt}"
    if isinstance(answer, LabelsPrediction):
        return ", ".join(f"{clean_text(label)} {answer.scores[label]:.1%}" for label in answer.labels) or "(none)"
    if answer.low is None or answer.high is None:
        return write_value(answer.value)
    return f"{write_value(answer.value)}  [{write_value(answer.low)}, {write_value(answer.high)}]"


def judge_answer(answer: Answer, truth: LabelValue) -> Text:
    """Describe an answer with a sign of whether it is right; a number is neither.

    Args:
        answer: What a model said.
        truth: The true label.

    Returns:
        Text in colour.
    """
    if isinstance(answer, NumberPrediction):
        return Text(describe_answer(answer))
    if isinstance(answer, Prediction):
        right, said = answer.label == truth, f"{write_label(answer.label)} {answer.score:.0%}"
    else:
        right, said = set(answer.labels) == set(truth if isinstance(truth, tuple) else ()), write_label(answer.labels)
    return Text(f"{'✓' if right else '✗'} {said}", style="green" if right else "red")


def write_label(label: LabelValue) -> str:
    """Write a true label: its name, several, or the number; long names are cut."""
    if isinstance(label, tuple):
        return ", ".join(map(write_label, label)) or "(none)"
    if isinstance(label, str):
        return clean_text(label, most=_LONGEST_NAME)
    return write_true_value(label)
