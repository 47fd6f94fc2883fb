"""Several processes with one history: one owns it, the others hand on what they see, and take over with it."""

import multiprocessing
import os
import socket
import stat
import threading
import time
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

import taskscope
from services.ingesting import receiving
from services.process import until
from taskscope.bridges.fake import FakeBridge
from taskscope.errors import NotOwner
from taskscope.events import Fact
from taskscope.settings import JobRule, Settings
from taskscope.sinks.forward.address import Address
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter
from taskscope.testing import FakeScheduler

needs_sockets = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no socket files")
pytestmark = needs_sockets
FORK = multiprocessing.get_context("fork")


def nothing():
    pass


@pytest.fixture
def history(tmp_path):
    return f"sqlite:///{tmp_path}/runs.db"


@pytest.fixture
def socket_file(tmp_path):
    return tmp_path / "runs.db.sock"


def stored(history):
    """How many runs of each job the history holds, by status."""
    with closing(Queries(history, Settings())) as queries:
        found = [(run.job, run.status) for run in queries.iterate(Filter())]
    return {kind: found.count(kind) for kind in set(found)}


def counted(exporter, job, status="success"):
    """The exported counter of a job."""
    exporter.refresh()
    page = b"".join(exporter.metrics.render().blocks).decode()
    found = [line for line in page.splitlines() if line.startswith("taskscope_runs_total{")]
    return sum(
        float(line.rpartition(" ")[2])
        for line in found
        if f'job_name="{job}"' in line and f'status="{status}"' in line
    )


def test_a_second_process_hands_on_what_it_sees(history, caplog):
    first, second = FakeScheduler(), FakeScheduler()
    with (
        taskscope.Exporter(first, history=history, port=0) as owner,
        taskscope.Exporter(second, history=history, port=0) as member,
    ):
        first.job("j").run()
        second.job("j").run()
        second.job("k").run(fails=LookupError("no such key"))
        assert member.flush(10)

        until(lambda: counted(owner, "j") == 2 and counted(owner, "k", "failed") == 1)
        assert member.degraded == {}
        assert member._own(0.0).store == "", "it is there, elsewhere"
        assert all(part.ready for part in member.ready())
        assert member.url is None
        assert member.pipeline.dropped == {}
    assert stored(history) == {("j", "success"): 2, ("k", "failed"): 1}
    assert not [thread for thread in threading.enumerate() if thread.name == "taskscope-forward"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_what_waits_is_not_lost_when_the_owner_goes(history, socket_file):
    first, second = FakeScheduler(), FakeScheduler()
    owner = taskscope.watch(first, history=history, port=0)
    member = taskscope.watch(second, history=history, port=int(owner.url.rpartition(":")[2]))
    until(lambda: member.pipeline.failure is not None)
    owner.close()
    second.burst(500, jobs=1)

    until(lambda: member.url, what="taking over")
    second.burst(500, jobs=1)
    assert member.flush(10)
    assert stored(history) == {("burst-0", "success"): 1_000}
    assert counted(member, "burst-0") == 1_000
    assert (member.degraded, member.pipeline.dropped) == ({}, {})
    assert socket_file.is_socket()

    third = FakeScheduler()
    with taskscope.Exporter(third, history=history, port=None) as another:
        third.job("j").run()
        assert another.flush(10)
        assert stored(history)["j", "success"] == 1
    member.close()


def test_at_its_end_a_member_whose_owner_is_gone_stores_by_itself(history):
    first, second = FakeScheduler(), FakeScheduler()
    owner = taskscope.watch(first, history=history, port=None)
    member = taskscope.watch(second, history=history, port=None)
    owner.close()
    second.job("j").run()
    member.close()

    assert stored(history) == {("j", "success"): 1}


def test_an_owner_whose_history_took_long_to_open_takes_what_others_tell(history, socket_file, monkeypatch):
    monkeypatch.setattr("taskscope.exporter._PATIENCE", 0.1)
    owner, migrated = taskscope.Exporter(FakeScheduler(), history=history, port=None), threading.Event()
    opened = owner.store.open
    monkeypatch.setattr(owner.store, "open", lambda: migrated.wait(20) and opened())
    with owner:
        assert not socket_file.exists()
        migrated.set()
        until(lambda: answers(socket_file))


def test_the_socket_file_is_for_this_user_and_gone_with_the_owner(history, socket_file):
    with taskscope.Exporter(FakeScheduler(), history=history, port=None):
        assert stat.S_IMODE(socket_file.stat().st_mode) == 0o600
    assert not socket_file.exists()


def test_a_file_that_was_left_there_is_replaced(history, socket_file):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(socket_file))
    with taskscope.Exporter(FakeScheduler(), history=history, port=None):
        assert asked(socket_file, "/-/healthy") == 200


