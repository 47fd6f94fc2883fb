"""Runs in progress that were told of before this process began, until somebody tells of them again.

The history knows them by their ids alone, so that is what they are called here.
"""

from taskscope import identity
from taskscope.events import JobKey
from taskscope.facts import Row
from taskscope.queued import RunKey


class Inherited:
    """Where each of them is kept, by what every id of a run has in common."""

    def __init__(self) -> None:
        self._runs: dict[bytes, tuple[bytes, JobKey]] = {}

    @property
    def ids(self) -> list[bytes]:
        """Their ids."""
        return [id_ for id_, _ in self._runs.values()]

    def add(self, row: Row) -> RunKey:
        """The name of this run from now on."""
        self._runs[identity.key(row.id)] = row.id, row.job_key
        return _name(row.id, row.scheduler)

    def take(self, run: RunKey) -> tuple[JobKey, RunKey] | None:
        """Its job and its name where this is one of them, which it is no more."""
        return self._pop(common(run)) if self._runs else None

    def drop(self, id_: bytes) -> tuple[JobKey, RunKey] | None:
        """The same for a run of this id."""
        return self._pop(identity.key(id_))

    def _pop(self, key: bytes) -> tuple[JobKey, RunKey] | None:
        id_, job = self._runs.pop(key, (b"", ("", "")))
        return (job, _name(id_, job[0])) if id_ else None


def common(run: RunKey) -> bytes:
    """What every id of this run has in common."""
    return identity.key(identity.run_id(*run, 0))


def _name(id_: bytes, scheduler: str) -> RunKey:
    return scheduler, identity.text(id_), 0
