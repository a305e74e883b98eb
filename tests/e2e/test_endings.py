"""What services have done at a worker's end: in which order, when, for how long, by the example of docs/extending.md among others."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest

from tests.e2e.wire import DOUBLE, STRING, Wire
from tests.support.need import ROOT
from tests.support.service import PROBE_CODE, App, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def example() -> str:
    text = (ROOT / "docs" / "extending.md").read_text()
    code = re.search(r"## The end of a worker\n.*?```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    return code[1]


def app_of(folder: Path, hooks: str) -> App:
    """The probe, with hooks that append lines to ``told``."""
    told = f"path = {json.dumps(str(folder / 'told'))}\nkept = []\n\ndef tell(line):\n    with open(path, 'a') as file:\n        print(line, file=file)\n\n"
    code = PROBE_CODE.format(version=1).replace(
        "time.sleep(seconds)\n", "tell('begun'); time.sleep(seconds); tell('over')\n"
    )
    assert "tell('begun')" in code
    return App(folder, code=f"from weego import extend\n{told}{hooks}\n\n{code}")


def told(app: App) -> list[str]:
    return (app.folder / "told").read_text().splitlines() if (app.folder / "told").exists() else []


def test_hooks_run_in_each_worker_when_its_calls_are_over_the_last_registered_first(tmp_path: Path) -> None:
    hooks = f"{example()}\n\n@extend.at_end\ndef second():\n    time.sleep(0.01)\n    tell(f'second {{os.getpid()}}')\n"
    app = app_of(tmp_path, hooks)
    with app.serve(workers=2) as server:
        workers = server.workers()
        answers: list[str] = []
        with Wire(server.address) as wire:
            waiting = threading.Thread(
                target=lambda: answers.append(wire.call("wait", (1, DOUBLE, 0.5), (2, STRING, "x")).text)
            )
            waiting.start()
            until(lambda: told(app) == ["begun"], "the call to begin")
            server.reload_ok()
            waiting.join()
        caller = re.fullmatch(r"1 (\d+): x", answers[0])
        assert caller is not None
    lines = told(app)
    for pid in workers:
        at = lines.index(f"second {pid}")
        assert "0 events kept" in lines[at:]
        assert at > lines.index("over") or pid != int(caller[1])
    assert len([line for line in lines if line.startswith("second")]) == lines.count("0 events kept") == 4


def test_a_hook_that_fails_or_takes_too_long_keeps_nothing_up(tmp_path: Path) -> None:
    hooks = """
@extend.at_end
def never_called(): tell("never")

@extend.at_end
def sleeper():
    tell("sleeper")
    time.sleep(3600)

@extend.at_end
def breaks(): raise RuntimeError("the hook breaks")

@extend.at_end
def first(): tell("first")
"""
    app = app_of(tmp_path, hooks)
    with app.serve(
        server='graceful_timeout = "1s"',
        allow=["at_end: app:breaks failed", "the hook breaks", "Traceback", "at_end: app:sleeper"],
    ) as server:
        assert server.process.stop() == 0
        server.wait_for("at_end: app:breaks failed")
        server.wait_for("at_end: app:sleeper has not come to its end in time and is given up, 1 others are not called")
        assert "SIGKILL" not in server.log
    assert told(app) == ["first", "sleeper"]
