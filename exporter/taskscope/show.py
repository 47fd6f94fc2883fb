"""What the command line prints: tables for people on a terminal, tab-separated lines for everything else."""

import sys
import time
from collections.abc import Iterable, Sequence

import msgspec
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES = {
    "success": "green",
    "failed": "bold red",
    "retried": "magenta",
    "skipped": "dark_orange3",
    "started": "dodger_blue1",
    "unknown": "bold magenta",
    "queued": "dim",
}
"""Colours of statuses, legible on black and on white."""


class Column(msgspec.Struct, frozen=True):
    """A column of a table."""

    name: str
    right: bool = False
    from_width: int = 0
    """Shown on terminals at least this wide; always where there is none."""
    style: str = ""
    least: int = 0
    """Width that it has also when its cells are short, so that a live table stands still."""
    cut: bool = False
    """Gives way where the terminal is too narrow."""
    wrap: bool = False
    """The same, but goes on in the next line."""


Cell = str | Text


def print_table(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    """A table on a terminal; elsewhere a line of names, then lines of values, separated by tabs."""
    if console.is_terminal:
        console.print(table(console.width, columns, rows))
        return
    for row in ([column.name for column in columns], *rows):
        print_line(console, "\t".join(printable(str(cell)) for cell in row))


def print_listing(
    console: Console, columns: Sequence[Column], rows: Iterable[Sequence[str]], as_json: bool
) -> None:
    """A short table, or the same as one JSON list."""
    if as_json:
        names = [column.name for column in columns]
        print_line(
            console, msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows]).decode()
        )
    else:
        print_table(console, columns, rows)


def print_block(console: Console, title: str, text: str) -> None:
    """A title and lines as they are, in which nothing is a command to the terminal; nothing without text."""
    lines = [_legible(line.expandtabs()) for line in text.splitlines()]
    if lines and console.is_terminal:
        console.print(Text.assemble("\n", (title, "bold"), "\n", "\n".join(lines)), soft_wrap=True)
    elif lines:
        print_line(console, "\n".join(["", title, *lines]))


def print_line(console: Console, line: str) -> None:
    """A line as it is: neither wrapped, nor cut, nor coloured."""
    console.file.write(line + "\n")
    console.file.flush()


def print_mark(console: Console, mark: str, style: str, line: str) -> None:
    """A line behind a coloured mark."""
    if console.is_terminal:
        console.print(Text.assemble((mark, style), "  ", printable(line)))
    else:
        print_line(console, f"{mark}  {printable(line)}")


def table(width: int, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> Table:
    """The table for a terminal of this width."""
    result = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold"
    )
    shown = [(number, column) for number, column in enumerate(columns) if column.from_width <= width]
    for _, column in shown:
        result.add_column(
            column.name,
            justify="right" if column.right else "left",
            style=column.style,
            no_wrap=not (column.cut or column.wrap),
            min_width=column.least or None,
        )
    for row in rows:
        result.add_row(*(_safe(row[number], column) for number, column in shown))
    return result


def _safe(cell: Cell, column: Column) -> Text:
    """The cell as text, in which nothing is taken for markup or for a command to the terminal."""
    text = cell if isinstance(cell, Text) else Text(printable(cell))
    if not column.wrap:
        text.no_wrap, text.overflow = True, "ellipsis"
    return text


def printable(text: str) -> str:
    """The text on one line; what a terminal would obey is replaced."""
    return _legible(" ".join(text.split()))


def _legible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def status(name: str, note: str = "") -> Text:
    """A status in its colour, with a note."""
    return Text(f"{name} {printable(note)}".rstrip(), STYLES.get(name, ""))


def moment(ms: int | None) -> str:
    """A point in time (ms since the epoch) in the time zone of whoever looks."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) if ms else ""


def span(seconds: float | None) -> str:
    """A duration with the two units that matter: `40 µs`, `340 ms`, `2.5 s`, `3 min 20 s`, `5 d 2 h`."""
    if seconds is None:
        return ""
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, size, smaller, small in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def size(count: int) -> str:
    """A number of bytes: `512 B`, `1.5 MiB`."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.{0 if unit == 'B' else 1}f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def standard_output() -> Console:
    """Where results go."""
    return Console(file=sys.stdout, highlight=False, markup=False)


def standard_error() -> Console:
    """Where progress and complaints go."""
    return Console(file=sys.stderr, highlight=False, markup=False)
