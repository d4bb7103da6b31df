"""What `lorafit explain` prints."""

import json as json_format
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorafit.cli.render.tables import open_console
from lorafit.inference.explanation import Explanation, WordContribution
from lorafit.system.text import clean_text

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
    return asdict(explanation) | {
        "task": explanation.task.name,
        "drop": explanation.drop,
        "random_drop": explanation.random_drop,
        "faithfulness": explanation.faithfulness,
        "beats_chance": explanation.beats_chance,
    }


def _heading(explanation: Explanation) -> str:
    """Return the value that is explained and, where that is not all of it, the prediction."""
    explained = explanation.task.describe_value(explanation.label, explanation.score)
    predicted = explanation.prediction.describe()
    return clean_text(explained if explained == predicted else f"{explained} (predicted: {predicted})")


def _colour(explanation: Explanation) -> Text:
    """Return the text on one line, green what adds to the value, red what takes from it."""
    strongest = max((abs(word.contribution) for word in explanation.words), default=0)
    shown, place = Text(), 0
    for word in explanation.words:
        shown.append(clean_text(explanation.text[place : word.start], strip=False))
        shown.append(clean_text(word.text, strip=False), _style(word.contribution, strongest))
        place = word.end
    shown.append(clean_text(explanation.text[place:], strip=False))
    return shown


def _style(contribution: float, strongest: float) -> str:
    if contribution == 0 or abs(contribution) < _WEAK * strongest:
        return ""
    colour = "green" if contribution > 0 else "red"
    return f"bold {colour}" if abs(contribution) >= _STRONG * strongest else colour


def _print_table(console: Console, explanation: Explanation) -> None:
    task = explanation.task
    title = task.wording.contribution_title.format(label=clean_text(explanation.label))
    console.print(Text(title, "italic"))
    ranked = sorted(explanation.words, key=lambda word: -word.contribution)
    raises = [word for word in ranked if word.contribution > 0]
    lowers = [word for word in reversed(ranked) if word.contribution < 0]
    headings, table = list(task.contribution_columns(0)), Table(box=box.SIMPLE_HEAD)
    for name in (task.wording.raises, task.wording.lowers):
        table.add_column(name)
        for heading in headings:
            table.add_column(heading, justify="right", no_wrap=True)
    empty = [""] * (1 + len(headings))
    for pair in zip_longest(raises[:_MOST_ROWS], lowers[:_MOST_ROWS]):
        table.add_row(*(cell for word in pair for cell in (empty if word is None else _cells(explanation, word))))
    console.print(table if table.row_count else "  No word changes anything.")
    left_out = len(ranked) - sum(min(_MOST_ROWS, len(words)) for words in (raises, lowers))
    if table.row_count and left_out:
        console.print(f"  {left_out:,} more with less or no effect")


def _cells(explanation: Explanation, word: WordContribution) -> list[Text | str]:
    name = Text(clean_text(word.text, most=_LONGEST_WORD), "green" if word.contribution > 0 else "red")
    return [name, *explanation.task.contribution_columns(word.contribution).values()]


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
    task = explanation.task
    explained = task.wording.explained.format(label=clean_text(explanation.label))
    fall, random_fall = (f"{'rises' if one < 0 else 'falls'} by {task.write_drop(one)}" for one in (drop, random_drop))
    return (
        f"Deletion test: without the top {listed} of the {units} {explained} {fall} on average; without as many drawn "
        f"at random it {random_fall} ({draws} draws). The {units} that {task.wording.speak_for} {verdict}."
    )
