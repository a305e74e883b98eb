"""The scoreboard: rows, totals that never go backwards, the gate."""

import os

import pytest

from prefork import scoreboard
from prefork.scoreboard import (
    ACCEPTED,
    BEAT_NS,
    CONNECTIONS,
    DRAINING,
    FREE,
    GENERATION,
    PID,
    READY,
    REQUESTS,
    SLOT,
    SPAWNED,
    STALE_BEAT_NS,
    STATE,
    Scoreboard,
    may_accept,
)


@pytest.fixture
def board():
    board = Scoreboard.create(capacity=8)
    yield board
    board.close()


def worker(board, connections, *, generation=1, state=READY, beat=1_000_000_000):
    index = board.allot(0, generation)
    row = board.row(index)
    row[STATE], row[CONNECTIONS], row[BEAT_NS] = state, connections, beat
    row.release()
    return index


def test_a_row_is_given_and_taken_back(board):
    index = board.allot(3, 7)
    row = board.row(index)
    assert (row[SLOT], row[GENERATION], row[STATE], row[PID]) == (3, 7, SPAWNED, 0)
    assert list(board.rows()) == [index]
    assert board.allot(4, 7) == index + 1
    board.retire(index)
    assert row[STATE] == FREE
    assert list(board.rows()) == [index + 1]
    assert board.allot(5, 8) == index, "the lowest free row is used again"
    row.release()


def test_a_full_board_says_so(board):
    for slot in range(8):
        board.allot(slot, 1)
    with pytest.raises(RuntimeError, match="all 8 rows"):
        board.allot(9, 1)


def test_another_process_sees_the_same_cells(board):
    index = board.allot(0, 1)
    pid = os.fork()
    if pid == 0:
        other = Scoreboard.attach(os.dup(board.fd))
        other.row(index)[REQUESTS] = 41
        os._exit(0)
    os.waitpid(pid, 0)
    assert board.total(REQUESTS) == 41


def test_totals_outlive_their_worker_and_gauges_do_not(board):
    first, second = worker(board, 5), worker(board, 6)
    for index, requests in ((first, 10), (second, 20)):
        row = board.row(index)
        row[REQUESTS], row[ACCEPTED], row[31] = requests, 1, requests
        row.release()
    assert (board.total(REQUESTS), board.total(CONNECTIONS)) == (30, 11)
    board.retire(first)
    assert (board.total(REQUESTS), board.total(ACCEPTED), board.total(31), board.total(CONNECTIONS)) == (30, 2, 30, 6)
    board.allot(0, 2)
    assert board.total(REQUESTS) == 30


def test_a_reader_does_not_hang_on_a_fold_that_never_ends(board):
    worker(board, 3)
    board.cells[scoreboard.H_SEQ] = 1  # a master that died in the middle
    assert board.total(CONNECTIONS) == 3


def test_what_is_no_board_is_refused():
    fd = os.memfd_create("other")
    os.ftruncate(fd, 4096)
    with pytest.raises(ValueError, match="not a scoreboard"):
        Scoreboard.attach(fd)
    os.close(fd)


NOW = 1_000_000_000


def test_the_gate_lets_the_least_loaded_accept(board):
    board.publish(1, 1)
    low, high = worker(board, 4), worker(board, 5)
    assert may_accept(board, low, NOW)
    assert not may_accept(board, high, NOW)


def test_equals_all_accept(board):
    board.publish(1, 1)
    assert all(may_accept(board, worker(board, 4), NOW) for _ in range(3))


def test_above_64_connections_there_is_slack(board):
    board.publish(1, 1)
    worker(board, 100)
    within, beyond = worker(board, 105), worker(board, 106)
    assert may_accept(board, within, NOW)
    assert not may_accept(board, beyond, NOW)


@pytest.mark.parametrize(
    "idle",
    [{"state": DRAINING}, {"state": SPAWNED}, {"generation": 2}, {"beat": NOW - STALE_BEAT_NS - 1}],
    ids=["draining", "booting", "other generation", "stale beat"],
)
def test_who_cannot_accept_holds_nobody_back(board, idle):
    board.publish(1, 1)
    busy = worker(board, 9)
    worker(board, 0, **idle)
    assert may_accept(board, busy, NOW)


def test_only_ready_workers_of_the_published_generation_accept(board):
    new = worker(board, 0, generation=2)
    board.publish(1, 1)
    assert not may_accept(board, new, NOW)
    board.publish(2, 1)
    assert may_accept(board, new, NOW)
    assert not may_accept(board, worker(board, 0, generation=2, state=DRAINING), NOW)
    assert not may_accept(board, worker(board, 0, generation=1), NOW)
