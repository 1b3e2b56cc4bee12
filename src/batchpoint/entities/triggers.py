"""Triggers: when a schedule fires. Pure: the time is handed in.

A wall time that does not exist, because the clock jumps over it, fires at the moment of the jump, once; one that
comes twice fires the first time. What goes by the hour or minute runs on elapsed time.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from batchpoint.entities.base import Part
from batchpoint.entities.cron import Cron, read_cron
from batchpoint.entities.time_zones import zone_of

WeekDay = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

WEEK_DAYS: dict[WeekDay, int] = {
    "monday": 0, "tuesday": 1, "wednesday": 2, "thursday": 3, "friday": 4, "saturday": 5, "sunday": 6,
}  # fmt: skip

LONGEST_SEARCH = timedelta(days=146_097)
"""400 years, after which the calendar repeats itself: what has not fired by then never does."""


class TimeTrigger(Part):
    """What the triggers by the clock share."""

    start_time: datetime | None = None
    """Nothing fires before. Without an offset it is a time of ``time_zone``."""
    end_time: datetime | None = None
    """Nothing fires after. Without an offset it is a time of ``time_zone``."""
    time_zone: str = "UTC"
    """A name of the IANA database (``Europe/Berlin``) or of Windows (``W. Europe Standard Time``)."""

    @model_validator(mode="before")
    @classmethod
    def _other_spelling(cls, value: Any) -> Any:
        """Azure ML's reference once says ``timezone``."""
        if not isinstance(value, Mapping) or "timezone" not in value:
            return value
        return {("time_zone" if key == "timezone" else key): item for key, item in value.items()}

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        zone_of(value)
        return value

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> TimeTrigger:
        start, end = self.starts_at, self.ends_at
        if start is not None and end is not None and start >= end:
            message = f"end_time {self.end_time} is not after start_time {self.start_time}"
            raise ValueError(message)
        return self

    @property
    def zone(self) -> tzinfo:
        """The time zone that its wall times are of."""
        return zone_of(self.time_zone)

    @property
    def starts_at(self) -> datetime | None:
        """``start_time`` as an instant, UTC."""
        return self._instant(self.start_time)

    @property
    def ends_at(self) -> datetime | None:
        """``end_time`` as an instant, UTC."""
        return self._instant(self.end_time)

    def _instant(self, given: datetime | None) -> datetime | None:
        if given is None:
            return None
        return given.astimezone(UTC) if given.tzinfo is not None else instant_of(given, self.zone)


class CronTrigger(TimeTrigger):
    """Fires by a cron expression."""

    type: Literal["cron"] = "cron"
    expression: str
    """``minute hour day-of-month month day-of-week``. With ``*`` as hour it goes by elapsed time."""

    @field_validator("expression")
    @classmethod
    def _readable(cls, value: str) -> str:
        read_cron(value)
        return value


def _listed(value: Any) -> Any:
    return value if value is None or isinstance(value, list | tuple) else [value]


