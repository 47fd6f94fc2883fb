"""Series in memory, kept the way they are written: text that stays, and numbers that change.

A row is what belongs to one set of labels: one line, or all lines of a histogram. Rows stand in blocks, and a
block is written anew only when one of its numbers changed. A row never moves to another block, so a page shows it
exactly once.
Nothing here locks; who uses a family holds the lock of its owner.
"""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from taskscope.counts import Exemplar
from taskscope.identity import text as run_text
from taskscope.sinks.metrics.catalog import Metric
from taskscope.sinks.metrics.numbers import number, numbers

Labels: TypeAlias = tuple[str, ...]
Values: TypeAlias = "array[float]"

_LINES = 64  # of a block: small enough that few unchanged lines are written with a changed one
_BYTES = 65_536  # of a block, for jobs with very long names
_LONGEST_TRACE_ID = 64  # OpenMetrics allows 128 characters for all labels of an exemplar


class Row:
    """The lines of one set of labels."""

    __slots__ = ("at", "block", "exemplars", "labels", "suffixes")

    def __init__(self, labels: Labels, block: "Block", at: int) -> None:
        self.labels, self.block, self.at = labels, block, at
        self.exemplars: dict[int, Exemplar] | None = None
        self.suffixes: dict[int, bytes] | None = None

    def point(self, line: int, exemplar: Exemplar) -> None:
        """Let a line carry an exemplar."""
        if self.exemplars is None or self.suffixes is None:
            self.exemplars, self.suffixes = {}, {}
        self.exemplars[line] = exemplar
        self.suffixes.pop(line, None)
        self.block.change()

    def suffix(self, texts: list[bytes]) -> None:
        """Write the exemplars behind this row's numbers."""
        if self.exemplars is None or self.suffixes is None:
            return
        for line, exemplar in self.exemplars.items():
            suffix = self.suffixes.get(line)
            if suffix is None:
                suffix = self.suffixes[line] = _exemplar(exemplar)
            texts[self.at + line] += suffix


class Block:
    """Some rows that are written together."""

    __slots__ = ("_openmetrics", "_text", "rows", "stamp", "template", "values")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.template = b""
        """The lines, with `%b` in place of every number."""
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
            self._text = self.template % tuple(numbers(self.values))
        return self._text

    def openmetrics(self) -> bytes:
        """The lines in OpenMetrics: the same, unless there are exemplars."""
        if self._openmetrics is None:
            self._openmetrics = (
                self._with_exemplars() if any(row.exemplars for row in self.rows) else self.text()
            )
        return self._openmetrics

    def _with_exemplars(self) -> bytes:
        texts = numbers(self.values)
        for row in self.rows:
            row.suffix(texts)
        return self.template % tuple(texts)

    def append(self, labels: Labels, lines: bytes, values: Sequence[float]) -> Row:
        """Add a row."""
        row = Row(labels, self, len(self.values))
        self.rows.append(row)
        self.template += lines
        self.values.extend(values)
        self.change()
        return row

    def remove(self, row: Row, width: int) -> None:
        """Take a row out."""
        self.replace(row, b"", width)
        del self.values[row.at : row.at + width]
        at = self.rows.index(row)
        del self.rows[at]
        for later in self.rows[at:]:
            later.at -= width

    def replace(self, row: Row, lines: bytes, width: int) -> None:
        """Give a row other text."""
        old = self.template.split(b"\n")
        before, after = old[: row.at], old[row.at + width :]
        self.template = b"\n".join([*before, lines + after[0], *after[1:]] if lines else [*before, *after])
        self.change()


