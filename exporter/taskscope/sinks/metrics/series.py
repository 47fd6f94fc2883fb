"""Series in memory, in rows and blocks, of which a page is written.

Rows stand in blocks, and a block is written anew only when something in it changed. A row never moves to another
block, so a page shows it exactly once. Nothing here locks: who uses a family holds the lock of its owner.
"""

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from taskscope.counts import Exemplar
from taskscope.identity import text as run_text
from taskscope.sinks.metrics.catalog import Metric
from taskscope.sinks.metrics.form import Form, Labels, printable, written
from taskscope.sinks.metrics.numbers import number, numbers

Values: TypeAlias = "array[float]"

_LINES = 64  # of a block: small enough that few unchanged lines are written with a changed one
_TRACE_ID = re.compile(
    r"[0-9A-Za-z_.:-]{1,64}"
)  # OpenMetrics allows 128 characters for all labels of an exemplar


class Pointer:
    """The exemplar of a line, and how it is written."""

    __slots__ = ("_text", "exemplar")

    def __init__(self, exemplar: Exemplar) -> None:
        self.exemplar = exemplar
        self._text = ""

    def labels(self) -> dict[str, str]:
        """What it points to."""
        labels = {"run_id": run_text(self.exemplar.run)}
        if _TRACE_ID.fullmatch(self.exemplar.trace_id):
            labels["trace_id"] = self.exemplar.trace_id
        return labels

    def text(self) -> str:
        """What stands behind the line's number."""
        if not self._text:
            labels = ",".join(f'{name}="{value}"' for name, value in self.labels().items())
            self._text = f" # {{{labels}}} {number(self.exemplar.value)} {self.exemplar.at}"
        return self._text


class Row:
    """The lines of one set of labels."""

    __slots__ = ("at", "block", "labels", "pointers", "texts")

    def __init__(self, labels: Labels, block: "Block", at: int) -> None:
        self.labels, self.texts, self.block, self.at = labels, written(labels), block, at
        self.pointers: dict[int, Pointer] | None = None
        """Exemplars by line."""

    def point(self, line: int, exemplar: Exemplar) -> None:
        """Let a line carry an exemplar."""
        self.pointers = {**(self.pointers or {}), line: Pointer(exemplar)}
        self.block.change()


class Block:
    """Some rows that are written together."""

    __slots__ = ("_form", "_openmetrics", "_text", "rows", "stamp", "values")

    def __init__(self, form: Form) -> None:
        self._form = form
        self.rows: list[Row] = []
        self.values: Values = array("d")
        self.stamp = object()
        """Another object after every change."""
        self._text: bytes | None = None
        self._openmetrics: bytes | None = None

    def change(self) -> None:
        """Something changed: what was written is no longer true."""
        self._text = self._openmetrics = None
        self.stamp = object()

    def text(self) -> bytes:
        """The lines in text 0.0.4."""
        if self._text is None:
            self._text = self._form.write([row.texts for row in self.rows], numbers(self.values))
        return self._text

    def openmetrics(self) -> bytes:
        """The lines in OpenMetrics: the same, unless there are exemplars."""
        if self._openmetrics is None:
            pointing = any(row.pointers for row in self.rows)
            self._openmetrics = self._with_exemplars() if pointing else self.text()
        return self._openmetrics

    def append(self, labels: Labels, values: Sequence[float]) -> Row:
        """Add a row."""
        row = Row(labels, self, len(self.values))
        self.rows.append(row)
        self.values.extend(values)
        self.change()
        return row

    def remove(self, row: Row) -> None:
        """Take a row out."""
        width = self._form.width
        del self.values[row.at : row.at + width]
        self.rows.remove(row)
        for later in self.rows:
            if later.at > row.at:
                later.at -= width
        self.change()

    def _with_exemplars(self) -> bytes:
        texts = numbers(self.values)
        for row in self.rows:
            for line, pointer in (row.pointers or {}).items():
                texts[row.at + line] += pointer.text()
        return self._form.write([row.texts for row in self.rows], texts)


class Family:
    """All series of one metric."""

    def __init__(self, metric: Metric, bounds: Sequence[float] = ()) -> None:
        self.metric, self.bounds = metric, tuple(bounds)
        self.form = Form(metric, bounds)
        self.width = self.form.width
        self.rows: dict[Labels, Row] = {}
        self.blocks: list[Block] = []
        self._rows_per_block = max(1, _LINES // self.width)
        self._roomy: dict[Block, None] = {}

    def __len__(self) -> int:
        return len(self.rows) * self.width

    def get(self, labels: Labels) -> "Values | None":
        """The numbers of a row; None where there is none."""
        row = self.rows.get(labels)
        return row.block.values[row.at : row.at + self.width] if row else None

    def put(self, labels: Labels, *values: float) -> None:
        """Set the numbers of a row; it is born where there is none."""
        row = self.rows.get(labels)
        if row is None:
            self._bear(labels, values)
            return
        new, here = array("d", values), slice(row.at, row.at + self.width)
        if row.block.values[here] != new:
            row.block.values[here] = new
            row.block.change()

    def raise_to(self, labels: Labels, *values: float) -> None:
        """As `put`, but no number falls."""
        old = self.get(labels)
        self.put(labels, *(map(max, old, values) if old else values))

    def drop(self, labels: Labels) -> None:
        """Take a row away; nothing happens where there is none."""
        row = self.rows.pop(labels, None)
        if row is None:
            return
        row.block.remove(row)
        if row.block.rows:
            self._roomy[row.block] = None
        else:
            self.blocks.remove(row.block)
            self._roomy.pop(row.block, None)

    def rename(self, old: Labels, new: Labels) -> None:
        """Give a row other labels, in its place: a page never shows both or neither."""
        if old != new:
            row = self.rows[new] = self.rows.pop(old)
            row.labels, row.texts = new, written(new)
            row.block.change()

    def keep(self, wanted: Mapping[Labels, float]) -> None:
        """Have exactly these rows, of one line each."""
        for labels in self.rows.keys() - wanted.keys():
            self.drop(labels)
        for labels, value in wanted.items():
            self.put(labels, value)

    def samples(self) -> Iterator[tuple[str, dict[str, str], float, Pointer | None]]:
        """Name, labels, value and exemplar of every line, in the order of the page."""
        for row in (row for block in self.blocks for row in block.rows):
            labels = dict(zip(self.metric.labels, map(printable, row.labels), strict=True))
            for line, (suffix, given) in enumerate(self.form.endings):
                pointer = row.pointers.get(line) if row.pointers else None
                yield (
                    self.metric.sample + suffix,
                    {**labels, **given},
                    row.block.values[row.at + line],
                    pointer,
                )

    def _bear(self, labels: Labels, values: Sequence[float]) -> None:
        block = next(reversed(self._roomy), None)
        if block is None:
            block = Block(self.form)
            self.blocks.append(block)
            self._roomy[block] = None
        self.rows[labels] = block.append(labels, values)
        if len(block.rows) >= self._rows_per_block:
            del self._roomy[block]
