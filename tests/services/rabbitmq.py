"""A private RabbitMQ, and a fresh virtual host in it for every test."""

import json
import os
import socket
import subprocess
from itertools import count
from pathlib import Path
from signal import SIGTERM, Signals

import pytest

from services.process import Server, again, free_port, once, program

PLACES = [Path("/usr/lib/rabbitmq/bin"), Path("/usr/lib/erlang/bin")]  # on PATH stand wrappers for root alone
NODE, COOKIE = "taskscope@localhost", "taskscope"


class Names(Server):
    """The name server of Erlang's nodes (epmd): one of our own, as the one that a node starts would outlive it."""

    def __init__(self) -> None:
        self._epmd = program("epmd", "RabbitMQ", PLACES)
        super().__init__("epmd")

    def command(self) -> list[str]:
        return [self._epmd, "-address", "127.0.0.1", "-port", str(self.port)]

    def ready(self) -> bool:
        return _listens(self.port)


class RabbitMQ(Server):
    """RabbitMQ on loopback, without plugins. Messages in memory are lost with it, durable ones are not."""

    def __init__(self) -> None:
        self._server = program("rabbitmq-server", "RabbitMQ", PLACES)
        self._call = program("erl_call", "erl_call (of Erlang)", PLACES)
        super().__init__("rabbitmq", user="rabbitmq")
        self._names, self._nodes = Names(), free_port()
        self._vhosts = (f"test-{number}" for number in count(1))
        (self.directory / "plugins").write_text("[].")

    def command(self) -> list[str]:
        return ["env", *self._environment(), self._server]

    def ready(self) -> bool:
        """Does it speak AMQP? It closes a connection in another protocol with the version that it wants."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x00\x00")
                return connection.recv(8) == b"AMQP\x00\x00\x09\x01"
        except OSError:
            return False

    def start(self) -> None:
        self._names.start()
        super().start()

    def stop(self, how: Signals = SIGTERM) -> None:
        super().stop(how)  # it ignores SIGINT

    def remove(self) -> None:
        super().remove()
        self._names.remove()

    def new_vhost(self) -> str:
        """The URL of an empty virtual host."""
        vhost = next(self._vhosts)
        self.call(f'ok = rabbit_vhost:add(<<"{vhost}">>, <<"tests">>)')
        may = f'<<"guest">>, <<"{vhost}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>'
        self.call(f"ok = rabbit_auth_backend_internal:set_permissions({may})")
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    def queues(self, url: str) -> dict[str, tuple[int, int, int]]:
        """What the node itself knows of the queues of a virtual host: messages ready, not acknowledged, consumers."""
        vhost = url.rpartition("/")[2]
        what = "[name, messages_ready, messages_unacknowledged, consumers]"
        rows = (
            f"[[lists:last(tuple_to_list(Name)), Ready, Taken, Consumers] || "
            f"[{{_, Name}}, {{_, Ready}}, {{_, Taken}}, {{_, Consumers}}] <- "
            f'rabbit_amqqueue:info_all(<<"{vhost}">>, {what})]'
        )
        text = self.call(f"binary_to_list(rabbit_json:encode({rows}))")  # in quotes, without escapes
        found = json.loads(text[1:-1])
        return {name: (ready, taken, consumers) for name, ready, taken, consumers in found}

    def call(self, expression: str) -> str:
        """The value of an expression in the node: what rabbitmqctl does, without starting Erlang for it."""
        done = subprocess.run(
            [self._call, "-sname", NODE, "-c", COOKIE, "-e"],
            env={**os.environ, "ERL_EPMD_PORT": str(self._names.port)},
            input=f"{expression}.\n",
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.startswith("{ok, "), f"{expression}: {done.stdout}{done.stderr}"
        return done.stdout[len("{ok, ") : -1]

    def _environment(self) -> list[str]:
        interface = "-kernel inet_dist_use_interface {127,0,0,1}"
        settings = {
            "HOME": self.directory,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": self._names.port,
            "RUNNING_UNDER_SYSTEMD": "1",  # one process that signals reach, instead of a shell before it
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": self.port,
            "RABBITMQ_DIST_PORT": self._nodes,
            "RABBITMQ_MNESIA_BASE": self.directory / "mnesia",
            "RABBITMQ_LOG_BASE": self.directory,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": self.directory / "pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.directory / "plugins",
            "RABBITMQ_CONFIG_FILE": self.directory / "none",
            "RABBITMQ_CONF_ENV_FILE": self.directory / "none",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"{interface} -setcookie {COOKIE}",
        }
        return [f"{key}={value}" for key, value in settings.items()]


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


rabbitmq = once(RabbitMQ)
"""The session's RabbitMQ. Tests that disturb it take `rabbitmq_server`."""
rabbitmq_server = again("rabbitmq")
"""The session's RabbitMQ to stop, start and pause; afterwards it runs again."""


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQ) -> str:
    """The URL of an empty virtual host."""
    return rabbitmq_server.new_vhost()
