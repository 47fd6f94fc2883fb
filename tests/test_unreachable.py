"""What is said of a broker that cannot be used: real brokers, real libraries."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from services.process import free_port
from services.rabbitmq import RabbitMQ
from taskscope.errors import Unavailable
from taskscope.unreachable import sentence


def redis_says(url: str) -> str:
    try:
        with Redis.from_url(
            url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=Retry(NoBackoff(), 0)
        ) as redis:
            redis.ping()
    except Exception as error:  # noqa: BLE001 - whatever it raises is asked for
        return sentence(error, url)
    return ""


def amqp_says(url: str) -> str:
    try:
        with Connection(url, connect_timeout=1) as connection:
            connection.connect()
    except Exception as error:  # noqa: BLE001 - as above
        return sentence(error, url)
    return ""


@pytest.fixture
def locked(redis_server: Any) -> Iterator[str]:
    """Host and port of a Redis with a password."""
    redis_server.ask("CONFIG SET requirepass s3cret")
    yield f"127.0.0.1:{redis_server.port}"
    with Redis.from_url(f"redis://:s3cret@127.0.0.1:{redis_server.port}") as redis:
        redis.config_set("requirepass", "")


def test_redis(locked: str):
    assert redis_says(f"redis://:s3cret@{locked}/0") == ""
    assert redis_says(f"redis://{locked}/0") == f"{locked} wants a password; put it into its URL"
    for wrong in (f"redis://:hunter2@{locked}/0", f"redis://bob:hunter2@{locked}/0"):
        assert redis_says(wrong) == f"{locked} refuses the password; correct it in its URL"
    assert (
        redis_says(f"redis://:s3cret@{locked}/99")
        == f"{locked} has no database '99'; correct the end of its URL"
    )
    assert redis_says(f"rediss://:s3cret@{locked}/0").startswith(locked)


@pytest.mark.slow
def test_rabbitmq(rabbitmq: RabbitMQ, rabbitmq_url: str):
    place = f"127.0.0.1:{rabbitmq.port}"
    rabbitmq.call('rabbit_vhost:add(<<"closed">>, <<"tests">>)')
    assert amqp_says(rabbitmq_url) == ""
    assert amqp_says(f"amqp://bob:hunter2@{place}/") == (
        f"{place} refuses user 'bob'; correct user and password in its URL"
    )
    assert amqp_says(f"amqp://guest:guest@{place}/nope") == (
        f"{place} has no virtual host 'nope'; correct the end of its URL"
    )
    assert amqp_says(f"amqp://guest:guest@{place}/closed") == (
        f"{place} does not let 'guest' into the virtual host 'closed'; give it the right"
    )
    assert amqp_says(f"amqps://guest:guest@{place}/").startswith(f"{place} and TLS do not fit together")


@pytest.mark.parametrize("says", [redis_says, amqp_says])
def test_a_place_where_nobody_listens(says: Any):
    port, scheme = free_port(), says.__name__.partition("_")[0]
    assert says(f"{scheme}://:hunter2@127.0.0.1:{port}/0") == (
        f"127.0.0.1:{port} refuses the connection; start what shall listen there, or correct the URL"
    )


def test_a_name_that_does_not_resolve():
    assert redis_says("redis://nobody.invalid/0") == (
        "the name nobody.invalid does not resolve; correct the host of its URL"
    )


def test_a_place_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        assert redis_says(f"redis://{place}/0") == f"{place} does not answer in time"


def test_what_is_not_known_is_told_as_it_is_short_and_without_passwords():
    error = RuntimeError("redis://:hunter2@broker/0\nbroke " + "x" * 1000)
    said = sentence(error, "redis://:hunter2@broker/0")
    assert said.startswith("RuntimeError: redis://:***@broker/0 broke x")
    assert said.endswith("… (broker:6379)")
    assert len(said) < 400


def test_a_sentence_of_ours_stays_also_inside_another_error():
    error = RuntimeError("wrapped")
    error.__cause__ = Unavailable("the broker sleeps; wake it")
    assert sentence(error, "redis://x") == "the broker sleeps; wake it"
