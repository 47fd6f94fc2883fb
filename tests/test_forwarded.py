"""Senders and collectors are killed, stopped and restarted: what was acknowledged is there, once, and nothing is lost
that its sender still holds.

Runs are numbered by whoever tells of them; the histories are read when nobody writes to them.
"""

import json
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.request import urlopen

import pytest

import taskscope
from programs.telling import fact
from services.process import Server, answers, until
from taskscope.settings import Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter
from taskscope.testing import FakeScheduler

PROGRAM = Path(__file__).parent / "programs" / "telling.py"
LIVELY = {"heartbeat": 0.2, "lost_after": 1.0}


class Teller:
    """The program."""

    def __init__(self, name, **settings):
        command = [sys.executable, str(PROGRAM), name, json.dumps({"port": None} | LIVELY | settings)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "ready"

    def __call__(self, what):
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        return self._answer()

    def kill(self):
        self._process.kill()
        self._process.communicate(timeout=30)

    def end(self):
        out, _ = self._process.communicate(timeout=60)
        assert (self._process.returncode, out.splitlines()[-1]) == (0, "ended")

    def _answer(self):
        return self._process.stdout.readline().strip()


@pytest.fixture
def tellers():
    with ExitStack() as started:

        def start(name, **settings):
            teller = Teller(name, **settings)
            started.callback(teller.kill)
            return teller

        yield start


class Collector(Server):
    """`taskscope serve`."""

    def command(self):
        return [sys.executable, "-m", "taskscope", "serve"]

    def ready(self):
        return answers(f"{self.url}/-/healthy")

    def start(self):
        settings = {"port": self.port, "history": self.history, "flush_interval": 0.01} | LIVELY
        (self.directory / "taskscope.yaml").write_text(json.dumps(settings))
        super().start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def history(self):
        return f"sqlite:///{self.directory}/runs.db"

    def counted(self):
        """Successes, by job, as Prometheus would see them."""
        with urlopen(f"{self.url}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        found = [line for line in lines if line.startswith("taskscope_runs_total{") and '"success"' in line]
        return {line.split('"')[1]: float(line.rpartition(" ")[2]) for line in found}


@pytest.fixture
def collector():
    collector = Collector("collector")
    collector.start()
    yield collector
    collector.remove()


def stored(history):
    """How often each numbered run of each job is there, and the status of those that never ended."""
    with closing(Queries(history, Settings())) as queries:
        return Counter((run.job, int(run.entity), run.status) for run in queries.iterate(Filter()))


def successes(job, upto):
    return Counter((job, number, "success") for number in range(1, upto + 1))


def test_what_a_killed_sender_had_acknowledged_is_there_once_and_its_open_runs_are_lost(collector, tellers):
    acknowledged = 0
    for kill in range(3):
        teller = tellers(f"j{kill}", forward=collector.url)
        acknowledged = int(teller("tell 2000"))
        teller("begin")
        assert teller("flush") == "True"
        teller("tell 2000")
        teller.kill()
    until(lambda: Counter(status for _, _, status in stored(collector.history))["unknown"] == 3)
    found = stored(collector.history)

    assert set(found.values()) == {1}
    for kill in range(3):
        assert successes(f"j{kill}", acknowledged) <= found
        assert found[f"j{kill}-open", 0, "unknown"] == 1
    assert collector.counted() == {
        f"j{kill}": sum(job == f"j{kill}" for job, _, _ in found) for kill in range(3)
    } | {f"j{kill}-open": 0 for kill in range(3)}


@pytest.mark.slow
def test_a_collector_that_is_killed_under_load_loses_nothing_and_counts_nothing_twice(collector):
    told = 0
    with taskscope.Exporter(FakeScheduler(), names=["s"], forward=collector.url, **LIVELY) as sender:
        carrier = sender._carrier
        for _ in range(6):
            until(lambda: carrier.failure is None)
            for number in range(told + 1, told + 4_001):
                carrier.emit(fact(sender, "j", number, "success", duration=0.01))
            told += 4_000
            wanted = random.randint(0, 4_000)
            until(lambda wanted=wanted: carrier.backlog <= wanted)
            collector.stop(signal.SIGKILL)
            until(lambda: carrier.failure is not None)
            acknowledged = told - carrier.backlog
            assert successes("j", acknowledged) <= stored(collector.history)
            collector.start()
        assert sender.flush(60)
        assert carrier.dropped == {}

        assert stored(collector.history) >= successes("j", told)
        assert {job: n for job, n in collector.counted().items() if job == "j"} == {"j": told}
    assert set(stored(collector.history).values()) == {1}


def test_while_a_collector_hangs_nobody_waits_and_afterwards_all_is_there(collector):
    with taskscope.Exporter(FakeScheduler(), names=["s"], forward=collector.url, **LIVELY) as sender:
        carrier = sender._carrier
        carrier.emit(fact(sender, "j", 1, "success", duration=0.01))
        assert sender.flush(10)
        collector.pause()
        for number in range(2, 5_001):
            carrier.emit(fact(sender, "j", number, "success", duration=0.01))
        assert not sender.flush(0.3)
        assert carrier.backlog >= 4_999
        collector.resume()
        assert sender.flush(60)
        assert carrier.dropped == {}

    assert stored(collector.history) == successes("j", 5_000)


@pytest.mark.slow
def test_what_a_sender_left_on_disk_when_it_was_killed_is_sent_by_the_next(collector, tellers, tmp_path):
    collector.stop(signal.SIGKILL)
    how = {"forward": collector.url, "spool": str(tmp_path / "spool")}
    killed = tellers("killed", **how)
    killed("tell 3000")
    assert killed("flush") == "True", "on disk"
    killed.kill()
    collector.start()
    following = tellers("following", **how)
    following("tell 10")
    assert following("flush") == "True"
    following.end()

    until(lambda: not list((tmp_path / "spool").glob("*/*")))
    assert stored(collector.history) == successes("killed", 3_000) + successes("following", 10)


@pytest.mark.slow
def test_when_the_owner_of_a_history_is_killed_another_process_takes_over_with_all_that_waited(
    tellers, tmp_path
):
    history = f"sqlite:///{tmp_path}/runs.db"
    names = ["a", "b", "c"]
    workers = {name: tellers(name, history=history, flush_interval=0.01) for name in names}
    assert [name for name in names if workers[name]("owns") == "True"] == ["a"]
    for worker in workers.values():
        worker("tell 1000")
        assert worker("flush") == "True"
    workers["a"].kill()
    for name in ("b", "c"):
        workers[name]("tell 1000")
    until(lambda: "True" in {workers["b"]("owns"), workers["c"]("owns")}, what="taking over")
    for name in ("b", "c"):
        workers[name]("tell 1000")
    until(lambda: [workers[name]("flush") for name in ("b", "c")] == ["True", "True"])
    for name in ("b", "c"):
        workers[name].end()

    assert stored(history) == successes("a", 1_000) + successes("b", 3_000) + successes("c", 3_000)


@pytest.mark.slow
def test_under_load_a_killed_owner_takes_nothing_along_that_it_had_acknowledged(tellers, tmp_path):
    history = f"sqlite:///{tmp_path}/runs.db"
    owner, member = (tellers(name, history=history, flush_interval=0.01) for name in ("owner", "member"))
    told = 0
    for _ in range(5):
        owner("tell 500")
        told = int(member("tell 2000"))
    owner.kill()
    until(lambda: member("owns") == "True", what="taking over")
    assert member("flush") == "True"
    member.end()

    found = stored(history)
    assert set(found.values()) == {1}
    assert Counter({key: n for key, n in found.items() if key[0] == "member"}) == successes("member", told)


@pytest.mark.slow
def test_the_first_heartbeat_after_a_restart_keeps_open_runs_from_being_lost(collector, tellers):
    teller = tellers("j", forward=collector.url)
    teller("begin")
    assert teller("flush") == "True"
    collector.stop(signal.SIGKILL)
    until_silent_for_longer_than_lost_after()
    collector.start()
    teller("tell 1")
    until(lambda: teller("flush") == "True")
    until_silent_for_longer_than_lost_after()

    assert stored(collector.history)["j-open", 0, "started"] == 1


def until_silent_for_longer_than_lost_after():
    threading.Event().wait(LIVELY["lost_after"] * 1.5)
