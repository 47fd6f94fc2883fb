import logging
import os
import threading

import pytest

from taskscope.identity import run_id, text
from taskscope.instance import instance
from taskscope.run import Run, RunFilter, current_run, enter, leave

RUN = Run(scheduler="s", job_name="nightly", native="n", attempt=2, due=1.5, anchor=1.5)


def test_outside_of_a_run_there_is_none():
    assert current_run() is None


def test_within_a_run_it_is_known_and_afterwards_no_more():
    token = enter(lambda: RUN)
    assert current_run() == RUN
    leave(token)
    assert current_run() is None


def test_its_id_is_the_one_the_history_knows():
    assert RUN.run_id == text(run_id("s", "n", 2, 1500))
    assert RUN._replace(anchor=None).run_id == "n"


def test_runs_within_runs_and_other_threads_do_not_mix():
    inner = RUN._replace(job_name="inner")
    seen = []
    outer_token = enter(lambda: RUN)
    inner_token = enter(lambda: inner)
    thread = threading.Thread(target=lambda: seen.append(current_run()))
    thread.start()
    thread.join()
    seen.append(current_run())
    leave(inner_token)
    seen.append(current_run())
    leave(outer_token)

    assert seen == [None, inner, RUN]


def test_a_run_left_in_another_context_does_no_harm():
    tokens = []
    thread = threading.Thread(target=lambda: tokens.append(enter(lambda: RUN)))
    thread.start()
    thread.join()

    leave(tokens[0])

    assert current_run() is None


def test_log_records_say_of_which_run_they_are(caplog):
    caplog.handler.addFilter(run_filter := RunFilter())
    token = enter(lambda: RUN)
    logging.getLogger("program").warning("within")
    leave(token)
    logging.getLogger("program").warning("outside")
    caplog.handler.removeFilter(run_filter)

    assert [(record.run_id, record.job_name) for record in caplog.records] == [
        (RUN.run_id, "nightly"),
        ("-", "-"),
    ]


def test_an_instance_is_this_process_and_no_other():
    assert instance() == instance()
    host, pid, unique = instance().split(":")
    assert host
    assert int(pid) == os.getpid()
    assert len(unique) == 32


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_after_a_fork_the_instance_is_another():
    before, (read, write) = instance(), os.pipe()
    if not os.fork():
        os.write(write, instance().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        child = pipe.read()
    os.wait()

    assert child.split(":")[1] != before.split(":")[1]
    assert child.split(":")[2] != before.split(":")[2]
    assert instance() == before
