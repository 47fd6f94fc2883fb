"""Why runs wait: of each queue in which some do the cause, and what there is to do."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import msgspec

Cause = Literal["no_worker", "no_consumer", "slow_runs", "more_work", "draining", "unknown"]

_SLOW = 2.0  # times as long as usual
_MORE = 1.5  # times as much as usual
_ABOVE = 1.1  # times: from where on one rate is above another
_UNITS = {"a second": 1, "a minute": 60, "an hour": 3_600}  # of rates: the first that makes one whole run


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """A queue in which runs wait, and what is known of it; None for what is not. Rates are runs a second."""

    scheduler: str
    queue: str
    """Empty where nobody says."""
    waiting: int
    oldest: float | None = None
    """Since when what waits longest does."""
    workers: int | None = None
    """Of its scheduler."""
    workers_up: int | None = None
    consumers: int | None = None
    """Of this queue; where there are some it has workers, though none that is known is up."""
    running: int | None = None
    arrivals: float | None = None
    usual_arrivals: float | None = None
    completions: float | None = None
    mean: float | None = None
    """Seconds that runs take that ended of late, or have taken so far that are in progress."""
    usual_mean: float | None = None
    """Seconds that runs of these jobs usually take."""

    @property
    def is_growing(self) -> bool | None:
        """Does more come than is done?"""
        if self.arrivals is None or self.completions is None:
            return None
        return self.arrivals > self.completions

    @property
    def drains_in(self) -> float | None:
        """Seconds until nothing waits, at this pace; None where it grows, stays, or nobody knows."""
        if self.arrivals is None or self.completions is None or self.completions <= self.arrivals:
            return None
        return self.waiting / (self.completions - self.arrivals)


class Verdict(NamedTuple):
    """What holds of a backlog."""

    cause: Cause
    explanation: str
    """In a sentence."""
    advice: str
    alert: str
    """Under its name the runbook says more."""


class _Judgement(NamedTuple):
    """A cause, when it holds, how that is said, and what to do."""

    holds: Callable[[Backlog], bool]
    says: Callable[[Backlog], str]
    advice: str
    alert: str


def judged(one: Backlog) -> Verdict:
    """The first cause that holds; how long it will take is said where workers are at it."""
    cause = next(cause for cause, judgement in _JUDGEMENTS.items() if judgement.holds(one))
    judgement = _JUDGEMENTS[cause]
    rest = ""
    if one.drains_in is not None and cause not in ("no_worker", "no_consumer"):
        rest = f"; at this pace nothing waits any more in {_time(one.drains_in)}"
    return Verdict(cause, f"{judgement.says(one)}{rest}.", judgement.advice, judgement.alert)


def _is_slow(one: Backlog) -> bool:
    return bool(one.mean and one.usual_mean and one.mean >= _SLOW * one.usual_mean)


def _is_more_than_usual(one: Backlog) -> bool:
    return bool(one.arrivals and one.usual_arrivals and one.arrivals >= _MORE * one.usual_arrivals)


def _is_more_than_done(one: Backlog) -> bool:
    return bool(one.arrivals and one.completions is not None and one.arrivals > _ABOVE * one.completions)


def _says_more(one: Backlog) -> str:
    if _is_more_than_usual(one):
        return _paces("Runs come at", one.arrivals, "and usually at", one.usual_arrivals)
    return _paces("Runs come at", one.arrivals, "and are done at", one.completions)


def _paces(what: str, pace: float | None, which: str, other: float | None) -> str:
    """Both in the same unit, so that they can be compared at a glance."""
    pace, other = pace or 0.0, other or 0.0
    fitting = (each for each in _UNITS.items() if max(pace, other) * each[1] >= 1)
    unit, seconds = next(fitting, ("a day", 86_400))
    return f"{what} {pace * seconds:.3g} {unit}, {which} {other * seconds:.3g}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 7_200 else f"{seconds / 3_600:.3g} h"


_JUDGEMENTS: dict[Cause, _Judgement] = {
    "no_worker": _Judgement(
        lambda one: one.workers_up == 0 and not one.consumers,
        lambda one: f"None of {one.workers} workers is up",
        "Start the workers, or the application that holds them; what is enqueued waits for them.",
        "TaskscopeWorkersDown",
    ),
    "no_consumer": _Judgement(
        lambda one: one.consumers == 0,
        lambda one: "No worker consumes this queue",
        "Start a worker that listens to this queue, or enqueue where one listens.",
        "TaskscopeQueueWithoutConsumers",
    ),
    "slow_runs": _Judgement(
        _is_slow,
        lambda one: f"Runs take {_time(one.mean or 0)} on average, and usually {_time(one.usual_mean or 0)}",
        "See what the runs wait for: a slow service, a lock, a database. More workers help only if it bears them.",
        "TaskscopeJobSlow",
    ),
    "more_work": _Judgement(
        lambda one: _is_more_than_usual(one) or _is_more_than_done(one),
        _says_more,
        "Add workers, or wait if this is a rush that ends; see what enqueues so much.",
        "TaskscopeQueueBacklog",
    ),
    "draining": _Judgement(
        lambda one: one.drains_in is not None,
        lambda one: _paces("Runs are done at", one.completions, "and come at", one.arrivals),
        "Wait: workers keep pace, and what has piled up goes down.",
        "TaskscopeQueueBacklog",
    ),
    "unknown": _Judgement(
        lambda one: True,
        lambda one: "As far as is known workers are there, runs take as long as usual, and no more come",
        "See on the page Queues & workers since when it grows, and what the workers do.",
        "TaskscopeQueueBacklog",
    ),
}
"""Each cause, the worst first."""
