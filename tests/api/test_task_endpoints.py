"""The history over HTTP, on SQLite and on PostgreSQL."""

from datetime import UTC, datetime

import pytest
from stored import BEGIN


def ids(answer):
    assert answer.status == 200, answer.body
    return [run["id"] for run in answer.json["data"]]


def tasks(answer):
    assert answer.status == 200, answer.body
    return [run["task"] for run in answer.json["data"]]


def written(seconds):
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_runs_are_listed_newest_first_fifty_at_a_time(historian):
    page = historian.ask("/api/task/").json

    assert (page["total"], page["total_is_estimate"], page["limit"], page["offset"]) == (84, False, 50, 0)
    assert len(page["data"]) == 50
    assert [run["task"] for run in page["data"][:4]] == ["elsewhere", "näm/e %", "nightly", "nightly"]


def test_a_run_has_times_in_utc_and_durations_in_milliseconds(historian):
    run = historian.ask("/api/task/", {"task": "steady", "limit": 1}).json["data"][0]

    del run["id"]
    assert run == {
        "task": "steady",
        "scheduler": "main",
        "status": "success",
        "reason": None,
        "attempt": 0,
        "created_at": written(BEGIN + 59),
        "due_at": written(BEGIN + 59),
        "enqueued_at": None,
        "started_at": written(BEGIN + 59.25),
        "ended_at": written(BEGIN + 59.35),
        "duration": 100.0,
        "queue_wait": None,
        "start_delay": 250.0,
        "queue": None,
        "worker": None,
        "instance": None,
        "entity": None,
        "key": None,
        "result": None,
        "trace_id": None,
        "slow": None,
        "exception": None,
        "message": None,
    }


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ({"status": "failed"}, 10),
        ({"status": "failed,unknown"}, 11),
        ({"status": ["failed", "unknown", "started"]}, 12),
        ({"task": "näm/e %"}, 1),
        ({"task": ["steady", "flaky"]}, 80),
        ({"task": "stead"}, 0),
        ({"scheduler": "other"}, 1),
        ({"queue": "q2"}, 1),
        ({"worker": "w9"}, 1),
        ({"entity": "shop-7"}, 1),
        ({"entity": ["shop-7", "shop-8"], "status": "started"}, 1),
        ({"key": "order-4711"}, 1),
        ({"key": ["order-4711", "order-4712"], "task": ["näm/e %", "flaky"], "status": "started"}, 1),
        ({"key": "order-4711", "status": "success"}, 0),
        ({"key": "order-47"}, 0),
        ({"trace_id": "abc"}, 1),
        ({"reason": "misfire"}, 1),
        ({"exception": "ValueError"}, 10),
        ({"error": "0123456789abcdef"}, 0),
        ({"q": "NAUGHT_"}, 10),
        ({"q": "%"}, 11),
        ({"q": "", "task": "", "trace_id": "", "slow": "", "from": "", "to": "", "cursor": ""}, 84),
        ({"slow": "10000"}, 10),
        ({"slow": "0.05"}, 81),
        ({"from": BEGIN, "to": BEGIN + 60}, 60),
        ({"from": (BEGIN + 60) * 1000}, 24),
        ({"from": "-2h"}, 84),
        ({"from": "-1m"}, 0),
        ({"to": "now-2h"}, 0),
        ({"from": "2001-01-01", "to": "2001-01-02"}, 0),
        ({"from": written(BEGIN + 80), "to": "now"}, 4),
        ({"status": "success", "task": "flaky", "slow": "9000"}, 5),
    ],
)
def test_runs_are_filtered(historian, query, total):
    assert historian.ask("/api/task/", query).json["total"] == total


def test_a_run_shows_its_key_and_its_result_in_a_list_and_alone(historian):
    (listed,) = historian.ask("/api/task/", {"key": "order-4711"}).json["data"]
    alone = historian.ask(f"/api/task/{listed['id']}").json

    assert {(run["task"], run["key"], run["result"]) for run in (listed, alone)} == {
        ("näm/e %", "order-4711", "package 88")
    }


def test_a_run_slower_than_its_jobs_own_p95_is_found(historian):
    found = historian.ask("/api/task/", {"slow": "p95"}).json["data"]

    assert {run["task"] for run in found} == {"flaky"}, "all steady runs take the same time"
    assert min(run["duration"] for run in found) >= 19_000


