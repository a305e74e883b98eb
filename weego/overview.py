"""What policies and pools of this process look like just now, as plain values; and those of several workers as one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from weego.client import stats

if TYPE_CHECKING:
    from weego.governed_config import ServerGovernance
    from weego.serving import Serving

__all__ = ["merge", "view"]


def view(server: ServerGovernance | None, serving: Serving | None = None) -> str:
    """What a worker answers to `weego ctl`."""
    found = server.snapshot() if server is not None else None
    if found is not None and serving is not None:
        found["limits"] += serving.snapshot()
    return json.dumps({"clients": stats(), "server": found})


def merge(workers: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The views of several workers as rows of instances, sources of them, breakers, limits, pools, calls and budgets.

    What workers count together is said once; what each has for itself (idle connections, refusals, who is ejected) is summed up.
    """
    merged = _Merged()
    for each in workers:
        merged.add(each)
    return {kind: list(rows.values()) for kind, rows in merged.rows.items()}


class _Merged:
    def __init__(self) -> None:
        self.rows: dict[str, dict[Any, dict[str, Any]]] = {
            kind: {} for kind in ("instances", "sources", "breakers", "limits", "pools", "calls", "budgets")
        }

    def row(self, table: str, key: Any, **first: Any) -> dict[str, Any]:
        return self.rows[table].setdefault(key, first)

    def add(self, worker: dict[str, Any]) -> None:
        for client in worker["clients"]:
            service = client["service"]
            for pool in client["pools"]:
                row = self.row("pools", (service, pool["kind"]), service=service, kind=pool["kind"])
                for name, value in pool.items():
                    if name != "kind":
                        row[name] = row.get(name, 0) + value
            if client["governance"] is not None:
                self.add_governed(service, client["governance"])
        server = worker["server"]
        if server is not None:
            for limit in server["limits"]:
                self.add_limit("server", limit)
            if server["shedding"] is not None:
                row = self.row("limits", ("server", "shedding"), side="server", name="shedding", current=0, refused=0)
                row["refused"] += server["shedding"]["refused"]
                row["current"] += bool(server["shedding"]["overloaded"])

    def add_governed(self, service: str, found: dict[str, Any]) -> None:
        for instance in found["instances"]:
            row = self.row("instances", (service, instance["address"]), service=service, workers=0, ejected_by=0)
            row.update({name: value for name, value in instance.items() if name != "ejected"})
            row["workers"] += 1
            row["ejected_by"] += bool(instance["ejected"])
        first = {"source": found["source"], "workers": 0, "troubled": 0, "age": found["age"], "problem": "", "changes": found["changes"]}
        source = self.row("sources", service, service=service, **first)
        source["workers"] += 1
        if found["age"] is None or (source["age"] is not None and found["age"] > source["age"]):  # who has heard of it least lately
            source["age"] = found["age"]
        if found["problem"]:
            source["troubled"] += 1
            source["problem"] = found["problem"]
        if found["problem"] and not found["instances"]:
            self.row("instances", (service, ""), service=service, address="", problem=found["problem"], workers=1, ejected_by=0)
        for breaker in found["breakers"]:
            self.row("breakers", breaker["name"], service=service, **breaker)
        for limit in found["limits"]:
            self.add_limit("client", limit)
        for calls in found["calls"]:
            self.row("calls", (service, calls["method"]), **calls)
        budget = self.row("budgets", service, service=service, left=found["retry_budget"]["left"], refused=0)
        budget["refused"] += found["retry_budget"]["refused"]

    def add_limit(self, side: str, limit: dict[str, Any]) -> None:
        row = self.row("limits", (side, limit["name"]), **{**limit, "side": side, "refused": 0})
        row["refused"] += limit["refused"]
