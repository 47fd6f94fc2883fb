"""Packed values that are added to: loaded when first needed, the ones last used remembered."""

from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

import msgspec
import sqlalchemy as sa

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
            chosen = sa.tuple_(*self._keys).in_(missing[start : start + _CHUNK])
            for *key, packed in connection.execute(sa.select(*self._keys, self._value).where(chosen)):
                self._known[tuple(key)] = self._decode(packed)
        return {key: self._known[key] for key in keys if key in self._known}

    def put(self, connection: sa.Connection, values: Mapping[Key, V]) -> None:
        """Store these values and remember them; what was not used for longest is forgotten."""
        if not values:
            return
        in_order = sorted(values)
        connection.exec_driver_sql(
            self._upsert(connection.dialect.name), [(*key, self._encode(values[key])) for key in in_order]
        )
        for key in in_order:
            self._known.pop(key, None)
            self._known[key] = values[key]
        while len(self._known) > self._remembered:
            del self._known[next(iter(self._known))]

    def forget(self) -> None:
        """Remember nothing."""
        self._known.clear()

    def _upsert(self, dialect: str) -> str:
        keys, value = [column.name for column in self._keys], self._value.name
        marks = ", ".join(["?" if dialect == "sqlite" else "%s"] * (len(keys) + 1))
        return (
            f"INSERT INTO {self._table.name} ({', '.join(keys)}, {value}) VALUES ({marks})"
            f" ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {value} = excluded.{value}"
        )
