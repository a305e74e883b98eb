"""The table of calls by method: written as workers do, read as the master does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from governance.meter import Meter
from prefork.tally import BOUNDS, CELLS, CODES, MAGIC, MOST_METHODS, NAME_BYTES, OFFSET, STRIPES, Reader, Row
from weego.tallies import Tallies, open_tallies


@pytest.fixture
def fd() -> Iterator[int]:
    made = os.memfd_create("test")
    yield made
    os.close(made)


def opened(fd: int, stripe: int = 0) -> Tallies:
    tallies = open_tallies(fd)
    assert tallies is not None
    tallies.stripe = stripe
    return tallies


def test_what_workers_add_up_is_what_the_master_reads(fd: int) -> None:
    reader = Reader(fd)
    assert reader.rows("server") == []  # nobody has counted yet
    for slot in range(STRIPES + 1):
        tally = opened(fd, slot).server("Item", "get")
        tally.record(0.0003, 0)
        tally.record(0.0005, 0)
        tally.record(3.0, 4)
        tally.record(99.0, 99)  # no Code: unknown
        tally.record(-1.0, 0)  # a clock that was read elsewhere
    opened(fd).client("Stock", "take").record(0.02, 14)
    (row,) = reader.rows("server")
    count = STRIPES + 1
    assert (row.service, row.method) == ("Item", "get")
    assert {CODES[code]: value for code, value in enumerate(row.codes) if value} == {"OK": 3 * count, "DEADLINE_EXCEEDED": count, "UNKNOWN": count}
    assert {BOUNDS[at]: value for at, value in enumerate(row.buckets) if value} == {0.0005: 3 * count, 5.0: count, BOUNDS[-1]: count}
    assert row.microseconds == count * (300 + 500 + 3_000_000 + 99_000_000)
    (row,) = reader.rows("client")
    assert (row.service, row.method, row.codes[14], sum(row.codes)) == ("Stock", "take", 1, 1)


def test_there_is_an_end_to_the_names(fd: int, caplog: pytest.LogCaptureFixture) -> None:
    tallies = opened(fd)
    for number in range(MOST_METHODS + 10):
        tallies.server("Item", f"get{number}").record(0.1, 0)
    tallies.server("", "").record(0.1, 12)  # a method that there is not
    rows = Reader(fd).rows("server")
    assert len(rows) == MOST_METHODS
    other = next(row for row in rows if row.service == "other")
    assert (other.method, sum(other.codes), other.codes[12]) == ("other", 12, 1)
    assert sum(sum(row.codes) for row in rows) == MOST_METHODS + 11
    assert len(caplog.records) == 1
    # Another worker comes to the same rows.
    opened(fd, 1).server("Item", "get7").record(0.1, 0)
    assert next(row for row in Reader(fd).rows("server") if row.method == "get7").codes[0] == 2
    tallies.client("x" * NAME_BYTES, "long").record(0.1, 0)
    assert [row.service for row in Reader(fd).rows("client")] == ["other"]


def test_all_who_come_at_once_find_one_row(fd: int) -> None:
    names = [f"m{number}" for number in range(20)]

    def come(turn: int) -> None:
        tallies = opened(fd, turn)
        for name in names[turn:] + names[:turn]:
            tallies.server("Item", name).record(0.1, 0)

    threads = [threading.Thread(target=come, args=(turn,)) for turn in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted((row.method, sum(row.buckets)) for row in Reader(fd).rows("server")) == sorted((name, 8) for name in names)


def test_who_dies_over_a_name_leaves_it_to_the_next(fd: int) -> None:
    child = os.fork()
    if not child:
        tallies = opened(fd)
        tallies._write = lambda start, name: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
        tallies.server("Item", "get")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert Reader(fd).rows("server") == []
    opened(fd).server("Item", "put").record(0.1, 0)
    opened(fd).server("Item", "get").record(0.1, 0)
    assert [row.method for row in Reader(fd).rows("server")] == ["get", "put"]


def test_another_layout_is_left_alone(fd: int) -> None:
    os.ftruncate(fd, OFFSET + CELLS * 8)
    os.pwrite(fd, (MAGIC + 1).to_bytes(8, "little"), OFFSET)
    assert open_tallies(fd) is None
    assert Reader(fd).rows("server") == []
    assert Reader(-1).rows("server") == []


def test_no_memory_to_be_had(caplog: pytest.LogCaptureFixture) -> None:
    with open("/dev/null") as null:  # a file that cannot have a size
        assert open_tallies(null.fileno()) is None
    assert "they are left out" in caplog.text


def test_a_meter_tells_its_tally_too(fd: int) -> None:
    meter = Meter("Echo", "echo", tally=opened(fd).client("Echo", "echo"))
    meter.record(0.1, 0)
    meter.retried()
    assert meter.snapshot()["codes"] == {0: 1}
    assert Reader(fd).rows("client") == [Row("Echo", "echo", (1, *[0] * 16), 100_000, tuple(int(bound == 0.1) for bound in BOUNDS))]
