"""The shape of a family's lines: text that stays, around labels and numbers."""

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import TypeAlias

from taskscope.sinks.metrics.catalog import Metric
from taskscope.sinks.metrics.numbers import number

Labels: TypeAlias = tuple[str, ...]


class Form:
    """How the rows of a metric are written. A row is one line, or the lines of a histogram or of a split label."""

    def __init__(self, metric: Metric, bounds: Sequence[float] = ()) -> None:
        self.endings = _endings(metric, bounds)
        """Of each line of a row: suffix of the sample's name, and the labels that the row does not give."""
        self.width = len(self.endings)
        self.headers = {openmetrics: _header(metric, openmetrics) for openmetrics in (False, True)}
        self._order = sorted(range(len(metric.labels)), key=lambda at: metric.labels[at])
        self._parts = [part for ending in self.endings for part in _parts(metric, *ending)]
        self._first = self._parts[0].removeprefix("\n")

    def write(self, rows: Sequence[Labels], numbers: Sequence[str]) -> bytes:
        """The lines of these rows, whose labels are `written`; `numbers` has one for every line."""
        parts = self._parts * len(rows)
        step = 2 * len(self._order) + 2
        for place, at in enumerate(self._order):
            texts = [labels[at] for labels in rows]
            if self.width > 1:
                texts = list(chain.from_iterable(map(repeat, texts, repeat(self.width))))
            parts[2 * place + 1 :: step] = texts
        parts[step - 1 :: step] = numbers
        parts[0] = self._first
        parts.append("\n")
        return "".join(parts).encode()


def written(labels: Labels) -> Labels:
    """The values of labels as they stand in a line; the same object where nothing must be escaped."""
    texts = tuple(quoted(printable(value)) for value in labels)
    return labels if texts == labels else texts


def quoted(value: str) -> str:
    """The text as it stands between quotes."""
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def printable(value: str) -> str:
    """The text without lone surrogates, which no page can hold."""
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def _header(metric: Metric, openmetrics: bool) -> bytes:
    """The lines above the samples."""
    if not openmetrics:
        kind = "gauge" if metric.kind == "info" else metric.kind
        return f"# HELP {metric.sample} {metric.help}\n# TYPE {metric.sample} {kind}\n".encode()
    unit = f"# UNIT {metric.family} {metric.unit}\n" if metric.unit else ""
    return f"# HELP {metric.family} {metric.help}\n# TYPE {metric.family} {metric.kind}\n{unit}".encode()


def _endings(metric: Metric, bounds: Sequence[float]) -> list[tuple[str, dict[str, str]]]:
    if metric.kind == "histogram":
        buckets = [("_bucket", {"le": number(bound)}) for bound in (*bounds, float("inf"))]
        return [*buckets, ("_count", {}), ("_sum", {})]
    if metric.split:
        name, values = metric.split
        return [("", {name: value}) for value in values]
    return [("", {})]


def _parts(metric: Metric, suffix: str, given: Mapping[str, str]) -> list[str]:
    """A line, taken apart: text, label, text, label … text, number; every line begins by ending the one before."""
    parts, text, mark = [], f"\n{metric.sample}{suffix}", "{"
    for name in sorted((*metric.labels, *given)):
        text += f'{mark}{name}="'
        mark = ","
        if name in given:
            text += f'{given[name]}"'
        else:
            parts += [text, ""]
            text = '"'
    return [*parts, text + ("} " if mark == "," else " "), ""]
