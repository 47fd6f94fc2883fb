"""Celery's events as they come from the broker: decoded to structs, one bad event hurting only itself."""

from base64 import b64decode

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


class _Envelope(msgspec.Struct, rename={"content_type": "content-type"}):
    """What kombu makes of a message where the broker knows only bytes."""

    body: str
    content_type: str = ""
    properties: _Properties = _Properties()


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
            envelope = _envelope(message)
            body = envelope.body
            if envelope.properties.body_encoding == "base64":
                return self.bare(b64decode(body), envelope.content_type)
        except (msgspec.MsgspecError, ValueError):
            self.broken += 1
            return []
        return self.bare(body.encode(), envelope.content_type)

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


_envelope = msgspec.json.Decoder(_Envelope).decode
_event = msgspec.json.Decoder(CeleryEvent).decode
_events = msgspec.json.Decoder(list[CeleryEvent]).decode
_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
