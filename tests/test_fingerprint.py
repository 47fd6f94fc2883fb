"""Formats of stack traces and messages that differ without the error being another one."""

import pytest

from taskscope.fingerprint import signature
from taskscope.groups import Grouping, other
from taskscope.masks import masked
from taskscope.settings import ErrorRule, Errors, Settings

HEAD = "Traceback (most recent call last):\n"
KEY = ("main", "nightly")


def frames(*places, kind="ValueError", message="bad", lines=("x()",)):
    """A traceback through (file, function)."""
    shown = "".join(
        f'  File "{file}", line {n}, in {function}\n' + "".join(f"    {line}\n" for line in lines)
        for n, (file, function) in enumerate(places, 3)
    )
    return f"{HEAD}{shown}{kind}: {message}\n"


def of(stack, kind="ValueError", message="bad"):
    return signature(kind, message, stack)


PLAIN = of(frames(("/app/shop/jobs.py", "nightly"), ("/app/shop/db/store.py", "load")))
SAME = {
    "another directory": frames(("/home/me/shop/jobs.py", "nightly"), ("/home/me/shop/db/store.py", "load")),
    "a relative one": frames(("shop/jobs.py", "nightly"), ("shop/db/store.py", "load")),
    "Windows": frames((r"C:\code\shop\jobs.py", "nightly"), (r"C:\code\shop\db\store.py", "load")),
    "compiled": frames(("/app/shop/jobs.pyc", "nightly"), ("/app/shop/db/store.pyx", "shop.db.store.load")),
    "installed": frames(
        ("/v/lib/python3.12/site-packages/shop/jobs.py", "nightly"),
        ("/v/lib/python3.12/site-packages/shop/db/store.py", "load"),
        ("/v/lib/python3.12/site-packages/psycopg/connection.py", "connect"),
    ),
    "run by Celery": frames(
        ("/v/lib/python3.9/site-packages/celery/app/trace.py", "trace_task"),
        ("/v/lib/python3.9/site-packages/celery/app/trace.py", "__protected_call__"),
        ("/v/lib/python3.9/site-packages/shop/jobs.py", "nightly"),
        ("/v/lib/python3.9/site-packages/shop/db/store.py", "load"),
    ),
    "a library below": frames(
        ("/app/shop/jobs.py", "nightly"),
        ("/app/shop/db/store.py", "load"),
        ("/usr/lib/python3.11/json/__init__.py", "loads"),
        ("<frozen codecs>", "decode"),
        ("<string>", "<module>"),
    ),
    "a comprehension before 3.12": frames(
        ("/app/shop/jobs.py", "nightly"),
        ("/app/shop/db/store.py", "load"),
        ("/app/shop/db/store.py", "<listcomp>"),
    ),
    "a lambda": frames(
        ("/app/shop/jobs.py", "nightly"),
        ("/app/shop/db/store.py", "load"),
        ("/app/shop/db/store.py", "<lambda>"),
    ),
    "carets of 3.11": frames(
        ("/app/shop/jobs.py", "nightly"),
        ("/app/shop/db/store.py", "load"),
        lines=("value = prices[name]", "        ~~~~~~^^^^^^"),
    ),
    "several lines of 3.13": frames(
        ("/app/shop/jobs.py", "nightly"),
        ("/app/shop/db/store.py", "load"),
        lines=("call(", "...<2 lines>...", ")", "^^"),
    ),
    "no source": frames(("/app/shop/jobs.py", "nightly"), ("/app/shop/db/store.py", "load"), lines=()),
    "notes of 3.11": frames(
        ("/app/shop/jobs.py", "nightly"), ("/app/shop/db/store.py", "load"), message="bad\nadded by add_note"
    ),
    "a traceback in the message": frames(
        ("/app/shop/jobs.py", "nightly"),
        ("/app/shop/db/store.py", "load"),
        message=f'{HEAD}  File "/far/away.py", line 1, in there\nKeyError: 1',
    ),
    "colours of 3.13": frames(
        ("/app/shop/jobs.py", "nightly"), ("/app/shop/db/store.py", "load"), lines=("\x1b[31mx()\x1b[0m",)
    ),
    "cut in the middle": frames(
        ("/app/shop/jobs.py", "nightly"), ("/app/shop/db/store.py", "load"), lines=("… 500 characters cut …",)
    ),
}


@pytest.mark.parametrize("stack", SAME.values(), ids=SAME)
def test_the_same_error_in_another_form_is_the_same(stack):
    assert of(stack) == PLAIN
    assert PLAIN.places == ("db.store:load",)


OTHERS = {
    "another function": frames(("/app/shop/jobs.py", "nightly"), ("/app/shop/db/store.py", "save")),
    "another module": frames(("/app/shop/jobs.py", "nightly"), ("/app/shop/db/cache.py", "load")),
    "another package": frames(("/app/shop/jobs.py", "nightly"), ("/app/shop/web/store.py", "load")),
    "a level higher": frames(("/app/shop/jobs.py", "nightly"), ("/app/db/store.py", "load")),
}


@pytest.mark.parametrize("stack", OTHERS.values(), ids=OTHERS)
def test_another_place_is_another_error(stack):
    assert of(stack) != PLAIN


