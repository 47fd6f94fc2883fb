"""A process that records runs is killed again and again: what was reported committed is there, once, and counted."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from services.process import free_port, until
from services.sender import Sender
from taskscope.facts import Bit
from taskscope.identity import parse
from taskscope.settings import Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter

PROGRAM = Path(__file__).parent / "programs" / "recording.py"
KILLS = 25
COLLECTOR_KILLS = 6
ENDINGS = {"success": Bit.SUCCESS, "failed": Bit.FAILED, "unknown": Bit.LOST}


@pytest.fixture(params=["sqlite", "postgres"])
def history(request, tmp_path):
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path}/runs.db"


class Recording:
    """The program under test."""

    def __init__(self, history, port, truth):
        self.port, self.truth = port, truth
        command = [sys.executable, str(PROGRAM), history, str(port), str(truth)]
        self._pid = 0
        self._parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, what="record"):
        self._parent.stdin.write(f"{what}\n")
        self._parent.stdin.flush()
        self._pid = int(self._parent.stdout.readline())

    def stop(self, how):
        os.kill(self._pid, how)
        self._pid = 0
        return int(self._parent.stdout.readline())

    def kill(self):
        assert self.stop(signal.SIGKILL) == -signal.SIGKILL

    def end(self):
        assert self.stop(signal.SIGINT) == 0

    def close(self):
        """Also when the test has failed in between."""
        if self._pid:
            self.stop(signal.SIGKILL)
        self._parent.communicate(timeout=30)


@pytest.fixture
def recording(history, tmp_path):
    recording = Recording(history, free_port(), tmp_path / "truth")
    yield recording
    recording.close()


def reported(truth):
    """What the program was told is committed: run id to the bits that were new, over all reports."""
    facts = {}
    for line in truth.read_text().splitlines():
        if len(fields := line.split(" ")) == 4:
            run, _, _, bits = fields
            facts.setdefault(run, []).append(int(bits))
    return facts


def stored(history):
    with closing(Queries(history, Settings())) as queries:
        return list(queries.iterate(Filter()))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_after_any_kill_every_committed_run_is_there_once_and_counters_never_fell(
    history, recording, prometheus
):
    prometheus.scrape([f"127.0.0.1:{recording.port}"], scrape_interval=0.2)

    begin = time.time()
    for _ in range(KILLS):
        recording.start()
        time.sleep(random.uniform(0.05, 0.8))
        recording.kill()
    recording.start("idle")
    until(lambda: not in_progress(history), what="the end of every run that was in progress")
    statuses = Counter(run.status for run in stored(history))
    until(lambda: counted(prometheus) == statuses, what="a scrape of what is stored")
    recording.end()

    committed = reported(recording.truth)
    assert len(committed) > KILLS
    assert {parse(run) for run in committed} <= {run.id for run in stored(history)}, (
        "a committed run is missing"
    )
    assert set(per_bit(committed).values()) == {1}, "a fact was reported twice"
    assert statuses["unknown"] >= KILLS / 4, "runs that were in progress are lost"
    check_increase(prometheus, f"{int(time.time() - begin) + 60}s", statuses)


def per_bit(committed):
    """How often each fact of each run was reported."""
    return Counter(
        (run, bit)
        for run, reports in committed.items()
        for bits in reports
        for bit in ENDINGS.values()
        if bits & bit
    )


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_after_any_kill_of_a_collector_whatever_it_acknowledged_is_there_once_and_counted(history, recording):
    senders = [Sender(f"sender-{number}", [recording.port]) for number in range(3)]
    for sender in senders:
        sender.start()

    for _ in range(COLLECTOR_KILLS):
        recording.start("idle")
        enough = acknowledged(senders) + random.randint(5, 40)
        until(lambda enough=enough: acknowledged(senders) >= enough, what="answers under load")
        recording.kill()
    recording.start("idle")
    for sender in senders:
        sender.stop()

    expected = sum((sender.statuses for sender in senders), Counter())
    assert Counter(run.status for run in stored(history)) == expected
    assert len({run.id for run in stored(history)}) == expected.total() > 100 * COLLECTOR_KILLS
    assert exported(recording.port) == expected
    recording.end()


@pytest.mark.slow
def test_two_collectors_of_one_history_count_once_what_both_are_told_in_any_order(postgres_url, tmp_path):
    collectors = [Recording(postgres_url, free_port(), tmp_path / "truth") for _ in range(2)]
    with ExitStack() as stack:
        for collector in collectors:
            stack.callback(collector.close)
            collector.start("idle")
        ports = [collector.port for collector in collectors]
        senders = [Sender(f"sender-{number}", ports, everybody=number % 2 == 0) for number in range(4)]
        for sender in senders:
            sender.start()
        until(lambda: acknowledged(senders) > 120, what="answers under load")
        for sender in senders:
            sender.stop()

        expected = sum((sender.statuses for sender in senders), Counter())
        each = [exported(port) for port in ports]
        assert each[0] + each[1] == expected
        assert all(each), "both have counted"
        assert Counter(run.status for run in stored(postgres_url)) == expected


def acknowledged(senders):
    return sum(sender.acknowledged for sender in senders)


def exported(port):
    """Runs by status, as one process exports them."""
    found = Counter()
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("taskscope_runs_total{"):
                labels, _, value = line.rpartition(" ")
                found[labels.partition('status="')[2].partition('"')[0]] += int(float(value))
    return +found


def in_progress(history):
    return [run for run in stored(history) if run.status in ("queued", "started")]


def counted(prometheus):
    found = prometheus.query("sum by (status) (taskscope_runs_total) > 0")
    return {row["metric"]["status"]: float(row["value"][1]) for row in found}


def check_increase(prometheus, window, statuses):
    """Prometheus saw no counter fall, and what it adds up is what happened.

    At both ends it adds up to half the time between two scrapes, of which many find nobody.
    """
    assert prometheus.query(f"max(resets(taskscope_runs_total[{window}])) > 0") == []
    for status, runs in statuses.items():
        selector = f'taskscope_runs_total{{status="{status}"}}'
        first = sum(float(row["values"][0][1]) for row in prometheus.query(f"{selector}[{window}]"))
        increase = prometheus.value(f"sum(increase({selector}[{window}]))")
        assert runs - first == pytest.approx(increase, rel=0.15, abs=1)
