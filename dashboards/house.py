"""The house style of a page: its variables, links and annotations, and how its rows are laid out."""

import zlib
from collections.abc import Sequence

import msgspec
from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import (
    AnnotationQuery,
    DashboardCursorSync,
    DashboardLinkType,
    Panel,
    VariableHide,
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

PROMETHEUS = DataSourceRef(type_val="prometheus", uid="${datasource}")
API = DataSourceRef(type_val="yesoreyeram-infinity-datasource", uid="${api}")

_EVERY = VariableOption(text="All", value="$__all")


class Row(msgspec.Struct, frozen=True):
    """Panels under one heading, which may be empty; widths of 24 make a line."""

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
    refresh: str = "30s",
    since: str = "now-6h",
    alerts: str = "",
    annotations: Sequence[Builder[AnnotationQuery]] = (),
) -> sdk.Dashboard:
    """A page: `Taskscope / title` under the uid `taskscope-name`, with the alerts as annotations.

    `alerts` are label matchers that choose which alerts are drawn; `annotations` are drawn besides.
    """
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
        .variables([data_source(), *variables])
        .annotations([firing_alerts(alerts), *annotations])
        .links([_other_pages()])
    )
    for each in rows:
        _lay(built, each)
    return built


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
    """The values of a label; where `many`, several or all of them can be chosen."""
    variable = (
        sdk.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(query)
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_CASE_INSENSITIVE_ASC)
    )
    return variable.multi(True).include_all(True).all_value(".+").current(_EVERY) if many else variable


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


def firing_alerts(matchers: str = "") -> sdk.AnnotationQuery:
    """While an alert of ours fires, a mark on every graph; `matchers` choose among them."""
    chosen = ", ".join(filter(None, (ALERT_FIRES, matchers)))
    by = "alertname, severity, scheduler, job_name"
    return (
        sdk.AnnotationQuery()
        .name("Alerts")
        .datasource(PROMETHEUS)
        .enable(True)
        .icon_color("red")
        .expr(f"max by ({by}) (ALERTS{{{chosen}}})")
        .title_format("{{alertname}}")
        .text_format("{{job_name}} {{scheduler}}")
        .tag_keys("severity")
        .step("1m")
    )


ALERT_FIRES = 'alertname=~"Taskscope.+", alertname!="TaskscopeWatchdog", alertstate="firing"'


def _other_pages() -> sdk.DashboardLink:
    return (
        sdk.DashboardLink("Taskscope")
        .type(DashboardLinkType.DASHBOARDS)
        .tags(["taskscope"])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )


def _lay(page: sdk.Dashboard, row: Row) -> None:
    """Add a row; a panel keeps its id as long as it keeps its title, so links to it live on."""
    if row.title:
        page.with_row(sdk.Row(row.title).id(_id(f"row {row.title}")))
    for panel in row.panels:
        model = panel.build()
        model.id_val = _id(str(model.title))
        page.with_panel(panel)


def _id(title: str) -> int:
    return zlib.crc32(title.encode()) % 1_000_000
