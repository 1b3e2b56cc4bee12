"""Errors of the same kind are one group, whatever they quote."""

from __future__ import annotations

import pytest

from batchpoint.operations.error_groups import EXAMPLES, MOST_GROUPS, Grouping, is_of, pattern_of


@pytest.mark.parametrize(
    ("message", "pattern"),
    [
        ("could not convert string to float: '12,x'", "could not convert string to float: '…'"),
        ("row 17 of 4,000 is below -1.5e3", "row N of N is below N"),
        ("no model for 0x7f3a in 6f1c2b7a-0d0e-4a4b-9c1d-2e3f4a5b6c7d", "no model for N in N"),
        ("first line\nsecond line 5", "first line"),
        ("it isn't there, isn't it", "it isn'…'t it"),
        (None, ""),
        ("x" * 1000, "x" * 160),
    ],
)
def test_a_pattern_is_the_message_without_what_differs(message: str | None, pattern: str) -> None:
    assert pattern_of(message) == pattern


def test_items_are_counted_by_exception_and_kind_of_message_and_the_first_are_kept() -> None:
    grouping = Grouping()
    for row in range(20):
        grouping.add({"exception": "ValueError", "message": f"row {row} is bad", "row": row})
    grouping.add({"code": "workers_lost", "message": "gone"})
    found = grouping.groups(is_whole=True)
    assert [(group.exception, group.pattern, group.count) for group in found.groups] == [
        ("ValueError", "row N is bad", 20), ("workers_lost", "gone", 1),
    ]  # fmt: skip
    assert [item["row"] for item in found.groups[0].items] == list(range(EXAMPLES))
    assert (found.items, found.is_whole) == (21, True)


def test_however_many_kinds_there_are_the_groups_are_few_and_count_everything() -> None:
    grouping = Grouping()
    for number in range(1000):
        grouping.add({"exception": "E", "message": "x" * (number % 150) + chr(ord("a") + number % 26)})
    found = grouping.groups(is_whole=True)
    assert len(found.groups) == MOST_GROUPS + 1
    assert sum(group.count for group in found.groups) == 1000
    assert found.groups[0].exception == "other errors"


def test_an_item_is_of_its_group_and_of_all() -> None:
    item = {"exception": "ValueError", "message": "row 3 is bad"}
    assert is_of(item, "ValueError", "row N is bad")
    assert is_of(item, "", "")
    assert not is_of(item, "TypeError", "")
    assert not is_of(item, "ValueError", "row N is worse")
