"""Watches RQ: from outside by what it keeps in Redis, or inside a worker by its own methods.

`rq worker --worker-class taskscope.bridges.rq.WatchedWorker` is a worker that is watched from inside; there are
`WatchedSimpleWorker` and `WatchedSpawnWorker`, too, and `Watched` for a worker class of your own.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct

from taskscope.contracts import Bridge, Emit
from taskscope.events import Reading
from taskscope.settings import Seconds

_WORKERS = ("Watched", "WatchedSimpleWorker", "WatchedSpawnWorker", "WatchedWorker")


class RQOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be said of an RQ that is watched from outside."""

    queues: Annotated[tuple[str, ...], Meta(description="Watch these queues alone; none: all.")] = ()
    prefix: Annotated[
        str, Meta(min_length=1, description="What RQ's keys begin with: its `RQ_KEY_PREFIX`.")
    ] = "rq"
    catch_up: Annotated[
        Seconds,
        Meta(
            description="Runs that ended so long ago while nobody watched are told, if RQ kept them; keep it "
            "below `retention.max_age`."
        ),
    ] = 86_400.0
    descriptions: Annotated[
        bool, Meta(description="Name jobs that have a description of their own by it, else by their queue.")
    ] = False


class Way(Protocol):
    """One of the two ways of watching; made anew whenever watching begins."""

    def poll(self) -> Iterable[Reading]:
        """What is true right now."""

    def detach(self) -> None:
        """Stop watching."""

    def abandon(self) -> bool:
        """In a forked child: let go, unless it is a child that the worker made for a job. Was it let go?"""


class RQBridge(Bridge):
    """Given the URL of a Redis or a queue, it looks from outside; given a worker, from inside."""

    system = "rq"
    targets = ("rq.worker.base.BaseWorker", "rq.queue.Queue")
    schemes = ("redis", "rediss", "unix")
    Options = RQOptions
    options: RQOptions

    def __init__(self, target: Any, name: str) -> None:
        self.target, self.name = target, name
        self.options = RQOptions()
        self._way: Way | None = None

    def attach(self, emit: Emit) -> None:
        """Begin to watch. Raises `BadArgument` if the worker is being watched already."""
        if hasattr(self.target, "execute_job"):
            from taskscope.bridges._rq_inside import Inside

            self._way = Inside(self, emit)
        else:
            from taskscope.bridges._rq_outside import Outside

            self._way = Outside(self, emit)

    def poll(self) -> Iterable[Reading]:
        """What is true right now; from outside it also tells what happened since the last time."""
        return self._way.poll() if self._way is not None else ()

    def detach(self) -> None:
        """Take the hooks out, hang up."""
        way, self._way = self._way, None
        if way is not None:
            way.detach()

    def abandon(self) -> None:
        """In a forked child: let go; in one that executes a job only of what is the parent's."""
        self.on_change = None
        if self._way is not None and self._way.abandon():
            self._way = None


def __getattr__(name: str) -> Any:
    if name in _WORKERS:  # they import RQ
        from taskscope.bridges import _rq_worker

        return getattr(_rq_worker, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
