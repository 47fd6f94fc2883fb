"""Series in memory, in rows and blocks, of which a page is written.

Rows stand in blocks, blocks in groups. A block is written anew only when something in it changed; a group keeps the
text. A row never moves to another block, so a page shows it exactly once. Nothing here locks: who uses a family
holds the lock of its owner.
"""

import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from taskscope.counts import Exemplar
from taskscope.identity import text as run_text
from taskscope.sinks.metrics.catalog import Metric
from taskscope.sinks.metrics.form import Form, Labels, printable, written
from taskscope.sinks.metrics.numbers import number, numbers

Values: TypeAlias = "array[float]"

_LINES = 64  # of a block: small enough that few unchanged lines are written with a changed one
_BLOCKS = 16  # of a group: its text is some 100 kB, which is sent and compressed as a whole
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
        self.block.pointing = True
        self.block.change()


class Block:
    """Some rows that are written together."""

    __slots__ = ("_form", "pointing", "rows", "stamp", "values")

    def __init__(self, form: Form) -> None:
        self._form = form
        self.rows: list[Row] = []
        self.values: Values = array("d")
        self.pointing = False
        """Does a line carry an exemplar?"""
        self.stamp = object()
        """Another object after every change."""

    def change(self) -> None:
        """Something changed: what was written is no longer true."""
        self.stamp = object()

    def write(self, exemplars: bool) -> bytes:
        """The lines as they are now."""
        texts = numbers(self.values)
        if exemplars and self.pointing:
            for row in self.rows:
                for line, pointer in (row.pointers or {}).items():
                    texts[row.at + line] += pointer.text()
        return self._form.write([row.texts for row in self.rows], texts)

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


class Written(NamedTuple):
    """What was written of a group, and when."""

    text: bytes
    stamps: list[object]
    """Of each of its blocks."""
    sizes: list[int]


class Group:
    """Neighbouring blocks, of which the text is kept: lines are held in memory once."""

    __slots__ = ("_written", "blocks")

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._written: dict[bool, Written] = {}

    def write(self, openmetrics: bool) -> bytes:
        """The lines in text 0.0.4 or in OpenMetrics, which differ by exemplars only."""
        exemplars = openmetrics and any(block.pointing for block in self.blocks)
        stamps = [block.stamp for block in self.blocks]
        written = self._written.get(exemplars)
        if written is None or written.stamps != stamps:
            parts = self._parts(written, exemplars)
            written = self._written[exemplars] = Written(b"".join(parts), stamps, list(map(len, parts)))
        return written.text

    def _parts(self, old: Written | None, exemplars: bool) -> list[bytes | memoryview]:
        """The text of each block: cut out of the old one where nothing changed."""
        kept: dict[object, memoryview] = {}
        if old is not None:
            ends = list(accumulate(old.sizes))
            view = memoryview(old.text)
            kept = {
                stamp: view[end - size : end]
                for stamp, size, end in zip(old.stamps, old.sizes, ends, strict=True)
            }
        return [kept.get(block.stamp) or block.write(exemplars) for block in self.blocks]


class Family:
    """All series of one metric."""

    def __init__(self, metric: Metric, bounds: Sequence[float] = ()) -> None:
        self.metric, self.bounds = metric, tuple(bounds)
        self.form = Form(metric, bounds)
        self.width = self.form.width
        self.rows: dict[Labels, Row] = {}
        self.groups: list[Group] = []
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
            self._roomy.pop(row.block, None)
            self._forget(row.block)

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
        for row in (row for group in self.groups for block in group.blocks for row in block.rows):
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
            block = self._new_block()
        self.rows[labels] = block.append(labels, values)
        if len(block.rows) >= self._rows_per_block:
            self._roomy.pop(block, None)

    def _new_block(self) -> Block:
        if not self.groups or len(self.groups[-1].blocks) >= _BLOCKS:
            self.groups.append(Group())
        block = Block(self.form)
        self.groups[-1].blocks.append(block)
        self._roomy[block] = None
        return block

    def _forget(self, block: Block) -> None:
        group = next(group for group in self.groups if block in group.blocks)
        group.blocks.remove(block)
        if not group.blocks:
            self.groups.remove(group)
