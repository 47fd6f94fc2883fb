"""What is wrong with an expression, on a dashboard or in a rule: pint's useful checks. Each gives sentences."""

import re
from collections.abc import Iterator
from typing import Any

import promql_parser as promql
from expressions import nodes, selected

GROWTH = ("rate", "irate", "increase")
_COUNTED = ("_total", "_bucket", "_count", "_sum")
_HEIGHTLESS = {
    *GROWTH,
    "absent",
    "absent_over_time",
    "changes",
    "last_over_time",
    "present_over_time",
    "resets",
    "timestamp",
}
"""Functions to which it does not matter how high a counter is."""
_COMPARISONS = frozenset({"==", "!=", ">", "<", ">=", "<="})


def raw_counters(expr: promql.Expr) -> Iterator[str]:
    """A counter is used by its growth, not by its height; that it is there, or is 0, may be asked."""
    for each in selected(expr):
        if (
            each.name.endswith("_total")
            and each.function not in _HEIGHTLESS
            and not _only_whether(each.around)
        ):
            yield f"{each.name} is a counter and used as it is"


def wrong_rates(expr: promql.Expr) -> Iterator[str]:
    """Only counters have a rate, over two scrapes at least, taken before any sum."""
    for each in selected(expr):
        if each.function in GROWTH and not each.name.endswith(_COUNTED):
            yield f"{each.function} of {each.name}, which is no counter"
        if each.function in GROWTH and (each.range or 0) < 120:
            yield f"{each.function} of {each.name} over {each.range:g} s, less than two scrapes"
    for node, _ in nodes(expr):
        if (
            isinstance(node, promql.Call)
            and node.func.name in GROWTH
            and isinstance(node.args[0], promql.SubqueryExpr)
        ):
            yield f"{node.func.name} of a sum, in which resets cannot be seen"


def needless_patterns(expr: promql.Expr) -> Iterator[str]:
    """A pattern has something to match, and is not anchored again."""
    for each in selected(expr):
        for matcher in each.selector.matchers.matchers:
            if str(matcher.op) not in ("MatchOp.Re", "MatchOp.NotRe"):
                continue
            if matcher.value[:1] == "^" or matcher.value[-1:] == "$":
                yield f"{matcher.name} is anchored as it is"
            elif matcher.value == re.escape(matcher.value).replace("\\-", "-"):
                yield f"{matcher.name}={matcher.value!r} needs no pattern"


def divisions_by_zero(expr: promql.Expr) -> Iterator[str]:
    """What grows may not have grown: then a division by it is NaN, which compares with nothing."""
    for node, _ in nodes(expr):
        if isinstance(node, promql.BinaryExpr) and str(node.op) == "/" and _may_be_zero(node.rhs):
            yield f"division by {node.rhs}, which may be 0"


def compares(expr: promql.Expr) -> bool:
    """Does it leave out what is well?"""
    for node, _ in nodes(expr):
        if isinstance(node, promql.BinaryExpr) and (str(node.op) == "unless" or _leaves_out(node)):
            return True
        if isinstance(node, promql.Call) and node.func.name in ("absent", "absent_over_time"):
            return True
    return False


def _only_whether(around: tuple[Any, ...]) -> bool:
    """Is it only asked whether it is there, or is compared with a number?"""
    for node in around:
        if isinstance(node, promql.AggregateExpr) and str(node.op) in ("group", "count"):
            return True
        if isinstance(node, promql.BinaryExpr):
            return str(node.op) in {*_COMPARISONS, "unless", "and", "or"}
    return False


def _leaves_out(node: promql.BinaryExpr) -> bool:
    """Is it a comparison that filters?"""
    return str(node.op) in _COMPARISONS and not (node.modifier and node.modifier.return_bool)


def _may_be_zero(divisor: Any) -> bool:
    while isinstance(divisor, promql.ParenExpr):
        divisor = divisor.expr
    if isinstance(divisor, promql.BinaryExpr) and _leaves_out(divisor):
        return False
    if isinstance(divisor, promql.Call) and divisor.func.name in ("clamp_min", "clamp"):
        return False
    return any(isinstance(node, promql.Call) and node.func.name in GROWTH for node, _ in nodes(divisor))
