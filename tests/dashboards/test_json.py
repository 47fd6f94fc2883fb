"""The JSON that Grafana loads: fresh, accepted by the SDK, and speaking only of what taskscope exports."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
from dashboards.__main__ import FOLDER, main, pages, stale
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from taskscope.sinks.metrics.catalog import CATALOG, Metric

DOCS = FOLDER.parent / "docs"
FILES = {path.stem: path for path in sorted((FOLDER / "json").glob("*.json"))}

ADDED_BY_PROMETHEUS = {"job", "instance"}
OF_HISTOGRAMS = {"_bucket": {"le"}, "_sum": set(), "_count": set()}
OF_OTHERS = {
    "up": ADDED_BY_PROMETHEUS,
    "scrape_duration_seconds": ADDED_BY_PROMETHEUS,
    "process_cpu_seconds_total": ADDED_BY_PROMETHEUS,
    "process_resident_memory_bytes": ADDED_BY_PROMETHEUS,
    "process_start_time_seconds": ADDED_BY_PROMETHEUS,
    "python_gc_collections_total": ADDED_BY_PROMETHEUS | {"generation"},
    "ALERTS": {"alertname", "alertstate", "severity", "team", "scheduler", "job_name"},
    "ALERTS_FOR_STATE": {"alertname", "severity", "team", "scheduler", "job_name"},
}


def known() -> dict[str, set[str]]:
    """The labels of every metric that a page may use."""
    found = {name: set(labels) for name, labels in OF_OTHERS.items()}
    for metric in CATALOG:
        found |= samples(metric)
    return found


def samples(metric: Metric) -> dict[str, set[str]]:
    labels = {*metric.every_label, *ADDED_BY_PROMETHEUS}
    if metric.kind != "histogram":
        return {metric.sample: labels}
    return {metric.sample + suffix: labels | more for suffix, more in OF_HISTOGRAMS.items()}


def loaded(name: str) -> dict[str, Any]:
    page: dict[str, Any] = json.loads(FILES[name].read_text())
    return page


def expressions(name: str) -> Iterator[str]:
    """Every PromQL expression of a page: of panels, annotations and variables."""
    page = loaded(name)
    for holder in (*page["panels"], *page["annotations"]["list"]):
        for query in (*holder.get("targets", []), holder):
            if "expr" in query:
                yield query["expr"]
    for variable in page["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((.*), (\w+)\)", str(variable.get("query", "")))
        if asked:
            yield f"max by ({asked[2]}) ({asked[1]})"


def parsed(expression: str) -> Any:
    """The expression with Grafana's variables filled in."""
    filled = re.sub(r"\$__(range|interval|rate_interval)\b", "5m", expression)
    filled = re.sub(r"\$__(range_s|interval_ms)\b", "300", filled)
    return promql_parser.parse(re.sub(r"\$percentile_\d", "95", filled))


def parts(node: Any) -> Iterator[Any]:
    """The node and all below it."""
    yield node
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        below = getattr(node, name, None)
        if below is not None and not isinstance(below, str):
            yield from parts(below)
    for argument in getattr(node, "args", None) or []:
        yield from parts(argument)


def names(selector: Any) -> list[str]:
    """The metrics that a selector chooses."""
    if selector.name:
        return [selector.name]
    named = [matcher.value for matcher in selector.matchers.matchers if matcher.name == "__name__"]
    return named[0].split("|")


def test_every_page_is_fresh() -> None:
    assert list(stale()) == [], "run `make generate`"


def test_a_check_names_the_pages_that_are_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dashboards.__main__.JSON", tmp_path)
    (tmp_path / "left_over.json").write_text("{}")
    (tmp_path / "overview.json").write_text(pages()["overview"] + " ")

    status = main(["--check"])

    told = capsys.readouterr().err
    assert status == 1
    assert "left_over.json" in told
    assert "overview.json" in told
    assert "job.json" in told, "a missing one"
    assert main([]) == 0, "building makes all of them fresh"
    assert {path.stem for path in tmp_path.iterdir()} == set(pages())


@pytest.mark.parametrize("name", FILES)
def test_the_sdk_reads_a_page_without_loss(name: str) -> None:
    register_default_plugins()

    again = json.loads(json.dumps(Dashboard.from_json(loaded(name)), cls=JSONEncoder))

    for link in again["links"]:
        assert link.pop("placement") == "inControlsMenu", "the SDK writes it whatever it read"
    assert again == loaded(name)


def test_uids_and_titles_are_unique_and_follow_the_name_of_the_file() -> None:
    assert [loaded(name)["uid"] for name in FILES] == [f"taskscope-{name}" for name in FILES]
    assert len({loaded(name)["title"] for name in FILES}) == len(FILES)


