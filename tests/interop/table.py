"""The table in docs/interop.md: which case went well between weego and whom, over what and which way, as a run of the suite found it.

    make interop

runs all that the table tells of, and replaces what stands between the two marks in that file. A run in which a case was skipped or left out leaves the file as it was.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

BEGIN: Final = "<!-- made by a run of tests/interop: begin -->"
END: Final = "<!-- made by a run of tests/interop: end -->"

# What the tests of a Protobuf client do, as the table has it.
PROTOBUF_CASES: Final = {
    "test_weego_calls_kitex": "echo, empty, large",
    "test_errors_of_kitex": "a handler that fails",
    "test_business_statuses_of_kitex": "business status",
    "test_unknown_methods_of_kitex": "an unknown method",
    "test_metainfo_reaches_kitex": "metainfo",
    "test_many_calls_to_kitex": "many calls in flight",
}

STREAM_CASES: Final = {
    "test_weego_talks_with_kitex": "streams of all kinds",
    "test_metadata_and_metainfo_with_kitex": "metadata and metainfo",
    "test_errors_of_kitex": "errors",
    "test_kitex_is_told_who_cancels": "cancellation",
}

# (peer, direction, protocol) → case → outcomes
Found = dict[tuple[str, str, str], dict[str, list[str]]]


def place(item: pytest.Item) -> tuple[str, str, str, str] | None:
    """Peer, direction, protocol and case of a test, by what it is called and parametrized with; None: not for the table."""
    name = getattr(item, "originalname", item.name)
    params = dict(getattr(getattr(item, "callspec", None), "params", {}))
    module = item.path.stem
    check = params.get("check")
    case = getattr(check, "__name__", None) or (str(check) if check is not None else "")
    case = case.replace("_", " ").replace("-", " ")
    if module == "test_kitex":
        framing = str(params.get("framing", ""))
        if name == "test_kitex_calls_weego":
            return "Kitex", "calls weego", framing, case
        if name.endswith("_with_checksums"):
            return "Kitex", "calls weego" if name.startswith("test_kitex") else "is called", framing, "payload checksum"
        if name == "test_kitex_keeps_calling_while_weego_reloads":
            return "Kitex", "calls weego", framing, "weego reloads, no call lost"
        if "talk" in getattr(item, "fixturenames", ()):
            return "Kitex", "is called", framing, name.removeprefix("test_").replace("_", " ")
        return None
    if module == "test_kitex_protobuf":
        if name.startswith("test_kitex_calls_weego"):
            return "Kitex Protobuf", "calls weego", f"{params['transport']}, {params['stubs']}", case
        case = PROTOBUF_CASES[name]
        return "Kitex Protobuf", "is called", f"{params['client']}, {params['stubs']}", case
    if module == "test_kitex_stream" and name == "test_kitex_calls_weego":
        return "Kitex, streaming,", "calls weego", "TTHeader streaming", case
    if module == "test_kitex_stream" and "decorate" in params:
        case = STREAM_CASES[name]
        return "Kitex, streaming,", "is called", "gevent" if params["decorate"].__name__ == "with_hub" else "threads", case
    if module == "test_thrifttest":
        if name == "test_apaches_client":
            return "Apache's own test programs", "calls weego", f"{params['transport']}, {params['protocol']}", "every method"
        if name == "test_apaches_server":
            return "Apache's own test programs", "is called", ", ".join(params["apaches_server"][::-1]), case
        return None
    if module == "test_peers_call_weego" and name.endswith("_calls_weego"):
        peer = "thriftpy2" if "thriftpy2" in name else "Apache Thrift"
        protocol, transport = next(value for value in params.values() if isinstance(value, tuple))
        return peer, "calls weego", f"{transport}, {protocol}", case
    if module == "test_weego_calls_peers" and name == "test_weego_calls":
        server, transport = params["peer"]
        peer = "thriftpy2" if server == "thriftpy2" else "Apache Thrift"
        kind = server.removeprefix("apache ").removeprefix("thriftpy2")
        return peer, "is called", f"{transport}{', ' + kind if kind else ''}", case
    return None


# Where the cases of the table are.
MODULES: Final = {
    "test_kitex", "test_kitex_protobuf", "test_kitex_stream", "test_peers_call_weego", "test_weego_calls_peers", "test_thrifttest",
}  # fmt: skip


class Recorder:
    """Collects outcomes and writes the table at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: Found = defaultdict(lambda: defaultdict(list))
        self.modules: set[str] = set()
        self.problem = ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> object:
        """Note how a test ended: passed, failed or skipped."""
        report: pytest.TestReport = yield  # type: ignore[misc,assignment]
        where = place(item)
        if where is not None:
            self.modules.add(item.path.stem)
        if where is not None and (report.when == "call" or report.outcome != "passed"):
            self.found[where[:3]][where[3]].append(report.outcome)
        return report

    def pytest_sessionfinish(self) -> None:
        """Write."""
        skipped = [case for cases in self.found.values() for case, outcomes in cases.items() if "skipped" in outcomes]
        missing = MODULES - self.modules
        if skipped or missing:
            self.problem = f"{self.path} was left as it was: not run were {', '.join(sorted({*skipped, *missing}))}"
        elif self.found:
            text = self.path.read_text()
            if BEGIN not in text or END not in text:
                raise pytest.UsageError(f"{self.path} has no place for the table: {BEGIN} … {END}")
            made = f"{BEGIN}\n\n{as_markdown(self.found)}\n{END}"
            self.path.write_text(re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: made, text, flags=re.DOTALL))


    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say what became of the table."""
        terminalreporter.write_line(self.problem or f"{self.path}: the table is this run's")


def as_markdown(found: Found) -> str:
    """A table for each peer and direction: cases down, protocols across; ✓ all passed, ✗ some failed, – not run."""
    parts = []
    for peer, direction in dict.fromkeys((peer, direction) for peer, direction, _ in found):
        protocols = [key[2] for key in found if key[:2] == (peer, direction)]
        cases = dict.fromkeys(case for protocol in protocols for case in found[peer, direction, protocol])
        several = peer.endswith("s")
        words = {"calls weego": ("calls weego", "call weego"), "is called": ("is called by weego", "are called by weego")}[direction]
        parts.append(f"### {peer} {words[several]}\n")
        parts.append(f"| case | {' | '.join(protocols)} |")
        parts.append("|---" * (len(protocols) + 1) + "|")
        for case in cases:
            cells = [_mark(found[peer, direction, protocol].get(case, [])) for protocol in protocols]
            parts.append(f"| {case} | {' | '.join(cells)} |")
        parts.append("")
    return "\n".join(parts)


def _mark(outcomes: list[str]) -> str:
    ran = [outcome for outcome in outcomes if outcome != "skipped"]
    if not ran:
        return "–"
    return "✓" if all(outcome == "passed" for outcome in ran) else "✗"
