"""Cells that several processes change at the same time."""

from __future__ import annotations

import mmap
import os

import pytest

from governance.cells import Cells


def test_cells_keep_numbers() -> None:
    cells = Cells(count=4)
    assert len(cells) == 4
    cells.store(1, -(2**63))
    assert cells.load(1) == -(2**63)
    assert cells.add(2, 5) == 5
    assert cells.swap(2, 5, 9)
    assert not cells.swap(2, 5, 7)
    assert cells.load(2) == 9
    cells.clear()
    assert [cells.load(index) for index in range(4)] == [0] * 4


def test_a_part_is_the_same_memory() -> None:
    cells = Cells(bytearray(80))
    part = cells.part(3, 2)
    part.store(0, 7)
    assert cells.load(3) == 7
    assert len(part) == 2


def test_what_is_not_there() -> None:
    cells = Cells(count=2)
    for index in (-1, 2):
        with pytest.raises(IndexError):
            cells.load(index)
    with pytest.raises(IndexError):
        cells.part(1, 2)
    with pytest.raises(ValueError, match="not in a buffer"):
        Cells(bytearray(16), 1, 2)


def test_no_addition_is_lost_between_processes() -> None:
    cells = Cells(mmap.mmap(-1, 4096))
    children = []
    for _ in range(3):
        pid = os.fork()
        if not pid:
            try:
                for _ in range(20_000):
                    cells.add(0, 1)
                    while not cells.swap(1, seen := cells.load(1), seen + 1):
                        pass
            finally:
                os._exit(0)
        children.append(pid)
    for pid in children:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert cells.load(0) == cells.load(1) == 60_000
