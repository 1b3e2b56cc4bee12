"""When triggers fire: cron, recurrences, time zones, and what the clock's changes do to them."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from batchpoint.entities.cron import read_cron
from batchpoint.entities.time_zones import WINDOWS_ZONES, zone_of
from batchpoint.entities.triggers import (
    CronTrigger,
    RecurrencePattern,
    RecurrenceTrigger,
    TimeTrigger,
    fire_times,
    next_fire_time,
    previous_fire_time,
)

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


def cron(expression: str, zone: str = "UTC", **others: datetime) -> CronTrigger:
    return CronTrigger(expression=expression, time_zone=zone, **others)


def every(
    interval: int, frequency: str, zone: str = "UTC", start: datetime | None = None, **pattern: list[object]
) -> RecurrenceTrigger:
    made = {"frequency": frequency, "interval": interval, "time_zone": zone, "start_time": start, "schedule": pattern}
    return RecurrenceTrigger.model_validate(made)


def walls(trigger: TimeTrigger, after: datetime, count: int, anchor: datetime | None = None) -> list[str]:
    """The next times as the clocks on the wall show them."""
    times = fire_times(trigger, after, anchor=anchor or after, count=count)
    return [f"{time.astimezone(trigger.zone):%m-%d %H:%M %z}" for time in times]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", ["01-15 12:01", "01-15 12:02"]),
        ("*/20 * * * *", ["01-15 12:20", "01-15 12:40"]),
        ("5/25 * * * *", ["01-15 12:05", "01-15 12:30"]),
        ("0 0 * * *", ["01-16 00:00", "01-17 00:00"]),
        ("15 16 * * 1", ["01-19 16:15", "01-26 16:15"]),
        ("15 16 * * mon", ["01-19 16:15", "01-26 16:15"]),
        ("0 9 * * 0", ["01-18 09:00", "01-25 09:00"]),
        ("0 9 * * 7", ["01-18 09:00", "01-25 09:00"]),
        ("0 9 * * 5-7", ["01-16 09:00", "01-17 09:00"]),
        ("30 8,18 * * *", ["01-15 18:30", "01-16 08:30"]),
        ("0 12 1 * *", ["02-01 12:00", "03-01 12:00"]),
        ("0 12 31 * *", ["01-31 12:00", "03-31 12:00"]),
        ("0 0 1 JUN,dec *", ["06-01 00:00", "12-01 00:00"]),
        ("0 0 1-31/10 2 *", ["02-01 00:00", "02-11 00:00"]),
        ("0 0 13 * fri", ["01-16 00:00", "01-23 00:00"]),  # either will do when both are restricted
        ("0 0 */2 * fri", ["01-23 00:00", "02-13 00:00"]),  # a star is no restriction: both have to fit
        ("0 22-23 * * *", ["01-15 22:00", "01-15 23:00"]),
    ],
)
def test_a_cron_expression_fires_when_it_says(expression: str, expected: list[str]) -> None:
    assert [wall[:11] for wall in walls(cron(expression), NOON, 2)] == expected


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("0 25 * * *", "the hour 25 is not within 0 to 23"),
        ("60 * * * *", "the minute 60 is not within 0 to 59"),
        ("0 0 0 * *", "the day of month 0 is not within 1 to 31"),
        ("0 0 * 13 *", "the month 13 is not within 1 to 12"),
        ("0 0 * * 8", "the day of week 8 is not within 0 to 7"),
        ("0 0 * * blursday", "'blursday' is not a day of week; numbers, names sun, mon"),
        ("0 0 * * *  *", "A field for seconds is not known here"),
        ("0 0 * *", "has 4 fields; a cron expression has five"),
        ("*/0 * * * *", "the minute 0 is not within 1 to 59"),
        ("0 23-1 * * *", "begins after its end"),
        ("0 0 L * *", "'L' is not a day of month"),
        ("0 -1 * * *", "'' is not a hour"),
        ("@daily", "has 1 fields"),
    ],
)
def test_a_cron_expression_that_is_none_is_refused_by_field(expression: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        read_cron(expression)
    assert complaint in str(refused.value)


def test_a_cron_expression_for_a_day_that_does_not_exist_never_fires() -> None:
    assert next_fire_time(cron("0 0 30 2 *"), NOON, anchor=NOON) is None
    assert next_fire_time(cron("* * 31 4,6,9,11 *"), NOON, anchor=NOON) is None
    assert next_fire_time(cron("0 0 29 2 *"), datetime(2096, 3, 1, tzinfo=UTC), anchor=NOON) == datetime(
        2104, 2, 29, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("zone", "after", "expression", "expected"),
    [
        # In the night of the spring change 02:30 does not exist: it fires when the clock jumps to 03:00.
        (
            "Europe/Berlin", datetime(2026, 3, 27, 12, tzinfo=UTC), "30 2 * * *",
            ["03-28 02:30 +0100", "03-29 03:00 +0200", "03-30 02:30 +0200"],
        ),
        (
            "America/New_York", datetime(2026, 3, 7, 12, tzinfo=UTC), "30 2 * * *",
            ["03-08 03:00 -0400", "03-09 02:30 -0400", "03-10 02:30 -0400"],
        ),
        (
            "Australia/Lord_Howe", datetime(2026, 10, 3, 0, tzinfo=UTC), "15 2 * * *",
            ["10-04 02:30 +1100", "10-05 02:15 +1100", "10-06 02:15 +1100"],
        ),
        # Several times in the gap are one.
        (
            "Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC), "*/20 2 * * *",
            ["03-29 03:00 +0200", "03-30 02:00 +0200", "03-30 02:20 +0200"],
        ),
        # In the night of the autumn change 02:30 comes twice: it fires the first time.
        (
            "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), "30 2 * * *",
            ["10-25 02:30 +0200", "10-26 02:30 +0100", "10-27 02:30 +0100"],
        ),
        (
            "America/New_York", datetime(2026, 10, 31, 12, tzinfo=UTC), "30 1 * * *",
            ["11-01 01:30 -0400", "11-02 01:30 -0500", "11-03 01:30 -0500"],
        ),
        (
            "Australia/Lord_Howe", datetime(2026, 4, 4, 0, tzinfo=UTC), "45 1 * * *",
            ["04-05 01:45 +1100", "04-06 01:45 +1030", "04-07 01:45 +1030"],
        ),
        # With every hour it goes by elapsed time: an hour that comes twice counts twice, one left out not at all.
        (
            "Europe/Berlin", datetime(2026, 3, 29, 0, tzinfo=UTC), "30 * * * *",
            ["03-29 01:30 +0100", "03-29 03:30 +0200", "03-29 04:30 +0200"],
        ),
        (
            "Europe/Berlin", datetime(2026, 10, 25, 0, tzinfo=UTC), "30 * * * *",
            ["10-25 02:30 +0200", "10-25 02:30 +0100", "10-25 03:30 +0100"],
        ),
        # Half past eleven came twice in St. John's, on both sides of a midnight.
        (
            "America/St_Johns", datetime(2010, 11, 6, 12, tzinfo=UTC), "30 23 * * *",
            ["11-06 23:30 -0230", "11-07 23:30 -0330", "11-08 23:30 -0330"],
        ),
        # Samoa had no 30 December 2011.
        (
            "Pacific/Apia", datetime(2011, 12, 29, 12, tzinfo=UTC), "0 12 * * *",
            ["12-29 12:00 -1000", "12-31 00:00 +1400", "12-31 12:00 +1400"],
        ),
    ],
)  # fmt: skip
def test_the_change_of_the_clock_neither_loses_nor_doubles_a_time(
    zone: str, after: datetime, expression: str, expected: list[str]
) -> None:
    assert walls(cron(expression, zone), after, 3) == expected


def test_hours_of_a_recurrence_are_elapsed_time_across_the_change() -> None:
    times = fire_times(
        every(6, "hour", "Europe/Berlin", datetime(2026, 3, 28, 20)),  # noqa: DTZ001 -- a wall time, as in the file
        datetime(2026, 3, 28, 19, 30, tzinfo=UTC), anchor=NOON, count=4,
    )  # fmt: skip
    assert {after - before for before, after in itertools.pairwise(times)} == {timedelta(hours=6)}


def test_days_of_a_recurrence_keep_their_wall_time_across_the_change() -> None:
    trigger = every(1, "day", "Europe/Berlin", datetime(2026, 3, 27, 8))  # noqa: DTZ001 -- a wall time, as in the file
    expected = ["03-28 08:00 +0100", "03-29 08:00 +0200", "03-30 08:00 +0200"]
    assert walls(trigger, datetime(2026, 3, 27, 12, tzinfo=UTC), 3) == expected


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (every(15, "minute", start=NOON), ["01-15 12:15", "01-15 12:30", "01-15 12:45"]),
        (every(2, "day", start=NOON), ["01-17 12:00", "01-19 12:00", "01-21 12:00"]),
        (every(1, "day", start=NOON, hours=[4, 5], minutes=[30, 0]), ["01-16 04:00", "01-16 04:30", "01-16 05:00"]),
        (every(1, "week", start=NOON), ["01-22 12:00", "01-29 12:00", "02-05 12:00"]),
        # 15 January 2026 is a Thursday; every second week counts from its Monday.
        (
            every(2, "week", start=NOON, week_days=["monday", "friday"], hours=[9], minutes=[0]),
            ["01-16 09:00", "01-26 09:00", "01-30 09:00"],
        ),
        (every(1, "month", start=NOON), ["02-15 12:00", "03-15 12:00", "04-15 12:00"]),
        (
            every(1, "month", start=NOON, month_days=[31], hours=[0], minutes=[0]),
            ["01-31 00:00", "03-31 00:00", "05-31 00:00"],
        ),
        (
            every(2, "month", start=NOON, month_days=[1, 30], hours=[0], minutes=[0]),
            ["01-30 00:00", "03-01 00:00", "03-30 00:00"],
        ),
    ],
)
def test_a_recurrence_fires_every_so_often(trigger: RecurrenceTrigger, expected: list[str]) -> None:
    assert [wall[:11] for wall in walls(trigger, NOON, 3)] == expected


def test_a_recurrence_without_a_start_fires_at_once_and_counts_from_then() -> None:
    made = NOON + timedelta(seconds=7, microseconds=300)
    times = fire_times(every(1, "hour"), made - timedelta(seconds=1), anchor=made, count=2)
    assert times == [NOON + timedelta(seconds=7), NOON + timedelta(hours=1, seconds=7)]


def test_a_start_in_the_past_means_the_next_computed_time() -> None:
    assert walls(every(1, "week", start=NOON - timedelta(days=100)), NOON, 1)[0][:11] == "01-20 12:00"


def test_nothing_fires_before_the_start_or_after_the_end() -> None:
    start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 3, tzinfo=UTC)
    trigger = cron("0 0 * * *", start_time=start, end_time=end)
    assert [wall[:5] for wall in walls(trigger, NOON, 10)] == ["03-01", "03-02", "03-03"]


def test_wall_times_of_the_file_are_those_of_its_time_zone_and_an_offset_wins() -> None:
    local = CronTrigger(expression="* * * * *", start_time="2026-07-01 10:00:00", time_zone="Pacific Standard Time")
    assert local.starts_at == datetime(2026, 7, 1, 17, tzinfo=UTC)
    absolute = CronTrigger(expression="* * * * *", start_time="2026-07-01T10:00:00Z", time_zone="Europe/Berlin")
    assert absolute.starts_at == datetime(2026, 7, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("declared", "complaint"),
    [
        ({"type": "cron", "expression": "* * * * *", "time_zone": "Europe/Berln"}, "Did you mean 'Europe/Berlin'?"),
        ({"type": "cron", "expression": "* * * * *", "time_zone": "../etc/passwd"}, "is not a known time zone"),
        (
            {"type": "cron", "expression": "* * * * *", "start_time": "2026-02-01", "end_time": "2026-01-01"},
            "end_time 2026-01-01 00:00:00 is not after start_time 2026-02-01 00:00:00",
        ),
        ({"frequency": "hour", "interval": 1, "schedule": {"minutes": [5]}}, "minutes cannot be combined"),
        ({"frequency": "day", "interval": 1, "schedule": {"week_days": ["monday"]}}, "with frequency 'day'"),
        ({"frequency": "day", "interval": 1, "schedule": {"hours": [25]}}, "less than or equal to 23"),
        ({"frequency": "day", "interval": 0}, "greater than or equal to 1"),
    ],
)
def test_a_trigger_that_makes_no_sense_is_refused(declared: dict[str, object], complaint: str) -> None:
    model = CronTrigger if declared.get("type") == "cron" else RecurrenceTrigger
    with pytest.raises(ValidationError) as refused:
        model.model_validate(declared)
    assert complaint in str(refused.value)


def test_azures_spellings_are_read() -> None:
    trigger = RecurrenceTrigger.model_validate(
        {"frequency": "Week", "interval": 1, "schedule": {"hours": 10, "minutes": [0], "week_days": "Monday"},
         "timezone": "W. Europe Standard Time"}
    )  # fmt: skip
    assert trigger.pattern == RecurrencePattern(hours=[10], minutes=[0], week_days=["monday"])
    assert trigger.zone == ZoneInfo("Europe/Berlin")
    assert RecurrenceTrigger.model_validate({"frequency": "day", "interval": 1, "schedule": None}).pattern.hours == []


def test_every_windows_zone_is_one_of_the_iana_database() -> None:
    assert len(WINDOWS_ZONES) > 130
    for name in WINDOWS_ZONES:
        assert zone_of(name.upper()).utcoffset(NOON) is not None


def test_the_window_of_a_time_begins_at_the_one_before_even_at_the_start() -> None:
    daily = cron("0 4 * * *", "Europe/Berlin", start_time=datetime(2026, 3, 29, tzinfo=UTC))
    first = datetime(2026, 3, 29, 2, tzinfo=UTC)
    assert next_fire_time(daily, NOON, anchor=NOON) == first
    assert previous_fire_time(daily, first, anchor=NOON) == datetime(2026, 3, 28, 3, tzinfo=UTC)
    hourly = every(1, "hour")
    assert previous_fire_time(hourly, NOON, anchor=NOON) == NOON - timedelta(hours=1)
    leap = cron("0 0 29 2 *")
    assert previous_fire_time(leap, datetime(2104, 2, 29, tzinfo=UTC), anchor=NOON) == datetime(2096, 2, 29, tzinfo=UTC)


EXPRESSIONS = (
    "*/7 * * * *", "*/5 1-4 * * *", "30 2 * * *", "0 0 * * *", "59 23 29-31 * mon", "0 */2 * * 1-5", "30 * 1 * *",
)  # fmt: skip
ZONES = ("Europe/Berlin", "America/New_York", "America/Havana", "America/St_Johns", "Australia/Lord_Howe", "UTC")
TRIGGERS = st.one_of(
    st.builds(cron, st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES)),
    st.builds(
        every,
        st.integers(1, 5),
        st.sampled_from(["minute", "hour", "day", "week", "month"]),
        st.sampled_from(ZONES),
        st.sampled_from([None, NOON]),
    ),
)


@settings(max_examples=150, deadline=None)
@given(TRIGGERS, st.datetimes(datetime(2005, 1, 1), datetime(2035, 1, 1)))  # noqa: DTZ001 -- made aware below
def test_times_rise_and_each_is_the_one_before_the_next(trigger: TimeTrigger, after: datetime) -> None:
    after = after.replace(tzinfo=UTC)
    anchor = after.replace(microsecond=0)
    times = fire_times(trigger, after, anchor=anchor, count=40)
    assert all(before < later for before, later in zip([after, *times], times, strict=False))
    for before, later in itertools.pairwise(times):
        assert previous_fire_time(trigger, later, anchor=anchor) == before
        middle = before + (later - before) / 2
        assert next_fire_time(trigger, middle, anchor=anchor) == later


@pytest.mark.parametrize(
    "trigger",
    [
        cron("*/20 * * * *", "Europe/Berlin"),
        cron("*/30 0-3 * * *", "Australia/Lord_Howe"),
        every(1, "day", "America/New_York"),
    ],
)
def test_ten_thousand_times_never_repeat_and_fit_their_wall_clock(trigger: TimeTrigger) -> None:
    times = fire_times(trigger, NOON, anchor=NOON, count=10_000)
    assert len(times) == 10_000
    assert all(before < later for before, later in itertools.pairwise(times))
    days = {time.astimezone(trigger.zone).date() for time in times}
    assert days == {min(days) + timedelta(days=number) for number in range(len(days))}


def test_both_of_day_of_month_and_day_of_week_follow_crons_rule() -> None:
    either, both = read_cron("0 0 13 * 5"), read_cron("0 0 * * 5")
    assert either.fits(date(2026, 1, 13))
    assert either.fits(date(2026, 1, 16))
    assert not both.fits(date(2026, 1, 13))
