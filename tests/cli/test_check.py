"""What `lorafit check` prints, writes and ends with."""

import csv
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lorafit.data.quality.report import CheckReport

Call = Callable[..., Any]
REVIEW = "a quiet film about two brothers who open a bakery and lose it again to the tax office"


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Reviews with one duplicate, one contradiction and some markup, in a folder with a blank in its name."""
    path = tmp_path / "my data" / "reviews.csv"
    path.parent.mkdir()
    rows = [
        (f"row {number} of many, as {'good' if number % 2 else 'bad'} as the last", "yn"[number % 2])
        for number in range(90)
    ]
    rows += [(f"{REVIEW}<br />", "y"), (f"{REVIEW}<br />", "y"), ("the same text", "y"), ("the same text", "n")]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


@pytest.mark.usefixtures("builtin_encoder")
def test_findings_are_printed_with_remedies_that_work(call: Call, reviews: Path) -> None:
    answer = call("check", reviews, "--model", "builtin:distil-minilm")
    assert answer.code == 0
    assert "1 text has contradictory labels: the same text stands in 2 rows" in answer.out
    assert "in all      3 warnings" in answer.out
    assert REVIEW not in answer.out + answer.err
    lines = [line.strip() for line in answer.out.splitlines()]
    remedies = [shlex.split(line)[1:] for line in lines if line.startswith("lorafit check")]
    assert len(remedies) == 3
    for words in remedies:
        mended = call(*words, "--overwrite", "-q")
        assert (mended.code, "fixed" in mended.out) == (0, True), mended.err
        copy = reviews.with_name("reviews.cleaned.csv")
        assert f"next        lorafit train '{copy}'" in mended.out
        again = call("check", copy, "--model", "builtin:distil-minilm", "-q")
        assert again.out.count("lorafit check") < answer.out.count("lorafit check")


def test_record_is_the_only_output_with_json(call: Call, reviews: Path) -> None:
    answer = call("check", reviews, "--json")
    report = CheckReport.model_validate(json.loads(answer.out))
    assert {finding.name for finding in report.findings} >= {"duplicates", "conflicting-labels", "html"}


def test_strict_ends_with_1_where_something_is_wrong(call: Call, reviews: Path) -> None:
    answer = call("check", reviews, "--strict", "-q")
    assert answer.code == 1
    assert "The data did not pass: " in answer.err
    assert "conflicting-labels" in answer.err
    assert call("check", reviews, "-q").code == 0


def test_page_is_written_with_or_without_texts(call: Call, reviews: Path) -> None:
    page = reviews.with_name("page.html")
    assert f"page        {page}" in call("check", reviews, "--html", page, "-q").out
    assert REVIEW in page.read_text(encoding="utf-8")
    call("check", reviews, "--html", page, "--no-texts", "-q")
    assert REVIEW not in page.read_text(encoding="utf-8")


def test_unusable_fix_is_refused_before_any_work(call: Call, reviews: Path) -> None:
    answer = call("check", reviews, "--fix", "tags")
    assert answer.code == 2
    assert "--fix: got 'tags'; allowed: encoding, html" in answer.err
    assert answer.out == ""


def test_data_must_be_named(call: Call) -> None:
    answer = call("check")
    assert answer.code == 2
    assert "lorafit check reviews.csv" in answer.err


@pytest.mark.usefixtures("builtin_encoder")
def test_labels_that_are_probably_wrong_are_listed_for_a_reviewer(call: Call, tmp_path: Path) -> None:
    path, review = tmp_path / "rows.csv", tmp_path / "to review.csv"
    words = (("awful", "boring", "dull", "poor"), ("fine", "great", "lovely", "superb"))
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [
            (f"{words[row % 2][row // 2 % 4]} film, row {row}", "np"[row % 2 ^ (row in {20, 71})]) for row in range(160)
        ]
        csv.writer(file).writerows([("text", "label"), *rows])
    asked = ("check", path, "--model", "builtin:distil-minilm", "--judges", "tfidf", "--review", review)
    answer = call(*asked, "--folds", 4, "-q")
    assert answer.code == 0
    with review.open(newline="", encoding="utf-8") as file:
        listed = list(csv.DictReader(file))
    assert {"21", "72"} <= {row["row"] for row in listed}
    assert f"{len(listed)} train labels" in answer.out
    assert f"--corrections '{review}'" in answer.out
    refused = call(*asked, "--folds", 4)
    assert (refused.code, "is there already, perhaps with a reviewer's work" in refused.err) == (2, True)
    refused = call(*asked)
    assert (refused.code, "find them with --folds 5" in refused.err) == (2, True)


@pytest.mark.parametrize("others", [(), ("--fix", "html"), ("--folds", 4, "--fix", "html")])
def test_corrections_are_refused_where_they_would_be_ignored(
    call: Call, reviews: Path, others: tuple[object, ...]
) -> None:
    answer = call("check", reviews, "--corrections", "review.csv", *others)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("lorafit check takes --corrections with --folds or --labels")
