"""The pages as they lie in dashboards/json, and the rules as they lie in alerts: found, not listed."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2]
INFINITY, PROMETHEUS = "yesoreyeram-infinity-datasource", "prometheus"

_VARIABLE = re.compile(r"\$\{(\w+)(?::([\w:]+))?\}|\[\[(\w+)\]\]|\$(\w+)")


class Asked(NamedTuple):
    """One query: of a panel, a variable or an annotation."""

    page: str
    where: str
    """The panel's title, `$variable`, or `annotation name`."""
    query: dict[str, Any]

    @property
    def promql(self) -> str:
        """The expression, variables and macros left in."""
        return str(self.query.get("expr", ""))

    @property
    def infinity(self) -> bool:
        """Is the API asked?"""
        return self.query.get("type") == "json" and "url" in self.query

    def __str__(self) -> str:
        return f"{self.page}: {self.where} {self.query.get('refId', '')}".strip()


def dashboards() -> dict[str, dict[str, Any]]:
    """Every page by its name."""
    return {
        path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "dashboards/json").glob("*.json"))
    }


def panels(page: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a page, those in rows too."""
    for panel in page.get("panels", []):
        if panel["type"] != "row":
            yield panel
        yield from panels(panel)


def variables(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The variables of a page."""
    return list(page.get("templating", {}).get("list", []))


def annotations(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The annotations of a page, without Grafana's own."""
    found = page.get("annotations", {}).get("list", [])
    return [each for each in found if not each.get("builtIn")]


def asked(name: str, page: Mapping[str, Any]) -> Iterator[Asked]:
    """Every query of a page; that of a variable in Prometheus has a `label_values`."""
    for panel in panels(page):
        for target in panel.get("targets", []):
            yield Asked(name, panel.get("title", ""), target)
    for variable in variables(page):
        query = variable.get("query")
        if variable["type"] == "query":
            inner = query.get("infinityQuery", query) if isinstance(query, dict) else {"label_values": query}
            yield Asked(name, f"${variable['name']}", inner)
    for each in annotations(page):
        yield Asked(name, f"annotation {each['name']}", each.get("target") or each)


def all_asked() -> list[Asked]:
    """Every query of every page."""
    return [query for name, page in dashboards().items() for query in asked(name, page)]


def rule_files() -> list[Path]:
    """The files of rules."""
    return sorted((ROOT / "alerts").glob("*.yml"))


def groups() -> list[dict[str, Any]]:
    """Every group of rules."""
    return [group for path in rule_files() for group in yaml.safe_load(path.read_text())["groups"]]


def filled(text: str, value: Callable[[str, str], str]) -> str:
    """The text with every variable and macro replaced by `value(name, format)`."""
    return _VARIABLE.sub(lambda found: value(found[1] or found[3] or found[4], found[2] or ""), text)


def label_values(query: str) -> tuple[str, str]:
    """The selector, which may be empty, and the label of a variable's query. Raises ValueError."""
    found = re.fullmatch(r"label_values\((?:(.*),)?\s*(\w+)\s*\)", query.strip(), re.DOTALL)
    if not found:
        raise ValueError(f"{query!r} is no label_values(selector, label)")
    return (found[1] or "").strip(), found[2]