@pytest.mark.parametrize("name", FILES)
def test_panels_of_a_page_have_ids_of_their_own(name: str) -> None:
    ids = Counter(panel["id"] for panel in loaded(name)["panels"])

    assert ids.most_common(1)[0][1] == 1
    assert 0 not in ids


@pytest.mark.parametrize("name", FILES)
def test_no_panel_covers_another(name: str) -> None:
    taken = Counter(
        (x, y)
        for at in (panel["gridPos"] for panel in loaded(name)["panels"])
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    )

    assert max(taken.values()) == 1
    assert max(x for x, _ in taken) == 23, "a page uses the full width, and no more"


@pytest.mark.parametrize("name", FILES)
def test_every_metric_and_label_of_a_page_is_exported(name: str) -> None:
    exported = known()

    for expression in expressions(name):
        used: set[str] = set()
        for part in parts(parsed(expression)):
            if isinstance(part, promql_parser.VectorSelector):
                for metric in names(part):
                    assert metric in exported, f"{metric} in {expression}"
                    chosen = {matcher.name for matcher in part.matchers.matchers} - {"__name__"}
                    assert chosen <= exported[metric], f"labels of {metric} in {expression}"
                    used |= exported[metric]
        for part in parts(parsed(expression)):
            if isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
                assert set(part.modifier.labels) <= used, f"labels of {expression}"


@pytest.mark.parametrize("name", FILES)
def test_a_choice_of_data_sources_is_handed_on_by_every_link(name: str) -> None:
    variables = {variable["name"] for variable in loaded(name)["templating"]["list"]}
    links = re.findall(r'"(/d/taskscope-[^"]*)"', json.dumps(loaded(name)))

    assert {"datasource", "api"} <= variables
    for link in links:
        every = "${__all_variables}" in link
        assert every or {"${datasource:queryparam}", "${api:queryparam}"} <= set(
            link.split("?")[1].split("&")
        )


def test_every_tile_above_the_overview_leads_to_a_page_that_says_more() -> None:
    tiles = [panel for panel in loaded("overview")["panels"] if panel["gridPos"]["y"] == 0]

    assert len(tiles) == 8
    assert [tile["title"] for tile in tiles if not tile["fieldConfig"]["defaults"].get("links")] == []


def test_the_worst_alerts_stand_first_and_lead_to_what_to_do() -> None:
    table = next(panel for panel in loaded("overview")["panels"] if panel["title"] == "Firing alerts")
    overrides = {
        one["matcher"]["options"]: {each["id"]: each["value"] for each in one["properties"]}
        for one in table["fieldConfig"]["overrides"]
    }
    texts = overrides["Severity"]["mappings"][0]["options"]

    assert table["options"]["sortBy"] == [{"displayName": "Severity", "desc": True}]
    assert [texts[rank]["text"] for rank in sorted(texts, reverse=True)] == ["critical", "warning", "info"]
    assert overrides["Alert"]["links"][0]["url"].startswith("http://localhost:9750/runbook#")
    assert overrides["Job"]["noValue"] == "-"


@pytest.mark.parametrize(
    ("title", "sets"), [("Runs", {"scheduler", "entity", "job"}), ("By entity", {"scheduler", "entity"})]
)
def test_what_failed_and_entities_lead_to_where_their_work_is_started_again(
    title: str, sets: set[str]
) -> None:
    (table,) = (panel for panel in loaded("runs")["panels"] if panel["title"] == title)
    columns = {column["text"] for column in table["targets"][0]["columns"]}
    (column,) = (
        {each["id"]: each["value"] for each in one["properties"]}
        for one in table["fieldConfig"]["overrides"]
        if one["matcher"]["options"] == "Backfill"
    )

    place, _, query = column["links"][0]["url"].partition("?")

    assert place == "http://localhost:9750/backfill", "where `taskscope assets` writes the user's address"
    assert {part.partition("=")[0] for part in query.split("&")} == sets
    assert set(re.findall(r"fields\.(\w+)", query)) <= columns


@pytest.mark.parametrize("name", FILES)
def test_a_table_that_several_queries_fill_has_words_for_no_rows(name: str) -> None:
    tables = [panel for panel in loaded(name)["panels"] if panel["type"] == "table"]

    for table in tables:
        steps = [step["id"] for step in table["transformations"]]
        several = sum("expr" in target for target in table["targets"]) > 1
        assert not several or steps == ["merge", "groupBy", "organize"], table["title"]


def test_every_page_is_told_of_and_pictured() -> None:
    told = (DOCS / "dashboards.md").read_text()
    pictures = {path.stem for path in (DOCS / "pictures/dashboards").glob("*.png")}

    assert pictures == FILES.keys()
    assert [name for name in FILES if f"(pictures/dashboards/{name}.png)" not in told] == []
