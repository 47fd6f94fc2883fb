"""Crontabs, wrapped and unwrapped; a wrapped line is compared with what cron's shell makes of the bare one."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskscope import crontab
from taskscope.exec.name import name_of

TASKSCOPE = "/opt/taskscope/bin/taskscope"
CRONTAB = """\
# m h dom mon dow command
SHELL=/bin/bash
MAILTO = ops@example.com
*/5 * * * * /usr/local/bin/poll.sh >> /var/log/poll.log 2>&1
0 3 * * *\tcd /srv/app && ./manage.py clearsessions > /dev/null
  30 2 1 * * pg_dump -Fc shop | gzip > /backup/$(date +\\%F).gz
@daily python3 /srv/app/manage.py sync
@reboot /usr/bin/daemon
15 4 * * * mail -s "it's me" root%Hello%world

CRON_TZ=America/New_York
0 9 * * mon-fri report --to 'a b'
#0 5 * * * disabled
"""
WRAPPED = f"""\
# m h dom mon dow command
SHELL=/bin/bash
MAILTO = ops@example.com
*/5 * * * * {TASKSCOPE} exec --job poll --schedule '*/5 * * * *' -- /usr/local/bin/poll.sh >> /var/log/poll.log 2>&1
0 3 * * *\t{TASKSCOPE} exec --job manage-clearsessions --schedule '0 3 * * *' -- \
"$SHELL" -c 'cd /srv/app && ./manage.py clearsessions > /dev/null'
  30 2 1 * * {TASKSCOPE} exec --job pg_dump --schedule '30 2 1 * *' -- \
"$SHELL" -c 'pg_dump -Fc shop | gzip > /backup/$(date +\\%F).gz'
@daily {TASKSCOPE} exec --job manage-sync --schedule @daily -- python3 /srv/app/manage.py sync
@reboot {TASKSCOPE} exec --job daemon -- /usr/bin/daemon
15 4 * * * {TASKSCOPE} exec --job mail --schedule '15 4 * * *' -- mail -s "it's me" root%Hello%world

