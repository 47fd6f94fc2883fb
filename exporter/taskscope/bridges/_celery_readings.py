"""What is true right now of a Celery that is watched from outside: its queues, and what its workers answer."""

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from kombu import Connection, Producer
from kombu.pidbox import Mailbox

from taskscope.bridges._celery_broker import connected, speaks_amqp
from taskscope.bridges._celery_queues import AmqpQueues, RedisQueues, Waiting
from taskscope.bridges._celery_state import Request, State
from taskscope.events import QueueState, Reading

if TYPE_CHECKING:
    from taskscope.bridges.celery import CeleryOptions

Answer = TypeVar("Answer")

_QUEUES = 1_000  # queues that are read at most
_MEMORY = 3_600.0  # seconds after which an empty queue of which nothing is heard any more is read no longer
_DOUBTED = 1_000  # runs that are asked about at once


class _Pool(msgspec.Struct, rename={"slots": "max-concurrency"}):
    slots: int | None = None


class _Stats(msgspec.Struct):
    pool: _Pool = msgspec.field(default_factory=_Pool)


class _Queue(msgspec.Struct):
    name: str


class Readings:
    """Asks, over a connection of its own that is made when it is needed. Used by one thread."""

    def __init__(self, url: str, name: str, options: "CeleryOptions", state: State) -> None:
        self._url, self._name, self._options, self._state = url, name, options, state
        self._open = ExitStack()
        self._queues: RedisQueues | AmqpQueues | None = None
        self._workers: Questions | None = None
        self._known: dict[str, float] = {}
        """Queues, and when they were last heard of."""
        self._asked_at = 0.0

    def take(self) -> Iterator[Reading]:
        """All of them. Raises what the broker's library raises; then the connection is a new one the next time."""
        try:
            queues, questions = self._connection()
            if len(self._state.workers):
                self._ask(questions)
            yield from self._read(queues)
        except Exception:
            self.close()
            raise
        yield from self._state.readings(time.time())

    def close(self) -> None:
        """Let go of the connection."""
        self._queues = self._workers = None
        self._open.close()

    def _connection(self) -> "tuple[RedisQueues | AmqpQueues, Questions]":
        if self._queues is None or self._workers is None:
            connection = self._open.enter_context(connected(self._url, self._options.transport_options))
            self._workers = Questions(connection, self._options)
            self._queues = AmqpQueues(connection) if speaks_amqp(self._url) else RedisQueues(connection)
        return self._queues, self._workers

    def _ask(self, questions: "Questions") -> None:
        """What heartbeats do not tell; new workers are asked at once."""
        arrived = self._state.arrived()
        if arrived and self._options.enable_events:
            questions.ask_these("enable_events", arrived)
        if not self._options.inspect:
            return
        if arrived or time.monotonic() - self._asked_at >= self._options.inspect_interval:
            self._asked_at = time.monotonic()
            self._learn(questions)
        for worker, runs in self._state.doubtful(time.time(), _DOUBTED).items():
            answer = questions.ask_these("query_task", [worker], ids=runs).get(worker)
            if isinstance(answer, dict):
                self._state.lose(set(runs) - answer.keys())

    def _learn(self, questions: "Questions") -> None:
        count, now = self._state.count_up(), time.time()
        for worker, answer in questions.ask("stats", count).items():
            self._state.learn(worker, slots=_as(answer, _Stats, _Stats()).pool.slots)
        for worker, answer in questions.ask("active_queues", count).items():
            names = tuple(queue.name for queue in _as(answer, list[_Queue], []))
            self._state.learn(worker, queues=names)
            self._hear(names)
        for worker, answer in questions.ask("reserved", count).items():
            waiting = _as(answer, list[Request], [])
            self._state.learn(worker, reserved=len(waiting))
            self._state.recall(worker, waiting, now)
        for worker, answer in questions.ask("active", count, safe=True).items():
            self._state.recall(worker, _as(answer, list[Request], []), now)

    def _read(self, queues: RedisQueues | AmqpQueues) -> Iterator[QueueState]:
        now = time.time()
        for name, waiting in self._waiting(queues, now).items():
            consumers = waiting.consumers
            if consumers is None and self._options.inspect:
                consumers = self._state.consumers(name, now)
            yield QueueState(
                scheduler=self._name,
                queue=name,
                at=now,
                ready=waiting.ready,
                in_flight=waiting.in_flight,
                scheduled=waiting.scheduled,
                oldest=waiting.oldest,
                consumers=consumers,
            )

    def _waiting(self, queues: RedisQueues | AmqpQueues, now: float) -> dict[str, Waiting]:
        """What waits in the queues that are named, else in those that are known. Those in which something does stay."""
        if self._options.queues:
            return queues.read(self._options.queues, self._state.sent_at, now)
        self._hear([*queues.learn(self._options.event_exchange), *self._state.queues()])
        found = queues.read(sorted(self._known), self._state.sent_at, now)
        self._hear(name for name, waiting in found.items() if waiting.ready)
        self._forget()
        return found

    def _hear(self, names: Iterable[str]) -> None:
        now = time.monotonic()
        for name in names:
            if name in self._known or len(self._known) < _QUEUES:
                self._known[name] = now

    def _forget(self) -> None:
        now = time.monotonic()
        for name in [name for name, at in self._known.items() if now - at > _MEMORY]:
            del self._known[name]


class Questions:
    """Broadcasts to the workers, and their answers, with a deadline."""

    def __init__(self, connection: Connection, options: "CeleryOptions") -> None:
        self._channel, self._timeout = connection.channel(), options.inspect_timeout
        self._mailbox = Mailbox(
            options.control_exchange,
            type="fanout",
            connection=connection,
            accept=["json"],
            serializer="json",
            producer_pool=_Once(self._channel),
        )

    def ask(self, question: str, count: int, **arguments: Any) -> dict[str, Any]:
        """What workers answer; it is waited for so many of them, and no longer than the deadline."""
        with self._reply_queue():
            return _by_name(
                self._mailbox.multi_call(
                    question, arguments, timeout=self._timeout, limit=count, channel=self._channel
                )
            )

    def ask_these(self, question: str, workers: list[str], **arguments: Any) -> dict[str, Any]:
        """The same of certain workers."""
        with self._reply_queue():
            return _by_name(
                self._mailbox.call(workers, question, arguments, timeout=self._timeout, channel=self._channel)
            )

    @contextmanager
    def _reply_queue(self) -> Iterator[None]:
        """The queue of the answers is there before the question is, and nothing of it is left behind."""
        queue = self._mailbox.reply_queue(self._channel)
        queue.declare()
        try:
            yield
        finally:
            queue.delete()


class _Once:
    """A producer, as a pool of one, that gives up where the broker is away: by default it tries for ever."""

    def __init__(self, channel: Any) -> None:
        self._producer = Producer(channel, auto_declare=False)

    @contextmanager
    def acquire(self) -> Iterator["_Once"]:
        """The one."""
        yield self

    def publish(self, *arguments: Any, **options: Any) -> None:
        """Publish, or raise."""
        self._producer.publish(*arguments, **{**options, "retry": False})


def _by_name(answers: Any) -> dict[str, Any]:
    return {name: answer for one in answers or () if isinstance(one, dict) for name, answer in one.items()}


def _as(answer: Any, kind: type[Answer], otherwise: Answer) -> Answer:
    """The answer in the shape that it should have."""
    try:
        return msgspec.convert(answer, kind, strict=False)
    except msgspec.ValidationError:
        return otherwise
