"""What a history asks for beside being written: upkeep, a census of errors, inspections.

All of it needs a database library, which `history=None` does without: it is imported where there is a history.
"""

from typing import TYPE_CHECKING, cast

from taskscope.live import Live
from taskscope.pipeline import Pipeline
from taskscope.settings import Settings
from taskscope.sinks.history import MemoryStore, queries_for
from taskscope.sinks.history.store import Store
from taskscope.sinks.metrics import Metrics

if TYPE_CHECKING:
    from taskscope.census import Census
    from taskscope.inspection.rounds import Rounds
    from taskscope.sinks.history.sql import SqlStore
    from taskscope.upkeep import Upkeep


def upkeep_of(store: Store, metrics: Metrics) -> "list[Upkeep | Census]":
    """What keeps the store within its bounds, and counts what is in it: nothing where it is memory."""
    if isinstance(store, MemoryStore):
        return []
    from taskscope.census import Census
    from taskscope.upkeep import Upkeep

    kept = cast("SqlStore", store)
    return [Upkeep(kept, metrics), Census(kept, metrics)]


def rounds_of(
    settings: Settings, store: Store, pipeline: Pipeline, metrics: Metrics, live: Live
) -> "Rounds | None":
    """What inspects the history: nothing where there is none, or nothing to look for."""
    queries = queries_for(settings) if settings.inspections else None  # the API's own stay free
    if queries is None:
        return None
    from taskscope.inspection.rounds import rounds

    kept = cast("SqlStore", store)
    return rounds(
        settings,
        queries,
        kept,
        pipeline.do,
        metrics,
        lambda: pipeline.opened and pipeline.failure is None,
        live,
    )
