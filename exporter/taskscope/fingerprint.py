"""What makes two errors the same: the classes of the exceptions, and the places in the program's own code.

A place is a file and a function, never a line. Where no frame is the program's own, the message stands in for it,
with everything masked that differs from one time to the next. Pure: text in, text out.
"""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from posixpath import dirname, isabs, normpath, relpath

import msgspec

from taskscope import stacks
from taskscope.masks import masked
from taskscope.stacks import Frame, Section

OWN_STACKS = 128
"""Stacks whose signature is remembered: the same error mostly comes again."""


class Signature(msgspec.Struct, frozen=True):
    """What is the same in two errors that are the same."""

    kinds: tuple[str, ...]
    """The class of the error, then those of the exceptions that led to it."""
    places: tuple[str, ...]
    """Where they were raised in the program's own code; empty where that is not known."""
    message: str
    """The masked message; empty where a place is known."""

    @property
    def place(self) -> str:
        """Where the error was raised, as `package.module:function`."""
        return self.places[0].lstrip("./") if self.places else ""


def signature(kind: str, message: str, stack: str, foreign: tuple[str, ...] = ()) -> Signature:
    """The signature of an error; `foreign` are patterns of paths and Java classes that are not the program's own."""
    kinds, places = _traced(kind, stack, foreign) if stack else ((_named(kind),), ())
    return Signature(kinds, places, "" if places else masked(message))


