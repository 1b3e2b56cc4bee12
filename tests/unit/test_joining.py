"""How parts become one file: the columns of all, and which bytes are copied at once."""

from __future__ import annotations

import pyarrow as pa
import pytest

from batchpoint.scoring.ledger import Part
from batchpoint.scoring.predictions_file import _common_type, _group_rows, _ranges, united_columns


@pytest.mark.parametrize(
    ("lists", "united"),
    [
        ([], []),
        ([["a", "b"], ["a", "b"]], ["a", "b"]),
        ([["file", "score"], ["file", "row", "score"]], ["file", "row", "score"]),
        ([["b"], ["a"]], ["a", "b"]),
        ([["a", "c"], ["a", "b"], ["c", "d"]], ["a", "b", "c", "d"]),
    ],
)
def test_a_new_column_stands_behind_the_one_that_it_follows(lists: list[list[str]], united: list[str]) -> None:
    assert united_columns(lists) == united


def part(segment: str, offset: int, length: int) -> Part:
    return Part(0, 1, segment, offset, length, 1, 1, "csv")


def test_neighbours_in_a_segment_are_copied_at_once() -> None:
    parts = [part("a", 0, 5), part("a", 5, 5), part("a", 20, 5), part("b", 25, 5), part("a", 10, 0)]
    assert list(_ranges(parts)) == [("a", 0, 10), ("a", 20, 5), ("b", 25, 5)]


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.int64(), pa.float64(), pa.float64()),
        (pa.null(), pa.bool_(), pa.bool_()),
        (pa.int8(), pa.int64(), pa.int64()),
        (pa.string(), pa.int64(), pa.string()),
        (pa.list_(pa.int64()), pa.bool_(), pa.string()),
    ],
)
def test_numbers_widen_and_what_clashes_is_text(one: pa.DataType, other: pa.DataType, common: pa.DataType) -> None:
    assert _common_type(one, other) == common
    assert _common_type(other, one) == common


def test_wide_rows_make_smaller_groups() -> None:
    narrow = pa.schema([("a", pa.int64())])
    wide = pa.schema([("vector", pa.list_(pa.float32()))])
    assert _group_rows(narrow) > _group_rows(wide) >= 1024
