"""The kinds of panels: each is one call that says title, description, queries and unit.

What is returned is the SDK's own builder, so a page can refine it further.
"""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import common as build
from grafana_foundation_sdk.builders import dashboard as sdk
from grafana_foundation_sdk.builders import heatmap as heatmaps
from grafana_foundation_sdk.builders import prometheus as prom
from grafana_foundation_sdk.builders import stat as stats
from grafana_foundation_sdk.builders import statetimeline as timelines
from grafana_foundation_sdk.builders import timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import statetimeline as timeline_model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.house import PROMETHEUS

Query = Builder[Dataquery]
Levels = Mapping[float, str]
"""Colours from a value on; from 0 on it is green unless they say otherwise."""
Texts = Mapping[str, tuple[str, str]]
"""For a value its text and colour; an empty colour leaves it as it is."""

OUTCOMES = {
    "success": "green",
    "failed": "red",
    "retried": "yellow",
    "skipped": "blue",
    "unknown": "purple",
}
"""The colours of runs by status."""

STATES = {
    "WAITING": "green",
    "ACQUIRED": "super-light-green",
    "EXECUTING": "blue",
    "PAUSED": "yellow",
    "BLOCKED": "orange",
    "ERROR": "red",
    "COMPLETE": "text",
}
"""The colours of triggers by state."""

SEVERITIES: Texts = {
    "critical": ("critical", "red"),
    "warning": ("warning", "orange"),
    "info": ("info", "blue"),
}
"""The colours of alerts by severity."""


class _Panel(Protocol):
    """What the SDK's builders of panels have in common."""

    def title(self, title: str, /) -> Self: ...
    def description(self, description: str, /) -> Self: ...
    def datasource(self, datasource: common.DataSourceRef, /) -> Self: ...
    def targets(self, targets: list[Query], /) -> Self: ...
    def unit(self, unit: str, /) -> Self: ...
    def span(self, w: int, /) -> Self: ...
    def height(self, h: int, /) -> Self: ...
    def no_value(self, no_value: str, /) -> Self: ...
    def data_links(self, links: list[Builder[model.DashboardLink]], /) -> Self: ...


STEP = "1m"
"""The finest step of a graph, so that a rate spans several scrapes and a bar can be seen."""

BARS = 100
"""In how many steps bars divide the time range."""

AXES = {"short": 1, "percentunit": 0.1, "s": 0.01, "suffix:/s": 0.001}
"""To where the axis of a unit goes at least: zeros alone are drawn on one that goes up to 100."""

P = TypeVar("P", bound=_Panel)


def over_time(expr: str, legend: str = "", *, exemplars: bool = False) -> prom.Dataquery:
    """A query along the time range; with `exemplars` the runs behind a histogram show as points."""
    return (
        prom.Dataquery().datasource(PROMETHEUS).expr(expr).range().legend_format(legend).exemplar(exemplars)
    )


def at_end(expr: str, legend: str = "") -> prom.Dataquery:
    """A query for the end of the time range, one number for each series."""
    return prom.Dataquery().datasource(PROMETHEUS).expr(expr).instant().legend_format(legend)


def rows_at_end(expr: str) -> prom.Dataquery:
    """A query for the end of the time range, one row of a table for each series."""
    return at_end(expr).format(PromQueryFormat.TABLE)


def stat(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 4,
    height: int = 4,
    levels: Levels | None = None,
    texts: Texts | None = None,
    size: int = 28,
    no_value: str = "no data",
    link: str = "",
) -> stats.Panel:
    """A number for each series; with `levels` the whole tile takes their colour, `link` is where it leads."""
    panel = (
        furnished(stats.Panel(), title, description, queries, unit, width, height, no_value)
        .graph_mode(common.BigValueGraphMode.NONE)
        .reduce_options(build.ReduceDataOptions().calcs(["lastNotNull"]))
        .text(build.VizTextDisplayOptions().value_size(size))
        .thresholds(thresholds({0: "text"} if levels is None else levels))
        .mappings(mappings(texts or {}))
    )
    tile = common.BigValueColorMode.NONE if levels is None else common.BigValueColorMode.BACKGROUND
    panel.color_mode(tile)
    return linked(panel, "Show more", link) if link else panel


