"""A finding as it is kept and asked for. Times are ms since the epoch; 0 = never."""

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Literal

import msgspec

Level = Literal["critical", "warning", "info"]
FindingState = Literal["open", "recovered"]

_NEAR = 3_600_000  # ms between two starts that are at one time
_MOST = 20  # that are related

LEVELS: tuple[Level, ...] = ("critical", "warning", "info")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that an inspection found, from its first to its last sight."""

    inspection: str
    look: str
    """What was looked for: new_errors, slow_jobs, silence, failing_entities."""
    kind: str
    """What was found: new_error, regression, error_rise, slow_job, silence, failing_entity."""
    scheduler: str
    job: str
    object: str
    """What it is about, in a few words."""
    key: str
    """The same for the same thing, whenever it is found: a fingerprint, an entity, or nothing but its job."""
    level: Level
    title: str
    overview: str
    """What was found, in a sentence or two."""
    started: int
    last_seen: int
    recovered: int = 0
    details: dict[str, Any] = {}
    """Counts and what was compared, stack excerpt, links."""
    distribution: tuple[tuple[int, float], ...] = ()
    """(begin of a step, how much in it), over the window and what came before it."""
    attributes: dict[str, str] = {}
    """By which findings are related."""
    told: int = 0
    """When Alertmanager first took it."""

    @property
    def id(self) -> bytes:
        """16 bytes that order by start: 48 bits of it, and a hash of what it is about."""
        about = "\0".join((self.inspection, self.kind, self.scheduler, self.job, self.key))
        return self.started.to_bytes(6, "big") + sha256(about.encode("utf-8", "surrogatepass")).digest()[:10]

    @property
    def subject(self) -> bytes:
        """What it is about, whenever: the part of its id that is the same for all its findings."""
        return self.id[6:]

    @property
    def state(self) -> FindingState:
        """Open until it has recovered."""
        return "recovered" if self.recovered else "open"


class FindingFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which findings; what is empty does not restrict."""

    inspection: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()
    level: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    scheduler: tuple[str, ...] = ()
    job: tuple[str, ...] = ()
    since: int | None = None
    """Seen at or after it."""
    until: int | None = None
    """Started before it."""
    key: str | None = None
    """About exactly this; the empty text is one, too."""


class Related(msgspec.Struct, frozen=True, kw_only=True):
    """A finding that may have to do with another, and why."""

    finding: Finding
    shared: list[str]
    """What is the same: job, exception, place, version, scheduler, time."""


def related(one: Finding, others: Iterable[Finding]) -> list[Related]:
    """Those that share an attribute with it, or happened on its scheduler at its time; what shares most first."""
    found = [
        Related(finding=other, shared=shared)
        for other in others
        if other.id != one.id and (shared := list(_shared(one, other))) and shared != ["scheduler"]
    ]
    found.sort(key=lambda each: (-len(each.shared), abs(each.finding.started - one.started)))
    return found[:_MOST]


def _shared(one: Finding, other: Finding) -> Iterator[str]:
    if one.scheduler != other.scheduler and not one.attributes.keys() & other.attributes.keys():
        return
    if (one.scheduler, one.job) == (other.scheduler, other.job):
        yield "job"
    for name in one.attributes.keys() & other.attributes.keys():
        if one.attributes[name] and one.attributes[name] == other.attributes[name]:
            yield name
    if one.scheduler == other.scheduler:
        yield "scheduler"
        if abs(one.started - other.started) <= _NEAR:
            yield "time"


class FindingPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some findings, newest first."""

    findings: list[Finding]
    total: int
    after: bytes | None
    """Where the next page goes on; None on the last one."""


class Inspected(msgspec.Struct, frozen=True, kw_only=True):
    """How the last inspection of a name went."""

    name: str
    through: int = 0
    """Up to when it has looked."""
    at: int = 0
    """When it looked."""
    took: int = 0
    """ms."""
    found: int = 0
    failure: str = ""
    """Why it gave up; empty where it did not."""
