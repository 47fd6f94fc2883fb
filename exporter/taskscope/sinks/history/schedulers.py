"""What schedulers belong to, as each said last: also of those that are gone."""

from collections.abc import Mapping

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from taskscope.sinks.history.findings import upsert
from taskscope.sinks.history.schema import clean, scheduler

_decode = msgspec.json.Decoder(dict[str, str]).decode


def keep(connection: Connection, labels: Mapping[str, Mapping[str, str]]) -> None:
    """Keep the labels of these schedulers as they are now."""
    told = {clean(name): clean(msgspec.json.encode(of).decode()) for name, of in sorted(labels.items())}
    upsert(connection, scheduler, [{"name": name, "labels": of} for name, of in told.items()])


def labels(connection: Connection) -> dict[str, dict[str, str]]:
    """Those of all schedulers."""
    return {name: _decode(of) for name, of in connection.execute(sa.select(scheduler))}
