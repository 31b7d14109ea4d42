"""Days and months of time zones: no moment is lost and none counts twice, whatever clocks do."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzo.metering.periods import UTC_ZONE, Month, Period, PeriodInvalid, find_zone

PARIS = find_zone("Europe/Paris")

# Their clocks change an hour or more from midnight, so that every moment is in the day that they show.
ZONES = ("UTC", "Europe/Paris", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Chatham")
# Midnight skipped, midnight twice, a day skipped, a minute after midnight set back to before it.
ODD_ZONES = ("America/Sao_Paulo", "Asia/Beirut", "America/Havana", "Pacific/Apia", "America/St_Johns")

moments = st.datetimes(datetime(1980, 1, 1), datetime(2037, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=UTC)
)


def hours(period: Period) -> list[float]:
    return [(day.end - day.start) / timedelta(hours=1) for day in period.days()]


class TestMonth:
    def test_reads_what_it_writes(self) -> None:
        assert str(Month.parse("2026-09")) == "2026-09"
        assert Month.parse("2026-12").next_first_day == date(2027, 1, 1)
        assert Month.parse("2026-11").next_first_day == date(2026, 12, 1)

    @pytest.mark.parametrize(
        "text", ["2026-9", "2026-00", "2026-13", "26-09", "2026-09-01", "", "1969-12", "9999-01"]
    )
    def test_refuses_what_is_no_month(self, text: str) -> None:
        with pytest.raises(PeriodInvalid):
            Month.parse(text)

    def test_is_the_one_that_the_zone_s_clocks_show(self) -> None:
        moment = datetime(2026, 8, 31, 22, 30, tzinfo=UTC)
        assert str(Month.at(moment, UTC_ZONE)) == "2026-08"
        assert str(Month.at(moment, PARIS)) == "2026-09"


class TestPeriod:
    def test_a_month_begins_and_ends_at_the_zone_s_midnights(self) -> None:
        period = Period.of_month(Month.parse("2026-10"), PARIS)
        assert period.start == datetime(2026, 9, 30, 22, tzinfo=UTC)  # summer time, two hours ahead
        assert period.end == datetime(2026, 10, 31, 23, tzinfo=UTC)  # winter time, one hour

    def test_the_days_on_which_clocks_change_are_shorter_and_longer(self) -> None:
        assert hours(Period.of_days(date(2026, 3, 28), date(2026, 3, 31), PARIS)) == [24, 23, 24]
        assert hours(Period.of_days(date(2026, 10, 24), date(2026, 10, 27), PARIS)) == [24, 25, 24]

    def test_a_day_whose_midnight_is_skipped_begins_at_one(self) -> None:
        zone = find_zone("America/Sao_Paulo")
        (day,) = Period.of_days(date(2018, 11, 4), date(2018, 11, 5), zone).days()
        assert day.start.astimezone(zone).hour == 1
        assert day.end - day.start == timedelta(hours=23)

    def test_a_day_that_was_skipped_whole_does_not_exist(self) -> None:
        period = Period.of_days(date(2011, 12, 29), date(2012, 1, 1), find_zone("Pacific/Apia"))
        assert [day.date.day for day in period.days()] == [29, 31]

    @pytest.mark.parametrize(
        ("first", "end"),
        [
            (date(2026, 9, 2), date(2026, 9, 2)),
            (date(2026, 9, 2), date(2026, 9, 1)),
            (date(1, 1, 1), date(2026, 9, 1)),
            (date(2026, 9, 1), date(9999, 12, 31)),
        ],
    )
    def test_refuses_days_that_make_no_period(self, first: date, end: date) -> None:
        with pytest.raises(PeriodInvalid):
            Period.of_days(first, end, UTC_ZONE)

    def test_reaches_from_the_first_year_to_the_last_in_every_zone(self) -> None:
        for name in ("Pacific/Kiritimati", "Etc/GMT+12"):
            zone = find_zone(name)
            assert len(list(Period.of_month(Month(1970, 1), zone).days())) == 31
            assert len(list(Period.of_month(Month(9998, 12), zone).days())) == 31

    @given(st.sampled_from(ZONES + ODD_ZONES), moments, st.timedeltas(timedelta(0), timedelta(days=200)))
    def test_days_follow_each_other_without_a_gap(
        self, name: str, start: datetime, length: timedelta
    ) -> None:
        end = start + length
        days = list(Period(start, end, find_zone(name)).days())
        assert [day.start for day in days] == [start, *(day.end for day in days[:-1])][: len(days)]
        assert (days[-1].end if days else start) == end
        assert all(day.start < day.end for day in days)
        dates = [day.date for day in days]
        assert dates == sorted(set(dates))

    @given(st.sampled_from(ZONES), moments)
    def test_every_moment_is_in_the_day_that_clocks_show(self, name: str, moment: datetime) -> None:
        zone = find_zone(name)
        (day,) = Period(moment, moment + timedelta(microseconds=1), zone).days()
        assert day.date == moment.astimezone(zone).date()


@pytest.mark.parametrize(
    "name", ["", "Mars", "Europe", "../etc/passwd", "/etc/passwd", "a\0b", "x" * 5000, "Europe/Paris "]
)
def test_a_time_zone_that_does_not_exist(name: str) -> None:
    with pytest.raises(PeriodInvalid, match="is not a time zone"):
        find_zone(name)
