"""Keys and their weights → which keys share a mini-batch. Pure: the same weights give the same mini-batches.

Keys keep their order, so that the output keeps it too, and a key is never divided: what uses a model is done by one
worker, once. The first mini-batches are large, because that is cheapest; they shrink as less is left, so that all
workers end at about the same time, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

SHARE = 16
"""A mini-batch takes about this part of what is left: a 16th."""
SMALLEST = 1 << 18
LARGEST = 1 << 21
"""Bounds of the weight of a mini-batch. A key that is heavier has one of its own."""
MODEL = 1 << 14
"""What loading a model weighs, in bytes of rows: reading and scoring 16 KiB takes about as long."""


def packed(sizes: Sequence[int]) -> Iterator[range]:
    """The keys of each mini-batch, as positions in ``sizes``.

    Args:
        sizes: bytes of the rows of each key, in the order of their first rows.
    """
    left = sum(sizes) + MODEL * len(sizes)
    first, weight = 0, 0
    for position, size in enumerate(sizes):
        wanted = min(max(left // SHARE, SMALLEST), LARGEST)
        heavier = weight + size + MODEL
        if weight and heavier > wanted:
            yield range(first, position)
            left -= weight
            first, weight = position, 0
        weight += size + MODEL
    if sizes:
        yield range(first, len(sizes))
