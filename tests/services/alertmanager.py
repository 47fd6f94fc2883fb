"""A private Alertmanager with the configuration that a test gives it, and amtool."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
import yaml

from services.process import Server, answers, program


class Alertmanager(Server):
    """Alertmanager on loopback, without a cluster."""

    def __init__(self) -> None:
        self._alertmanager = program("prometheus-alertmanager", "Alertmanager")
        super().__init__("alertmanager")
        self.base = f"http://127.0.0.1:{self.port}"

    def configure(self, settings: Mapping[str, Any]) -> str:
        """Run with these settings (what `alertmanager.yml` holds); returns the base URL when it answers."""
        (self.directory / "alertmanager.yml").write_text(yaml.safe_dump(dict(settings)))
        self.start()
        return self.base

    def command(self) -> list[str]:
        return [
            self._alertmanager,
            "--config.file=alertmanager.yml",
            "--storage.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--web.external-url={self.base}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]

    def ready(self) -> bool:
        return answers(f"{self.base}/-/ready")

    def tell(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        """Say that these alerts fire, or with a past `endsAt` that they do not: `{"labels": {…}, …}`."""
        body = json.dumps(list(alerts)).encode()
        request = Request(f"{self.base}/api/v2/alerts", body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=10) as answer:
            assert answer.status == 200

    def alerts(self, **only: Any) -> list[dict[str, Any]]:
        """The alerts it knows, each with `labels`, `receivers` and `status` (`state`, `inhibitedBy` …)."""
        found: list[dict[str, Any]] = self.get("alerts", **only)
        return found

    def get(self, path: str, **parameters: Any) -> Any:
        """An answer of Alertmanager's API."""
        with urlopen(f"{self.base}/api/v2/{path}?{urlencode(parameters, doseq=True)}", timeout=10) as answer:
            return json.load(answer)


@pytest.fixture
def alertmanager() -> Iterator[Alertmanager]:
    """An Alertmanager of the test's own; it runs from `configure(settings)` on."""
    server = Alertmanager()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def amtool() -> str:
    """The path of amtool."""
    return program("amtool", "amtool (of Alertmanager)")