CRON_TZ=America/New_York
0 9 * * mon-fri {TASKSCOPE} exec --job report --schedule '0 9 * * mon-fri' -- report --to 'a b'
#0 5 * * * disabled
"""


def wrap(text: str, system: bool = False) -> str:
    return crontab.wrap(crontab.lines(text, system), TASKSCOPE)


def unwrap(text: str, system: bool = False) -> str:
    return crontab.unwrap(crontab.lines(text, system))


def test_a_crontab_is_wrapped_and_unwrapped():
    assert wrap(CRONTAB) == WRAPPED
    assert wrap(WRAPPED) == WRAPPED
    assert unwrap(WRAPPED) == CRONTAB
    assert unwrap(CRONTAB) == CRONTAB


def test_in_a_system_crontab_a_user_stands_before_the_command():
    text = "17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly\n@daily www-data /usr/bin/tidy\n"

    wrapped = wrap(text, system=True)

    assert wrapped.splitlines()[0].startswith(
        f"17 *\t* * *\troot\t{TASKSCOPE} exec --job run-parts --schedule '17 * * * *' -- "
    )
    assert (
        wrapped.splitlines()[1]
        == f"@daily www-data {TASKSCOPE} exec --job tidy --schedule @daily -- /usr/bin/tidy"
    )
    assert unwrap(wrapped, system=True) == text


def test_an_edited_schedule_is_brought_up_and_everything_else_of_the_line_stays():
    edited = WRAPPED.replace("0 3 * * *\t", "0 4 * * *\t").replace(
        "--job poll ", "--job poll --lock --timeout 4m "
    )

    assert wrap(edited) == edited.replace("--schedule '0 3 * * *'", "--schedule '0 4 * * *'")
    assert unwrap(edited) == CRONTAB.replace("0 3 * * *\t", "0 4 * * *\t")


def test_jobs_of_one_name_are_told_apart_and_names_that_were_given_stay():
    text = "1 * * * * rsync -a /a /b\n2 * * * * rsync -a /c /d\n"
    once = wrap(text)

    assert re.findall(r"--job (\S+)", once) == ["rsync", "rsync-2"]
    assert re.findall(r"--job (\S+)", wrap("0 * * * * rsync -a /new /e\n" + once)) == [
        "rsync-3",
        "rsync",
        "rsync-2",
    ]


def test_a_line_that_is_wrapped_by_hand_is_left_alone():
    text = "0 3 * * * cd /srv && /usr/bin/env A=1 taskscope exec --job x -- run\n"

    assert wrap(text) == unwrap(text) == text


COMMANDS = st.text(st.sampled_from("ab/-_.= '\"\\%$`|&;<>(){}#*?~!\t2ü"), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.lists(COMMANDS.map(lambda command: f"*/5 * * * * {command}\n"), max_size=3), st.booleans())
def test_whatever_a_command_holds_unwrapping_gives_it_back_and_wrapping_twice_changes_nothing(lines, system):
    text = "".join(lines)

    once = wrap(text, system)

    assert unwrap(once, system) == text
    assert wrap(once, system) == once


@pytest.mark.parametrize(
    "command",
    [
        "echo plain; echo more >&2; exit 3",
        "cat%line one%line 100\\%%",
        "/bin/echo 100\\% \"$HOME\" 'a  b' * > out 2>&1; cat out",
        "ls /nowhere 2>/dev/null || /bin/echo it\\'s gone",
        "date +\\%Y | wc -c",
        "/bin/ls /nowhere > out 2>&1",
        "A=1 B='2 3' sh -c 'echo $A$B'",
        "echo a # and what follows is none",
        "test -d / && cd / && pwd",
        "/bin/sh -c 'exit 4'",
        "false",
        "echo $0 | grep -c sh",
    ],
)
@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_wrapped_line_does_what_the_bare_one_does(tmp_path: Path, command: str, shell: str):
    program = tmp_path / "taskscope"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m taskscope "$@"\n')
    program.chmod(0o755)
    line = f"* * * * * {command}\n"
    wrapped = crontab.wrap(crontab.lines(line), str(program)).removeprefix("* * * * * ")

    done = [
        as_cron_does(each, shell, tmp_path / name)
        for name, each in (("bare", command), ("ours", wrapped.strip()))
    ]

    assert done[0] == done[1]


def as_cron_does(command: str, shell: str, folder: Path) -> tuple[int, bytes, bytes, dict[str, bytes]]:
    """`\\%` is `%`; what stands behind another `%` comes on stdin, with line ends for further ones."""
    folder.mkdir()
    first, *rest = (part.replace("\0", "%") for part in command.replace("\\%", "\0").split("%"))
    stdin = "".join(f"{part}\n" for part in rest).encode()
    home = {"HOME": "/home/cron", "SHELL": shell, "PATH": "/usr/bin:/bin", "LOGNAME": "cron"}
    ours = {
        "TASKSCOPE_FORWARD": "",
        "TASKSCOPE_HOME": str(folder / ".home"),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    done = subprocess.run(
        [shell, "-c", first],
        input=stdin,
        env=home | ours,
        cwd=folder,
        capture_output=True,
        check=False,
        timeout=60,
    )
    left = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    return done.returncode, done.stdout, done.stderr.replace(str(folder).encode(), b""), left


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/bin/pg_dump -Fc shop", "pg_dump"),
        ("python3 manage.py clearsessions --all", "manage-clearsessions"),
        ("/opt/venv/bin/python3.12 -u -m shop.tidy", "shop.tidy"),
        ("env A=1 nice -n 5 ionice -c 3 /srv/backup.sh full", "backup-full"),
        ("sudo -u www-data php /srv/artisan schedule run", "artisan-schedule-run"),
        ("timeout -k 5 60 flock -n /tmp/lock rsync -a /a /b", "rsync"),
        ("sh -c 'cd /x && ./run.sh'", "run"),
        ("bash /srv/it.sh", "it"),
        ("certbot renew --quiet", "certbot-renew"),
        ("/", "command"),
    ],
)
def test_a_job_is_called_after_its_command(command: str, name: str):
    import shlex

    assert name_of(shlex.split(command)) == name


def taskscope(*arguments: str, stdin: bytes = b"", **more: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "taskscope", "crontab", *arguments],
        input=stdin,
        env=os.environ | more,
        capture_output=True,
        check=False,
        timeout=60,
    )


def test_the_command_shows_jobs_with_their_next_three_runs(tmp_path: Path):
    (tmp_path / "crontab").write_text(CRONTAB + "0 25 * * * broken\n")

    done = taskscope(str(tmp_path / "crontab"), "--json")

    rows = {row["job"]: row for row in json.loads(done.stdout)}
    assert list(rows) == [
        "poll",
        "manage-clearsessions",
        "pg_dump",
        "manage-sync",
        "daemon",
        "mail",
        "report",
        "broken",
    ]
    assert rows["report"]["time zone"] == "America/New_York"
    assert rows["report"]["when"] == "At 09:00 on Monday through Friday"
    assert re.fullmatch(r"((Mon|Tue|Wed|Thu|Fri) \d{4}-\d\d-\d\d 09:00(, )?){3}", rows["report"]["next runs"])
    assert rows["daemon"]["when"] == "when the host starts"
    assert "is no cron expression (Bad hour)" in rows["broken"]["when"]
    assert {row["watched"] for row in rows.values()} == {"no"}


def test_the_command_keeps_bytes_that_are_no_text():
    text = b"0 3 * * * echo caf\xe9 \xff\r\n# \xfe\n"

    wrapped = taskscope("-", "--wrap", "--program", TASKSCOPE, stdin=text)
    again = taskscope("-", "--unwrap", stdin=wrapped.stdout)

    assert (wrapped.returncode, again.stdout) == (0, text)
    assert b"exec --job echo" in wrapped.stdout


def test_without_a_file_it_asks_crontab(tmp_path: Path):
    program = tmp_path / "crontab"
    program.write_text("#!/bin/sh\ntest \"$1\" = -l && echo '@hourly tidy'\n")
    program.chmod(0o755)

    done = taskscope("--wrap", "--program", TASKSCOPE, PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert done.stdout.decode() == f"@hourly {TASKSCOPE} exec --job tidy --schedule @hourly -- tidy\n"


@pytest.mark.parametrize(
    ("arguments", "crontab_l", "sentence"),
    [
        (
            ["/no/such/file"],
            "",
            "/no/such/file cannot be read (No such file or directory); name another file",
        ),
        (["--wrap", "--unwrap"], "", "--wrap and --unwrap do not go together"),
        ([], "echo no crontab for you >&2; exit 1", "crontab -l says: no crontab for you; name a file"),
        ([], None, "there is no program `crontab` here; name a file"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(
    tmp_path: Path, arguments: list[str], crontab_l: str | None, sentence: str
):
    if crontab_l is not None:
        (tmp_path / "crontab").write_text(f"#!/bin/sh\n{crontab_l}\n")
        (tmp_path / "crontab").chmod(0o755)

    done = taskscope(*arguments, PATH=f"{tmp_path}:/nowhere")

    assert (done.returncode, done.stdout) == (2, b"")
    assert sentence in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