def numbers(
    title: str, description: str, *queries: Query, width: int = 4, height: int = 8, no_value: str = "no data"
) -> stats.Panel:
    """Named numbers below each other, beside a graph; `in_unit` gives each its unit."""
    panel = stat(title, description, *queries, unit="locale", width=width, height=height, no_value=no_value)
    sizes = build.VizTextDisplayOptions().title_size(13).value_size(20)
    return panel.text(sizes).orientation(common.VizOrientation.HORIZONTAL)


def in_unit(panel: stats.Panel, units: Mapping[str, str]) -> stats.Panel:
    """The panel with a unit of its own for each of its named numbers."""
    for name, unit in units.items():
        panel.override_by_name(name, properties({"unit": unit}))
    return panel


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str,
    width: int = 12,
    height: int = 8,
    colours: Mapping[str, str] | None = None,
    legend: Sequence[str] = (),
    stacked: bool = False,
    no_value: str = "no data",
) -> timeseries.Panel:
    """Lines over time; `legend` names what the legend calculates for each (`lastNotNull`, `max`, `sum`)."""
    panel = (
        furnished(timeseries.Panel(), title, description, queries, unit, width, height, no_value)
        .fill_opacity(8)
        .line_width(1)
        .min(0)
        .axis_border_show(False)
        .interval(STEP)
        .legend(_legend(legend))
        .tooltip(_tooltip())
    )
    if unit in AXES:
        panel.axis_soft_max(AXES[unit])
    if stacked:
        panel.fill_opacity(60).line_width(0).show_points(common.VisibilityMode.NEVER)
        panel.line_interpolation(common.LineInterpolation.STEP_AFTER)
        panel.stacking(build.StackingConfig().mode(common.StackingMode.NORMAL))
    return _coloured(panel, colours or {})


def coarse(panel: timeseries.Panel) -> timeseries.Panel:
    """The graph in as few steps as bars have, joined over gaps: for what is measured only when a run ends."""
    return panel.max_data_points(BARS).span_nulls(True)


def bars(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    width: int = 12,
    height: int = 8,
    colours: Mapping[str, str] | None = None,
    legend: Sequence[str] = (),
    no_value: str = "no data",
) -> timeseries.Panel:
    """Stacked bars over time, few enough to be seen; for `promql.counted`."""
    panel = graph(
        title,
        description,
        *queries,
        unit=unit,
        width=width,
        height=height,
        colours=colours,
        legend=legend,
        stacked=True,
        no_value=no_value,
    )
    return _as_bars(panel).decimals(0)


def line_over_bars(
    title: str,
    description: str,
    line: prom.Dataquery,
    counts: prom.Dataquery,
    *,
    unit: str,
    colour: str,
    width: int = 12,
    height: int = 8,
    no_value: str = "no data",
) -> timeseries.Panel:
    """Counts as bars on the left axis, with a line in `unit` on the right axis."""
    panel = graph(
        title,
        description,
        counts.ref_id("A"),
        line.ref_id("B"),
        unit="locale",
        width=width,
        height=height,
        no_value=no_value,
    )
    own_axis = {
        "unit": unit,
        "color": {"mode": "fixed", "fixedColor": "text"},
        "custom.axisPlacement": "right",
        "custom.drawStyle": "line",
        "custom.fillOpacity": 0,
        "custom.lineWidth": 2,
        **({"max": 1} if unit == "percentunit" else {}),
    }
    of_bars = {"color": {"mode": "fixed", "fixedColor": colour}, "decimals": 0, "custom.axisSoftMax": 1}
    _as_bars(panel).override_by_query("A", properties(of_bars))
    return panel.override_by_query("B", properties(own_axis))


