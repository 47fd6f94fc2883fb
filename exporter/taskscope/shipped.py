"""Where the files lie that are shipped beside the code: dashboards, rules, configuration, runbook."""

from pathlib import Path

URLS = {
    "grafana": "http://localhost:3000",
    "taskscope": "http://localhost:9750",
    "prometheus": "http://localhost:9090",
    "alertmanager": "http://localhost:9093",
}
"""The addresses that shipped files name; `taskscope assets` writes the user's in their place."""


def shipped(path: str) -> Path:
    """A file or folder, by its path in the checkout: inside the installed package, else in the checkout."""
    package = Path(__file__).parent
    installed = package / "share"
    return (installed if installed.is_dir() else package.parents[1]) / path
