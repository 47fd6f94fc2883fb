"""Packed values that are added to: loaded when first needed, the ones last used remembered."""

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain, islice
from typing import Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa

from taskscope.sinks.history.merge import slices

V = TypeVar("V")
Key = tuple[int, ...]

_CHUNK = 250


class Ledger(Generic[V]):
    """A table whose last column holds packed values and whose other columns are the key."""

    def __init__(self, table: sa.Table, decode: Callable[[bytes], V], remembered: int) -> None:
        *self._keys, self._value = table.c
        self._table = table
        self._decode = decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._remembered = remembered
        self._known: dict[Key, V] = {}

    def get(self, connection: sa.Connection, keys: Collection[Key]) -> dict[Key, V]:
        """The values of those keys which have one."""
        missing = [key for key in keys if key not in self._known]
        for start in range(0, len(missing), _CHUNK):
            for found in self._read(connection, missing[start : start + _CHUNK]):
                self._known[tuple(found[:-1])] = self._decode(found[-1])
        return {key: self._known[key] for key in keys if key in self._known}

    def put(self, connection: sa.Connection, values: Mapping[Key, V]) -> None:
        """Store these values and remember them; what was not used for longest is forgotten."""
        if not values:
            return
        in_order = sorted(values)
        for some in slices([(*key, self._encode(values[key])) for key in in_order]):
            upsert = self._upsert(connection.dialect.name, len(some))
            connection.exec_driver_sql(upsert, tuple(chain.from_iterable(some)))
        for key in in_order:
            self._known.pop(key, None)
            self._known[key] = values[key]
        trim(self._known, self._remembered)

    def forget(self) -> None:
        """Remember nothing."""
        self._known.clear()

    def _read(self, connection: sa.Connection, keys: list[Key]) -> Iterable[sa.Row[Any]]:
        """A join, because SQLite looks a list of tuples up by reading the whole table."""
        names = ", ".join(column.name for column in self._keys)
        marks = ", ".join(["?" if connection.dialect.name == "sqlite" else "%s"] * len(self._keys))
        wanted = f"WITH wanted ({names}) AS (VALUES {', '.join([f'({marks})'] * len(keys))})"
        query = (
            f"{wanted} SELECT {names}, {self._value.name} FROM wanted JOIN {self._table.name} USING ({names})"
        )
        return connection.exec_driver_sql(query, tuple(chain.from_iterable(keys)))

    def _upsert(self, dialect: str, rows: int) -> str:
        keys, value = [column.name for column in self._keys], self._value.name
        marks = ", ".join(["?" if dialect == "sqlite" else "%s"] * (len(keys) + 1))
        return (
            f"INSERT INTO {self._table.name} ({', '.join(keys)}, {value}) VALUES {', '.join([f'({marks})'] * rows)}"
            f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {value} = excluded.{value}"
        )


def trim(known: dict[Any, Any], most: int) -> None:
    """Forget the first ones, so that `most` are left. In one go: each look passes by all that were removed before."""
    for key in list(islice(known, max(0, len(known) - most))):
        del known[key]
