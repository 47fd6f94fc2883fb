"""Tables: each is a list of columns, which are labels or numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model

from dashboards.house import link_to
from dashboards.panels import Levels, Query, Texts, furnished, mappings, properties, rows_at_end, thresholds
from dashboards.promql import state

TEXT = "string"
"""The unit of text: without it Grafana shows the version 1.0 as 1, and a shop called 12000 as 12 K."""
BAD: Levels = {0: "text", 1: "red"}
"""Colours of what should be 0."""
YES: Texts = {"1": ("Yes", "green"), "0": ("No", "red")}
"""What 1 and 0 mean where 1 is well."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One column: a field of what the queries find, and how it is shown."""

    title: str
    field: str
    """What Grafana calls it before it is renamed: a label, or `Value #A` of the query A."""
    expr: str = ""
    """Where it is a number of Prometheus: the query for it."""
    unit: str = ""
    width: int = 0
    levels: Levels | None = None
    texts: Texts | None = None
    link: str = ""
    """Where a click on a cell leads."""
    no_value: str = "-"
    hidden: bool = False
    wraps: bool = False
    """Text that is too long goes on in the next line."""

    def overrides(self) -> dict[str, Any]:
        """What Grafana sets for the fields of this column."""
        wanted: dict[str, Any] = {
            "unit": self.unit,
            "custom.width": self.width,
            "noValue": self.no_value,
            "custom.hidden": self.hidden,
            "mappings": mappings(self.texts or {}),
            "links": [{"title": f"Show {self.title.lower()}", "url": self.link}] if self.link else [],
        }
        if self.levels is not None:
            wanted["thresholds"] = thresholds(self.levels, nothing="text").build()
        named = any(colour for _, colour in (self.texts or {}).values())
        if named or self.levels is not None:
            wanted["custom.cellOptions"] = {"type": "color-text"}
        if self.wraps:
            wanted["custom.cellOptions"] = {"type": "auto", "wrapText": True}
        if named:
            wanted["custom.align"] = "left"
        return {name: value for name, value in wanted.items() if value}


def label(name: str, title: str = "", **more: Any) -> Column:
    """A column with the values of a label."""
    return Column(title=title or name, field=name, unit=TEXT, **more)


def number(title: str, expr: str, unit: str = "locale", **more: Any) -> Column:
    """A column with what a query finds for each row."""
    return Column(title=title, field="", expr=expr, unit=unit, **more)


def ago(title: str, timestamps: str, *, never: str = "never", **more: Any) -> Column:
    """A column with points in time, as how long ago or ahead they are; `never` is what 0 means."""
    more = {"width": 145, "texts": {"0": (never, "")}, **more}
    return number(title, f"1000 * ({timestamps})", "dateTimeFromNow", **more)


def next_run_column(*matchers: str) -> Column:
    """The column `Next run`."""
    due = state("job_next_run_timestamp_seconds", *matchers)
    return ago("Next run", due, never="not due", no_value="paused")


def scheduler_column(**more: Any) -> Column:
    """The column `Scheduler`."""
    return label("scheduler", "Scheduler", **{"width": 110, **more})


def job_column(**more: Any) -> Column:
    """The column `Job`, which leads to the page of the job; needs a column `Scheduler` beside it."""
    return label("job_name", "Job", link=of_job("job"), **more)


def of_job(page: str, **variables: str | Sequence[str]) -> str:
    """The address of another page for the job of a row, by its columns `Job` and `Scheduler`."""
    return of_scheduler(page, job_name="${__data.fields.Job:percentencode}", **variables)


def of_scheduler(page: str, **variables: str | Sequence[str]) -> str:
    """The address of another page for the scheduler of a row, by its column `Scheduler`."""
    return link_to(page, scheduler="${__data.fields.Scheduler:percentencode}", **variables)


def table(
    title: str,
    description: str,
    *columns: Column,
    sort: str,
    descending: bool = False,
    width: int = 24,
    height: int = 8,
    no_value: str = "no data",
) -> tables.Panel:
    """A row for each set of labels that the numbers have in common, sorted by the column titled `sort`.

    Labels that are no column are left out; a number without a value leaves its cell empty.
    """
    named = _named(columns)
    queries = [rows_at_end(column.expr) for column in named if column.expr]
    return table_of(
        title,
        description,
        queries,
        named,
        transformations=[transformation("merge"), *_grouped(named), _organised(named)],
        sort=sort,
        descending=descending,
        width=width,
        height=height,
        no_value=no_value,
    )


def table_of(
    title: str,
    description: str,
    queries: Sequence[Query],
    columns: Sequence[Column],
    *,
    transformations: Sequence[model.DataTransformerConfig] = (),
    sort: str = "",
    descending: bool = False,
    width: int = 24,
    height: int = 8,
    no_value: str = "no data",
) -> tables.Panel:
    """A table of any queries, whose columns are already called as they shall be."""
    panel = (
        furnished(tables.Panel(), title, description, queries, "short", width, height, no_value)
        .transformations(list(transformations))
        .cell_height(common.TableCellHeight.SM)
        .show_header(True)
    )
    for column in columns:
        panel.override_by_name(column.title, properties(column.overrides()))
    order = [build.TableSortByFieldState().display_name(sort).desc(descending)] if sort else []
    return panel.sort_by(list(order))


def transformation(name: str, options: Mapping[str, Any] | None = None) -> model.DataTransformerConfig:
    """One of Grafana's transformations."""
    return model.DataTransformerConfig(id_val=name, options=dict(options or {}))


def _named(columns: Sequence[Column]) -> list[Column]:
    """The columns with the names that Grafana gives to the values of their queries."""
    refs = iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    return [
        msgspec.structs.replace(column, field=f"Value #{next(refs)}" if _several(columns) else "Value")
        if column.expr
        else column
        for column in columns
    ]


def _grouped(columns: Sequence[Column]) -> list[model.DataTransformerConfig]:
    """Where several queries find no row, what is merged has numbers and no labels: this drops it.

    Without it Grafana draws the head of a table without a word. Rows stay as they are: each is a group.
    """
    fields: dict[str, Any] = {
        column.field: {"operation": "aggregate", "aggregations": ["lastNotNull"]}
        if column.expr
        else {"operation": "groupby", "aggregations": []}
        for column in columns
    }
    return [transformation("groupBy", {"fields": fields})] if _several(columns) else []


def _organised(columns: Sequence[Column]) -> model.DataTransformerConfig:
    names = [f"{c.field} (lastNotNull)" if c.expr and _several(columns) else c.field for c in columns]
    return transformation(
        "organize",
        {
            "includeByName": dict.fromkeys(names, True),
            "indexByName": {name: place for place, name in enumerate(names)},
            "renameByName": {name: c.title for name, c in zip(names, columns, strict=True)},
        },
    )


def _several(columns: Sequence[Column]) -> bool:
    return sum(bool(column.expr) for column in columns) > 1
