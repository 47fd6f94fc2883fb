"""What waits in the queues, read from the broker without changing anything there."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from amqp.exceptions import ChannelError
from kombu import Connection

from taskscope.bridges._celery_broker import plain_redis
from taskscope.bridges._celery_mapping import ENQUEUED, number, seconds

_BINDINGS = "_kombu.binding."
_SCANS = 10  # steps through Redis' keys for one reading, of 1 000 keys each
_UNACKED = 2_000  # messages taken and not acknowledged that are looked at; of more only the number is known


class Waiting(msgspec.Struct, frozen=True):
    """What a broker says of a queue; None where it cannot."""

    ready: int
    in_flight: int | None = None
    scheduled: int | None = None
    oldest: float | None = None
    consumers: int | None = None


class _Message(msgspec.Struct):
    headers: dict[str, Any] = {}


class RedisQueues:
    """Queues on Redis: a list for each priority, one hash of messages that workers have taken, sets of bindings."""

    def __init__(self, connection: Connection) -> None:
        self._channel = connection.channel()
        self._client = plain_redis(self._channel)
        self._cursor = 0
        self._bindings: dict[tuple[str, str], str] = {}
        """The queue of each exchange and routing key."""

    def learn(self, ignored: str) -> set[str]:
        """The queues that exchanges are bound to, but for those of events (`ignored`) and of commands.

        Steps through the keys, a little further with each call.
        """
        found = set()
        for _ in range(_SCANS):
            self._cursor, keys = self._client.scan(self._cursor, match=f"{self._key(_BINDINGS)}*", count=1000)
            found |= set(keys)
            if not self._cursor:
                break
        return {queue for key in found for queue in self._bound(key.decode(), ignored)}

    def read(
        self, names: Iterable[str], sent_at: Callable[[str], float | None], now: float
    ) -> dict[str, Waiting]:
        """All of these queues; `sent_at` says when a task was sent, if that is known."""
        names, steps = list(names), self._channel.priority_steps
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                for step in steps:
                    pipe.llen(self._list(name, step))
                    pipe.lindex(self._list(name, step), -1)
            answers = iter(pipe.execute())
        taken, later = self._unacked(now, names)
        found = {}
        for name in names:
            lengths, ends = zip(*((next(answers), next(answers)) for _ in steps), strict=True)
            oldest = [at for end in ends if end and (at := _enqueued(end, sent_at))]
            found[name] = Waiting(
                ready=sum(lengths),
                in_flight=None if taken is None else taken[name],
                scheduled=None if later is None else later[name],
                oldest=min(oldest, default=None),
            )
        return found

    def _unacked(self, now: float, names: list[str]) -> tuple[Counter[str], Counter[str]] | tuple[None, None]:
        """Messages that workers hold, by queue: those whose time has come, and those that wait for their ETA."""
        key = self._key(self._channel.unacked_key)
        if self._client.hlen(key) > _UNACKED:
            return None, None
        taken: Counter[str] = Counter(dict.fromkeys(names, 0))
        later: Counter[str] = Counter(dict.fromkeys(names, 0))
        for _, value in self._client.hscan_iter(key, count=500):
            try:
                message, exchange, routing_key = _unacked(value)
            except msgspec.MsgspecError:
                continue
            queue = self._bindings.get((exchange, routing_key), routing_key)
            (later if (seconds(message.headers.get("eta")) or 0) > now else taken)[queue] += 1
        return taken, later

    def _bound(self, key: str, ignored: str) -> Iterable[str]:
        exchange = key.removeprefix(self._key(_BINDINGS))
        if exchange == ignored or exchange.endswith(".pidbox"):
            return
        for member in self._client.smembers(key):
            binding, _, queue = member.decode("utf-8", "replace").rpartition(self._channel.sep)
            if queue:  # between the two stands a pattern, which a direct exchange has none of
                self._bindings[exchange, binding.partition(self._channel.sep)[0]] = queue
                yield queue

    def _list(self, queue: str, step: int) -> str:
        return self._key(f"{queue}{self._channel.sep}{step}" if step else queue)

    def _key(self, name: str) -> str:
        return f"{self._channel.global_keyprefix}{name}"


class AmqpQueues:
    """Queues on RabbitMQ, which tells of them where they are declared passively."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._channel = connection.channel()

    def learn(self, ignored: str) -> set[str]:
        """None: AMQP lists no queues."""
        return set()

    def read(
        self, names: Iterable[str], sent_at: Callable[[str], float | None], now: float
    ) -> dict[str, Waiting]:
        """Those of these queues that are there."""
        found = {}
        for name in names:
            try:
                _, ready, consumers = self._channel.queue_declare(queue=name, passive=True)
            except ChannelError:  # it is not there, or somebody's own; RabbitMQ closes the channel over that
                self._channel = self._connection.channel()
            else:
                found[name] = Waiting(ready=ready, consumers=consumers)
        return found


def _enqueued(message: bytes, sent_at: Callable[[str], float | None]) -> float | None:
    """When a message was sent: as it says itself where taskscope stamps what is published, else as an event said."""
    try:
        headers = _message(message).headers
    except msgspec.MsgspecError:
        return None
    return number(headers.get(ENQUEUED)) or sent_at(str(headers.get("id")))


_message = msgspec.json.Decoder(_Message).decode
_unacked = msgspec.json.Decoder(tuple[_Message, str, str]).decode
