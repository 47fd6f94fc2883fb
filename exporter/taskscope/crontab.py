"""Lines of a crontab: which are jobs, what they run, and the same run by `taskscope exec`, there and back.

Text in, text out; every character that is no part of the wrapping stays as it is.
"""

import re
import shlex
from collections.abc import Iterable, Iterator

import msgspec

from taskscope.exec.name import name_of_line
from taskscope.exec.options import local_timezone

_FIELDS = r"@\w+|(?:[^\s@#]\S*[ \t]+){4}\S+"
_JOB = re.compile(rf"([ \t]*)({_FIELDS})([ \t]+)(.*)")
_SYSTEM_JOB = re.compile(rf"([ \t]*)({_FIELDS})([ \t]+\S+[ \t]+)(.*)")
_SETTING = re.compile(r"""[ \t]*(?:"([^"]*)"|'([^']*)'|([^\s"'=#]+))[ \t]*=[ \t]*(.*)""")
_INPUT = re.compile(r"(?<!\\)%")
"""What stands behind it is given to the command on stdin."""
_WRAPPED = re.compile(
    r"((?:\S+ -m )?\S*taskscope exec)((?: (?:'(?:[^']|'\\'')*'|[^\s']+))*?) -- (.*)", re.DOTALL
)
_SHELL = '"$SHELL" -c '
"""Through the shell that cron itself would have taken for the line."""
_QUOTED = re.compile(r"'((?:[^']|'\\'')*)'(.*)", re.DOTALL)
_PLAIN = re.compile(
    r"""(?:[\w@+:,./=~^*?-]|\\%|'[^'%]*'|"[^"`\\%$]*"|\$\w+|\$\{\w+\})+"""
    r"""(?:[ ]+(?:[\w@+:,./=~^*?-]|\\%|'[^'%]*'|"[^"`\\%$]*"|\$\w+|\$\{\w+\})+)*"""
    r"""(?:[ ]*(?:[012]?>{1,2}|&>{1,2}|<)[ ]*(?:&[12]|[\w./~-]+))*[ ]*"""
)
"""A program and its arguments, and where its output goes: a shell makes the same of it behind `taskscope exec --`."""
_OF_SHELLS = re.compile(
    r"\w+=|(?:\.|:|\[|cd|command|echo|eval|exec|exit|export|for|if|kill|printf|pushd|read|return|set|shift|source|test|"
    r"time|trap|type|ulimit|umask|unset|until|wait|while|case|function)(?:\s|$)|[-*?]"
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One line. What is no job has no schedule."""

    text: str
    before: str = ""
    """What stands before the command."""
    schedule: str = ""
    timezone: str = ""
    command: str = ""
    """As it is written there, with what it gets on stdin."""

    @property
    def wrapped(self) -> bool:
        """Does `taskscope exec` run it already?"""
        return "taskscope exec " in self.command


def lines(text: str, system: bool = False) -> list[Line]:
    """The lines of a crontab; in those of the `system` a user stands before the command."""
    return list(_lines(re.findall(r"[^\n]*\n|[^\n]+", text), _SYSTEM_JOB if system else _JOB))


def job_name(line: Line) -> str:
    """What the job of this line is called, or would be."""
    found = _WRAPPED.fullmatch(_body(line.command)[0])
    named = re.search(r" --job[ =]('(?:[^']|'\\'')*'|\S+)", found[2]) if found else None
    return "".join(shlex.split(named[1])) if named else name_of_line(_read(unwrapped(line.command)))


def wrap(all_lines: Iterable[Line], program: str) -> str:
    """The crontab, with `program exec` before each command. Of lines that have it the schedule alone is brought up."""
    listed = list(all_lines)
    names = {job_name(line) for line in listed if line.wrapped}
    return "".join(_wrapped(line, program, names) for line in listed)


def unwrap(all_lines: Iterable[Line]) -> str:
    """The crontab as it was before."""
    return "".join(
        line.before + unwrapped(line.command) if line.schedule else line.text for line in all_lines
    )


def unwrapped(command: str) -> str:
    """The command without `taskscope exec`, as far as `wrap` put it there."""
    body, end = _body(command)
    found = _WRAPPED.fullmatch(body)
    if found is None:
        return command
    inner = found[3]
    if inner.startswith(_SHELL) and (quoted := _QUOTED.fullmatch(inner[len(_SHELL) :])):
        inner = quoted[1].replace("'\\''", "'") + quoted[2]
    return inner + end


def _lines(texts: list[str], job: re.Pattern[str]) -> Iterator[Line]:
    timezone = local_timezone()
    for text in texts:
        body, end = _body(text)
        if setting := _SETTING.fullmatch(body):
            if "CRON_TZ" in setting.groups()[:3]:
                timezone = setting[4].strip().strip("\"'") or local_timezone()
        elif not body.lstrip().startswith("#") and (found := job.fullmatch(body)):
            yield Line(
                text=text,
                before=body[: found.start(4)],
                schedule=" ".join(found[2].lstrip("-").split()),
                timezone=timezone,
                command=found[4] + end,
            )
            continue
        yield Line(text=text)


def _wrapped(line: Line, program: str, names: set[str]) -> str:
    if not line.schedule or not line.command.strip():
        return line.text
    if line.wrapped:
        return line.before + _brought_up(line)
    body, end = _body(line.command)
    name = _unused(job_name(line), names)
    names.add(name)
    schedule = "" if line.schedule == "@reboot" else f" --schedule {shlex.quote(line.schedule)}"
    split = found.start() if (found := _INPUT.search(body)) else len(body)
    command, given = body[:split], body[split:]
    if not _PLAIN.fullmatch(command) or _OF_SHELLS.match(command):
        command = _SHELL + "'" + command.replace("'", "'\\''") + "'"
    return f"{line.before}{program} exec --job {shlex.quote(name)}{schedule} -- {command}{given}{end}"


def _brought_up(line: Line) -> str:
    """The command of a wrapped line, with the schedule that the line has now."""
    found = _WRAPPED.match(line.command)
    if found is None or " --schedule " not in found[2] or line.schedule == "@reboot":
        return line.command
    flags = re.sub(
        r"( --schedule )('(?:[^']|'\\'')*'|\S+)", lambda it: it[1] + shlex.quote(line.schedule), found[2]
    )
    return line.command[: found.start(2)] + flags + line.command[found.end(2) :]


def _unused(name: str, names: set[str]) -> str:
    number, unused = 1, name
    while unused in names:
        number += 1
        unused = f"{name}-{number}"
    return unused


def _body(text: str) -> tuple[str, str]:
    """The text, and the end of the line behind it."""
    body = text.removesuffix("\n")
    return body, text[len(body) :]


def _read(command: str) -> str:
    """What cron gives to the shell of it."""
    return _INPUT.split(command, maxsplit=1)[0].replace("\\%", "%").strip()
