"""The memory of every run: merged exactly, kept durably, queried quickly."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from taskscope.settings import Settings
from taskscope.sinks.history.memory import MemoryStore
from taskscope.sinks.history.owner import default_path
from taskscope.sinks.history.store import Store

if TYPE_CHECKING:
    from taskscope.sinks.history.queries import Queries

__all__ = ["MemoryStore", "Store", "queries_for", "store_for", "url_for"]


def store_for(settings: Settings) -> Store:
    """The store that the settings ask for, not opened yet. Raises `BadArgument`."""
    url = url_for(settings)
    if url is None:
        return MemoryStore(settings)
    from taskscope.sinks.history.sql import SqlStore  # a database library, which `history=None` does without

    return SqlStore(url, settings)


def queries_for(settings: Settings) -> "Queries | None":
    """The read side of that store; None with `history=None`. Raises `BadArgument`."""
    url = url_for(settings)
    if url is None:
        return None
    from taskscope.sinks.history.queries import Queries

    return Queries(url, settings)


def url_for(settings: Settings) -> str | None:
    """The history's URL with `auto` made a file of the service; None for none."""
    if settings.history == "auto":
        service = settings.service or Path(sys.argv[0] if sys.argv else "").stem
        return f"sqlite:///{default_path(service)}"
    return settings.history
