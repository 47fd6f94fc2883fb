"""A shop whose orders get their package number, one run each; what is missing is started again when somebody asks.

python examples/backfill.py
curl -X POST 'http://127.0.0.1:9750/api/job/shop/enrich_order/backfill?entity=north'
curl -X POST 'http://127.0.0.1:9750/api/job/shop/enrich_order/backfill?force=true'

or, in a browser, http://127.0.0.1:9750/backfill?scheduler=shop&job=enrich_order
"""

import random

from apscheduler.schedulers.blocking import BlockingScheduler

import taskscope

ORDERS = {f"order-{number}": random.choice(("north", "south")) for number in range(20)}
PACKAGES: dict[str, str] = {}

scheduler = BlockingScheduler()


def enrich_order(order: str) -> None:
    """Ask the carrier for the number of a package; sometimes there is none yet."""
    taskscope.describe_run(entity=ORDERS[order], key=order)
    if random.random() < 0.7:
        PACKAGES[order] = f"package-{order}"
        taskscope.describe_run(result=PACKAGES[order])


@taskscope.on_backfill("enrich_order")
def enrich_again(entity: str | None, force: bool) -> str:
    """Only the program knows which orders lack a number, and which must never be asked for."""
    wanted = [order for order, shop in ORDERS.items() if entity in (None, shop)]
    missing = [order for order in wanted if force or order not in PACKAGES]
    for order in missing:
        scheduler.add_job(enrich_order, args=[order])
    return f"{len(missing)} of {len(wanted)} orders are asked for"


if __name__ == "__main__":
    rule = {"match": "*:enrich_order", "name": "enrich_order"}
    taskscope.watch(scheduler, service="shop", jobs=[rule])
    enrich_again(None, force=False)
    try:
        scheduler.start()
    except KeyboardInterrupt:
        scheduler.shutdown()
