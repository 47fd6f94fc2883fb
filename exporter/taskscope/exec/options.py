"""What `taskscope exec` is asked for: its flags, the environment, and what the command itself tells."""

from __future__ import annotations

import argparse
import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_LOCAL = "http://127.0.0.1:9750"
_USAGE = (
    "taskscope exec [--job NAME] [--schedule CRON] [--timeout TIME] [--lock] [...] -- COMMAND [ARGUMENT ...]"
)
_ABOUT = """\
Run a command and tell a taskscope how it went: start, end, exit code, CPU, memory, the end of its stderr.

For lines of a crontab, units of systemd, containers. The command gets the same signals, stdin and environment (and
TRACEPARENT), and taskscope exec ends as the command does: with its exit code, or by its signal. If no taskscope
answers, what happened waits on disk for the next run that reaches one. Whatever goes wrong with taskscope, the
command runs."""
_END = """\
environment:
  TASKSCOPE_FORWARD               as --to (default: http://127.0.0.1:9750)
  TASKSCOPE_FORWARD_TOKEN         token of the taskscope, with the scope `ingest`
  TASKSCOPE_FORWARD_CERTIFICATES  PEM file of who may vouch for it
  TASKSCOPE_SCHEDULER             as --scheduler
  TASKSCOPE_HEARTBEAT             as --heartbeat
  TASKSCOPE_SPOOL                 folder for what waits while it is away (default: $TASKSCOPE_HOME/spool)
  TASKSCOPE_HOME                  folder for that and for locks (default: $XDG_STATE_HOME/taskscope)

exit codes: those of the command, and
  2    there is no command
  75   an earlier run holds the lock
  124  the command ended with 0 after its timeout
  126  the command cannot be executed
  127  there is no such command

Example: taskscope exec --job nightly-backup --schedule '0 3 * * *' --timeout 2h --lock -- pg_dump -f shop.sql shop"""

_FLAGS: dict[str, tuple[str, str, str, str]] = {
    "job": ("NAME", "", "", "its name; default: that of the timer, else of the command"),
    "schedule": ("CRON", "", "", "when it is due, so that its absence is noticed: '0 3 * * *'"),
    "timezone": ("ZONE", "", "", "of the schedule; default: CRON_TZ, else that of this host"),
    "timeout": ("TIME", "", "0", "end it after 90s, 1h30m …: SIGTERM, and SIGKILL later"),
    "kill-after": ("TIME", "", "10s", "how much later (default: 10s)"),
    "lock-exit-code": ("N", "", "75", "the exit code where the lock is held (default: 75)"),
    "tail": ("BYTES", "", "8192", "how much of stderr is kept when it fails (default: 8192); 0: none"),
    "heartbeat": (
        "TIME",
        "TASKSCOPE_HEARTBEAT",
        "10s",
        "how often it says that the run goes on (default: 10s)",
    ),
    "scheduler": (
        "NAME",
        "TASKSCOPE_SCHEDULER",
        "",
        "what jobs are told apart by; default: the name of the host",
    ),
    "to": ("URL", "TASKSCOPE_FORWARD", _LOCAL, "address of the taskscope; empty: tell nobody"),
}
"""By flag: its value, the environment variable that gives it, its default, what it is for."""


class Options(argparse.Namespace):
    """What was asked for, checked."""

    command: list[str]
    job: str
    scheduler: str
    schedule: str
    timezone: str
    timeout: float
    """Seconds; 0: none."""
    kill_after: float
    lock: bool
    lock_exit_code: int
    tail: int
    to: str
    heartbeat: float
    complaints: list[str]
    """A sentence for each thing that was asked for and cannot be."""


def parse(arguments: list[str]) -> Options:
    """The options before the first `--`, and the command behind it. What is wrong is left out, with a complaint.

    Exits with 0 after `--help`, with 2 where there is no command.
    """
    ours, command = divided(arguments)
    options, unknown, wrong = _parsed(_parser(), ours)
    options.command = command
    if not options.command:
        print(f"taskscope: there is no command; usage: {_USAGE}", file=sys.stderr)  # noqa: T201 - a command line
        sys.exit(2)
    options.complaints = [wrong] if wrong else []
    if unknown:
        options.complaints.append(f"{' '.join(unknown)} is no option of taskscope exec, and is ignored")
    _convert(options)
    options.job = options.job or _unit() or _name(options.command)
    options.scheduler = options.scheduler or _scheduler()
    options.timezone = options.timezone or os.environ.get("CRON_TZ") or local_timezone()
    return options


