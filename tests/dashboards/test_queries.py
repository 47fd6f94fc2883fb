"""Every query of every page and rule is asked of a real Prometheus and a real API that know a whole day."""

import json
import re
import time
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from grafana import Choice, has, legend_labels, rows, span
from pages import asked, dashboards, label_values, panels, rule_files

from services.process import until

PAGES = dashboards()
QUERIES = [query for name, page in PAGES.items() for query in asked(name, page)]
METRIC_QUERIES = [query for query in QUERIES if query.promql]
API_QUERIES = [query for query in QUERIES if query.infinity]
LABEL_QUERIES = [query for query in QUERIES if "label_values" in query.query]
TABLES = [
    (name, panel)
    for name, page in PAGES.items()
    for panel in panels(page)
    if panel["type"] == "table" or "__data.fields" in json.dumps(panel)
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("day")]

CHOICES = [
    {},
    {"scheduler": "shop", "job_name": "render_pictures"},
    {"scheduler": "shop", "job_name": "import_feed"},
    {"scheduler": "shop", "job_name": "export_orders"},
    {"scheduler": "reports", "job_name": "nightly_invoice"},
]
"""What a viewer may choose. Every choice must be answered without error; what one of them finds is enough."""

EMPTY = {
    (
        "queues",
        "Time to empty, time to the limit",
    ): "the line of what shrinks: the queue of the day only grows",
    ("exporter", "Errors of sinks"): "there is no sink but ours",
    ("health", "Checks over time"): "taskscope itself passed all of its checks",
    ("exporter", "CPU"): "the line of the limit: the control group of a test need not have one",
    ("exporter", "Memory"): "the line of the limit: the control group of a test need not have one",
}
"""Panels of which a query may find nothing, and why."""

YOUNG = {
    "taskscope:runs_ended:increase1d": "adds up what was recorded at full hours",
    "taskscope:runs_ended:increase7d": "adds up what was recorded at full hours",
    "taskscope:runs_failed:increase1d": "adds up what was recorded at full hours",
    "taskscope:runs_failed:increase7d": "adds up what was recorded at full hours",
    "taskscope:job_missing:info": "all jobs are still spoken of",
}
"""Records that need not have series after a few evaluations, and why."""


@pytest.fixture(scope="module")
def now(day):
    """The end of every time range: the day has gone on until then, and was scraped once more."""
    day.go_on()
    began = time.time()
    until(lambda: day.prometheus.query(f"timestamp(taskscope_store_up) > {began}"), what="a scrape")
    return time.time()


@pytest.fixture(scope="module")
def choices(now, day):
    """All choices for a page by its name: a run that failed, what it failed of, a finding that recovered."""
    failed = get(f"{day.api}/api/task/?status=failed&task=nightly_invoice")["data"][0]["id"]
    error = get(f"{day.api}/api/task/{failed}")["error"]
    chosen = {"run_id": failed, "fingerprint": error, "finding": _a_finding(day)}
    return lambda name: [
        Choice(PAGES[name], {**chosen, **values}, now - span(PAGES[name]), now) for values in CHOICES
    ]


def _a_finding(day):
    """A new error of a job that went away and came back."""
    found = get(f"{day.api}/api/finding/?kind=new_error&state=recovered")["data"]
    return found[-1]["id"]


def get(url):
    try:
        with urlopen(url, timeout=20) as answer:
            return json.load(answer)
    except HTTPError as error:
        pytest.fail(f"{url} is answered {error.code}: {error.read().decode()}")


def answered(day, path, **parameters):
    """What Prometheus finds: without error, and without anything to warn of."""
    answer = get(f"{day.prometheus.base}/api/v1/{path}?{urlencode(parameters)}")
    assert (answer["status"], answer.get("warnings", [])) == ("success", []), parameters
    return answer["data"]


def found(day, query, choice):
    """The series that a query of a panel or an annotation finds."""
    promql = choice.promql(query)
    if query.query.get("instant") and not query.query.get("range"):
        return answered(day, "query", query=promql, time=choice.end)["result"]
    times = {"start": choice.begin, "end": choice.end, "step": choice.step}
    return answered(day, "query_range", query=promql, **times)["result"]


