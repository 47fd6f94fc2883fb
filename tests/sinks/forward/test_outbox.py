"""What waits to be sent: in order, bounded, and until it is taken."""

from taskscope.sinks.forward.outbox import Line, Outbox


def put(outbox, *bodies):
    return [outbox.put(Line(body)) for body in bodies]


def sent(outbox, size=1_000, lines=100):
    batch = outbox.batch(size, lines)
    assert batch is not None
    outbox.done(batch)
    return batch.body.split(b"\n")


def test_lines_leave_in_order_and_only_when_they_are_done():
    outbox = Outbox(10, 1_000)
    put(outbox, b"1", b"2", b"3")

    first = outbox.batch(1_000, 2)
    assert outbox.batch(1_000, 2) == first
    outbox.done(first)

    assert first.body == b"1\n2"
    assert sent(outbox) == [b"3"]
    assert outbox.batch(1_000, 2) is None


def test_a_batch_has_a_size_but_never_less_than_one_line():
    outbox = Outbox(10, 1_000)
    put(outbox, b"a" * 60, b"b" * 30, b"c" * 30)

    assert sent(outbox, size=50) == [b"a" * 60]
    assert sent(outbox, size=50) == [b"b" * 30]


def test_beyond_its_bounds_nothing_is_taken_and_room_comes_back():
    outbox = Outbox(3, 10)

    assert put(outbox, b"12345", b"12345", b"1") == [True, True, False]
    sent(outbox, lines=1)
    assert put(outbox, b"123", b"12", b"1") == [True, True, False]
    assert len(outbox) == 3


def test_of_readings_the_latest_alone_waits():
    outbox = Outbox(1, 10)
    put(outbox, b"fact")
    for body in (b"old", b"older than all bounds", b"new"):
        assert outbox.put(Line(body, key="queue"))

    assert sent(outbox) == [b"fact", b"new"]
    assert outbox.batch(100, 100) is None


def test_of_readings_there_are_as_many_as_of_lines():
    outbox = Outbox(2, 10)

    assert [outbox.put(Line(b"1", key=key)) for key in ("a", "b", "c", "a")] == [True, True, False, True]


def test_a_batch_has_a_size_for_readings_too_and_a_large_one_goes_alone():
    outbox = Outbox(10, 1_000)
    put(outbox, b"1", b"2")
    for key, body in {"a": b"a" * 30, "b": b"b" * 30, "c": b"c" * 60, "d": b"d"}.items():
        outbox.put(Line(body, key=key))

    assert [sent(outbox, size=50) for _ in range(4)] == [
        [b"1", b"2", b"a" * 30],
        [b"b" * 30],
        [b"c" * 60],
        [b"d"],
    ]
    assert outbox.batch(50, 100) is None


def test_a_large_line_goes_without_readings():
    outbox = Outbox(10, 1_000)
    put(outbox, b"1" * 60)
    outbox.put(Line(b"a", key="a"))

    assert [sent(outbox, size=50), sent(outbox, size=50)] == [[b"1" * 60], [b"a"]]


def test_a_reading_that_came_while_its_elder_was_sent_is_sent_too():
    outbox = Outbox(1, 10)
    outbox.put(Line(b"old", key="queue"))
    batch = outbox.batch(100, 100)
    outbox.put(Line(b"new", key="queue"))
    outbox.done(batch)

    assert sent(outbox) == [b"new"]


def test_what_is_withdrawn_is_not_missed_when_its_batch_is_done():
    outbox = Outbox(10, 1_000)
    put(outbox, b"1", b"2")
    batch = outbox.batch(1_000, 10)

    assert outbox.withdraw() == [b"1", b"2"]
    put(outbox, b"3")
    outbox.done(batch)

    assert sent(outbox) == [b"3"]


def test_on_disk_go_no_readings():
    outbox = Outbox(10, 1_000)
    outbox.put(Line(b"reading", key="queue"))
    assert outbox.batch(1_000, 10, latest=False) is None

    put(outbox, b"fact")
    assert outbox.batch(1_000, 10, latest=False).body == b"fact"
