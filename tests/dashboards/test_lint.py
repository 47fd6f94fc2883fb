"""All pages and rules hold our lint, and every rule of the lint catches what it is for."""

import re
from copy import deepcopy

import lint
import lint_promql
import lint_rules
import promql_parser
import pytest
from expressions import labels_named, selected
from pages import asked, dashboards, groups

from taskscope.sinks.metrics.catalog import CATALOG

PAGES = dashboards()
RULES = [(group["name"], rule) for group in groups() for rule in group["rules"]]
RECORDS = {rule["record"]: rule for _, rule in RULES if "record" in rule}
ALERTS = [rule for _, rule in RULES if "alert" in rule]

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
PAGE = {
    "uid": "taskscope-good",
    "title": "Taskscope / Good",
    "description": "Is all well?",
    "tags": ["taskscope"],
    "editable": False,
    "refresh": "30s",
    "graphTooltip": 2,
    "templating": {
        "list": [
            {"type": "datasource", "name": "datasource", "query": "prometheus", "label": "Data source"},
            {
                "type": "query",
                "name": "job_name",
                "label": "Job",
                "datasource": SOURCE,
                "query": "label_values(taskscope_runs_total, job_name)",
                "refresh": 2,
                "multi": True,
                "includeAll": True,
                "allValue": ".+",
            },
        ]
    },
    "panels": [
        {
            "id": 1,
            "type": "timeseries",
            "title": "Runs",
            "description": "How many runs there are.",
            "datasource": SOURCE,
            "gridPos": {"x": 0, "y": 0, "w": 24, "h": 8},
            "fieldConfig": {"defaults": {"unit": "short", "noValue": "no runs"}},
            "targets": [
                {
                    "refId": "A",
                    "datasource": SOURCE,
                    "expr": 'sum(rate(taskscope_runs_total{job_name=~"$job_name"}[$__rate_interval]))',
                }
            ],
        }
    ],
}
ALERT = {
    "alert": "TaskscopeStoreDown",
    "expr": "taskscope_store_up == 0",
    "for": "1m",
    "labels": {"severity": "critical"},
    "annotations": {
        "summary": "The history cannot be written.",
        "description": "{{ $labels.instance }} cannot write its history.",
        "runbook_url": "http://localhost:9750/runbook#taskscopestoredown",
        "dashboard_url": "http://localhost:3000/d/taskscope-good?var-job_name={{ $labels.job_name | urlquery }}",
    },
}


def changed(thing, path, value):
    """A copy in which what is at the path is another; None takes it out."""
    copy = deepcopy(thing)
    *way, last = path
    inner = copy
    for step in way:
        inner = inner[step]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return copy


