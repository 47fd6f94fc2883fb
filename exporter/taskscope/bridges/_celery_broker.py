"""The broker as it is reached from outside: connections that give up in time, and the events that come over them."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from kombu import Connection, Exchange, Queue
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskscope.bridges._celery_events import CeleryEvent, Decoder
from taskscope.bridges._celery_replies import Replies
from taskscope.errors import BadArgument
from taskscope.values import masked

_PATIENCE = 5.0  # seconds that the broker has for an answer
_PING = 2.0  # seconds between signs of life where nothing else comes
_UNANSWERED = 5  # of our questions for one, after which the connection is given up
_BEAT = 10  # seconds: AMQP's heartbeat; the broker sends it twice in that time
_MOST = 20_000  # events taken in at once
_AT_ONCE = 2**18  # bytes of them: other threads go on between two reads
_UNREAD = 200_000  # messages that a broker may keep for us, where it can be told so; it drops the oldest
_OLD = 60.0  # seconds after which it may drop them, too


class Source(Protocol):
    """Where events come from."""

    @property
    def pulse(self) -> int:
        """Rises whenever anything came from the broker, its own heartbeat too."""

    def receive(self, wait: float) -> list[CeleryEvent]:
        """The events of the next `wait` seconds. Raises what the broker's library raises."""


@contextmanager
def connected(url: str, options: Mapping[str, Any]) -> Iterator[Connection]:
    """A connection that stands; closed in the end. Raises what the broker's library raises."""
    redis = {"socket_timeout": _PATIENCE, "socket_connect_timeout": _PATIENCE}
    amqp = {"read_timeout": _PATIENCE, "write_timeout": _PATIENCE}
    bounds = amqp if speaks_amqp(url) else redis
    heartbeat = _BEAT if speaks_amqp(url) else 0
    connection = Connection(
        url, connect_timeout=_PATIENCE, heartbeat=heartbeat, transport_options={**bounds, **options}
    )
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
        yield connection
    finally:
        connection.release()


def check(url: str, scheduler: str) -> None:
    """Can this be a broker's URL? There may be several, between semicolons. Raises `BadArgument`."""
    for one in url.split(";"):
        parts, key = urlsplit(one), f"schedulers.{scheduler}.target={masked(one)!r}"
        try:
            parts.port  # noqa: B018 - asking is what raises
        except ValueError:
            raise BadArgument(f"{key} has a port that is none; give a number up to 65535") from None
        path = unquote(parts.path.removeprefix("/"))
        if parts.scheme in ("redis", "rediss") and path and not path.isdecimal():
            raise BadArgument(f"{key} must end in the number of a database, such as `/0`, not in {path!r}")


def speaks_amqp(url: str) -> bool:
    """Is it RabbitMQ, not Redis?"""
    return url.partition("://")[0] in ("amqp", "amqps", "pyamqp")


def plain_redis(channel: Any) -> Any:
    """The Redis below a channel of kombu, without kombu's prefix before keys, and without silent reconnecting."""
    client = Redis(connection_pool=channel.client.connection_pool)
    client.set_retry(Retry(NoBackoff(), 0))
    return client


def listening(connection: Connection, exchange: str, decoder: Decoder) -> Source:
    """The events from now on."""
    amqp = connection.transport.driver_type == "amqp"
    return AmqpSource(connection, exchange, decoder) if amqp else RedisSource(connection, exchange, decoder)


class RedisSource:
    """Events over PUB/SUB: nothing is kept in Redis, neither for us nor of us."""

    def __init__(self, connection: Connection, exchange: str, decoder: Decoder) -> None:
        channel = connection.channel()
        topic = f"{channel.global_keyprefix}{channel.keyprefix_fanout}{exchange}"
        self._decode = decoder.enveloped
        self._pubsub = plain_redis(channel).pubsub()
        if channel.fanout_patterns:
            self._pubsub.psubscribe(f"{topic}/*")
        else:
            self._pubsub.subscribe(topic)
        self._socket, self._replies = self._pubsub.connection._sock, Replies()
        self._pulse = 0
        self._pinged, self._unanswered = time.monotonic(), 0

    @property
    def pulse(self) -> int:
        """Messages, and answers to our questions for a sign of life."""
        return self._pulse

    def receive(self, wait: float) -> list[CeleryEvent]:
        """Also asks for a sign of life now and then: a connection that broke silently would be quiet for ever."""
        events: list[CeleryEvent] = []
        deadline, before = time.monotonic() + wait, self._pulse
        while (left := deadline - time.monotonic()) > 0 and len(events) < _MOST:
            for reply in self._read(left):
                self._pulse += 1
                if reply[:1] in ([b"pmessage"], [b"message"]):
                    events += self._decode(reply[-1])
        if self._pulse != before:
            self._unanswered = 0
        self._ping()
        return events

    def _read(self, wait: float) -> list[Any]:
        self._socket.settimeout(wait)
        try:
            came = self._socket.recv(_AT_ONCE)
        except TimeoutError:
            return []
        finally:
            self._socket.settimeout(_PATIENCE)
        if not came:
            raise ConnectionError("Redis closed the connection")
        return self._replies.feed(came)

    def _ping(self) -> None:
        if (now := time.monotonic()) - self._pinged > _PING:
            if self._unanswered == _UNANSWERED:
                raise TimeoutError("Redis does not answer")
            self._pinged, self._unanswered = now, self._unanswered + 1
            self._pubsub.ping()


class AmqpSource:
    """Events over a queue that is ours alone, bounded, and gone with the connection."""

    def __init__(self, connection: Connection, exchange: str, decoder: Decoder) -> None:
        self._connection, self._decode = connection, decoder.bare
        self._events: list[CeleryEvent] = []
        channel = connection.channel()
        channel.auto_decode = False
        queue = Queue(
            f"{exchange}.taskscope.{uuid4()}",
            Exchange(exchange, type="topic"),
            routing_key="#",
            durable=False,
            exclusive=True,
            auto_delete=True,
            message_ttl=_OLD,
            max_length=_UNREAD,
        )(channel)
        queue.declare()
        channel.basic_consume(queue.name, no_ack=True, callback=self._take)
        self._beat_at = time.monotonic()

    @property
    def pulse(self) -> int:
        """What has come over the wire, heartbeats too."""
        return int(self._connection.connection.bytes_recv)

    def receive(self, wait: float) -> list[CeleryEvent]:
        """Also keeps up AMQP's heartbeat."""
        deadline = time.monotonic() + wait
        while (left := deadline - time.monotonic()) > 0 and len(self._events) < _MOST:
            try:
                self._connection.drain_events(timeout=left)
            except TimeoutError:
                break
        if (now := time.monotonic()) - self._beat_at > 1.0:
            self._beat_at = now
            self._connection.heartbeat_check()
        events, self._events = self._events, []
        return events

    def _take(self, message: Any) -> None:
        self._events += self._decode(message.body, message.properties.get("content_type", ""))
