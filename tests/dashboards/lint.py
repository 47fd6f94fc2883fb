"""Our own lint of dashboards: the rules of Grafana's dashboard-linter that make sense here, and some of the house.

A rule takes a page and gives a sentence for everything that is wrong; its docstring says what it asks for.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import lint_promql as expressions
import promql_parser as promql
from grafana_foundation_sdk.models import units
from pages import INFINITY, PROMETHEUS, Asked, annotations, asked, filled, label_values, panels, variables

Page: TypeAlias = Mapping[str, Any]
Rule: TypeAlias = Callable[[Page], Iterator[str]]

SILENT = frozenset({"text", "alertlist", "dashlist", "news"})
"""Panels that ask nothing."""
UNITLESS = SILENT | {"logs", "state-timeline", "nodeGraph", "traces"}
"""Panels that show no numbers."""
UNITS = frozenset(value for value in vars(units).values() if isinstance(value, str))
RUNBOOK = "http://localhost:9750/runbook#${__data.fields.Alert:percentencode}"
"""Where a table of alerts leads; `taskscope assets` writes the user's address there."""
BACKFILL = re.compile(
    r"http://localhost:9750/backfill(?:[?&](?:scheduler|entity|job)=\$\{__data\.fields\.\w+:percentencode\})+"
)
"""Where a row leads to have its work started again, likewise."""
_PLAIN = {"parser": "backend", "source": "url"}
_PATH = re.compile(r"([\w-]+(\.[\w-]+)*)?")
_HOUSE = {
    "uid": "taskscope-[a-z-]+",
    "title": "Taskscope / .+",
    "tags": r"\['taskscope'\]",
    "editable": "False",
    "refresh": "10s|30s",
    "graphTooltip": "1|2",
    "id": "None",
    "description": ".+",
}


def the_house(page: Page) -> Iterator[str]:
    """Uid, title, tag, refresh and shared cursor are those of the house, and nobody edits a page in Grafana."""
    for key, pattern in _HOUSE.items():
        if not re.fullmatch(pattern, str(page.get(key))):
            yield f"{key} is {page.get(key)!r}"


def data_source_first(page: Page) -> Iterator[str]:
    """The first variable is the data source, labelled `Data source`."""
    first: Page = next(iter(variables(page)), {})
    found = (first.get("type"), first.get("name"), first.get("query"), first.get("label"))
    if found != ("datasource", "datasource", PROMETHEUS, "Data source"):
        yield f"the first variable is {found}"


def sources_by_variable(page: Page) -> Iterator[str]:
    """Whatever asks names its data source by a variable of the page, one of the right kind."""
    kinds = {f"${{{v['name']}}}": v["query"] for v in variables(page) if v["type"] == "datasource"}
    for where, source, infinity in _sources(page):
        if kinds.get(source.get("uid", "")) != source.get("type"):
            yield f"{where} asks {source}"
        elif infinity is not None and source.get("type") != (INFINITY if infinity else PROMETHEUS):
            yield f"{where} asks {source['type']} in the words of the other"


def variables_load_in_time(page: Page) -> Iterator[str]:
    """Variables that are queries load again when the time range changes."""
    wrong = (v for v in variables(page) if v["type"] == "query" and v.get("refresh") != 2)
    yield from (f"${v['name']} has refresh {v.get('refresh')}" for v in wrong)


def variables_are_labelled(page: Page) -> Iterator[str]:
    """Variables have a label, unless that is hidden."""
    yield from (f"${v['name']}" for v in variables(page) if not v.get("hide") and not v.get("label"))


def all_is_a_pattern(page: Page) -> Iterator[str]:
    """Where several labels of Prometheus can be chosen all can, by the pattern `.+`, however many there are."""
    for variable in variables(page):
        of_labels = variable["type"] == "query" and isinstance(variable.get("query"), str)
        if of_labels and variable.get("multi") and variable.get("allValue") != ".+":
            yield f"${variable['name']} has {variable.get('allValue')!r}"


def variables_are_there_and_used(page: Page) -> Iterator[str]:
    """Every variable that is named exists, and every one in sight is named: a hidden one is handed on by the menu."""
    known = {variable["name"] for variable in variables(page)}
    hidden = {variable["name"] for variable in variables(page) if variable.get("hide") == 2}
    named = _named(page)
    yield from (f"${name} is used nowhere" for name in sorted(known - named - hidden))
    for query in asked("", page):
        strange = {name for name in _named(query.query) - known if not name.startswith("__")}
        yield from (f"{query.where} names ${name}, which is no variable" for name in sorted(strange))


def variables_parse(page: Page) -> Iterator[str]:
    """The query of a variable is `label_values` of valid PromQL."""
    for query in asked("", page):
        if text := query.query.get("label_values"):
            yield from _refused(lambda text=text: label_values(text), query.where)


def panels_are_told(page: Page) -> Iterator[str]:
    """Every panel has a description, and a title that no other has."""
    told = list(panels(page))
    yield from (f"{p.get('title')} has no description" for p in told if not p.get("description"))
    yield from _twice((panel.get("title", "") for panel in told), "titles")


