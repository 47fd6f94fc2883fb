"""When an inspection is due."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim

from taskscope.settings import Inspection


def latest_due(rules: Inspection, now: float) -> float:
    """The latest moment at or before `now` at which it is due, in seconds since the epoch.

    Missed ones are not made up one by one: the latest stands for all of them.
    """
    here = datetime.fromtimestamp(now + 1, UTC).astimezone(ZoneInfo(rules.timezone))
    return next(CronSim(rules.schedule, here, reverse=True)).timestamp()


def next_due(rules: Inspection, now: float) -> float:
    """The next moment after `now` at which it is due."""
    here = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(rules.timezone))
    return next(CronSim(rules.schedule, here)).timestamp()
