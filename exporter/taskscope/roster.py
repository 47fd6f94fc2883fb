"""The bridges that are at work, by name: begun, exchanged and ended together."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from taskscope import bridges
from taskscope.contracts import Bridge
from taskscope.errors import BadArgument, TaskscopeError
from taskscope.supervisor import PATIENCE, Supervisor

Hire = Callable[[Bridge, str], Supervisor]
"""Gives a bridge its supervisor."""
Fail = Callable[[str, TaskscopeError], None]
"""Hears, with the system's name, that a bridge cannot hook in."""


class Roster:
    """Who is watched, and by whom."""

    def __init__(self, made: Mapping[str, Bridge], hire: Hire, instance: str) -> None:
        self._hire, self._instance = hire, instance
        self._posts = {name: hire(bridge, name) for name, bridge in made.items()}

    def __iter__(self) -> Iterator[Supervisor]:
        return iter(list(self._posts.values()))

    def __str__(self) -> str:
        return ", ".join(self._posts)

    @property
    def bridges(self) -> list[Bridge]:
        """All that are watched."""
        return [post.bridge for post in self]

    @property
    def hosted(self) -> bool:
        """May this be the process of a program that comes first? It is not where all are watched from outside."""
        return not self._posts or any(not bridge.url for bridge in self.bridges)

    def start(self, fail: Fail) -> None:
        """Begin to watch all."""
        for post in self:
            self._begin(post, fail)

    def exchange(self, gone: Collection[str], come: Mapping[str, Bridge], fail: Fail) -> None:
        """End those that are `gone`, begin those that `come`, some of them in the place of others."""
        _end([post for post in self if post.name in gone or post.name in come])
        posts = {name: post for name, post in self._posts.items() if name not in gone}
        fresh = {name: self._hire(bridge, name) for name, bridge in come.items()}
        self._posts = posts | fresh  # in one step: probes read it meanwhile
        for post in fresh.values():
            self._begin(post, fail)

    def stop(self) -> None:
        """End all: hooks are out, what was received is told."""
        _end(list(self))

    def abandon(self) -> None:
        """In a forked child: let go of all."""
        for bridge in self.bridges:
            bridge.abandon()

    def _begin(self, post: Supervisor, fail: Fail) -> None:
        try:
            post.attach(self._instance)
        except TaskscopeError as error:
            fail(post.bridge.system, error)
        post.start()


def named(schedulers: Sequence[Any], names: Sequence[str], service: str) -> dict[str, Bridge]:
    """A bridge for each scheduler, by its name: as given, else after the service. Raises `BadArgument`."""
    if names and len(names) != len(schedulers):
        raise BadArgument(f"{len(schedulers)} schedulers and {len(names)} names: give each its name, or none")
    found: dict[str, Bridge] = {}
    for number, scheduler in enumerate(schedulers):
        name = names[number] if names else _unused(service or bridges.system_of(scheduler), found)
        if name in found:
            raise BadArgument(f"two schedulers are called {name!r}: give each a name of its own")
        found[name] = bridges.made(scheduler, name)
    return found


def _end(posts: Sequence[Supervisor]) -> None:
    deadline = time.monotonic() + PATIENCE
    for post in posts:
        post.end()
    for post in posts:
        post.join(deadline)


def _unused(name: str, taken: Collection[str]) -> str:
    """`billing`, `billing-2`, …"""
    numbered = (f"{name}-{number}" for number in count(2))
    return name if name not in taken else next(other for other in numbered if other not in taken)