@pytest.mark.parametrize("query", METRIC_QUERIES, ids=str)
def test_a_query_of_prometheus_finds_something(day, choices, query):
    series = [one for choice in choices(query.page) for one in found(day, query, choice)]

    if (query.page, query.where) in EMPTY and not series:
        return
    assert series, choices(query.page)[0].promql(query)
    labels = {label for one in series for label in one["metric"]}
    assert set(legend_labels(query)) <= labels, "labels of the legend"
    if "job_name" in labels:
        assert "instance" not in labels, "one line for each job, not for each replica of taskscope"


@pytest.mark.parametrize("query", [query for query in METRIC_QUERIES if query.query.get("exemplar")], ids=str)
def test_a_graph_with_exemplars_leads_to_runs(day, choices, query):
    def exemplars():
        times = {"start": day.begin, "end": time.time()}
        answers = [
            answered(day, "query_exemplars", query=choice.promql(query), **times)
            for choice in choices(query.page)
        ]
        return [one for series in answers for found in series for one in found["exemplars"]]

    until(exemplars, what="an exemplar")
    run = exemplars()[-1]["labels"]["run_id"]
    assert get(f"{day.api}/api/task/{run}")["id"] == run


def test_some_graphs_have_exemplars():
    assert any(query.query.get("exemplar") for query in METRIC_QUERIES)


@pytest.mark.parametrize("query", LABEL_QUERIES, ids=str)
def test_a_variable_of_labels_has_values(day, choices, query):
    selector, label = label_values(query.query["label_values"])
    choice = choices(query.page)[0]
    matching = {"match[]": choice.selector(selector)} if selector else {}

    values = answered(day, f"label/{label}/values", start=choice.begin, end=choice.end, **matching)

    assert values


@pytest.mark.parametrize("query", API_QUERIES, ids=str)
def test_a_question_to_the_api_finds_rows_with_every_column(day, choices, query):
    missing = {column["selector"] for column in query.query["columns"]}
    data = []
    for choice in choices(query.page):
        data += rows(get(day.api + choice.url(query)), query.query["root_selector"])
    for row in data:
        missing -= {selector for selector in missing if has(row, selector)}

    assert data, choices(query.page)[0].url(query)
    assert missing == set()


@pytest.mark.parametrize(
    ("chosen", "kinds"),
    [
        ({"inspection": "hourly", "kind": "new_error", "level": "warning"}, {"new_error"}),
        ({"inspection": "hasty"}, set()),
        ({"kind": "silence"}, set()),
        ({"level": "critical"}, {"failing_entity"}),
        ({"scheduler": "nobody", "kind": "new_error"}, set()),
    ],
)
def test_findings_are_those_of_the_chosen_inspection_kind_and_level(day, now, chosen, kinds):
    page = PAGES["findings"]
    (query,) = [one for one in API_QUERIES if (one.page, one.where) == ("findings", "Findings")]
    url = day.api + Choice(page, chosen, now - span(page), now).url(query)

    assert {row["kind"] for row in rows(get(url), "data")} == kinds


def test_what_runs_are_called_and_what_came_of_them_is_shown_in_the_list_and_alone(day):
    for name, title in (("runs", "Runs"), ("run", "Where")):
        (query,) = [one for one in API_QUERIES if (one.page, one.where) == (name, title)]
        assert {"key", "result"} <= {column["selector"] for column in query.query["columns"]}

    (run, *_) = get(f"{day.api}/api/task/?entity=receipts&status=success")["data"]
    assert (run["key"][:6], run["result"]) == ("batch-", "200 sent")


def test_a_chosen_entity_is_what_all_runs_of_the_page_are_about(day, now):
    choice = Choice(PAGES["runs"], {"entity": "receipts"}, now - span(PAGES["runs"]), now)

    def rows_of(title):
        (query,) = [one for one in API_QUERIES if (one.page, one.where) == ("runs", title)]
        return rows(get(day.api + choice.url(query)), query.query["root_selector"])

    runs = rows_of("Runs")
    (standing,) = rows_of("Where they stand")
    (about,) = [row for row in rows_of("By entity") if row["entity"] == "receipts"]
    assert {run["entity"] for run in runs} == {"receipts"}
    assert [row["entity"] for row in rows_of("$entity")] == [
        "digest",
        "newsletter",
        "receipts",
        "reminders",
        "welcome",
    ]
    assert standing["runs"] == sum(row["runs"] for row in rows_of("By job")) == len(runs)
    assert (about["pending"], about["completed"]) == tuple(
        sum(run["status"] == status for run in runs) for status in ("queued", "success")
    )
    assert about["pending"] == standing["statuses"]["queued"] == 1


