from dataclasses import replace

import numpy as np
import pytest
import torch

from lorafit.models.tokenization import TokenizedTexts
from lorafit.training.inputs import EpochBatches, TrainingRows, build_rows, build_train_loader

LENGTHS = np.random.default_rng(0).integers(1, 40, size=301)


def batches_of(batches: EpochBatches, epoch: int) -> list[list[int]]:
    batches.set_epoch(epoch)
    return list(batches)


def make_batches(seed: int = 0) -> EpochBatches:
    return EpochBatches(LENGTHS, max_rows=16, max_tokens=200, seed=seed)


@pytest.fixture
def rows() -> TrainingRows:
    texts = TokenizedTexts(ids=np.arange(6, dtype=np.int32) + 1, offsets=np.array([0, 2, 3, 6]), truncated=0)
    return TrainingRows(texts, labels=np.array([0, 1, 1]), pad_id=9)


def test_every_epoch_has_each_row_once_in_the_same_number_of_batches() -> None:
    batches = make_batches()
    for epoch in range(5):
        epoch_batches = batches_of(batches, epoch)
        assert len(epoch_batches) == len(batches)
        assert sorted(row for batch in epoch_batches for row in batch) == list(range(301))
        assert all(len(batch) <= 16 and len(batch) * LENGTHS[batch].max() <= 200 for batch in epoch_batches)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    first = batches_of(make_batches(), 1)
    used = make_batches()
    batches_of(used, 7)
    assert batches_of(used, 1) == first
    assert batches_of(used, 2) != first
    assert batches_of(make_batches(seed=1), 1) != first


def test_batches_of_long_and_short_texts_are_mixed() -> None:
    longest = [int(LENGTHS[batch].max()) for batch in batches_of(make_batches(), 0)]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))


