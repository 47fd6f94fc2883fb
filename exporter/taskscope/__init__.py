"""taskscope: metrics, history and API for everything that runs jobs."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers take it; `taskscope exec` must not wait for `typing`
if TYPE_CHECKING:
    from typing import Any

    from taskscope.backfill import on_backfill
    from taskscope.contracts import Bridge, Sink
    from taskscope.errors import BadArgument, TaskscopeError, Unavailable
    from taskscope.exporter import Exporter, watch
    from taskscope.run import Run, RunFilter, capture_exception, current_run, describe_run
    from taskscope.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "BadArgument",
    "Bridge",
    "Exporter",
    "Run",
    "RunFilter",
    "Settings",
    "Sink",
    "TaskscopeError",
    "Unavailable",
    "capture_exception",
    "current_run",
    "describe_run",
    "on_backfill",
    "watch",
]

_HOME = {
    "backfill": ("on_backfill",),
    "contracts": ("Bridge", "Sink"),
    "errors": ("BadArgument", "TaskscopeError", "Unavailable"),
    "exporter": ("Exporter", "watch"),
    "run": ("Run", "RunFilter", "capture_exception", "current_run", "describe_run"),
    "settings": ("Settings",),
}


def __getattr__(name: str) -> Any:
    # Names are imported when they are asked for: the children of a process pool import this package with every
    # spawn, and must not wait for a database library and an HTTP server.
    from importlib import import_module

    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"taskscope.{module}"), name)
    raise AttributeError(f"module 'taskscope' has no attribute {name!r}")
