"""What kind of trouble an exception tells of, by the library that its class comes from."""

import re
from typing import Literal, cast

Category = Literal["task_error", "code", "database", "nosql", "mq", "external", "other"]

_LIBRARIES: dict[Category, str] = {
    "database": r"sqlalchemy|psycopg2?|psycopg2cffi|asyncpg|sqlite3|aiosqlite|pymysql|MySQLdb|mysql|aiomysql|mariadb"
    r"|oracledb|cx_Oracle|pyodbc|pymssql|django\.db|peewee|tortoise|duckdb|snowflake|clickhouse_\w+|databases"
    r"|java\.sql|javax\.persistence|jakarta\.persistence|org\.postgresql|org\.hibernate|com\.mysql|oracle\.jdbc"
    r"|org\.springframework\.(?:dao|jdbc)|com\.zaxxer\.hikari",
    "nosql": r"redis|valkey|pymongo|motor|bson|mongoengine|elasticsearch\w*|elastic_transport|opensearchpy|cassandra"
    r"|memcache|pymemcache|pylibmc|couchbase|neo4j|influxdb\w*|redis\.clients|com\.mongodb|io\.lettuce|co\.elastic",
    "mq": r"kombu|amqp|pika|aio_pika|aiormq|kafka|aiokafka|confluent_kafka|stomp|nats|pulsar|zmq|org\.apache\.kafka"
    r"|com\.rabbitmq|javax\.jms|jakarta\.jms",
    "external": r"requests|urllib3?|http|httpx|httpcore|aiohttp|grpc|botocore|boto3|google\.api_core|azure|stripe"
    r"|openai|zeep|suds|thrift|ssl|socket|smtplib|ftplib|imaplib|poplib|paramiko|java\.net|javax\.net|okhttp3|io\.grpc"
    r"|org\.apache\.http|org\.springframework\.web\.client|feign",
}
_FROM = re.compile("|".join(rf"(?P<{category}>(?:{names})\.)" for category, names in _LIBRARIES.items()))
_NETWORK = frozenset(
    {"ConnectionError", "ConnectionRefusedError", "ConnectionResetError", "ConnectionAbortedError"}
    | {"BrokenPipeError"}
)


def category(kind: str, *, fatal: bool) -> Category:
    """The category of an exception of this class; `task_error` is what the run failed of, whatever it was."""
    if fatal:
        return "task_error"
    if found := _FROM.match(kind):
        return cast(Category, found.lastgroup)
    if kind in _NETWORK:
        return "external"
    return "code" if kind else "other"
