"""The house style of a page: its variables, links and annotations, and how its rows are laid out."""

import zlib
from collections.abc import Mapping, Sequence

import msgspec
from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLink,
    DashboardLinkType,
    GridPos,
    Panel,
    VariableHide,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")
API = DataSourceRef(type_val="yesoreyeram-infinity-datasource", uid="${api}")

WIDTH = 24
"""Columns of Grafana's grid."""


class Row(msgspec.Struct, frozen=True):
    """Panels under one heading, which may be empty; each takes the highest free place."""

    title: str
    panels: tuple[Builder[Panel], ...]


def row(title: str, *panels: Builder[Panel]) -> Row:
    """Panels under a heading; without a heading when `title` is empty."""
    return Row(title, panels)


def page(
    name: str,
    title: str,
    description: str,
    *rows: Row,
    variables: Sequence[Builder[VariableModel]],
    asks_api: bool = False,
    refresh: str = "30s",
    since: str = "now-6h",
    alerts: str | None = 'scheduler=~"$scheduler|", job_name=~"$job_name|"',
    annotations: Sequence[Builder[AnnotationQuery]] = (),
) -> sdk.Dashboard:
    """A page: `Taskscope / title` under the uid `taskscope-name`, with the alerts as annotations.

    `alerts` are label matchers that choose which alerts are drawn, at first those about what is chosen and those
    about taskscope itself, None for a page without graphs; `annotations` are drawn besides. Where the API is not
    asked its variable is hidden, so that a choice lives on from page to page.
    """
    source = api() if asks_api else api().hide(VariableHide.HIDE_VARIABLE)
    built = (
        sdk.Dashboard(f"Taskscope / {title}")
        .uid(f"taskscope-{name}")
        .description(description)
        .tags(["taskscope"])
        .readonly()
        .tooltip(DashboardCursorSync.TOOLTIP)
        .refresh(refresh)
        .time(since, "now")
        .timezone("browser")
        .variables([data_source(), source, *variables])
        .annotations([*([] if alerts is None else alert_marks(alerts)), *annotations])
        .links([_other_pages()])
    )
    top = 0
    for each in rows:
        top = _lay(built, each, top)
    return built


def link_to(name: str, **variables: str | Sequence[str]) -> str:
    """The address of another page for the same time range and data sources."""
    return f"/d/taskscope-{name}?${{datasource:queryparam}}&${{api:queryparam}}&${{__url_time_range}}{_set(variables)}"


def same_on(name: str, **variables: str | Sequence[str]) -> str:
    """The address of another page for the same time range and everything that is chosen, and these variables."""
    return f"/d/taskscope-{name}?${{__url_time_range}}&${{__all_variables}}{_set(variables)}"


def data_source() -> sdk.DatasourceVariable:
    """The Prometheus that every query asks."""
    chosen = VariableOption(text="Prometheus", value="taskscope-prometheus")
    return sdk.DatasourceVariable("datasource").label("Data source").type("prometheus").current(chosen)


def api() -> sdk.DatasourceVariable:
    """The API of taskscope, asked through Infinity."""
    chosen = VariableOption(text="Taskscope API", value="taskscope-api")
    kind = "yesoreyeram-infinity-datasource"
    return sdk.DatasourceVariable("api").label("Taskscope API").type(kind).current(chosen)


def labels_of(name: str, label: str, query: str, *, many: bool = True) -> sdk.QueryVariable:
    """The values of a label: all at first, then one or, where `many`, several."""
    return (
        sdk.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
        .multi(many)
        .include_all(True)
        .all_value(".+")
        .current(VariableOption(text="All", value="$__all"))
    )


def schedulers(*, many: bool = True) -> sdk.QueryVariable:
    """`$scheduler`: those that are read, and those that are only told of."""
    known = '{__name__=~"taskscope_reading_timestamp_seconds|taskscope_job_info"}'
    return labels_of("scheduler", "Scheduler", f"label_values({known}, scheduler)", many=many)


def jobs(*, many: bool = True) -> sdk.QueryVariable:
    """`$job_name`: the jobs of `$scheduler`."""
    known = 'taskscope_runs_total{scheduler=~"$scheduler"}'
    return labels_of("job_name", "Job", f"label_values({known}, job_name)", many=many)


