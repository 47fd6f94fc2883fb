"""Questions to the API of taskscope, which Grafana asks through the Infinity data source.

Only what Infinity's own back end parses is used: plain dotted selectors, no expression in any language.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.builders import logs, timeseries
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.dashboard import (
    DataTransformerConfig,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from dashboards.house import API
from dashboards.panels import bars, furnished, properties, thresholds
from dashboards.tables import TEXT, Column, table_of, transformation

SPAN = {"from_": "${__from}", "to": "${__to}"}
"""The page's time range, as parameters of a question."""
TIMES = "from=${__from}&to=${__to}"
"""The same in an address."""

Kind = Literal["string", "number", "boolean", "timestamp"]


class ApiColumn(Column, frozen=True, kw_only=True):
    """A column of an answer of the API; `field` is the dotted path in a row."""

    kind: Kind = "string"
    no_value: str = " "


class Question(Dataquery):
    """One GET of the API as Infinity wants it; rows are found at `root`."""

    def __init__(
        self, url: str, root: str, columns: Sequence[ApiColumn], parameters: Mapping[str, str], form: str
    ) -> None:
        self.ref_id = ""
        self._url, self._root, self._columns = url, root, columns
        self._parameters, self._form = parameters, form

    def to_json(self) -> dict[str, object]:
        """What stands in the dashboard."""
        parameters = [{"key": name, "value": value} for name, value in self._parameters.items()]
        columns = [{"selector": c.field, "text": c.title, "type": c.kind} for c in self._columns]
        return {
            "refId": self.ref_id,
            "datasource": {"type": API.type_val, "uid": API.uid},
            "type": "json",
            "source": "url",
            "parser": "backend",
            "format": self._form,
            "url": self._url,
            "url_options": {"method": "GET", "params": parameters},
            "root_selector": self._root,
            "columns": columns,
        }


class Ask(Builder[Dataquery]):
    """Builds a question; the time range and other single values go into `parameters`."""

    def __init__(
        self, url: str, root: str = "", *columns: ApiColumn, form: str = "table", **parameters: str
    ) -> None:
        """`parameters` whose name is a Python word are given with a trailing underscore (`from_`)."""
        given = {name.rstrip("_"): value for name, value in parameters.items()}
        self._internal = Question(url, root, columns, given, form)

    def ref(self, name: str) -> Self:
        """Name it among the questions of its panel."""
        self._internal.ref_id = name
        return self

    def build(self) -> Question:
        """The question."""
        return self._internal


def word(title: str, field: str, **more: Any) -> ApiColumn:
    """A column of text."""
    return ApiColumn(title=title, field=field, unit=TEXT, **more)


def moment(title: str, field: str, unit: str = "dateTimeAsIso", **more: Any) -> ApiColumn:
    """A column of points in time, to the second."""
    return ApiColumn(title=title, field=field, kind="timestamp", unit=unit, **more)


def since(title: str, field: str, **more: Any) -> ApiColumn:
    """A column of points in time, as how long ago they are."""
    return moment(title, field, "dateTimeFromNow", **more)


def duration(title: str, field: str, **more: Any) -> ApiColumn:
    """A column of durations, which the API gives in milliseconds."""
    return ApiColumn(title=title, field=field, kind="number", unit="ms", **more)


def amount(title: str, field: str, unit: str = "short", **more: Any) -> ApiColumn:
    """A column of numbers."""
    return ApiColumn(title=title, field=field, kind="number", unit=unit, **more)


def flag(title: str, field: str, **more: Any) -> ApiColumn:
    """A column of true and false."""
    return ApiColumn(title=title, field=field, kind="boolean", **more)


def api_table(
    title: str, description: str, question: Ask, columns: Sequence[ApiColumn], **more: Any
) -> tables.Panel:
    """A table of what the API answers; `more` goes to `table_of`."""
    return table_of(
        title, description, [question], columns, transformations=[in_order(columns)], **more
    ).datasource(API)


def api_tiles(
    title: str, description: str, question: Ask, columns: Sequence[ApiColumn], *, width: int, height: int = 4
) -> stats.Panel:
    """A tile for each column of the one row that the API answers."""
    panel = furnished(stats.Panel(), title, description, [question], "short", width, height, "no data")
    for column in columns:
        panel.override_by_name(column.title, properties(column.overrides()))
    return (
        panel.datasource(API)
        .transformations([in_order(columns)])
        .graph_mode(common.BigValueGraphMode.NONE)
        .color_mode(common.BigValueColorMode.VALUE)
        .wide_layout(False)
        .text(build.VizTextDisplayOptions().title_size(14).value_size(22))
        .text_mode(
            common.BigValueTextMode.VALUE_AND_NAME if len(columns) > 1 else common.BigValueTextMode.VALUE
        )
        .reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]).fields("/.*/"))
        .thresholds(thresholds({0: "text"}))
    )


