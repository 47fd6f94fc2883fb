"""Schedulers that live in the loop of another framework, each in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ledger import NEAR, Ledger

PROGRAM = Path(__file__).parent.parent / "programs" / "looping.py"


@pytest.mark.parametrize("kind", ["gevent", "gevent-patched", "tornado", "twisted"])
def test_runs_in_another_loop_are_told_as_they_were(kind: str, ledger: Ledger, tmp_path: Path):
    command = [sys.executable, "-W", "error", PROGRAM, kind, ledger.path, f"sqlite:///{tmp_path}/runs.db"]

    program = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (program.returncode, program.stderr) == (0, "")
    told = json.loads(program.stdout)
    begins = {line["run"]: line for line in ledger.lines("begin")}
    ends = {line["run"]: line for line in ledger.lines("end")}
    assert told["runs"].keys() == begins.keys() == ends.keys()
    assert len(begins) == 8
    for run, known in told["runs"].items():
        took = ends[run]["at"] - begins[run]["at"]
        assert known["job"] == begins[run]["job"]
        assert -0.002 <= begins[run]["at"] - known["started"] < NEAR
        assert -0.002 <= known["duration"] - took < NEAR
    assert {known["status"] for known in told["runs"].values()} == {"success", "failed"}
    broken = next(known for known in told["runs"].values() if known["job"] == "broken")
    assert broken["exception"] == "ValueError"
    assert counted(told["page"], "success") == 7
    assert counted(told["page"], "failed") == 1
    assert (told["degraded"], told["left"]) == ({}, [])


def counted(page: str, status: str) -> float:
    lines = [line for line in page.splitlines() if line.startswith("taskscope_runs_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines if f'status="{status}"' in line)
