"""One function for each error: its name is the true name of the error."""

import asyncio
import concurrent.futures
import random
import sys
import threading
import urllib.request

from shop import store
from shop.billing.client import Client as Billing
from shop.errors import OrderError, own_class
from shop.shipping.client import Client as Shipping


def plain(n):
    raise ValueError("order %d is bad" % n)


def plain_elsewhere(n):
    return check(n)


def check(n):
    raise ValueError("order %d is bad" % n)


def missing_key(n):
    return store.lookup({}, "item-%d" % n)


def missing_key_in_comprehension(n):
    return [{}[item] for item in ("a%d" % n, "b")]


def missing_key_in_dict_comprehension(n):
    return {item: {}[item] for item in ("a%d" % n, "b")}


def missing_key_in_generator(n):
    return sum({}[item] for item in ("a%d" % n, "b"))


def missing_key_in_lambda(n):
    return sorted(["a%d" % n, "b"], key=lambda item: {}[item])


def bad_json(n):
    return store.parse("{" * (n % 5 + 1))


def bad_json_here(n):
    import json

    return json.loads("[" * (n % 5 + 1))


def no_file(n):
    return store.read("/nowhere/%d" % n)


def no_file_after_retries(n):
    return store.fetch("/nowhere/%d" % n)


def chained(n):
    try:
        store.lookup({}, n)
    except KeyError as error:
        raise OrderError("order %d cannot be placed" % n) from error


def chained_of_another_cause(n):
    try:
        store.parse("")
    except ValueError as error:
        raise OrderError("order %d cannot be placed" % n) from error


def wrapped(function, n):
    try:
        function(n)
    except Exception as error:
        raise OrderError("step failed") from error


def wrapped_billing(n):
    wrapped(Billing().get, n)


def wrapped_shipping(n):
    wrapped(Shipping().get, n)


def in_context(n):
    try:
        store.lookup({}, n)
    except KeyError:
        return None + n


def billing(n):
    return Billing().get(n)


def shipping(n):
    return Shipping().get(n)


def recursion(n):
    # the depth at which it begins, and so the function that goes too far, differs
    return store.pong(0) if n % 2 else store.ping(0)


def local_class(n):
    raise own_class()("number %d" % n)


def generated_code(n):
    return store.render("x%d" % n)


def nested(n):
    def inner():
        return None.attribute

    return inner()


def misspelt(n):
    prices = {}
    return pricse


def no_module(n):
    sys.modules.pop("shop.broken", None)
    import shop.broken


def in_thread_pool(n):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(store.lookup, {}, n).result()


def in_process_pool(n):
    with concurrent.futures.ProcessPoolExecutor(1) as pool:
        return pool.submit(store.lookup, {}, n).result()


def refused(n):
    return urllib.request.urlopen("http://127.0.0.1:1/%d" % n)


def socket_timeout(n):
    return store.listen()


async def slow():
    await asyncio.sleep(10)


async def waiting(n):
    await asyncio.wait_for(slow(), 0.01)


def async_timeout(n):
    return asyncio.new_event_loop().run_until_complete(waiting(n))


async def gathering(n):
    await asyncio.gather(failing(n), asyncio.sleep(0))


async def failing(n):
    await asyncio.sleep(0)
    raise OrderError("in a coroutine: %d" % n)


def async_failure(n):
    return asyncio.new_event_loop().run_until_complete(gathering(n))


def out_of_memory(n):
    return (exhaust_a if n % 2 else exhaust_b)()


def exhaust_a():
    raise MemoryError


def exhaust_b():
    return exhaust_a()


def interrupted(n):
    return (stop_a if n % 2 else plain_stop)()


def stop_a():
    raise SystemExit(1)


def plain_stop():
    raise SystemExit(2)


def group(n):
    errors = []
    for function in (billing, missing_key):
        try:
            function(n)
        except Exception as error:
            errors.append(error)
    raise ExceptionGroup("some failed", errors)  # of Python 3.11


def retries_of_varying_number(n):
    try:
        plain(n)
    except ValueError:
        for attempt in range(n % 3):
            try:
                check(n)
            except ValueError:
                pass
        again(n % 3)


def again(times):
    try:
        raise ConnectionError("attempt %d" % times)
    except ConnectionError:
        if times:
            again(times - 1)
        else:
            raise
