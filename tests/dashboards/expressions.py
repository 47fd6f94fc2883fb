"""PromQL taken apart: what an expression selects, and within what."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import promql_parser as promql


class Selected(NamedTuple):
    """A selector and what stands around it, innermost first."""

    name: str
    """The metric; empty where matchers choose it."""
    selector: promql.VectorSelector
    range: float | None
    """Seconds of `[…]`; None for an instant vector."""
    around: tuple[Any, ...]

    @property
    def matchers(self) -> list[promql.Matcher]:
        return list(self.selector.matchers.matchers)

    @property
    def function(self) -> str:
        """The function that takes it directly; empty where none does."""
        first = self.around[0] if self.around else None
        return first.func.name if isinstance(first, promql.Call) else ""


def parsed(expr: str) -> promql.Expr:
    """The expression. Raises ValueError."""
    return promql.parse(expr)


def nodes(expr: Any, around: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Every part of an expression with what stands around it, innermost first."""
    yield expr, around
    for child in _children(expr):
        yield from nodes(child, (expr, *around))


def selected(expr: promql.Expr) -> Iterator[Selected]:
    """Everything that an expression selects."""
    for node, around in nodes(expr):
        if isinstance(node, promql.MatrixSelector):
            yield _selected(node.vector_selector, around, node.range.total_seconds())
        elif isinstance(node, promql.VectorSelector):
            yield _selected(node, around, None)


def labels_named(expr: promql.Expr) -> Iterator[str]:
    """Labels that matchers, `by`, `on` and the like name."""
    for node, _ in nodes(expr):
        if isinstance(node, promql.MatrixSelector):
            node = node.vector_selector
        if isinstance(node, promql.VectorSelector):
            yield from (matcher.name for matcher in node.matchers.matchers if matcher.name != "__name__")
        if isinstance(node, promql.AggregateExpr) and node.modifier:
            yield from node.modifier.labels
        if isinstance(node, promql.BinaryExpr) and node.modifier:
            yield from node.modifier.matching.labels if node.modifier.matching else ()
            yield from node.modifier.group_labels or ()


def _children(node: Any) -> list[Any]:
    if isinstance(node, promql.BinaryExpr):
        return [node.lhs, node.rhs]
    if isinstance(node, promql.AggregateExpr):
        return [node.expr, node.param] if node.param else [node.expr]
    if isinstance(node, promql.Call):
        return list(node.args)
    if isinstance(node, promql.ParenExpr | promql.UnaryExpr | promql.SubqueryExpr):
        return [node.expr]
    return []


def _selected(selector: promql.VectorSelector, around: tuple[Any, ...], range_: float | None) -> Selected:
    name = selector.name or next(
        (
            m.value
            for m in selector.matchers.matchers
            if m.name == "__name__" and str(m.op) == "MatchOp.Equal"
        ),
        "",
    )
    outside = tuple(each for each in around if not isinstance(each, promql.ParenExpr))
    return Selected(name, selector, range_, outside)