def test_another_processes_file_is_left_alone_at_the_end(history, socket_file):
    with taskscope.Exporter(FakeScheduler(), history=history, port=None):
        socket_file.unlink()
        socket_file.write_text("somebody else's")
    assert socket_file.read_text() == "somebody else's"


def test_there_are_probes_and_the_intake_and_no_token_is_needed(history, socket_file):
    token = taskscope.settings.Token(name="x", sha256="0" * 64, scopes=("metrics",))
    with taskscope.Exporter(FakeScheduler(), history=history, port=0, tokens=[token]):
        assert asked(socket_file, "/-/healthy") == 200
        assert asked(socket_file, "/-/ready") == 200
        with closing(Address(f"unix://{socket_file}")) as address:
            assert b'"accepted":0' in address.post("/api/ingest/events", b"[]")
        for path in ("/", "/metrics", "/api/task/", "/api/job/", "/sd", "/api/openapi.json"):
            assert asked(socket_file, path) == 404


def answers(file: Path) -> bool:
    with suppress(OSError):
        return asked(file, "/-/healthy") == 200
    return False


def asked(file: Path, path: str) -> int:
    with closing(HTTPConnection("localhost")) as connection:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(file))
        connection.request("GET", path)
        return connection.getresponse().status


def test_a_path_that_is_too_long_is_a_sentence_on_both_sides(tmp_path, caplog):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    first, second, history = FakeScheduler(), FakeScheduler(), f"sqlite:///{folder}/runs.db"
    with taskscope.Exporter(first, history=history, port=None) as owner:
        assert caplog.text.count("more than 107 bytes") == 1
        assert owner.degraded == {}, "it lacks nothing itself"
        first.job("j").run()
        assert owner.flush(10)
        with taskscope.Exporter(second, history=history, port=None) as member:
            second.job("j").run()
            until(lambda: "too long" in member.degraded.get("member", ""))
            assert not member.ready()[0].ready
            owner.close()
            until(lambda: not member.degraded)
    assert stored(history) == {("j", "success"): 2}


def test_where_there_are_no_socket_files_a_second_process_counts_what_it_drops(history, monkeypatch, caplog):
    first, second = FakeScheduler(), FakeScheduler()
    with taskscope.Exporter(first, history=history, port=None) as owner:
        monkeypatch.delattr(socket, "AF_UNIX")
        with taskscope.Exporter(second, history=history, port=None) as other:
            second.job("j").run()
            until(lambda: other.pipeline.dropped.get("member"))
            first.job("j").run()
            assert owner.flush(10)
            assert "is owned by process" in other.degraded["member"]
    assert caplog.text.count("is owned by process") == 1, "it warns once"
    assert stored(history) == {("j", "success"): 1}


def test_a_member_that_nobody_hears_is_degraded_until_it_is_heard_again(history, socket_file):
    first, second = FakeScheduler(), FakeScheduler()
    with taskscope.Exporter(first, history=history, port=None):
        hidden = socket_file.rename(socket_file.with_suffix(".hidden"))
        member = taskscope.watch(second, history=history, port=None)
        second.job("j").run()
        until(lambda: member.degraded)
        sentence = member.degraded["member"]
        assert "is owned by process" in sentence
        assert "does not answer" in sentence
        assert "end it or" not in sentence
        own = member._own(0.0)
        assert (own.store != "", dict(own.degraded)) == (True, {}), "told once"
        hidden.rename(socket_file)
        until(lambda: not member.degraded)
        assert member.flush(10)
        assert stored(history) == {("j", "success"): 1}
        member.close()


