"""A wrapped command does what the bare one does: the same is run both ways and compared."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wrapping import EXEC, Wrapper

from services.process import until

OF_LIBC = 3 << 31
"""Two signals belong to the C library, which ignores them for whatever it spawns."""


def bare(script: str, **more: object) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["sh", "-c", script], capture_output=True, check=False, timeout=60, **more)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        "exit 7",
        "exit 255",
        "kill -TERM $$",
        "kill -KILL $$",
        "kill -SEGV $$",
        "kill -USR1 $$",
        "cat; echo '  ü\\\\0 %' >&2; exit 3",
        "yes | head -c 1000000; echo done >&2",
        "trap '' PIPE; yes | head -n 1",
    ],
)
def test_exit_code_signal_and_output_are_those_of_the_command(lonely: Wrapper, script: str):
    expected = bare(script, input=b"given\0\xff\n")

    done = lonely.shell(script, stdin=b"given\0\xff\n")

    assert (done.returncode, done.stdout, done.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )


def test_a_command_finds_signals_and_descriptors_as_it_would_alone(lonely: Wrapper):
    script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls -l /proc/self/fd | grep -c .; ulimit -a; umask"

    ours = [line.split() for line in lonely.shell(script).stdout.splitlines()]
    alone = [line.split() for line in bare(script, stdin=subprocess.DEVNULL).stdout.splitlines()]

    own, theirs = (int(lines[1][1], 16) & ~OF_LIBC for lines in (ours, alone))
    assert own == theirs
    assert ours[:1] + ours[2:] == alone[:1] + alone[2:]


def test_signals_that_were_ignored_stay_so(lonely: Wrapper):
    shell = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]
    asks = ["grep", "SigIgn", "/proc/self/status"]

    alone, ours = (
        subprocess.run(
            [*shell, *command], env=lonely.environment(), capture_output=True, check=False
        ).stdout.split()
        for command in (asks, [*EXEC, "--", *asks])
    )

    assert int(alone[1], 16) & 1 << (signal.SIGHUP - 1)
    assert int(ours[1], 16) & ~OF_LIBC == int(alone[1], 16) & ~OF_LIBC


def test_the_environment_gains_a_traceparent_and_nothing_else(lonely: Wrapper):
    done = lonely.run("--", "env", "-0")
    given = lonely.environment()

    seen = dict(item.split(b"=", 1) for item in done.stdout.split(b"\0") if item)
    trace = seen.pop(b"TRACEPARENT")

    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace)
    assert seen == {os.fsencode(name): os.fsencode(value) for name, value in given.items()}


def test_a_trace_that_goes_on_keeps_its_id(lonely: Wrapper):
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"

    done = lonely.shell("echo $TRACEPARENT", env={"TRACEPARENT": parent})

    assert done.stdout.startswith(b"00-0af7651916cd43dd8448eb211c80319c-")
    assert done.stdout.rstrip().endswith(b"-00")
    assert done.stdout.strip() != parent.encode()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGRTMIN + 3]
)
def test_signals_are_passed_on(lonely: Wrapper, number: int):
    script = "import signal,sys; signal.signal(%d, lambda *_: sys.exit(9)); print('up', flush=True); signal.pause()"
    process = lonely.start("--", sys.executable, "-c", script % number)
    assert process.stdout is not None
    process.stdout.readline()

    process.send_signal(number)

    assert process.wait(20) == 9


def test_ctrl_c_reaches_the_command_once(lonely: Wrapper):
    script = (
        "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, {s.SIGINT}); print('up', flush=True)\n"
        "from_keys = s.sigtimedwait({s.SIGINT}, 20).si_pid == 0\n"
        "print(from_keys, s.sigtimedwait({s.SIGINT}, 0.5) is None, flush=True)"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(EXEC[0], [*EXEC, "--", sys.executable, "-c", script], lonely.environment())
    seen = read_until(terminal, b"up")

    os.write(terminal, b"\x03")

    seen += read_until(terminal, b"e\r\n")
    assert b"True True" in seen
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_signals_that_were_blocked_stay_so(lonely: Wrapper):
    block = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1}); "

    done = subprocess.run(
        [
            sys.executable,
            "-c",
            block + "os.execv(sys.argv[1], sys.argv[1:])",
            *EXEC,
            "--",
            "grep",
            "SigBlk",
            "/proc/self/status",
        ],
        env=lonely.environment(),
        capture_output=True,
        check=False,
    )

    assert int(done.stdout.split()[1], 16) == 1 << (signal.SIGUSR1 - 1)


def test_a_slow_reader_who_does_not_block_gets_every_byte(lonely: Wrapper):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = lonely.start("--", "sh", "-c", "seq 100000 >&2", stderr=writing)
    os.close(writing)
    seen = b""
    with open(reading, "rb", buffering=0) as pipe:
        time.sleep(0.3)  # the pipe is full by now: nothing tells when
        while data := pipe.read(65536):
            seen += data

    assert process.wait(20) == 0
    assert seen == b"".join(b"%d\n" % number for number in range(1, 100001))


def test_a_terminal_stays_one(lonely: Wrapper):
    pid, terminal = pty.fork()
    if pid == 0:
        script = "test -t 0 && test -t 1 && test -t 2 && echo all three"
        os.execvpe(EXEC[0], [*EXEC, "--", "sh", "-c", script], lonely.environment())

    read_until(terminal, b"all three")

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_is_written_to_one_pipe_keeps_its_order(lonely: Wrapper):
    script = "for i in $(seq 300); do echo out $i; echo err $i >&2; done"

    done = lonely.shell(script, stderr=subprocess.STDOUT)

    assert done.stdout == bare(f"({script}) 2>&1").stdout


def test_stderr_comes_through_while_the_command_runs(lonely: Wrapper):
    process = lonely.start("--", "sh", "-c", "printf half >&2; read line", stdin=subprocess.PIPE)
    assert process.stderr is not None
    try:
        assert select.select([process.stderr], [], [], 20)[0]
        assert os.read(process.stderr.fileno(), 100) == b"half"
    finally:
        process.communicate(b"\n", timeout=20)


def test_what_the_command_leaves_running_can_still_write(lonely: Wrapper):
    """A daemon that keeps stderr must not die of a closed pipe, and its reader waits for it as without us."""
    begin = time.monotonic()

    done = lonely.shell("(trap 'echo cut >&2' PIPE; sleep 1; echo late >&2) & echo early >&2")

    assert done.stderr == b"early\nlate\n"
    assert time.monotonic() - begin >= 1.0


def test_a_reader_that_goes_away_is_noticed_by_the_command(lonely: Wrapper):
    process = lonely.start("--", "sh", "-c", "while echo more >&2; do :; done; exit 5")
    assert process.stderr is not None
    process.stderr.close()
    process.stderr = None

    assert process.wait(20) in (5, -signal.SIGPIPE)


def test_a_script_without_a_first_line_is_one_for_the_shell(lonely: Wrapper, tmp_path: Path):
    script = tmp_path / "old-script"
    script.write_text("echo $1; exit 4\n")
    script.chmod(0o755)

    done = lonely.run("--", str(script), "hello")

    assert (done.returncode, done.stdout) == (4, b"hello\n")


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/etc/passwd", 126), ("/", 126)])
def test_a_command_that_cannot_be_started_ends_as_in_a_shell(lonely: Wrapper, command: str, code: int):
    done = lonely.run("--job", "j", "--", command)

    assert done.returncode == code == bare(f"exec {command}").returncode
    assert command in done.stderr.decode()
    (event,) = [event for event in lonely.spooled() if event["type"] == "fact"]
    assert (event["status"], event["reason"]) == ("failed", "error")


def test_as_the_first_process_of_a_container_it_reaps_and_passes_on(lonely: Wrapper):
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces here")
    script = (
        "test $PPID = 1 || exit 8; (sleep 0.2 & exec true) & sleep 0.5; trap 'exit 6' TERM; "
        "echo zombies $(ps ax -o stat= | grep -c ^Z); while :; do sleep 0.05; done"
    )
    process = subprocess.Popen(
        [*unshare, *EXEC, "--", "sh", "-c", script], env=lonely.environment(), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"zombies 0\n"
    (inner,) = children(process.pid)

    os.kill(inner, signal.SIGTERM)

    assert process.wait(20) == 6
    process.stdout.close()


def children(pid: int) -> list[int]:
    until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text(), what="a child")
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def read_until(terminal: int, word: bytes) -> bytes:
    """What comes from a terminal up to this word."""
    seen = b""
    while word not in seen:
        assert select.select([terminal], [], [], 20)[0], seen
        seen += os.read(terminal, 1000)
    return seen


def test_ctrl_c_before_the_command_runs_ends_it_without_a_word():
    code = (
        "import os, signal, sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *more):\n"
        "        if name == 'taskscope.exec.command': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "sys.argv = ['taskscope', 'exec', '--job', 'j', '--', 'echo', 'ran']\n"
        "from taskscope.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