QUESTION = {
    "refId": "A",
    "datasource": {"type": "yesoreyeram-infinity-datasource", "uid": "${api}"},
    "type": "json",
    "source": "url",
    "parser": "backend",
    "url": "/api/task/?${job_name:customqueryparam:task}",
    "url_options": {"params": [{"key": "from", "value": "${__from}"}]},
    "root_selector": "data",
    "columns": [
        {"selector": "task", "text": "Job", "type": "string"},
        {"selector": "id", "text": "Id", "type": "string"},
    ],
}
ASKED = {
    **PAGE["panels"][0],
    "targets": [QUESTION],
    "transformations": [{"id": "organize", "options": {"indexByName": {"Job": 0, "Id": 1}}}],
}
TABLE = {
    **ASKED,
    "type": "table",
    "fieldConfig": {
        **PAGE["panels"][0]["fieldConfig"],
        "overrides": [
            {"matcher": {"options": name}, "properties": [{"id": "unit", "value": "string"}]}
            for name in ("Job", "Id")
        ],
    },
}
PANEL, VARIABLE = ("panels", 0), ("templating", "list", 1)
EXPR = (*PANEL, "targets", 0, "expr")
BAD_PAGES = [
    (lint.the_house, ("editable",), True),
    (lint.the_house, ("uid",), "abc"),
    (lint.data_source_first, ("templating", "list", 0, "label"), "Prometheus"),
    (lint.sources_by_variable, (*PANEL, "datasource", "uid"), "taskscope-prometheus"),
    (lint.sources_by_variable, (*PANEL, "targets", 0, "datasource", "uid"), "P1"),
    (
        lint.sources_by_variable,
        (*PANEL, "targets", 0),
        {"type": "json", "url": "/api/task/", "datasource": SOURCE},
    ),
    (lint.variables_load_in_time, (*VARIABLE, "refresh"), 1),
    (lint.variables_are_labelled, (*VARIABLE, "label"), None),
    (lint.all_is_a_pattern, (*VARIABLE, "allValue"), None),
    (lint.variables_are_there_and_used, EXPR, 'sum(rate(taskscope_runs_total{job_name=~"$job"}[5m]))'),
    (lint.variables_are_there_and_used, EXPR, "sum(rate(taskscope_runs_total[5m]))"),
    (lint.variables_parse, (*VARIABLE, "query"), "labels(taskscope_runs_total)"),
    (lint.promql_parses, (*VARIABLE, "query"), "label_values(taskscope_runs_total{, job_name)"),
    (lint.panels_are_told, (*PANEL, "description"), ""),
    (lint.panels_are_told, ("panels",), PAGE["panels"] * 2),
    (lint.panels_have_units, (*PANEL, "fieldConfig", "defaults", "unit"), None),
    (lint.panels_have_units, (*PANEL, "fieldConfig", "defaults", "unit"), "secs"),
    (lint.panels_ask, (*PANEL, "targets"), []),
    (lint.panels_ask, (*PANEL, "targets"), PAGE["panels"][0]["targets"] * 2),
    (lint.panels_speak_of_nothing, (*PANEL, "fieldConfig", "defaults", "noValue"), None),
    (lint.panels_lie_apart, (*PANEL, "gridPos", "x"), 13),
    (lint.panels_lie_apart, (*PANEL, "gridPos", "w"), 12),
    (lint.panels_lie_apart, ("panels",), [*PAGE["panels"], PAGE["panels"][0] | {"id": 2, "title": "More"}]),
    (lint.text_stays_text, PANEL, changed(TABLE, ("fieldConfig", "overrides"), [])),
    (lint.questions_are_plain, PANEL, changed(ASKED, ("targets", 0, "parser"), "uql")),
    (lint.questions_are_plain, PANEL, changed(ASKED, ("targets", 0, "root_selector"), "$sum(data.runs)")),
    (lint.questions_are_plain, PANEL, changed(ASKED, ("targets", 0, "url"), "/api/task/?task=$job_name")),
    (lint.answers_are_ordered, PANEL, changed(ASKED, ("transformations",), [])),
    (lint.promql_parses, EXPR, "rate(taskscope_runs_total)"),
    (lint.windows_follow_the_picture, EXPR, "sum(rate(taskscope_runs_total[5m]))"),
    (lint.expressions_are_sound, EXPR, "sum(taskscope_runs_total)"),
]
BAD_EXPRESSIONS = [
    (
        lint_promql.raw_counters,
        "sum(a_total) + 1 > 2",
        "sum(rate(a_total[5m])) and count(a_total) unless b_total",
    ),
    (lint_promql.wrong_rates, "rate(a_seconds[5m])", "rate(a_seconds_sum[5m])"),
    (lint_promql.wrong_rates, "rate(a_total[30s])", "rate(a_total[2m])"),
    (lint_promql.wrong_rates, "rate(sum(a_total)[5m:1m])", "sum(rate(a_total[5m]))"),
    (lint_promql.needless_patterns, 'a{job_name=~"nightly"}', 'a{job_name=~"night.+"}'),
    (lint_promql.needless_patterns, 'a{job_name=~"^night.+"}', 'a{job_name=~"day|night"}'),
    (lint_promql.divisions_by_zero, "a / sum(rate(b_total[5m]))", "a / (sum(rate(b_total[5m])) > 0)"),
]
BAD_ALERTS = [
    (lint_rules.is_named_well, ("alert",), "StoreDown"),
    (lint_rules.is_named_well, ("alert",), "Taskscope_store"),
    (lint_rules.parses, ("expr",), "taskscope_store_up =="),
    (lint_rules.is_sound, ("expr",), "taskscope_runs_total + 5 > 10"),
    (lint_rules.waits_for_what_is_absent, ("expr",), "absent(taskscope_store_up)"),
    (lint_rules.has_a_severity, ("labels", "severity"), "page"),
    (lint_rules.has_a_severity, ("labels", "severity"), '{{ or $labels.severity "page" }}'),
    (lint_rules.says_what_it_means, ("annotations", "runbook_url"), None),
    (lint_rules.says_what_it_means, ("annotations", "summary"), "it is {{ $value }}"),
    (lint_rules.keeps_its_identity, ("labels", "how_many"), "{{ $value }}"),
    (lint_rules.templates_are_templates, ("annotations", "description"), "{{ $labels.x cannot"),
    (lint_rules.templates_are_templates, ("annotations", "description"), "{{ $value | humanizeTime }}"),
]