def panels_have_units(page: Page) -> Iterator[str]:
    """Every panel with numbers has a unit, and Grafana knows it."""
    for panel in panels(page):
        found = [_default(panel, "unit"), *_overridden(panel, "unit")]
        if panel["type"] not in UNITLESS and not found[0]:
            yield f"{panel['title']} has no unit"
        unknown = (u for u in found if u and u not in UNITS and not u.startswith(("suffix:", "prefix:")))
        yield from (f"{panel['title']} has the unit {unit}" for unit in unknown)


def panels_ask(page: Page) -> Iterator[str]:
    """Every panel has queries, each with a name of its own."""
    for panel in panels(page):
        if panel["type"] not in SILENT and not panel.get("targets"):
            yield f"{panel['title']} asks nothing"
        yield from _twice((t.get("refId", "") for t in panel.get("targets", [])), f"{panel['title']}: names")


def panels_speak_of_nothing(page: Page) -> Iterator[str]:
    """Every panel says in its own words when nothing is found."""
    for panel in panels(page):
        if panel["type"] not in SILENT and not _default(panel, "noValue"):
            yield str(panel["title"])


def text_stays_text(page: Page) -> Iterator[str]:
    """What the API tells as text is in the unit of text: Grafana would write the version 1.0 as 1."""
    for panel in panels(page):
        if panel["type"] in ("table", "stat"):
            columns = (column for query in panel.get("targets", []) for column in query.get("columns", []))
            text = {column["text"] for column in columns if column["type"] == "string"}
            named = {
                override["matcher"]["options"]
                for override in panel["fieldConfig"]["overrides"]
                if {"id": "unit", "value": "string"} in override["properties"]
            }
            yield from (f"{panel['title']} has numbers for {column}" for column in sorted(text - named))


def panels_lie_apart(page: Page) -> Iterator[str]:
    """Panels have ids, fill 24 columns without a gap, and none lies upon another."""
    taken: dict[tuple[int, int], str] = {}
    for panel in panels(page):
        grid, title = panel["gridPos"], panel["title"]
        if grid["x"] + grid["w"] > 24:
            yield f"{title} sticks out"
        columns, lines = range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
        others = {taken.setdefault((x, y), title) for x in columns for y in lines}
        yield from (f"{title} lies upon {other}" for other in sorted(others - {title}))
    filled_to = Counter(y for _, y in taken)
    yield from (f"there is a gap at line {y}" for y, width in filled_to.items() if width < 24)
    yield from _twice((str(panel.get("id")) for panel in page.get("panels", [])), "ids")


def questions_are_plain(page: Page) -> Iterator[str]:
    """The API is asked by what Infinity's back end parses: GET, JSON, dotted paths; and choices of many are joined."""
    many = {variable["name"] for variable in variables(page) if variable.get("multi")}
    for query in asked("", page):
        if not query.infinity:
            continue
        found = {key: query.query.get(key) for key in _PLAIN if query.query.get(key) != _PLAIN[key]}
        yield from (f"{query.where}: {key} is {value!r}" for key, value in found.items())
        paths = [query.query["root_selector"], *(column["selector"] for column in query.query["columns"])]
        yield from (f"{query.where}: {path!r} is no path" for path in paths if not _PATH.fullmatch(path))
        text = str([query.query["url"], query.query["url_options"]])
        yield from (f"{query.where}: ${name} may be several" for name in sorted(many & _unjoined(text)))


def answers_are_ordered(page: Page) -> Iterator[str]:
    """Where the API answers, columns are put in order: Infinity's back end gives them by the alphabet."""
    for panel in panels(page):
        asked_for = [query for query in panel.get("targets", []) if query.get("type") == "json"]
        if panel["type"] in UNITLESS or not asked_for:
            continue
        wanted = [column["text"] for query in asked_for for column in query["columns"]]
        orders = [
            t["options"]["indexByName"] for t in panel.get("transformations", []) if t["id"] == "organize"
        ]
        if len(wanted) > 1 and [sorted(order, key=order.get) for order in orders] != [wanted]:
            yield str(panel["title"])


def promql_parses(page: Page) -> Iterator[str]:
    """Every expression is valid PromQL."""
    for where, text in _promql(page):
        yield from _refused(lambda text=text: promql.parse(text), where)


def windows_follow_the_picture(page: Page) -> Iterator[str]:
    """Growth is taken over `$__rate_interval`, or over all of `$__range`."""
    for query in asked("", page):
        for function, window in re.findall(r"\b(rate|irate|increase)\s*\([^\[]*\[([^\]]+)\]", query.promql):
            if window not in ("$__rate_interval", "$__range"):
                yield f"{query.where}: {function} over {window}"


def expressions_are_sound(page: Page) -> Iterator[str]:
    """Counters are shown by their growth, patterns are needed, and no share divides by 0."""
    checks = (
        expressions.raw_counters,
        expressions.wrong_rates,
        expressions.needless_patterns,
        expressions.divisions_by_zero,
    )
    for where, text in _promql(page):
        if where.startswith("$"):
            continue  # of which only labels are taken
        try:
            expr = promql.parse(text)
        except ValueError:
            continue  # which `promql_parses` says
        yield from (f"{where}: {wrong}" for check in checks for wrong in check(expr))


