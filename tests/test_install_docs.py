"""What README.md and docs/install.md tell people to type and where they lead."""

import re
import shlex
from pathlib import Path

import pytest

from taskscope.cli import commands
from taskscope.configure import load

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "install.md"]


def typed(page: Path) -> list[list[str]]:
    """The commands of taskscope in the code of a page, without prompt and comment."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if "taskscope " in line]
    return [line[1:] for line in words if line and Path(line[0]).name == "taskscope"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_can_be_typed(page: Path) -> None:
    for name, *arguments in (lines := [line for line in typed(page) if line[0] in commands.commands]):
        commands.commands[name].make_context(name, arguments).close()
    assert any(line[0] == "assets" for line in lines)
    assert any(line[:2] == ["demo", "--stack"] for line in lines)


def test_the_settings_of_one_machine_are_accepted_and_lie_where_its_unit_looks(tmp_path: Path) -> None:
    found = re.search(r"^cat > (\S+) <<'END'\n(.*?)^END$", PAGES[1].read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    (tmp_path / "taskscope.yaml").write_text(found[2])

    settings = load(path=tmp_path / "taskscope.yaml", environ={})

    assert [source.system for source in settings.schedulers.values()] == ["apscheduler"]
    unit = (ROOT / "examples/systemd/taskscope.service").read_text()
    assert f"taskscope serve --config {found[1]}\n" in unit


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", page.read_text()):
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if fragment:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert fragment in {
                re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
            }
