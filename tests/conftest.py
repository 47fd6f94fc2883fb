"""The real servers that tests use. Fixtures of one part of the package are in its folder's own conftest."""

import pytest

from day.fixture import day
from services.alertmanager import alertmanager, amtool
from services.postgres import postgres, postgres_server, postgres_url
from services.prometheus import prometheus, promtool
from services.rabbitmq import rabbitmq, rabbitmq_server, rabbitmq_url
from services.receivers import inbox
from services.redis import redis, redis_server, redis_url
from serving import serve

__all__ = [
    "alertmanager",
    "amtool",
    "day",
    "inbox",
    "postgres",
    "postgres_server",
    "postgres_url",
    "prometheus",
    "promtool",
    "rabbitmq",
    "rabbitmq_server",
    "rabbitmq_url",
    "redis",
    "redis_server",
    "redis_url",
    "serve",
]


@pytest.hookimpl(tryfirst=True)  # xdist looks at the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One RabbitMQ serves all tests of all workers: it takes long to begin, and is busy while it does nothing."""
    for item in items:
        if any(name.startswith("rabbitmq") for name in getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group("rabbitmq"))