def api_bars(
    title: str,
    description: str,
    question: Ask,
    columns: Sequence[ApiColumn],
    *,
    width: int,
    height: int,
    no_value: str,
) -> timeseries.Panel:
    """Stacked bars of what the API counted in steps, each drawn from the time at which its step begins.

    A column of text names the series of a row; without one there is but one series, and no legend.
    """
    panel = bars(title, description, question, width=width, height=height, no_value=no_value)
    if not any(column.kind == "string" for column in columns):
        panel.legend(build.VizLegendOptions().show_legend(False))
    return panel.datasource(API).transformations([in_order(columns)]).bar_alignment(common.BarAlignment.AFTER)


def api_text(
    title: str,
    description: str,
    url: str,
    at: str,
    field: str,
    *,
    width: int,
    height: int = 14,
    root: str = "",
) -> logs.Panel:
    """A text of many lines; `at` is a point in time beside it, without which Grafana shows none.

    With a `root` there is a text for each row found there, the earliest first.
    """
    question = Ask(url, root, moment("timestamp", at), word("body", field), form="logs")
    return (
        furnished(logs.Panel(), title, description, [question], "short", width, height, "none")
        .datasource(API)
        .wrap_log_message(True)
        .show_time(bool(root))
        .sort_order(common.LogsSortOrder.ASCENDING)
        .enable_log_details(False)
    )


def in_order(columns: Sequence[ApiColumn]) -> DataTransformerConfig:
    """The columns in this order: Infinity's back end gives them in alphabetical order."""
    return transformation(
        "organize", {"indexByName": {column.title: place for place, column in enumerate(columns)}}
    )


def answers(
    name: str, label: str, parameter: str, url: str, root: str = "", field: str = ""
) -> sdk.QueryVariable:
    """A variable whose values the API lists; several or all of them can be chosen, see `chosen`."""
    columns = [word(name, field)] if field else []
    question = Ask(url, root, *columns).ref("variable").build()
    asked: dict[str, object] = {
        "queryType": "infinity",
        "refId": "variable",
        "query": "",
        "infinityQuery": question.to_json(),
    }
    return (
        sdk.QueryVariable(name)
        .label(label)
        .datasource(API)
        .query(asked)
        .definition(f"{label} of {url.partition('?')[0]}")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(True)
        .include_all(True)
        .all_value(f"{parameter}=")
        .current(VariableOption(text="All", value="$__all"))
    )


def choices(name: str, label: str, options: Mapping[str, str], *, many: bool = True) -> sdk.CustomVariable:
    """A variable with fixed options, value by text, of which all are chosen at first."""
    return (
        sdk.CustomVariable(name)
        .label(label)
        .values(", ".join(f"{text} : {value}" for text, value in options.items()))
        .options([VariableOption(text=text, value=value) for text, value in options.items()])
        .multi(many)
        .include_all(True)
        .current(VariableOption(text="All", value="$__all"))
    )


def chosen(url: str, **parameters: str) -> str:
    """The address with what is chosen in variables; `parameters` are their names by parameter of the API.

    Grafana writes `task=a&task=b` for some, and for all the variable's `allValue` as it stands. That is `task=`,
    which filters nothing: a list of all jobs would be longer than an address may be.
    """
    written = (f"${{{variable}:customqueryparam:{name}}}" for name, variable in parameters.items())
    return f"{url}?{'&'.join(written)}"


def typed(name: str, label: str) -> sdk.TextBoxVariable:
    """A variable to type in."""
    return sdk.TextBoxVariable(name).label(label).default_value("").current(VariableOption(text="", value=""))


def told_alerts(**filters: str) -> sdk.AnnotationQuery:
    """A line where an alert began that Alertmanager told taskscope of; not drawn until it is asked for.

    `filters` are parameters of the API that choose among the alerts, of which all are drawn without them.
    Prometheus marks the same alerts, as long as it remembers: these say what they were about, and live longer. They
    have no end: Grafana 12 draws none of them where some have one and others not yet.
    """
    columns = [
        moment("time", "started_at"),
        word("title", "name"),
        word("text", "description"),
        word("tags", "severity"),
    ]
    question = Ask("/api/monitoring/alerts", "data", *columns, limit="200", **SPAN, **filters).ref("Told")
    return _marks("Alerts as told", "orange", question)


def findings(**filters: str) -> sdk.AnnotationQuery:
    """A line where an inspection says that something began; not drawn until it is asked for."""
    columns = [
        moment("time", "started_at"),
        word("title", "title"),
        word("text", "overview"),
        word("tags", "level"),
    ]
    question = Ask("/api/finding/", "data", *columns, limit="200", **SPAN, **filters).ref("Findings")
    return _marks("Findings", "purple", question)


def _marks(name: str, colour: str, question: Ask) -> sdk.AnnotationQuery:
    return sdk.AnnotationQuery().name(name).datasource(API).enable(False).icon_color(colour).target(question)
