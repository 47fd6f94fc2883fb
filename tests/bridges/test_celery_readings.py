"""Queues as they are read at a real broker, beside what the broker itself says; and that reading leaves it as it is."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Consumer, Queue
from redis import Redis as Client

from services.process import until
from services.rabbitmq import RabbitMQ
from services.redis import Redis
from taskscope import bridges
from taskscope.bridges._celery_mapping import ENQUEUED
from taskscope.contracts import Bridge
from taskscope.errors import BadArgument
from taskscope.events import QueueState, SchedulerState, WorkerState
from taskscope.settings import Source
from taskscope.testing import Recorder

Watch = Callable[..., Bridge]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """A bridge at a URL, attached until the test is over; it does not listen."""
    with ExitStack() as stack:

        def watch(url: str, **options: Any) -> Bridge:
            bridge = bridges.made(Source(system="celery", target=url, options=options), "shop")
            stack.callback(bridge.detach)
            bridge.attach(Recorder().emit)
            return bridge

        yield watch


def queues(bridge: Bridge) -> dict[str, QueueState]:
    return {reading.queue: reading for reading in bridge.poll() if isinstance(reading, QueueState)}


@contextmanager
def sending(url: str, **transport: Any) -> Iterator[Celery]:
    with Celery("customer", broker=url, set_as_current=False) as app:
        app.conf.update(broker_transport_options=transport)
        yield app


@contextmanager
def listening(bridge: Bridge) -> Iterator[None]:
    """It hears events."""
    stop, connected = Event(), Event()
    ear = Thread(target=bridge.listen, args=(stop, connected.set))
    ear.start()
    try:
        assert connected.wait(10)
        yield
    finally:
        stop.set()
        ear.join()


def dump(client: "Client[bytes]") -> dict[bytes, bytes]:
    return {key: client.dump(key) for key in client.scan_iter()}


@pytest.mark.parametrize("prefix", ["", "shop:"])
def test_redis_queues_add_up_over_priorities_and_prefixes(redis_url: str, watch: Watch, prefix: str) -> None:
    mail = f"mail{prefix}"  # what a publisher of this process has bound once it does not bind again
    client = Client.from_url(redis_url)
    with sending(redis_url, global_keyprefix=prefix) as app:
        for priority in (0, 3, 4, 9):
            app.send_task("shop.work", queue=mail, priority=priority)
        app.send_task("shop.work", queue=f"celery{prefix}")
    lists = [
        key
        for key in client.scan_iter()
        if client.type(key) == b"list" and key.startswith(f"{prefix}{mail}".encode())
    ]
    before = dump(client)

    found = queues(watch(redis_url, transport_options={"global_keyprefix": prefix}))

    assert len(lists) == 3
    assert found[mail].ready == sum(client.llen(key) for key in lists) == 4
    assert found[f"celery{prefix}"].ready == client.llen(f"{prefix}celery{prefix}") == 1
    assert found.keys() == {mail, f"celery{prefix}"}, "learned from what is bound, without a worker"
    assert dump(client) == before
    client.close()


def test_messages_that_workers_hold_are_in_flight_or_wait_for_their_time(
    redis_url: str, watch: Watch
) -> None:
    with sending(redis_url) as app:
        for queue, options in (("celery", {}), ("celery", {}), ("mail", {}), ("mail", {"countdown": 300})):
            app.send_task("shop.work", queue=queue, **options)
    held: list[Any] = []
    with Connection(redis_url, transport_options={"visibility_timeout": 60}) as connection:
        named = [Queue(name, routing_key=name) for name in ("celery", "mail")]
        with Consumer(connection.channel(), named, on_message=held.append, auto_declare=False):
            while len(held) < 4:
                connection.drain_events(timeout=5)
            found = queues(watch(redis_url, queues=["celery", "mail"]))

    assert {name: (queue.ready, queue.in_flight, queue.scheduled) for name, queue in found.items()} == {
        "celery": (0, 2, 0),
        "mail": (0, 1, 1),
    }


def test_more_held_messages_than_are_looked_at_are_not_guessed_at(
    redis_url: str, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskscope.bridges._celery_queues._UNACKED", 1)
    client = Client.from_url(redis_url)
    client.hset("unacked", mapping={"1": "[]", "2": "no JSON"})
    client.close()

    assert queues(watch(redis_url, queues=["celery"]))["celery"].in_flight is None


def test_the_oldest_message_is_dated_where_it_says_when_it_was_sent(redis_url: str, watch: Watch) -> None:
    with sending(redis_url) as app:
        for at, queue in ((1_700_000_100.0, "a"), (1_700_000_200.0, "a"), (None, "b")):
            app.send_task("shop.work", queue=queue, headers={ENQUEUED: at} if at else {})
        app.send_task("shop.work", queue="a", priority=9, headers={ENQUEUED: 1_700_000_050.0})
    found = queues(watch(redis_url, queues=["a", "b"]))

    assert (found["a"].oldest, found["b"].oldest) == (1_700_000_050.0, None)


def test_only_the_queues_that_are_named_are_read(redis_url: str, watch: Watch) -> None:
    with sending(redis_url) as app:
        app.send_task("shop.work", queue="other")
    found = queues(watch(redis_url, queues=["mine"]))

    assert {name: queue.ready for name, queue in found.items()} == {"mine": 0}


def test_rabbitmq_queues_are_what_the_node_says(rabbitmq: RabbitMQ, rabbitmq_url: str, watch: Watch) -> None:
    with sending(rabbitmq_url) as app:
        for queue in ("mail", "mail", "celery"):
            app.send_task("shop.work", queue=queue)
    bridge = watch(rabbitmq_url, queues=["missing", "mail", "gone", "celery"])
    with Connection(rabbitmq_url) as connection:
        consumer = Consumer(
            connection.channel(), [Queue("mail")], on_message=lambda message: None, auto_declare=False
        )
        consumer.qos(prefetch_count=1)
        consumer.consume()
        connection.drain_events(timeout=5)
        until(lambda: rabbitmq.queues(rabbitmq_url)["mail"] == (1, 1, 1), what="the consumer")
        found = queues(bridge)
        told = rabbitmq.queues(rabbitmq_url)

    assert {name: (queue.ready, queue.consumers) for name, queue in found.items()} == {
        "mail": (1, 1),
        "celery": (1, 0),
    }
    assert told.keys() == {"mail", "celery"}, "nothing was declared by reading"


def test_a_queue_of_rabbitmq_that_nobody_consumes_from_any_more_is_read_as_long_as_messages_wait(
    rabbitmq: RabbitMQ, rabbitmq_url: str, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskscope.bridges._celery_readings._MEMORY", 0.2)
    bridge, seen = watch(rabbitmq_url), []
    with sending(rabbitmq_url) as app:
        app.conf.task_send_sent_event = True
        with listening(bridge):
            app.send_task("shop.work", queue="mail")
            until(lambda: "mail" in queues(bridge), what="that it is heard of")
        for _ in range(3):
            time.sleep(0.3)
            seen.append(queues(bridge).get("mail"))
    with Connection(rabbitmq_url) as connection:
        Queue("mail")(connection.channel()).purge()
    until(lambda: "mail" not in queues(bridge), what="that it is forgotten")

    assert [(queue.ready, queue.consumers) if queue else None for queue in seen] == [(1, 0)] * 3


def test_the_broker_is_up_without_workers_but_starts_nothing(redis_url: str, watch: Watch) -> None:
    readings = list(watch(redis_url).poll())

    (state,) = (reading for reading in readings if isinstance(reading, SchedulerState))
    assert (state.up, state.running, state.system) == (True, False, "celery")
    assert not [reading for reading in readings if isinstance(reading, WorkerState)]


def test_a_broker_that_is_away_is_an_error_and_the_next_question_works_again(
    redis_server: Redis, redis_url: str, watch: Watch
) -> None:
    bridge = watch(redis_url, queues=["celery"])
    assert queues(bridge)
    redis_server.stop()
    for _ in range(2):
        with pytest.raises(Exception, match="Error"):
            list(bridge.poll())
    redis_server.start()

    assert queues(bridge)["celery"].ready == 0


def test_a_broker_that_hangs_is_given_up_in_time(
    redis_server: Redis, redis_url: str, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskscope.bridges._celery_broker._PATIENCE", 0.3)
    bridge = watch(redis_url)
    redis_server.pause()
    begin = time.monotonic()
    with pytest.raises(Exception, match=r"[Tt]ime"):
        list(bridge.poll())
    redis_server.resume()

    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"queue": ["mail"]}, r"schedulers.shop.options.queue is no setting; did you mean `queues`\?"),
        (
            {"inspect_interval": "soon"},
            "schedulers.shop.options.inspect_interval must be a duration above 0 such as",
        ),
        ({"tasks": 0}, "schedulers.shop.options.tasks must be a whole number of at least 1"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadArgument, match=sentence):
        bridges.made(Source(system="celery", target="redis://127.0.0.1", options=options), "shop")


def test_a_url_that_is_no_broker_of_its_is_refused() -> None:
    with pytest.raises(
        BadArgument, match=r"schedulers.shop.target='http://x' is none of .*redis://…, .*amqp://…"
    ):
        bridges.made(Source(system="celery", target="http://x"), "shop")


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("redis://:geheim@h/shop", r"target='redis://:\*\*\*@h/shop' must end in the number of a database"),
        ("redis://h:99999/0", "has a port that is none"),
        ("sentinel://h:26379;sentinel://h:x", "has a port that is none"),
    ],
)
def test_a_url_that_cannot_be_is_refused_before_anything_is_asked(
    target: str, sentence: str, watch: Watch
) -> None:
    with pytest.raises(BadArgument, match=sentence):
        watch(target)


@pytest.mark.parametrize(
    "target", ["redis://h", "redis://h/", "sentinel://a:1;sentinel://b:2", "amqp://u:p@h/a%2Fb"]
)
def test_a_url_that_may_be_is_not_asked_yet(target: str, watch: Watch) -> None:
    assert watch(target)


def test_a_user_of_redis_that_may_only_read_and_subscribe_is_enough_without_asking_workers(
    redis_url: str, watch: Watch
) -> None:
    with sending(redis_url) as app, Client.from_url(redis_url) as client:
        app.send_task("shop.work")
        client.execute_command(
            "ACL SETUSER viewer reset on >secret ~* &* +@read +@pubsub +@connection -publish"
        )
        bridge = watch(
            redis_url.replace("redis://", "redis://viewer:secret@"), inspect=False, queues=["celery"]
        )
        with listening(bridge):
            found = queues(bridge)
            assert {name: queue.ready for name, queue in found.items()} == {"celery": 1}
        client.execute_command("ACL DELUSER viewer")


def test_a_user_of_rabbitmq_needs_rights_over_events_and_answers_alone(
    rabbitmq: RabbitMQ, rabbitmq_url: str, watch: Watch
) -> None:
    with sending(rabbitmq_url) as app:
        app.send_task("shop.work")
    vhost, own = rabbitmq_url.rpartition("/")[2], r"^celeryev(\\.taskscope\\..*)?$"
    rabbitmq.call('ok = rabbit_auth_backend_internal:add_user(<<"viewer">>, <<"secret">>, <<"tests">>)')
    rabbitmq.call(
        f'ok = rabbit_auth_backend_internal:set_permissions(<<"viewer">>, <<"{vhost}">>, <<"{own}">>, <<"{own}">>, '
        f'<<"{own}">>, <<"tests">>)'
    )
    bridge = watch(rabbitmq_url.replace("guest:guest", "viewer:secret"), inspect=False, queues=["celery"])
    with listening(bridge):
        assert queues(bridge)["celery"].ready == 1
