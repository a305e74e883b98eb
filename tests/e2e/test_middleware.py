"""A served program's own middleware: what [server] middleware names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.wire import STRING, Wire
from tests.support.service import App

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

EDGE = """
import weego
from weego import extend

def outer(next_):
    def handler(call, args):
        if args and args[0] == "no":
            raise weego.BusinessError(403, "not you")
        return f"outer({next_(call, args)})"
    return handler

class Inner(extend.MetadataHandler):
    def received(self, call, metadata):
        if call.method == "fail":
            raise weego.ResourceExhausted("asked too often")

inner = extend.carrying(Inner())
"""


def test_middleware_wraps_the_handlers_in_order_and_a_reload_changes_it(tmp_path: Path) -> None:
    app = App(tmp_path)
    (tmp_path / "edge.py").write_text(EDGE)
    with app.serve(workers=2, server='middleware = ["edge:outer", "edge:inner"]', allow=["reload failed"]) as server:
        with Wire(server.address) as wire:
            assert wire.call("echo", (1, STRING, "x")).text == "outer(x)"
            assert "not you" in wire.call("echo", (1, STRING, "no")).error[1]
            assert "asked too often" in wire.call("fail").error[1]
        app.write_conf(workers=2, server='middleware = ["edge:nothing"]')
        assert re.search(r'server\.toml:\d+: \[server\] middleware \\"edge:nothing\\": edge \(.*\) has no nothing', server.reload_fails())
        with Wire(server.address) as wire:
            assert wire.call("echo", (1, STRING, "x")).text == "outer(x)"
        app.write_conf(workers=2)
        server.reload_ok()
        with Wire(server.address) as wire:
            assert wire.call("echo", (1, STRING, "x")).text == "x"
