"""A task as its events tell of it, attempt by attempt: which of them a word without a number is about.

Only `task-sent` and `task-received` say which attempt they mean, and they may come late or not at all. What is sure:
of a task's attempts all but the last were tried again, and a worker receives a message before it starts it.
"""

from typing import Any

import msgspec

from taskscope.events import Error, Status

QUEUED, STARTED, ENDED = 1, 2, 3
"""What of an attempt has been told already."""
_KEPT = 20
"""Attempts of one task that are remembered: a late word is of one of them. A task may be tried again for ever."""


class Attempt(msgspec.Struct, gc=False):
    """One run of the task. Points in time are the senders' clocks, 0 where unknown."""

    number: int
    sent: float = 0.0
    received: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    duration: float | None = None
    status: Status = "queued"
    reason: str = ""
    worker: str = ""
    due: float | None = None
    details: dict[str, Any] | None = None
    error: Error | None = None
    told: int = 0
    changed: bool = False

    def again(self, received: float) -> None:
        """It was given to a worker once more, after what had seemed its end."""
        if self.ended and received > self.ended:
            self.started = self.ended = 0.0
            self.duration, self.error, self.reason, self.status, self.told = None, None, "", "queued", QUEUED


class Task(msgspec.Struct, eq=False, gc=False):
    """What is known of a task; `attempts` ascend by their numbers."""

    uuid: str
    since: float
    """When it was first heard of, by our clock."""
    attempts: list[Attempt]
    numbered: bool = False
    """Does any event say which attempt it is? If not, there is one attempt here, taken for the first in the end."""
    job: str = ""
    queue: str = ""

    @property
    def open(self) -> bool:
        """Is there an attempt that has not ended, or one to come?"""
        return not self.attempts or not self.attempts[-1].ended or self.attempts[-1].status == "retried"

    def attempt(self, number: int, at: float) -> Attempt:
        """The attempt with this number, of which something was told that happened at `at`."""
        if not self.numbered:
            self.numbered = True
            if self.attempts:
                self._number(number, at)
        for place, attempt in enumerate(self.attempts):
            if attempt.number == number:
                return attempt
            if attempt.number > number:
                return self._add(place, number)
        return self._add(len(self.attempts), number)

    def starting(self, at: float) -> Attempt:
        """The attempt that started at this time: the first without a start that has not ended before it."""
        for attempt in self.attempts:
            if attempt.started == at:
                return attempt
        for attempt in self.attempts:
            if not attempt.started and (not attempt.ended or at <= attempt.ended):
                return attempt
        return self.ending()

    def retrying(self, at: float) -> Attempt:
        """The attempt that ended at this time in another one."""
        waiting = None
        for attempt in self.attempts:
            if attempt.ended == at or (attempt.started and not attempt.ended and attempt.started <= at):
                return attempt
            if waiting is None and not attempt.ended:
                waiting = attempt
        if waiting is None:
            return self._next()
        if (
            waiting.number and waiting is self.attempts[0]
        ):  # a repetition: nothing was heard of what it repeats
            return self._add(0, waiting.number - 1)
        return waiting

    def ending(self) -> Attempt:
        """The attempt that ends for good: no other comes after it."""
        return (
            self._next() if not self.attempts or self.attempts[-1].status == "retried" else self.attempts[-1]
        )

    def given_back(self, at: float) -> Attempt:
        """The attempt whose message went back to the broker at this time: it may be delivered again."""
        return next((attempt for attempt in self.attempts if attempt.ended == at), None) or self.ending()

    def _next(self) -> Attempt:
        return self._add(len(self.attempts), self.attempts[-1].number + 1 if self.attempts else 0)

    def _add(self, place: int, number: int) -> Attempt:
        """One more; of very many those go first that ended."""
        attempt = Attempt(number)
        self.attempts.insert(place, attempt)
        if self.numbered and len(self.attempts) > _KEPT:
            self.attempts.remove(next((one for one in self.attempts if one.ended), self.attempts[0]))
        return attempt

    def _number(self, number: int, at: float) -> None:
        """Which attempts are known so far: the first that started after a word about this one is this one."""
        times = [attempt.started or attempt.ended for attempt in self.attempts]
        after = (place for place, time in enumerate(times) if time >= at)
        first = max(0, number - next(after, len(self.attempts)))
        for place, attempt in enumerate(self.attempts):
            attempt.number = first + place
