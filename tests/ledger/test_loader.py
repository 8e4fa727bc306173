"""Each receipt arrives once, with its roll-up, whatever happens between spool and PostgreSQL."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from tests.ledger.samples import make_receipt, random_receipts, spool
from tidegate.base.money import Usage
from tidegate.ledger.loader import ReceiptLoader
from tidegate.ledger.partitions import Connection, Partitions
from tidegate.ledger.receipts import Attempt
from tidegate.ledger.rollups import Rollup
from tidegate.ledger.run import Session
from tidegate.ledger.spool_reader import spool_files
from tidegate.ledger.store import ReceiptStore
from tidegate.release.values import LedgerSettings


def make_loader(folder: Path, connection: Connection) -> ReceiptLoader:
    store = ReceiptStore(connection, Partitions())
    return ReceiptLoader(folder, store, store.positions())


def load_all(folder: Path, connection: Connection) -> int:
    loader, new = make_loader(folder, connection), 0
    while (step := loader.step()).loaded:
        new += step.new
    return new


def one(connection: Connection, query: str) -> Any:
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def all_rollups(connection: Connection) -> Rollup:
    rows = connection.execute("SELECT body FROM rollups WHERE scope = 'route'").fetchall()
    return Rollup.merged_from([body for (body,) in rows])


def test_a_receipt_comes_back_as_columns(tmp_path: Path, connection: Connection) -> None:
    receipt = make_receipt(
        usage=Usage(prompt=3, completion=2, cached=1, estimated=True),
        replayed=Usage(prompt=9),
        cost=None,
        code="tab\tand \\ and\nline \x00 nul ünï",
        first_token=12.5,
        stream=True,
        trace="4b" * 16,
        parent="00f067aa0ba902b7",
        attempts=(Attempt(model='a"b\\', ms=1.5, code="refused"),),
    )
    spool(tmp_path, [receipt], b'{"q":1}', b'{"a":2}').close()
    assert load_all(tmp_path, connection) == 1
    row = connection.execute(
        "SELECT replace(id::text, '-', ''), extract(epoch FROM at)::float8, code, prompt_tokens, "
        "estimated, replayed, cost, stages, first_token, attempts, trace, stream, request_sha "
        "FROM receipts"
    ).fetchone()
    assert row is not None
    assert row[0] == receipt.id
    assert row[1] == pytest.approx(receipt.at, abs=1e-5)
    assert row[2] == "tab\tand \\ and\nline \ufffd nul ünï"
    assert row[3:5] == (3, True)
    assert row[5:7] == ({"prompt": 9}, None)
    assert row[7:9] == (receipt.stages, 12.5)
    assert row[9] == [{"model": 'a"b\\', "ms": 1.5, "code": "refused"}]
    assert row[10:12] == ("4b" * 16, True)
    body = connection.execute("SELECT body FROM content WHERE sha256 = %s", (row[12],)).fetchone()
    assert body == (b'{"q":1}',)


def test_the_same_content_is_stored_once(tmp_path: Path, connection: Connection) -> None:
    spool(tmp_path, random_receipts(20), b"question", b"answer").close()
    load_all(tmp_path, connection)
    spool(tmp_path, random_receipts(5), b"question", b"other").close()
    load_all(tmp_path, connection)
    assert one(connection, "SELECT count(*) FROM content") == 3
    assert one(connection, "SELECT count(*) FROM receipts WHERE request_sha IS NOT NULL") == 25


def test_the_same_records_twice_are_one_receipt_each_and_counted_once(
    tmp_path: Path, connection: Connection
) -> None:
    receipts = random_receipts(30)
    spool(tmp_path, receipts).close()
    spool(tmp_path, [*receipts[:10], receipts[0], *random_receipts(5, seed=2)]).close()
    assert load_all(tmp_path, connection) == 35
    connection.execute("DELETE FROM spool_progress")
    assert load_all(tmp_path, connection) == 0
    assert one(connection, "SELECT count(*) FROM receipts") == 35
    rollup = all_rollups(connection)
    assert rollup.count == 35
    assert rollup.sketches["stage.call"].count == 35
    assert one(connection, "SELECT value FROM ledger_totals WHERE tally = 'count'") == 35


def test_roll_ups_tell_unknown_cost_apart_from_none(tmp_path: Path, connection: Connection) -> None:
    spool(
        tmp_path,
        [
            make_receipt(cost=None),
            make_receipt(cost=0.5),
            make_receipt(cost=0.0, usage=None, cache="hit", attempts=()),
            make_receipt(
                cost=None, usage=None, cache="off", attempts=(), outcome="refused", status=401
            ),
        ],
    ).close()
    load_all(tmp_path, connection)
    tallies = all_rollups(connection).tallies
    assert tallies["cost"] == 0.5
    assert tallies["cost.unknown"] == 1
    assert tallies["cache.hit"] == 1
    assert tallies["status.4xx"] == 1
    assert tallies["outcome.refused"] == 1


def test_what_cannot_be_a_row_is_set_aside_and_the_others_are_stored(
    tmp_path: Path, connection: Connection
) -> None:
    writer = spool(tmp_path, random_receipts(3))
    writer.append(b'{"not":"a receipt"}')
    writer.append(msgspec.json.encode(make_receipt(status=2**40)))
    writer.append(msgspec.json.encode(make_receipt(at=1e18)))
    writer.append(msgspec.json.encode(make_receipt(id="DROP TABLE")))
    writer.append(msgspec.json.encode(make_receipt()))
    writer.close()
    assert load_all(tmp_path, connection) == 4
    assert one(connection, "SELECT count(*) FROM receipts") == 4
    assert len((tmp_path / "rejected.jsonl").read_bytes().splitlines()) == 4
    assert load_all(tmp_path, connection) == 0


def test_receipts_of_any_day_find_a_partition(tmp_path: Path, connection: Connection) -> None:
    day = 86400.0
    spool(tmp_path, [make_receipt(at=time.time() - n * day) for n in (0, 1, 40, 400)]).close()
    assert load_all(tmp_path, connection) == 4


def test_many_made_up_names_do_not_make_many_roll_ups(
    tmp_path: Path, connection: Connection
) -> None:
    now = time.time()
    spool(tmp_path, [make_receipt(route=f"r{n}", at=now) for n in range(1000)]).close()
    load_all(tmp_path, connection)
    assert one(connection, "SELECT count(*) FROM rollups") == 257
    assert all_rollups(connection).count == 1000


def test_names_as_long_as_a_header_are_stored_and_counted(
    tmp_path: Path, connection: Connection
) -> None:
    rng = random.Random(6)
    long = ["".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(8000)) for _ in range(4)]
    receipts = [
        make_receipt(journey=long[0], route=long[1], trace=long[2], code=long[3], tenant=long[0]),
        make_receipt(journey="\x1b[31m\x00"),
    ]
    spool(tmp_path, receipts).close()
    assert load_all(tmp_path, connection) == 2
    assert one(connection, "SELECT count(*) FROM receipts WHERE length(journey) = 8000") == 1
    assert one(connection, "SELECT max(length(journey)) FROM rollups") == 200


def session_of(state: Path, connection: Connection) -> Session:
    return Session(state, connection, LedgerSettings)


def test_a_file_goes_only_when_its_owner_is_gone_and_all_of_it_is_stored(
    tmp_path: Path, connection: Connection
) -> None:
    writer = spool(tmp_path / "spool", random_receipts(3))
    (path,) = spool_files(tmp_path / "spool")
    session = session_of(tmp_path, connection)
    session.turn()
    age(path)
    wait_a_tidy(session)
    assert path.exists(), "its worker still holds it"
    writer.append(msgspec.json.encode(make_receipt()))
    writer.close()
    with path.open("ab") as file:
        file.write(b"\x00\x01torn")
    session.turn()
    age(path)
    wait_a_tidy(session)
    assert not path.exists()
    assert one(connection, "SELECT count(*) FROM receipts") == 4
    assert one(connection, "SELECT count(*) FROM spool_progress WHERE file <> 'flush'") == 0


def age(path: Path) -> None:
    then = time.time() - 60
    os.utime(path, (then, then))


def wait_a_tidy(session: Session) -> None:
    session._tidied = float("-inf")
    session.turn()


def test_retention_drops_whole_partitions(tmp_path: Path, connection: Connection) -> None:
    day = 86400.0
    spool(
        tmp_path / "spool",
        [make_receipt(at=time.time() - n * day) for n in (0, 3, 40, 100)],
        b"q",
    ).close()
    session_of(tmp_path, connection).turn()
    assert one(connection, "SELECT count(*) FROM receipts") == 3  # 90 days
    assert one(connection, "SELECT count(*) FROM content") == 2  # 30 days
    assert one(connection, "SELECT sum(count) FROM rollups") == 4  # longer than either


class LoaderProcess:
    """``python -m tidegate.ledger`` on a state folder of the test's own."""

    def __init__(self, state: Path, url: str) -> None:
        self._state, self._url = state, url
        self.log = state / "loader.log"
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tidegate.ledger", "--state", str(self._state)],
                env={**os.environ, "TIDEGATE_DATABASE_URL": self._url},
                stderr=log,
            )

    def kill(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def loader_process(tmp_path: Path, database_url: str) -> Iterator[Callable[[], LoaderProcess]]:
    started: list[LoaderProcess] = []

    def start() -> LoaderProcess:
        started.append(LoaderProcess(tmp_path, database_url))
        return started[-1]

    yield start
    for loader in started:
        if loader.process.poll() is None:
            loader.kill()


def wait_until(reached: Callable[[], bool], seconds: float = 20.0) -> float:
    began = time.monotonic()
    while not reached():
        assert time.monotonic() - began < seconds, "it did not happen in time"
        time.sleep(0.01)
    return time.monotonic() - began


def test_killed_again_and_again_each_receipt_is_there_once(
    tmp_path: Path, connection: Connection, loader_process: Callable[[], LoaderProcess]
) -> None:
    rng = random.Random(5)
    loader = loader_process()
    receipts = random_receipts(20_000)
    writers = []
    for n in range(8):
        writers.append(spool(tmp_path / "spool", receipts[n * 2500 : (n + 1) * 2500], b"q" * n))
        if n % 2 == 0:
            writers[-1].close()
        time.sleep(rng.uniform(0.0, 0.8))
        loader.kill()
        loader.start()
    wait_until(lambda: one(connection, "SELECT count(*) FROM receipts") == 20_000)
    loader.kill()
    for writer in writers:
        writer.close()
    rollup = all_rollups(connection)
    assert rollup.count == 20_000
    assert rollup.sketches["total"].count == 20_000
    exact = sorted(r.total for r in receipts)[int(0.95 * 19_999)]
    assert rollup.sketches["total"].quantile(0.95) == pytest.approx(exact, rel=0.01)


def test_an_idle_loader_shows_a_receipt_within_a_third_of_a_second(
    tmp_path: Path, connection: Connection, loader_process: Callable[[], LoaderProcess]
) -> None:
    loader_process()
    writer = spool(tmp_path / "spool", [make_receipt()])
    count = "SELECT count(*) FROM receipts"
    wait_until(lambda: one(connection, count) == 1)
    delays = []
    for n in range(2, 7):
        writer.append(msgspec.json.encode(make_receipt()))
        delays.append(wait_until(lambda n=n: one(connection, count) == n))
    assert sorted(delays)[2] < 0.3
    writer.close()


def test_an_outage_is_logged_once_and_loading_goes_on_by_itself(
    tmp_path: Path,
    connection: Connection,
    database_url: str,
    loader_process: Callable[[], LoaderProcess],
) -> None:
    loader = loader_process()
    writer = spool(tmp_path / "spool", random_receipts(5))
    wait_until(lambda: one(connection, "SELECT count(*) FROM receipts") == 5)
    connection.execute("ALTER TABLE receipts RENAME TO receipts_away")
    for receipt in random_receipts(5, seed=9):
        writer.append(msgspec.json.encode(receipt))
    wait_until(lambda: "receipts wait in the spool" in loader.log.read_text())
    time.sleep(1.5)
    connection.execute("ALTER TABLE receipts_away RENAME TO receipts")
    wait_until(lambda: one(connection, "SELECT count(*) FROM receipts") == 10)
    assert loader.kill(signal.SIGTERM) == 0
    text = loader.log.read_text()
    assert text.count("receipts wait in the spool") == 1
    assert text.count("takes receipts again") == 1
    writer.close()


def test_a_cut_connection_is_opened_again(
    tmp_path: Path, connection: Connection, loader_process: Callable[[], LoaderProcess]
) -> None:
    loader_process()
    writer = spool(tmp_path / "spool", [make_receipt()])
    wait_until(lambda: one(connection, "SELECT count(*) FROM receipts") == 1)
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'tidegate-ledger' AND pid <> pg_backend_pid() "
        "AND datname = current_database()"
    )
    writer.append(msgspec.json.encode(make_receipt()))
    wait_until(lambda: one(connection, "SELECT count(*) FROM receipts") == 2)
    writer.close()


def test_two_loaders_do_not_share_a_folder(
    tmp_path: Path, loader_process: Callable[[], LoaderProcess], database_url: str
) -> None:
    loader_process()
    wait_until(lambda: (tmp_path / "run" / "ledger.json").exists())
    second = subprocess.run(
        [sys.executable, "-m", "tidegate.ledger", "--state", str(tmp_path)],
        env={**os.environ, "TIDEGATE_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert "already loads the spool" in second.stderr


def test_values_a_database_refuses_are_told_apart_from_an_outage(connection: Connection) -> None:
    with pytest.raises(psycopg.DataError), connection.transaction():
        connection.execute("SELECT %s::int4", (2**40,))
