"""The way from outside: everything is read from Redis, nothing is changed there, and nothing is unpickled."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from taskscope.bridges._rq_layout import Keys
from taskscope.bridges._rq_readings import Readings, Unseen
from taskscope.bridges._rq_runs import Runs
from taskscope.bridges._rq_survey import Surveyor
from taskscope.contracts import Emit
from taskscope.errors import BadArgument
from taskscope.events import Reading

if TYPE_CHECKING:
    from taskscope.bridges.rq import RQBridge

_TIMEOUT = 5.0  # seconds for an answer of Redis


class Outside:
    """Looks at an RQ whenever it is polled, and tells what happened since."""

    def __init__(self, bridge: "RQBridge", emit: Emit) -> None:
        target, options = bridge.target, bridge.options
        self._emit = emit
        self._client = client_of(target)
        keys = Keys(prefix_of(bridge))
        names = options.queues if isinstance(target, str) else (target.name,)
        self._surveyor = Surveyor(self._client, keys, names)
        self._runs = Runs(bridge.name, self._client, keys, options.descriptions, options.catch_up)
        self._readings = Readings(bridge.name, self._client, keys, options.descriptions)
        self._unseen = None if names else Unseen()

    def poll(self) -> Iterator[Reading]:
        """Tell what happened, return what is true now."""
        survey = self._surveyor.survey(self._runs.ask)
        told = self._runs.tell(survey, self._emit)
        watched = {name for name, worker in survey.workers.items() if worker.watched}
        waiting = [job for job in self._readings.look(survey) if job.worker not in watched]
        for fact in self._runs.retried(waiting, survey.at):
            told.append(fact)
            self._emit(fact)
        if self._unseen is not None:
            self._unseen.look(survey, told)
        return self._readings.read(survey, self._unseen.total if self._unseen is not None else None)

    def detach(self) -> None:
        """Hang up."""
        self._client.close()

    def abandon(self) -> bool:
        """The connections are the parent's; redis-py sees to that."""
        return True


def prefix_of(bridge: "RQBridge") -> str:
    """What the keys begin with: inside of a program with RQ, what that RQ takes."""
    return bridge.options.prefix if isinstance(bridge.target, str) else os.environ.get("RQ_KEY_PREFIX", "rq")


def client_of(target: Any) -> Any:
    """A client of our own for the same Redis; it connects when it is first asked. Raises `BadArgument`."""
    import redis

    if isinstance(target, str):
        try:
            return redis.Redis.from_url(target, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
        except ValueError as error:
            raise BadArgument(
                f"RQ cannot be watched at this URL ({error}); write redis://HOST:PORT/DB"
            ) from error
    connection = target.connection
    pool = connection.connection_pool
    if type(pool) not in (redis.ConnectionPool, redis.BlockingConnectionPool):
        return connection  # of a Sentinel, say: only its own pool knows where the master is
    ours = redis.ConnectionPool(connection_class=pool.connection_class, **pool.connection_kwargs)
    return redis.Redis(connection_pool=ours)
