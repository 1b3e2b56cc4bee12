"""Runs of rows of keys → mini-batches: one for each key or, where each has a model of its own, many together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from batchpoint.scoring.mini_batches import KeySpan, MiniBatch, Slice
from batchpoint.scoring.model_index import ModelIndex
from batchpoint.scoring.packing import packed
from batchpoint.scoring.partitions import Values

LONGEST_RUN = 1 << 25
"""A key of a model map that has more bytes than this is scored in several mini-batches: rows become frames, and those
take memory. A run of gathered rows stays whole, which is a block at most."""

Group = tuple[Values, list[Slice]]
"""The values of a key, and the runs of rows that have it."""


def one_for_each_key(groups: Iterable[Group], keys: Sequence[str]) -> Iterator[MiniBatch]:
    """A mini-batch for each key, however large; their indexes are all 0."""
    for values, runs in groups:
        yield MiniBatch(0, "rows", slices=tuple(runs), partition=tuple(zip(keys, values, strict=True)))


def many_together(groups: Iterable[Group], index: ModelIndex) -> Iterator[MiniBatch]:
    """Many keys in a mini-batch. What a key has beyond ``LONGEST_RUN`` bytes follows in mini-batches of its own.

    Their indexes are all 0.
    """
    pieces = [(values, runs) for values, all_runs in groups for runs in _bounded(all_runs)]
    sizes = [sum(run.length for run in runs) for _, runs in pieces]
    for together in packed(sizes):
        chosen = pieces[together.start : together.stop]
        spans = [KeySpan(*index.of(values), sum(run.rows for run in runs)) for values, runs in chosen]
        yield MiniBatch(0, "rows", slices=_joined(run for _, runs in chosen for run in runs), spans=tuple(spans))


def _joined(runs: Iterable[Slice]) -> tuple[Slice, ...]:
    """The same rows in as few slices as there can be: keys that were gathered lie one behind the other."""
    joined: list[Slice] = []
    for run in runs:
        last = joined[-1] if joined else None
        if last is not None and _is_followed_by(last, run):
            joined[-1] = replace(last, rows=last.rows + run.rows, length=last.length + run.length)
        else:
            joined.append(run)
    return tuple(joined)


def _is_followed_by(last: Slice, run: Slice) -> bool:
    if last.file != run.file or last.numbers != run.numbers or last.first_row + last.rows != run.first_row:
        return False
    return run.format not in {"csv", "jsonl"} or last.offset + last.length == run.offset


def _bounded(runs: list[Slice]) -> Iterator[list[Slice]]:
    part: list[Slice] = []
    size = 0
    for run in runs:
        if part and size + run.length > LONGEST_RUN:
            yield part
            part, size = [], 0
        part.append(run)
        size += run.length
    yield part
