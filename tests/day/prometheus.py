"""A Prometheus that remembers a whole day, goes on scraping, and evaluates rules when told to."""

import os
import signal
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from services.process import program, until
from services.prometheus import Prometheus

_SCRAPE, _EVALUATE = "5s", "1s"


class DayPrometheus(Prometheus):
    """Prometheus with a past."""

    def __init__(self) -> None:
        super().__init__()
        self._settings: dict[str, Any] = {}

    def remember(self, pages: Iterable[bytes]) -> None:
        """Put pages, whose samples have times, into the data of a server that does not run."""
        promtool = program("promtool", "promtool (of Prometheus)")
        file = self.directory / "day.om"
        with file.open("wb") as out:
            out.writelines(pages)
            out.write(b"# EOF\n")
        create = [
            promtool,
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            "--quiet",
            "--max-block-duration=48h",
        ]
        done = subprocess.run([*create, file, self.directory / "data"], capture_output=True, timeout=100)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        file.unlink()

    def follow(self, targets: Mapping[str, str]) -> None:
        """Start, and scrape these: addresses by the `instance` that they were in the past."""
        scrape = {
            "job_name": "taskscope",
            "static_configs": [
                {"targets": [address], "labels": {"instance": instance}}
                for instance, address in targets.items()
            ],
        }
        often = {
            "scrape_interval": _SCRAPE,
            "scrape_timeout": _SCRAPE,
            "evaluation_interval": _EVALUATE,
        }
        self._settings = {"global": often, "scrape_configs": [scrape]}
        self._write()
        self.start()

    def evaluate(self, files: Iterable[Path]) -> None:
        """Evaluate the rules of these files, each every second; returns when each was evaluated at least twice."""
        self._settings["rule_files"] = [self._hastened(file).name for file in files]
        self._write()
        os.kill(self.pid, signal.SIGHUP)
        for _ in range(2):  # records take from records of other groups
            since = datetime.now(UTC).isoformat()
            until(lambda since=since: self._evaluated(since), what="an evaluation of every rule")

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with how it went and the alerts that it gives."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]

    def _hastened(self, file: Path) -> Path:
        rules = yaml.safe_load(file.read_text(encoding="utf-8"))
        for group in rules["groups"]:
            group.pop("interval", None)
        written = self.directory / f"rules-{file.name}"
        written.write_text(yaml.safe_dump(rules))
        return written

    def _evaluated(self, since: str) -> bool:
        groups = self.get("rules")["groups"]
        files = {Path(group["file"]).name for group in groups}
        return files == set(self._settings["rule_files"]) and all(
            group["lastEvaluation"] > since for group in groups
        )

    def _write(self) -> None:
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(self._settings))