class Family:
    """All series of one metric."""

    def __init__(self, metric: Metric, bounds: Sequence[float] = ()) -> None:
        self.metric = metric
        self.bounds = tuple(bounds)
        self.rows: dict[Labels, Row] = {}
        self.blocks: list[Block] = []
        self.endings = _endings(metric, bounds)
        """Of each line of a row: suffix of the sample's name, and what its last label adds."""
        self.width = len(self.endings)
        self._form = "".join(_line_form(metric, *ending) for ending in self.endings)
        self._rows_per_block = max(1, _LINES // self.width)
        self._roomy: dict[Block, None] = {}

    def __len__(self) -> int:
        return len(self.rows) * self.width

    def get(self, labels: Labels) -> Sequence[float] | None:
        """The numbers of a row; None where there is none."""
        row = self.rows.get(labels)
        return row.block.values[row.at : row.at + self.width] if row else None

    def put(self, labels: Labels, *values: float) -> Row:
        """Set the numbers of a row; it is born where there is none."""
        row = self.rows.get(labels)
        if row is None:
            return self._born(labels, values)
        new, here = array("d", values), slice(row.at, row.at + self.width)
        if row.block.values[here] != new:
            row.block.values[here] = new
            row.block.change()
        return row

    def raise_to(self, labels: Labels, *values: float) -> Row:
        """As `put`, but no number falls."""
        old = self.get(labels)
        return self.put(labels, *(map(max, old, values) if old else values))

    def drop(self, labels: Labels) -> None:
        """Take a row away; nothing happens where there is none."""
        row = self.rows.pop(labels, None)
        if row is None:
            return
        row.block.remove(row, self.width)
        if row.block.rows:
            self._roomy[row.block] = None
        else:
            self.blocks.remove(row.block)
            self._roomy.pop(row.block, None)

    def rename(self, old: Labels, new: Labels) -> None:
        """Give a row other labels, in its place: a page never shows both or neither."""
        if old == new or new in self.rows:
            return
        row = self.rows[new] = self.rows.pop(old)
        row.labels = new
        row.block.replace(row, self._lines(new), self.width)

    def keep(self, wanted: Mapping[Labels, float]) -> None:
        """Have exactly these rows, of one line each."""
        for labels in [labels for labels in self.rows if labels not in wanted]:
            self.drop(labels)
        for labels, value in wanted.items():
            self.put(labels, value)

    def samples(self) -> Iterator[tuple[str, dict[str, str], float, Exemplar | None]]:
        """Name, labels, value and exemplar of every line, in the order of the page."""
        names = self.metric.labels
        for block in self.blocks:
            for row in block.rows:
                labels = {name: _printable(value) for name, value in zip(names, row.labels, strict=True)}
                for line, (suffix, extra) in enumerate(self.endings):
                    exemplar = row.exemplars.get(line) if row.exemplars else None
                    value = block.values[row.at + line]
                    yield self.metric.sample + suffix, {**labels, **extra}, value, exemplar

    def _born(self, labels: Labels, values: Sequence[float]) -> Row:
        block = next(reversed(self._roomy), None)
        if block is None:
            block = Block()
            self.blocks.append(block)
            self._roomy[block] = None
        row = self.rows[labels] = block.append(labels, self._lines(labels), values)
        if len(block.rows) >= self._rows_per_block or len(block.template) >= _BYTES:
            del self._roomy[block]
        return row

    def _lines(self, labels: Labels) -> bytes:
        return self._form.format(*map(_escaped, labels)).encode()


def exemplar_labels(exemplar: Exemplar) -> dict[str, str]:
    """The labels of an exemplar."""
    labels = {"run_id": run_text(exemplar.run)}
    if exemplar.trace_id and len(exemplar.trace_id) <= _LONGEST_TRACE_ID:
        labels["trace_id"] = _printable(exemplar.trace_id)
    return labels


def _exemplar(exemplar: Exemplar) -> bytes:
    labels = ",".join(f'{name}="{_quoted(value)}"' for name, value in exemplar_labels(exemplar).items())
    return f" # {{{labels}}} ".encode() + number(exemplar.value) + f" {exemplar.at}".encode()


def _endings(metric: Metric, bounds: Sequence[float]) -> list[tuple[str, dict[str, str]]]:
    if metric.kind == "histogram":
        buckets = [("_bucket", {"le": number(bound).decode()}) for bound in (*bounds, float("inf"))]
        return [*buckets, ("_count", {}), ("_sum", {})]
    if metric.split:
        name, values = metric.split
        return [("", {name: value}) for value in values]
    return [("", {})]


def _line_form(metric: Metric, suffix: str, extra: Mapping[str, str]) -> str:
    """The line as a form for `str.format`, whose result is a form for `%`."""
    values: dict[str, Any] = {name: f"{{{at}}}" for at, name in enumerate(metric.labels)} | dict(extra)
    labels = ",".join(f'{name}="{values[name]}"' for name in sorted(values))
    return metric.sample + suffix + (f"{{{{{labels}}}}}" if labels else "") + " %b\n"


def _escaped(value: str) -> str:
    return _quoted(_printable(value)).replace("%", "%%")


def _quoted(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _printable(value: str) -> str:
    """The text without lone surrogates, which no page can hold."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
