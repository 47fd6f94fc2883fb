"""What a run failed with, taken from the live exception.

Nothing here raises, whatever the exception's own `__str__`, `__repr__` or properties do.
"""

from collections.abc import Callable
from itertools import islice
from reprlib import Repr
from traceback import format_exception
from typing import TypeVar

from taskscope.events import Error

T = TypeVar("T")

MESSAGE, STACK = 4_096, 65_536
"""Most characters of a message and of a stack trace."""
KEYS, VALUE = 20, 200
"""Most attributes of an exception that are kept, and characters of each."""

_MARK = 40  # room for saying what was cut
_CANCELLED = ("asyncio.exceptions.CancelledError", "concurrent.futures._base.CancelledError", "GeneratorExit")


def describe(error: BaseException, skip: int = 0) -> Error:
    """The error as it is kept; its stack leaves out the `skip` outermost frames."""
    kind = kind_of(error)
    message = cut(_message(error), MESSAGE)
    stack = _attempt(lambda: _stack(error, skip), f"{kind}: {message}\n")
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
    return cut(_exact(_attempt(lambda: _short.repr(value), "<cannot be shown>")), VALUE)


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


class _Short(Repr):
    """`repr` within bounds."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = VALUE
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = self.maxdeque = KEYS


_short = _Short()
