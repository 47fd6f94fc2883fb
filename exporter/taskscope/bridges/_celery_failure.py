"""What a task failed with, from the texts of its event: a repr, which may be useless, and a traceback."""

import re
from ast import literal_eval

from taskscope.bridges._celery_mapping import KINDS, RETRY_KIND
from taskscope.events import Error
from taskscope.failure import MESSAGE, STACK, cut

_REPR = re.compile(r"([A-Za-z_][\w.]*)\(")
_KIND = re.compile(r"[A-Za-z_][\w.]*")
_HIDES = "ExceptionWithTraceback"  # what a pool wraps around the exception, whose repr says nothing
_RETRY = re.compile(r"Retry\(Retry\(\.\.\.\), (.*), (?:datetime\.datetime\(.*\)|[^,()]*)\)$", re.DOTALL)
"""How pools within the worker's process (threads, solo, gevent) show what a task is tried again for."""
_ONE_TEXT = re.compile(r"""'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*\"""")
_QUOTING = ("KeyError", "NotRegistered")  # whose texts are those of their argument as Python writes it
_UNKNOWN = re.compile(r"""NotRegistered\((['"])(.*)\1\)$""", re.DOTALL)


def error_of(exception: str | None, traceback: str | None) -> Error:
    """The error: its class with its module where the traceback says it, message, and traceback."""
    shown = found[1] if (found := _RETRY.match(exception or "")) else exception or ""
    kind, message = _kind_and_message(shown, traceback or "")
    return Error(kind=kind, message=cut(message, MESSAGE), stack=cut(traceback or "", STACK))


def unknown_task(exception: str | None) -> str:
    """The name that no worker knows, where an exception says that; else empty."""
    return found[2] if (found := _UNKNOWN.match(exception or "")) else ""


def _kind_and_message(shown: str, stack: str) -> tuple[str, str]:
    """Class and message; of an exception of which the traceback says nothing, what its repr says."""
    name = found[1] if (found := _REPR.match(shown)) else ""
    if name == _HIDES:
        name = ""
    if shown == "None":  # tried again without an exception
        return RETRY_KIND, _said(stack, "Retry")[1]
    kind, message = _said(stack, name)
    return kind or KINDS.get(name, name) or "Exception", message or _text(shown, name)


def _text(shown: str, name: str) -> str:
    """What an exception of which this is the repr says of itself, where that is one text; else the repr."""
    inner = shown[len(name) + 1 : -1]
    if not _ONE_TEXT.fullmatch(inner):
        return shown
    try:
        return inner if name in _QUOTING else str(literal_eval(inner))
    except (SyntaxError, ValueError):  # an escape that Python would not have written
        return shown


def _said(stack: str, name: str) -> tuple[str, str]:
    """Class and message that the last part of a traceback ends with; of that class if `name` says which."""
    lines = stack.splitlines()
    for number in _ends(lines):
        kind = found[0] if (found := _KIND.match(lines[number])) else ""
        rest = lines[number][len(kind) :]
        if kind and (not rest or rest.startswith(": ")) and (not name or kind.rpartition(".")[2] == name):
            return kind, "\n".join([rest[2:], *_rest(lines[number + 1 :])]).rstrip()
    return "", ""


def _ends(lines: list[str]) -> list[int]:
    """The lines that follow upon frames, last first: each begins what one exception of the chain says of itself."""
    after = [number + 1 for number, line in enumerate(lines[:-1]) if line.startswith("  ")]
    found = [number for number in after if lines[number] and not lines[number].startswith(" ")]
    return found[::-1] or [number for number, line in enumerate(lines) if line][:1]


def _rest(lines: list[str]) -> list[str]:
    """The further lines of a message, up to the next exception of the chain."""
    ends = [
        number
        for number, line in enumerate(lines)
        if line.startswith(("The above exception", "During handling"))
    ]
    return lines[: ends[0]] if ends else lines
