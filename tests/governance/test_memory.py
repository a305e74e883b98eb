"""Cells by name: in this process, over a fork, and in a file that outlives both processes and code."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import pytest

from governance import memory as module
from governance.memory import MOST_LAYOUTS, Memory


@pytest.fixture
def fd() -> Iterator[int]:
    found = os.memfd_create("test", os.MFD_CLOEXEC)
    yield found
    os.close(found)


def test_a_process_by_itself_has_cells_of_its_own() -> None:
    memory = Memory()
    assert not memory.is_shared
    assert memory.find("rate", "x") is memory.find("rate", "x")
    assert Memory().find("rate", "x").load(0) == memory.find("rate", "x").load(0) == 0


def test_who_comes_later_finds_what_was_counted(fd: int) -> None:
    Memory.behind(fd).find("rate", "x").add(0, 5)
    pid = os.fork()
    if not pid:
        try:
            Memory.behind(fd).find("rate", "x").add(0, 2)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert Memory.behind(fd).find("rate", "x").load(0) == 7
    assert Memory.behind(fd).find("rate", "y").load(0) == 0


def test_untouched_memory_takes_none(fd: int) -> None:
    Memory.behind(fd).find("breaker", "x").add(0, 1)
    assert os.fstat(fd).st_blocks * 512 < 8 * mmap.PAGESIZE


def test_the_descriptor_may_be_closed() -> None:
    found = os.memfd_create("test", os.MFD_CLOEXEC)
    memory = Memory.behind(found)
    os.close(found)
    assert memory.find("rate", "x").add(0, 1) == 1


def test_code_of_another_layout_finds_nothing_and_breaks_nothing(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Memory.behind(fd).find("rate", "x")
    old.store(0, 1)
    monkeypatch.setitem(module.KINDS, "rate", (10, 3))
    new = Memory.behind(fd).find("rate", "x")
    assert (new.size, new.load(0)) == (3, 0)
    new.store(0, 2)
    monkeypatch.undo()
    assert Memory.behind(fd).find("rate", "x").load(0) == old.load(0) == 1


def test_more_layouts_than_there_is_room_for(fd: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(MOST_LAYOUTS):
        monkeypatch.setattr(module, "LAYOUT_VERSION", 100 + number)
        assert Memory.behind(fd).is_shared
    assert not caplog.records
    monkeypatch.setattr(module, "LAYOUT_VERSION", 200)
    memory = Memory.behind(fd)
    assert memory.is_shared, "with its own children"
    assert "a restart mends it" in caplog.text
    memory.find("rate", "x").store(0, 1)
    assert Memory.behind(fd).find("rate", "x").load(0) == 0


def test_where_the_system_refuses_counts_are_shared_with_children_only(caplog: pytest.LogCaptureFixture) -> None:
    with open(os.devnull, "r+b") as file:
        memory = Memory.behind(file.fileno())
    assert memory.is_shared
    assert "no memory for counts that outlive a reload: Invalid argument" in caplog.text


def test_every_layout_has_room_in_its_region() -> None:
    assert module._size() <= module.REGION_BYTES
