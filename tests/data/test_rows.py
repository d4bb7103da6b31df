import numpy as np

from lorafit.data.rows import Split


def make_split() -> Split:
    columns = {"shop": ("north", "", "south")}
    return Split(np.asarray([3, 5, 9]), ("a", "b", "half \ud800"), np.asarray([0, 1, 0]), columns)


def test_selecting_keeps_the_order_asked_for() -> None:
    picked = make_split().select(np.asarray([2, 0]))
    assert picked.ids.tolist() == [9, 3]
    assert picked.texts == ("half \ud800", "a")
    assert picked.y.tolist() == [0, 0]
    assert picked.columns == {"shop": ("south", "north")}
    assert len(picked) == 2


def test_fingerprint_changes_with_ids_labels_texts_and_order() -> None:
    split = make_split()
    others = [
        split.select(np.asarray([1, 0, 2])),
        Split(split.ids + 1, split.texts, split.y),
        Split(split.ids, split.texts, 1 - split.y),
        Split(split.ids, ("ab", "", "half \ud800"), split.y),
    ]
    assert split.fingerprint() == make_split().fingerprint()
    assert len({split.fingerprint(), *(other.fingerprint() for other in others)}) == 5


def test_fingerprint_does_not_depend_on_columns() -> None:
    split = make_split()
    assert Split(split.ids, split.texts, split.y).fingerprint() == split.fingerprint()
