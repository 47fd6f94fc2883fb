import os
import signal
import sys
from pathlib import Path

import pytest
from histories import done, opened, python, stored

from taskscope.errors import NotOwner, Unavailable
from taskscope.settings import Settings
from taskscope.sinks.history import owner as owners
from taskscope.sinks.history.owner import Owner, default_path, file_system
from taskscope.sinks.history.sql import SqlStore

HOLD = """
import sys
from pathlib import Path
from taskscope.sinks.history.owner import Owner
owner = Owner(Path(sys.argv[1])); owner.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_owner_is_told_which_process_holds_the_file(tmp_path: Path):
    held = Owner(tmp_path / "runs.db")
    held.acquire()

    with pytest.raises(NotOwner, match=f"{tmp_path}/runs.db is owned by process {os.getpid()};"):
        Owner(tmp_path / "runs.db").acquire()

    held.close()
    Owner(tmp_path / "runs.db").acquire()


def test_a_second_store_of_the_same_file_does_not_open(sqlite_url: str):
    with opened(sqlite_url) as store:
        with pytest.raises(NotOwner):
            SqlStore(sqlite_url, Settings()).open()
        store.apply([done(1)])

    with opened(sqlite_url) as store:
        assert store.totals()["s", "job"].statuses == {"success": 1}


def test_a_store_that_was_never_opened_does_not_write(sqlite_url: str):
    with pytest.raises(NotOwner, match="open it first"):
        SqlStore(sqlite_url, Settings()).apply([done(1)])


def test_the_lock_frees_when_its_process_is_killed(tmp_path: Path):
    with python(HOLD, str(tmp_path / "runs.db"), stdin=-1) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(NotOwner, match=f"process {other.pid};"):
            Owner(tmp_path / "runs.db").acquire()
        other.send_signal(signal.SIGKILL)
        other.wait()

    mine = Owner(tmp_path / "runs.db")
    mine.acquire()
    assert mine.held
    mine.close()


def in_child(work: object) -> int:
    """The exit code of a forked child that does this work: 0 unless it raises."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()  # type: ignore[operator]
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@needs_fork
def test_a_forked_child_does_not_write_and_leaves_its_parent_writing(history_url: str):
    with opened(history_url) as store:
        store.apply([done(1)])

        def child() -> None:
            with pytest.raises(NotOwner):
                store.apply([done(2)])
            with pytest.raises(NotOwner):
                store.open()
            store.close()

        assert in_child(child) == 0
        assert store.apply([done(3)]).totals["s", "job"].statuses == {"success": 2}
    assert len(stored(history_url)) == 2


@needs_fork
def test_a_forked_child_neither_takes_the_file_over_nor_lets_it_go(sqlite_url: str):
    with opened(sqlite_url) as store:

        def child() -> None:
            with pytest.raises(NotOwner):
                SqlStore(sqlite_url, Settings()).open()
            store.close()

        assert in_child(child) == 0
        with pytest.raises(NotOwner):
            SqlStore(sqlite_url, Settings()).open()


@needs_fork
def test_a_child_that_outlives_the_owner_does_not_keep_the_lock(tmp_path: Path):
    mine = Owner(tmp_path / "runs.db")
    mine.acquire()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)

    mine.close()
    next_owner = Owner(tmp_path / "runs.db")
    next_owner.acquire()

    assert next_owner.held
    next_owner.close()
    os.close(writing)
    os.waitpid(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is mounted where")
def test_a_network_file_system_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
        "36 21 0:40 / /mnt/far\\040away rw,relatime shared:1 - nfs4 server:/export rw\n"
    )
    monkeypatch.setattr(owners, "_MOUNTS", mounts)

    with pytest.raises(Unavailable, match=r"is on a network file system \(nfs4\); use a local disk"):
        Owner(Path("/mnt/far away/runs.db")).acquire()
    assert file_system(tmp_path / "x" / "runs.db") == "ext4"
    assert file_system(tmp_path, mounts=tmp_path / "none") == ""


def test_the_file_is_where_the_environment_says():
    state = {"XDG_STATE_HOME": "/state", "HOME": "/home/me"}

    assert default_path("billing", state | {"TASKSCOPE_HOME": "/ts"}) == Path("/ts/billing.db")
    assert default_path("billing", state) == Path("/state/taskscope/billing.db")
    assert default_path("billing", {"HOME": "/home/me"}) == Path("/home/me/.local/state/taskscope/billing.db")
    assert default_path("../a b/c", state) == Path("/state/taskscope/_a_b_c.db")
    assert default_path("", state) == Path("/state/taskscope/taskscope.db")
