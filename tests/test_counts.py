"""What is counted of a job."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.counts import OTHER, Bounds, Counts, Histogram, checksum, fold
from taskscope.events import Error, Fact
from taskscope.facts import Change, row_of
from taskscope.identity import run_id

NOW = 1_700_000_000.0
BOUNDS = Bounds(duration=(1.0, 10.0), wait=(1.0,), delay=(1.0,))
COUNTS = st.builds(
    Counts,
    statuses=st.dictionaries(st.sampled_from(["success", "failed"]), st.integers(0, 9)),
    exceptions=st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)),
    histograms=st.dictionaries(
        st.sampled_from(["wait"]),
        st.builds(
            Histogram, buckets=st.lists(st.integers(0, 9), min_size=2, max_size=2), sum=st.integers(0, 99)
        ),
    ),
)


def change(status, native="n", job="j", added=None, **fields):
    fact = Fact(scheduler="s", native=native, status=status, at=NOW, job=job, **fields)
    row = row_of(fact, run_id("s", native, 0, 1))
    return Change(row, row.facts if added is None else added)


@pytest.mark.parametrize("status", ["success", "failed", "retried", "skipped", "unknown"])
def test_every_ending_is_counted_by_its_status(status):
    delta = fold([change(status)], BOUNDS)

    assert delta.counts["s", "j"].statuses == {status: 1}


def test_a_change_that_adds_nothing_counts_nothing():
    assert fold([change("success", added=0)], BOUNDS).counts == {}


def test_a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed():
    delta = fold(
        [change("success", native=str(d), started=NOW, duration=d) for d in (0.5, 1.0, 1.5, 11.0)], BOUNDS
    )

    histogram = delta.counts["s", "j"].histograms["duration"]
    assert (histogram.buckets, histogram.sum, histogram.count) == ([2, 1, 1], 14.0, 4)


def test_wait_and_delay_are_never_negative():
    delta = fold([change("started", started=NOW, enqueued=NOW + 5, due=NOW + 5)], BOUNDS)

    assert delta.counts["s", "j"].histograms["wait"] == Histogram(
        buckets=[1, 0], sum=0.0, bounds=checksum((1.0,))
    )
    assert delta.counts["s", "j"].histograms["delay"] == Histogram(
        buckets=[1, 0], sum=0.0, bounds=checksum((1.0,))
    )


def test_failures_are_counted_by_exception_and_skips_by_reason():
    delta = fold(
        [change("failed", "a", error=Error(kind="ValueError")), change("skipped", "b", reason="misfire")],
        BOUNDS,
    )

    counts = delta.counts["s", "j"]
    assert (counts.exceptions, counts.reasons) == ({"ValueError": 1}, {"misfire": 1})
    assert counts.triggers == {"completed": 1, "misfired": 1}


def test_an_exemplar_points_from_the_bucket_to_its_latest_run():
    delta = fold([change("success", "a", started=NOW, duration=5.0)], BOUNDS)

    exemplar = delta.exemplars[("s", "j"), "duration", 1]
    assert (exemplar.run, exemplar.value) == (run_id("s", "a", 0, 1), 5.0)


def test_a_label_sends_the_counts_of_several_jobs_to_one():
    delta = fold(
        [change("success", "a", "j"), change("success", "b", "k")], BOUNDS, lambda key: (key[0], OTHER)
    )

    assert delta.counts == {("s", OTHER): Counts(statuses={"success": 2}, triggers={"completed": 2})}


@given(COUNTS, COUNTS, COUNTS)
def test_adding_counts_is_commutative_and_associative(a, b, c):
    assert a.plus(b) == b.plus(a)
    assert a.plus(b).plus(c) == a.plus(b.plus(c))


def test_names_beyond_the_limit_are_counted_together_and_none_is_lost():
    total = Counts()
    for number in range(30):
        total = total.plus(Counts(exceptions={f"E{number}": 2}), limit=20)

    assert len(total.exceptions) == 21
    assert total.exceptions[OTHER] == 20
    assert sum(total.exceptions.values()) == 60


def test_a_histogram_whose_bounds_were_changed_begins_again():
    old = Counts(histograms={"wait": Histogram(buckets=[1, 1, 1], sum=9)})
    new = Counts(histograms={"wait": Histogram(buckets=[1, 0], sum=1)})

    assert old.plus(new).histograms == new.histograms


def waited(bound):
    started = change("started", started=NOW + 3, enqueued=NOW)
    return fold([started], Bounds(wait=(bound,))).counts["s", "j"]


def test_a_histogram_with_as_many_but_other_bounds_begins_again():
    assert waited(1.0).plus(waited(5.0)).histograms["wait"] == waited(5.0).histograms["wait"]
    assert waited(5).plus(waited(5.0)).histograms["wait"].buckets == [2, 0]


def test_a_histogram_that_an_older_version_stored_goes_on():
    old = msgspec.msgpack.decode(msgspec.msgpack.encode([[4, 1], 9.0]), type=Histogram)

    total = Counts(histograms={"wait": old}).plus(waited(5.0)).histograms["wait"]

    assert (total.buckets, total.sum, total.bounds) == ([5, 1], 12.0, checksum((5.0,)))
