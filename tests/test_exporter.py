"""Watching, in all the ways a program may want it; and leaving it as it was."""

import asyncio
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import CollectorRegistry, generate_latest

import taskscope
from services.process import until
from taskscope.api.server import bound
from taskscope.testing import FakeScheduler, Recorder


def nothing():
    pass


def get(url):
    with urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def count(exporter, job, status="success"):
    """The exported counter of a job."""
    exporter.refresh()
    page = b"".join(exporter.metrics.render().blocks).decode()
    found = [line for line in page.splitlines() if line.startswith("taskscope_runs_total{")]
    wanted = [line for line in found if f'job_name="{job}"' in line and f'status="{status}"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in wanted)


@pytest.fixture
def scheduler():
    scheduler = BackgroundScheduler(timezone="UTC")
    yield scheduler
    if scheduler.running:
        scheduler.shutdown()


@pytest.fixture
def history(tmp_path):
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def threads():
    """The names of those threads of ours that did not exist before the test: other tests keep servers of their own."""
    before = set(threading.enumerate())
    return lambda: {
        thread.name
        for thread in threading.enumerate()
        if thread not in before and thread.name.startswith("taskscope")
    }


@pytest.mark.parametrize("first", ["watch", "start"])
def test_it_watches_before_and_after_the_scheduler_starts(scheduler, history, first):
    if first == "start":
        scheduler.start()
    exporter = taskscope.watch(scheduler, history=history, port=0)
    if first == "watch":
        scheduler.start()
    scheduler.add_job(nothing, id="nightly")

    until(lambda: count(exporter, "nightly") == 1)
    assert 'job_name="nightly"' in get(f"{exporter.url}/metrics")
    exporter.close()


def test_it_watches_several_schedulers_under_names_of_their_own(scheduler):
    other, third = FakeScheduler(), FakeScheduler()
    with taskscope.Exporter(other, scheduler, third, history=None, port=None) as exporter:
        other.job("j").run()
        third.job("j").run()
        until(lambda: count(exporter, "j") == 2)

        assert {key[0] for key in exporter.live.jobs} == {"fake", "fake-2"}
        until(lambda: set(exporter.live.schedulers) == {"fake", "fake-2", "apscheduler"})


def test_the_user_names_schedulers():
    scheduler = FakeScheduler()
    with taskscope.Exporter(scheduler, names=["billing"], history=None, port=None) as exporter:
        scheduler.job("j").run()
        until(lambda: ("billing", "j") in exporter.live.jobs)


@pytest.mark.parametrize(
    ("arguments", "names", "sentence"),
    [
        ([object()], [], "cannot be watched"),
        ([FakeScheduler()], ["a", "b"], "1 schedulers and 2 names"),
        ([FakeScheduler(), FakeScheduler()], ["a", "a"], "two schedulers are called 'a'"),
    ],
)
def test_a_wrong_argument_is_refused_with_a_sentence(arguments, names, sentence):
    with pytest.raises(taskscope.BadArgument, match=sentence):
        taskscope.Exporter(*arguments, names=names, history=None, port=None)


def test_schedulers_are_named_by_hand_or_after_the_service():
    one, other = FakeScheduler(), FakeScheduler()

    def named(*schedulers, **given):
        exporter = taskscope.Exporter(*schedulers, history=None, port=None, **given)
        return [post.name for post in exporter._roster]

    assert named(one, other) == ["fake", "fake-2"]
    assert named(one, other, service="billing") == ["billing", "billing-2"]
    assert named(one, other, service="billing", names=["invoices", "imports"]) == ["invoices", "imports"]


def test_a_wrong_setting_is_refused_with_a_sentence():
    with pytest.raises(taskscope.BadArgument, match="port"):
        taskscope.Exporter(history=None, port="many")


def test_under_asyncio_it_joins_the_running_loop(history, threads):
    async def scene():
        scheduler = AsyncIOScheduler(timezone="UTC")
        before = threading.active_count()
        async with taskscope.Exporter(scheduler, history=history, port=0) as exporter:
            scheduler.start()
            scheduler.add_job(asyncio.sleep, args=[0], id="nightly")
            while count(exporter, "nightly") != 1:
                await asyncio.sleep(0.02)
            page = await asyncio.to_thread(get, f"{exporter.url}/metrics")
            assert "taskscope-http" not in threads()
            scheduler.shutdown()
        return page, before

    page, _ = asyncio.run(asyncio.wait_for(scene(), 30))
    assert 'job_name="nightly"' in page


def test_a_program_that_exposes_its_own_registry_registers_a_collector(scheduler, history):
    registry = CollectorRegistry()
    scheduler.start()
    exporter = taskscope.Exporter(scheduler, history=history, port=None)
    registry.register(exporter.collector())
    scheduler.add_job(nothing, id="nightly")

    until(lambda: count(exporter, "nightly") == 1)
    page = generate_latest(registry).decode()
    assert 'taskscope_runs_total{job_name="nightly",scheduler="apscheduler",status="success"} 1.0' in page
    assert "\nprocess_cpu_seconds_total" not in page
    exporter.close()


def test_close_leaves_no_thread_listener_or_hook_behind(scheduler, history):
    scheduler.start()
    executor = scheduler._lookup_executor("default")
    before = (set(threading.enumerate()), dict(vars(executor)), list(scheduler._listeners))
    exporter = taskscope.watch(scheduler, history=history, port=0)
    port = int(exporter.url.rpartition(":")[2])

    exporter.close()
    exporter.close()

    assert (set(threading.enumerate()), dict(vars(executor)), list(scheduler._listeners)) == before
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    ran = threading.Event()
    scheduler.add_job(ran.set, id="afterwards")
    assert ran.wait(10)
    until(lambda: not scheduler.get_jobs())


def test_without_history_there_is_nothing_on_disk(scheduler, tmp_path, monkeypatch):
    monkeypatch.setenv("TASKSCOPE_HOME", str(tmp_path))
    with taskscope.Exporter(scheduler, history=None, port=0) as exporter:
        scheduler.start()
        scheduler.add_job(nothing, id="nightly")
        until(lambda: count(exporter, "nightly") == 1)
        assert list(tmp_path.iterdir()) == []


def test_a_taken_port_is_one_sentence_and_the_program_goes_on(scheduler, history, caplog):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with taskscope.Exporter(scheduler, history=history, port=port) as exporter:
            scheduler.start()
            scheduler.add_job(nothing, id="nightly")
            until(lambda: count(exporter, "nightly") == 1)

            assert str(port) in exporter.degraded["port"]
            assert exporter.url is None
            page = b"".join(exporter.metrics.render().blocks).decode()
            assert 'taskscope_degraded{reason="port"} 1.0' in page
    assert len([record for record in caplog.records if str(port) in record.getMessage()]) == 1


@pytest.mark.parametrize(
    "history", ["sqlite:////proc/nowhere/runs.db", "postgresql://nobody@127.0.0.1:1/none"]
)
def test_with_strict_whatever_does_not_work_is_raised(scheduler, history, threads):
    with pytest.raises(taskscope.Unavailable):
        taskscope.Exporter(scheduler, history=history, port=None, strict=True).start()

    assert not threads()


def in_a_child(exporter, scheduler, answer):
    scheduler.job("j").run()
    answer.put(
        (exporter.pipeline.dropped, [thread.name for thread in threading.enumerate()], exporter.url is None)
    )


def test_a_forked_child_is_no_second_owner(history):
    scheduler, seen = FakeScheduler(), Recorder()
    fork = multiprocessing.get_context("fork")
    answer = fork.Queue()
    with taskscope.Exporter(scheduler, sinks=[seen], history=history, port=0) as exporter:
        scheduler.job("j").run()
        until(lambda: count(exporter, "j") == 1)
        child = fork.Process(target=in_a_child, args=(exporter, scheduler, answer))
        child.start()
        dropped, threads, silent = answer.get(timeout=20)
        child.join(20)

        assert dropped == {}, "the child is not watched: its hooks are inert"
        assert not [name for name in threads if name.startswith("taskscope")]
        assert silent
        scheduler.job("j").run()
        until(lambda: count(exporter, "j") == 2)
        assert get(f"{exporter.url}/-/healthy")
    assert len(seen.runs("j")) == 2


def test_a_child_that_was_forked_under_asyncio_lets_go_of_the_port(history):
    async def scene():
        async with taskscope.Exporter(FakeScheduler(), history=history, port=0) as exporter:
            child.start()
            return int(exporter.url.rpartition(":")[2])

    child = multiprocessing.get_context("fork").Process(target=signal.pause)
    port = asyncio.run(scene())
    try:
        until(lambda: is_free(port), what="a free port")
    finally:
        child.kill()
        child.join()


def is_free(port):
    try:
        bound("127.0.0.1", port).close()
    except taskscope.Unavailable:
        return False
    return True


def collects(registry, answer):
    answer.put(generate_latest(registry).decode())


def test_a_child_that_was_forked_while_we_held_a_lock_does_not_hang(history):
    fork, registry = multiprocessing.get_context("fork"), CollectorRegistry()
    answer = fork.Queue()
    exporter = taskscope.Exporter(FakeScheduler(), history=history, port=None)
    registry.register(exporter.collector())
    with exporter.metrics._lock, exporter.live.lock:
        child = fork.Process(target=collects, args=(registry, answer))
        child.start()
    try:
        assert answer.get(timeout=20) == ""
        child.join(20)
    finally:
        exporter.close()


def test_under_asyncio_nothing_is_left_of_an_exporter_that_took_over(history, threads):
    async def scene():
        first = taskscope.watch(FakeScheduler(), history=history, port=0)
        port = int(first.url.rpartition(":")[2])
        async with taskscope.Exporter(FakeScheduler(), history=history, port=port) as second:
            await asyncio.to_thread(first.close)
            while second.url is None:
                await asyncio.sleep(0.05)
            assert await asyncio.to_thread(get, f"{second.url}/-/healthy")
        return port

    port = asyncio.run(asyncio.wait_for(scene(), 60))

    assert not threads()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_program_that_just_ends_loses_nothing(history, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import taskscope\n"
        "from taskscope.testing import FakeScheduler\n"
        "scheduler = FakeScheduler()\n"
        f"taskscope.watch(scheduler, history={history!r}, port=0)\n"
        "for _ in range(200): scheduler.job('j').run()\n"
    )
    ended = subprocess.run([sys.executable, program], capture_output=True, timeout=60, check=False)

    assert (ended.returncode, ended.stderr) == (0, b"")
    with taskscope.Exporter(FakeScheduler(), names=["fake"], history=history, port=None) as exporter:
        assert count(exporter, "j") == 200


def test_a_full_disk_is_one_sentence_and_it_recovers(scheduler, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root")
    with mounted(tmp_path / "disk") as disk:
        check_full_disk(disk)


@contextmanager
def mounted(place: Path) -> Iterator[Path]:
    """A small file system."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def check_full_disk(disk: Path):
    scheduler = FakeScheduler()
    with taskscope.Exporter(scheduler, history=f"sqlite:///{disk}/runs.db", port=0) as exporter:
        scheduler.job("j").run()
        until(lambda: count(exporter, "j") == 1)
        ballast = fill(disk)

        runs = 1
        while "store" not in exporter.degraded:
            scheduler.burst(200, jobs=1)
            runs += 200
            until(lambda: exporter.pipeline.backlog == 0 or exporter.degraded)
            assert runs < 200_000
        assert get(f"{exporter.url}/metrics")

        ballast.unlink()
        until(
            lambda: count(exporter, "j") + count(exporter, "burst-0") == runs, timeout=60, what="catching up"
        )
        assert exporter.degraded == {}
        assert exporter.pipeline.dropped == {}


def fill(disk: Path):
    """Leave just some pages of room."""
    free = os.statvfs(disk)
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - 65536)
    return ballast


@contextmanager
def on_a_disk(place: Path) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A directory, and what makes it `ro` or `rw`: a mount for root, to whom permissions mean nothing."""
    if os.geteuid() == 0:
        with mounted(place) as disk:
            remount = ["mount", "-o", "remount,{}", str(disk)]
            yield (
                disk,
                lambda how: subprocess.run([word.format(how) for word in remount], check=True) and None,
            )
    else:
        place.mkdir()
        yield place, lambda how: place.chmod({"ro": 0o555, "rw": 0o755}[how])
        place.chmod(0o755)


def sample(page: str, name: str) -> float:
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))


