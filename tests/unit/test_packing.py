"""Keys and their sizes → mini-batches: in order, whole, even, and the same every time."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from batchpoint.scoring.packing import LARGEST, MODEL, SMALLEST, packed

MIXED = [random.Random(5).choice([0, 10, 5_000, 60_000, 3_000_000]) for _ in range(3000)]


@pytest.mark.parametrize("sizes", [[], [0], [5], [10**9], [6_000] * 5_000, MIXED])
def test_every_key_is_in_exactly_one_mini_batch_and_keys_keep_their_order(sizes: list[int]) -> None:
    assert [key for keys in packed(sizes) for key in keys] == list(range(len(sizes)))
    assert all(len(keys) for keys in packed(sizes))
    assert list(packed(sizes)) == list(packed(sizes))


def test_small_keys_share_mini_batches_of_about_one_weight_that_shrink_towards_the_end() -> None:
    weights = [len(keys) * (6_000 + MODEL) for keys in packed([6_000] * 5_000)]
    assert max(weights) <= LARGEST
    assert weights[0] > LARGEST * 0.9
    assert all(earlier >= later for earlier, later in pairwise(weights[:-1]))
    assert SMALLEST * 0.9 <= weights[-2] <= SMALLEST
    assert 50 < len(weights) < 120


def test_a_heavy_key_has_a_mini_batch_of_its_own() -> None:
    assert [list(keys) for keys in packed([10, 10, LARGEST * 3, 10, 10])] == [[0, 1], [2], [3, 4]]


def test_few_keys_are_still_spread_over_several_workers() -> None:
    assert len(list(packed([200_000] * 15))) == 15
