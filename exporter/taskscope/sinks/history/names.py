"""Texts that repeat, stored once: what `job` and `name` hold, and the part of it that is remembered here."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Generic, TypeVar

import sqlalchemy as sa

from taskscope.events import JobKey
from taskscope.sinks.history.schema import clean, digest, job, name

K = TypeVar("K", bound=str | JobKey)

REMEMBERED = 10_000
"""Texts that are kept in memory, of each table; beyond that it starts anew."""
_CHUNK = 500


class Interned(Generic[K]):
    """Keys and their ids. Ask `learn` or `recall` first, then `ids` and `keys` know; `blank` is 0."""

    ids: dict[K, int]
    keys: dict[int, K]

    def __init__(
        self,
        table: sa.Table,
        texts: Callable[[K], tuple[str, ...]],
        key: Callable[[Sequence[str]], K],
        blank: K | None = None,
    ) -> None:
        self._table = table
        self._blank = blank
        self.forgotten = 0
        """How often: what is remembered is all that was used since."""
        self.forget()
        self._columns = [column for column in table.c if column.name not in ("id", "digest")]
        self._texts = texts
        self._key = key

    def learn(self, connection: sa.Connection, keys: Collection[K]) -> None:
        """Know the ids of all these keys; new ones are stored."""
        missing = [key for key in keys if key not in self.ids]
        if len(self.ids) + len(missing) > REMEMBERED:
            self.forget()
            missing = list(keys)
        for start in range(0, len(missing), _CHUNK):
            self._learn(connection, missing[start : start + _CHUNK])

    def recall(self, connection: sa.Connection, ids: Collection[int]) -> None:
        """Know the keys of all these ids."""
        missing = [number for number in ids if number not in self.keys]
        if len(self.keys) + len(missing) > REMEMBERED:
            self.forget()
            missing = list(ids)
        for start in range(0, len(missing), _CHUNK):
            chosen = self._table.c.id.in_(missing[start : start + _CHUNK])
            for number, *texts in connection.execute(
                sa.select(self._table.c.id, *self._columns).where(chosen)
            ):
                self.keys[number] = self._key(texts)

    def forget(self) -> None:
        """Remember nothing: after a rollback ids may mean something else."""
        self.forgotten += 1
        self.ids = {} if self._blank is None else {self._blank: 0}
        self.keys = {number: key for key, number in self.ids.items()}

    def _learn(self, connection: sa.Connection, keys: list[K]) -> None:
        digests = {key: digest(*map(clean, self._texts(key))) for key in keys}
        found = self._find(connection, digests.values())
        new = {digests[key]: key for key in keys if digests[key] not in found}
        if new:
            self._store(connection, new)
            found |= self._find(connection, new)
        for key in keys:
            number = self.ids[key] = found[digests[key]]
            self.keys[number] = key

    def _find(self, connection: sa.Connection, digests: Iterable[bytes]) -> dict[bytes, int]:
        query = sa.select(self._table.c.digest, self._table.c.id).where(
            self._table.c.digest.in_(set(digests))
        )
        return {bytes(found): number for found, number in connection.execute(query)}

    def _store(self, connection: sa.Connection, new: dict[bytes, K]) -> None:
        columns = [column.name for column in self._columns]
        mark = "?" if connection.dialect.name == "sqlite" else "%s"
        statement = (
            f"INSERT INTO {self._table.name} (digest, {', '.join(columns)})"
            f" VALUES ({', '.join([mark] * (len(columns) + 1))}) ON CONFLICT (digest) DO NOTHING"
        )
        in_order = sorted(
            new.items()
        )  # replicas that store the same names then wait for, not lock out, each other
        connection.exec_driver_sql(
            statement, [(found, *map(clean, self._texts(key))) for found, key in in_order]
        )


def jobs() -> Interned[JobKey]:
    """What `job` holds."""
    return Interned(job, lambda key: key, lambda texts: (texts[0], texts[1]))


def names() -> Interned[str]:
    """What `name` holds."""
    return Interned(name, lambda key: (key,), lambda texts: texts[0], blank="")
