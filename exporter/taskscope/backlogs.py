"""The queues in which runs wait, and what is known of each: readings of the present beside the last hour's runs."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec

from taskscope.diagnosis import Backlog
from taskscope.events import JobKey, QueueState
from taskscope.live import Live
from taskscope.sinks.history.flow import Flow, Flows

if TYPE_CHECKING:  # its import costs a database library
    from taskscope.sinks.history.queries import Queries

Place: TypeAlias = tuple[str, str]
"""(scheduler, queue)"""

_HOUR = 3_600_000  # ms, for which rates and durations are measured
_DAY = 24 * _HOUR
_PAST = 7 * _DAY  # ms, which say what is usual
_FEWEST = 20  # runs of the past of which a mean can be told


class Usual(NamedTuple):
    """A job's past."""

    rate: float
    """Runs a second."""
    mean: float | None
    """Seconds; None where too few runs tell."""


_NO_PAST = Usual(0.0, None)


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """What was read."""

    queues: Mapping[Place, QueueState]
    workers: Counter[str]
    """By scheduler."""
    up: Counter[str]
    """Of these."""
    first_seen: Mapping[JobKey, float]
    """Jobs."""


def backlogs(live: Live, queries: "Queries | None", now: int) -> list[Backlog]:
    """All of them, those in which most waits first. Asks the history, where there is one. Raises `Unavailable`."""
    present = _present(live)
    flows = queries.flows(now - _HOUR, now) if queries else None
    places = _by_place(flows.flows if flows else ())
    waiting = {
        place: _waiting(present.queues.get(place), places.get(place, ()))
        for place in {**present.queues, **places}
    }
    waiting = {place: number for place, number in waiting.items() if number}
    own = [flow for place in waiting for flow in places.get(place, ())]
    usual = _usual(queries, flows, own, present) if own and queries and flows else {}
    found = [
        Backlog(
            scheduler=place[0],
            queue=place[1],
            waiting=number,
            **_read(present, place),
            **_flowed(present.queues.get(place), flows, _of(place, places), usual),
        )
        for place, number in waiting.items()
    ]
    return sorted(found, key=lambda one: (-one.waiting, one.scheduler, one.queue))


def _present(live: Live) -> Present:
    with live.lock:
        workers = list(live.workers.values())
        return Present(
            queues=dict(live.queues),
            workers=Counter(one.scheduler for one in workers),
            up=Counter(one.scheduler for one in workers if one.up),
            first_seen={key: job.state.first_seen for key, job in live.jobs.items()},
        )


def _by_place(flows: Iterable[Flow]) -> dict[Place, list[Flow]]:
    found: dict[Place, list[Flow]] = {}
    for flow in flows:
        found.setdefault((flow.scheduler, flow.queue), []).append(flow)
    return found


def _waiting(reading: QueueState | None, flows: Sequence[Flow]) -> int:
    """As the queue was read; else the runs that were told to be enqueued."""
    if reading is not None and reading.ready is not None:
        return reading.ready
    return sum(flow.waiting for flow in flows)


def _of(place: Place, places: Mapping[Place, Sequence[Flow]]) -> Sequence[Flow] | None:
    """The queue's flows; None where runs of its scheduler do not say in which queue they were."""
    mute = {queue for scheduler, queue in places if scheduler == place[0]} == {""}
    return None if mute and place not in places else places.get(place, ())


def _read(present: Present, place: Place) -> dict[str, Any]:
    known, reading = place[0] in present.workers, present.queues.get(place)
    return {
        "workers": present.workers[place[0]] if known else None,
        "workers_up": present.up[place[0]] if known else None,
        "consumers": reading and reading.consumers,
        "oldest": reading and reading.oldest,
    }


def _flowed(
    reading: QueueState | None,
    flows: Flows | None,
    own: Sequence[Flow] | None,
    usual: Mapping[JobKey, Usual],
) -> dict[str, Any]:
    """What the history says of a queue."""
    running = reading and reading.in_flight
    if flows is None or own is None:
        return {"running": running}
    fresh = _fresh(reading, flows, own)
    return {
        "running": sum(flow.running for flow in own) if running is None else running,
        "arrivals": None if fresh is None else (sum(flow.arrived for flow in own) + fresh) / flows.seconds,
        "completions": sum(flow.ended for flow in own) / flows.seconds,
        "usual_arrivals": _usual_arrivals(flows, own, usual),
        **_durations(own, usual),
    }


def _fresh(reading: QueueState | None, flows: Flows, own: Sequence[Flow]) -> float | None:
    """How many of those that wait came in the span; None where nobody says since when they wait.

    What was enqueued first is taken first: as long as the oldest waits, everything that came after it does.
    """
    told = sum(flow.fresh for flow in own)
    if told or reading is None or not reading.ready:
        return told
    if not reading.oldest:
        return None
    waits = flows.until / 1000 - reading.oldest
    return reading.ready * min(1.0, flows.seconds / max(waits, 1.0))


def _usual(queries: "Queries", flows: Flows, own: Iterable[Flow], present: Present) -> dict[JobKey, Usual]:
    """The past of these flows' jobs by whole days, which cost little; on the first day by the hours that are over."""
    jobs, midnight = sorted({flow.job for flow in own}), flows.since // _DAY * _DAY
    spans = ((midnight - _PAST, midnight), (midnight, flows.since // _HOUR * _HOUR))
    found = (_past(queries, jobs, since, until, present) for since, until in spans)
    return next(filter(None, found), {})


def _past(
    queries: "Queries", jobs: Sequence[str], since: int, until: int, present: Present
) -> dict[JobKey, Usual]:
    past = {}
    for one in queries.stats(since, until, [], jobs)[1:]:
        key = (one.scheduler, one.job)
        seconds = max(until - max(since, present.first_seen.get(key, 0) * 1000), _HOUR) / 1000
        past[key] = Usual(one.runs / seconds, one.mean if one.runs >= _FEWEST else None)
    return past


def _key(flow: Flow) -> JobKey:
    return flow.scheduler, flow.job


def _usual_arrivals(flows: Flows, own: Iterable[Flow], usual: Mapping[JobKey, Usual]) -> float | None:
    """Of the same jobs; one that runs in several queues as it does now."""
    everywhere = Counter[JobKey]()
    for flow in flows.flows:
        everywhere[_key(flow)] += _size(flow)
    rates = [
        usual[key].rate * _size(flow) / everywhere[key]
        for flow in own
        if (key := _key(flow)) in usual and everywhere[key]
    ]
    return sum(rates) if rates else None


def _size(flow: Flow) -> int:
    return flow.arrived + flow.waiting + flow.ended


def _durations(own: Iterable[Flow], usual: Mapping[JobKey, Usual]) -> dict[str, float | None]:
    """How long runs take, and how long they would usually take: of those jobs that have a past, if any has.

    Those in progress count with what they have taken so far, or nobody would see it where all hang and none ends.
    """
    expected = [(flow, mean) for flow in own if (mean := usual.get(_key(flow), _NO_PAST).mean)]
    compared = [flow for flow, _ in expected] or own
    return {
        "mean": _mean((_counted(flow), flow.took / 1e6 + flow.age / 1e3) for flow in compared),
        "usual_mean": _mean((_counted(flow), _counted(flow) * mean) for flow, mean in expected),
    }


def _counted(flow: Flow) -> int:
    return flow.timed + flow.running


def _mean(parts: Iterator[tuple[int, float]]) -> float | None:
    """Of so many together so much."""
    number, total = 0, 0.0
    for count, amount in parts:
        number, total = number + count, total + amount
    return total / number if number else None
