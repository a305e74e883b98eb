"""The result of a run: as one JSON object for scripts and as tables for people.

The object's fields are documented in ``docs/benchmarks.md``; ``SCHEMA`` changes when one changes its meaning.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import clients
from bench.peer import PEERS
from bench.stats import Spread, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.load import Sample

SCHEMA = "weego-bench/1"

FIGURES = (
    "server_cpu_us",
    "requests_per_second",
    "p50_us",
    "p99_us",
    "rss_bytes",
    "server_busy",
    "generator_cpu_us",
    "generator_busy",
)

BASES = ("floor", "thriftpy2", "kitex")
"""What ratios are taken against."""


@dataclass
class Cell:
    """All rounds of one server with one message and one number of connections."""

    peer: str
    message: str
    connections: int
    samples: list[Sample] = field(default_factory=list)

    def spread(self, figure: str) -> Spread | None:
        """Median and range of one of FIGURES; None when nothing was measured."""
        return Spread.of(getattr(sample, figure) for sample in self.samples) if self.samples else None


@dataclass(frozen=True)
class Target:
    """A figure weego promises (median against median), as an upper or a lower limit."""

    name: str
    limit: float
    aim: float
    at_most: bool

    def met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit


@dataclass(frozen=True)
class Finding:
    """A target and what the run measured for it."""

    target: Target
    value: float
    noisy: bool
    """The run was disturbed: the value, and whether it meets the limit, say little."""

    def verdict(self) -> str:
        """One line for people."""
        target = self.target
        sign = "≤" if target.at_most else "≥"
        word = "met" if target.met(self.value) else "MISSED"
        if self.noisy:
            word = f"NOISY, would be {word}"
        return f"{word}: {target.name} = {self.value:.2f} (limit {sign} {target.limit:g}, aim {target.aim:g})"


QUIET_BUSY = 0.8
"""In a closed loop at full load the server or the generator never rests. When both had their CPU for less of the time than
this, strangers had it. Cold caches and extra wake-ups do not slow all servers by one factor, so ratios move, either way."""

QUIET_RANGE = 0.25
"""Codecs are measured in CPU time, where disturbance shows as rounds that lie further apart than this (by the median)."""

CPU_BY_FLOOR = Target("server CPU per request by the floor's (1KiB, 100 connections)", 2.0, 1.4, at_most=True)
CPU_BY_THRIFTPY2 = Target("thriftpy2-gevent's server CPU by weego's (1KiB, 100 connections)", 3.5, 5.0, at_most=False)
CPU_BY_KITEX = Target("server CPU per request by Kitex's (1KiB, 100 connections)", 1.0, 0.8, at_most=True)
CLIENT_BY_KITEX = Target("client CPU per call by Kitex's (framed, 100 callers)", 1.5, 1.0, at_most=True)
ENCODE = Target("thriftpy2's encode time by weego's (complex)", 5.0, 5.0, at_most=False)
DECODE = Target("thriftpy2's decode time by weego's (complex)", 3.5, 3.5, at_most=False)


@dataclass
class Result:
    """Everything one run measured."""

    host: dict[str, object]
    settings: dict[str, object]
    cells: list[Cell] = field(default_factory=list)
    codecs: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    clients: dict[clients.Cell, list[clients.ClientSample]] = field(default_factory=dict)

    def cell(self, peer: str, message: str, connections: int) -> Cell | None:
        """The cell with these three names, if it was measured."""
        for cell in self.cells:
            if (cell.peer, cell.message, cell.connections) == (peer, message, connections):
                return cell
        return None

    def codec(self, name: str, operation: str) -> Spread | None:
        """µs per call of one codec's operation, if it was measured."""
        values = self.codecs.get(name, {}).get(operation)
        return Spread.of(values) if values else None

    def cpu_ratio(self, cell: Cell, base: str) -> float | None:
        """Server CPU per request of ``cell`` by that of ``base`` under the same load."""
        other = self.cell(base, cell.message, cell.connections)
        return ratio(cell.spread("server_cpu_us"), other.spread("server_cpu_us") if other else None)

    def client_ratio(self, cell: clients.Cell) -> float | None:
        """The CPU per call of a client by that of Kitex's under the same load."""
        ours, theirs = self.clients.get(cell), self.clients.get(cell._replace(client="kitex"))
        if not ours or not theirs:
            return None
        return ratio(Spread.of(sample.cpu_us for sample in ours), Spread.of(sample.cpu_us for sample in theirs))

    def targets(self) -> list[Finding]:
        """The promised figures this run can speak about, with what it measured; none when it only was a smoke test."""
        if self.settings.get("smoke"):
            return []
        found: list[Finding] = []
        cell = self.cell("weego", "1KiB", 100)
        for target, base in ((CPU_BY_FLOOR, "floor"), (CPU_BY_THRIFTPY2, "thriftpy2"), (CPU_BY_KITEX, "kitex")):
            value = self.cpu_ratio(cell, base) if cell is not None else None
            if value:
                noisy = any(self._shared_its_cpu(peer, "1KiB", 100) for peer in ("weego", base))
                found.append(Finding(target, value if target.at_most else 1 / value, noisy))
        value = self.client_ratio(clients.Cell("weego", "framed", 100, "pingpong"))
        if value:
            found.append(Finding(CLIENT_BY_KITEX, value, noisy=False))
        for target, operation in ((ENCODE, "encode"), (DECODE, "decode")):
            theirs, ours = self.codec("thriftpy2", operation), self.codec("weego", operation)
            value = ratio(theirs, ours)
            if theirs and ours and value is not None:
                noisy = any(spread.high - spread.low > QUIET_RANGE * spread.median for spread in (theirs, ours))
                found.append(Finding(target, value, noisy))
        return found

    def _shared_its_cpu(self, peer: str, message: str, connections: int) -> bool:
        """Whether any round of that cell was disturbed; the worst one, as a median over few rounds follows it."""
        cell = self.cell(peer, message, connections)
        return cell is not None and any(
            max(sample.server_busy, sample.generator_busy) < QUIET_BUSY for sample in cell.samples
        )


