"""The page that Prometheus reads, in its text format 0.0.4: what the master and the scoreboard know of the processes.

Names and units follow Prometheus' own rules: base units, ``_total`` on counters, labels of few values and never a peer's.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from prefork import scoreboard, status
from prefork.status import ABUSES, COUNTERS, GAUGES
from prefork.tally import BOUNDS, CODES, SIDES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prefork.master import Master
    from prefork.tally import Row

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GAUGE_TEXTS = {
    "connections": ("weego_connections", "Connections open."),
    "inflight": ("weego_inflight_requests", "Requests in progress."),
}
_COUNTER_TEXTS = {
    "requests": ("weego_requests_total", "Requests served, those that failed included."),
    "errors": ("weego_request_errors_total", "Requests that failed."),
    "accepted": ("weego_accepted_connections_total", "Connections accepted."),
    "handed_over": ("weego_handed_over_connections_total", "Connections that a leaving worker gave to another."),
    "adopted": ("weego_adopted_connections_total", "Connections that a worker took from a leaving one."),
    "log_dropped": ("weego_log_dropped_total", "Log lines of workers that nobody took in time, or a full disk."),
    "refused": ("weego_refused_requests_total", "Requests that limits and shedding refused."),
    "client_calls": ("weego_client_calls_total", "Calls that clients in the workers made."),
    "client_errors": ("weego_client_errors_total", "Of these, those that failed."),
    "client_retries": ("weego_client_retries_total", "Further attempts after one that failed."),
    "client_hedges": ("weego_client_hedges_total", "Further attempts beside one that was slow."),
}

_SIDE_TEXTS = {"server": "that the workers served", "client": "that clients in the workers made, with all their attempts"}

#: A sample: labels and value.
Sample = tuple[dict[str, str], int]


def page(master: Master) -> bytes:
    """All of it."""
    history, current, board = master.history, master.current, master.board
    build = {"version": master.version, "python": ".".join(map(str, sys.version_info[:3]))}
    lines = [
        *_family("weego_build_info", "gauge", "Constant 1; what runs is in the labels.", [(build, 1)]),
        *_family(
            "weego_workers",
            "gauge",
            "Worker processes by state.",
            [({"state": state}, count) for state, count in status.states(master).items()],
        ),
        *_family(
            "weego_workers_wanted", "gauge", "Worker processes there should be.", _one(current.size if current else 0)
        ),
        *_family(
            "weego_generation", "gauge", "The generation that serves; each reload makes one.", _one(board.generation)
        ),
        *_family(
            "weego_reloads_total",
            "counter",
            "Reloads that ended, by result.",
            [({"result": result}, count) for result, count in history.reloads.items()],
        ),
        *_family(
            "weego_config_last_reload_successful",
            "gauge",
            "0 if the last reload failed, so that the config on disk is not the one that serves.",
            _one(history.reload_error is None),
        ),
        *_family(
            "weego_config_last_reload_success_timestamp_seconds",
            "gauge",
            "When the config that serves took effect.",
            _one(int(history.config_time)),
        ),
        *_family(
            "weego_worker_restarts_total",
            "counter",
            "Workers replaced outside of reloads, by reason.",
            [({"reason": reason}, count) for reason, count in history.restarts.items()],
        ),
        *_family(
            "weego_process_resident_memory_bytes",
            "gauge",
            "Resident memory; pages that processes share count in each of them.",
            [({"process": name}, size) for name, size in status.memory(master).items()],
        ),
    ]
    queued = {listener.actual: listener.queued for listener in current.listeners} if current else {}
    lines += _family(
        "weego_accept_queue_length",
        "gauge",
        "Connections that wait to be accepted, by address; TCP only.",
        [({"address": address}, length) for address, length in queued.items() if length is not None],
    )
    for key, (name, text) in _GAUGE_TEXTS.items():
        lines += _family(name, "gauge", text, _one(board.total(GAUGES[key])))
    for key, (name, text) in _COUNTER_TEXTS.items():
        lines += _family(name, "counter", text, _one(board.total(COUNTERS[key])))
    lines += _family(
        "weego_h2_abuse_total",
        "counter",
        "Connections, or streams that stalled, ended for abuse of HTTP/2, by kind.",
        [({"kind": kind}, board.total(scoreboard.FIRST_ABUSE + at)) for at, kind in enumerate(ABUSES)],
    )
    for side in SIDES:
        lines += _calls(side, master.tally.rows(side))
    return ("\n".join(lines) + "\n").encode()


def _calls(side: str, rows: list[Row]) -> list[str]:
    """Calls by method: how they ended, and a histogram of how long they took."""
    if not rows:
        return []
    calls, seconds = f"weego_{side}_method_calls_total", f"weego_{side}_call_duration_seconds"
    lines = _family(
        calls,
        "counter",
        f"Calls {_SIDE_TEXTS[side]}, by method and code.",
        [
            ({"service": row.service, "method": row.method, "code": code}, count)
            for row in rows
            for code, count in zip(CODES, row.codes, strict=True)
            if count
        ],
    )
    lines += _family(seconds, "histogram", f"How long calls took {_SIDE_TEXTS[side]}.", [])
    for row in rows:
        labels, below = {"service": row.service, "method": row.method}, 0
        for bound, count in zip(BOUNDS, row.buckets, strict=True):
            below += count
            lines.append(_sample(f"{seconds}_bucket", labels | {"le": "+Inf" if bound == math.inf else repr(bound)}, str(below)))
        lines.append(_sample(f"{seconds}_sum", labels, repr(row.microseconds / 1e6)))
        lines.append(_sample(f"{seconds}_count", labels, str(below)))
    return lines


def _one(value: int) -> list[Sample]:
    return [({}, value)]


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> list[str]:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    lines += [_sample(name, labels, f"{value:d}") for labels, value in samples]
    return lines


def _sample(name: str, labels: dict[str, str], value: str) -> str:
    inside = ",".join(f'{label}="{_escaped(each)}"' for label, each in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
