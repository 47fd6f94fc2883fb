"""A Prometheus that remembers a whole day and goes on scraping."""

import subprocess
from collections.abc import Iterable
from typing import Any

import yaml

from services.process import program
from services.prometheus import Prometheus

_EVERY = "5s"


class DayPrometheus(Prometheus):
    """Prometheus with a past."""

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

    def follow(self, target: str, instance: str, **more: Any) -> None:
        """Start, and scrape `target` as the `instance` that it was in the past; `more` is configuration."""
        scrape = {
            "job_name": "taskscope",
            "static_configs": [{"targets": [target]}],
            "relabel_configs": [{"target_label": "instance", "replacement": instance}],
        }
        often = {"scrape_interval": _EVERY, "scrape_timeout": _EVERY}
        settings = {"global": often, "scrape_configs": [scrape], **more}
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(settings))
        self.start()