def divided(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before the first `--`, and the command behind it."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:split], arguments[split + 1 :]


def _name(command: list[str]) -> str:
    from taskscope.exec.name import name_of

    return name_of(command)


def home() -> str:
    """The folder for what is kept between runs."""
    if own := os.environ.get("TASKSCOPE_HOME"):
        return own
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(state, "taskscope")


def duration(text: str) -> float:
    """Seconds, from `90`, `90s`, `1h30m`. Raises ValueError."""
    parts = _PART.findall(text)
    if parts and "".join(map("".join, parts)) == text:
        return sum(float(number) * _UNITS[unit] for number, unit in parts)
    seconds = float(text)
    if not 0 <= seconds < 1e9:
        raise ValueError(text)
    return seconds


def local_timezone() -> str:
    """The zone of this host, by which cron goes; UTC where it is not said."""
    try:
        return os.readlink("/etc/localtime").partition("zoneinfo/")[2] or "UTC"
    except OSError:
        return "UTC"


def _parsed(parser: argparse.ArgumentParser, arguments: list[str]) -> tuple[Options, list[str], str]:
    try:
        options, unknown = parser.parse_known_args(arguments, namespace=Options())
    except (argparse.ArgumentError, ValueError) as error:
        return parser.parse_args([], namespace=Options()), [], f"{error}; its options are ignored"
    return options, unknown, ""


def _convert(options: Options) -> None:
    """Make numbers of texts; one that is none gives way to its default, with a complaint."""
    for name, convert in _NUMBERS.items():
        text, default = getattr(options, name.replace("-", "_")), _FLAGS[name][2]
        try:
            value = convert(text)
        except ValueError:
            value = convert(default)
            options.complaints.append(f"--{name} {text!r} is not understood; it is {default}")
        setattr(options, name.replace("-", "_"), value)


def _every(text: str) -> float:
    seconds = duration(text)
    if not seconds:
        raise ValueError(text)
    return seconds


def _exit_code(text: str) -> int:
    code = int(text)
    if not 0 <= code <= 255:
        raise ValueError(text)
    return code


def _unit() -> str:
    """The job's name where a timer of systemd started it: `nightly` of `nightly.timer`."""
    return os.environ.get("TRIGGER_UNIT", "").removesuffix(".timer")


def _scheduler() -> str:
    """The host, by default: what runs on twenty hosts is twenty jobs. A container's name is one of thousands."""
    contained = os.getpid() == 1 or "KUBERNETES_SERVICE_HOST" in os.environ
    if contained or any(map(os.path.exists, ("/.dockerenv", "/run/.containerenv"))):
        return "exec"
    return os.uname().nodename


_NUMBERS: dict[str, Callable[[str], float]] = {
    "timeout": duration,
    "kill-after": duration,
    "lock-exit-code": _exit_code,
    "tail": lambda text: int(duration(text)),
    "heartbeat": _every,
}


class _Parser(argparse.ArgumentParser):
    """One that does not exit where an option is wrong."""

    def error(self, message: str) -> None:  # type: ignore[override]  # argparse: never returns; nor does this
        """Raises ValueError."""
        raise ValueError(message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="taskscope exec",
        usage=_USAGE,
        description=_ABOUT,
        epilog=_END,
        formatter_class=_formatter,
        allow_abbrev=False,
    )
    for name, (metavar, variable, default, text) in _FLAGS.items():
        value = os.environ.get(variable, default) if variable else default
        parser.add_argument(f"--{name}", metavar=metavar, default=value, help=text)
    parser.add_argument(
        "--lock", action="store_true", help="skip this run while an earlier one of its job goes on"
    )
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    """One that need not ask how wide the terminal is: that would take time at every start."""
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=28, width=110)