def measured(rule):
    """The metrics that a rule takes, also by records; how to choose among jobs and targets aside."""
    names = {each.name for each in selected(promql_parser.parse(rule["expr"]))}
    found = {name for name in names if name not in RECORDS}
    for record in (RECORDS[name] for name in names & RECORDS.keys() - {rule.get("record")}):
        found |= measured(record)
    return found - BESIDE


BESIDE = {"taskscope_job_info", "taskscope_build_info", "taskscope_reading_timestamp_seconds", ""}


def ids(cases):
    return [f"{case[0].__name__}-{number}" for number, case in enumerate(cases)]


@pytest.mark.parametrize("rule", lint.RULES, ids=lambda rule: rule.__name__)
def test_every_page_holds(rule):
    assert [f"{name}: {wrong}" for name, page in PAGES.items() for wrong in rule(page)] == []


def test_every_link_leads_to_a_page_with_its_variables():
    assert [
        f"{name}: {wrong}" for name, page in PAGES.items() for wrong in lint.lost_links(page, PAGES)
    ] == []


def test_page_and_file_bear_the_same_name():
    assert {name: page["uid"] for name, page in PAGES.items()} == {
        name: f"taskscope-{name}" for name in PAGES
    }


@pytest.mark.parametrize("check", lint_rules.CHECKS, ids=lambda check: check.__name__)
def test_every_alert_and_record_holds(check):
    found = [(rule.get("alert") or rule["record"], wrong) for _, rule in RULES for wrong in check(rule)]
    assert found == []


def test_every_alert_leaves_out_what_is_well():
    silent = {"TaskscopeWatchdog"}  # fires always: that is what it is for
    assert {alert["alert"] for alert in ALERTS if not lint_rules.compares(alert, RECORDS)} == silent


def test_no_two_rules_are_the_same():
    said = [(rule.get("alert") or rule["record"], rule["expr"]) for _, rule in RULES]
    assert len(said) == len(set(said))
    assert len(RECORDS) == sum("record" in rule for _, rule in RULES)


def test_groups_are_evaluated_often_enough():
    slow = [group["name"] for group in groups() if lint_rules.seconds(group.get("interval", "1m")) > 300]
    assert slow == []


def test_every_alert_leads_to_a_page_with_its_variables():
    assert [wrong for alert in ALERTS for wrong in lint_rules.lost_dashboard(alert, PAGES)] == []


@pytest.mark.parametrize("alert", [one for one in ALERTS if measured(one)], ids=lambda one: one["alert"])
def test_the_page_to_which_an_alert_leads_shows_what_it_measures(alert):
    page = PAGES[alert["annotations"]["dashboard_url"].partition("/d/taskscope-")[2].partition("?")[0]]
    shown = {name for query in asked("", page) for name in re.findall(r"\w+", query.promql)}
    assert measured(alert) & shown


def test_every_alert_has_its_heading_in_the_runbook():
    wanted = {alert["alert"].lower() for alert in ALERTS}
    assert {lint_rules.runbook_anchor(alert) for alert in ALERTS} == wanted
    assert wanted <= lint_rules.anchors()


