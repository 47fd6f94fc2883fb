"""An error group as it is kept and as it is asked for, and how what is seen of it changes it.

Order does not matter: what is counted adds up, times are the first and the last, texts are of the latest occurrence.
Times are ms since the epoch; 0 = never.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec.structs import replace

from taskscope.events import JobKey
from taskscope.groups import Group

State = Literal["open", "resolved", "regressed", "ignored"]
Action = Literal["resolve", "ignore", "reopen"]
ErrorSort = Literal["last_seen", "first_seen", "count"]

STATES: tuple[State, ...] = ("open", "resolved", "regressed", "ignored")
ACTIONS: dict[Action, State] = {"resolve": "resolved", "ignore": "ignored", "reopen": "open"}
"""What somebody does with a group, and the state that it is in then."""

REMEMBERED = 20
"""Instances, and versions, of a group: those in which it was seen last."""


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """One occurrence of an error as it was told."""

    id: bytes
    run: bytes
    key: JobKey
    group: Group
    at: int
    message: str = ""
    stack: str = ""
    data: str = ""
    instance: str = ""
    version: str = ""

    @property
    def fatal(self) -> bool:
        """Did its run fail of it?"""
        return self.id == self.run


class ErrorGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of a job that are the same."""

    fingerprint: bytes
    scheduler: str
    job: str
    kind: str
    name: str = ""
    """What a rule of the user's calls it."""
    place: str = ""
    message: str = ""
    first_seen: int = 0
    last_seen: int = 0
    failures: int = 0
    """Runs that failed, or were retried, of it."""
    captured: int = 0
    """Times that a run reported it and went on."""
    latest_id: bytes = b""
    latest_run: bytes = b""
    instances: dict[str, int] = {}
    """Where it was seen last, and when."""
    versions: dict[str, int] = {}
    state: State = "open"
    acted: int = 0
    """When somebody last changed the state."""
    actor: str = ""
    note: str = ""
    regressed: int = 0
    """When it was first seen again after it had been resolved."""
    stack: str = ""
    """Only where it is asked for."""
    data: str = ""

    def with_sights(self, sights: Iterable[Sight], failures: int, captured: int) -> "ErrorGroup":
        """The group after these occurrences, of which so many are counted."""
        group = self
        for sight in sights:
            group = group._with(sight)
        return replace(group, failures=group.failures + failures, captured=group.captured + captured)

    def acted_on(self, action: Action, at: int, actor: str, note: str) -> "ErrorGroup":
        """The group after somebody has said what is to become of it."""
        return replace(self, state=ACTIONS[action], acted=at, actor=actor, note=note, regressed=0)

    def _with(self, sight: Sight) -> "ErrorGroup":
        later = (sight.at, sight.id) >= (self.last_seen, self.latest_id)
        again = self.state in ("resolved", "regressed") and sight.at > self.acted
        regressed = min(self.regressed or sight.at, sight.at) if again else self.regressed
        seen = replace(
            self,
            first_seen=min(self.first_seen or sight.at, sight.at),
            last_seen=max(self.last_seen, sight.at),
            instances=_latest(self.instances, sight.instance, sight.at),
            versions=_latest(self.versions, sight.version, sight.at),
            state="regressed" if regressed else self.state,
            regressed=regressed,
        )
        return _told(seen, sight) if later else seen


class ErrorFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which groups; an empty field does not filter. Fields are joined by AND, the values of one field by OR."""

    scheduler: tuple[str, ...] = ()
    job: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    state: tuple[State, ...] = ()
    q: str = ""
    """Text anywhere in class, name, place, message (case-insensitive)."""
    since: int | None = None
    """Seen at or after."""
    until: int | None = None
    """First seen before."""


class ErrorPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some groups of many."""

    groups: list[ErrorGroup]
    total: int
    after: bytes | None
    """Where the next page goes on; None at the end."""


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """One error of one run."""

    id: bytes
    run: bytes
    error: bytes
    at: int
    kind: str = ""
    message: str = ""
    stack: str = ""
    data: str = ""
    status: str = ""
    """Of the run; empty where that is not stored."""
    started: int = 0
    """When the run began."""
    instance: str = ""
    worker: str = ""

    @property
    def fatal(self) -> bool:
        """Did its run fail of it?"""
        return self.id == self.run


class ErrorBucket(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a group's trend."""

    at: int
    failures: int
    captured: int


class ErrorTrend(msgspec.Struct, frozen=True, kw_only=True):
    """A group, and how often it happened over time."""

    group: ErrorGroup
    steps: list[ErrorBucket]


def _told(group: ErrorGroup, sight: Sight) -> ErrorGroup:
    """The group in the words of its latest occurrence."""
    return replace(
        group,
        kind=sight.group.kind,
        name=sight.group.name,
        place=sight.group.place,
        message=sight.message,
        latest_id=sight.id,
        latest_run=sight.run,
        stack=sight.stack,
        data=sight.data,
    )


def _latest(seen: Mapping[str, int], text: str, at: int) -> dict[str, int]:
    """The texts seen last, with this one."""
    if not text or seen.get(text, -1) >= at:
        return dict(seen)
    both = {**seen, text: at}
    return dict(sorted(both.items(), key=lambda item: (-item[1], item[0]))[:REMEMBERED])
