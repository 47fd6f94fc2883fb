import os
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from histories import batch, done, opened, python, select, stored
from sqlalchemy.engine import make_url

from services.postgres import Postgres
from services.process import program
from taskscope.errors import BadArgument, Unavailable
from taskscope.settings import Settings
from taskscope.sinks.history.sql import SqlStore

OPEN_AND_SAY_WHY = """
import sys
from histories import opened
from taskscope.errors import Unavailable
try:
    with opened(sys.argv[1]): print("opened")
except Unavailable as error:
    print(error)
"""


def on_opening(url: str) -> str:
    """What a process whose rights end at the file's mode is told; root's need to be taken away for that."""
    bound = [program("setpriv", "util-linux"), "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    output, errors = python(OPEN_AND_SAY_WHY, url, before=bound).communicate(timeout=60)
    assert not errors
    return output.strip()


def test_a_directory_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path):
    tmp_path.chmod(0o555)

    said = on_opening(f"sqlite:///{tmp_path}/runs.db")

    assert (
        said == f"the history {tmp_path}/runs.db cannot be locked: {tmp_path}/runs.db.lock: Permission denied"
    )


def test_a_file_that_is_read_only_is_one_clear_sentence(tmp_path: Path):
    with opened(f"sqlite:///{tmp_path}/runs.db") as store:
        store.apply([done(1)])
    (tmp_path / "runs.db").chmod(0o444)

    said = on_opening(f"sqlite:///{tmp_path}/runs.db")

    assert said == (
        f"the history sqlite:///{tmp_path}/runs.db cannot be written:"
        " the file or its directory is read-only; make both writable"
    )


def test_a_file_that_is_no_database_is_one_clear_sentence(tmp_path: Path):
    (tmp_path / "runs.db").write_text("dear diary " * 100)

    with pytest.raises(
        Unavailable, match=r"the file is not a SQLite database; move it away or name another one$"
    ):
        SqlStore(f"sqlite:///{tmp_path}/runs.db", Settings()).open()


@pytest.mark.parametrize("below", ["runs.db", "folder/runs.db"])
def test_a_place_below_a_file_is_one_clear_sentence(tmp_path: Path, below: str):
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(Unavailable) as refused:
        SqlStore(f"sqlite:///{file}/{below}", Settings()).open()

    assert str(refused.value) == (
        f"the history {file}/{below} cannot be made: {file} is not a folder; use another path"
    )


@pytest.mark.parametrize(
    "url", ["mysql://host/db", "sqlite://", "sqlite:///:memory:", "nonsense", "postgres:/"]
)
def test_a_url_that_names_no_history_of_ours_is_a_bad_argument(url: str):
    with pytest.raises(BadArgument, match="history"):
        SqlStore(url, Settings())


def test_a_full_disk_is_one_clear_sentence_and_recovery_needs_no_restart(sqlite_url: str):
    with opened(sqlite_url) as store:
        store.apply([done(1)])
        with store.transaction() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        rows = batch(done(number, queue="q" * number) for number in range(500))

        with pytest.raises(Unavailable, match=r"the disk is full; free some space$"):
            store.apply(rows)
        again = store.apply(rows)

    assert len(again.changes) == 499
    assert again.totals["s", "job"].statuses == {"success": 500}


def test_a_server_that_goes_away_is_waited_for_and_nothing_counts_twice(
    postgres_url: str, postgres_server: Postgres
):
    with opened(postgres_url) as store:
        store.apply([done(1)])
        postgres_server.stop()
        for _ in range(2):
            with pytest.raises(Unavailable, match="cannot be written: "):
                store.apply([done(2)])
        postgres_server.start()

        assert store.apply([done(2)]).totals["s", "job"].statuses == {"success": 2}


def test_after_a_failure_the_next_batch_tells_all_totals(history_url: str):
    with opened(history_url) as store:
        store.apply([done(1, job="quiet")])
        with pytest.raises(Unavailable), store.transaction() as connection:
            connection.exec_driver_sql("SELECT nothing FROM nowhere")

        assert set(store.apply([done(2)]).totals) == {("s", "quiet"), ("s", "job")}
        assert set(store.apply([done(3)]).totals) == {("s", "job")}


class LostReply:
    """Stands between a store and PostgreSQL, and on demand cuts the line after a COMMIT has been carried out."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cut = False
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                committing = threading.Event()
                for pump in (self._requests, self._replies):
                    threading.Thread(target=pump, args=(client, server, committing), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self.cut and b"COMMIT" in data:
                    committing.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _replies(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if committing.is_set():
                    self.cut, self.cuts = False, self.cuts + 1
                    break
                client.sendall(data)
        for line in (client, server):
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            line.close()


def test_a_commit_of_which_nobody_heard_neither_counts_twice_nor_is_forgotten(postgres_url: str):
    proxy = LostReply(make_url(postgres_url).port or 0)
    try:
        url = make_url(postgres_url).set(port=proxy.port).update_query_dict({"sslmode": "disable"})
        with opened(url.render_as_string(hide_password=False)) as store:
            store.apply([done(1)])
            proxy.cut = True
            with pytest.raises(Unavailable):
                store.apply([done(2)])
            committed = len(stored(postgres_url))
            again = store.apply([done(2)])
    finally:
        proxy.close()

    assert (proxy.cuts, committed) == (1, 2)
    assert again.changes == []
    assert again.totals["s", "job"].statuses == {"success": 2}


def test_a_password_is_never_told(postgres_url: str):
    url = make_url(postgres_url).set(password="s3cret", database="no_such_database")

    with pytest.raises(Unavailable) as caught:
        SqlStore(url.render_as_string(hide_password=False), Settings()).open()

    assert "no_such_database" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_store_closes_twice_and_opens_again(history_url: str):
    with opened(history_url) as store:
        store.apply([done(1)])
        store.close()
        store.close()
        store.open()

        assert store.totals()["s", "job"].statuses == {"success": 1}
    assert select(history_url, "SELECT count(*) FROM run") == [(1,)]
