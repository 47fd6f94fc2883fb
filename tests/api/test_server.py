"""Opening and closing the port, and clients that behave badly."""

import asyncio
import json
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request

import msgspec
import pytest
from asking import NOW, Client

from healthy import health_of
from taskscope.api.backend import Backend
from taskscope.api.server import Listener, Server
from taskscope.errors import BadArgument, Unavailable
from taskscope.settings import Limits, Settings
from taskscope.sinks.metrics import Metrics


@pytest.fixture
def backend(live):
    settings = Settings(history=None, limits=Limits(connections=5))
    metrics = Metrics(settings)
    return Backend(
        settings=settings,
        live=live,
        health=health_of(live, settings),
        metrics=metrics,
        queries=None,
        ready=list,
        refresh=lambda: metrics.sync(live, NOW),
    )


def test_a_server_leaves_no_thread_and_no_port_behind(backend):
    before = set(threading.enumerate())
    server = Server(backend)
    port = server.start("127.0.0.1", 0)
    assert Client(port).ask("/-/healthy").status == 200
    assert Client(port).ask("/metrics").status == 200

    server.stop()
    server.stop()

    assert set(threading.enumerate()) == before
    again = Server(backend)
    assert again.start("127.0.0.1", port) == port
    again.stop()


def test_a_server_that_never_started_can_be_stopped(backend):
    Server(backend).stop()


