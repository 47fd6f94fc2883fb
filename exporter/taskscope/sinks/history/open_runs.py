"""Runs whose facts know no common anchor: their ids, chosen by the first fact, are found again by the later ones.

A row goes one `dedup_window` after its run has ended; what is told of the run later than that makes another one.
A lost run may end after all: its row stays as long as the run.
"""

from collections.abc import Mapping, Sequence
from itertools import chain

import sqlalchemy as sa

from taskscope.facts import RANK, Row
from taskscope.sinks.history.ledger import trim
from taskscope.sinks.history.merge import slices
from taskscope.sinks.history.schema import open_run
from taskscope.sinks.history.unanchored import provisional, settled

REMEMBERED = 10_000
"""Ids that are kept in memory: most runs are told of again within seconds."""


class OpenRuns:
    """Gives every fact of a run the same id, also those of another batch, process or replica."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def settle(self, connection: sa.Connection, rows: Sequence[Row]) -> Sequence[Row]:
        """One row for each run under its id, ascending. Costs next to nothing where all have an anchor."""
        proposed = provisional(rows)
        if not proposed:
            return rows
        ids = {run: self._known.pop(run) for run in proposed if run in self._known}
        ids |= _chosen(connection, {run: id_ for run, id_ in proposed.items() if run not in ids})
        self._known |= ids  # at its end, as the ones last used
        trim(self._known, REMEMBERED)
        as_told = ids == proposed and len(ids) == len(rows)  # mostly all of them are new
        return rows if as_told else settled(rows, ids)

    def forget(self) -> None:
        """Remember nothing: after a rollback ids may not have been stored."""
        self._known.clear()


def sweep(connection: sa.Connection, after: bytes, count: int, until: int) -> bytes | None:
    """Of the next `count` rows remove those whose run ended and changed last `until` then (s); where to go on."""
    beyond = sa.select(open_run.c.key).where(open_run.c.key > after).order_by(open_run.c.key)
    last: bytes | None = connection.execute(beyond.offset(count - 1).limit(1)).scalar()
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    connection.exec_driver_sql(
        f"DELETE FROM open_run WHERE key > {mark}{f' AND key <= {mark}' if last else ''} AND NOT EXISTS (SELECT 1"
        f" FROM run WHERE run.id = open_run.id AND (rank <= {RANK['unknown']} OR changed > {until}))",
        (after, last) if last else (after,),
    )
    return last and bytes(last)


def _chosen(connection: sa.Connection, proposed: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The ids of these runs: what was proposed for those that are new, and mostly all are."""
    ids = dict(proposed)
    for some in slices(sorted(proposed.items())):  # in order: replicas never lock crosswise
        marks = ", ".join(["(?, ?)" if connection.dialect.name == "sqlite" else "(%s, %s)"] * len(some))
        new = connection.exec_driver_sql(
            f"INSERT INTO open_run (key, id) VALUES {marks} ON CONFLICT (key) DO NOTHING",
            tuple(map(bytearray, chain.from_iterable(some))),
        )
        if new.rowcount < len(some):
            ids |= _stored(connection, [run for run, _ in some])
    return ids


def _stored(connection: sa.Connection, runs: list[bytes]) -> dict[bytes, bytes]:
    query = sa.select(open_run.c.key, open_run.c.id)
    return {
        bytes(run): bytes(id_)
        for some in slices(runs)
        for run, id_ in connection.execute(query.where(open_run.c.key.in_(some)))
    }
