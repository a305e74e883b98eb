"""How a change of each key of the configuration takes effect: in the workers that run, by new listeners, by new workers, by a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from weego.config import Config

__all__ = ["LIVE_OF_CLIENT", "WAYS", "ways"]

# How a change of the configuration takes effect; what is not here: by new workers (`prefork.changes`). What is "hot" here and not the
# master's affair, `App._follow` carries out.
WAYS: Final = {
    "admin": "hot",
    "governance": "hot",
    "grpc.keepalive_time": "hot",
    "grpc.keepalive_timeout": "hot",
    "grpc.max_message": "hot",
    "grpc.max_streams": "hot",
    "limits": "hot",
    "listen": "listeners",
    "log.level": "hot",
    "server.boot_timeout": "hot",
    "server.control": "hot",
    "server.graceful_timeout": "hot",
    "server.hang_timeout": "hot",
    "server.kill_memory": "hot",
    "server.max_lifetime": "hot",
    "server.max_memory": "hot",
    "server.max_requests": "hot",
    "server.pidfile": "restart",
    "server.rebalance": "hot",
    "server.workers": "hot",
    "streaming": "hot",
}
# Of [client.<service>]: what a client that there is can take on, between two calls. The rest is what it was made with.
LIVE_OF_CLIENT: Final = (
    "timeout", "attempt_timeout", "recv_timeout", "send_timeout", "connect_timeout", "balancer", "hash_key", "zone", "tag", "slow_start",
    "breaker", "breaker_error_rate", "breaker_min_sample", "breaker_cooling", "instance_breaker", "ejection", "ejection_failures", "ejection_time", "retries", "retry_backoff",
    "retry_duration", "retry_budget", "retry_error_rate", "hedges", "hedge_after", "rate", "concurrency", "drop", "metrics", "method",
)  # fmt: skip


def ways(config: Config) -> dict[str, str]:
    """How a change of each key takes effect; see `prefork.changes`."""
    found = dict(WAYS)
    for name, client in config.client.items():
        found |= {f"client.{name}.{key}": "hot" for key in LIVE_OF_CLIENT}
        # Its code may have to be imported, which new workers do.
        found |= {f"client.{name}.method.{method}.fallback": "workers" for method in client.method}
    return found
