"""Our own lint of rules in alerts: pint's useful checks, and what every alert of ours says.

A rule of this lint takes one alert or record and gives a sentence for everything that is wrong.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit

import lint_promql as expressions
import promql_parser as promql
from expressions import selected
from pages import ROOT, variables

Rule: TypeAlias = Mapping[str, Any]
Check: TypeAlias = Callable[[Rule], Iterator[str]]

SEVERITIES = ("critical", "warning", "info")
ANNOTATIONS = ("summary", "description", "runbook_url", "dashboard_url")
_ABSENT_FOR = 120  # seconds; two scrapes of a minute
_WINDOW = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_BRANCH = re.compile(r"\{\{-?\s*(?:if|else|end)\b.*?\}\}")
_KNOWN = frozenset(
    {
        "if",
        "else",
        "end",
        "or",
        "and",
        "not",
        "eq",
        "ne",
        "gt",
        "ge",
        "lt",
        "le",
        "with",
        "range",
        "printf",
        "first",
        "value",
        "query",
        "externalURL",
        "humanize",
        "humanizeDuration",
        "humanizePercentage",
        "humanizeTimestamp",
        "humanize1024",
        "urlquery",
        "toUpper",
        "toLower",
        "title",
        "reReplaceAll",
        "match",
        "safeHtml",
    }
)


def is_named_well(rule: Rule) -> Iterator[str]:
    """An alert is `Taskscope` and more in CamelCase; a record is `level:metric:operation`."""
    pattern = (
        r"Taskscope([A-Z][a-z0-9]*)+|Taskscope" if "alert" in rule else r"taskscope:[a-z0-9_]+:[a-z0-9_]+"
    )
    if not re.fullmatch(pattern, _name(rule)):
        yield "its name is not of our kind"


def parses(rule: Rule) -> Iterator[str]:
    """The expression is valid PromQL."""
    try:
        promql.parse(rule["expr"])
    except ValueError as error:
        yield str(error)


def is_sound(rule: Rule) -> Iterator[str]:
    """Counters grow, rates are of counters, patterns are needed. NaN compares with nothing: it may come."""
    checks = (expressions.raw_counters, expressions.wrong_rates, expressions.needless_patterns)
    yield from (wrong for check in checks for wrong in check(promql.parse(rule["expr"])))


def waits_for_what_is_absent(rule: Rule) -> Iterator[str]:
    """Absence is believed after two scrapes at the earliest."""
    if "alert" in rule and "absent(" in rule["expr"] and seconds(rule.get("for", "0s")) < _ABSENT_FOR:
        yield f"absent() waits only {rule.get('for')}"


def has_a_severity(rule: Rule) -> Iterator[str]:
    """The severity is one of three, or what the settings say with one of these as default."""
    if "alert" not in rule:
        return
    severity = str(rule.get("labels", {}).get("severity", ""))
    default = re.fullmatch(r'\{\{ or \$labels\.severity "(\w+)" \}\}', severity)
    if (default[1] if default else severity) not in SEVERITIES:
        yield f"its severity is {severity!r}"


def says_what_it_means(rule: Rule) -> Iterator[str]:
    """It has a summary without templates that is a sentence, a description, a runbook and a dashboard."""
    if "alert" not in rule:
        return
    told = rule.get("annotations", {})
    yield from (f"it has no {name}" for name in ANNOTATIONS if not told.get(name))
    summary = told.get("summary", "")
    if "{{" in summary or not re.fullmatch(r"([A-Z]|taskscope ).*\.", summary.strip()):
        yield f"its summary is no sentence: {summary}"


def keeps_its_identity(rule: Rule) -> Iterator[str]:
    """No label changes with the value: each change would be a new alert."""
    labels = rule.get("labels", {})
    yield from (f"the label {name} holds $value" for name, text in labels.items() if "$value" in str(text))


def templates_are_templates(rule: Rule) -> Iterator[str]:
    """Braces are closed, and what stands in them is known to Prometheus."""
    for name, text in {**rule.get("labels", {}), **rule.get("annotations", {})}.items():
        if _WINDOW.sub("", text).count("{{") or _WINDOW.sub("", text).count("}}"):
            yield f"{name} has an open brace"
        for inside in _WINDOW.findall(text):
            words = re.findall(r"(?<![$.\w])[a-zA-Z]\w*", re.sub(r'"[^"]*"|`[^`]*`', "", inside))
            yield from (f"{name} calls {word}" for word in words if word not in _KNOWN)


CHECKS: tuple[Check, ...] = (
    is_named_well,
    parses,
    is_sound,
    waits_for_what_is_absent,
    has_a_severity,
    says_what_it_means,
    keeps_its_identity,
    templates_are_templates,
)


def compares(rule: Rule, rules: Mapping[str, Rule]) -> bool:
    """Does an alert leave out what is well, itself or by the record from which it takes?"""
    expr = promql.parse(rule["expr"])
    if expressions.compares(expr):
        return True
    records = [rules[each.name] for each in selected(expr) if each.name in rules]
    return any(compares(record, rules) for record in records)


def runbook_anchor(rule: Rule) -> str:
    """The heading that the alert's runbook_url means; empty where it means another place."""
    url = urlsplit(rule["annotations"]["runbook_url"])
    return url.fragment if (url.netloc, url.path) == ("localhost:9750", "/runbook") else ""


def lost_dashboard(rule: Rule, pages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The alert's dashboard_url leads to a page of ours and sets variables that it has."""
    url = urlsplit(_BRANCH.sub("", rule["annotations"]["dashboard_url"]))
    known = {f"/d/{page['uid']}": {v["name"] for v in variables(page)} for page in pages.values()}
    if url.netloc != "localhost:3000" or url.path not in known:
        yield f"{url.geturl()} leads to no page of ours"
        return
    sets = {name.removeprefix("var-") for name, _ in parse_qsl(url.query) if name.startswith("var-")}
    yield from (f"it sets ${name}, which {url.path} has not" for name in sorted(sets - known[url.path]))


def anchors() -> set[str]:
    """The headings of the runbook as links name them."""
    text = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def _name(rule: Rule) -> str:
    return str(rule.get("alert") or rule.get("record"))


def seconds(text: str) -> float:
    """A duration as Prometheus writes it."""
    return float(promql.parse_duration(text).total_seconds())
