"""docs/ingest.md: every command of it is run, and answered as it says."""

import re
import subprocess
from pathlib import Path

import pytest

from services.process import program, until
from taskscope import Exporter

PAGE = (Path(__file__).parent.parent / "docs" / "ingest.md").read_text()
COMMANDS = re.findall(r"```bash\n(.*?)^(\{.*?)\n```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def exporter():
    with Exporter(history=None, port=0) as exporter:
        until(lambda: exporter.pipeline.opened)
        yield exporter


@pytest.mark.parametrize(("command", "answer"), COMMANDS, ids=range(len(COMMANDS)))
def test_a_command_is_answered_as_the_page_says(exporter, command, answer):
    program("curl", "curl")
    here = command.replace("http://127.0.0.1:9750", exporter.url)

    said = subprocess.run(["bash", "-c", here], check=True, capture_output=True, text=True, timeout=30)

    assert here != command
    assert said.stdout == answer


def test_no_command_is_left_out():
    assert len(COMMANDS) == PAGE.count("```bash") >= 8
    assert PAGE.count("curl -s ") == len(COMMANDS)
