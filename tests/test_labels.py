import pytest

from lorafit.errors import DataError
from lorafit.labels import LabelSet


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        (["10", "9", "-1", "9"], ("-1", "9", "10")),
        (["10", "9", "many"], ("10", "9", "many")),
        (["--1", "2"], ("--1", "2")),
        (["1", "01", "001"], ("001", "01", "1")),
        (["1.5", "10.5", "2"], ("1.5", "10.5", "2")),
        (["-", "+"], ("+", "-")),
        (["²", "1"], ("1", "²")),
        (["schön", "Gut", "gut"], ("Gut", "gut", "schön")),
    ],
)
def test_labels_seen_are_ordered(values: list[str], names: tuple[str, ...]) -> None:
    assert LabelSet.from_values(values).names == names
    assert LabelSet.from_values(iter(reversed(values))).names == names


def test_ids_and_names_map_both_ways() -> None:
    labels = LabelSet(("neg", "pos"))
    assert labels.id2label == {0: "neg", 1: "pos"}
    assert labels.label2id == {"neg": 0, "pos": 1}
    assert len(labels) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"at least two different labels, got 0: \[\]"),
        (("pos",), r"got 1: \['pos'\].*--label-column"),
        (("pos", ""), "must not be empty"),
        (("pos", "neg", "pos"), "must differ"),
    ],
)
def test_unusable_names_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        LabelSet(names)


def test_rows_all_with_one_label_are_refused() -> None:
    with pytest.raises(DataError, match="at least two different labels"):
        LabelSet.from_values(["pos"] * 5)
