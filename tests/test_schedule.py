"""When a cron expression is due, against instants that are known from calendars and from cron's manual."""

from datetime import datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest

from taskscope.errors import BadArgument, BadEvent
from taskscope.events import Defined, Job, Trigger
from taskscope.schedule import due_times, in_words, promised


def utc(text: str) -> float:
    return datetime.fromisoformat(f"{text}+00:00").timestamp()


def due(expression: str, zone: str, after: str, count: int = 3) -> list[str]:
    times = islice(due_times(expression, zone, utc(after)), count)
    return [datetime.fromtimestamp(at, ZoneInfo("UTC")).strftime("%m-%dT%H:%M") for at in times]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        ("0 3 * * *", "UTC", "2027-01-01T03:00:00", ["01-02T03:00", "01-03T03:00", "01-04T03:00"]),
        # Berlin: on 2027-03-28 02:00 is followed by 03:00 (+1 becomes +2); what was due between runs right after.
        ("30 2 * * *", "Europe/Berlin", "2027-03-27T00:00:00", ["03-27T01:30", "03-28T01:00", "03-29T00:30"]),
        ("0 3 * * *", "Europe/Berlin", "2027-03-27T00:00:00", ["03-27T02:00", "03-28T01:00", "03-29T01:00"]),
        ("0 * * * *", "Europe/Berlin", "2027-03-28T00:00:00", ["03-28T01:00", "03-28T02:00", "03-28T03:00"]),
        # On 2027-10-31 03:00 is followed by 02:00: a time of day comes once, every hour comes twice.
        ("30 2 * * *", "Europe/Berlin", "2027-10-30T12:00:00", ["10-31T00:30", "11-01T01:30", "11-02T01:30"]),
        ("30 2 * * *", "Europe/Berlin", "2027-10-31T01:10:00", ["11-01T01:30", "11-02T01:30", "11-03T01:30"]),
        ("0 * * * *", "Europe/Berlin", "2027-10-30T23:30:00", ["10-31T00:00", "10-31T01:00", "10-31T02:00"]),
        (
            "*/30 * * * *",
            "Europe/Berlin",
            "2027-10-31T00:10:00",
            ["10-31T00:30", "10-31T01:00", "10-31T01:30"],
        ),
        # New York: 2027-03-14 and 2027-11-07.
        (
            "30 2 * * *",
            "America/New_York",
            "2027-03-14T00:00:00",
            ["03-14T07:00", "03-15T06:30", "03-16T06:30"],
        ),
        (
            "30 1 * * *",
            "America/New_York",
            "2027-11-07T00:00:00",
            ["11-07T05:30", "11-08T06:30", "11-09T06:30"],
        ),
        # A zone whose clocks are changed by half an hour: Lord Howe, 2027-04-04 02:00 is followed by 01:30.
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2027-04-03T00:00:00",
            ["04-03T14:45", "04-04T15:15", "04-05T15:15"],
        ),
        # Day of month and day of week: both restricted means either.
        ("0 0 13 * fri", "UTC", "2027-08-01T00:00:00", ["08-06T00:00", "08-13T00:00", "08-20T00:00"]),
        ("@weekly", "", "2027-08-01T12:00:00", ["08-08T00:00", "08-15T00:00", "08-22T00:00"]),
        ("0 0 29 2 *", "UTC", "2027-01-01T00:00:00", ["02-29T00:00", "02-29T00:00", "02-29T00:00"]),
    ],
)
def test_a_schedule_is_due_at(expression: str, zone: str, after: str, expected: list[str]):
    assert due(expression, zone, after) == expected


@pytest.mark.parametrize(
    ("expression", "zone", "words"),
    [
        ("0 3 * *", "UTC", "no cron expression"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("Mon *-*-* 03:00", "UTC", "no cron expression"),
        ("@reboot", "UTC", "no cron expression"),
        ("9" * 5000 + " * * * *", "UTC", "no cron expression"),
        ("0 3 * * *", "Europe/Atlantis", "timezone='Europe/Atlantis' is not known"),
        ("0 3 * * *", "../../etc/passwd", "is not known"),
        ("0 3 * * *", "\0", "is not known"),
    ],
)
def test_what_is_no_schedule_is_said_in_a_sentence(expression: str, zone: str, words: str):
    with pytest.raises(BadArgument, match=words.replace("*", r"\*")):
        next(due_times(expression, zone, 0.0))


def test_a_schedule_can_be_told_in_words():
    assert (
        in_words("*/5 8-18 * * mon-fri")
        == "Every fifth minute from 08:00 through 18:59 on Monday through Friday"
    )


def cron(schedule: str, key: str = "cron", **fields: object) -> Trigger:
    return Trigger(key=key, state="WAITING", schedule=schedule, timezone="Europe/Berlin", **fields)


def defined(*triggers: Trigger, at: str = "2027-03-27T01:30:00", **fields: object) -> Job:
    return promised(
        Defined(scheduler="s", at=utc(at), job=Job(name="j", key="j", triggers=triggers, **fields))
    ).job


def test_a_job_promises_its_next_run_and_the_interval_to_the_one_after():
    job = defined(cron("30 2 * * *"))

    assert job.next_run == job.triggers[0].next_run == utc("2027-03-28T01:00:00")
    assert job.interval == 23.5 * 3600, "the hour that is left out makes the next day come sooner"


def test_of_several_triggers_the_first_counts():
    job = defined(cron("0 12 * * *", "a"), cron("0 6 * * *", "b"))

    assert (job.next_run, job.interval) == (utc("2027-03-27T05:00:00"), 6 * 3600.0)
    assert [trigger.next_run for trigger in job.triggers] == [
        utc("2027-03-27T11:00:00"),
        utc("2027-03-27T05:00:00"),
    ]


def test_a_run_that_starts_a_moment_too_soon_is_the_one_that_was_due():
    job = defined(cron("30 2 * * *"), at="2027-06-01T00:29:59.5")

    assert job.next_run == utc("2027-06-02T00:30:00")


@pytest.mark.parametrize("schedule", ["0 3 * *", "0 0 31 2 *", "0 0 30 2 *"])
def test_a_definition_whose_schedule_promises_nothing_is_refused(schedule: str):
    with pytest.raises(BadEvent, match="job 'j': "):
        defined(cron(schedule))


def test_what_somebody_knows_already_is_left_as_it_is():
    assert defined(cron("whatever"), next_run=5.0).next_run == 5.0
    assert defined(cron("whatever"), paused=True).next_run is None
    assert defined(Trigger(key="t", state="COMPLETE", schedule="whatever")).next_run is None
    assert defined().next_run is None
