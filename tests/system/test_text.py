import pytest

from lorafit.system.text import clean_text, disarm, format_duration, is_visible, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h", 3600), ("1.5h", 5400), ("1H 2M 3S", 3723), (" 5m ", 300)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0s", "0h0m", "90", "ten minutes", "10 min", "-5m", "5m3h", "1:30", "nan", "1e3s"]
)
def test_what_is_no_duration_is_told_apart(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (0.42, "0.4 s"),
        (0.99, "1 s"),
        (47.4, "47 s"),
        (89.4, "89 s"),
        (150, "2.5 min"),
        (720, "12 min"),
        (5390, "90 min"),
        (5760, "1.6 h"),
        (360_000, "100 h"),
    ],
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  two \n\t words ", "two words"),
        ("a\x00b\x1bc", "a�b�c"),
        ("right\N{RIGHT-TO-LEFT OVERRIDE}left", "right�left"),
        ("half \ud83d", "half �"),
        (
            "\N{DEVANAGARI LETTER KA}\N{ZERO WIDTH JOINER} é 中 🎬",
            "\N{DEVANAGARI LETTER KA}\N{ZERO WIDTH JOINER} é 中 🎬",
        ),
        ("", ""),
    ],
)
def test_foreign_text_is_made_safe_to_show(text: str, clean: str) -> None:
    assert clean_text(text) == clean
    clean_text(text).encode("utf-8")


def test_lines_and_columns_stay_where_text_is_disarmed() -> None:
    assert disarm("a  b\n  c\N{NO-BREAK SPACE}d\te\r\x1b[2J\u202e") == "a  b\n  c\N{NO-BREAK SPACE}d e �[2J�"


def test_a_piece_of_a_text_keeps_its_ends() -> None:
    assert clean_text(" a\n\nb\n", strip=False) == " a b "


def test_a_long_text_is_cut() -> None:
    assert clean_text("abcdef", most=6) == "abcdef"
    assert clean_text("abcdefg", most=6) == "abcde…"
    assert clean_text("abcd efg", most=6) == "abcd…"


@pytest.mark.parametrize("sign", ["a", "é", "!", "中", "🎬", "\N{HANGUL FILLER}"])
def test_signs_that_show_something(sign: str) -> None:
    assert is_visible(sign)


@pytest.mark.parametrize(
    "sign", [" ", "\n", "\u3000", "\u200b", "\ufeff", "\x01", "\ue000", "\u0301", "\ufe0f", "\ufffd", "\u0378"]
)
def test_signs_that_show_nothing(sign: str) -> None:
    assert not is_visible(sign)
