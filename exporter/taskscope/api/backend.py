"""What the API needs of the rest of taskscope; `exporter.py` puts it together."""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

import msgspec

from taskscope.events import Sendable
from taskscope.health import Health
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.history.records import AlertFilter, AlertPage
from taskscope.sinks.history.store import Store

if TYPE_CHECKING:  # its import costs a database library, which `history=None` does without
    from taskscope.sinks.history.queries import Queries

T = TypeVar("T")


class Component(msgspec.Struct, frozen=True, kw_only=True):
    """A part of taskscope and whether it does its work."""

    name: str
    kind: Literal["bridge", "pipeline", "store"]
    ready: bool
    at: float | None = None
    """When it last showed a sign of life, in seconds since the epoch."""
    message: str = ""
    """One sentence where it is not ready; it is shown to anybody."""


class Rendered(Protocol):
    """A page of metrics, ready to be sent."""

    @property
    def content_type(self) -> str:
        """The value of Content-Type."""

    @property
    def encoding(self) -> str:
        """The value of Content-Encoding; empty for none."""

    @property
    def blocks(self) -> list[bytes]:
        """The body in pieces."""


class Page(Protocol):
    """Renders metrics from memory."""

    def add(self, name: str, amount: float, *labels: str) -> None:
        """Add to a metric about taskscope itself."""

    def render(self, accept: str = "", names: Collection[str] = (), compress: bool = False) -> Rendered:
        """The page in the best format of `accept`, of these sample names only if there are any."""


class AlertReader(Protocol):
    """Where alerts are read."""

    def alerts(
        self, filter: AlertFilter, *, limit: int, offset: int = 0, after: bytes | None = None
    ) -> AlertPage:
        """One page, newest first; from any thread. May block."""


class Do(Protocol):
    """How something is written: `Pipeline.do`."""

    def __call__(self, work: Callable[[], T], /) -> Future[T]:
        """Done, and durable, once the future is; fails with `Unavailable` where the store is away."""


class Writer(msgspec.Struct, frozen=True):
    """Takes what is sent."""

    store: Store
    do: Do
    """`store` is only used by what this does."""
    deliver: Callable[[Sequence[Sendable]], Future[dict[int, str]]]
    """Carries events: `Pipeline.deliver`."""
    refuse: Callable[[str], None]
    """Counts an event that was refused before it could be delivered: `Pipeline.refuse`."""


class Backend(msgspec.Struct, kw_only=True):
    """Everything an endpoint may use. Endpoints change nothing of it."""

    settings: Settings
    """In force now: others may take their place while it serves."""
    live: Live
    health: Health
    metrics: Page
    queries: "Queries | None"
    """The history's read side; None with `history=None`."""
    ready: Callable[[], Sequence[Component]]
    """The parts and their state; called on the server's thread, so it must not block."""
    refresh: Callable[[], None]
    """Bring the metrics up to what is true now; called before each scrape, without waiting for the store."""
    alerts: AlertReader | None = None
    """Where alerts are read; None for the history."""
    writer: Writer | None = None
    """None for a server that only reads."""
    clock: Callable[[], float] = time.time
