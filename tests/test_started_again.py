"""A program with APScheduler whose work is started again: what is missing, and what failed."""

import json
from collections.abc import Iterator
from urllib.request import Request, urlopen

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

import taskscope
from services.process import until
from taskscope.backfill import backfills

ORDERS = {"1": "north", "2": "north", "3": "south"}


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Iterator[BackgroundScheduler]:
    monkeypatch.setattr(backfills, "_functions", {})
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.start()
    yield scheduler
    scheduler.shutdown()


def asked(exporter: taskscope.Exporter, path: str, method: str = "GET") -> dict:
    with urlopen(Request(f"{exporter.url}{path}", method=method), timeout=10) as answer:
        return json.loads(answer.read())


def test_what_is_missing_and_then_what_failed_runs_again_for_an_entity_and_for_all(scheduler, tmp_path):
    packages, carrier = {"2": "package"}, {"answers": False}

    def enrich(order):
        taskscope.describe_run(entity=ORDERS[order], key=order)
        if not carrier["answers"]:
            raise ConnectionError("carrier.example does not answer")
        packages[order] = "package"

    @taskscope.on_backfill("enrich", scheduler="shop")
    def again(entity, force):
        wanted = [order for order, shop in ORDERS.items() if entity in (None, shop)]
        missing = [order for order in wanted if force or order not in packages]
        for order in missing:
            scheduler.add_job(enrich, args=[order])
        return len(missing)

    def statuses(exporter, entity):
        rows = asked(exporter, "/api/entity/")["data"]
        return next((row["statuses"] for row in rows if row["entity"] == entity), {})

    rule = {"match": "*enrich", "name": "enrich"}
    history = f"sqlite:///{tmp_path}/runs.db"
    with taskscope.Exporter(scheduler, names=["shop"], history=history, port=0, jobs=[rule]) as exporter:
        until(lambda: "shop" in exporter.live.schedulers)
        path = "/api/job/shop/enrich/backfill"

        assert asked(exporter, f"{path}?entity=north", "POST")["result"] == "1"
        until(lambda: statuses(exporter, "north") == {"failed": 1})
        assert statuses(exporter, "south") == {}

        carrier["answers"] = True
        assert asked(exporter, f"{path}?force=true", "POST")["result"] == "3"
        until(lambda: statuses(exporter, "north") == {"failed": 1, "success": 2})
        until(lambda: statuses(exporter, "south") == {"success": 1})
        assert asked(exporter, "/api/job/shop/enrich")["last_backfill"]["force"] is True
        assert packages.keys() == ORDERS.keys()