def test_a_member_that_nobody_hears_rests_and_comes_to_its_end(history, socket_file, monkeypatch):
    monkeypatch.setattr("taskscope.pipeline._FAREWELL", 0.5)
    second = FakeScheduler()
    with taskscope.Exporter(FakeScheduler(), history=history, port=None):
        socket_file.rename(socket_file.with_suffix(".hidden"))
        member = taskscope.watch(second, history=history, port=None)
        until(lambda: member.pipeline.failure is not None)
        second.job("j").run()
        pipeline, steps = member.pipeline, []
        step = pipeline._step
        monkeypatch.setattr(pipeline, "_step", lambda **how: steps.append(how) or step(**how))
        threading.Event().wait(1)
        assert len(steps) < 100, "at most one each flush_interval"
        member.close()

        assert not pipeline._thread.is_alive()
        assert pipeline.dropped == {"unsaved": 1}


def test_what_comes_in_while_the_history_becomes_anothers_is_handed_on(history):
    now = time.time()
    late = Fact(scheduler="s", native="n", status="success", at=now, anchor=now, job="late")
    with (
        taskscope.Exporter(FakeScheduler(), history=history, port=None),
        taskscope.Exporter(FakeScheduler(), history=history, port=None) as member,
    ):
        until(lambda: member.pipeline.failure is not None)
        member.pipeline._inlet._queue.append(late)  # by a thread that the handing on interrupted
        assert member.flush(10)
        assert stored(history) == {("late", "success"): 1}
    assert member.pipeline.dropped == {}


def test_with_strict_it_must_be_the_owner(history):
    with (
        taskscope.Exporter(FakeScheduler(), history=history, port=None),
        pytest.raises(NotOwner, match="owned by process"),
    ):
        taskscope.watch(FakeScheduler(), history=history, port=None, strict=True)


def test_the_owner_names_the_jobs_of_members_by_the_rules_that_both_have(history):
    first, second = FakeScheduler(), FakeScheduler()
    rules = [JobRule(match="a", name="b"), JobRule(match="b", name="c"), JobRule(match="secret", ignore=True)]
    with (
        taskscope.Exporter(first, history=history, port=None, jobs=rules) as owner,
        taskscope.Exporter(second, history=history, port=None, jobs=rules) as member,
    ):
        for scheduler in (first, second):
            scheduler.job("a").run()
            scheduler.job("secret").run()
        assert member.flush(10)
        assert owner.flush(10)
    assert stored(history) == {("b", "success"): 2}


def test_a_run_that_a_member_began_is_lost_when_the_member_is_gone(history):
    scheduler = FakeScheduler()
    with taskscope.Exporter(scheduler, history=history, port=None, heartbeat=0.2, lost_after=1.0) as owner:
        child = FORK.Process(target=begins_and_dies, args=(history,))
        child.start()
        child.join(20)
        assert child.exitcode == 7
        until(lambda: stored(history) == {("long", "unknown"): 1})
        until(lambda: counted(owner, "long", "unknown") == 1)


def begins_and_dies(history):
    scheduler = FakeScheduler()
    member = taskscope.watch(scheduler, history=history, port=None, heartbeat=0.2, lost_after=1.0)
    scheduler.job("long").start()
    os._exit(7 if member.flush(10) else 8)


def test_a_run_of_a_member_that_lives_is_not_lost(history):
    first, second = FakeScheduler(), FakeScheduler()
    how = {"history": history, "port": None, "heartbeat": 0.2, "lost_after": 1.0}
    with taskscope.Exporter(first, **how), taskscope.Exporter(second, **how) as member:
        run = second.job("long").start()
        for _ in range(15):  # heartbeats, three seconds of them
            second.job("tick").run().wait()
            assert member.flush(10)
            until_next_beat()
        run.end()
        assert member.flush(10)
        assert stored(history)["long", "success"] == 1


