"""Run ids."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from taskscope.identity import anchor_ms, first_id, parse, run_id, text

MS = st.integers(min_value=0, max_value=2**48 - 1)


@given(st.text(), st.text(), st.integers(0, 100), MS)
def test_an_id_is_a_version_8_uuid_that_begins_with_its_anchor(scheduler, native, attempt, ms):
    run = run_id(scheduler, native, attempt, ms)

    as_uuid = uuid.UUID(bytes=run)
    assert (as_uuid.version, as_uuid.variant) == (8, uuid.RFC_4122)
    assert anchor_ms(run) == ms
    assert parse(text(run)) == run


@given(MS, MS)
def test_ids_order_by_their_anchor(a, b):
    first, second = run_id("s", "x", 0, a), run_id("s", "y", 0, b)

    assert a == b or (first < second) == (a < b)
    assert first_id(a) <= first


def test_ids_differ_in_scheduler_native_and_attempt_even_where_the_parts_run_together():
    ids = {
        run_id("ab", "c", 0, 1),
        run_id("a", "bc", 0, 1),
        run_id("ab", "c", 1, 1),
        run_id("", "abc", 0, 1),
    }

    assert len(ids) == 4


def test_a_name_with_lone_surrogates_has_an_id():
    assert len(run_id("s\ud800", "\udfff", 0, 1)) == 16
