import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lorafit
from lorafit import RegressionPrediction
from lorafit.cli.render.explanation import show_explanation
from lorafit.inference.explanation import Deletion, Explanation, WordContribution
from lorafit.inference.predictor import Predictor
from lorafit.tasks.registry import build_task

Call = Callable[..., Any]
TEXT = "superb great film, dull boring story"
TASKS = {
    "single_label": build_task("single_label", ("neg", "pos")),
    "multi_label": build_task("multi_label", ("neg", "pos")),
    "regression": build_task("regression", ("value",)),
    "ordinal": build_task("ordinal", ("1", "2", "3")),
}
VALUES = {"single_label": [0.1, 0.9], "multi_label": [0.1, 0.9], "regression": [3.4567], "ordinal": [0.1, 0.2, 0.7]}
EVIL = "superb\x1b[31m\x07 \u202efilm [bold]dull[/bold]\nboring 🎬"


@pytest.fixture(scope="module")
def predictor(trained: Path) -> Predictor:
    return lorafit.load(trained)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def build(
    *words: tuple[str, float], task: str = "single_label", deletions: tuple[Deletion, ...] = (), **changes: Any
) -> Explanation:
    """An explanation of the last label, which is the predicted one."""
    text, contributions = " ".join(word for word, _ in words), []
    for word, contribution in words:
        start = contributions[-1].end + 1 if contributions else 0
        contributions.append(WordContribution(word, start, start + len(word), contribution))
    known, values = TASKS[task], np.array(VALUES[task])
    given = {
        "text": text,
        "task": known,
        "label": known.label_names[-1],
        "score": values[-1],
        "prediction": known.predict(values),
        "words_a_span": 1,
    }
    return Explanation(**(given | {"words": tuple(contributions), "deletions": deletions} | changes))


def show(explanation: Explanation, capsys: pytest.CaptureFixture[str]) -> str:
    show_explanation(explanation, json=False)
    return capsys.readouterr().out


def test_json_is_what_python_gives(call: Call, trained: Path, predictor: Predictor) -> None:
    answer = call("explain", trained, TEXT, EVIL, "--json")
    assert answer.code == 0
    for line, text in zip(answer.out.splitlines(), (TEXT, EVIL), strict=True):
        told, expected = json.loads(line), lorafit.explain(predictor, text)
        assert (told["text"], told["task"], told["label"]) == (text, "single_label", expected.label)
        assert told["prediction"]["label"] == expected.prediction.label
        assert told["score"] == pytest.approx(expected.score, abs=1e-6)
        assert [(word["text"], word["start"], word["end"]) for word in told["words"]] == [
            (word.text, word.start, word.end) for word in expected.words
        ]
        contributions = [word.contribution for word in expected.words]
        assert [word["contribution"] for word in told["words"]] == pytest.approx(contributions, abs=1e-5)
        assert [deletion["count"] for deletion in told["deletions"]] == [each.count for each in expected.deletions]
        assert told["faithfulness"] == pytest.approx(expected.faithfulness, abs=1e-5)
        assert told["drop"] - told["random_drop"] == pytest.approx(told["faithfulness"])
        assert told["beats_chance"] in {True, False}


def test_people_get_the_text_a_table_and_the_test(call: Call, trained: Path, predictor: Predictor) -> None:
    answer = call("explain", trained, TEXT)
    expected = lorafit.explain(predictor, TEXT)
    lines = answer.out.splitlines()
    assert answer.err == ""
    assert lines[:2] == [f"{expected.label} {expected.score:.1%}", TEXT]
    table = "\n".join(lines[2:])
    strongest = max(expected.words, key=lambda word: word.contribution)
    shown = re.search(rf"{strongest.text} +\+(\d+\.\d+) ", table)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(strongest.contribution, abs=0.051)
    for word in expected.words:
        assert re.search(rf"  {re.escape(word.text)} +[+-]", table)
    assert "Deletion test: without the top 20 % and 50 % of the words" in table
    assert "\x1b" not in answer.out


