"""Reads stack traces as text: which exceptions they tell of, and through which functions of which files each passed.

Python's traceback of any version (carets, repeated lines, chains, groups of exceptions) and Java's. What nobody can
read gives no section.
"""

import re
from collections.abc import Iterator

import msgspec


class Frame(msgspec.Struct, frozen=True):
    """One function that an exception passed through."""

    file: str
    """Path of the file; of Java the class with its package."""
    function: str


class Section(msgspec.Struct, frozen=True):
    """One exception of a chain; `frames` innermost last."""

    kind: str
    frames: tuple[Frame, ...]


def python(stack: str) -> list[Section]:
    """The exceptions of a Python traceback: first the one that was raised last, then all that led to it."""
    found = list(_python(stack))
    outer = [place for place, (nested, _) in enumerate(found) if not nested]
    last = outer[-1] if outer else len(found) - 1
    return [section for _, section in [*found[last : last + 1], *found[:last], *found[last + 1 :]]]


def java(stack: str) -> list[Section]:
    """The exceptions of a Java stack trace: first the one that was thrown last, then what caused it."""
    return [Section(kind, tuple(reversed(frames))) for kind, frames in _java(stack) if frames]


def _python(stack: str) -> Iterator[tuple[bool, Section]]:
    """Each exception in the order of the text, and whether it is one of a group, which it follows."""
    frames: list[Frame] | None = None
    for nested, line in _undrawn(stack):
        if line.startswith(_HEADERS) or (nested and _BETWEEN.fullmatch(line)):
            frames = []
        elif frames is None:
            continue  # between two tracebacks, or part of a message
        elif frame := _PYTHON_FRAME.match(line):
            frames.append(Frame(frame[1], frame[2]))
        elif kind := _KIND.match(line):
            yield nested, Section(kind[0], tuple(frames))
            frames = None


def _undrawn(stack: str) -> Iterator[tuple[bool, str]]:
    """The lines without colours and without the bars of a group of exceptions, and whether it is inside of one."""
    text = _COLOUR.sub("", stack) if "\x1b" in stack else stack
    drawn = "Exception Group Traceback" in text
    for line in text.splitlines():
        bar = _BAR.match(line) if drawn else None
        yield (len(bar[1]) > _OUTERMOST or bool(bar[2]), line[bar.end() :]) if bar else (False, line)


def _java(stack: str) -> Iterator[tuple[str, list[Frame]]]:
    kind, frames, suppressed = "", list[Frame](), False
    for line in stack.splitlines():
        if frame := _JAVA_FRAME.match(line):
            if not suppressed:
                frames.append(Frame(frame[1], frame[2]))
        elif head := _JAVA_CAUSE.match(line) or (_JAVA_FIRST.match(line) if not kind else None):
            yield kind, frames
            kind, frames, suppressed = head[1], [], False
        elif line.lstrip().startswith("Suppressed:"):
            suppressed = True
    yield kind, frames


_HEADERS = ("Traceback (most recent call last):", "Exception Group Traceback (most recent call last):")
_PYTHON_FRAME = re.compile(r' {2}File "(.+)", line \d+, in (.+)')
_KIND = re.compile(r"[^\W\d][\w.<>]*(?=:|$)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_BAR = re.compile(r"( *)[|+](-\+)? ?")
_OUTERMOST = 2
"""Spaces before the bar of a group that belongs to no other."""
_BETWEEN = re.compile(r"-+ (\d+|\.\.\.) -+")
_JAVA_FRAME = re.compile(r"\s+at (?:[\w.@-]*/)*([\w.$/-]+)\.([\w$<>-]+)\(.*\)")
_JAVA_CAUSE = re.compile(r"\s*Caused by: ([\w.$]+)(?=:|\s*$)")
_JAVA_FIRST = re.compile(r"(?:Exception in thread \".*\" )?((?:[\w$]+\.)+[\w$]+)(?=:|\s*$)")