def until_next_beat():
    threading.Event().wait(0.2)


class TestForkedChildren:
    """Of a parent that is watched."""

    @pytest.fixture(autouse=True)
    def forks(self, monkeypatch):
        monkeypatch.setattr(FakeBridge, "forks", True)

    @pytest.fixture(params=["sqlite", "memory", "postgresql"])
    def history(self, request, tmp_path):
        if request.param == "memory":
            return None
        if request.param == "postgresql":
            return request.getfixturevalue("postgres_url")
        return f"sqlite:///{tmp_path}/runs.db"

    def test_one_that_resumes_hands_on_what_it_executes(self, history):
        scheduler, answer = FakeScheduler(), FORK.Queue()
        with taskscope.Exporter(scheduler, history=history, port=None) as exporter:
            for _ in range(2):
                child = FORK.Process(target=resumes, args=(exporter, scheduler, answer))
                child.start()
                instance, flushed, degraded = answer.get(timeout=30)
                child.join(20)
                assert f":{child.pid}:" in instance
                assert (flushed, degraded, child.exitcode) == (True, {}, 0)
            scheduler.job("j").run()
            until(lambda: counted(exporter, "j") == 3)

    def test_one_whose_parent_forwards_as_well_hands_on_to_its_parent(self, history):
        scheduler, answer, how = FakeScheduler(), FORK.Queue(), {"history": history, "port": 0}
        with (
            receiving() as receiver,
            taskscope.Exporter(scheduler, forward=receiver.url, **how) as exporter,
        ):
            child = FORK.Process(target=resumes, args=(exporter, scheduler, answer))
            child.start()
            assert answer.get(timeout=30)[1:] == (True, {})
            child.join(20)
            until(lambda: counted(exporter, "j") == 1)
            until(lambda: ("j", "success") in told(receiver))
        assert told(receiver).count(("j", "success")) == 1

    def test_the_end_of_one_sends_what_it_saw_and_leaves_its_parent_as_it_is(self, history):
        scheduler, closed = FakeScheduler(), FORK.Queue()
        with taskscope.Exporter(scheduler, history=history, port=None) as exporter:
            for number in (1, 2):
                child = FORK.Process(target=closes, args=(exporter, scheduler, closed))
                child.start()
                assert closed.get(timeout=30)
                child.join(20)
                until(lambda number=number: counted(exporter, "j") == number)
            assert exporter.degraded == {}

    def test_one_that_does_not_resume_is_not_watched(self, history):
        scheduler, answer = FakeScheduler(), FORK.Queue()
        with taskscope.Exporter(scheduler, history=history, port=None) as exporter:
            child = FORK.Process(target=does_not, args=(exporter, scheduler, answer))
            child.start()
            assert answer.get(timeout=30) == (False, [])
            child.join(20)
            scheduler.job("j").run()
            until(lambda: counted(exporter, "j") == 1)

    def test_a_grandchild_is_inert_until_it_resumes(self, history):
        scheduler, answer = FakeScheduler(), FORK.Queue()
        with taskscope.Exporter(scheduler, history=history, port=None) as exporter:
            child = FORK.Process(target=has_a_child, args=(exporter, scheduler, answer))
            child.start()
            answer.get(timeout=30)
            child.join(20)
            assert child.exitcode == 0
            until(lambda: counted(exporter, "j") == 2)


def resumes(exporter, scheduler, answer):
    (bridge,) = exporter._roster.bridges
    assert bridge.resume()
    assert exporter.resume_in_child(), "twice does no harm"
    scheduler.job("j").run()
    answer.put((bridge.instance, bridge.flush(10), exporter.degraded))


def told(receiver):
    """Jobs and statuses of the facts that it took."""
    events = [event for batch in receiver.batches for event in batch if event["type"] == "fact"]
    return [(event.get("job"), event["status"]) for event in events]


