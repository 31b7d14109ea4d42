"""Days and months of a time zone, as stretches of time that follow each other without a gap.

A day begins when the zone's clocks first show its midnight. Where they skip midnight it begins at the moment of the
change; a day that they skip whole does not exist; an hour that they show twice counts twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MIN_YEAR = 1970
MAX_YEAR = 9998
"""Beyond them the neighbours of a day may have no date."""

UTC_ZONE = ZoneInfo("UTC")

_MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
_ONE_DAY = timedelta(days=1)


class PeriodInvalid(ValueError):
    """A month, day or time zone that does not exist, or a period that ends before it begins."""


@dataclass(frozen=True, slots=True)
class Day:
    """A day, or the part of it that belongs to a period: the moments from `start` to before `end`."""

    date: date
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Month:
    """A month of the calendar, whatever the zone. Written 2026-09."""

    year: int
    month: int

    def __post_init__(self) -> None:
        """Raises: PeriodInvalid."""
        if not (MIN_YEAR <= self.year <= MAX_YEAR and 1 <= self.month <= 12):
            raise PeriodInvalid(
                f"{self.year:04d}-{self.month:02d} is not a month from {MIN_YEAR} to {MAX_YEAR}"
            )

    def __str__(self) -> str:
        return f"{self.year:04d}-{self.month:02d}"

    @property
    def first_day(self) -> date:
        return date(self.year, self.month, 1)

    @property
    def next_first_day(self) -> date:
        return date(self.year + self.month // 12, self.month % 12 + 1, 1)

    @classmethod
    def parse(cls, text: str) -> Month:
        """Read a month such as 2026-09. Raises: PeriodInvalid."""
        if not _MONTH.fullmatch(text):
            raise PeriodInvalid(f"{text!r} is not a month such as 2026-09")
        return cls(int(text[:4]), int(text[5:]))

    @classmethod
    def at(cls, moment: datetime, zone: ZoneInfo) -> Month:
        """Return the month that a zone's clocks show at a moment."""
        local = moment.astimezone(zone)
        return cls(local.year, local.month)


@dataclass(frozen=True, slots=True)
class Period:
    """The moments from `start` to before `end`, cut into the days of a zone."""

    start: datetime
    end: datetime
    zone: ZoneInfo

    @classmethod
    def of_days(cls, first: date, end: date, zone: ZoneInfo) -> Period:
        """Return the days from `first` to before `end`. Raises: PeriodInvalid."""
        if first < date(MIN_YEAR, 1, 1) or end > date(MAX_YEAR + 1, 1, 1):
            raise PeriodInvalid(f"a period lies between the years {MIN_YEAR} and {MAX_YEAR}")
        if end <= first:
            raise PeriodInvalid(f"a period that begins on {first} does not end before {end}")
        return cls(_start_of(first, zone), _start_of(end, zone), zone)

    @classmethod
    def of_month(cls, month: Month, zone: ZoneInfo) -> Period:
        """Return a whole month."""
        return cls.of_days(month.first_day, month.next_first_day, zone)

    def days(self) -> Iterator[Day]:
        """Yield the days in their order; the first and the last may be parts of days."""
        day = self.start.astimezone(self.zone).date()
        start = self.start
        while start < self.end:
            end = min(_start_of(day + _ONE_DAY, self.zone), self.end)
            if start < end:
                yield Day(day, start, end)
                start = end
            day += _ONE_DAY


def find_zone(name: str) -> ZoneInfo:
    """Return the time zone with an IANA name, such as Europe/Paris or UTC. Raises: PeriodInvalid."""
    try:
        return ZoneInfo(name)
    except (
        ZoneInfoNotFoundError,
        ValueError,
        OSError,
    ):  # OSError: the name of a folder of zones, or a huge one
        raise PeriodInvalid(f"{name[:64]!r} is not a time zone such as Europe/Paris") from None


def _start_of(day: date, zone: ZoneInfo) -> datetime:
    # Python takes the first of two equal local times, and for one that was skipped the moment of the change.
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
