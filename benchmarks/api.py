"""How long the API takes to answer with a million runs, and what its checks cost beside bare aiohttp handlers.

    python -m benchmarks.api [--runs 1000000] [--postgres URL] [--json FILE]

The server is a process of its own; the client keeps one connection for times, and sends 16 requests at once for
requests per second. A bare handler sends ready bytes of the same length from the same aiohttp, unguarded.
"""

import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web
from benchmarks.queries import fill, parser, server
from rich.console import Console
from rich.table import Table

from taskscope.api.backend import Backend
from taskscope.api.server import Server
from taskscope.checks import Own
from taskscope.events import Job, Jobs
from taskscope.health import Health
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.metrics import Metrics

ROUNDS, SECONDS, TOGETHER, DEPTH, JOBS = 200, 2.0, 16, 100_000, 200
LIMITS_MS = {"newest 50": 5.0, "page of 50 at depth 100 000": 5.0, "stats over 30 days": 50.0}


def main() -> None:
    arguments = parser().parse_args()
    results: dict[str, Any] = {"runs": arguments.runs}
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/runs.db"
        fill(url, arguments.runs)
        results["sqlite"], results["requests a second"] = times(url), rates(url)
    with server(arguments.postgres) as postgres:
        if postgres:
            fill(postgres, arguments.runs)
            results["postgresql"] = times(postgres)
    show(results)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, indent=2))
    else:
        print(json.dumps(results, indent=2))


def times(url: str) -> dict[str, dict[str, float]]:
    """ms by question: median and 95th percentile, connection kept."""
    with serving("ours", url) as port, socket.create_connection(("127.0.0.1", port)) as connection:
        questions = {
            "newest 50": "/api/task/",
            "page of 50 at depth 100 000": f"/api/task/?cursor={deep(connection)}",
            "failed runs": "/api/task/?status=failed",
            "stats over 30 days": "/api/task/stats?from=-30d",
            "unique-tasks": "/api/task/unique-tasks",
        }
        return {name: timed(connection, path) for name, path in questions.items()}


def deep(connection: socket.socket) -> str:
    """The cursor behind so many runs."""
    page = json.loads(ask(connection, f"/api/task/?offset={DEPTH - 50}"))
    return str(page["next_cursor"])


def timed(connection: socket.socket, path: str) -> dict[str, float]:
    taken = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        ask(connection, path)
        taken.append((time.perf_counter() - begin) * 1000)
    return {"median": statistics.median(taken), "p95": statistics.quantiles(taken, n=20)[-1]}


def rates(url: str) -> dict[str, dict[str, float]]:
    """Requests a second of ours and of a bare handler with an answer of that length; and their ratio."""
    paths = {
        "probe": "/-/healthy",
        "job": "/api/job/bench/job-7",
        "metrics": "/metrics",
        "newest 50": "/api/task/",
    }
    results = {}
    for name, path in paths.items():
        with serving("ours", url) as port, socket.create_connection(("127.0.0.1", port)) as connection:
            length = len(ask(connection, path))
            ours = rate(connection, path)
        with (
            serving("bare", str(length)) as port,
            socket.create_connection(("127.0.0.1", port)) as connection,
        ):
            bare = rate(connection, "/")
        results[name] = {"bytes": length, "ours": ours, "bare": bare, "ratio": ours / bare}
    return results


def rate(connection: socket.socket, path: str) -> float:
    """Requests a second, so many sent at once."""
    request, done, begin = head(path) * TOGETHER, 0, time.perf_counter()
    answers = connection.makefile("rb")
    while time.perf_counter() - begin < SECONDS:
        connection.sendall(request)
        for _ in range(TOGETHER):
            body(answers)
        done += TOGETHER
    return done / (time.perf_counter() - begin)


def ask(connection: socket.socket, path: str) -> bytes:
    connection.sendall(head(path))
    return body(connection.makefile("rb"))


def head(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n".encode()


def body(answers: Any) -> bytes:
    status, length = answers.readline(), 0
    while (line := answers.readline()) != b"\r\n":
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    content: bytes = answers.read(length)
    assert b" 200 " in status, content
    return content


@contextmanager
def serving(kind: str, argument: str) -> Iterator[int]:
    """The port of a server in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.api", kind, argument]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield int(child.stdout.readline())
        finally:
            child.terminate()


def serve_ours(url: str) -> None:
    settings, now = Settings(history=url), time.time()
    live, metrics = Live(), Metrics(settings)
    live.fold(
        [Jobs(scheduler="bench", at=now, jobs=tuple(Job(name=f"job-{n}", key=str(n)) for n in range(JOBS)))]
    )
    backend = Backend(
        settings=settings,
        live=live,
        health=Health(settings, live, lambda now: Own(now=now), metrics.usual),
        metrics=metrics,
        queries=Queries(url, settings),
        ready=list,
        refresh=lambda: metrics.sync(live, now),
    )
    print(Server(backend).start("127.0.0.1", 0), flush=True)
    signal.pause()


def serve_bare(length: str) -> None:
    content = b"x" * int(length)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=content, content_type="application/json")

    app, listener = web.Application(), socket.create_server(("127.0.0.1", 0))
    app.router.add_get("/", handler)
    print(listener.getsockname()[1], flush=True)
    web.run_app(app, sock=listener, print=None, access_log=None)


def show(results: dict[str, Any]) -> None:
    table = Table("question", "store", "median ms", "p95 ms", "p95 at most")
    for store in ("sqlite", "postgresql"):
        for name, figures in results.get(store, {}).items():
            limit = LIMITS_MS.get(name)
            table.add_row(
                name,
                store,
                f"{figures['median']:.2f}",
                f"{figures['p95']:.2f}",
                f"{limit:g}" if limit else "",
            )
    rates = Table("answer", "bytes", "ours /s", "bare aiohttp /s", "ratio")
    for name, figures in results["requests a second"].items():
        rates.add_row(
            name,
            *(f"{figures[key]:.0f}" for key in ("bytes", "ours", "bare")),
            f"{figures['ratio']:.2f}",
        )
    console = Console(stderr=True)
    console.print(table, rates)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours", url]:
            serve_ours(url)
        case ["bare", length]:
            serve_bare(length)
        case _:
            main()
