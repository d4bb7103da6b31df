import os
import runpy
import socket
import subprocess
import sys
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorafit.models.tokenization import TokenizedTexts
from lorafit.training.inputs import EpochBatches, TrainingRows
from lorafit.training.ranks import Ranks
from lorafit.training.shared_steps import SharedSteps, split_batch

if TYPE_CHECKING:
    from conftest import BuildEncoder

JOBS = Path(__file__).with_name("shared_jobs.py")
VARIANTS, train = itemgetter("VARIANTS", "train")(runpy.run_path(str(JOBS)))
TOLERANCE = 1e-4
"""Of losses and weights, relative: sums of two parts are rounded otherwise than the sum of all."""


def read_part(rows: TrainingRows, items: list[int], rank: int, count: int) -> dict[str, Any]:
    return SharedSteps(rows, Ranks(rank, count), 0, lambda: None).collate(items)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=64), st.integers(1, 9))
def test_every_row_of_a_batch_is_dealt_once_and_tokens_are_balanced(lengths: list[int], parts: int) -> None:
    dealt = split_batch(np.array(lengths), parts)
    assert sorted(row for part in dealt for row in part) == list(range(len(lengths)))
    tokens = [sum(lengths[row] for row in part) for part in dealt]
    assert max(tokens) - min(tokens) <= max(lengths)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_all_ranks_together_read_each_row_once_an_epoch(count: int) -> None:
    lengths = np.random.default_rng(0).integers(2, 40, size=101)
    texts = TokenizedTexts(
        ids=np.arange(lengths.sum(), dtype=np.int32) + 1, offsets=np.cumsum([0, *lengths]), truncated=0
    )
    rows = TrainingRows(texts, np.arange(101), pad_id=0)
    for epoch in range(2):
        batches = EpochBatches(lengths, max_rows=16, max_tokens=256, seed=5)
        batches.set_epoch(epoch)
        read: list[int] = []
        for items in batches:
            parts = [read_part(rows, items, rank, count) for rank in range(count)]
            assert np.isclose(sum(part["share"] for part in parts), count)
            read += [int(label) for part in parts if part["share"] for label in part["labels"]]
        assert sorted(read) == list(range(101))


def test_a_rank_without_a_row_counts_nothing() -> None:
    texts = TokenizedTexts(ids=np.arange(9, dtype=np.int32), offsets=np.array([0, 3, 6, 9]), truncated=0)
    rows = TrainingRows(texts, np.arange(3), pad_id=0)
    assert [read_part(rows, [2], rank, 2)["share"] for rank in range(2)] == [2, 0]


@pytest.fixture(scope="module")
def calm_encoder(build_encoder: "BuildEncoder") -> Path:
    return build_encoder("distilbert", seq_classif_dropout=0.0)


@pytest.fixture(scope="module")
def shared(calm_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks found that trained all variants together."""
    folder = tmp_path_factory.mktemp("shared")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ranks = []
    for rank in range(2):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_WORLD_SIZE": 1}
        told |= {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "TORCHELASTIC_RUN_ID": "test",
            "GLOO_SOCKET_IFNAME": "lo",
        }
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", **{name: str(value) for name, value in told.items()}}
        words = [sys.executable, JOBS, calm_encoder, folder, *VARIANTS]
        ranks.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=300)[1] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0], errors
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", VARIANTS)
def test_two_ranks_train_as_one_process_does(
    name: str, shared: list[dict[str, Any]], calm_encoder: Path, tmp_path: Path
) -> None:
    alone, first, second = train(calm_encoder, name, tmp_path / "alone"), shared[0][name], shared[1][name]
    np.testing.assert_allclose(first["losses"], alone["losses"], rtol=TOLERANCE)
    for weight, expected in alone["weights"].items():
        torch.testing.assert_close(first["weights"][weight], expected, rtol=TOLERANCE, atol=TOLERANCE)
    assert first["record"]["steps"] == second["record"]["steps"] == alone["record"]["steps"]
    assert first["record"]["best_step"] == alone["record"]["best_step"]
    assert first["record"]["processes"] == 2
    assert 0 <= first["record"]["idle_share"] < 1
    read = [row for rank in (first, second) for batch in rank["seen"] for row in batch]
    if name != "single rows":  # of which a rank without one reads one that counts nothing
        assert sorted(read) == sorted(row for batch in alone["seen"] for row in batch)
