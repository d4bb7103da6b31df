import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lorafit.models.batching import BatchPlan, pad_lengths, pad_to_few_shapes, plan_batches


def lengths_of(*values: int) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def batches_of(plan: BatchPlan) -> list[list[int]]:
    return [plan[batch].tolist() for batch in range(len(plan))]


def shapes_of(plan: BatchPlan, lengths: NDArray[np.int64]) -> list[tuple[int, int]]:
    longest = int(lengths.max())
    return [(len(plan[batch]), round_up(int(lengths[plan[batch]].max()), longest)) for batch in range(len(plan))]


def round_up(length: int, longest: int) -> int:
    """The rule of `pad_lengths`, one length at a time."""
    step = next(2**power for power in range(20) if length <= 32 * 2**power)
    return min(next(padded for padded in range(length, 2 * length + 1) if padded % step == 0), longest)


def test_texts_of_similar_length_share_a_batch_longest_first() -> None:
    plan = plan_batches(lengths_of(3, 9, 3, 10, 4), max_rows=3, max_tokens=20)
    assert batches_of(plan) == [[3, 1], [4, 0, 2]]


def test_equal_lengths_keep_their_order() -> None:
    assert batches_of(plan_batches(lengths_of(5, 5, 5, 5), max_rows=2, max_tokens=100)) == [[0, 1], [2, 3]]


def test_text_longer_than_the_budget_is_a_batch_of_its_own() -> None:
    plan = plan_batches(lengths_of(30, 2, 25, 2), max_rows=8, max_tokens=20)
    assert batches_of(plan) == [[0], [2], [1, 3]]


def test_small_last_batch_is_evened_out_with_the_one_before() -> None:
    plan = plan_batches(lengths_of(*[4] * 17), max_rows=8, max_tokens=1000)
    assert [len(batch) for batch in batches_of(plan)] == [8, 5, 4]


def test_last_batch_at_least_half_full_stays() -> None:
    plan = plan_batches(lengths_of(*[4] * 20), max_rows=8, max_tokens=1000)
    assert [len(batch) for batch in batches_of(plan)] == [8, 8, 4]


def test_single_batch_stays_one_batch() -> None:
    assert batches_of(plan_batches(lengths_of(4, 4), max_rows=8, max_tokens=100)) == [[0, 1]]


def test_no_texts_make_no_batches() -> None:
    plan = plan_batches(lengths_of(), max_rows=8, max_tokens=100)
    assert len(plan) == 0
    assert plan.padding_share(lengths_of()) == 0.0


def test_texts_without_tokens_are_planned_too() -> None:
    assert batches_of(plan_batches(lengths_of(0, 0, 0), max_rows=2, max_tokens=4)) == [[0, 1], [2]]


def test_padding_share_counts_the_positions_that_hold_no_token() -> None:
    lengths = lengths_of(10, 8, 2, 2)
    plan = plan_batches(lengths, max_rows=2, max_tokens=100)
    assert plan.padding_share(lengths) == pytest.approx(2 / 24)


def test_padding_share_is_zero_where_all_lengths_are_equal() -> None:
    lengths = lengths_of(7, 7, 7)
    assert plan_batches(lengths, max_rows=2, max_tokens=100).padding_share(lengths) == 0.0


@pytest.mark.parametrize("seed", range(40))
def test_plan_holds_every_row_once_within_both_limits(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, int(rng.integers(2, 300)), size=int(rng.integers(1, 400)))
    max_rows, max_tokens = int(rng.integers(1, 40)), int(rng.integers(8, 2000))
    plan = plan_batches(lengths, max_rows=max_rows, max_tokens=max_tokens)
    batches = batches_of(plan)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    shapes = shapes_of(plan, lengths)
    assert plan.shapes(lengths).tolist() == [list(shape) for shape in shapes]
    for rows, length in shapes:
        assert 1 <= rows <= max_rows
        assert rows == 1 or rows * length <= max_tokens
    if len(batches) > 1:
        assert len(batches[-1]) * 2 >= len(batches[-2]) - 1
    used = sum(rows * length for rows, length in shapes)
    assert plan.padding_share(lengths) == pytest.approx(1 - lengths.sum() / used)


