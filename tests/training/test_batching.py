"""Which rows make a batch: every row once, rows of similar length together, the same steps for any ranks."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT

from forecaster.models.registry import BaseModel
from forecaster.models.templates import load_tokenizer
from forecaster.tasks.weekly import WEEKLY
from forecaster.training.batching import (
    Batching,
    epoch_order,
    longest_first,
    micro_batches,
    padding_efficiency,
)
from forecaster.training.tokenising import tokenise_row

LENGTHS = np.asarray([100, 900, 110, 910, 120, 920, 130, 930, 500, 510, 520])


def batches(micro_batch_size: int, accumulation: int, ranks: int, epoch: int = 0) -> list[list[list[int]]]:
    """Batches of each rank in an epoch of the eleven rows."""
    shape = Batching(micro_batch_size, accumulation, ranks)
    order = epoch_order(LENGTHS, micro_batch_size, seed=42, epoch=epoch)
    return [list(micro_batches(order, LENGTHS, shape, rank)) for rank in range(ranks)]


def steps(of_ranks: list[list[list[int]]], accumulation: int) -> list[set[int]]:
    count = -(-len(of_ranks[0]) // accumulation)
    return [
        {
            row
            for rank in of_ranks
            for batch in rank[i * accumulation : (i + 1) * accumulation]
            for row in batch
        }
        for i in range(count)
    ]


def test_rows_of_similar_length_share_a_batch() -> None:
    lengths = np.asarray([100, 900, 110, 910, 120, 920, 130, 930])
    order = epoch_order(lengths, 4, seed=42, epoch=0)
    (first, second) = micro_batches(order, lengths, Batching(4, 1, 1), rank=0)
    assert {frozenset(first), frozenset(second)} == {frozenset({0, 2, 4, 6}), frozenset({1, 3, 5, 7})}


@pytest.mark.parametrize(("micro_batch_size", "accumulation", "ranks"), [(1, 4, 1), (2, 1, 2), (4, 2, 3)])
def test_each_row_is_taken_once_in_each_epoch(micro_batch_size: int, accumulation: int, ranks: int) -> None:
    for epoch in (0, 1):
        taken = [
            row
            for rank in batches(micro_batch_size, accumulation, ranks, epoch)
            for batch in rank
            for row in batch
        ]
        assert sorted(taken) == list(range(11))


def test_an_epoch_has_the_same_order_every_time_and_the_next_one_another() -> None:
    assert batches(2, 2, 1) == batches(2, 2, 1)
    assert batches(2, 2, 1, epoch=1) != batches(2, 2, 1)


def test_a_step_takes_the_same_rows_on_one_rank_on_two_and_on_four() -> None:
    alone, two, four = batches(2, 4, 1), batches(2, 2, 2), batches(2, 1, 4)
    assert steps(alone, 4) == steps(two, 2) == steps(four, 1)
    assert [len(step) for step in steps(alone, 4)] == [8, 3]


def test_every_rank_has_as_many_batches_and_one_may_be_empty() -> None:
    first, second, third, fourth = batches(2, 1, 4)
    assert [[len(batch) for batch in rank] for rank in (first, second, third, fourth)] == [
        [2, 1],
        [2, 1],
        [2, 1],
        [2, 0],
    ]
    shape = Batching(micro_batch_size=2, accumulation=1, ranks=4)
    assert (shape.rows_per_step, shape.steps(11), shape.micro_steps(11)) == (8, 2, 2)


def test_single_rows_are_shuffled_whatever_their_length() -> None:
    order = epoch_order(np.asarray([10] * 50 + [1000] * 50), rows_per_group=1, seed=42, epoch=0)
    assert 15 <= sum(row < 50 for row in order[:50]) <= 35


def test_measured_rows_are_taken_longest_first() -> None:
    assert longest_first(np.asarray([5, 9, 7, 9])).tolist() == [1, 3, 2, 0]


def test_padding_efficiency_is_real_tokens_over_padded_ones() -> None:
    lengths = np.asarray([10, 20, 30])
    assert padding_efficiency([[0, 1], [2]], lengths) == 60 / 70
    assert padding_efficiency([[0], [1], [2], []], lengths) == 1


def test_of_the_published_rows_at_least_19_of_20_padded_tokens_are_real(real_data: Path) -> None:
    tokenizer, _ = load_tokenizer(BaseModel(str(ROOT / "sample" / "base"), True), trust_remote_code=False)
    lines = (real_data / "forecaster_dow30" / "train_244.jsonl").read_text(encoding="utf-8").splitlines()
    lengths = np.asarray(
        [tokenise_row(json.loads(line), tokenizer, 8192, WEEKLY)["tokens"] for line in lines]
    )
    for micro_batch_size, ranks, epoch in itertools.product((4, 8), (1, 2, 4), range(3)):
        shape = Batching(micro_batch_size, 2, ranks)
        order = epoch_order(lengths, micro_batch_size, 42, epoch)
        of_all = [batch for rank in range(ranks) for batch in micro_batches(order, lengths, shape, rank)]
        assert padding_efficiency(of_all, lengths) >= 0.95
