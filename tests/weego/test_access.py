"""The native lines of the access log say what the fields say, whatever the fields are."""

from __future__ import annotations

import json
import logging
import re

import pytest

from weego.access import AccessLog, visible
from weego.spool import Spool


class Done:
    """A finished call and its request."""

    def __init__(self, **facts: object) -> None:
        self.service, self.method, self.protocol, self.peer, self.caller = "Echo", "echo", "framed", "tcp://[::1]:80", ""
        self.elapsed, self.size = 0.5, 10
        vars(self).update(facts)


def line(*, as_json: bool = True, colour: bool = False, code: int = 0, error: BaseException | None = None, **facts: object) -> str:
    lines: list[bytes] = []
    log = AccessLog(
        None,
        lines.append,
        as_json=as_json,
        role="worker 1",
        colour=colour,
        clock=lambda second: (b"2026-01-02T03:04:05", b"+01:00"),
        told=str,
        codes={0: "OK", 13: "INTERNAL"},
        logger="weego.access",
        pid=7,
    )
    done = Done(**facts)
    log(done, done, code, 20, error)
    (found,) = lines
    assert found.endswith(b"\n")
    assert found.count(b"\n") == 1
    return found[:-1].decode("utf-8")


STRINGS = ["", "plain", 'quo"te', "back\\slash", "new\nline", "\x00\x1f\x7f", "naïve ☃ 😀", "\x1b[2J", "\udcff", "x" * 5000]


@pytest.mark.parametrize("text", STRINGS)
@pytest.mark.parametrize("field", ["service", "protocol", "peer", "caller"])
def test_strings_in_json(field: str, text: str) -> None:
    found = json.loads(line(**{field: text}))
    assert found.get(field, "") == (text or "?" if field == "service" else text)


@pytest.mark.parametrize("text", STRINGS)
def test_strings_in_text(text: str) -> None:
    found = line(as_json=False, peer=text, caller=text)
    shown = visible(text).encode("utf-8", "backslashreplace").decode()
    assert found.endswith(f" framed {shown}" + (f" from={shown}" if text else ""))
    assert found.isprintable()


def test_a_long_method_is_cut() -> None:
    assert json.loads(line(method="m" * 1000))["method"] == "m" * 200


@pytest.mark.parametrize(
    ("seconds", "as_json", "as_text"),
    [
        (0.0, 0.0, "0.000ms"),
        (0.0000004, 0.0, "0.000ms"),
        (0.0000006, 0.000001, "0.001ms"),
        (0.999999, 0.999999, "999.999ms"),
        (59.9999999, 60.0, "60000.000ms"),
        (86400.5, 86400.5, "86400500.000ms"),
    ],
)
def test_times(seconds: float, as_json: float, as_text: str) -> None:
    assert json.loads(line(elapsed=seconds))["elapsed"] == as_json
    assert f" {as_text} " in line(as_json=False, elapsed=seconds)


def test_sizes_and_codes() -> None:
    found = json.loads(line(size=2**40, code=99))
    assert (found["bytes_in"], found["bytes_out"], found["code"]) == (2**40, 20, "99")


def test_the_stamp() -> None:
    assert re.fullmatch(r"2026-01-02T03:04:05\.\d{3}\+01:00", json.loads(line())["time"])


def test_colour() -> None:
    good, bad = line(as_json=False, colour=True), line(as_json=False, colour=True, code=13, error=ValueError("x"))
    assert re.match(r"\x1b\[2m2026-01-02T03:04:05\.\d{3}\+01:00 worker 1\x1b\[0m Echo\.echo \x1b\[32mOK\x1b\[0m 500", good)
    assert "\x1b[31mINTERNAL\x1b[0m" in bad
    assert bad.endswith(" error=x")


def test_a_field_of_the_wrong_type_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[bytes] = []
    spool = Spool(1000, lambda: None)
    log = AccessLog(
        spool, lines.append, as_json=True, role="", colour=False, clock=lambda _: (b"", b""), told=str, codes={}, logger="", pid=1
    )
    with caplog.at_level(logging.ERROR, "weego.worker"):
        logging.getLogger("weego").propagate = True
        for wrong in (Done(peer=None), Done(size="much"), Done(elapsed=None), Done(method=3)):
            log(wrong, wrong, 0, 0, None)
    assert [record.message for record in caplog.records] == ["access log line cannot be formatted"] * 4
    assert len(spool) == 0


def test_lines_go_to_the_spool() -> None:
    spool = Spool(300, lambda: None)
    log = AccessLog(
        spool, None, as_json=True, role="w", colour=False, clock=lambda _: (b"", b""), told=str, codes={}, logger="a", pid=1
    )
    for _ in range(3):
        log(Done(), Done(), 0, 0, None)
    taken = spool.take().decode().splitlines()
    assert [json.loads(each)["method"] for each in taken] == ["echo"]
    assert spool.dropped == 2


class Unread(Done):
    """A call of which nothing may be asked."""

    @property
    def elapsed(self) -> float:
        raise AssertionError("the line is made")

    @elapsed.setter
    def elapsed(self, seconds: float) -> None:
        """What `Done` sets."""


def test_no_line_is_made_that_no_room_is_for() -> None:
    spool = Spool(300, lambda: None)
    spool.put(b"x" * 250)
    log = AccessLog(
        spool, None, as_json=True, role="w", colour=False, clock=lambda _: (b"", b""), told=str, codes={}, logger="a", pid=1
    )
    log(Unread(), Unread(), 0, 0, None)
    assert (len(spool), spool.dropped) == (250, 1)
