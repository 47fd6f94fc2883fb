"""Worker classes that are watched: what `rq worker --worker-class` may name. RQ is imported here."""

from typing import Any

from rq import SimpleWorker, SpawnWorker, Worker


class Watched:
    """Lets a worker class be watched while it works: put it before yours, `class MyWorker(Watched, Worker)`.

    Its settings are those of `taskscope.yaml` and `TASKSCOPE_…`, as everywhere.
    """

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """Work and be watched; what was seen is carried before it returns."""
        import taskscope

        with taskscope.Exporter(self):
            return bool(super().work(*args, **kwargs))  # type: ignore[misc] # a worker class stands behind it


class WatchedWorker(Watched, Worker):
    """RQ's usual worker, watched."""


class WatchedSimpleWorker(Watched, SimpleWorker):
    """The worker that executes jobs in its own process, watched."""


class WatchedSpawnWorker(Watched, SpawnWorker):
    """The worker that starts a new interpreter for each job, watched."""
