"""A real server as a private process: on loopback, on a free port, in its own directory, ended with the tests."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from secrets import randbelow
from typing import Any, NoReturn, TypeVar
from urllib.request import urlopen

import pytest

TRUE = ("1", "true", "yes")


def missing(what: str) -> NoReturn:
    """Skip the test by the name of what it lacks; on CI, where everything is installed, fail it."""
    if os.environ.get("CI", "").lower() in TRUE:
        pytest.fail(f"{what} is not installed, and CI=true wants every server", pytrace=False)
    pytest.skip(f"{what} is not installed")


def program(name: str, what: str, places: Sequence[Path] = ()) -> str:
    """The path of an installed program; `places` are looked at before PATH."""
    path = os.pathsep.join([*map(str, places), os.environ.get("PATH", os.defpath)])
    return shutil.which(name, path=path) or missing(what)


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now, and that the kernel gives to nobody who asks for any."""
    while True:
        port = 10_000 + randbelow(22_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def answers(url: str) -> bool:
    """Does this address say that all is well?"""
    try:
        with urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # URLError is one
        return False


def until(true: Callable[[], object], timeout: float = 30, what: str = "it") -> None:
    """Wait until `true()` is; fail when it is not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not happen within {timeout} s")
        time.sleep(0.02)


S = TypeVar("S", bound="Server")


def once(kind: type[S]) -> Any:
    """A fixture: one server of this kind for all tests of the session."""

    @pytest.fixture(scope="session")
    def server() -> Iterator[S]:
        private = kind()
        try:
            private.start()
            yield private
        finally:
            private.remove()

    return server


def again(name: str) -> Any:
    """A fixture: the server of that fixture, to stop, start and pause; afterwards it runs again."""

    @pytest.fixture
    def server(request: pytest.FixtureRequest) -> Iterator[Server]:
        disturbed: Server = request.getfixturevalue(name)
        yield disturbed
        disturbed.start()

    return server


class Server:
    """One server process that tests may start, stop and pause; it keeps its port and its directory."""

    def __init__(self, name: str, user: str | None = None) -> None:
        self.name, self.port = name, free_port()
        self._user = user if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self.directory = Path(tempfile.mkdtemp(prefix=f"taskscope-{name}-"))
        if self._user:
            shutil.chown(self.directory, self._user)

    def command(self) -> list[str]:
        """What to run."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Does it answer?"""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process that runs now."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    def start(self) -> None:
        """Let it run and answer, whatever was done to it before."""
        if self._process is not None:
            self.resume()
        else:
            with (self.directory / "log").open("ab") as log:
                self._process = self._spawn(self.command(), log.fileno())
        until(self._answers, what=f"an answer of {self.name}")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it and wait for its end; nothing happens if it does not run. `SIGKILL` is a crash."""
        if self._process is not None:
            self.resume()
            self._process.send_signal(how)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Freeze it: connections are taken, nothing answers."""
        self._signal(signal.SIGSTOP)
        until(lambda: not any(map(_goes_on, self._pids())), what="a halt of all its threads")

    def resume(self) -> None:
        """Thaw it."""
        self._signal(signal.SIGCONT)

    def remove(self) -> None:
        """End it and delete its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, *command: str) -> None:
        """Run a tool of the server to its end, as the server's user."""
        with (self.directory / "log").open("ab") as log:
            status = self._spawn(list(command), log.fileno()).wait(60)
        assert status == 0, f"{command[0]} ended with {status}:\n{self._log()}"

    def _spawn(self, command: list[str], log: int) -> subprocess.Popen[bytes]:
        who = {"user": self._user, "group": self._user, "extra_groups": ()} if self._user else {}
        return subprocess.Popen(
            command,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests, which then end it in order
            **who,
        )

    def _answers(self) -> bool:
        if self._process is not None and (status := self._process.poll()) is not None:
            self._process = None
            pytest.fail(f"{self.name} ended with {status} at start:\n{self._log()}", pytrace=False)
        return self.ready()

    def _signal(self, what: signal.Signals) -> None:
        for pid in self._pids():
            try:
                os.kill(pid, what)
            except ProcessLookupError:
                continue  # a child that ended meanwhile

    def _pids(self) -> list[int]:
        """Of the process and its children."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [self.pid, *map(int, children.read_text().split() if children.exists() else ())]

    def _log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")[-4000:]


def _goes_on(pid: int) -> bool:
    """Is any thread of this process neither stopped nor at its end?"""
    for thread in Path("/proc").glob(f"{pid}/task/*/stat"):
        with suppress(OSError):  # it has ended
            if thread.read_text().rpartition(")")[2].split()[0] not in "TZX":
                return True
    return False