def test_another_class_is_another_error():
    stack = frames(("/app/shop/jobs.py", "nightly"), ("/app/shop/db/store.py", "load"), kind="KeyError")

    assert of(stack, kind="KeyError") != PLAIN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("socket.timeout", "TimeoutError"),
        ("asyncio.exceptions.TimeoutError", "TimeoutError"),
        ("concurrent.futures._base.TimeoutError", "TimeoutError"),
        ("__main__.Mine", "Mine"),
        ("make.<locals>.Mine", "make.Mine"),
        ("exceptiongroup.ExceptionGroup", "ExceptionGroup"),
    ],
)
def test_a_class_has_one_name_in_all_versions(old, new):
    assert signature(old, "", "").kinds == signature(new, "", "").kinds == (new,)


def test_what_strikes_anywhere_is_known_by_where_the_run_began():
    here = frames(("/app/jobs.py", "nightly"), ("/app/a.py", "one"), kind="SoftTimeLimitExceeded")
    there = frames(("/app/jobs.py", "nightly"), ("/app/b.py", "two"), kind="SoftTimeLimitExceeded")

    kind = "billiard.exceptions.SoftTimeLimitExceeded"
    assert of(here, kind=kind) == of(there, kind=kind)


def test_a_group_of_exceptions_is_known_by_all_of_them_in_any_order():
    def group(*subs):
        text = "  + Exception Group Traceback (most recent call last):\n"
        text += '  |   File "/app/jobs.py", line 2, in nightly\n'
        text += f"  |     raise\n  | ExceptionGroup: some ({len(subs)} sub-exceptions)\n"
        text += "  +-+---------------- 1 ----------------\n"
        return text + "    +---------------- 2 ----------------\n".join(
            "".join(f"    | {line}\n" for line in sub.splitlines()) for sub in subs
        )

    one = frames(("/app/a.py", "one"), kind="KeyError")
    two = frames(("/app/b.py", "two"), kind="OSError")

    found = of(group(one, two), kind="ExceptionGroup")
    assert found == of(group(two, one), kind="ExceptionGroup")
    assert found.kinds == ("ExceptionGroup", "KeyError", "OSError")
    assert found.places == ("jobs:nightly", "a:one", "b:two")
    assert found != of(group(one, one), kind="ExceptionGroup")


JAVA = """java.lang.IllegalStateException: order 17
\tat com.acme.Orders{0}.place(Orders.java:{1})
\tat org.quartz.core.JobRunShell.run(JobRunShell.java:202)
Caused by: java.sql.SQLException: no connection
com.acme.Not: a line of the message
\tat com.mysql.jdbc.Driver.connect(Driver.java:1)
\t... 12 more
"""


@pytest.mark.parametrize(
    "generated", ["$$EnhancerBySpringCGLIB$$1a2b3c", "$$Lambda$14/0x0000000800b8", "$$Lambda/0x1f", "$1"]
)
def test_generated_java_classes_do_not_matter(generated):
    stack, plain = JAVA.format(generated, 3), JAVA.format("", 99)

    assert of(stack, kind="", message="") == of(plain, kind="", message="")
    assert of(plain, kind="", message="").places == ("com.acme.Orders:place",)
    assert of(plain, kind="").kinds == ("java.lang.IllegalStateException", "java.sql.SQLException")


def test_a_log_line_in_front_of_a_java_trace_does_not_matter():
    plain = JAVA.format("", 1)

    assert of(f"2026-11-21 ERROR o.q.c.JobRunShell - Job a.b threw:\n{plain}", kind="") == of(plain, kind="")


@pytest.mark.parametrize(
    ("one", "other_one"),
    [
        ("order 17 not found", "order 4211 not found"),
        ("no such key 'a b'", 'no such key "c"'),
        ("cannot read /var/lib/a.csv", "cannot read ./b/c-2.csv"),
        ("cannot read C:\\a\\b.csv", "cannot read D:\\c.csv"),
        (
            "user 8a7f3f70-1d2e-4c5b-9a8b-112233445566 unknown",
            "user 00000000-1d2e-4c5b-9a8b-112233445566 unknown",
        ),
        ("object at 0x7f3a12 failed", "object at 0xdeadbeef failed"),
        ("commit 3f2a9c81d0 is missing", "commit 99aa01bb22cc33 is missing"),
        ("failed at 2026-11-21T02:00:01.123Z", "failed at 2025-01-01 13:59:00,5 +0100"),
        ("refused by 10.0.0.1:5432", "refused by 192.168.7.9:80"),
        ("refused by fe80::1ff:fe23:4567:890a", "refused by ::1"),
        ("refused by db-1.internal:5432", "refused by cache:6379"),
        ("GET https://a.example/x?y=1 failed", "GET http://b.example:8080/z failed"),
        ("no mail to a.b@example.org: unknown", "no mail to c@d.example: unknown"),
        ("took 1.5e3 ms: timed out", "took 20 ms: timed out"),
        ("read 7 rows\nread 9 rows\nfatal: disk 3", "fatal: disk 4"),
        ("shop7 failed", "shop12 failed"),
        ("E5 on worker9.example.com", "E12 on worker10.example.com"),
        ("order 1-2 failed", "order 17-23 failed"),
        ("order 01ARZ3NDEKTSV4RRFFQ69G5FAV not found", "order 01BX5ZZKBKACTAV9WEVGEMMVRZ not found"),
        ("blob deadbeefcafebabe is missing", "blob 0123456789012345 is missing"),
        ("no document V1StGXR8Z5jdHi6Bmy2T: unknown", "no document 3MmlLrLkdIwHu7ix0snN: unknown"),
        ("cannot read id bm90IHNlY3JldA==", "cannot read id dGhpcyBpcw=="),
        ("cannot read data/in/2026.csv", "cannot read a.b/c.txt"),
        ("lib/shop.rb:9: fatal", "lib/shop.rb:12: fatal"),
    ],
)
def test_messages_that_differ_in_what_is_masked_are_the_same(one, other_one):
    assert masked(one) == masked(other_one) != ""