@pytest.mark.parametrize(
    ("name", "table"), TABLES, ids=[f"{name}: {panel['title']}" for name, panel in TABLES]
)
def test_a_tables_columns_are_there(day, choices, name, table):
    if (name, table["title"]) in EMPTY:
        return
    fields = {"Time"}
    for query in (query for query in asked(name, PAGES[name]) if query.where == table["title"]):
        if query.infinity:
            fields |= {column["text"] for column in query.query["columns"]}
        else:
            series = [one for choice in choices(name) for one in found(day, query, choice)]
            fields |= {label for one in series for label in one["metric"]}
            fields |= {"Value", f"Value #{query.query['refId']}"}
    for transformation in table.get("transformations", []):
        options = transformation["options"]
        if transformation["id"] == "groupBy":
            assert options["fields"].keys() <= fields
            fields = {
                " ".join([name, *(f"({calculation})" for calculation in does["aggregations"])])
                for name, does in options["fields"].items()
            }
        if transformation["id"] == "organize":
            assert set(options.get("includeByName", {})) <= fields
            fields = {options.get("renameByName", {}).get(field, field) for field in fields}

    overrides = table["fieldConfig"]["overrides"]
    assert {one["matcher"]["options"] for one in overrides if one["matcher"]["id"] == "byName"} <= fields
    assert linked_fields(table) <= fields
    assert {one["displayName"] for one in table["options"].get("sortBy") or []} <= fields


def linked_fields(panel):
    """The fields of a row from which links take values."""
    return set(re.findall(r"\$\{__data\.fields\.(\w+)[:}]", json.dumps(panel)))


def test_links_name_fields_in_the_one_way_that_is_checked():
    texts = json.dumps(PAGES)
    assert texts.count("__data.fields") == len(re.findall(r"\$\{__data\.fields\.\w+[:}]", texts))
    assert "__field.labels" not in texts


def test_every_panel_that_may_be_empty_is_there():
    assert EMPTY.keys() <= {(query.page, query.where) for query in QUERIES}


@pytest.fixture(scope="module")
def rules(day, now):
    """Every rule as Prometheus evaluates it at the end of the day."""
    day.prometheus.evaluate(rule_files())
    yield day.prometheus.rules()
    day.prometheus.evaluate([])  # the others have the processor to themselves


def test_every_rule_is_evaluated_without_error(rules):
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}


def test_every_rule_is_answered_without_warning(day, rules):
    for rule in rules:
        answered(day, "query", query=rule["query"])


def test_every_record_has_series(day, rules):
    records = {rule["name"] for rule in rules if rule["type"] == "recording"}

    assert YOUNG.keys() <= records
    assert {name for name in records if not day.prometheus.query(name)} <= YOUNG.keys()


def test_alerts_tell_of_what_is_wrong_at_the_days_end_and_of_nothing_that_is_well(rules):
    told = {
        (rule["name"], alert["labels"].get("job_name") or alert["labels"].get("scheduler", ""))
        for rule in rules
        for alert in rule.get("alerts", [])
    }

    assert {
        ("TaskscopeJobLastRunFailed", "nightly_invoice"),
        ("TaskscopeJobConsecutiveFailures", "charge_cards"),
        ("TaskscopeJobOverdue", "poll_mailbox"),
        ("TaskscopeRunTooLong", "rebuild_index"),
        ("TaskscopeTriggerError", "archive"),
        ("TaskscopeTriggerBlocked", "compact"),
        ("TaskscopeSchedulerDown", "mailbox"),
        ("TaskscopeJobSkippedByOverlap", "export_orders"),
        ("TaskscopeDown", ""),
        ("TaskscopeWatchdog", ""),
    } <= told
    assert {job for _, job in told} & {"sync_stock", "totals", "weekly_digest", "old_feed"} == set()


def test_alerts_are_told_in_whole_sentences(rules):
    texts = {
        (rule["name"], text)
        for rule in rules
        for alert in rule.get("alerts", [])
        for text in (*alert["annotations"].values(), *alert["labels"].values())
    }

    assert len(texts) > 20
    assert {(name, text) for name, text in texts if "<" in text or "NaN" in text or "{{" in text} == set()
