"""The budget of series: what is exported of whom when there is too much of it.

First new histograms and exceptions are left out, then new jobs are counted as `_other`. For the jobs that may
still come room for their core is kept back, at most half of the budget.
"""

from threading import Lock

from taskscope.counts import OTHER
from taskscope.events import JobKey


class Guard:
    """Who holds how many series."""

    def __init__(self, series: int, jobs: int, core: int) -> None:
        """`core` is how many series every job has."""
        self._series, self._jobs, self._core = series, jobs, core
        self._held: dict[JobKey, int] = {}
        self._others: set[JobKey] = set()
        self._lock = Lock()
        self.used = 0
        """Series that are held."""
        self.admissions = 0
        """How many jobs were ever given series."""

    def admit(self, key: JobKey) -> bool:
        """May this job have series of its own? From then on it has, until it leaves."""
        with self._lock:
            if key in self._held:
                return True
            if key[1] != OTHER and not self._has_room():
                return False
            self._held[key] = self._core
            self.used += self._core
            self.admissions += 1
            if key[1] == OTHER:
                self._others.add(key)
            return True

    def extend(self, key: JobKey, series: int) -> bool:
        """May this admitted job have so many more? They leave with it."""
        with self._lock:
            free_jobs = max(0, self._jobs - len(self._held) + len(self._others))
            kept_back = min(self._core * free_jobs, self._series // 2)
            if key not in self._held or self.used + series > self._series - kept_back:
                return False
            self._held[key] += series
            self.used += series
            return True

    def shrink(self, key: JobKey, series: int) -> None:
        """An admitted job gives so many back."""
        with self._lock:
            self._held[key] -= series
            self.used -= series

    def leave(self, key: JobKey) -> None:
        """The job is gone, and what it held is free."""
        with self._lock:
            self.used -= self._held.pop(key, 0)
            self._others.discard(key)

    def jobs(self) -> set[JobKey]:
        """The jobs that have series of their own."""
        with self._lock:
            return self._held.keys() - self._others

    def _has_room(self) -> bool:
        jobs = len(self._held) - len(self._others)
        return jobs < self._jobs and self.used + self._core <= self._series