def test_a_taken_port_is_named_and_nothing_is_left_behind(backend):
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(Unavailable, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"):
            Server(backend).start("127.0.0.1", port)

    assert set(threading.enumerate()) == before


def test_a_host_that_is_not_ours_is_named(backend):
    with pytest.raises(BadArgument, match=r"host='192\.0\.2\.1' is reachable"):
        Server(backend).start("192.0.2.1", 0)


def test_a_host_that_cannot_be_bound_is_named(live):
    settings = Settings(history=None, insecure=True)
    backend = Backend(
        settings=settings,
        live=live,
        health=health_of(live, settings),
        metrics=Metrics(settings),
        queries=None,
        ready=list,
        refresh=lambda: None,
    )

    with pytest.raises(Unavailable, match=r"cannot listen on 192\.0\.2\.1:0"):
        Server(backend).start("192.0.2.1", 0)


def test_a_listener_serves_inside_a_running_loop_and_leaves_no_task_behind(backend):
    async def scenario():
        listener = Listener(backend)
        port = await listener.open("127.0.0.1", 0)
        answer = await asyncio.get_running_loop().run_in_executor(None, Client(port).ask, "/-/healthy")
        await listener.close()
        await listener.close()
        return answer, asyncio.all_tasks() - {asyncio.current_task()}

    answer, left = asyncio.run(scenario())

    assert (answer.json, left) == ({"status": "healthy"}, set())


def test_ipv6_is_served(backend):
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this host")
    server = Server(backend)
    try:
        port = server.start("::1", 0)
    except Unavailable:
        pytest.skip("no ::1 on this host")

    with urllib.request.urlopen(f"http://[::1]:{port}/-/healthy", timeout=5) as answer:
        assert answer.status == 200
    server.stop()


def test_connections_beyond_the_bound_are_told_so_and_room_comes_back(backend):
    server = Server(backend)
    port = server.start("127.0.0.1", 0)
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    _until(lambda: Client(port).ask("/-/healthy").status == 503)

    refused = Client(port).ask("/-/healthy")
    for connection in idle:
        connection.close()

    assert refused.headers["Retry-After"] == "5"
    assert refused.json == {"error": "Too many connections are open.", "errors": {}}
    _until(lambda: Client(port).ask("/-/healthy").status == 200)
    server.stop()


def test_a_server_stops_promptly_beside_idle_and_dripping_connections(backend):
    server = Server(backend)
    port = server.start("127.0.0.1", 0)
    idle = socket.create_connection(("127.0.0.1", port))
    dripping = socket.create_connection(("127.0.0.1", port))
    dripping.sendall(b"GET / HTTP/1.1\r\nHost: ")

    begun = time.monotonic()
    server.stop()

    assert time.monotonic() - begun < 4
    assert idle.recv(1) == b""
    assert dripping.recv(1) == b""
    idle.close()
    dripping.close()


def test_a_reader_who_takes_nothing_is_hung_up_on(backend, monkeypatch, caplog):
    monkeypatch.setattr("taskscope.api.app.PATIENCE", 0.2)
    server = Server(_with(backend, metrics=_Large()))
    port = server.start("127.0.0.1", 0)

    with socket.create_connection(("127.0.0.1", port)) as reader:
        reader.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        hung_up = select.poll()
        hung_up.register(reader, select.POLLHUP | select.POLLERR)  # without reading a byte

        assert hung_up.poll(10_000), "the server still waits for its reader"

    server.stop()
    assert caplog.text == ""


def test_a_reader_who_goes_away_is_no_fault(backend, caplog):
    server = Server(_with(backend, metrics=_Large()))
    port = server.start("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port)) as reader:
        reader.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert reader.recv(15) == b"HTTP/1.1 200 OK"

    server.stop()

    assert caplog.text == ""


def test_what_is_not_http_is_refused_and_does_not_fill_the_log(backend, caplog):
    server = Server(backend)
    port = server.start("127.0.0.1", 0)
    with socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.sendall(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
        assert stranger.recv(12) == b"HTTP/1.0 400"

    server.stop()

    assert caplog.text == ""


def test_a_forked_child_can_let_go_of_the_port(backend):
    server = Server(backend)
    port = server.start("127.0.0.1", 0)
    child = os.fork()
    if child == 0:
        server.abandon()
        signal.pause()
    try:
        server.stop()
        again = Server(backend)
        _until(lambda: _starts(again, port))
        assert Client(port).ask("/-/healthy").status == 200
        again.stop()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.fixture
def certificate(tmp_path):
    return certified(tmp_path)


def certified(folder):
    """A certificate and its key, which are made anew each time."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this host")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "1",
    ]
    subprocess.run(
        [*made, "-keyout", "key.pem", "-out", "cert.pem", *names], cwd=folder, check=True, capture_output=True
    )
    return folder


def test_with_a_certificate_it_speaks_tls_only(backend, certificate):
    settings = Settings(
        history=None, tls_certificate=str(certificate / "cert.pem"), tls_key=str(certificate / "key.pem")
    )
    server = Server(_with(backend, settings=settings))
    port = server.start("127.0.0.1", 0)
    trusted = ssl.create_default_context(cafile=str(certificate / "cert.pem"))

    with urllib.request.urlopen(f"https://127.0.0.1:{port}/sd", context=trusted, timeout=5) as answer:
        target = json.loads(answer.read())[0]

    assert target["labels"]["__scheme__"] == "https"
    with pytest.raises(OSError, match=r"."):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/sd", timeout=5)
    server.stop()


def test_a_certificate_that_was_renewed_is_shown_to_new_connections(backend, certificate):
    settings = Settings(
        history=None, tls_certificate=str(certificate / "cert.pem"), tls_key=str(certificate / "key.pem")
    )
    server = Server(_with(backend, settings=settings))
    port = server.start("127.0.0.1", 0)
    first = ssl.get_server_certificate(("127.0.0.1", port))

    certified(certificate)
    assert ssl.get_server_certificate(("127.0.0.1", port)) == first
    server.renew()
    second = ssl.get_server_certificate(("127.0.0.1", port))
    assert second == (certificate / "cert.pem").read_text() != first

    (certificate / "key.pem").write_text("none")
    with pytest.raises(BadArgument, match="with its key cannot be used"):
        server.renew()
    assert ssl.get_server_certificate(("127.0.0.1", port)) == second
    server.stop()


def test_a_bad_certificate_is_named(backend):
    with pytest.raises(
        BadArgument, match=r"tls_certificate='/nowhere.pem' with its key cannot be used: .*No such file"
    ):
        Server(_with(backend, settings=Settings(tls_certificate="/nowhere.pem"))).start("127.0.0.1", 0)
    with pytest.raises(BadArgument, match="tls_key is set without tls_certificate"):
        Server(_with(backend, settings=Settings(tls_key="/nowhere.pem"))).start("127.0.0.1", 0)


class _Large:
    """A page of metrics that no socket buffer holds."""

    content_type, encoding, blocks = "text/plain", "", (bytes(2**20),) * 64

    def render(self, accept="", names=(), compress=False):
        return self


def _with(backend, **parts):
    usual = {name: getattr(backend, name) for name in backend.__struct_fields__}
    return Backend(**usual | parts)


def _starts(server, port):
    try:
        return server.start("127.0.0.1", port)
    except Unavailable:
        return None


def _until(holds, seconds=10.0):
    """Polls until it holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def test_a_slow_page_of_metrics_leaves_the_loop_free(backend):
    rendering, go_on = threading.Event(), threading.Event()

    def refresh():
        rendering.set()
        assert go_on.wait(10)

    async def scenario():
        listener = Listener(msgspec.structs.replace(backend, refresh=refresh))
        port = await listener.open("127.0.0.1", 0)
        scrape = asyncio.create_task(asyncio.to_thread(Client(port).ask, "/metrics"))
        assert await asyncio.to_thread(rendering.wait, 10)
        healthy = await asyncio.to_thread(Client(port).ask, "/-/healthy")
        go_on.set()
        page = await scrape
        await listener.close()
        return healthy.status, page.status

    assert asyncio.run(asyncio.wait_for(scenario(), 30)) == (200, 200)
