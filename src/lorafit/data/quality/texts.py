"""Texts that say next to nothing, and the languages they are written in."""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from lorafit.data.quality.findings import Finding, count_rows, grade, write_share
from lorafit.data.quality.rows import Rows, Sample
from lorafit.system.extras import require

_SHORT: Final = 3
"""Characters below which a text is very short; one of letters beyond ASCII is not: two Chinese ones can say it all."""

_MIXED: Final = 0.05
"""Share of a language besides the most frequent one from which the mix is reported."""

_LETTERS: Final = 40
"""Letters that it takes to tell a language."""

_LONGEST: Final = 500
"""Signs of a text that are read to tell its language."""

_CERTAIN: Final = 0.95


def find_short_texts(rows: Rows) -> Iterator[Finding]:
    """Find texts of one or two characters.

    Args:
        rows: The rows.

    Yields:
        A finding for each split that has some.
    """
    for split, part in rows.splits.items():
        places = range(part.start, part.stop)
        found = [place for place in places if _is_short(rows.texts[place])]
        if found:
            count, share = len(found), len(found) / rows.count(split)
            yield Finding(
                name="short-texts",
                severity=grade(share, warn_from=0.05),
                split=split,
                count=count,
                share=share,
                scope=rows.scope(split),
                message=f"{count_rows(count, split, 'has', 'have')} one or two characters ({write_share(share)}).",
                rows=rows.list_rows(np.array(found)),
            )


def find_languages(rows: Rows, samples: Sequence[Sample]) -> Iterator[Finding]:
    """Find splits in more than one language, and splits in another language than train.

    Args:
        rows: The rows.
        samples: Those that are looked at.

    Yields:
        A finding for each such split.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    identifier = _load_identifier()
    first: str | None = None
    for sample in samples:
        counts: Counter[str] = Counter()
        for position in sample.positions.tolist():
            text = rows.texts[position][:_LONGEST]
            if sum(map(str.isalpha, text)) >= _LETTERS:
                language, probability = identifier.classify(text)
                counts[language if probability >= _CERTAIN else "?"] += 1
        told = counts.total() - counts.pop("?", 0)
        if not told:
            continue
        main = counts.most_common(1)[0][0]
        others = {language: count for language, count in counts.most_common()[1:] if count >= _MIXED * told}
        first = first or main
        if others or main != first:
            shares = ", ".join(f"{one} {write_share(counts[one] / told)}" for one in [main, *others])
            elsewhere = "" if main == first else f" Those of train are mostly in '{first}'."
            count = sum(others.values()) if main == first else told
            yield Finding(
                name="languages",
                severity="note" if main == first else "warning",
                split=sample.split,
                count=count,
                share=count / told,
                scope=sample.scope,
                message=f"The {sample.split} rows are in several languages: {shares} (of {told:,} that are long enough "
                f"to tell, of {sample.scope.describe()}). An encoder knows the languages that it was "
                f"trained on.{elsewhere}",
            )


@cache
def _load_identifier() -> Any:  # noqa: ANN401 - a class without types
    langid = require("py3langid.langid", extra="check", purpose="Telling languages")
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)


def _is_short(text: str) -> bool:
    return text.isascii() and len(text) < 20 and len(text.strip()) < _SHORT
