"""What every store of runs does, whether a database is behind it or not."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import msgspec

from taskscope.counts import Counts, Exemplar, JobState
from taskscope.events import JobKey
from taskscope.facts import Change, Row
from taskscope.settings import Settings
from taskscope.sinks.history.error_records import Action, ErrorGroup
from taskscope.sinks.history.records import Alert


class Applied(msgspec.Struct):
    """What one committed batch did."""

    changes: list[Change]
    """Runs with something new, each once."""
    totals: dict[JobKey, Counts]
    """The committed counts, now, of every job the batch touched."""
    exemplars: dict[tuple[JobKey, str, int], Exemplar] = {}
    expired: int = 0
    """Facts that came after retention had removed their run: acknowledged, neither stored nor counted."""
    limited: dict[str, int] = {}
    """By scheduler, errors that were counted as `_other`: there are as many groups as may be."""

    def plus(self, later: "Applied") -> "Applied":
        """What this batch and a later one did."""
        return Applied(
            changes=self.changes + later.changes,
            totals=self.totals | later.totals,
            exemplars=self.exemplars | later.exemplars,
            expired=self.expired + later.expired,
            limited=dict(Counter(self.limited) + Counter(later.limited)),
        )


class Store(ABC):
    """Owns the truth about runs and counts. All calls but `close` come from one thread."""

    settings: Settings
    """In force now: others with the same history may take their place while it works, from any thread."""

    @abstractmethod
    def open(self) -> None:
        """Connect, migrate and take up the counts. Raises `Unavailable` (try again), `NotOwner` or `TooNew`."""

    @abstractmethod
    def apply(
        self,
        rows: Sequence[Row],
        states: Mapping[JobKey, JobState] | None = None,
        label: Callable[[JobKey], JobKey] = lambda key: key,
    ) -> Applied:
        """Merge rows (one per run id, ascending by id), count what is new, save `states`; all in one transaction.

        Counts go to the job that `label` names. When this raises `Unavailable` it is not known whether the batch was
        committed: apply it again; merging makes that harmless, and `totals` then gives the truth. `BadEvent`: nothing
        was committed, because the store cannot hold one of the rows.
        """

    @abstractmethod
    def totals(self) -> dict[JobKey, Counts]:
        """The committed counts of all jobs this replica ever counted."""

    @abstractmethod
    def states(self) -> dict[JobKey, JobState]:
        """The saved memories of all jobs."""

    @abstractmethod
    def beat(self, instances: Collection[str], now: float) -> None:
        """Say that these processes live, each `host:pid:uuid`."""

    @abstractmethod
    def lost(self, now: float, after: float) -> Iterable[Row]:
        """Runs that wait or run in a process that is gone (pid on this host) or silent for `after` seconds.

        Each as a row that holds its id, scheduler, job, `started`, `enqueued` and the LOST bit; `apply` them.
        """

    @abstractmethod
    def in_progress(self) -> Collection[Row]:
        """Runs that another process of ours was told to have started, the oldest ones, each as a row that holds its
        id, scheduler, job and `started`; those of which it would never be known that they are `lost` aside."""

    @abstractmethod
    def ended(self, runs: Collection[bytes]) -> Collection[bytes]:
        """Those of these runs that are not in progress any more."""

    @abstractmethod
    def record(self, alerts: Sequence[Alert]) -> None:
        """Keep what was told of alerts, in one transaction; order and repetition do not matter."""

    @abstractmethod
    def act(
        self, fingerprint: bytes, action: Action, at: int, actor: str = "", note: str = ""
    ) -> ErrorGroup | None:
        """Do this with an error group, as of `at` ms; the group as it is then, None where there is none."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything; may be called twice, from any thread."""
