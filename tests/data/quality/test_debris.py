from collections.abc import Callable

import pytest

from lorafit.data.quality.debris import (
    find_debris,
    has_html,
    has_mail_headers,
    has_model_phrases,
    has_wrong_encoding,
    remove_html,
    repair_encoding,
)
from lorafit.data.quality.rows import Rows, draw_samples

MakeRows = Callable[..., Rows]

MAIL = """From ann@example.org  Thu Aug 22 12:36:23 2002
Return-Path: <ann@example.org>
Received: from localhost (localhost [127.0.0.1])
    by mail.example.org (Postfix) with ESMTP id D03E543C36
Message-Id: <200208221136.LAA05312@example.org>
Date: Thu, 22 Aug 2002 12:36:16 +0100
Subject: minutes of the meeting

Here they are."""


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("good<br /><br />film", "good film"),
        ("<p>A &amp; B</p>", "A & B"),
        ("<a href='x'>here</a> &#8217;s", "here \u2019s"),
        ("<script>var a = 1;</script>text<!-- no -->", "text"),
        ("a&nbsp;b", "a b"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2"),
        ("AT&T, R&D; I <3 it <grin>", "AT&T, R&D; I <3 it <grin>"),
    ],
)
def test_html_is_found_and_removed_and_nothing_else(text: str, plain: str) -> None:
    assert has_html(text) is (plain != text)
    assert remove_html(text) == plain


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("cafÃ© crÃ¨me", "café crème"),
        ("itâ€™s", "it's"),
        ("wait\x85 what", "wait… what"),
        ("café, ¿qué?", "café, ¿qué?"),
        ("价格很好", "价格很好"),
        ("plain", "plain"),
    ],
)
def test_wrong_encoding_is_found_and_repaired(text: str, right: str) -> None:
    assert has_wrong_encoding(text) is (text != right)
    assert repair_encoding(text).replace("\u2019", "'") == right


def test_wrong_encoding_is_found_without_ftfy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafit.data.quality.debris.missing_modules", lambda _: ["ftfy"])
    assert has_wrong_encoding("cafÃ©")
    assert not has_wrong_encoding("« café », NÃO, À")


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I do not watch films.",
        "I\u2019m sorry, but I can\u2019t assist with that request.",
        "Sure! Here's a positive review:\nGreat.",
        "### Response: positive",
        "<|im_start|>user",
    ],
)
def test_phrases_of_language_models_are_found(text: str) -> None:
    assert has_model_phrases(text)


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't recommend this film.",
        "I'm sorry but I cannot help liking it.",
        "The robot is played as an AI with feelings.",
        "Sure, here and there it drags.",
        "Of course, the model wears it well.",
    ],
)
def test_what_people_say_is_no_phrase_of_language_models(text: str) -> None:
    assert not has_model_phrases(text)


def test_raw_mails_are_found_and_quoted_ones_are_not() -> None:
    assert has_mail_headers(MAIL)
    assert not has_mail_headers("From: Ann\nTo: Bob\nSubject: lunch\n\nAt one? To: everyone.")


def test_debris_is_counted_by_split_with_what_was_looked_at(make_rows: MakeRows) -> None:
    texts = [f"text {number}" for number in range(30)] + ["a<br>b"] * 10
    rows = make_rows((texts, list("xy") * 20), test=(["fine", MAIL], ["x", "y"]))
    found = list(find_debris(rows, draw_samples(rows, 0)))
    assert [(one.name, one.split, one.count, one.share) for one in found] == [
        ("html", "train", 10, 0.25),
        ("mail-headers", "test", 1, 0.5),
    ]
    assert [row.row for row in found[0].rows] == list(range(31, 41))
    (sampled,) = find_debris(rows, draw_samples(rows, 0, most=20)[:1])
    assert "20 drawn from 40 with seed 0" in sampled.message
    assert sampled.count == sum(row.row > 30 for row in sampled.rows)