def as_json(result: Result) -> dict[str, Any]:
    """The result for scripts."""
    servers = []
    for cell in result.cells:
        row: dict[str, Any] = {"peer": cell.peer, "message": cell.message, "connections": cell.connections}
        row["rounds"] = len(cell.samples)
        for figure in FIGURES:
            spread = cell.spread(figure)
            row[figure] = spread.as_dict() if spread else None
        row["cpu_ratio"] = {base: result.cpu_ratio(cell, base) for base in BASES}
        row["samples"] = [{name: getattr(sample, name) for name in ("requests", *FIGURES)} for sample in cell.samples]
        servers.append(row)
    codecs = [
        {
            "codec": name,
            "operation": operation,
            "us": Spread.of(values).as_dict(),
            "ratio_thriftpy2": ratio(Spread.of(values), result.codec("thriftpy2", operation)),
            "samples": values,
        }
        for name, operations in result.codecs.items()
        for operation, values in operations.items()
    ]
    targets = [
        {
            "name": finding.target.name,
            "value": finding.value,
            "limit": finding.target.limit,
            "aim": finding.target.aim,
            "at_most": finding.target.at_most,
            "met": finding.target.met(finding.value),
            "noisy": finding.noisy,
        }
        for finding in result.targets()
    ]
    return {
        "schema": SCHEMA,
        "host": result.host,
        "settings": result.settings,
        "servers": servers,
        "clients": [
            {
                "client": cell.client,
                "transport": cell.transport,
                "callers": cell.callers,
                "cpu_us": Spread.of(sample.cpu_us for sample in samples).as_dict(),
                "calls_per_second": Spread.of(sample.calls_per_second for sample in samples).as_dict(),
                "ratio_kitex": result.client_ratio(cell),
            }
            for cell, samples in result.clients.items()
        ],
        "codecs": codecs,
        "targets": targets,
        "missing": result.missing,
    }


# ---------------------------------------------------------------- tables


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _spread(spread: Spread | None, scale: float = 1.0) -> str:
    if spread is None:
        return "–"
    median, low, high = (_number(value / scale) for value in (spread.median, spread.low, spread.high))
    return median if low == high else f"{median} ({low}..{high})"


