"""The examples of config-etcd's README as our tables, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from weego import config as configuration
from weego.kitex_config import CLIENT_CATEGORIES, client_table, limit_tables

EXAMPLES: dict[str, tuple[Any, dict[str, Any]]] = {
    "retry": (
        {
            "*": {
                "enable": True,
                "type": 0,
                "failure_policy": {
                    "stop_policy": {"max_retry_times": 3, "max_duration_ms": 2000, "cb_policy": {"error_rate": 0.3}},
                    "backoff_policy": {"backoff_type": "fixed", "cfg_items": {"fix_ms": 50}},
                    "retry_same_node": False,
                },
            },
            "echo": {
                "enable": True,
                "type": 1,
                "backup_policy": {
                    "retry_delay_ms": 100,
                    "retry_same_node": False,
                    "stop_policy": {"max_retry_times": 2, "max_duration_ms": 300, "cb_policy": {"error_rate": 0.2}},
                },
            },
            "mixed": {
                "enable": True,
                "type": 2,
                "mixed_policy": {"retry_delay_ms": 10, "stop_policy": {"max_retry_times": 1}, "backoff_policy": {"backoff_type": "none"}},
            },
            "off": {"enable": False},
        },
        {
            "retries": 3, "hedges": 0, "retry_duration": 2.0, "retry_error_rate": 0.3, "retry_backoff": 0.05,
            "method": {
                "echo": {"retries": 0, "hedges": 2, "hedge_after": 0.1, "retry_duration": 0.3, "retry_error_rate": 0.2,
                         "retry_backoff": 0.0, "idempotent": True},
                "mixed": {"retries": 1, "hedges": 1, "hedge_after": 0.01, "retry_duration": 0.0, "retry_error_rate": 0,
                          "retry_backoff": 0.0, "idempotent": True},
                "off": {"retries": 0, "hedges": 0},
            },
        },
    ),
    "rpc_timeout": (
        {"*": {"conn_timeout_ms": 100, "rpc_timeout_ms": 3000}, "echo": {"conn_timeout_ms": 50, "rpc_timeout_ms": 1000}},
        {"connect_timeout": 0.1, "attempt_timeout": 3.0, "method": {"echo": {"attempt_timeout": 1.0}}},
    ),
    "circuit_break": (
        {"echo": {"enable": True, "err_rate": 0.3, "min_sample": 100}},
        {"method": {"echo": {"breaker": True, "breaker_error_rate": 0.3, "breaker_min_sample": 100}}},
    ),
    "degradation": ({"enable": True, "percentage": 30}, {"drop": 0.3}),
}  # fmt: skip


@pytest.mark.parametrize("category", CLIENT_CATEGORIES)
def test_the_examples(category: str) -> None:
    value, table = EXAMPLES[category]
    assert client_table(category, json.dumps(value).encode()) == table
    # And the configuration takes it.
    fresh = configuration.overlay(configuration.Program(), {"client": {"item": table}}, category)
    assert fresh.client["item"] != configuration.Client()


def test_limits() -> None:
    found = limit_tables(b'{"connection_limit": 100, "qps_limit": 2000}')
    assert found == {"governance": {"limit": [{"name": "qps_limit", "rate": 2000}]}, "limits": {"max_connections_total": 100}}
    assert limit_tables(b"{}") == {}


@pytest.mark.parametrize(
    ("category", "value", "problem"),
    [
        ("retry", b"{", "it is no JSON"),
        ("retry", b"[" * 100_000, "it is no JSON"),
        ("retry", b"[]", "a category is a table"),
        ("retry", b'{"*": 3}', r"the policy of \* is a table"),
        ("retry", b'{"*": {"enable": 1}}', "enable is true or false, not 1"),
        ("retry", b'{"*": {"enable": true, "type": 3}}', r"type is 0 \(failure\)"),
        ("retry", b'{"*": {"enable": true, "type": 1}}', "the backup_policy of type 1 is a table"),
        ("retry", b'{"*": {"enable": true, "failure_policy": {"stop_policy": {"max_retry_times": -1}}}}', "max_retry_times is a number, 0 or more"),
        ("retry", b'{"*": {"enable": true, "failure_policy": {"backoff_policy": {"backoff_type": "x"}}}}', "backoff_type is none, fixed or random"),
        ("rpc_timeout", b'{"*": {"rpc_timeout_ms": "1s"}}', "rpc_timeout_ms is a number"),
        ("degradation", b'{"enable": true, "percentage": true}', "percentage is a number"),
    ],
)
def test_what_is_refused(category: str, value: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        client_table(category, value)
