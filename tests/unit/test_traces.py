"""Where spans stand in a trace, and how mini-batches become groups."""

from __future__ import annotations

import pytest

from batchpoint.background.traces import Group, Place, grouped, place_of, read_traceparent

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_traceparent_is_read_and_written() -> None:
    place = read_traceparent(GIVEN)
    assert place is not None
    assert place.traceparent == GIVEN
    unsampled = read_traceparent(GIVEN[:-1] + "0")
    assert unsampled is not None
    assert not unsampled.sampled


@pytest.mark.parametrize(
    "text",
    [None, "", "00-1-2-01", GIVEN.upper(), GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), GIVEN + "x"],
)
def test_what_names_no_place_is_none(text: str | None) -> None:
    assert read_traceparent(text) is None


def test_a_job_stands_in_the_trace_of_who_asked_for_it_and_else_in_one_of_its_own() -> None:
    parent = Place(1, 2, sampled=False)
    below, alone = place_of("default", "night", parent), place_of("default", "night", None)
    assert (below.trace_id, below.sampled) == (1, False)
    assert below.span_id == alone.span_id != place_of("other", "night", None).span_id
    assert alone.trace_id != place_of("default", "day", None).trace_id


@pytest.mark.parametrize("count", [0, 1, 4, 5, 37, 1000])
def test_however_many_goes_there_are_the_groups_stay_few_and_nothing_is_lost(count: int) -> None:
    goes = [Group(at, at + 1.5, 1, int(at % 10 == 0), 3, 1) for at in range(count)]
    groups = grouped(iter(goes), most=4)
    assert len(groups) <= 4
    assert sum(group.attempts for group in groups) == count
    assert sum(group.failed_attempts for group in groups) == sum(go.failed_attempts for go in goes)
    assert (sum(group.ok for group in groups), sum(group.failed for group in groups)) == (3 * count, count)
    if groups:
        assert (groups[0].began, groups[-1].ended) == (0, count + 0.5)
        assert [group.began for group in groups] == sorted(group.began for group in groups)
