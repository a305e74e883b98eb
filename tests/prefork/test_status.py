"""Small parts of what the master knows; the whole is tested in test_control."""

import os

from prefork.status import History, resident_bytes


def test_history_remembers_the_last_error_until_a_reload_works():
    history = History()
    began = history.config_time
    assert history.reload_error is None
    history.reloaded("conf:1: no")
    assert (history.reload_error, history.reloads) == ("conf:1: no", {"success": 0, "failure": 1})
    assert history.config_time == began
    history.reloaded(None)
    assert (history.reload_error, history.reloads) == (None, {"success": 1, "failure": 1})
    assert history.config_time >= began


def test_memory_of_the_living_and_of_others():
    assert resident_bytes(os.getpid()) > 1 << 20
    assert resident_bytes(None) == 0
    assert resident_bytes(2**22 + 1) == 0  # more than any pid