def test_a_run_beyond_the_limit_of_a_rule_is_marked_slow(historian):
    runs = historian.ask("/api/task/", {"task": "flaky"}).json["data"]

    assert [run["slow"] for run in runs] == [run["duration"] > 10_000 for run in runs]
    assert {run["slow"] for run in runs} == {True, False}


def test_the_cursor_walks_all_runs_once_in_either_direction(historian):
    for direction in ("desc", "asc"):
        walked, query = [], {"limit": 9, "sort_direction": direction}
        while query:
            page = historian.ask("/api/task/", query).json
            walked += [run["id"] for run in page["data"]]
            query = query | {"cursor": page["next_cursor"]} if page["next_cursor"] else None

        assert walked == sorted(walked, reverse=direction == "desc")
        assert len(walked) == 84


def test_offset_and_cursor_find_the_same_page(historian):
    first = historian.ask("/api/task/", {"limit": 10})

    by_cursor = historian.ask("/api/task/", {"limit": 10, "cursor": first.json["next_cursor"]})

    assert ids(by_cursor) == ids(historian.ask("/api/task/", {"limit": 10, "offset": 10}))


@pytest.mark.parametrize("change", ["last", "first", "shorter", "foreign", "padded"])
def test_a_cursor_that_was_altered_or_belongs_to_other_filters_is_refused(historian, change):
    cursor = historian.ask("/api/task/", {"limit": 10}).json["next_cursor"]
    altered = {
        "last": cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB"),
        "first": ("A" if cursor[0] != "A" else "B") + cursor[1:],
        "shorter": cursor[:-4],
        "foreign": "x",
        "padded": cursor + "=",
    }[change]

    for query in ({"cursor": altered}, {"cursor": cursor, "status": "failed"}):
        answer = historian.ask("/api/task/", query)
        assert (answer.status, list(answer.json["errors"])) == (400, ["cursor"])


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"status": "done"}, "status"),
        ({"status": ""}, "status"),
        ({"sort_column": "entity"}, "sort_column"),
        ({"sort_direction": "down"}, "sort_direction"),
        ({"slow": "p50"}, "slow"),
        ({"slow": "-1"}, "slow"),
        ({"from": "yesterday"}, "from"),
        ({"to": "2025-02-30"}, "to"),
        ({"from": "-1y"}, "from"),
        ({"from": "now", "to": "-1h"}, "from"),
        ({"offset": "100001"}, "offset"),
        ({"trace_id": "a\0"}, "trace_id"),
    ],
)
def test_a_bad_filter_is_refused_by_name(historian, query, field):
    answer = historian.ask("/api/task/", query)

    assert (answer.status, list(answer.json["errors"])) == (400, [field])


@pytest.mark.parametrize(
    ("parameter", "choices"),
    [
        ("sort_column", "duration, ended_at, id, started_at, status, task"),
        ("sort_direction", "asc, desc"),
    ],
)
def test_where_there_are_few_values_the_refusal_names_them(historian, parameter, choices):
    answer = historian.ask("/api/task/", {parameter: "foo"})

    assert answer.json["errors"][parameter].startswith(f"must be one of {choices}")


def test_a_cursor_goes_with_neither_offset_nor_a_column(historian):
    cursor = historian.ask("/api/task/", {"limit": 1}).json["next_cursor"]

    for more in ({"offset": "1"}, {"sort_column": "task"}):
        assert historian.ask("/api/task/", {"cursor": cursor} | more).status == 400


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("column", ["started_at", "ended_at", "duration", "task", "status"])
def test_columns_sort_with_the_unknown_last_and_pages_do_not_overlap(historian, column, direction):
    query = {"sort_column": column, "sort_direction": direction, "limit": 42}

    pages = [historian.ask("/api/task/", query | {"offset": offset}) for offset in (0, 42)]

    runs = [run for page in pages for run in page.json["data"]]
    assert len({run["id"] for run in runs}) == 84
    if column != "started_at":  # which stands at its due time where it is unknown
        values = [run[column] for run in runs]
        known = [value for value in values if value is not None]
        assert values == sorted(known, reverse=direction == "desc") + [None] * (84 - len(known))
    assert pages[0].json["next_cursor"] is None


