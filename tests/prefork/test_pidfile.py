"""The lock decides who serves, not the number in the file."""

import os

import pytest

from prefork.pidfile import Pidfile, PidfileError


def test_it_comes_and_goes(tmp_path):
    path = tmp_path / "pid"
    pidfile = Pidfile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.close()
    assert not path.exists()


def test_a_second_master_is_told_who_holds_it(tmp_path):
    path = str(tmp_path / "pid")
    first = Pidfile(path)
    with pytest.raises(PidfileError, match=f"held by a running master \\(pid {os.getpid()}\\)"):
        Pidfile(path)
    first.close()
    Pidfile(path).close()


def test_a_number_left_behind_means_nothing(tmp_path):
    path = tmp_path / "pid"
    path.write_text("1\nand a long text\n")
    pidfile = Pidfile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    pidfile.close()


def test_a_file_of_another_is_not_unlinked(tmp_path):
    path = tmp_path / "pid"
    pidfile = Pidfile(str(path))
    path.rename(tmp_path / "moved")
    path.write_text("another")
    pidfile.close()
    assert path.read_text() == "another"


def test_its_folder_is_made(tmp_path):
    Pidfile(str(tmp_path / "run/pid")).close()
    with pytest.raises(PidfileError, match="no such file or directory"):
        Pidfile(str(tmp_path / "not/there/pid"))
