"""A private Prometheus that scrapes what a test tells it, and promtool."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from services.process import Server, answers, program


class Prometheus(Server):
    """Prometheus on loopback, with exemplar storage."""

    def __init__(self) -> None:
        self._prometheus = program("prometheus", "Prometheus")
        super().__init__("prometheus")
        self.base = f"http://127.0.0.1:{self.port}"

    def scrape(
        self,
        targets: Sequence[str],
        scrape_interval: float = 0.5,
        rule_files: Sequence[Path] = (),
        alertmanagers: Sequence[str] = (),
        **job: Any,
    ) -> str:
        """Scrape these `host:port` every `scrape_interval` seconds; returns the base URL when it answers.

        The rules are evaluated as often, and their alerts go to the `host:port` of `alertmanagers`.
        `job` goes into the scrape configuration: `metrics_path`, `bearer_token`, `scheme` …; its name is `test`.
        The first scrape comes after 5 seconds: so long Prometheus waits for targets, whatever one sets.
        """
        every = f"{round(scrape_interval * 1000)}ms"
        settings = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "scrape_configs": [{"job_name": "test", "static_configs": [{"targets": list(targets)}], **job}],
            "rule_files": [str(path) for path in rule_files],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": list(alertmanagers)}]}]},
        }
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(settings))
        self.start()
        return self.base

    def command(self) -> list[str]:
        return [
            self._prometheus,
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--enable-feature=exemplar-storage",
            "--rules.alert.resend-delay=1s",  # what fires before Alertmanager is found is else not told for a minute
            "--log.level=warn",
        ]

    def ready(self) -> bool:
        return answers(f"{self.base}/-/ready")

    def query(self, promql: str, **parameters: Any) -> list[dict[str, Any]]:
        """What an instant query finds: a list of `{"metric": {…}, "value": [time, "number"]}`."""
        result: list[dict[str, Any]] = self.get("query", query=promql, **parameters)["result"]
        return result

    def value(self, promql: str) -> float | None:
        """The number of an instant query that finds one series; None while it finds none."""
        found = self.query(promql)
        assert len(found) <= 1, f"{promql} finds {len(found)} series"
        return float(found[0]["value"][1]) if found else None

    def query_range(self, promql: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """What a range query finds: a list of `{"metric": {…}, "values": [[time, "number"], …]}`."""
        found = self.get("query_range", query=promql, start=start, end=end, step=step)
        result: list[dict[str, Any]] = found["result"]
        return result

    def get(self, path: str, **parameters: Any) -> Any:
        """The `data` of an answer of Prometheus' HTTP API."""
        with urlopen(f"{self.base}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            return json.load(answer)["data"]


@pytest.fixture
def prometheus() -> Iterator[Prometheus]:
    """A Prometheus of the test's own; it runs from `scrape(targets)` on."""
    server = Prometheus()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool."""
    return program("promtool", "promtool (of Prometheus)")
