"""Which library an exception comes from says what kind of trouble it is."""

import pytest

from taskscope.categories import category


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("psycopg.errors.UniqueViolation", "database"),
        ("sqlalchemy.exc.OperationalError", "database"),
        ("java.sql.SQLException", "database"),
        ("redis.exceptions.ConnectionError", "nosql"),
        ("redis.clients.jedis.exceptions.JedisException", "nosql"),
        ("kombu.exceptions.OperationalError", "mq"),
        ("requests.exceptions.HTTPError", "external"),
        ("urllib.error.URLError", "external"),
        ("ConnectionRefusedError", "external"),
        ("KeyError", "code"),
        ("requestsed.Error", "code"),
        ("shop.redis.Missing", "code"),
        ("", "other"),
    ],
)
def test_an_exception_that_was_survived_is_of_its_librarys_category(kind, found):
    assert category(kind, fatal=False) == found


def test_what_a_run_failed_of_is_the_tasks_error():
    assert category("psycopg.errors.UniqueViolation", fatal=True) == "task_error"
