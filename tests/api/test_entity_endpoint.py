"""`/api/entity/` and statistics by entity and queue: what runs were about."""

import pytest
from stored import BEGIN

from taskscope.events import Fact
from taskscope.facts import row_of
from taskscope.identity import run_id
from taskscope.settings import Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.sql import SqlStore

SPAN = {"from": BEGIN - 60, "to": BEGIN + 60}

TOLD = {  # by entity and scheduler, how its runs ended, in order
    ("shop-1", "main"): ["success", "failed", "success"],
    ("shop-2", "main"): ["success", "failed"],
    ("shop-2", "other"): ["success"],
    ("shop-3", "main"): ["queued", "started", "unknown"],
    ("", "main"): ["failed"] * 3,
}


@pytest.fixture(params=["sqlite", "postgresql"])
def client(request, tmp_path, serve):
    url = (
        f"sqlite:///{tmp_path}/r.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    )
    settings = Settings(history=url)
    store = SqlStore(url, settings)
    store.open()
    store.apply(sorted(_rows(), key=lambda row: row.id))
    queries = Queries(url, settings)
    yield serve(settings, queries=queries)
    queries.close()
    store.close()


def _rows():
    for (entity, scheduler), statuses in TOLD.items():
        for n, status in enumerate(statuses):
            at = BEGIN + n
            fact = Fact(
                scheduler=scheduler,
                native=f"{entity}-{n}",
                status=status,
                at=float(at),
                anchor=float(at),
                job="sync" if n % 2 else "import",
                entity=entity,
                queue="bulk" if n % 2 else "mail",
            )
            yield row_of(fact, run_id(scheduler, fact.native, 0, at * 1000))


def test_every_entity_is_told_with_its_counts_and_whether_it_is_well(client):
    answer = client.ask("/api/entity/", SPAN).json

    assert (answer["total"], answer["unhealthy"]) == (4, 2)
    rows = {(row["entity"], row["scheduler"]): row for row in answer["data"]}
    assert list(rows) == sorted(key for key in TOLD if key[0])
    assert {key: row["healthy"] for key, row in rows.items()} == {
        ("shop-1", "main"): True,
        ("shop-2", "main"): False,
        ("shop-2", "other"): True,
        ("shop-3", "main"): False,
    }
    three = rows["shop-3", "main"]
    assert [three[name] for name in ("pending", "processing", "completed", "failed")] == [1, 1, 0, 1]


def test_entities_are_filtered_and_paged(client):
    def names(**query):
        return [row["entity"] for row in client.ask("/api/entity/", SPAN | query).json["data"]]

    assert names(unhealthy="true") == ["shop-2", "shop-3"]
    assert names(scheduler="other") == ["shop-2"]
    assert names(task="sync") == ["shop-1", "shop-2", "shop-3"]
    assert names(limit=1, offset=2) == ["shop-2"]
    assert names(**{"from": BEGIN + 30, "to": BEGIN + 60}) == []


def test_statistics_are_told_of_one_queue(client):
    def statuses(**query):
        return client.ask("/api/task/stats", SPAN | query).json["overall"]["statuses"]

    assert statuses(queue="bulk") == {"started": 1, "failed": 3}
    assert statuses(queue=["bulk", "mail"], entity="shop-1") == {"success": 2, "failed": 1}
    assert statuses(queue="mail", entity="shop-2", scheduler="main") == {"success": 1}
    assert statuses(queue="nobody", entity="shop-1") == {}


def test_statistics_are_told_of_one_entity(client):
    def statuses(**query):
        return client.ask("/api/task/stats", SPAN | query).json["overall"]["statuses"]

    assert statuses(entity="shop-1") == {"success": 2, "failed": 1}
    assert statuses(entity=["shop-1", "shop-2"], scheduler="main") == {"success": 3, "failed": 2}
    assert statuses(entity="nobody") == {}
    assert sum(statuses().values()) == sum(map(len, TOLD.values()))
