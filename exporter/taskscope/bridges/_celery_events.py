"""Celery's events as they come from the broker: decoded to structs, one bad event hurting only itself."""

import msgspec

JSON = "application/json"


class CeleryEvent(msgspec.Struct, gc=False):
    """An event about a task, or of a worker about itself; which fields it has depends on its `type`."""

    type: str
    timestamp: float
    hostname: str = ""
    uuid: str = ""
    name: str | None = None
    retries: int | None = None
    queue: str | None = None
    routing_key: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    eta: str | None = None
    expires: str | None = None
    runtime: float | None = None
    exception: str | None = None
    traceback: str | None = None
    expired: bool | None = None
    requeue: bool | None = None
    active: int | None = None
    processed: int | None = None
    pid: int | None = None


class _Properties(msgspec.Struct, frozen=True):
    body_encoding: str = ""


class _Head(msgspec.Struct, frozen=True):
    """What tells how the body of a message is written in kombu's envelope, for a broker that knows only bytes."""

    properties: _Properties = _Properties()


class _Plain(msgspec.Struct, rename={"content_type": "content-type"}):
    """An envelope, with the body as it is."""

    body: str
    content_type: str = ""


class _Packed(msgspec.Struct, rename={"content_type": "content-type"}):
    """An envelope, with the body in base64, as kombu mostly sends it; msgspec unpacks it."""

    body: bytes
    content_type: str = ""


class Decoder:
    """Makes events of messages, and counts what it cannot: nothing but JSON is ever looked into."""

    def __init__(self) -> None:
        self.foreign = 0
        """Messages that were not JSON (pickle, YAML …)."""
        self.broken = 0
        """Messages and events that were no Celery events."""

    def enveloped(self, message: bytes) -> list[CeleryEvent]:
        """The events of a message in kombu's envelope, as Redis carries it."""
        try:
            if _head(message).properties.body_encoding == "base64":
                packed = _packed(message)
                return self.bare(packed.body, packed.content_type)
            plain = _plain(message)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.broken += 1
            return []
        return self.bare(plain.body.encode(), plain.content_type)

    def bare(self, body: bytes, content_type: str) -> list[CeleryEvent]:
        """The events of a message's body, as AMQP carries it: one, or a list."""
        if content_type != JSON:
            self.foreign += 1
            return []
        try:
            return _events(body) if body[:1] == b"[" else [_event(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return self._one_by_one(body)

    def _one_by_one(self, body: bytes) -> list[CeleryEvent]:
        """Those of a list that are events."""
        good = []
        for raw in self._parts(body):
            try:
                good.append(_event(raw))
            except (msgspec.MsgspecError, UnicodeDecodeError):
                self.broken += 1
        return good

    def _parts(self, body: bytes) -> list[msgspec.Raw]:
        try:
            return _raw(body)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self.broken += 1
            return []


_head = msgspec.json.Decoder(_Head).decode
_plain = msgspec.json.Decoder(_Plain).decode
_packed = msgspec.json.Decoder(_Packed).decode
_event = msgspec.json.Decoder(CeleryEvent).decode
_events = msgspec.json.Decoder(list[CeleryEvent]).decode
_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
