import io
import json

import pytest
from rich.console import Console

from taskscope import show

COLUMNS = (
    show.Column("job", cut=True),
    show.Column("labels", from_width=100),
    show.Column("runs", right=True),
)


def terminal(width: int = 80) -> Console:
    return Console(
        file=io.StringIO(), force_terminal=True, width=width, highlight=False, markup=False, color_system=None
    )


def pipe() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, highlight=False, markup=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_without_a_terminal_a_table_is_lines_of_values_separated_by_tabs():
    console = pipe()
    show.print_table(console, COLUMNS, [["billing", "a=1", "12"]])
    assert printed(console) == "job\tlabels\truns\nbilling\ta=1\t12\n"


def test_without_a_terminal_a_long_value_is_neither_cut_nor_wrapped():
    console, name = pipe(), "x" * 500
    show.print_table(console, COLUMNS, [[name, "", "1"]])
    assert printed(console).splitlines()[1] == f"{name}\t\t1"


def test_a_value_cannot_add_a_line_or_a_column():
    console = pipe()
    show.print_table(console, COLUMNS, [["two\nlines\tand a tab", "", "1"]])
    assert printed(console).splitlines()[1] == "two lines and a tab\t\t1"


@pytest.mark.parametrize("console", [terminal(), pipe()], ids=["terminal", "pipe"])
def test_a_job_name_cannot_command_the_terminal(console: Console):
    show.print_table(console, COLUMNS, [["\x1b[2Jgone\x07\x9b31m", "", "1"]])
    assert "gone" in printed(console)
    assert not set(printed(console)) & {"\x1b", "\x07", "\x9b"}


def test_a_job_name_is_not_taken_for_markup():
    console = terminal()
    show.print_table(console, COLUMNS, [["[bold]loud[/bold]", "", "1"]])
    assert "[bold]loud[/bold]" in printed(console)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal_and_numbers_stay_whole(width: int):
    console = terminal(width)
    show.print_table(console, COLUMNS, [["a very long name " * 20, "l", "123456"]])
    lines = printed(console).splitlines()
    assert max(map(len, lines)) <= width
    assert lines[-1].rstrip().endswith("123456")
    assert "…" in lines[-1]


def test_a_column_for_wide_terminals_is_left_out_on_narrow_ones():
    narrow, wide = terminal(80), terminal(120)
    for console in (narrow, wide):
        show.print_table(console, COLUMNS, [["j", "x=1", "1"]])
    assert "labels" not in printed(narrow)
    assert "labels" in printed(wide)


def test_a_listing_as_json_is_one_list_of_objects():
    console = pipe()
    show.print_listing(console, COLUMNS, [["b", "", "1"]], as_json=True)
    assert json.loads(printed(console)) == [{"job": "b", "labels": "", "runs": "1"}]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0, "0 µs"),
        (0.0004, "400 µs"),
        (0.00099951, "1 ms"),
        (0.34, "340 ms"),
        (0.9996, "1.0 s"),
        (2.5, "2.5 s"),
        (59.96, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (5000, "1 h 23 min"),
        (180_000, "2 d 2 h"),
    ],
)
def test_a_duration_is_told_in_the_units_that_matter(seconds: float | None, text: str):
    assert show.span(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(512, "512 B"), (1536, "1.5 KiB"), (3 * 2**30, "3.0 GiB"), (2**41, "2.0 TiB")]
)
def test_a_size_is_told_in_the_unit_that_matters(count: int, text: str):
    assert show.size(count) == text


def test_an_unknown_point_in_time_is_empty():
    assert show.moment(None) == ""
