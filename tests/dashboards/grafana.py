"""What Grafana does with a query before it asks: variables and macros filled in for one time range and choice."""

import math
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlencode

from pages import Asked, filled, variables

SCRAPE = 60.0  # seconds, as the data source of the scripted day says
_POINTS = 700  # of a graph as wide as half a screen


class Choice(NamedTuple):
    """What a viewer chose: values of variables, and the time range in seconds since the epoch."""

    page: Mapping[str, Any]
    values: Mapping[str, str]
    begin: float
    end: float

    @property
    def step(self) -> float:
        """Seconds between two points of a graph, as Grafana rounds them."""
        exact = max((self.end - self.begin) / _POINTS, 15.0)
        return next(nice for nice in (15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600) if nice >= exact)

    def promql(self, query: Asked) -> str:
        """The expression as Prometheus gets it."""
        return filled(query.promql, lambda name, _: self._value(name))

    def selector(self, text: str) -> str:
        """The selector of a variable's query."""
        return filled(text, lambda name, _: self._value(name))

    def url(self, query: Asked) -> str:
        """Path and query string as Infinity asks the API."""
        options = query.query["url_options"]
        given = [(one["key"], filled(one["value"], self._parameter)) for one in options.get("params", [])]
        url = filled(query.query["url"], self._parameter)
        return f"{url}{'&' if '?' in url else '?'}{urlencode(given)}" if given else url

    def _value(self, name: str) -> str:
        if name in self._macros:
            return self._macros[name]
        if name in self.values:
            return re.sub(r"([.*+?^$|()\[\]{}\\])", r"\\\\\1", self.values[name])
        variable = self._variable(name)
        value = str(variable.get("allValue") or (variable.get("current") or {}).get("value", ""))
        return ".+" if value == "$__all" else value

    def _parameter(self, name: str, form: str) -> str:
        """A variable in an address; `customqueryparam:x` becomes `x=value`, and for all its `allValue`, if any."""
        if name in self._macros:
            return self._macros[name]
        variable, value = self._variable(name), self.values.get(name, "$__all")
        if value != "$__all" or not variable.get("includeAll"):
            value = "" if value == "$__all" else value
            kind, _, parameter = form.partition(":")
            return urlencode({parameter: value}) if kind == "customqueryparam" else value
        if variable.get("allValue"):
            return str(variable["allValue"])
        if form.startswith("customqueryparam:"):  # all are named, and leave nothing out
            return f"{form.partition(':')[2]}="
        assert form == "csv", f"${name} is joined as {form or 'a pattern'}"
        return ",".join(option["value"] for option in variable["options"])

    def _variable(self, name: str) -> Mapping[str, Any]:
        return next(variable for variable in variables(self.page) if variable["name"] == name)

    @property
    def _macros(self) -> dict[str, str]:
        span, step = round(self.end - self.begin), self.step
        return {
            "__rate_interval": f"{max(step + SCRAPE, 4 * SCRAPE):g}s",
            "__interval": f"{step:g}s",
            "__interval_ms": f"{step * 1000:g}",
            "__range": f"{span}s",
            "__range_s": f"{span}",
            "__range_ms": f"{span * 1000}",
            "__from": f"{math.floor(self.begin * 1000)}",
            "__to": f"{math.floor(self.end * 1000)}",
        }


def span(page: Mapping[str, Any]) -> float:
    """Seconds of the page's own time range."""
    number, unit = re.fullmatch(r"now-(\d+)([mhd])", page["time"]["from"]).groups()
    return float(number) * {"m": 60, "h": 3600, "d": 86_400}[unit]


def rows(answer: Any, root: str) -> list[Any]:
    """What Infinity's root selector finds. Raises KeyError."""
    for step in filter(None, root.split(".")):
        answer = answer[step]
    return answer if isinstance(answer, list) else [answer]


def has(row: Any, selector: str) -> bool:
    """Does a column's dotted selector find something in a row, be it null?"""
    for step in selector.split("."):
        if isinstance(row, list):
            row = dict(zip(map(str, count()), row, strict=False))
        if not isinstance(row, Mapping) or step not in row:
            return False
        row = row[step]
    return True


def legend_labels(query: Asked) -> Iterator[str]:
    """The labels that a legend names."""
    yield from re.findall(r"\{\{\s*(\w+)\s*\}\}", str(query.query.get("legendFormat", "")))
