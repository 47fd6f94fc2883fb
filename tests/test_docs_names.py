"""Metrics, labels, alerts and pages that the documentation names are there."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from taskscope.api.finding import Kind
from taskscope.inspection.teller import alert_of
from taskscope.shipped import shipped
from taskscope.sinks.metrics.catalog import CATALOG

ROOT = Path(__file__).parent.parent
TEXTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
LABELS = {metric.sample: {*metric.every_label, "le", "job", "instance"} for metric in CATALOG}
PAGES = {path.stem for path in shipped("dashboards/json").glob("*.json")}


def labels_of(name: str) -> set[str] | None:
    """The labels of a metric, or of a part of a histogram; None where there is no such metric."""
    return LABELS.get(name) or LABELS.get(re.sub(r"_(bucket|count|sum)$", "", name))


def alerts() -> set[str]:
    """Those of the rules, and those that taskscope tells itself."""
    files = [yaml.safe_load(path.read_text()) for path in shipped("alerts").glob("*.yml")]
    rules = [rule for file in files for group in file["groups"] for rule in group["rules"]]
    return {rule["alert"] for rule in rules if "alert" in rule} | {alert_of(kind) for kind in get_args(Kind)}


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
def test_every_metric_and_label_that_is_named_is_in_the_catalog(text: Path) -> None:
    found = re.findall(r"\btaskscope_([a-z_]+[a-z])(?:\{([^}]*)\})?", text.read_text())

    assert [name for name, _ in found if labels_of(f"taskscope_{name}") is None] == []
    for name, matchers in found:
        used = re.findall(r"(?:^|,)\s*(\w+)", re.sub(r'"[^"]*"', "", matchers))
        assert set(used) <= (labels_of(f"taskscope_{name}") or set()), name


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text.name)
def test_every_alert_that_is_named_is_there(text: Path) -> None:
    assert set(re.findall(r"\bTaskscope[A-Z]\w+", text.read_text())) <= alerts()


def test_some_texts_name_metrics_and_alerts() -> None:
    texts = "".join(text.read_text() for text in TEXTS)

    assert texts.count("taskscope_queue_messages") > 3
    assert alerts() <= set(re.findall(r"\bTaskscope[A-Z]\w+", texts))


def test_every_page_of_grafana_is_described() -> None:
    described = (ROOT / "docs/dashboards.md").read_text()
    titles = re.findall(r"^\| \[(.+?)\]\(#", described, re.MULTILINE)

    assert len(titles) == len(PAGES)
    assert {f"## {title}" for title in titles} <= set(described.splitlines())
    numbers = ("Eight", "Nine", "Ten", "Eleven", "Twelve")
    assert numbers.index(described.split()[2]) + 8 == len(PAGES)
