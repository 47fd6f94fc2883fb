"""When an inspection is due, also where clocks are put forward and back."""

from datetime import datetime

import pytest

from taskscope.inspection.timetable import latest_due, next_due
from taskscope.settings import Inspection


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("schedule", "timezone", "now", "latest", "following"),
    [
        ("0 * * * *", "UTC", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"),
        ("0 * * * *", "UTC", "2026-01-01T10:59:59Z", "2026-01-01T10:00:00Z", "2026-01-01T11:00:00Z"),
        (
            "0 6 * * *",
            "Europe/Berlin",
            "2026-01-01T12:00:00Z",
            "2026-01-01T05:00:00Z",
            "2026-01-02T05:00:00Z",
        ),
        (
            "0 6 * * *",
            "Europe/Berlin",
            "2026-07-01T12:00:00Z",
            "2026-07-01T04:00:00Z",
            "2026-07-02T04:00:00Z",
        ),
        # At 02:00 of that day it is 03:00: what is due at 02:30 is due right then, once.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-29T12:00:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-30T00:30:00Z",
        ),
        # From 03:00 of that day it is 02:00 again: once.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-25T12:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-26T01:30:00Z",
        ),
        (
            "0 * * * *",
            "Europe/Berlin",
            "2026-10-25T01:30:00Z",
            "2026-10-25T01:00:00Z",
            "2026-10-25T02:00:00Z",
        ),
    ],
)
def test_when_it_is_due(schedule, timezone, now, latest, following):
    rules = Inspection(schedule=schedule, timezone=timezone)

    assert latest_due(rules, at(now)) == at(latest)
    assert next_due(rules, at(now)) == at(following)
