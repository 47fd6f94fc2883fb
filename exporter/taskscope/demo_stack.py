"""Prometheus and Alertmanager beside the demo, from PATH, with the shipped rules and configuration."""

import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

from taskscope import assets
from taskscope.errors import BadArgument, Unavailable
from taskscope.shipped import shipped

_NAMES = {  # under which they are installed; Debian renames one
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}
_PORTS = {"prometheus": 9090, "alertmanager": 9093}
_LINKS = {
    "prometheus": "/alerts      what is wrong, by the rules that taskscope ships",
    "alertmanager": "/            the alerts, as they are told",
}
_TELLS_TASKSCOPE = "examples/stack/alertmanager.yml"  # alone: no mail leaves a demo
_PATIENCE = 30.0  # seconds to begin, and to end


def programs() -> dict[str, str]:
    """The paths of Prometheus and Alertmanager. Raises `BadArgument` where one is missing."""
    found = {what: next(filter(None, map(shutil.which, names)), None) for what, names in _NAMES.items()}
    if missing := [what for what, path in found.items() if path is None]:
        raise BadArgument(
            f"--stack needs {' and '.join(missing)} on PATH: install them (on Debian and Ubuntu "
            "`apt install prometheus prometheus-alertmanager`) or take examples/stack/compose.yaml"
        )
    return {what: path for what, path in found.items() if path is not None}


@contextmanager
def running(
    paths: Mapping[str, str], url: str, folder: Path, stop: threading.Event
) -> Iterator[Sequence[str]]:
    """Inside, these programs watch the taskscope at `url`; gives lines that say where to look.

    Raises `Unavailable` where one does not begin. They end with it, and nothing else does.
    """
    urls = {what: f"http://127.0.0.1:{_port(_PORTS[what])}" for what in paths}
    if paths:
        where = assets.addresses(taskscope=url, **urls)
        texts = assets.files(folder, where)
        texts["alertmanager/alertmanager.yml"] = assets.adapted(shipped(_TELLS_TASKSCOPE), where, folder)
        list(assets.write(folder, texts, force=True))
    with ExitStack() as stack:
        for what, path in paths.items():
            process = stack.enter_context(_started(_command(what, path, urls[what]), folder / what))
            _await(process, what, urls[what], folder / what, stop)
        yield [f"  {urls[what]}{_LINKS[what]}" for what in paths]


def _port(usual: int) -> int:
    """The usual port, or a free one where that is taken."""
    for port in (usual, 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as server:
                return int(server.getsockname()[1])
        except OSError:
            continue
    raise Unavailable("no port of this host is free; end some programs")


def _command(what: str, path: str, url: str) -> list[str]:
    storage = {"prometheus": "--storage.tsdb.path=data", "alertmanager": "--storage.path=data"}
    more = {
        "prometheus": ["--enable-feature=exemplar-storage"],
        "alertmanager": ["--cluster.listen-address="],
    }
    web = [f"--web.listen-address={url.removeprefix('http://')}", f"--web.external-url={url}"]
    return [path, f"--config.file={what}.yml", storage[what], *web, "--log.level=warn", *more[what]]


@contextmanager
def _started(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The program in its folder, where it also logs; ended afterwards."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # in a session of its own: it must outlive the Ctrl-C that ends the demo
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(
    process: subprocess.Popen[bytes], what: str, url: str, folder: Path, stop: threading.Event
) -> None:
    """Wait until it answers, or the demo ends."""
    deadline = time.monotonic() + _PATIENCE
    while not stop.is_set() and not _is_ready(url):
        if process.poll() is not None or time.monotonic() > deadline:
            said = (folder / "log").read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise Unavailable(f"{what} does not begin: {said[0] if said else 'it says nothing'}")
        stop.wait(0.05)


def _is_ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