def _times(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}×"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A Markdown table whose columns also line up in a terminal."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "| " + " | ".join(padded) + " |"

    yield line(head)
    yield "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    yield from map(line, rows)


def _server_tables(result: Result) -> Iterator[str]:
    head = ("server", "CPU µs/request", "× floor", "× thriftpy2", "× kitex", "requests/s", "p50 µs", "p99 µs", "RSS MiB", "busy %")
    loads = list(dict.fromkeys((cell.message, cell.connections) for cell in result.cells))
    for message, connections in loads:
        rows = []
        for cell in result.cells:
            if (cell.message, cell.connections) != (message, connections):
                continue
            rows.append(
                (
                    cell.peer,
                    _spread(cell.spread("server_cpu_us")),
                    _times(result.cpu_ratio(cell, "floor")),
                    _times(result.cpu_ratio(cell, "thriftpy2")),
                    _times(result.cpu_ratio(cell, "kitex")),
                    _spread(cell.spread("requests_per_second")),
                    _spread(cell.spread("p50_us")),
                    _spread(cell.spread("p99_us")),
                    _spread(cell.spread("rss_bytes"), 1 << 20),
                    _spread(cell.spread("server_busy"), 0.01),
                )
            )
        yield f"{message}, {connections} connection{'s' if connections > 1 else ''}"
        yield ""
        yield from _table(head, rows)
        yield ""


def _client_table(result: Result) -> Iterator[str]:
    head = ("client", "transport", "callers", "CPU µs/call", "× kitex", "calls/s")
    rows = []
    for cell, samples in result.clients.items():
        spread = Spread.of(sample.cpu_us for sample in samples)
        rows.append(
            (
                cell.client,
                cell.transport,
                str(cell.callers),
                _spread(spread),
                _times(result.client_ratio(cell)),
                _spread(Spread.of(sample.calls_per_second for sample in samples)),
            )
        )
    yield "Clients, calls of 1 KiB to a Kitex server (CPU time of the client's process)"
    yield ""
    yield from _table(head, rows)
    yield ""


def _codec_table(result: Result) -> Iterator[str]:
    operations = (
        ("encode", "encode µs"),
        ("build_encode", "build + encode µs"),
        ("decode", "decode µs"),
        ("decode_read", "decode + read µs"),
    )
    head = ["codec"]
    for _, title in operations:
        head += [title, "× thriftpy2"]
    rows = []
    for name in result.codecs:
        row = [name]
        for operation, _ in operations:
            spread = result.codec(name, operation)
            row += [_spread(spread), _times(ratio(spread, result.codec("thriftpy2", operation)))]
        rows.append(row)
    yield "The codec alone, complex message (CPU time per call)"
    yield ""
    yield from _table(head, rows)
    yield ""


def as_text(result: Result) -> str:
    """The result for people: Markdown that reads well in a terminal."""
    lines: list[str] = []
    titles = {peer.name: peer.title for peer in PEERS}
    host = result.host
    lines.append(f"{host['cpu']}, {host['cpus']} CPUs, Linux {host['kernel']}, Python {host['python']}")
    settings = result.settings
    lines.append(
        f"median (smallest..largest) of {settings['rounds']} rounds of {settings['seconds']} s each, alternating"
        + (" – smoke: shows that everything runs, measures nothing" if settings.get("smoke") else "")
    )
    for name in dict.fromkeys(cell.peer for cell in result.cells):
        lines.append(f"  {name}: {titles[name]}")
    for name, why in result.missing.items():
        lines.append(f"  {name}: not measured – {why}")
    lines.append("")
    if result.cells:
        lines += _server_tables(result)
    if result.clients:
        lines += _client_table(result)
    if result.codecs:
        lines += _codec_table(result)
    findings = result.targets()
    lines += [finding.verdict() for finding in findings]
    if any(finding.noisy for finding in findings):
        lines.append("NOISY: other work shared the CPUs during these rounds; measure again on a quiet machine")
    return "\n".join(lines).rstrip() + "\n"
