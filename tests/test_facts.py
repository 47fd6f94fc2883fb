"""A run as the set of its facts."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from taskscope.events import Error, Fact
from taskscope.facts import DELAY, DURATION, WAIT, Bit, Detail, fresh, merge, observable, row_of

ID = bytes(16)
NOW = 1_700_000_000.0


def fact(status="success", **fields):
    return Fact(**{"scheduler": "s", "native": "n", "status": status, "at": NOW, "job": "j"} | fields)


FACTS = st.builds(
    fact,
    status=st.sampled_from(["queued", "started", "success", "failed", "retried", "skipped", "unknown"]),
    at=st.floats(NOW, NOW + 9),
    job=st.sampled_from(["", "j", "k"]),
    due=st.none() | st.floats(NOW, NOW + 9),
    enqueued=st.none() | st.floats(NOW, NOW + 9),
    started=st.none() | st.floats(NOW, NOW + 9),
    duration=st.none() | st.floats(0, 9),
    reason=st.sampled_from(["", "misfire", "error"]),
    key=st.sampled_from(["", "a", "b"]),
    result=st.sampled_from(["", "a", "b"]),
    error=st.none()
    | st.builds(Error, kind=st.sampled_from(["A", "B"]), message=st.sampled_from(["", "x", "y"])),
)


def together(facts):
    rows = [row_of(fact, ID) for fact in facts]
    merged = rows[0]
    for row in rows[1:]:
        merged = merge(merged, row)
    return merged


@given(st.lists(FACTS, min_size=1, max_size=4), st.randoms())
def test_order_and_repetition_of_facts_do_not_matter(facts, random):
    shuffled = facts + random.choices(facts, k=3)
    random.shuffle(shuffled)

    assert together(shuffled) == together(facts)


@given(st.lists(FACTS, min_size=3, max_size=3))
def test_merging_is_associative(facts):
    a, b, c = (row_of(fact, ID) for fact in facts)

    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(st.lists(FACTS, min_size=1, max_size=5))
def test_every_observable_bit_is_fresh_exactly_once_in_any_order(facts):
    expected = observable(together(facts).facts)
    for order in itertools.islice(itertools.permutations(facts), 24):
        seen, told = [], None
        for fact in order:
            before = told.facts if told else 0
            told = merge(told, row_of(fact, ID)) if told else row_of(fact, ID)
            seen.append(fresh(told.facts, told.facts & ~before))

        assert sum(seen) == expected, "a bit came twice or never"


def test_a_lost_run_that_ends_after_all_is_a_success():
    row = together(
        [fact("started"), fact("unknown", reason="lost"), fact("success", started=NOW, duration=2.0)]
    )

    assert row.status == "success"
    assert row.reason == ""
    assert row.facts & Bit.LOST


def test_the_end_is_the_start_plus_the_measured_duration():
    row = row_of(fact(at=NOW + 99, started=NOW, duration=1.5), ID)

    assert (row.started, row.ended, row.duration) == (1_700_000_000_000, 1_700_000_001_500, 1_500_000)


def test_nothing_is_counted_before_the_name_is_known():
    unnamed = row_of(fact("started", job=""), ID)

    assert observable(unnamed.facts) == 0
    assert observable(merge(unnamed, row_of(fact("queued"), ID)).facts) == Bit.STARTED | Bit.QUEUED | WAIT


def test_wait_delay_and_duration_are_observed_when_both_ends_are_known():
    assert observable(together([fact("started", due=NOW)]).facts) & DELAY
    assert not observable(together([fact("queued", due=NOW)]).facts) & DELAY
    assert observable(together([fact("failed", started=NOW, duration=0.0)]).facts) & DURATION
    assert not observable(together([fact("skipped")]).facts) & DURATION


def test_an_error_and_details_become_the_detail_of_the_row():
    row = row_of(
        fact(
            "failed",
            error=Error(kind="ValueError", message="no", stack="tb", data={"k": "1"}),
            details={"a": 1},
        ),
        ID,
    )

    assert row.exception == "ValueError"
    assert row.detail == Detail(message="no", stack="tb", data='{"k":"1"}', details='{"a":1}')


def test_a_run_without_an_anchor_is_marked_so_that_the_store_finds_its_id_again():
    assert row_of(fact(anchor=None), ID).facts & Bit.UNANCHORED
    assert not row_of(fact(anchor=NOW), ID).facts & Bit.UNANCHORED