@pytest.mark.parametrize("before", [0, 3], ids=["no history yet", "a history there"])
def test_a_disk_that_is_read_only_is_one_sentence_gauges_go_on_and_it_recovers(tmp_path, caplog, before):
    scheduler = FakeScheduler()
    job = scheduler.job("nightly")
    with on_a_disk(tmp_path / "disk") as (disk, make):
        history = f"sqlite:///{disk}/runs.db"
        if before:
            with taskscope.Exporter(scheduler, history=history, port=None):
                for _ in range(before):
                    job.run()
        make("ro")
        with taskscope.Exporter(scheduler, history=history, port=0) as exporter:
            check_read_only(exporter, job, disk)
            make("rw")
            until(lambda: count(exporter, "nightly") == before + 2, timeout=60, what="catching up")

            page = get(f"{exporter.url}/metrics")
            assert sample(page, "taskscope_store_up") == 1
            assert sample(page, "taskscope_degraded{") == 0
            assert (exporter.degraded, exporter.pipeline.dropped) == ({}, {})
            assert get(f"{exporter.url}/-/ready")
            assert f'"total":{before + 2},' in get(f"{exporter.url}/api/task/")
    assert len([record for record in caplog.records if str(disk) in record.getMessage()]) == 1


def check_read_only(exporter, job, disk: Path):
    assert str(disk) in exporter.degraded["store"]
    job.run()
    running = job.start()
    until(lambda: sample(get(f"{exporter.url}/metrics"), "taskscope_runs_in_progress{") == 1)
    page = get(f"{exporter.url}/metrics")
    assert sample(page, "taskscope_job_last_success_timestamp_seconds{") > 0
    assert sample(page, "taskscope_store_up") == 0
    assert sample(page, 'taskscope_degraded{reason="store"}') == 1
    assert sample(page, "taskscope_pipeline_lag_seconds") > 0
    assert sample(page, "taskscope_runs_total{") == 0, "counters stand still"
    with pytest.raises(HTTPError, match="503"):
        get(f"{exporter.url}/-/ready")
    running.end()