RULES: tuple[Rule, ...] = (
    the_house,
    data_source_first,
    sources_by_variable,
    variables_load_in_time,
    variables_are_labelled,
    all_is_a_pattern,
    variables_are_there_and_used,
    variables_parse,
    panels_are_told,
    panels_have_units,
    panels_ask,
    panels_speak_of_nothing,
    panels_lie_apart,
    text_stays_text,
    questions_are_plain,
    answers_are_ordered,
    promql_parses,
    windows_follow_the_picture,
    expressions_are_sound,
)


def lost_links(page: Page, pages: Mapping[str, Page]) -> Iterator[str]:
    """Links lead to a page that exists and set variables that it has, to taskscope itself, or where rows say."""
    known = {f"/d/{each['uid']}": {v["name"] for v in variables(each)} for each in pages.values()}
    elsewhere = re.compile(rf"{re.escape(RUNBOOK)}|{BACKFILL.pattern}|\$\{{__data\.fields\.\w+\}}")
    for url in sorted(url for url in set(_urls(page)) if not elsewhere.fullmatch(url)):
        parts = urlsplit(re.sub(r"\$\{(\w+):queryparam\}", r"var-\1=x", url))
        if parts.netloc or parts.path not in known:
            yield f"{url} leads to no page of ours"
            continue
        sets = {name.removeprefix("var-") for name, _ in parse_qsl(parts.query) if name.startswith("var-")}
        yield from (f"{url} sets ${name}, which is not there" for name in sorted(sets - known[parts.path]))


def parsable(page: Page, text: str) -> str:
    """An expression with something in the place of every variable and macro."""
    current = {v["name"]: str((v.get("current") or {}).get("value", "")) for v in variables(page)}

    def value(name: str, _: str) -> str:
        if name in ("__rate_interval", "__interval", "__range"):
            return "5m"
        if name.startswith("__"):
            return "60000"
        return current[name] if re.fullmatch(r"[\d.]+", current.get(name, "")) else ".+"

    return filled(text, value)


def _promql(page: Page) -> Iterator[tuple[str, str]]:
    for query in asked("", page):
        text = query.promql
        if "label_values" in query.query:
            text = _selector(query)
        if text:
            yield query.where, parsable(page, text)


def _selector(query: Asked) -> str:
    try:
        return label_values(query.query["label_values"])[0]
    except ValueError:
        return ""  # which `variables_parse` says


def _sources(page: Page) -> Iterator[tuple[str, dict[str, Any], bool | None]]:
    """Where, the data source, and whether the API is asked there, where that is known."""
    for panel in panels(page):
        if panel["type"] not in SILENT:
            yield panel["title"], panel.get("datasource") or {}, None
    for query in asked("", page):
        if "label_values" not in query.query:
            yield query.where, query.query.get("datasource") or {}, query.infinity
    for variable in variables(page):
        if variable["type"] == "query":
            yield (
                f"${variable['name']}",
                variable.get("datasource") or {},
                not isinstance(variable["query"], str),
            )
    for each in annotations(page):
        yield each["name"], each.get("datasource") or {}, None


def _named(thing: Any) -> set[str]:
    """The variables that any text inside names."""
    found: set[str] = set()
    if isinstance(thing, str):
        filled(thing, lambda name, _: found.add(name) or "")
    elif isinstance(thing, Mapping):
        found = {name for value in thing.values() for name in _named(value)}
    elif isinstance(thing, list):
        found = {name for value in thing for name in _named(value)}
    return found


def _unjoined(text: str) -> set[str]:
    """The variables that stand in an address as Grafana writes several values: `{a,b}`."""
    found: set[str] = set()
    filled(
        text,
        lambda name, form: "" if form.startswith(("customqueryparam:", "csv")) else found.add(name) or "",
    )
    return found


def _urls(thing: Any) -> Iterator[str]:
    if isinstance(thing, Mapping):
        if isinstance(thing.get("url"), str) and "url_options" not in thing and thing["url"]:
            yield thing["url"]
        for value in thing.values():
            yield from _urls(value)
    elif isinstance(thing, list):
        for value in thing:
            yield from _urls(value)


def _default(panel: Page, name: str) -> Any:
    return panel.get("fieldConfig", {}).get("defaults", {}).get(name)


def _overridden(panel: Page, name: str) -> list[Any]:
    overrides = panel.get("fieldConfig", {}).get("overrides", [])
    return [p["value"] for override in overrides for p in override["properties"] if p["id"] == name]


def _twice(names: Iterable[str], what: str) -> Iterator[str]:
    yield from (f"{what}: {name!r} is there twice" for name, count in Counter(names).items() if count > 1)


def _refused(parse: Callable[[], object], where: str) -> Iterator[str]:
    try:
        parse()
    except ValueError as error:
        yield f"{where}: {error}"