def choice(name: str, label: str, options: Sequence[str], chosen: str) -> sdk.CustomVariable:
    """A variable with fixed options; without a label when that is empty."""
    variable = (
        sdk.CustomVariable(name)
        .values(",".join(options))
        .current(VariableOption(text=chosen, value=chosen))
        .options([VariableOption(text=o, value=o, selected=o == chosen) for o in options])
    )
    return variable.label(label) if label else variable.hide(VariableHide.HIDE_LABEL)


def alert_marks(matchers: str = "") -> list[Builder[AnnotationQuery]]:
    """A line on every graph where an alert of ours begins to fire, and where it recovers.

    `matchers` choose among the alerts. Lines, because areas of several alerts would hide the graph.
    """
    chosen = ", ".join(filter(None, (ALERT_FIRES, matchers)))
    firing = f"max by (alertname, severity, scheduler, job_name) (ALERTS{{{chosen}}})"
    before = f"max by (alertname, severity, scheduler, job_name) (ALERTS{{{chosen}}} offset $__interval)"
    return [
        _marks("Alerts", "red", f"{firing} unless {before}"),
        _marks("Recoveries", "green", f"{before} unless {firing}"),
    ]


def _marks(name: str, colour: str, expr: str) -> sdk.AnnotationQuery:
    return (
        sdk.AnnotationQuery()
        .name(name)
        .datasource(PROMETHEUS)
        .enable(True)
        .icon_color(colour)
        .expr(expr)
        .title_format("{{alertname}}")
        .text_format("{{job_name}} {{scheduler}}")
        .tag_keys("severity")
        .step("1m")
    )


RUNBOOK_PAGE = "http://localhost:9750/runbook#${__data.fields.Alert:percentencode}"
"""What to do about the alert that a column `Alert` names, as taskscope itself serves it."""

BACKFILL_PAGE = (
    "http://localhost:9750/backfill?scheduler=${__data.fields.Scheduler:percentencode}"
    "&entity=${__data.fields.Entity:percentencode}"
)
"""Where work is started again about the entity that a column `Entity` names, as taskscope itself serves it."""

ALERT_FIRES = 'alertname=~"Taskscope.+", alertname!="TaskscopeWatchdog", alertstate="firing"'


class _Link(sdk.DashboardLink):
    """A link in sight, which the SDK would put into a menu."""

    def build(self) -> DashboardLink:
        vars(self._internal).update(placement=None)
        return super().build()


def _other_pages() -> sdk.DashboardLink:
    return (
        _Link("Taskscope")
        .type(DashboardLinkType.DASHBOARDS)
        .tags(["taskscope"])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def _set(variables: Mapping[str, str | Sequence[str]]) -> str:
    """The end of an address, which sets these variables to one value or to several."""
    several = ((name, [given] if isinstance(given, str) else given) for name, given in variables.items())
    return "".join(f"&var-{name}={value}" for name, values in several for value in values)


def _lay(page: sdk.Dashboard, row: Row, top: int) -> int:
    """Add a row below `top`; says where it ends."""
    if row.title:
        page.with_row(
            sdk.Row(row.title).id(_id(f"row {row.title}")).grid_pos(GridPos(h=1, w=WIDTH, x=0, y=top))
        )
        top += 1
    ends = [top] * WIDTH
    for panel in row.panels:
        model = panel.build()
        model.id_val = _id(str(model.title))
        model.grid_pos = _placed(model.grid_pos or GridPos(), ends)
        page.with_panel(panel)
    return max(ends)


def _placed(size: GridPos, ends: list[int]) -> GridPos:
    """The highest free place for a panel, leftmost first; `ends` says where each column of the grid is free."""
    tops = [max(ends[x : x + size.w]) for x in range(WIDTH - size.w + 1)]
    top = min(tops)
    left = tops.index(top)
    ends[left : left + size.w] = [top + size.h] * size.w
    return GridPos(h=size.h, w=size.w, x=left, y=top)


def _id(title: str) -> int:
    """A panel keeps its id as long as it keeps its title, so links to it live on."""
    return zlib.crc32(title.encode()) % 1_000_000
