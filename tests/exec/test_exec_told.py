"""What a collector knows of wrapped commands, compared with what the commands say of themselves."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from wrapping import EXEC, Collector, Wrapper, is_gone


def test_a_success_is_told_with_times_trace_and_who_it_was(wrapper: Wrapper, collector: Collector):
    begin = time.time()

    done = wrapper.shell("echo $TRACEPARENT; sleep 0.3; date +%s.%N", "--job", "nap")

    end = float(done.stdout.split()[1])
    run = collector.run(wrapper.scheduler)
    assert (run["task"], run["status"], run["reason"]) == ("nap", "success", None)
    assert run["trace_id"] == done.stdout.decode().split("-")[1]
    assert 300 <= run["duration"] <= (end - begin) * 1000 + 50
    assert run["worker"] == run["details"]["host"] == os.uname().nodename
    assert run["details"]["exit_code"] == 0
    assert run["details"]["command"] == ["sh", "-c", "echo $TRACEPARENT; sleep 0.3; date +%s.%N"]


def test_cpu_and_memory_are_what_the_command_measures_itself(wrapper: Wrapper, collector: Collector):
    script = (
        "import resource as r, time, json\nblock = b'x' * 80_000_000\n"
        "while time.process_time() < 0.4: pass\n"
        "u = r.getrusage(r.RUSAGE_SELF); print(json.dumps([u.ru_utime + u.ru_stime, u.ru_maxrss * 1024]))"
    )

    cpu, rss = json.loads(wrapper.run("--", sys.executable, "-c", script).stdout)

    details = collector.run(wrapper.scheduler)["details"]
    assert cpu <= details["cpu_seconds"] <= cpu + 0.2
    assert details["cpu_user_seconds"] + details["cpu_system_seconds"] == pytest.approx(
        details["cpu_seconds"]
    )
    assert rss <= details["max_rss_bytes"] <= rss + 2**22


FAILS = "echo first >&2; echo password=hunter2 >&2; echo 'the last word' >&2; exit 7"


def test_a_failure_is_told_with_exit_code_and_the_end_of_stderr(wrapper: Wrapper, collector: Collector):
    wrapper.shell(FAILS, "--job", "broken")

    run = collector.run(wrapper.scheduler)
    assert (run["status"], run["reason"], run["details"]["exit_code"]) == ("failed", "error", 7)
    assert (run["exception"], run["message"]) == ("exit 7", "the last word")
    assert run["stack_trace"].startswith("first\n")
    assert "hunter2" not in json.dumps(run)


@pytest.mark.parametrize("where", ["file", "appended", "null", "stdout"])
def test_the_end_of_stderr_is_known_wherever_it_goes(
    wrapper: Wrapper, collector: Collector, tmp_path: Path, where: str
):
    log = tmp_path / "log"
    log.write_text("of an earlier run\n")
    opened = {"file": "wb", "appended": "ab", "null": "wb", "stdout": "ab"}[where]
    with open(os.devnull if where == "null" else log, opened) as file:
        both = {"stdout": file} if where == "stdout" else {}
        wrapper.shell(FAILS, stderr=file, **both)

    assert collector.run(wrapper.scheduler)["stack_trace"].startswith("first\npassword")
    kept = {"file": "", "appended": "of an earlier run\n", "stdout": "of an earlier run\n"}
    if where != "null":
        assert log.read_text() == kept[where] + "first\npassword=hunter2\nthe last word\n"


def test_only_the_end_of_a_long_stderr_is_kept(wrapper: Wrapper, collector: Collector):
    done = wrapper.shell("seq 200000 >&2; exit 1", "--tail", "1000")

    assert done.stderr == b"".join(b"%d\n" % number for number in range(1, 200001))
    run = collector.run(wrapper.scheduler)
    assert run["message"] == "200000"
    assert run["stack_trace"] == done.stderr[-1000:].decode()


def test_without_a_tail_stderr_is_left_alone(wrapper: Wrapper, collector: Collector):
    done = wrapper.shell("readlink /proc/self/fd/2; readlink /proc/$PPID/fd/2; exit 1", "--tail", "0")

    assert len(set(done.stdout.split())) == 1
    assert collector.run(wrapper.scheduler)["stack_trace"] in ("", None)


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "exit 0", "--password", "hunter2"],
        ["sh", "-c", "exit 0", "--password=hunter2"],
        ["env", "PGPASSWORD=hunter2", "true"],
        ["sh", "-c", "exit 0", "postgresql://me:hunter2@db/shop"],
    ],
    ids=lambda words: words[-1],
)
def test_secrets_of_the_command_line_are_hidden(wrapper: Wrapper, collector: Collector, command: list[str]):
    wrapper.run("--schedule", "0 3 * * *", "--", *command)

    assert "***" in json.dumps(collector.run(wrapper.scheduler))
    assert "hunter2" not in json.dumps(collector.run(wrapper.scheduler))
    assert "hunter2" not in json.dumps(collector.ask("/api/job/", scheduler=wrapper.scheduler))


def test_a_command_that_a_signal_ended_says_which(wrapper: Wrapper, collector: Collector):
    wrapper.shell("kill -KILL $$")

    run = collector.run(wrapper.scheduler)
    assert (run["status"], run["reason"], run["exception"]) == ("failed", "killed", "SIGKILL")
    assert run["details"]["signal"] == "SIGKILL"


def test_one_that_takes_too_long_is_asked_to_end(wrapper: Wrapper, collector: Collector):
    done = wrapper.shell("trap 'echo sorry >&2; exit 0' TERM; while :; do :; done", "--timeout", "0.3")

    assert (done.returncode, done.stderr) == (124, b"sorry\n")
    run = collector.run(wrapper.scheduler)
    assert (run["status"], run["reason"], run["exception"]) == ("failed", "timeout", "Timeout")


def test_one_that_will_not_end_is_killed_with_all_its_children(wrapper: Wrapper, collector: Collector):
    script = "trap '' TERM; (trap '' TERM; echo $(exec sh -c 'echo $PPID'); sleep 60) & wait; sleep 60"
    begin = time.monotonic()

    done = wrapper.shell(script, "--timeout", "300ms", "--kill-after", "0.3s")

    assert done.returncode == -signal.SIGKILL
    assert 0.6 <= time.monotonic() - begin < 10
    assert is_gone(int(done.stdout))
    run = collector.run(wrapper.scheduler)
    assert (run["status"], run["reason"], run["details"]["signal"]) == ("failed", "timeout", "SIGKILL")


def test_children_that_survive_a_command_that_was_asked_to_end_are_killed_later(wrapper: Wrapper):
    done = wrapper.shell(
        "(trap '' TERM; sleep 60 & echo $!; wait; sleep 60) & wait", "--timeout", "0.3", "--kill-after", "0.3"
    )

    assert done.returncode == -signal.SIGTERM
    assert is_gone(int(done.stdout))


def test_a_run_that_overlaps_is_skipped(wrapper: Wrapper, collector: Collector):
    first = wrapper.start(
        "--job", "slow", "--lock", "--", "sh", "-c", "echo up; read line", stdin=subprocess.PIPE
    )
    assert first.stdout is not None
    first.stdout.readline()

    second = wrapper.run("--job", "slow", "--lock", "--", "echo", "twice")
    third = wrapper.run("--job", "slow", "--lock", "--lock-exit-code", "0", "--", "echo", "twice")
    other = wrapper.run("--job", "other", "--lock", "--", "echo", "once")
    unlocked = wrapper.run("--job", "slow", "--", "echo", "once")
    first.communicate(b"\n", timeout=20)
    after = wrapper.run("--job", "slow", "--lock", "--", "echo", "once")

    assert [done.returncode for done in (second, third, other, unlocked, first, after)] == [75, 0, 0, 0, 0, 0]
    assert [done.stdout for done in (second, third, other, unlocked, after)] == [b"", b"", *[b"once\n"] * 3]
    told = sorted(
        (run["task"], run["status"], run["reason"] or "") for run in collector.runs(wrapper.scheduler)
    )
    assert told == sorted(
        [("slow", "skipped", "overlap")] * 2 + [("slow", "success", "")] * 3 + [("other", "success", "")]
    )


def test_the_lock_of_a_wrapper_that_was_killed_is_free(wrapper: Wrapper):
    first = wrapper.start(
        "--job", "slow", "--lock", "--", "sh", "-c", "echo up; read line", stdin=subprocess.PIPE
    )
    assert first.stdout is not None
    first.stdout.readline()
    first.kill()
    first.communicate(timeout=20)

    assert wrapper.run("--job", "slow", "--lock", "--", "true").returncode == 0


def test_a_timer_of_systemd_says_job_and_due_time(wrapper: Wrapper, collector: Collector):
    due, invocation = time.time() - 12.5, uuid4().hex
    given = {
        "INVOCATION_ID": invocation,
        "TRIGGER_UNIT": "nightly.timer",
        "TRIGGER_TIMER_REALTIME_USEC": str(round(due * 1e6)),
    }
    script = 'SYSTEMD_EXEC_PID=$$ exec "$@"'  # as systemd does it: the pid of what it starts itself

    done = subprocess.run(
        [
            "sh",
            "-c",
            script,
            "sh",
            *EXEC,
            "--",
            "sh",
            "-c",
            "trap '' PIPE; grep SigIgn /proc/$PPID/status; exit 3",
        ],
        env=wrapper.environment(**given),
        capture_output=True,
        check=False,
    )

    assert done.returncode == 3
    run = collector.run(wrapper.scheduler)
    assert (run["task"], run["details"]["invocation_id"]) == ("nightly", invocation)
    assert iso(due) == run["due_at"]
    delay = collector.value("taskscope_run_start_delay_seconds_sum", scheduler=wrapper.scheduler)
    assert 12.5 <= delay < 20


def test_what_only_inherits_the_words_of_systemd_has_ids_of_its_own(wrapper: Wrapper, collector: Collector):
    given = {"INVOCATION_ID": uuid4().hex, "SYSTEMD_EXEC_PID": "1"}

    for _ in range(2):
        wrapper.run("--job", "j", "--", "true", env=given)

    assert [run["status"] for run in collector.runs(wrapper.scheduler)] == ["success"] * 2


@pytest.mark.slow
def test_a_run_goes_on_while_its_wrapper_is_heard_and_is_lost_when_not(
    wrapper: Wrapper, collector: Collector
):
    beat = {"TASKSCOPE_HEARTBEAT": "500ms"}
    goes_on = wrapper.start("--job", "on", "--", "sleep", "5", env=beat)
    killed = wrapper.start("--job", "off", "--", "sh", "-c", "echo $$; exec sleep 60", env=beat)
    assert killed.stdout is not None
    child = int(killed.stdout.readline())
    collector.until_runs(wrapper.scheduler, "started", "started")

    killed.kill()

    assert goes_on.wait(20) == 0
    told = {
        run["task"]: run["status"] for run in collector.until_runs(wrapper.scheduler, "unknown", "success")
    }
    assert told == {"off": "unknown", "on": "success"}
    lost = collector.value(
        "taskscope_runs_total", scheduler=wrapper.scheduler, job_name="on", status="unknown"
    )
    assert lost == 0
    os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_a_run_is_in_progress_after_the_collector_began_anew_and_ends(wrapper: Wrapper, collector: Collector):
    goes_on = wrapper.start(
        "--job", "on", "--", "cat", env={"TASKSCOPE_HEARTBEAT": "500ms"}, stdin=subprocess.PIPE
    )
    collector.until_runs(wrapper.scheduler, "started")

    collector.stop()
    collector.start()

    of = {"scheduler": wrapper.scheduler, "job_name": "on"}
    assert collector.value("taskscope_runs_in_progress", **of) == 1
    assert time.time() - collector.value("taskscope_run_oldest_in_progress_timestamp_seconds", **of) < 60
    goes_on.communicate(timeout=20)
    collector.until_runs(wrapper.scheduler, "success")
    assert collector.value("taskscope_runs_in_progress", **of) == 0


def test_no_memory_is_told_from_any_kill(wrapper: Wrapper, collector: Collector):
    group = Path("/sys/fs/cgroup/memory") / f"taskscope-{uuid4().hex}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(64 * 2**20))
    except OSError:
        pytest.skip("no memory cgroup to be made here")
    try:
        script = f'echo $$ > {group}/cgroup.procs; exec "$@"'
        command = [*EXEC, "--job", "greedy", "--", sys.executable, "-c", "block = b'x' * 200_000_000"]
        done = subprocess.run(["sh", "-c", script, "sh", *command], env=wrapper.environment(), check=False)
    finally:
        with suppress(OSError):
            group.rmdir()

    assert done.returncode == -signal.SIGKILL
    run = collector.run(wrapper.scheduler)
    assert (run["status"], run["reason"], run["exception"]) == ("failed", "oom", "OutOfMemory")


def iso(at: float) -> str:
    return (
        time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(round(at * 1000) / 1000))
        + f".{round(at * 1000) % 1000:03}Z"
    )
