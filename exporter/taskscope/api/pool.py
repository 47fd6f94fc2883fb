"""Where blocking questions to the history are asked: a few threads, a short queue, a deadline."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from taskscope.api.errors import ApiError, busy
from taskscope.errors import BadArgument, Unavailable

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Asks in threads of its own. At most `most` questions are under way; further ones are refused."""

    def __init__(self, threads: int = 4, most: int = 32, deadline: float = 12.0) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="taskscope-query")
        self._under_way: set[Future[Any]] = set()
        self._most = most
        self._deadline = deadline

    async def ask(self, question: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Its answer. Raises 503 when there is no room, no answer in time, or no store."""
        if len(self._under_way) >= self._most:
            raise busy("Too many questions to the history are under way.", after=1)
        future = self._threads.submit(question, *args, **kwargs)
        self._under_way.add(future)
        # Only the question's own end makes room: one past its deadline still keeps a thread.
        future.add_done_callback(self._under_way.discard)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._deadline)
        except TimeoutError:
            why = f"The history did not answer within {self._deadline:g} s; ask for less, or later."
            raise busy(why, after=5) from None
        except BadArgument as error:
            raise ApiError(400, str(error)) from error
        except Unavailable as error:
            raise busy(str(error), after=5) from error

    async def close(self, timeout: float = 5.0) -> None:
        """Take no more questions and wait for those under way."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if under_way := [asyncio.wrap_future(future) for future in list(self._under_way)]:
            await asyncio.wait(under_way, timeout=timeout)
        if not self._under_way:  # otherwise it would wait for a store that hangs
            self._threads.shutdown(wait=True)
