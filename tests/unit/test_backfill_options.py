"""What the options of a backfill mean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import click
import pytest

from batchpoint.cli.schedules import key_values, moment


def test_a_day_means_all_of_it_and_a_moment_without_an_offset_is_in_utc() -> None:
    assert moment("2036-03-29") == datetime(2036, 3, 29, tzinfo=UTC)
    assert moment("2036-03-29", is_end=True) == datetime(2036, 3, 30, tzinfo=UTC) - timedelta(microseconds=1)
    assert moment("2036-03-29T02:00", is_end=True) == datetime(2036, 3, 29, 2, tzinfo=UTC)
    assert moment("2036-03-29T02:00+01:00") == datetime(2036, 3, 29, 2, tzinfo=timezone(timedelta(hours=1)))
    with pytest.raises(click.BadParameter, match="'tomorrow'"):
        moment("tomorrow")


def test_a_key_is_given_by_its_columns() -> None:
    assert key_values("store=east,day=a=b") == {"store": "east", "day": "a=b"}
    for odd in ("", "east", "store=east,day"):
        with pytest.raises(click.BadParameter, match="is no key"):
            key_values(odd)
