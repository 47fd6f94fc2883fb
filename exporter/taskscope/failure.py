"""What a run failed with, taken from the live exception; foreign values as text and as plain data.

Nothing here raises, whatever the exception's own `__str__`, `__repr__` or properties do.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from os.path import dirname
from reprlib import Repr
from traceback import StackSummary, TracebackException, format_exception
from types import FrameType
from typing import Any, TypeVar

import msgspec

from taskscope.events import Error

T = TypeVar("T")

MESSAGE, STACK = 4_096, 65_536
"""Most characters of a message and of a stack trace."""
KEYS, VALUE = 20, 200
"""Most attributes of an exception that are kept, and characters of each."""

_LARGEST = 2**63  # of the integers that JSON's readers know
_LONGEST = 2_048  # characters of a foreign object among plain data
_MARK = 40  # room for saying what was cut
_CALLS = 100  # frames that led to where an exception was caught
_OURS = dirname(__file__)
_CANCELLED = ("asyncio.exceptions.CancelledError", "concurrent.futures._base.CancelledError", "GeneratorExit")


def describe(error: BaseException, skip: int = 0) -> Error:
    """The error as it is kept; its stack leaves out the `skip` outermost frames."""
    return _described(error, lambda: _stack(error, skip))


def describe_caught(error: BaseException, data: Mapping[str, object]) -> Error:
    """The same of an exception that was caught, with data of the program's.

    Its stack begins where the run begins, as it would had nobody caught it.
    """
    told = _described(error, lambda: _whole_stack(error))
    more = {cut(key, VALUE): short_repr(value) for key, value in islice(data.items(), KEYS)}
    return msgspec.structs.replace(told, data=told.data | more)


def _described(error: BaseException, take_stack: Callable[[], str]) -> Error:
    kind = kind_of(error)
    message = cut(_message(error), MESSAGE)
    stack = _attempt(take_stack, f"{kind}: {message}\n")
    return Error(kind=kind, message=message, stack=cut(stack, STACK), data=_attempt(lambda: _data(error), {}))


def reason_of(error: BaseException) -> str:
    """Why the run failed: `timeout`, `cancelled` or `error`."""
    if isinstance(error, TimeoutError):
        return "timeout"
    # by name: importing asyncio only to ask for its class would slow every child of a pool
    return "cancelled" if any(_path(kind) in _CANCELLED for kind in type(error).__mro__) else "error"


def kind_of(error: BaseException) -> str:
    """The exception's class with its module, without `builtins.`."""
    return _attempt(lambda: _path(type(error)), "Exception")


def short_repr(value: object) -> str:
    """The value as Python shows it, at most `VALUE` characters; large containers are cut beforehand."""
    return _beginning(_exact(_attempt(lambda: _short.repr(value), "<cannot be shown>")))


def plain(value: Any, depth: int = 20) -> Any:
    """The value made of what JSON knows; the rest, and what is nested deeper than `depth`, by repr."""
    match value:
        case None | bool():
            return value
        case float():
            return float(value)
        case int():
            return int(value) if abs(value) < _LARGEST else repr_of(value)
        case str():
            return str(value).encode("utf-8", "backslashreplace").decode()
        case _ if depth <= 0:
            return repr_of(value)
        case dict():
            return {plain(_key(key)): plain(item, depth - 1) for key, item in list(value.items())}
        case list() | tuple() | set() | frozenset():
            return [plain(item, depth - 1) for item in list(value)]
        case msgspec.Struct():
            return {name: plain(item, depth - 1) for name, item in _fields(value)}
    return repr_of(value)


def repr_of(value: Any) -> str:
    """Its repr as valid text, bounded; the class alone where repr itself fails."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - anybody's __repr__
        text = object.__repr__(value)
    return text[:_LONGEST].encode("utf-8", "backslashreplace").decode()


def cut(text: str, limit: int) -> str:
    """At most `limit` (> 50) characters: both ends of a text matter, so the middle goes."""
    if len(text) <= limit:
        return text
    half = (limit - _MARK) // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"


def _attempt(take: Callable[[], T], otherwise: T) -> T:
    try:
        return take()
    except BaseException:  # noqa: BLE001 - the exception's own code runs here, and may raise whatever it likes
        return otherwise


def _message(error: BaseException) -> str:
    return _attempt(lambda: _exact(str(error)), "<the exception's text cannot be shown>")


def _stack(error: BaseException, skip: int) -> str:
    traceback = error.__traceback__
    for _ in range(skip):
        if traceback is not None:
            traceback = traceback.tb_next
    return "".join(format_exception(type(error), error, traceback))


def _whole_stack(error: BaseException) -> str:
    """The traceback, behind the calls that led to where the exception was caught."""
    traceback = error.__traceback__
    frame = traceback.tb_frame.f_back if traceback else None
    calls: list[tuple[FrameType, int]] = []
    while frame and len(calls) < _CALLS and not frame.f_code.co_filename.startswith(_OURS):
        calls.insert(0, (frame, frame.f_lineno))
        frame = frame.f_back
    told = TracebackException(type(error), error, traceback)
    told.stack[:0] = StackSummary.extract(iter(calls))
    return "".join(told.format())


def _data(error: BaseException) -> dict[str, str]:
    return {
        cut(_exact(str(key)), VALUE): short_repr(value) for key, value in islice(vars(error).items(), KEYS)
    }


def _path(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _exact(text: str) -> str:
    """A real `str`: `__str__` may return an instance of a subclass with methods of its own."""
    return str.__str__(text)


def _key(key: Any) -> str:
    return key if isinstance(key, str) else repr_of(key)


def _fields(struct: msgspec.Struct) -> Iterable[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        yield field.encode_name, getattr(struct, field.name)


def _beginning(text: str) -> str:
    """Its first `VALUE` characters: from what follows a cut nobody could tell whether it belongs to a secret."""
    return text if len(text) <= VALUE else text[: VALUE - 1] + "…"


class _Short(Repr):
    """`repr` within bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlong, self.maxother = VALUE, 2**31
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = self.maxdeque = KEYS

    def repr_str(self, x: str, level: int) -> str:
        """The beginning of a text."""
        return _beginning(repr(x[:VALUE]))

    def repr_instance(self, x: Any, level: int) -> str:
        """The beginning of anything else."""
        return _beginning(super().repr_instance(x, level))


_short = _Short()
