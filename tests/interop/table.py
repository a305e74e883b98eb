"""The table in docs/interop.md: which case went well between weego and whom, over what and which way, as a run of the suite found it.

    python -m pytest tests/interop --interop-table docs/interop.md

replaces what stands between the two marks in that file. Cases that were not run are not in it, so only a run of everything writes all of it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

BEGIN: Final = "<!-- made by a run of tests/interop: begin -->"
END: Final = "<!-- made by a run of tests/interop: end -->"

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
    if module == "test_kitex_stream" and name == "test_kitex_calls_weego":
        return "Kitex", "calls weego", "ttheader-streaming", case
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


class Recorder:
    """Collects outcomes and writes the table at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: Found = defaultdict(lambda: defaultdict(list))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> object:
        """Note how a test ended: passed, failed or skipped."""
        report: pytest.TestReport = yield  # type: ignore[misc,assignment]
        where = place(item)
        if where is not None and (report.when == "call" or report.outcome != "passed"):
            self.found[where[:3]][where[3]].append(report.outcome)
        return report

    def pytest_sessionfinish(self) -> None:
        """Write."""
        if self.found:
            text = self.path.read_text()
            if BEGIN not in text or END not in text:
                raise pytest.UsageError(f"{self.path} has no place for the table: {BEGIN} … {END}")
            made = f"{BEGIN}\n\n{as_markdown(self.found)}\n{END}"
            self.path.write_text(re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: made, text, flags=re.DOTALL))


def as_markdown(found: Found) -> str:
    """A table for each peer and direction: cases down, protocols across; ✓ all passed, ✗ some failed, – not run."""
    parts = []
    for peer, direction in dict.fromkeys((peer, direction) for peer, direction, _ in found):
        protocols = [key[2] for key in found if key[:2] == (peer, direction)]
        cases = dict.fromkeys(case for protocol in protocols for case in found[peer, direction, protocol])
        parts.append(f"### {peer} {direction if direction == 'calls weego' else 'is called by weego'}\n")
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