@pytest.mark.parametrize("seed", range(20))
def test_shuffled_plan_keeps_the_shape_of_every_batch(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, size=200)
    plan = plan_batches(lengths, max_rows=16, max_tokens=256)
    shuffled = plan.shuffled(lengths, rng)
    assert shapes_of(shuffled, lengths) == shapes_of(plan, lengths)
    assert sorted(shuffled.order.tolist()) == list(range(200))
    assert batches_of(shuffled) != batches_of(plan)


def test_shuffling_mixes_rows_of_equal_length_across_batches() -> None:
    lengths = lengths_of(*[5] * 64)
    plan = plan_batches(lengths, max_rows=8, max_tokens=1000)
    shuffled = plan.shuffled(lengths, np.random.default_rng(0))
    assert any(set(after) != set(before) for after, before in zip(batches_of(shuffled), batches_of(plan), strict=True))


def test_lengths_are_rounded_up_by_at_most_a_sixteenth_and_never_beyond_the_longest() -> None:
    lengths = np.arange(1, 2000)
    padded = pad_lengths(lengths, longest=2000)
    assert padded.tolist() == [round_up(int(length), 2000) for length in lengths]
    assert bool(((padded >= lengths) & (padded <= lengths * 17 / 16)).all())
    assert len(np.unique(padded[lengths <= 512])) == 96
    assert pad_lengths(lengths_of(250, 249, 129), longest=250).tolist() == [250, 250, 136]


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_rows_are_padded_to_the_same_length_as_before(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 80, size=300)
    plan = plan_batches(lengths, max_rows=16, max_tokens=512)

    def padded(plan: BatchPlan) -> dict[int, int]:
        return {
            row: length
            for batch, (_, length) in zip(batches_of(plan), plan.shapes(lengths).tolist(), strict=True)
            for row in batch
        }

    assert padded(plan.shuffled(lengths, rng)) == padded(plan)


@given(st.lists(st.integers(1, 256), min_size=1, max_size=200))
def test_few_shapes_hold_every_row_once_in_powers_of_two(lengths: list[int]) -> None:
    plan = plan_batches(np.array(lengths), max_rows=64, max_tokens=4096, few_shapes=True)
    assert sorted(plan.order.tolist()) == list(range(len(lengths)))
    for rows in batches_of(plan):
        assert len(rows).bit_count() == 1
        assert len(rows) <= 64
        assert len(rows) * max(lengths[row] for row in rows) <= 4096


def test_few_shapes_are_few_whatever_is_asked_for() -> None:
    shapes = [(2**power, length) for power in range(7) for length in range(1, 257)]
    padded = [(rows, length, pad_to_few_shapes(rows, length, longest=256)) for rows, length in shapes]
    assert (
        len({rows * to for rows, _, to in padded}) <= 1 + 8 * 8
    )  # eight between 64 and 128, eight of all others up to 16384
    assert len({to for rows, _, to in padded if rows == 1}) == 9
    assert all(length <= to <= 256 for _, length, to in padded)
    assert all(
        to <= max(length * (9 if rows >= 8 else 5) / (8 if rows >= 8 else 4), 64 / rows) for rows, length, to in padded
    )


def test_few_shapes_are_never_longer_than_the_model_takes() -> None:
    assert pad_to_few_shapes(1, 250, longest=254) == 254
    assert pad_to_few_shapes(1, 3, longest=12) == 12


def test_few_shapes_begin_where_they_are_told_to() -> None:
    assert [pad_to_few_shapes(1, length, longest=256, fewest=8) for length in (3, 8, 9, 20, 33)] == [8, 8, 10, 20, 40]
    assert pad_to_few_shapes(4, 3, longest=256, fewest=8) == 3