@lru_cache(maxsize=OWN_STACKS)
def _traced(kind: str, stack: str, foreign: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Classes and places that the stack tells of."""
    if sections := stacks.python(stack):
        places = _python_places(kind, _without_carriers(sections), foreign)
    elif sections := stacks.java(stack):
        places = [_java_place(section, foreign) for section in sections]
    else:
        return (_named(kind),), ()
    first = _named(kind or sections[0].kind)
    led = {_named(section.kind) for section in _without_carriers(sections)[1:]} - {first}
    known = list(dict.fromkeys(filter(None, places)))
    return (first, *sorted(led)), (*known[:1], *sorted(known[1:]))


def _python_places(kind: str, sections: Sequence[Section], foreign: tuple[str, ...]) -> list[str]:
    package = _own_package(sections)
    owned = [[frame for frame in s.frames if _is_own(frame, package, foreign)] for s in sections]
    base = next((frames[0] for frames in owned if frames), None)
    if base is None:
        return []
    return [
        _place(_chosen(kind if n == 0 else section.kind, own), base) if own else ""
        for n, (section, own) in enumerate(zip(sections, owned, strict=True))
    ]


def _chosen(kind: str, own: Sequence[Frame]) -> Frame:
    """The innermost frame; of what strikes anywhere the outermost, of endless recursion one that comes again."""
    short = _named(kind).rpartition(".")[2]
    if short in _ANYWHERE:
        return own[0]
    again = [frame for frame in own if own.count(frame) > 2] if short in _ENDLESS else []
    if again:  # which of several functions goes too far is chance
        return min(again, key=lambda frame: (_path(frame), frame.function))
    named = [frame for frame in own if frame.function == "<module>" or not frame.function.startswith("<")]
    return (named or own)[-1]


def _without_carriers(sections: list[Section]) -> list[Section]:
    """Without the exceptions that only carry another one: home from a process, or through what was waited for."""
    return [s for n, s in enumerate(sections) if not s.kind.endswith(_CARRIERS[: 1 + (n > 0)])] or sections


def _own_package(sections: Sequence[Section]) -> str:
    """Where all code is installed: the package in which the job begins, that is the first that runs no jobs itself."""
    frames = [frame for section in sections for frame in section.frames]
    if any(_is_own(frame, "", ()) for frame in frames):
        return ""
    installed = [found[1] for frame in sections[0].frames if (found := _INSTALLED.search(_path(frame)))]
    return next((package for package in installed if package.removesuffix(".py") not in _RUNNERS), "")


def _is_own(frame: Frame, package: str, foreign: Iterable[str]) -> bool:
    path = _path(frame)
    if path.startswith("<") or any(fnmatchcase(path, pattern) for pattern in foreign):
        return False
    if found := _INSTALLED.search(path):
        return found[1] == package
    return not _STANDARD.search(path)


def _place(frame: Frame, base: Frame) -> str:
    """File and function, seen from where the job begins: where the program is installed does not matter."""
    path, root = _module(frame), dirname(_module(base))
    near = relpath(path, root or ".") if isabs(path) == isabs(root) else path.rpartition("/")[2]
    rest = near.rpartition("../")[2]
    function = _GENERATED.sub("*", frame.function.rpartition(".")[2])
    return f"{near.removesuffix(rest)}{rest.replace('/', '.')}:{function}"


def _module(frame: Frame) -> str:
    """Its path without what differs between machines and kinds of files."""
    path = _path(frame)
    if found := _INSTALLED.search(path):
        path = "/" + path[found.start(1) :]
    path = re.sub(r"^[A-Za-z]:", "", normpath(path)).removesuffix("/__init__.py")
    return _GENERATED.sub("*", re.sub(r"\.(py[cowx]?|so|pyd)$|\.cpython-.*$", "", path))


def _path(frame: Frame) -> str:
    return frame.file.replace("\\", "/")


def _java_place(section: Section, foreign: Iterable[str]) -> str:
    own = [
        frame
        for frame in section.frames
        if not frame.file.startswith(_JAVA_LIBRARIES)
        and not any(fnmatchcase(frame.file, each) for each in foreign)
    ]
    if not own:
        return ""
    frame = _chosen(section.kind, own)
    method = re.sub(r"^lambda\$(.+)\$\d+$", r"\1", frame.function)
    return f"{re.sub(_JAVA_GENERATED, '', frame.file)}:{method}"


def _named(kind: str) -> str:
    """The class under the one name that all versions of Python give it, or its synonym."""
    kind = kind.removeprefix("builtins.").removeprefix("__main__.").replace(".<locals>", "")
    return _SYNONYMS.get(kind, kind)


_SYNONYMS = {
    "socket.timeout": "TimeoutError",
    "asyncio.TimeoutError": "TimeoutError",
    "asyncio.exceptions.TimeoutError": "TimeoutError",
    "concurrent.futures.TimeoutError": "TimeoutError",
    "concurrent.futures._base.TimeoutError": "TimeoutError",
    "concurrent.futures._base.CancelledError": "asyncio.exceptions.CancelledError",
    "asyncio.CancelledError": "asyncio.exceptions.CancelledError",
    "socket.error": "OSError",
    "IOError": "OSError",
    "EnvironmentError": "OSError",
    "select.error": "OSError",
    "exceptiongroup.ExceptionGroup": "ExceptionGroup",
    "exceptiongroup.BaseExceptionGroup": "BaseExceptionGroup",
}
"""Classes that were one only from some version on."""
_ANYWHERE = frozenset(
    {"MemoryError", "KeyboardInterrupt", "SystemExit", "CancelledError", "GreenletExit", "StopRequested"}
    | {"SoftTimeLimitExceeded", "TimeLimitExceeded", "JobTimeoutException", "HorseMonitorTimeoutException"}
)
"""Raised from outside, wherever the run just is."""
_ENDLESS = ("RecursionError", "StackOverflowError")
_CARRIERS = ("RemoteTraceback", "CancelledError")
_RUNNERS = frozenset(
    {"taskscope", "apscheduler", "celery", "billiard", "kombu", "rq", "dramatiq", "huey", "arq"}
    | {"gevent", "eventlet", "greenlet", "anyio", "trio"}
)
_INSTALLED = re.compile(r"(?:site|dist)-packages/(?:[^/]+\.(?:egg|whl)/)?([^/]+)")
_STANDARD = re.compile(
    r"(?:^|/)lib(?:64)?/(?:python|pypy)\d[\d.]*t?/|/lib-python/|/lib_pypy/|/python\d+\.zip/|/Python\.framework/"
    r"|/(?:Python\d+(?:-32)?|(?:ana|mini)(?:conda|forge)\d*(?:/envs/[^/]+)?|cpython-[^/]+)/Lib/",
    re.IGNORECASE,
)
_GENERATED = re.compile(r"(?:0x)?(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}|\d{4,}")
"""In the names of files and functions that are made while the program runs."""
_JAVA_LIBRARIES = (
    *("java.", "javax.", "jakarta.", "jdk.", "sun.", "com.sun.", "kotlin.", "kotlinx.", "scala.", "groovy."),
    *("org.quartz.", "org.springframework.", "org.apache.", "org.hibernate.", "org.slf4j.", "org.jboss."),
    *("org.eclipse.", "org.postgresql.", "org.mariadb.", "org.h2.", "org.aspectj.", "com.mysql.", "clojure."),
    *("com.zaxxer.", "com.google.", "com.fasterxml.", "com.mchange.", "ch.qos.", "io.netty.", "reactor."),
    *("io.micrometer.", "io.opentelemetry.", "okhttp3."),
)
_JAVA_GENERATED = r"\$\$?(?:Lambda|Enhancer|FastClass|Proxy|SpringCGLIB|fn__|eval|anonfun|\d).*$"