def test_rules_take_metrics_and_labels_of_the_catalog_alone():
    samples = {name: {*metric.every_label, "le"} for metric in CATALOG for name in sample_names(metric)}
    theirs = {"up", "ALERTS"} | {"process_cpu_seconds_total", "process_resident_memory_bytes"}
    labels = {label for known in samples.values() for label in known} | {"job", "instance", "alertname"}
    wrong = []
    for _, rule in RULES:
        expr = promql_parser.parse(rule["expr"])
        names = {each.name for each in selected(expr)} - {""}
        wrong += [f"{rule}: {name}" for name in names - samples.keys() - theirs - RECORDS.keys()]
        wrong += [f"{rule}: {label}" for label in set(labels_named(expr)) - labels]
    assert wrong == []


def sample_names(metric):
    return (
        [metric.sample + s for s in ("_bucket", "_count", "_sum")]
        if metric.kind == "histogram"
        else [metric.sample]
    )


@pytest.mark.parametrize(("rule", "path", "value"), BAD_PAGES, ids=ids(BAD_PAGES))
def test_the_lint_of_pages_catches(rule, path, value):
    assert list(rule(PAGE)) == []
    assert list(rule(changed(PAGE, path, value)))


def test_the_lint_of_pages_lets_plain_questions_pass():
    page = changed(PAGE, PANEL, TABLE)
    rules = (lint.questions_are_plain, lint.answers_are_ordered, lint.text_stays_text)
    assert [wrong for rule in rules for wrong in rule(page)] == []


def test_every_rule_for_pages_has_a_bad_example():
    assert {case[0] for case in BAD_PAGES} == set(lint.RULES)


@pytest.mark.parametrize(
    "url",
    [
        "/d/taskscope-none",
        "/d/taskscope-good?var-task=x",
        "https://grafana.example.com/d/taskscope-good",
        "/explore",
        "http://localhost:9750/backfill?shop=${__data.fields.Entity:percentencode}",
    ],
)
def test_the_lint_of_links_catches(url):
    links = [{"url": "/d/taskscope-good?var-job_name=x&${datasource:queryparam}"}]
    assert list(lint.lost_links(PAGE | {"links": links}, {"good": PAGE})) == []
    assert list(lint.lost_links(PAGE | {"links": [{"url": url}]}, {"good": PAGE}))


@pytest.mark.parametrize(("check", "bad", "good"), BAD_EXPRESSIONS, ids=ids(BAD_EXPRESSIONS))
def test_the_lint_of_expressions_catches(check, bad, good):
    assert list(check(promql_parser.parse(bad)))
    assert list(check(promql_parser.parse(good))) == []


@pytest.mark.parametrize(("check", "path", "value"), BAD_ALERTS, ids=ids(BAD_ALERTS))
def test_the_lint_of_alerts_catches(check, path, value):
    assert list(check(ALERT)) == []
    assert list(check(changed(ALERT, path, value)))


def test_every_check_of_alerts_has_a_bad_example():
    assert {case[0] for case in BAD_ALERTS} == set(lint_rules.CHECKS)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:3000/d/taskscope-none",
        "http://localhost:3000/d/taskscope-good?var-task=x",
        "http://grafana.example.com/d/taskscope-good",
    ],
)
def test_a_lost_dashboard_url_is_caught(url):
    assert list(lint_rules.lost_dashboard(ALERT, {"good": PAGE})) == []
    assert list(
        lint_rules.lost_dashboard(changed(ALERT, ("annotations", "dashboard_url"), url), {"good": PAGE})
    )


def test_an_alert_that_compares_nothing_is_caught():
    record = {"record": "taskscope:x:y", "expr": "up == 0"}
    assert lint_rules.compares({"expr": "taskscope:x:y * 2"}, {"taskscope:x:y": record})
    assert not lint_rules.compares({"expr": "taskscope:x:y * 2"}, {"taskscope:x:y": {"expr": "up == bool 0"}})
