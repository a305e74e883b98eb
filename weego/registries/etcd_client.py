"""A cluster of etcd (v3), as far as discovery and the config centre need it, over our own gRPC client.

One endpoint is spoken to at a time, chosen at random at the start; one that fails is left for the next. Everybody in a process who names the same cluster
shares its connections: one for questions, one for all watches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeVar

from codec.errors import Code, RpcError
from governance.call import Call
from governance.chain import Handler
from governance.discovery import DiscoveryError
from governance.instance import NOBODY, Instance
from weego.registries.gen.etcdserverpb.etcd import (
    AuthClient,
    AuthenticateRequest,
    DeleteRangeRequest,
    Event,
    KeyValue,
    KVClient,
    LeaseClient,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    WatchClient,
    WatchCreateRequest,
    WatchRequest,
)
from weego.registries.shared import Shared
from weego.registries.url import TLS_OPTIONS, RegistryUrl, duration, read

__all__ = ["DELETE", "Etcd", "EtcdWatch", "end_of", "open_etcd", "read_url"]

PORT: Final = 2379
# Seconds that one endpoint has for one answer. clientv3 has no limit of its own; Kitex's registry uses 3 s.
TIMEOUT: Final = 2.0
# A watch is silent for hours; so often (seconds) the peer is asked whether it is there, and has so long to say so. etcd refuses who asks more often than
# every 5 s (--grpc-keepalive-min-time).
KEEPALIVE_TIME: Final = 10.0
KEEPALIVE_TIMEOUT: Final = 5.0
IDLE_TIMEOUT: Final = 60.0
# Event.type (mvccpb/kv.proto).
DELETE: Final = 1

_Answer = TypeVar("_Answer")


def read_url(url: str, **more: Callable[[str], Any]) -> RegistryUrl:
    """A URL of etcd; `more` are options beside those of the connection. UsageError."""
    options = {"timeout": duration, **TLS_OPTIONS, **more}
    return read(url, port=PORT, options=options, secure="etcds", example="etcd://10.0.0.1:2379,10.0.0.2:2379/echo")


def end_of(prefix: bytes) -> bytes:
    """The end of the range of all keys that begin with `prefix`: the first that does not; a zero byte, which
    etcd reads as no end, if there is none.
    """
    for index in range(len(prefix) - 1, -1, -1):
        if prefix[index] < 0xFF:
            return prefix[:index] + bytes((prefix[index] + 1,))
    return b"\0"


class _Turn:
    """The balancer of its clients: the same endpoint until it fails."""

    def __init__(self) -> None:
        self._order: list[Instance] = []
        self._at = 0

    def update(self, instances: Sequence[Instance]) -> None:
        self._order = random.sample(list(instances), len(instances))

    def pick(self, call: Call, avoid: AbstractSet[str] = NOBODY) -> Instance | None:
        """The one whose turn it is; for a second attempt, which means that it could not be reached, the next one."""
        if call.attempt > 1:
            self.next()
        return self._order[self._at % len(self._order)]

    def next(self) -> None:
        """Leave the one whose turn it is."""
        self._at += 1


class Etcd:
    """One cluster. Every method may wait and raises DiscoveryError. May be used from any thread and any greenlet."""

    def __init__(self, url: RegistryUrl) -> None:
        self.url = url
        self._timeout = float(url.option("timeout", TIMEOUT))
        self._turn = _Turn()
        self._token: str | None = None if url.user else ""
        """What shows who asks: None when nobody has logged in yet, empty where nobody needs to."""
        options: dict[str, Any] = {
            "tls": url.tls(),
            "idle_timeout": IDLE_TIMEOUT,
            "connect_timeout": self._timeout,
            "middleware": [self._authorized],
        }
        addresses = url.addresses()
        self._kv = KVClient(addresses, balancer=self._turn, **options)
        self._lease = LeaseClient(addresses, balancer=self._turn, **options)
        self._auth = AuthClient(addresses, balancer=self._turn, **options)
        self._turn.update([Instance(each) for each in addresses])
        # A watch has a turn of its own: it may hang at an endpoint that answers questions.
        self._watches = WatchClient(
            addresses,
            balancer=(turn := _Turn()),
            keepalive_time=KEEPALIVE_TIME,
            keepalive_timeout=KEEPALIVE_TIMEOUT,
            **options,
        )
        self._watch_turn = turn

    # ---- questions ---------------------------------------------------------------------------------------------------

    def range(self, key: bytes, end: bytes = b"") -> tuple[list[KeyValue], int]:
        """The key, or all from it up to `end`, and the revision of the store that this is true of."""
        answer = self._ask(self._kv.range, RangeRequest(key=key, range_end=end))
        return answer.kvs, answer.header.revision if answer.header is not None else 0

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        """Write it; it lives as long as the lease, if there is one."""
        self._ask(self._kv.put, PutRequest(key=key, value=value, lease=lease))

    def delete(self, key: bytes) -> None:
        """Remove it."""
        self._ask(self._kv.delete_range, DeleteRangeRequest(key=key))

    def grant(self, seconds: int) -> int:
        """A new lease."""
        lease: int = self._ask(self._lease.lease_grant, LeaseGrantRequest(ttl=seconds)).id
        return lease

    def renew(self, lease: int) -> bool:
        """Begin its time anew. False: there is no such lease any more."""

        def once(request: LeaseKeepAliveRequest, *, timeout: float) -> int:
            with self._lease.lease_keep_alive(timeout=timeout) as stream:
                stream.send(request)
                stream.close_send()
                return sum(answer.ttl for answer in stream)  # there is one

        return self._ask(once, LeaseKeepAliveRequest(id=lease)) > 0

    def revoke(self, lease: int) -> None:
        """End it now; what lives by it goes. Nothing happens when it is over already."""
        try:
            self._ask(self._lease.lease_revoke, LeaseRevokeRequest(id=lease))
        except _Refused as error:
            if error.code != Code.NOT_FOUND:
                raise

    def watch(self, key: bytes, end: bytes, revision: int) -> EtcdWatch:
        """What happens to the keys from `revision` on."""
        if self._token is None:
            self._login()
        try:
            return EtcdWatch(self._watches, key, end, revision, self._watch_failed)
        except RpcError as error:
            raise self._watch_failed(error) from None

    def _ask(self, method: Callable[..., _Answer], request: Any) -> _Answer:
        """Call, at the next endpoint if this one does not answer, and with a new token if the old one is good no more."""
        # A connection may have ended unnoticed: even a single endpoint is asked twice. Nothing asked here does harm when it is done twice.
        others = max(1, len(self.url.hosts) - 1)
        has_logged_in = False
        while True:
            if self._token is None:
                self._login()
                has_logged_in = True
            try:
                return method(request, timeout=self._timeout)
            except RpcError as error:
                if self.url.user and not has_logged_in and _wants_token(error):
                    self._token = None
                elif error.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                    self._turn.next()
                    others -= 1
                    if others < 0 or (len(self.url.hosts) == 1 and error.code == Code.DEADLINE_EXCEEDED):
                        raise _Refused(self.url.text, error) from None
                else:
                    raise _Refused(self.url.text, error) from None

    def _watch_failed(self, error: RpcError) -> DiscoveryError:
        self._watch_turn.next()
        if self.url.user and _wants_token(error):
            self._token = None
        return _Refused(self.url.text, error)

    # ---- who asks ----------------------------------------------------------------------------------------------------

    def _login(self) -> None:
        try:
            answer = self._auth.authenticate(
                AuthenticateRequest(name=self.url.user, password=self.url.password), timeout=self._timeout
            )
        except RpcError as error:
            if error.code != Code.FAILED_PRECONDITION:  # authentication is not enabled: nobody asks for a token
                self._turn.next()
                raise _Refused(self.url.text, error) from None
            self._token = ""
        else:
            self._token = answer.token

    def _authorized(self, handler: Handler) -> Handler:
        def handle(call: Call, args: tuple[Any, ...]) -> Any:
            if self._token:
                call.send_metadata["token"] = self._token
            if call.method == "Watch":
                # A member that lost its leader ends the watch, instead of knowing nothing new for ever.
                call.send_metadata["hasleader"] = "true"
            return handler(call, args)

        return handle

    def close(self) -> None:
        """One user less; the connections are closed after the last one."""
        _shared.give(self.url.key)

    def _close(self) -> None:
        for client in (self._kv, self._lease, self._auth, self._watches):
            client.close()

    def __repr__(self) -> str:
        return f"<Etcd {self.url.text}>"


class _Refused(DiscoveryError):
    """etcd said no, or nothing."""

    def __init__(self, where: str, error: RpcError) -> None:
        super().__init__(f"etcd at {error.instance or where}: {error.message}")
        self.code = error.code


def _wants_token(error: RpcError) -> bool:
    # rpctypes: ErrGRPCInvalidAuthToken, ErrGRPCUserEmpty, ErrGRPCAuthOldRevision.
    return error.code == Code.UNAUTHENTICATED or "user name is empty" in error.message or "revision of auth store is old" in error.message


class EtcdWatch:
    """The changes of some keys, as they happen: iterate over it. Ends only by an error or by `close`."""

    def __init__(
        self, client: WatchClient, key: bytes, end: bytes, revision: int, failed: Callable[[RpcError], DiscoveryError]
    ) -> None:
        self._failed = failed
        self._stream = client.watch()
        create = WatchCreateRequest(key=key, range_end=end, start_revision=revision, progress_notify=True)
        self._stream.send(WatchRequest(create_request=create))

    def __iter__(self) -> Iterator[list[Event]]:
        """The events of one moment after the other. DiscoveryError when it cannot go on; what was missed is in a new `range`."""
        try:
            for answer in self._stream:
                if answer.canceled:
                    if answer.compact_revision:
                        raise DiscoveryError(f"etcd has forgotten what happened before its revision {answer.compact_revision}")
                    raise self._failed(RpcError(answer.cancel_reason or "it ended the watch", code=_code_of(answer.cancel_reason)))
                if answer.events:
                    yield answer.events
        except RpcError as error:
            raise self._failed(error) from None
        finally:
            self._stream.cancel()
        raise DiscoveryError("etcd ended the watch")

    def close(self) -> None:
        """End it: who waits for the next change waits no more. From any thread."""
        self._stream.cancel()


def _code_of(reason: str) -> Code:
    return Code.UNAUTHENTICATED if "auth token" in reason else Code.UNAVAILABLE


_shared: Shared[Etcd] = Shared(Etcd._close, survive=True)


def open_etcd(url: RegistryUrl) -> Etcd:
    """The cluster at `url`, which all of a process share; each user closes it."""
    return _shared.take(url.key, lambda: Etcd(url))