def test_several_texts_are_counted_unless_quiet(call: Call, trained: Path) -> None:
    answer = call("explain", trained, TEXT, "superb")
    assert answer.err.startswith("explaining: 2 texts")
    assert re.search(r"random.*\n\n(neg|pos) \d+\.\d%\nsuperb\n", answer.out, flags=re.DOTALL)
    assert answer.out.endswith("superb\nA text of one word: without it nothing is left, so nothing can be compared.\n")
    assert call("explain", trained, TEXT, "superb", "--quiet").err == ""


def test_another_label_can_be_asked_for(call: Call, trained: Path, predictor: Predictor) -> None:
    best = predictor.predict([TEXT])[0]
    other = min(best.scores, key=best.scores.__getitem__)
    shown = call("explain", trained, TEXT, "--label", other).out
    assert shown.startswith(f"{other} {best.scores[other]:.1%} (predicted: {best.describe()})\n")
    assert f"What a word adds to the log-odds of {other}," in shown


def test_an_unknown_label_is_refused_with_those_there_are(call: Call, trained: Path) -> None:
    answer = call("explain", trained, TEXT, "--label", "good")
    assert (answer.code, answer.out) == (2, "")
    assert "There is no label 'good'. Allowed: 'neg', 'pos'." in answer.err


def test_an_empty_text_is_refused(call: Call, trained: Path) -> None:
    answer = call("explain", trained, " ")
    assert (answer.code, answer.out) == (2, "")
    assert "This cannot be explained: an empty text." in answer.err


def test_a_text_cannot_steer_the_terminal(call: Call, trained: Path) -> None:
    answer = call("explain", trained, EVIL)
    assert answer.code == 0
    assert answer.out.splitlines()[1] == "superb�[31m� �film [bold]dull[/bold] boring 🎬"
    assert [sign for sign in answer.out if not sign.isprintable() and sign != "\n"] == []


