"""The command `taskscope crontab`."""

import shutil
import subprocess
import sys
import time
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taskscope import show
from taskscope.errors import BadArgument
from taskscope.options import json_option

if TYPE_CHECKING:
    from taskscope.crontab import Line


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--system", is_flag=True, help="A user stands before each command, as in /etc/crontab, /etc/cron.d."
)
@click.option("--wrap", is_flag=True, help="Print it with `taskscope exec` before each command.")
@click.option("--unwrap", is_flag=True, help="Print it as it was before.")
@click.option("--program", metavar="PATH", help="What to call taskscope there; default: its full path here.")
@json_option
def crontab(
    file: str | None, system: bool, wrap: bool, unwrap: bool, program: str | None, as_json: bool
) -> None:
    """Show a crontab, or print it so that `taskscope exec` runs each job.

    FILE is a crontab, or - for standard input; default: that of `crontab -l`, with --system /etc/crontab. Wrapping
    twice changes nothing but schedules that were edited meanwhile; names of jobs stay. To put it in force, write it
    into a file, look at that, and give it to `crontab FILE`.

    \b
    Example: taskscope crontab --wrap
    """
    from taskscope import crontab as text

    if wrap and unwrap:
        raise click.UsageError("--wrap and --unwrap do not go together")
    lines = text.lines(_read(file, system), system)
    if wrap:
        _write(text.wrap(lines, program or shutil.which("taskscope") or "taskscope"))
    elif unwrap:
        _write(text.unwrap(lines))
    else:
        rows = [_row(line) for line in lines if line.schedule]
        show.print_listing(show.standard_output(), _COLUMNS, rows, as_json)


_COLUMNS = (
    show.Column("job", cut=True),
    show.Column("when", wrap=True),
    show.Column("next runs", wrap=True),
    show.Column("watched"),
    show.Column("schedule", from_width=120),
    show.Column("time zone", from_width=140),
    show.Column("command", from_width=160, cut=True),
)


def _row(line: "Line") -> list[str]:
    from taskscope import crontab as text

    when, due = _promise(line)
    watched, command = ("yes" if line.wrapped else "no"), text.unwrapped(line.command).strip()
    return [text.job_name(line), when, due, watched, line.schedule, line.timezone, command]


def _promise(line: "Line") -> tuple[str, str]:
    """The schedule in words, and the next three runs; or what is wrong with it."""
    from taskscope.schedule import due_times, in_words

    if line.schedule == "@reboot":
        return "when the host starts", ""
    try:
        due = islice(due_times(line.schedule, line.timezone, time.time()), 3)
        return in_words(line.schedule), ", ".join(_moment(at, line.timezone) for at in due)
    except BadArgument as error:
        return str(error), ""


def _moment(at: float, timezone: str) -> str:
    from taskscope.schedule import zone

    return datetime.fromtimestamp(at, zone(timezone)).strftime("%a %Y-%m-%d %H:%M")


def _read(file: str | None, system: bool) -> str:
    """The text of the crontab. Raises `BadArgument`."""
    try:
        told = sys.stdin.buffer.read() if file == "-" else _bytes(file or ("/etc/crontab" if system else ""))
    except OSError as error:
        raise BadArgument(f"{error.filename} cannot be read ({error.strerror}); name another file") from error
    return told.decode("utf-8", "surrogateescape")


def _bytes(file: str) -> bytes:
    """What the file holds; for none, the crontab of this user."""
    if file:
        return Path(file).read_bytes()
    try:
        done = subprocess.run(["crontab", "-l"], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise BadArgument(
            "there is no program `crontab` here; name a file, or - for standard input"
        ) from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip()
        raise BadArgument(f"crontab -l says: {why}; name a file, or - for standard input")
    return done.stdout


def _write(text: str) -> None:
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
