"""Questions to the history are bounded in number and in time."""

import asyncio
import threading

import pytest

from taskscope.api.errors import ApiError
from taskscope.api.pool import Pool
from taskscope.errors import BadArgument, Unavailable


@pytest.fixture
def gate():
    """What hanging questions wait for; opened at the end, so that no thread is left."""
    gate = threading.Event()
    yield gate
    gate.set()


def refusal(scenario):
    with pytest.raises(ApiError) as caught:
        asyncio.run(scenario)
    return caught.value.status, caught.value.headers.get("Retry-After"), str(caught.value)


def test_a_question_beyond_the_bound_is_refused_at_once_and_room_comes_back(gate):
    async def scenario():
        pool = Pool(threads=1, most=2)
        waiting = [asyncio.create_task(pool.ask(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as caught:
            await pool.ask(int)
        gate.set()
        await asyncio.gather(*waiting)
        answer = await pool.ask(int, "7")
        await pool.close()
        return caught.value, answer

    refused, answer = asyncio.run(scenario())

    assert (refused.status, refused.headers) == (503, {"Retry-After": "1"})
    assert answer == 7


def test_an_answer_that_takes_too_long_is_a_503_and_keeps_its_place_until_it_ends(gate):
    async def scenario():
        pool = Pool(threads=1, most=1, deadline=0.05)
        statuses = []
        for _ in range(2):
            with pytest.raises(ApiError) as caught:
                await pool.ask(gate.wait)
            statuses.append((caught.value.status, caught.value.headers["Retry-After"]))
        gate.set()
        await pool.close()
        return statuses

    assert asyncio.run(scenario()) == [(503, "5"), (503, "1")]


def test_what_the_history_refuses_or_misses_is_told_in_its_own_words():
    def raises(error):
        async def scenario():
            pool = Pool()

            def question():
                raise error

            try:
                await pool.ask(question)
            finally:
                await pool.close()

        return scenario()

    assert refusal(raises(Unavailable("the disk is gone"))) == (503, "5", "the disk is gone")
    assert refusal(raises(BadArgument("offset=-1 is too low"))) == (400, None, "offset=-1 is too low")


def test_closing_does_not_wait_for_a_store_that_hangs(gate):
    async def scenario():
        pool = Pool(threads=1, deadline=0.01)
        with pytest.raises(ApiError):
            await pool.ask(gate.wait)
        await asyncio.wait_for(pool.close(timeout=0.05), 5)

    asyncio.run(scenario())


def test_closing_leaves_no_thread_behind():
    async def scenario():
        pool = Pool()
        await pool.ask(int)
        await pool.close()

    before = set(threading.enumerate())
    asyncio.run(scenario())

    assert set(threading.enumerate()) <= before, "others may end meanwhile"