class RecurrencePattern(Part):
    """At which times of its days a recurrence fires: every hour with every minute."""

    hours: list[Annotated[int, Field(ge=0, le=23)]] = Field(default_factory=list)
    minutes: list[Annotated[int, Field(ge=0, le=59)]] = Field(default_factory=list)
    week_days: list[WeekDay] = Field(default_factory=list)
    """With frequency ``week``."""
    month_days: list[Annotated[int, Field(ge=1, le=31)]] = Field(default_factory=list)
    """With frequency ``month``. Months that lack the day are passed over."""

    @field_validator("hours", "minutes", "month_days", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return _listed(value) or []

    @field_validator("week_days", mode="before")
    @classmethod
    def _lower_case(cls, value: Any) -> Any:
        days = _listed(value) or []
        return [day.lower() if isinstance(day, str) else day for day in days]


class RecurrenceTrigger(TimeTrigger):
    """Fires every so many minutes, hours, days, weeks or months."""

    type: Literal["recurrence"] = "recurrence"
    frequency: Literal["minute", "hour", "day", "week", "month"]
    interval: int = Field(ge=1, le=100_000)
    pattern: RecurrencePattern = Field(default_factory=RecurrencePattern, alias="schedule")
    """Without one it fires at the time, week day and month day of its start."""

    @model_validator(mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        """The alias ``schedule`` may be empty, and Azure's REST interface writes ``Week`` with a capital."""
        if not isinstance(value, Mapping):
            return value
        given = {key: item for key, item in value.items() if not (key in ("schedule", "pattern") and item is None)}
        if isinstance(given.get("frequency"), str):
            given["frequency"] = given["frequency"].lower()
        return given

    @model_validator(mode="after")
    def _pattern_fits(self) -> RecurrenceTrigger:
        given = {name for name in RecurrencePattern.model_fields if getattr(self.pattern, name)}
        allowed = {"week": {"hours", "minutes", "week_days"}, "month": {"hours", "minutes", "month_days"}}
        wrong = given - allowed.get(self.frequency, {"hours", "minutes"} if self.frequency == "day" else set())
        if wrong:
            names = " and ".join(sorted(wrong))
            message = f"{names} cannot be combined with frequency '{self.frequency}'"
            raise ValueError(message)
        return self


class FileTrigger(Part):
    """Fires for new files below a path, each once."""

    type: Literal["file"] = "file"
    path: str
    """The folder that is watched: ``azureml://datastores/<ds>/paths/<p>``, or a folder of the server's machine."""
    include: list[str] = Field(default_factory=list)
    """Globs of relative names to take; none takes all."""
    exclude: list[str] = Field(default_factory=lambda: ["*.partial", "*.tmp", ".*", "**/.*/**", "_SUCCESS"])
    """Globs of relative names to leave alone; what is given takes the place of these."""
    recursive: bool = False
    """Whether sub-folders are watched."""
    poll_seconds: float = Field(default=30.0, ge=0.2, le=86_400)
    """How often to look."""
    settle_seconds: float = Field(default=10.0, ge=0, le=86_400)
    """A file is taken once size and time of change were the same for so long: it is not being written any more."""
    existing: bool = False
    """Whether the files that lie there already when the schedule is created are taken too."""


Trigger = Annotated[CronTrigger | RecurrenceTrigger | FileTrigger, Field(discriminator="type")]


def next_fire_time(trigger: TimeTrigger, after: datetime, *, anchor: datetime) -> datetime | None:
    """The first time after ``after``, UTC, or None when it fires no more.

    ``anchor`` is when the schedule was made. A recurrence without ``start_time`` fires then for the first time, and
    counts its intervals from then; a cron expression fires when it says.
    """
    start, end = trigger.starts_at, trigger.ends_at
    anchor = anchor.astimezone(UTC)
    if start is None and isinstance(trigger, RecurrenceTrigger):
        start = anchor.replace(microsecond=0)
        if after < start:
            return start if end is None or start <= end else None
    if start is not None:
        after = max(after, start - timedelta(microseconds=1))
    found = _tick_after(trigger, after, anchor)
    return found if found is not None and (end is None or found <= end) else None


def previous_fire_time(trigger: TimeTrigger, before: datetime, *, anchor: datetime) -> datetime:
    """The last time before ``before`` by the trigger's calendar, which goes back beyond its start: a window's begin."""
    if trigger.start_time is None and isinstance(trigger, RecurrenceTrigger):
        first = anchor.astimezone(UTC).replace(microsecond=0)
        following = _tick_after(trigger, first, anchor) if first < before else None
        if following is not None and following >= before:
            return first
    back = timedelta(minutes=1)
    while True:
        begin = max(before - back, datetime.min.replace(tzinfo=UTC) + timedelta(days=2))
        found = None
        for tick in _ticks(trigger, begin, anchor):
            if tick >= before:
                break
            found = tick
        if found is not None:
            return found
        if back > LONGEST_SEARCH or begin.year <= 1:
            return before
        back *= 2


def fire_times(trigger: TimeTrigger, after: datetime, *, anchor: datetime, count: int) -> list[datetime]:
    """The next times, at most ``count``."""

    def times() -> Iterator[datetime]:
        found = next_fire_time(trigger, after, anchor=anchor)
        while found is not None:
            yield found
            found = next_fire_time(trigger, found, anchor=anchor)

    return list(islice(times(), count))


def instant_of(wall: datetime, zone: tzinfo) -> datetime:
    """When the clocks of ``zone`` show ``wall``, UTC: the first time, or the moment at which they jump past it."""
    late = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if late.astimezone(zone).replace(tzinfo=None) == wall:
        return late
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    before = early.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + timedelta(seconds=(late - early) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == before:
            early = middle
        else:
            late = middle
    return late


def _ticks(trigger: TimeTrigger, after: datetime, anchor: datetime) -> Iterator[datetime]:
    found = _tick_after(trigger, after, anchor)
    while found is not None:
        yield found
        found = _tick_after(trigger, found, anchor)


def _tick_after(trigger: TimeTrigger, after: datetime, anchor: datetime) -> datetime | None:
    """By the calendar alone, whatever start and end say."""
    zone = trigger.zone
    if isinstance(trigger, CronTrigger):
        cron = _read(trigger.expression)
        if len(cron.hours) == 24:
            return _by_the_clock(cron, after, zone)
        return _by_wall_time(cron.fits, _times(cron.hours, cron.minutes), after, zone)
    assert isinstance(trigger, RecurrenceTrigger)
    first = trigger.starts_at or anchor.replace(microsecond=0)
    if trigger.frequency in ("minute", "hour"):
        unit = timedelta(minutes=1) if trigger.frequency == "minute" else timedelta(hours=1)
        step = unit * trigger.interval
        return first + ((after - first) // step + 1) * step
    wall = first.astimezone(zone).replace(tzinfo=None)
    hours, minutes = trigger.pattern.hours, trigger.pattern.minutes
    if hours or minutes:
        times = _times(tuple(sorted(set(hours or [wall.hour]))), tuple(sorted(set(minutes or [0]))))
    else:
        times = (wall.time(),)
    return _by_wall_time(_recurring_days(trigger, wall.date()), times, after, zone)


_read = functools.lru_cache(maxsize=256)(read_cron)


@functools.lru_cache(maxsize=256)
def _times(hours: tuple[int, ...], minutes: tuple[int, ...]) -> tuple[time, ...]:
    return tuple(time(hour, minute) for hour in hours for minute in minutes)


def _recurring_days(trigger: RecurrenceTrigger, first: date) -> Callable[[date], bool]:
    interval, pattern = trigger.interval, trigger.pattern
    if trigger.frequency == "day":
        return lambda day: (day - first).days % interval == 0
    if trigger.frequency == "week":
        week_days = {WEEK_DAYS[name] for name in pattern.week_days} or {first.weekday()}
        monday = first - timedelta(days=first.weekday())
        return lambda day: day.weekday() in week_days and (day - monday).days // 7 % interval == 0
    month_days = set(pattern.month_days) or {first.day}
    months = first.year * 12 + first.month
    return lambda day: day.day in month_days and (day.year * 12 + day.month - months) % interval == 0


def _by_wall_time(
    fits: Callable[[date], bool], times: tuple[time, ...], after: datetime, zone: tzinfo
) -> datetime | None:
    """The first of ``times`` on a day that fits. Instants rise with wall times, so the search halves within a day."""
    for day in _fitting(fits, after.astimezone(zone).date()):

        def instant(at: time, day: date = day) -> datetime:
            return instant_of(datetime.combine(day, at), zone)

        position = bisect_right(times, after, key=instant)
        if position < len(times):
            return instant(times[position])
    return None


def _by_the_clock(cron: Cron, after: datetime, zone: tzinfo) -> datetime | None:
    """The first minute whose wall time fits: an hour that comes twice counts twice, one that is left out not at all."""
    minute = timedelta(minutes=1)
    at = after.replace(second=0, microsecond=0) + minute
    while True:
        wall = at.astimezone(zone)
        if not cron.fits(wall.date()):
            day = next(_fitting(cron.fits, wall.date() + timedelta(days=1)), None)
            if day is None:
                return None
            at = max(at + minute, instant_of(datetime.combine(day, time.min), zone))
        elif wall.minute in cron.minutes:
            return at
        else:
            at += minute


def _fitting(fits: Callable[[date], bool], first: date) -> Iterator[date]:
    for number in range(min(LONGEST_SEARCH.days, (date.max - first).days - 1)):
        day = first + timedelta(days=number)
        if fits(day):
            yield day
