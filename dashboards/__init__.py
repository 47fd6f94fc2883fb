"""The pages of Grafana: one file per page, which `python -m dashboards` builds into json/."""
