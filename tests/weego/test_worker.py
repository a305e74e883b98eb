"""The body of a worker under its master: that it beats, that a handler can hang it, that it is recycled without a loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.load import Load
from tests.e2e.wire import Wire, call
from tests.support.service import App, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


@pytest.fixture
def app(tmp_path: Path, no_leaks: None) -> App:
    return App(tmp_path / "app")


def test_a_handler_that_never_comes_back(app: App) -> None:
    code = (app.folder / "app.py").read_text()
    app.write_code(code.replace("raise RuntimeError", "while True:\n            pass\n        raise RuntimeError"))
    expected = [r"worker 0 gen 1 .*(spinning|starved)", r"worker 0 gen 1 .*hangs", "Fatal Python error", "(?i)stack|thread|file|extension"]
    with app.serve(server='hang_timeout = "1s"', allow=expected) as server, Wire(server.address) as wire:
        before = wire.tell()[1]
        wire.send(call("fail"))
        assert wire.rest() == b""
        with Wire(server.address) as other:
            assert other.tell()[1] not in (0, before)
        until(lambda: "was killed by SIGABRT" in server.log, "the end of it")
        assert "hangs: its loop has not turned" in server.log
        assert "in fail" in server.log, "the handler's line is among the stacks"


def test_recycling_under_load_loses_nothing(app: App) -> None:
    with app.serve(workers=2, server="max_requests = 200") as server:
        with Load(server.address, connections=16, idle=4, pace=0.002) as load:
            until(lambda: server.log.count("is due") >= 3, "three replacements")
        assert not load.failures
        assert load.answered > 400
