"""Every error that a user may catch.

TaskscopeError
├── BadArgument      a wrong argument or setting: raised at once, wherever it is given
├── BadEvent         an event that cannot be true; refused alone, its batch goes on
├── Unavailable      something outside is away; work waits and is tried again
│   ├── NotOwner     another process owns the history file
│   ├── Misdirected  another taskscope takes nothing before somebody corrects a token, an address or a certificate
│   └── Overloaded   more waits than there is room for
├── Refused          another taskscope will not take what is sent to it; trying again does not help
└── TooNew           the history was written by a newer taskscope
"""


class TaskscopeError(Exception):
    """Any error of taskscope."""


class BadArgument(TaskscopeError, ValueError):
    """A wrong argument or setting; the message names it and says what to give instead."""


class BadEvent(TaskscopeError, ValueError):
    """An event that cannot be true; the message names the field."""


class Unavailable(TaskscopeError):
    """A database, file or port is away or refuses; trying again may help."""


class NotOwner(Unavailable):
    """Another process owns the history file."""


class Overloaded(Unavailable):
    """More waits than there is room for."""


class Misdirected(Unavailable):
    """Another taskscope takes nothing before somebody corrects a token, an address or a certificate."""


class Refused(TaskscopeError):
    """Another taskscope will not take what is sent to it, however often."""


class TooNew(TaskscopeError):
    """The history was written by a newer taskscope than this one."""
