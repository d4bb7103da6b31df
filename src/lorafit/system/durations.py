"""Spans of time as people write and read them."""

import re

__all__ = ["format_duration", "parse_duration"]

_NUMBER = r"\d+(?:\.\d+)?"
_FORM = re.compile(rf"(?:({_NUMBER})h)?\s*(?:({_NUMBER})m)?\s*(?:({_NUMBER})s)?", re.IGNORECASE)


def parse_duration(text: str) -> float | None:
    """Turn a text such as 90s, 10m, 1h30m or 1.5h into seconds.

    Args:
        text: Hours, minutes and seconds, each with its letter; those that are none are left out.

    Returns:
        Seconds, above 0; None if the text is of another form, or stands for no time at all.
    """
    match = _FORM.fullmatch(text.strip())
    parts = match.groups() if match else ()
    seconds = sum(float(part or 0) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    return seconds or None


def format_duration(seconds: float) -> str:
    """Return a span of time to two or three digits: 0.4 s, 47 s, 2.5 min, 12 min, 1.6 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 0.95 else f"{seconds:.1f} s"
    value, unit = (seconds / 60, "min") if seconds < 90 * 60 else (seconds / 3600, "h")
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
