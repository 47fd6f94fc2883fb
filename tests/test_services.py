"""The servers that other tests stand on do what is asked of them."""

import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from signal import SIGKILL
from threading import Thread

import psycopg
import pytest
from amqp.exceptions import NotFound
from kombu import Connection

from services.postgres import Postgres
from services.process import missing, program, until
from services.prometheus import Prometheus
from services.rabbitmq import RabbitMQ


def plain(url: str) -> str:
    return url.replace("+psycopg", "") + "?connect_timeout=2"


def test_a_database_is_empty_and_takes_rows(postgres_url: str) -> None:
    with psycopg.connect(plain(postgres_url)) as connection:
        connection.execute("CREATE TABLE run (id int)")
        connection.execute("INSERT INTO run VALUES (1)")
        assert connection.execute("SELECT count(*) FROM run").fetchone() == (1,)


def test_another_test_does_not_see_its_rows(postgres_url: str) -> None:
    with psycopg.connect(plain(postgres_url)) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT * FROM run")


@pytest.mark.parametrize("how", ["stop", "crash", "pause"])
def test_postgres_goes_away_and_comes_back_with_its_rows(
    how: str, postgres_server: Postgres, postgres_url: str
) -> None:
    with psycopg.connect(plain(postgres_url)) as connection:
        connection.execute("CREATE TABLE run (id int)")
    if how == "pause":
        postgres_server.pause()
    else:
        postgres_server.stop(SIGKILL) if how == "crash" else postgres_server.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(plain(postgres_url))
    postgres_server.start()
    with psycopg.connect(plain(postgres_url)) as connection:
        assert connection.execute("SELECT count(*) FROM run").fetchone() == (0,)


def test_redis_is_empty_for_every_test(redis_url: str, redis_server: object) -> None:
    from redis import Redis

    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("key", "value")
        assert client.get("key") == b"value"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["crash", "pause"])
def test_rabbitmq_goes_away_and_comes_back_with_its_durable_messages(
    how: str, rabbitmq_server: RabbitMQ, rabbitmq_url: str
) -> None:
    with Connection(rabbitmq_url, transport_options={"confirm_publish": True}) as connection:
        connection.SimpleQueue("kept").put("message")
    rabbitmq_server.pause() if how == "pause" else rabbitmq_server.stop(SIGKILL)
    assert not rabbitmq_server.ready()
    rabbitmq_server.start()
    with Connection(rabbitmq_url) as connection:
        assert connection.default_channel.queue_declare("kept", passive=True).message_count == 1


def test_a_virtual_host_is_empty(rabbitmq_url: str) -> None:
    with Connection(rabbitmq_url) as connection, pytest.raises(NotFound):
        connection.default_channel.queue_declare("kept", passive=True)


class Target(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"# TYPE answer gauge\nanswer 42\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_prometheus_scrapes_a_target_and_answers_promql(prometheus: Prometheus) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Target) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        prometheus.scrape([f"127.0.0.1:{server.server_port}"], scrape_interval=0.2)
        until(lambda: prometheus.value("answer") == 42, what="the first scrape")
        server.shutdown()
    assert prometheus.value('up{job="test"}') is not None


def test_promtool_runs(promtool: str) -> None:
    assert subprocess.run([promtool, "--version"], check=False, capture_output=True).returncode == 0


def test_a_missing_server_skips_by_name_but_fails_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="NoSuchServer is not installed"):
        program("no-such-server", "NoSuchServer")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="NoSuchServer is not installed"):
        missing("NoSuchServer")