@pytest.mark.parametrize(
    ("one", "other_one"),
    [
        ("Permission denied", "No such file or directory"),
        ("can't connect", "can't resolve"),
        ("unknown option 'a'", "unknown command 'a'"),
        ("could not resolve host", "could not resolve user"),
        ("cannot effaced", "cannot acceded"),
        ("cannot use Base64ToUtf8Converter", "cannot use Win32Utf8Encoder"),
        ("cannot cast int32_to_float64_2d", "cannot cast utf8mb4_unicode_ci"),
        ("no class found: com/acme/Orders", "no class found: com/acme/Items"),
        ("read/write error", "input/output error"),
        ("cannot take application/json", "cannot take text/html"),
        ("name== unknown", "shop== unknown"),
        ("shop7 failed", "shop failed"),
    ],
)
def test_messages_that_say_something_else_are_others(one, other_one):
    assert masked(one) != masked(other_one)


def test_no_message_and_no_stack_takes_long():
    import time

    begin = time.perf_counter()
    for unit in ("'", "1", "a.", "a:", "/a", "-", "ab1", "  File", "\tat a.", "=", "(", "\\", "1:"):
        masked(unit * (65_536 // len(unit)))
        of((unit * 80 + "\n") * 700)

    assert time.perf_counter() - begin < 5


def grouped(stack="", message="m 1", kind="ValueError", key=KEY, **rules):
    settings = Settings(errors=Errors(rules=tuple(ErrorRule(**rule) for rule in rules.get("rules", ()))))
    return Grouping(settings).of(key, kind, message, stack)


STORE = frames(("/app/jobs.py", "nightly"), ("/app/store.py", "load"))
CACHE = frames(("/app/jobs.py", "nightly"), ("/app/cache.py", "load"))


def test_a_rule_merges_and_renames():
    rules = [{"exception": "Value*", "place": "*:load", "name": "loading"}]

    one, two = grouped(STORE, rules=rules), grouped(CACHE, rules=rules)
    assert one.fingerprint == two.fingerprint
    assert (one.name, one.kind, one.place) == ("loading", "ValueError", "store:load")
    assert grouped(STORE).fingerprint != grouped(CACHE).fingerprint
    assert grouped(STORE, key=("main", "other"), rules=rules).fingerprint != one.fingerprint


def test_a_rule_splits_by_message():
    rules = [{"match": "main/night*", "split": True}]

    assert grouped(STORE, "full disk 1").fingerprint == grouped(STORE, "no disk").fingerprint
    assert (
        grouped(STORE, "full disk 1", rules=rules).fingerprint
        != grouped(STORE, "no disk", rules=rules).fingerprint
    )
    assert grouped(STORE, "full disk 1", rules=rules) == grouped(STORE, "full disk 2", rules=rules)


def test_a_rule_ignores_and_the_first_that_matches_holds():
    rules = [
        {"message": "*keep*", "name": "kept"},
        {"exception": "ValueError", "ignore": True},
        {"exception": "*", "name": "late"},
    ]

    assert grouped(STORE, "m", rules=rules) is None
    assert grouped(STORE, "keep it", rules=rules).name == "kept"
    assert grouped(STORE, "m", kind="KeyError", rules=rules).name == "late"


def test_a_rule_finds_the_class_of_a_cause():
    chain = frames(("/app/a.py", "f"), kind="KeyError") + (
        "\nThe above exception was the direct cause of the following exception:\n\n" + STORE
    )

    assert grouped(chain, rules=[{"exception": "KeyError", "name": "lookup"}]).name == "lookup"


def test_jobs_and_schedulers_have_groups_of_their_own():
    keys = [KEY, ("main", "b"), ("other", "nightly"), ("mainn", "ightly")]

    assert len({grouped(STORE, key=key).fingerprint for key in keys}) == len(keys)
    assert other(KEY).fingerprint != other(("main", "b")).fingerprint


def test_foreign_code_is_not_the_programs_own():
    stack = frames(("/app/jobs.py", "nightly"), ("/app/vendor/lib.py", "load"))

    assert signature("E", "", stack, ("*/vendor/*",)).places == ("jobs:nightly",)
