"""What `lorafit explain` prints."""

import dataclasses
import json as json_format
import math
import sys
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorafit.cli.render.render import open_console
from lorafit.inference.explanation import Explanation, WordContribution
from lorafit.metrics.multi_label import decide
from lorafit.task_figures import write_value

__all__ = ["show_explanation", "show_explanations"]

_MOST_ROWS = 8
_LONGEST_WORD = 30
_STRONG, _WEAK = 0.5, 0.15
"""Shares of the strongest contribution from which a word is bold, and below which it has no colour."""


def show_explanations(explanations: Sequence[Explanation], *, json: bool) -> None:
    """Print one explanation after the other: blocks with an empty line between them, or one JSON object a line."""
    for place, explanation in enumerate(explanations):
        if place and not json:
            sys.stdout.write("\n")
        show_explanation(explanation, json=json)


def show_explanation(explanation: Explanation, *, json: bool) -> None:
    """Print the text with its words coloured, the strongest ones with numbers, and the test; or one JSON object."""
    if json:
        sys.stdout.write(json_format.dumps(_build_object(explanation), ensure_ascii=False) + "\n")
        return
    console = open_console()
    console.print(Text(_heading(explanation), "bold"))
    console.print(_colour(explanation))
    if explanation.words:
        console.print()
        _print_table(console, explanation)
    console.print(Text("\n".join(_notes(explanation))))


def _build_object(explanation: Explanation) -> dict[str, object]:
    return dataclasses.asdict(explanation) | {
        "drop": explanation.drop,
        "random_drop": explanation.random_drop,
        "faithfulness": explanation.faithfulness,
        "beats_chance": explanation.beats_chance,
    }


def _heading(explanation: Explanation) -> str:
    if explanation.task == "regression":
        return f"{_disarm(explanation.label)}  {write_value(explanation.score)}"
    heading = f"{_disarm(explanation.label)}  {explanation.score:.1%}"
    if explanation.task == "multi_label":
        return heading if decide(explanation.score) else f"{heading}  (not given)"
    if explanation.label != explanation.predicted:
        heading += f"  (the most probable is {_disarm(explanation.predicted)})"
    return heading


def _colour(explanation: Explanation) -> Text:
    """Return the text on one line, green what speaks for the label or raises the number, red the opposite."""
    strongest = max((abs(word.contribution) for word in explanation.words), default=0)
    shown, place = Text(), 0
    for word in explanation.words:
        shown.append(_disarm(explanation.text[place : word.start]))
        shown.append(_disarm(word.text), _style(word.contribution, strongest))
        place = word.end
    shown.append(_disarm(explanation.text[place:]))
    return shown


def _style(contribution: float, strongest: float) -> str:
    if contribution == 0 or abs(contribution) < _WEAK * strongest:
        return ""
    colour = "green" if contribution > 0 else "red"
    return f"bold {colour}" if abs(contribution) >= _STRONG * strongest else colour


def _print_table(console: Console, explanation: Explanation) -> None:
    label, is_number = _disarm(explanation.label), explanation.task == "regression"
    title = f"What a word adds to the log-odds of {label}, and by how much it multiplies the odds"
    console.print(Text(f"What a word adds to {label}" if is_number else title, "italic"))
    ranked = sorted(explanation.words, key=lambda word: -word.contribution)
    parts = {
        "raises" if is_number else "for": [word for word in ranked if word.contribution > 0],
        "lowers" if is_number else "against": [word for word in reversed(ranked) if word.contribution < 0],
    }
    table = Table(box=box.SIMPLE_HEAD)
    for name in parts:
        table.add_column(name)
        for column in ("by",) if is_number else ("log-odds", "odds"):
            table.add_column(column, justify="right", no_wrap=True)
    for row in range(min(_MOST_ROWS, max(map(len, parts.values())))):
        table.add_row(*(cell for words in parts.values() for cell in _cells(words, row, is_number=is_number)))
    console.print(table if table.row_count else "  No word changes anything.")
    left_out = len(ranked) - sum(min(_MOST_ROWS, len(words)) for words in parts.values())
    if table.row_count and left_out:
        console.print(f"  {left_out:,} more with less or no effect")


def _cells(words: list[WordContribution], row: int, *, is_number: bool) -> Iterator[Text | str]:
    if row >= len(words):
        yield from ("", "") if is_number else ("", "", "")
        return
    word, style = words[row], "green" if words[row].contribution > 0 else "red"
    text = _disarm(" ".join(word.text.split()))
    yield Text(text if len(text) <= _LONGEST_WORD else text[: _LONGEST_WORD - 1] + "…", style)
    if is_number:
        yield write_value(word.contribution, sign=True)
        return
    yield f"{word.contribution:+.2f}"
    yield f"x {_write_factor(word.contribution)}"


def _write_factor(contribution: float) -> str:
    factor = math.exp(contribution)
    return f"{factor:.2f}" if 0.005 <= factor < 1000 else f"{factor:.0e}"


def _notes(explanation: Explanation) -> Iterator[str]:
    if explanation.words_a_span > 1:
        yield (
            f"The text is long: {explanation.words_a_span} adjacent words at a time are left out, not single ones, in "
            f"{len(explanation.words)} groups."
        )
    if not explanation.words:
        yield "A text of one word: without it nothing is left, so nothing can be compared."
    elif explanation.drop is None or explanation.random_drop is None:
        yield "Two words are too few for a deletion test."
    else:
        yield _judge(explanation, explanation.drop, explanation.random_drop)


def _judge(explanation: Explanation, drop: float, random_drop: float) -> str:
    shares = [f"{deletion.share:.0%}" for deletion in explanation.deletions]
    listed = " and ".join([", ".join(shares[:-1]), shares[-1]] if len(shares) > 1 else shares).replace("%", " %")
    draws = len(explanation.deletions[0].random_drops)
    units = "groups" if explanation.words_a_span > 1 else "words"
    verdict = "matter more than others drawn at random"
    if not explanation.beats_chance:
        verdict = "are not shown to matter more than others drawn at random, so take the numbers above with care"
    is_number, label = explanation.task == "regression", _disarm(explanation.label)
    subject = label if is_number else f"the probability of {label}"
    role = f"raise {label}" if is_number else "speak for the label"
    fall, random_fall = (_write_drop(one, is_number=is_number) for one in (drop, random_drop))
    return (
        f"Deletion test: without the top {listed} of the {units} {subject} {fall} on average; without as many drawn at "
        f"random it {random_fall} ({draws} draws). The {units} that {role} {verdict}."
    )


def _write_drop(drop: float, *, is_number: bool) -> str:
    size = write_value(abs(drop)) if is_number else f"{100 * abs(drop):.1f} points"
    return f"{'rises' if drop < 0 else 'falls'} by {size}"


def _disarm(text: str) -> str:
    """Show white space as blanks and control characters, which could steer the terminal, as a replacement sign."""
    return "".join(
        sign if sign.isprintable() else " " if sign.isspace() else "\N{REPLACEMENT CHARACTER}" for sign in text
    )