def test_one_failed_run_is_shown_in_full_and_as_metabase_does(historian):
    id = ids(historian.ask("/api/task/", {"status": "failed", "limit": 1}))[0]

    run = historian.ask(f"/api/task/{id}").json

    assert (run["id"], run["stack_trace"], run["data"], run["details"]) == (
        id,
        "Traceback\n  here\nValueError: 50",
        {"n": "1"},
        {"tries": 3},
    )
    assert run["task_details"] == {
        "status": "failed",
        "exception": "ValueError",
        "message": "50 % of naught_",
        "stacktrace": ["Traceback", "  here", "ValueError: 50"],
        "ex-data": {"n": "1"},
        "original-info": {"tries": 3},
    }


def test_a_run_leads_to_where_the_settings_say_as_far_as_is_known(historian):
    def links(task):
        id = ids(historian.ask("/api/task/", {"task": task, "limit": 1}))[0]
        return id, {link["name"]: link["url"] for link in historian.ask(f"/api/task/{id}").json["links"]}

    id, found = links("näm/e %")
    assert found == {
        "logs": f"https://l/n%C3%A4m%2Fe%20%25/{id}",
        "trace": f"https://t/abc?at={BEGIN * 1000 + 82_500}",
    }
    id, found = links("flaky")
    assert found == {"logs": f"https://l/flaky/{id}"}


def test_a_run_that_is_not_there_is_a_404_and_an_id_that_is_none_a_400(historian):
    answer = historian.ask("/api/task/00000000-0000-8000-8000-000000000000")

    assert (answer.status, answer.json["errors"]) == (404, {})
    assert historian.ask("/api/task/17").json["errors"] == {"id": "must be a UUID"}


def test_names_are_alphabetical_and_can_be_of_one_scheduler(historian):
    everywhere = historian.ask("/api/task/unique-tasks").json

    assert everywhere == sorted(everywhere)
    assert set(everywhere) == {"elsewhere", "flaky", "nightly", "näm/e %", "steady"}
    assert historian.ask("/api/task/unique-tasks", {"scheduler": "other"}).json == ["elsewhere"]


def test_stats_add_up_per_job_and_overall(historian):
    stats = historian.ask("/api/task/stats", {"from": BEGIN, "to": BEGIN + 100}).json

    assert (stats["from"], stats["to"]) == (written(BEGIN), written(BEGIN + 100))
    assert stats["overall"]["runs"] == 84
    assert stats["overall"]["statuses"]["failed"] == 10
    assert stats["total"] == 5
    flaky = next(job for job in stats["data"] if job["task"] == "flaky")
    assert (flaky["scheduler"], flaky["runs"], flaky["failure_rate"]) == ("main", 20, 0.5)
    assert flaky["rate"] == pytest.approx(0.2)
    assert (flaky["mean"], flaky["max"]) == (pytest.approx(10_000), pytest.approx(19_500))
    assert flaky["percentiles"].keys() == {"p50", "p90", "p95", "p99"}
    assert flaky["percentiles"]["p90"] == pytest.approx(17_500, rel=0.06)


def test_stats_take_percentiles_a_limit_for_slow_runs_and_jobs(historian):
    stats = historian.ask(
        "/api/task/stats", {"task": "flaky", "percentiles": "50,99.9", "slow": "10000"}
    ).json

    assert [job["task"] for job in stats["data"]] == ["flaky"]
    assert stats["data"][0]["percentiles"].keys() == {"p50", "p99.9"}
    assert stats["data"][0]["slow"] == 10
    assert historian.ask("/api/task/stats", {"percentiles": "100"}).json["errors"].keys() == {"percentiles"}


def test_runs_slower_than_the_p95_of_their_job_are_counted(historian):
    stats = historian.ask("/api/task/stats", {"slow": "p95"}).json

    slow = {job["task"]: job["slow"] for job in stats["data"]}
    assert slow.pop("flaky") <= 1, "of 20"
    assert set(slow.values()) == {0}, "all others take the same time each"


def test_a_history_that_is_away_is_a_503_that_says_when_to_come_again(serve, tmp_path):
    from taskscope.settings import Settings
    from taskscope.sinks.history.queries import Queries

    url = f"sqlite:///{tmp_path / 'none' / 'runs.db'}"
    queries = Queries(url, Settings(history=url))

    client = serve(Settings(history=url), queries=queries)

    for path in ("/api/task/", "/api/task/stats", "/api/task/unique-tasks"):
        answer = client.ask(path)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert "cannot be read" in answer.json["error"]
    assert client.ask("/api/job/").status == 200
    assert client.ask("/metrics").status == 200
    queries.close()
