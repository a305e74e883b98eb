"""The queue of lines: bounded, woken once, nothing lost that it took."""

from __future__ import annotations

import threading

import pytest

from weego.spool import Spool


def test_lines_come_out_as_they_went_in() -> None:
    spool = Spool(100, lambda: None)
    spool.put(b"one\n")
    spool.put(b"two\n")
    assert len(spool) == 8
    assert spool.take() == b"one\ntwo\n"
    assert spool.take() == b""
    assert len(spool) == 0


def test_it_is_bounded_and_counts() -> None:
    spool = Spool(10, lambda: None)
    for _ in range(5):
        spool.put(b"1234\n")
    assert (spool.take(), spool.dropped, spool.put_lines) == (b"1234\n1234\n", 3, 2)
    spool.put(b"room\n")
    assert spool.take() == b"room\n"
    spool.lose(4)
    assert spool.dropped == 7


def test_a_line_that_never_fits_is_dropped() -> None:
    spool = Spool(10, lambda: None)
    spool.put(b"x" * 11)
    assert (len(spool), spool.dropped) == (0, 1)


def test_the_thread_is_woken_once() -> None:
    wakes: list[int] = []
    spool = Spool(100, lambda: wakes.append(1))
    spool.put(b"1\n")
    spool.put(b"2\n")
    assert wakes == [1]
    spool.take()
    spool.asleep = True
    spool.put(b"3\n")
    assert wakes == [1, 1]


def test_the_memory_of_a_burst_goes_back() -> None:
    spool = Spool(8 << 20, lambda: None)
    spool.put(b"x" * (4 << 20))
    assert len(spool.take()) == 4 << 20
    spool.put(b"small\n")
    assert spool.take() == b"small\n"


def test_only_bytes() -> None:
    with pytest.raises(TypeError):
        Spool(10, lambda: None).put("text")  # type: ignore[arg-type]


def test_many_threads() -> None:
    spool, taken = Spool(64 << 20, lambda: None), []
    threads = [
        threading.Thread(target=lambda n=n: [spool.put(b"%d %d\n" % (n, i)) for i in range(2000)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken.append(spool.take())
    taken.append(spool.take())
    lines = b"".join(taken).split()
    assert len(lines) == 2 * 4 * 2000
    for n in range(4):
        numbers = [int(b) for a, b in zip(lines[::2], lines[1::2], strict=True) if int(a) == n]
        assert numbers == list(range(2000))
