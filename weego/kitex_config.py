"""What kitex-contrib/config-etcd keeps in a config centre, as the tables of our configuration.

    /KitexConfig/<client>/<server>/retry            [client.<server>], per method: retries, hedges
    /KitexConfig/<client>/<server>/rpc_timeout      attempt_timeout, connect_timeout
    /KitexConfig/<client>/<server>/circuit_break    breaker, breaker_error_rate, breaker_min_sample
    /KitexConfig/<client>/<server>/degradation      drop
    /KitexConfig/<server>/limit                     [[governance.limit]], [limits] max_connections_total

Each value is JSON. Its types are checked here, its numbers when the tables are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

__all__ = ["CLIENT_CATEGORIES", "LIMIT", "client_table", "limit_tables"]

ALL_METHODS: Final = "*"
LIMIT: Final = "limit"
# Kitex's retry.Type.
FAILURE, BACKUP, MIXED = 0, 1, 2


def _read(value: bytes) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON: {error}") from None


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a table in {{}}, not {value!r:.60}")  # noqa: TRY004 -- one error for what others wrote
    return value


def _number(table: dict[str, Any], name: str, otherwise: float = 0) -> float:
    value = table.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError(f"{name} is a number, 0 or more, not {value!r:.60}")
    return value


def _flag(table: dict[str, Any], name: str) -> bool:
    value = table.get(name, False)
    if not isinstance(value, bool):
        raise ValueError(f"{name} is true or false, not {value!r:.60}")  # noqa: TRY004 -- likewise
    return value


def _per_method(value: Any, one: Callable[[dict[str, Any]], dict[str, Any]], whole: tuple[str, ...] = ()) -> dict[str, Any]:
    """A client's table of a table by method; `whole` are keys that a client has and a method has not."""
    found: dict[str, Any] = {}
    for method, each in _table(value, "a category").items():
        keys = one(_table(each, f"the policy of {method}"))
        if method == ALL_METHODS:
            found.update(keys)
        else:
            found.setdefault("method", {})[method] = {name: each for name, each in keys.items() if name not in whole}
    return found


def _retry(value: Any) -> dict[str, Any]:
    found = _per_method(value, _retry_policy)
    for keys in found.get("method", {}).values():
        # Who names a method there says that it may run twice: Kitex tries it again after a timeout.
        if keys["retries"] or keys["hedges"]:
            keys["idempotent"] = True
    return found


def _retry_policy(policy: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"retries": 0, "hedges": 0}
    if not _flag(policy, "enable"):
        return found
    kind = policy.get("type", FAILURE)
    if kind not in (FAILURE, BACKUP, MIXED):
        raise ValueError(f"type is 0 (failure), 1 (backup) or 2 (mixed), not {kind!r:.60}")
    name = ("failure_policy", "backup_policy", "mixed_policy")[kind]
    settings = _table(policy.get(name), f"the {name} of type {kind}")
    stop = _table(settings.get("stop_policy", {}), "stop_policy")
    times = int(_number(stop, "max_retry_times"))
    found["retries" if kind == FAILURE else "hedges"] = times
    if kind == MIXED:
        found["retries"] = times
    if kind != FAILURE:
        found["hedge_after"] = _number(settings, "retry_delay_ms") / 1000
    found["retry_duration"] = _number(stop, "max_duration_ms") / 1000
    found["retry_error_rate"] = _number(_table(stop.get("cb_policy") or {}, "cb_policy"), "error_rate")
    backoff = _table(settings.get("backoff_policy") or {}, "backoff_policy")
    items = _table(backoff.get("cfg_items") or {}, "cfg_items")
    match backoff.get("backoff_type", "none"):
        case "none":
            found["retry_backoff"] = 0.0
        case "fixed":
            found["retry_backoff"] = _number(items, "fix_ms") / 1000
        case "random":
            found["retry_backoff"] = _number(items, "max_ms") / 1000
        case other:
            raise ValueError(f"backoff_type is none, fixed or random, not {other!r:.60}")
    return found


def _timeout(value: Any) -> dict[str, Any]:
    def one(policy: dict[str, Any]) -> dict[str, Any]:
        # Kitex's timeout is that of one attempt: its retries are around it.
        keys = {"attempt_timeout": _number(policy, "rpc_timeout_ms") / 1000, "connect_timeout": _number(policy, "conn_timeout_ms") / 1000}
        return {name: seconds for name, seconds in keys.items() if seconds}

    return _per_method(value, one, whole=("connect_timeout",))


def _breaker(value: Any) -> dict[str, Any]:
    def one(policy: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {"breaker": _flag(policy, "enable")}
        for ours, theirs in (("breaker_error_rate", "err_rate"), ("breaker_min_sample", "min_sample")):
            if theirs in policy:
                found[ours] = _number(policy, theirs)
        return found

    return _per_method(value, one)


def _degradation(value: Any) -> dict[str, Any]:
    policy = _table(value, "degradation")
    return {"drop": _number(policy, "percentage") / 100 if _flag(policy, "enable") else 0.0}


_CATEGORIES: Final[dict[str, Callable[[Any], dict[str, Any]]]] = {
    "retry": _retry,
    "rpc_timeout": _timeout,
    "circuit_break": _breaker,
    "degradation": _degradation,
}
CLIENT_CATEGORIES: Final = tuple(_CATEGORIES)


def client_table(category: str, value: bytes) -> dict[str, Any]:
    """The keys of [client.<server>] that a value means. ValueError says what is wrong with it."""
    return _CATEGORIES[category](_read(value))


def limit_tables(value: bytes) -> dict[str, Any]:
    """The tables that a server's limits mean: for all workers together, as Kitex's are for its one process. ValueError."""
    policy = _table(_read(value), LIMIT)
    rate, connections = _number(policy, "qps_limit"), int(_number(policy, "connection_limit"))
    found: dict[str, Any] = {}
    if rate:
        found["governance"] = {"limit": [{"name": "qps_limit", "rate": rate}]}
    if connections:
        found["limits"] = {"max_connections_total": connections}
    return found
