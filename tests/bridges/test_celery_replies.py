"""Redis' words, out of bytes that come in any pieces."""

import pytest
from redis.exceptions import ResponseError

from taskscope.bridges._celery_replies import Replies

SUBSCRIBED = b"$10\r\npsubscribe\r\n$3\r\nk/*\r\n:1\r\n"
TOLD = b"$8\r\npmessage\r\n$3\r\nk/*\r\n$3\r\nk/a\r\n$6\r\n{\r\n$1}\r\n"
WIRE = (
    b">3\r\n"
    + SUBSCRIBED
    + b"*4\r\n"
    + TOLD
    + b">4\r\n"
    + TOLD
    + b"+PONG\r\n"
    + b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"
)
MEANT = [
    [b"psubscribe", b"k/*", b"1"],
    [b"pmessage", b"k/*", b"k/a", b"{\r\n$1}"],
    [b"pmessage", b"k/*", b"k/a", b"{\r\n$1}"],
    b"PONG",
    [b"pong", b""],
]


@pytest.mark.parametrize("size", range(1, len(WIRE) + 1))
def test_replies_are_the_same_wherever_their_bytes_are_cut(size: int):
    replies = Replies()
    told = [reply for at in range(0, len(WIRE), size) for reply in replies.feed(WIRE[at : at + size])]
    assert told == MEANT


def test_a_list_may_hold_nothing():
    assert Replies().feed(b"*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n") == [[b"punsubscribe", b"-1", b"0"]]


def test_what_redis_refuses_is_raised():
    with pytest.raises(ResponseError, match="NOPERM this user may not"):
        Replies().feed(b"-NOPERM this user may not\r\n")


def test_what_is_no_reply_is_not_waited_for():
    with pytest.raises(ValueError, match="invalid literal"):
        Replies().feed(b"*what\r\n")