def timeline(
    title: str,
    description: str,
    *queries: Query,
    texts: Texts,
    width: int = 24,
    height: int = 5,
    no_value: str = "no data",
) -> timelines.Panel:
    """States over time, a line for each series; `texts` says what each value means."""
    panel = (
        furnished(timelines.Panel(), title, description, queries, "short", width, height, no_value)
        .mappings(mappings(texts))
        .color_scheme(sdk.FieldColor().mode(model.FieldColorModeId.FIXED).fixed_color("text"))
        .max_data_points(200)
        .interval(STEP)
        .show_value(common.VisibilityMode.NEVER)
        .merge_values(True)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    options = panel.build().options
    assert isinstance(options, timeline_model.Options)
    options.per_page = 0  # all on one page, which the builder does not allow
    return panel


def heatmap(
    title: str,
    description: str,
    query: prom.Dataquery,
    *,
    unit: str,
    width: int = 12,
    height: int = 8,
    no_value: str = "no data",
) -> heatmaps.Panel:
    """How often each bucket of a histogram was hit over time; `unit` is that of the buckets."""
    colours = (
        heatmaps.HeatmapColorOptions().mode(heatmap_model.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    )
    buckets = query.format(PromQueryFormat.HEATMAP).legend_format("{{le}}")
    return (
        furnished(heatmaps.Panel(), title, description, [buckets], unit, width, height, no_value)
        .max_data_points(BARS)
        .interval(STEP)
        .color(colours)
        .cell_gap(1)
        .y_axis(heatmaps.YAxisConfig().unit(unit).axis_placement(common.AxisPlacement.LEFT))
        .cell_values(heatmaps.CellValues().unit("short").decimals(0))
        .filter_values(heatmaps.FilterValueRange().le(1e-9))
        .tooltip(heatmaps.HeatmapTooltip().mode(common.TooltipDisplayMode.SINGLE).y_histogram(False))
        .hide_legend()
    )


def furnished(
    panel: P,
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    width: int,
    height: int,
    no_value: str,
) -> P:
    """The panel with what every panel says; queries without a `refId` are named A, B, C …"""
    for query, ref in zip(queries, ascii_uppercase, strict=False):
        built: Any = query.build()
        built.ref_id = built.ref_id or ref
    return (
        panel.title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .targets(list(queries))
        .unit(unit)
        .span(width)
        .height(height)
        .no_value(no_value)
    )


def thresholds(levels: Levels, nothing: str = "transparent") -> sdk.ThresholdsConfig:
    """Colours from a value on; between 0 and the first one green, and `nothing` where there is no value."""
    steps = sorted({0: "green", **levels}.items())
    first = model.Threshold(color=nothing if len(steps) > 1 else steps[0][1])
    return (
        sdk.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([first, *(model.Threshold(value=value, color=colour) for value, colour in steps)])
    )


def mappings(texts: Texts) -> list[model.ValueMapping]:
    """Texts and colours for values."""
    results = {
        value: model.ValueMappingResult(text=text, color=colour or None, index=place)
        for place, (value, (text, colour)) in enumerate(texts.items())
    }
    return [model.ValueMap(options=results)] if results else []


def properties(values: Mapping[str, Any]) -> list[model.DynamicConfigValue]:
    """What an override sets."""
    return [model.DynamicConfigValue(id_val=name, value=value) for name, value in values.items()]


def linked(panel: P, title: str, url: str) -> P:
    """The panel with a link behind its numbers."""
    return panel.data_links([sdk.DashboardLink(title).url(url)])


def _coloured(panel: timeseries.Panel, colours: Mapping[str, str]) -> timeseries.Panel:
    for name, colour in colours.items():
        panel.override_by_name(name, properties({"color": {"mode": "fixed", "fixedColor": colour}}))
    return panel


def _as_bars(panel: timeseries.Panel) -> timeseries.Panel:
    return (
        panel.draw_style(common.GraphDrawStyle.BARS)
        .fill_opacity(70)
        .line_width(0)
        .bar_width_factor(0.9)
        .bar_alignment(common.BarAlignment.BEFORE)
        .max_data_points(BARS)
    )


def _legend(calculations: Sequence[str] = ()) -> build.VizLegendOptions:
    mode = common.LegendDisplayMode.TABLE if calculations else common.LegendDisplayMode.LIST
    legend = build.VizLegendOptions().show_legend(True).display_mode(mode).calcs(list(calculations))
    return legend.placement(common.LegendPlacement.BOTTOM)


def _tooltip() -> build.VizTooltipOptions:
    return build.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING)
