import pytest

from lorafit.system.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h", 3600), ("1.5h", 5400), ("1H 2M 3S", 3723), (" 5m ", 300)],
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0s", "0h0m", "90", "ten minutes", "10 min", "-5m", "5m3h", "1:30", "nan", "1e3s"]
)
def test_what_is_no_time_is_told_apart(text: str) -> None:
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
def test_times_are_written_for_people(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