def closes(exporter, scheduler, answer):
    resumed = exporter.resume_in_child()
    scheduler.job("j").run()
    exporter.close()  # as the exit handlers do
    exporter.close()
    answer.put(resumed)


def does_not(exporter, scheduler, answer):
    scheduler.job("j").run()
    answer.put(
        (False, [thread.name for thread in threading.enumerate() if thread.name.startswith("taskscope")])
    )


def has_a_child(exporter, scheduler, answer):
    assert exporter.resume_in_child()
    scheduler.job("j").run()
    child = FORK.Process(target=is_a_grandchild, args=(exporter, scheduler))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    answer.put(exporter.flush(10))


def is_a_grandchild(exporter, scheduler):
    scheduler.job("unseen").run()
    assert exporter.resume_in_child()
    scheduler.job("j").run()
    os._exit(0 if exporter.flush(10) else 1)


def test_in_the_parent_resuming_changes_nothing(history):
    scheduler = FakeScheduler()
    with taskscope.Exporter(scheduler, history=history, port=None) as exporter:
        assert exporter.resume_in_child()
        scheduler.job("j").run()
        assert exporter.flush(10)
        assert counted(exporter, "j") == 1


def test_a_child_without_anybody_to_send_to_stays_as_it_is():
    scheduler = FakeScheduler()
    with taskscope.Exporter(scheduler, history=None, port=None) as exporter:
        pid = os.fork()
        if not pid:
            os._exit(3 if not exporter.resume_in_child() and exporter.flush(0.1) else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_a_bridge_that_cannot_be_attached_in_a_child_is_a_sentence_there(history, monkeypatch):
    scheduler = FakeScheduler()
    with taskscope.Exporter(scheduler, history=history, port=None) as exporter:
        monkeypatch.setattr(FakeBridge, "attach", lambda self, emit: 1 / 0)
        pid = os.fork()
        if not pid:
            os._exit(3 if not exporter.resume_in_child() else 4)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def test_without_forking_bridges_no_private_socket_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with taskscope.Exporter(FakeScheduler(), history=None, port=None):
        assert list(tmp_path.iterdir()) == []


def test_a_private_socket_is_gone_with_its_process(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(FakeBridge, "forks", True)
    with taskscope.Exporter(FakeScheduler(), history=None, port=None):
        (folder,) = tmp_path.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "taskscope.sock").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_may_watch_the_scheduler_it_inherited(history):
    scheduler, answer = BackgroundScheduler(timezone="UTC"), FORK.Queue()
    with taskscope.Exporter(scheduler, history=history, port=None) as exporter:
        child = FORK.Process(target=watches_again, args=(exporter, scheduler, answer))
        child.start()

        assert answer.get(timeout=30) == (True, {})
        child.join(20)
        assert child.exitcode == 0
        until(lambda: counted(exporter, "in-the-child") == 1)


def watches_again(exporter, scheduler, answer):
    own = taskscope.watch(scheduler, history=exporter.settings.history, port=None)
    scheduler.start()
    scheduler.add_job(nothing, id="in-the-child")
    until(lambda: not scheduler.get_jobs())
    scheduler.shutdown()
    answer.put((own.flush(10), own.degraded))
    own.close()


def test_what_was_left_on_disk_while_nobody_owned_the_history_comes_in(history, tmp_path):
    how = {
        "history": history,
        "port": None,
        "spool": str(tmp_path / "spool"),
        "heartbeat": 0.2,
        "lost_after": 1,
    }
    scheduler = FakeScheduler()
    with taskscope.Exporter(scheduler, **how) as exporter:
        pid = os.fork()
        if not pid:
            os.unlink(tmp_path / "runs.db.sock")  # nobody is there any more
            resumed = exporter.resume_in_child()
            scheduler.job("j").run()
            os._exit(0 if resumed and exporter.flush(5) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert list((tmp_path / "spool").glob("*/*"))
    assert stored(history) == {}

    with taskscope.Exporter(FakeScheduler(), **how):
        until(lambda: stored(history) == {("j", "success"): 1})
        until(lambda: not list((tmp_path / "spool").glob("*/*")))