def test_words_are_coloured_by_what_they_add(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    for name, value in (("COLUMNS", "80"), ("TERM", "xterm-256color")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout", stream)
    words = ("lovely", 2.0), ("fine", 0.5), ("the", 0.1), ("weak", -0.4), ("dull", -1.5)
    show_explanation(build(*words), json=False)
    bold_green, green, red, bold_red = "\x1b[1;32m", "\x1b[32m", "\x1b[31m", "\x1b[1;31m"
    assert stream.getvalue().splitlines()[1] == (
        f"{bold_green}lovely\x1b[0m {green}fine\x1b[0m the {red}weak\x1b[0m {bold_red}dull\x1b[0m"
    )


def test_the_table_has_the_strongest_words_and_says_how_many_are_left(capsys: pytest.CaptureFixture[str]) -> None:
    words = [(f"for{place}", 0.25 * place) for place in range(12)]
    shown = show(build(*words, ("against" * 10, -9.25), ("bad", -1.0)), capsys).splitlines()
    rows = [line.split() for line in shown if re.match("  for[0-9]", line)]
    assert [row[0] for row in rows] == [f"for{place}" for place in range(11, 3, -1)]
    assert rows[0] == ["for11", "+2.75", "x", "15.64", "againstagainstagainstagainsta…", "-9.25", "x", "1e-04"]
    assert rows[1][4:] == ["bad", "-1.00", "x", "0.37"]
    assert "  4 more with less or no effect" in shown
    assert max(map(len, shown)) <= 110


def test_nothing_that_changes_anything_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    shown = show(build(("film", 0.0), ("the", 0.0)), capsys)
    assert "No word changes anything." in shown
    assert "Two words are too few for a deletion test." in shown
    assert "more with less" not in shown


@pytest.mark.parametrize(
    ("deletions", "sentence"),
    [
        (
            (Deletion(0.1, 2, 0.2, (0.1, 0.0)), Deletion(0.2, 3, 0.4, (0.0, 0.1)), Deletion(0.5, 8, 0.6, (0.0, 0.1))),
            "without the top 10 %, 20 % and 50 % of the words the probability of pos falls by 40.0 points on average; "
            "without as many drawn at random it falls by 5.0 points (2 draws). "
            "The words that speak for the label matter more than others drawn at random.",
        ),
        (
            (Deletion(0.5, 2, 0.1, (0.2, -0.5)),),
            "without the top 50 % of the words the probability of pos falls by 10.0 points on average; without as many "
            "drawn at random it rises by 15.0 points (2 draws). The words that speak for the label are not shown to "
            "matter more than others drawn at random, so take the numbers above with care.",
        ),
    ],
)
def test_the_deletion_test_is_told_in_a_sentence(
    deletions: tuple[Deletion, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = show(build(("fine", 1.0), ("the", 0.5), ("end", 0.0), deletions=deletions), capsys)
    assert f"Deletion test: {sentence}" in " ".join(shown.split())


def test_names_of_labels_are_neither_markup_nor_codes(capsys: pytest.CaptureFixture[str]) -> None:
    label, deletions = "[red]:joy:\x1b", (Deletion(0.5, 2, 0.5, (0.0,)),)
    task = build_task("single_label", (label, "other"))
    prediction, words = task.predict(np.array([0.2, 0.8])), (("fine", 1.0), ("the", 0.5), ("end", 0.0))
    shown = show(build(*words, label=label, deletions=deletions, prediction=prediction), capsys)
    assert shown.count("[red]:joy:�") == 3
    assert "\x1b" not in shown


def test_groups_of_words_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    deletions = (Deletion(0.5, 2, 0.5, (0.0,)),)
    shown = show(build(("a fine\nfilm", 1.0), ("with", 0.5), words_a_span=3, deletions=deletions), capsys)
    told = " ".join(shown.split())
    assert "3 adjacent words at a time are left out, not single ones, in 2 groups." in told
    assert "50 % of the groups" in told
    assert re.search(r"  a fine film +\+1\.00", shown)


@pytest.mark.parametrize(
    ("task", "heading", "title", "columns", "row", "drops"),
    [
        (
            "single_label",
            "pos 90.0%",
            "What a word adds to the log-odds of pos, and by how much it multiplies the odds",
            "for log-odds odds against log-odds odds",
            "superb +1.50 x 4.48 dull -0.25 x 0.78",
            "the probability of pos falls by 125.0 points on average; without as many drawn at random it falls by 62.5 "
            "points (2 draws). The words that speak for the label matter more",
        ),
        (
            "multi_label",
            "pos 90.0%",
            "What a word adds to the log-odds of pos, and by how much it multiplies the odds",
            "for log-odds odds against log-odds odds",
            "superb +1.50 x 4.48 dull -0.25 x 0.78",
            "the probability of pos falls by",
        ),
        (
            "regression",
            "3.457",
            "What a word adds to the number",
            "raises by lowers by",
            "superb +1.500 dull -0.250",
            "the number falls by 1.250 on average; without as many drawn at random it falls by 0.625 (2 draws). The "
            "words that raise the number matter more",
        ),
        (
            "ordinal",
            "3 70.0%",
            "What a word adds to the log-odds of 3, and by how much it multiplies the odds",
            "for log-odds odds against log-odds odds",
            "superb +1.50 x 4.48 dull -0.25 x 0.78",
            "the probability of 3 falls by",
        ),
    ],
)
def test_every_task_is_explained_in_its_words(
    capsys: pytest.CaptureFixture[str], task: str, heading: str, title: str, columns: str, row: str, drops: str
) -> None:
    deletion = Deletion(share=0.5, count=2, drop=1.25, random_drops=(0.5, 0.75))
    shown = show(build(("superb", 1.5), ("dull", -0.25), ("film", 0.0), task=task, deletions=(deletion,)), capsys)
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == heading
    assert {title, columns, row} <= set(lines)
    assert f"50 % of the words {drops}" in " ".join(lines)


def test_what_else_is_predicted_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("fine", 1.0), ("end", 0.0)
    several, none = (TASKS["multi_label"].predict(np.array(values)) for values in ([0.75, 0.9], [0.2, 0.3]))
    assert show(build(*words, prediction=several), capsys).startswith("pos 90.0% (predicted: neg 75.0%, pos 90.0%)\n")
    shown = show(build(*words, task="multi_label", score=0.3, prediction=none), capsys)
    assert shown.startswith("pos 30.0% (predicted: (none))\n")
    interval = RegressionPrediction(3.4567, 1.0, 6.0)
    shown = show(build(*words, task="regression", prediction=interval), capsys)
    assert shown.startswith("3.457 (predicted: 3.457 [1.000, 6.000])\n")