def test_rows_are_padded_to_the_longest_of_their_batch(rows: TrainingRows) -> None:
    batch = rows.collate([1, 0])
    assert batch["input_ids"].tolist() == [[3, 9], [1, 2]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert batch["labels"].tolist() == [1, 0]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_loader_gives_whole_batches(rows: TrainingRows) -> None:
    loader = build_train_loader(rows, EpochBatches(rows.texts.lengths, max_rows=2, max_tokens=6, seed=0))
    assert len(loader) == 2
    assert sorted(batch["input_ids"].shape for batch in loader) == [(1, 1), (2, 3)]


def test_the_first_batches_of_all_epochs_are_of_short_items() -> None:
    plain, batches = make_batches(), make_batches()
    batches.begin_short(len(batches) + 2, longest=10)
    for epoch, short in ((0, len(batches)), (1, 2), (2, 0)):
        found = batches_of(batches, epoch)
        expected = batches_of(plain, epoch)
        assert found == [[row + 301 * (place < short) for row in batch] for place, batch in enumerate(expected)]
    assert [batches.batch_at(step) for step in range(40)] == [plain.batch_at(step) for step in range(40)]


def test_short_items_have_the_labels_and_weights_of_whole_ones(rows: TrainingRows) -> None:
    short = TokenizedTexts(ids=np.array([1, 3, 4, 6], dtype=np.int32), offsets=np.array([0, 1, 2, 4]), truncated=0)
    weighted = replace(rows, short=short, weights=np.array([1, 2, 3], dtype=np.float32))
    batch = weighted.collate([5, 4])
    assert batch["input_ids"].tolist() == [[4, 6], [3, 9]]
    assert batch["labels"].tolist() == [1, 1]
    assert batch["weights"].tolist() == [3, 2]
    whole = weighted.collate([2, 1])
    assert whole["input_ids"].tolist() == [[4, 5, 6], [3, 9, 9]]


GROUPS = np.random.default_rng(1).choice(3, size=301, p=[0.9, 0.07, 0.03])


def balanced(seed: int = 0) -> EpochBatches:
    return EpochBatches(LENGTHS, max_rows=16, max_tokens=200, seed=seed, groups=GROUPS)


def test_balanced_epochs_have_as_many_rows_of_each_group_within_the_same_limits() -> None:
    batches, drawn = balanced(), []
    for epoch in range(4):
        epoch_batches = batches_of(batches, epoch)
        assert len(epoch_batches) == len(batches)
        assert all(len(batch) <= 16 and len(batch) * LENGTHS[batch].max() <= 200 for batch in epoch_batches)
        drawn.append(np.concatenate(epoch_batches))
        assert np.bincount(GROUPS[drawn[-1]]).tolist() == [101, 101, 101], "301 rows in 3 groups, rounded up"
    for rare in (1, 2):
        counts = np.bincount(drawn[0], minlength=301)[rare == GROUPS]
        assert counts.min() >= counts.max() - 1 >= 1, "each rare row as often as the others"
    assert np.bincount(drawn[0], minlength=301)[GROUPS == 0].max() == 1, "no frequent row twice"
    assert set(drawn[0][GROUPS[drawn[0]] == 0]) != set(drawn[1][GROUPS[drawn[1]] == 0]), "others in each epoch"


def test_padding_is_measured_of_what_is_drawn() -> None:
    plain = make_batches()
    assert plain.compute_padding_share(len(plain)) == pytest.approx(plain.plan.padding_share(LENGTHS))
    batches, shares = balanced(), []
    for epoch in range(4):
        drawn = batches_of(batches, epoch)
        longest = np.array([LENGTHS[batch].max() for batch in drawn])
        positions = (longest * [len(batch) for batch in drawn]).sum()
        shares.append(1 - LENGTHS[np.concatenate(drawn)].sum() / positions)
    assert np.mean(shares) - 0.03 < batches.compute_padding_share(len(batches)) < 0.15


@pytest.mark.parametrize("groups", [None, GROUPS, np.arange(301) % 77], ids=["plain", "three", "many"])
def test_padding_of_short_steps_is_counted(groups: np.ndarray | None) -> None:
    batches = EpochBatches(LENGTHS, max_rows=16, max_tokens=200, seed=0, groups=groups)
    batches.begin_short(len(batches) + 5, longest=10)
    tokens, positions = 0, 0
    for epoch in range(3):
        for batch in batches_of(batches, epoch):
            lengths = np.array([min(10, LENGTHS[item - 301]) if item >= 301 else LENGTHS[item] for item in batch])
            tokens += lengths.sum()
            positions += lengths.max() * len(lengths)
    found = batches.compute_padding_share(3 * len(batches))
    assert batches.count_tokens(3 * len(batches)) == pytest.approx(tokens, rel=0.02 if groups is None else 0.1)
    assert found == pytest.approx(1 - tokens / positions, abs=0.01 if groups is None else 0.08)
    whole = EpochBatches(LENGTHS, max_rows=16, max_tokens=200, seed=0, groups=groups)
    assert 0 < found < 1
    assert found != whole.compute_padding_share(3 * len(batches))


def test_balanced_epochs_depend_on_seed_and_epoch_alone() -> None:
    first, used = batches_of(balanced(), 1), balanced()
    batches_of(used, 7)
    assert batches_of(used, 1) == first
    assert batches_of(balanced(seed=1), 1) != first


def test_groups_that_are_balanced_already_have_each_row_once() -> None:
    batches = EpochBatches(LENGTHS[:300], max_rows=16, max_tokens=200, seed=0, groups=np.arange(300) % 3)
    assert sorted(row for batch in batches for row in batch) == list(range(300))


def make_windows(windows: list[int]) -> TokenizedTexts:
    count = sum(windows)
    ids, offsets = np.arange(2 * count, dtype=np.int32), 2 * np.arange(count + 1)
    return TokenizedTexts(ids=ids, offsets=offsets, truncated=0, windows=np.array(windows))


@pytest.mark.parametrize("weights", [None, np.array([0.5, 2, 0.5], dtype=np.float32)])
def test_all_windows_of_a_text_count_as_much_as_a_text(weights: np.ndarray | None) -> None:
    rows = build_rows(make_windows([1, 3, 2]), np.array([7, 8, 9]), 0, weights)
    assert rows.labels.tolist() == [7, 8, 8, 8, 9, 9]
    sums = np.add.reduceat(rows.weights.ravel(), [0, 1, 4])
    assert sums.tolist() == pytest.approx((2 * (np.ones(3) if weights is None else weights)).tolist())
    assert rows.weights.mean() == pytest.approx(1)
    batch = rows.collate([2, 0])
    assert batch["labels"].tolist() == [8, 7]
    assert batch["weights"].shape[0] == 2


def test_texts_without_windows_have_no_weights(rows: TrainingRows) -> None:
    built = build_rows(rows.texts, rows.labels, rows.pad_id)
    assert built.weights is None
    assert built.labels is rows.labels


def test_types_of_pairs_are_in_the_batch() -> None:
    ids = np.arange(6, dtype=np.int32)
    types = np.array([0, 0, 1, 0, 1, 1], dtype=np.int8)
    texts = TokenizedTexts(ids=ids, offsets=np.array([0, 3, 6]), truncated=0, type_ids=types)
    batch = TrainingRows(texts, labels=np.array([0, 1]), pad_id=9).collate([1, 0])
    assert batch["token_type_ids"].tolist() == [[0, 1, 1], [0, 0, 1]]
