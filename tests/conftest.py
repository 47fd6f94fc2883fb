"""The real servers that tests use. Fixtures of one part of the package are in its folder's own conftest."""

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
