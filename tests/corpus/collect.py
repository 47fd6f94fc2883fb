"""Runs the errors of `project` and prints what the interpreter tells of them; run by every Python there is.

python collect.py DIRECTORY-THAT-HOLDS-shop
"""

import json
import sys
import traceback

sys.path.insert(0, sys.argv[1])
LATER = {"group": (3, 11)}


def told(function, n):
    try:
        function(n)
    except BaseException as error:  # noqa: BLE001 - that is what is collected
        kind = type(error)
        frames = error.__traceback__.tb_next
        module = "" if kind.__module__ in ("builtins", "__main__") else kind.__module__ + "."
        return {
            "kind": module + kind.__qualname__,
            "message": str(error),
            "stack": "".join(traceback.format_exception(kind, error, frames)),
        }


def main():
    from shop import jobs

    names = [name for name, thing in vars(jobs).items() if getattr(thing, "__module__", "") == "shop.jobs"]
    for name in names:
        if name in HELPERS or sys.version_info < LATER.get(name, (3,)):
            continue
        for n in (101, 4200):
            print(json.dumps(dict(told(getattr(jobs, name), n), name=name)))


sys.setrecursionlimit(150)
HELPERS = {
    "check",
    "wrapped",
    "slow",
    "waiting",
    "gathering",
    "failing",
    "exhaust_a",
    "exhaust_b",
    "stop_a",
    "plain_stop",
    "again",
}

if __name__ == "__main__":
    main()
