"""zookeeper:// – instances as ephemeral nodes, which live as long as the session of who made them. Needs kazoo: pip install 'weego[zookeeper]'.

    /echo/10.0.0.1:8888    {"Weight":10,"Tags":{"lane":"blue"}}

The nodes are those of kitex-contrib/registry-zookeeper; zone and start time stand beside its names. kazoo waits with gevent's hub where there is one, else
with threads of its own. All users of a process have one session together.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

from codec.errors import UsageError
from governance.discovery import DiscoveryError, Registration
from governance.instance import Instance
from poller.address import parse
from weego.registries.shared import Shared
from weego.registries.url import TLS_OPTIONS, RegistryUrl, duration, read
from weego.tasks import hub_of_this_thread
from weego.transport import in_hub_thread

__all__ = ["ZookeeperRegistry", "ZookeeperResolver", "data_of", "instance_of"]

log = logging.getLogger("weego.governance")

PORT: Final = 2181
# Seconds that an answer may take.
TIMEOUT: Final = 2.0
# Seconds after which ZooKeeper takes a client that it does not hear of for dead. What is announced has its ttl for it; servers allow 4 s to 40 s by default.
SESSION: Final = 10.0
# While a watch is at work nothing is asked; when it is not, so often (seconds).
INTERVAL: Final = 5.0
# How long ending a session may take (seconds).
ENDING: Final = 15.0
MOST_BYTES: Final = 65536
EXAMPLE: Final = "zookeeper://10.0.0.1:2181,10.0.0.2:2181/echo"


def read_url(url: str) -> RegistryUrl:
    """A URL of ZooKeeper. UsageError."""
    options = {"timeout": duration, "prefix": _prefix, **TLS_OPTIONS}
    found = read(url, port=PORT, options=options, secure="zookeepers", example=EXAMPLE)
    if not found.hosts:
        raise UsageError(f"{found.text} names no host; write it like {EXAMPLE}")
    return found


class _Session:
    """One session: kazoo's client, waiting in one way."""

    def __init__(self, url: RegistryUrl, hub: Any, seconds: float) -> None:
        try:
            from kazoo.client import KazooClient
            from kazoo.handlers.gevent import SequentialGeventHandler
            from kazoo.handlers.threading import SequentialThreadingHandler
            from kazoo.security import make_digest_acl
        except ImportError:
            raise DiscoveryError("zookeeper:// needs kazoo: pip install 'weego[zookeeper]'") from None
        self.hub = hub
        self.is_over = False
        self.timeout = float(url.option("timeout", TIMEOUT))
        # What it has to say of a server that is away, we say.
        quiet = logging.getLogger("weego.governance.kazoo")
        quiet.setLevel(logging.CRITICAL)
        handler = SequentialThreadingHandler() if hub is None else SequentialGeventHandler()
        self.client = KazooClient(
            hosts=",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in url.hosts),
            timeout=seconds,
            handler=handler,
            auth_data=[("digest", f"{url.user}:{url.password}")] if url.user else None,
            default_acl=[make_digest_acl(url.user, url.password, all=True)] if url.user else None,
            # For ever, first after a tenth of a second, then up to five, a little at random.
            connection_retry={
                "max_tries": -1, "delay": 0.1, "backoff": 2, "max_delay": 5.0, "max_jitter": 0.4, "sleep_func": handler.sleep_func
            },
            logger=quiet,
            use_ssl=url.is_secure,
            ca=url.option("ca", None),
            certfile=url.option("cert", None),
            keyfile=url.option("key", None),
        )
        self.client.start_async()

    def ask(self, what: str, *args: Any, **options: Any) -> Any:
        """One of kazoo's ``…_async`` methods, and its result. Raises what kazoo raises for the node, DiscoveryError for all else."""
        from kazoo.exceptions import ConnectionLoss, KazooException, NodeExistsError, NoNodeError

        handler = self.client.handler
        try:
            if not self.client.connected:
                self._connected()
            return getattr(self.client, f"{what}_async")(*args, **options).get(timeout=self.timeout)
        except (NoNodeError, NodeExistsError):
            raise
        except handler.timeout_exception:
            raise DiscoveryError(f"ZooKeeper at {self._hosts()}: no answer in {self.timeout:g} s") from None
        except (ConnectionLoss, ConnectionError):
            raise DiscoveryError(f"ZooKeeper at {self._hosts()}: the connection was lost") from None
        except (KazooException, OSError) as error:
            raise DiscoveryError(f"ZooKeeper at {self._hosts()}: {str(error) or type(error).__name__}") from None

    def _connected(self) -> None:
        """Wait until it is. kazoo's own event is set when it is."""
        if not self.client._live.wait(self.timeout):
            raise DiscoveryError(f"ZooKeeper at {self._hosts()}: no connection in {self.timeout:g} s")

    def _hosts(self) -> str:
        return ",".join(f"{host}:{port}" for host, port in self.client.hosts)

    def end(self) -> None:
        """End the session, and what it announced. Never waits."""

        def stop() -> None:
            try:
                self.client.stop()
                self.client.close()
            except Exception as error:
                log.warning("the session with ZooKeeper at %s is not ended, but left to its time-out: %s", self._hosts(), error)
            self.is_over = True

        if self.hub is None:
            threading.Thread(target=stop, name="weego-zookeeper-end", daemon=True).start()
        elif self.hub.loop is not None:
            import gevent

            def stop_in_time() -> None:
                # kazoo joins the greenlet that connects, which may be at that for long.
                if gevent.with_timeout(ENDING, stop, timeout_value=True):
                    routine = self.client._connection._connection_routine
                    if routine is not None:
                        routine.kill(block=False)
                    atexit.unregister(self.client.handler.stop)
                    self.is_over = True

            in_hub_thread(self.hub, lambda: gevent.spawn(stop_in_time))


_sessions: Shared[_Session] = Shared(_Session.end, survive=False)


class _User:
    """Holds the sessions of one registry or resolver: one for each way of waiting, made when it is first wanted."""

    def __init__(self, url: RegistryUrl) -> None:
        self.url = url
        self._held: dict[Any, _Session] = {}
        self._pid = os.getpid()
        self._is_closed = False

    def session(self, seconds: float = SESSION) -> _Session:
        """For this thread, ended by ZooKeeper when it was silent for so long."""
        if self._pid != os.getpid():  # those that it has are the parent's
            self._held, self._pid = {}, os.getpid()
        hub = hub_of_this_thread()
        key = (self.url.key, hub, seconds)
        found = self._held.get(key)
        if found is None:
            found = self._held[key] = _sessions.take(key, lambda: _Session(self.url, hub, seconds))
            if self._is_closed:  # perhaps before that stood there
                self._give_all()
                raise DiscoveryError(f"ZooKeeper at {self.url.text}: its user is done with it")
        return found

    def close(self) -> None:
        """Give all back; there are no others afterwards. From any thread."""
        self._is_closed = True
        self._give_all()

    def _give_all(self) -> None:
        while self._held:
            with contextlib.suppress(KeyError):  # another thread was quicker
                _sessions.give(self._held.popitem()[0])


class ZookeeperRegistry:
    """Announces instances in the ZooKeeper at `url`: ``zookeeper://host:port,host:port``. UsageError for a wrong one."""

    def __init__(self, url: str) -> None:
        self.url = read_url(url)
        self._user = _User(self.url)

    def register(self, registration: Registration) -> None:
        """Make the instance's node, or see that it is there and this session's. Raises DiscoveryError."""
        from kazoo.exceptions import NodeExistsError, NoNodeError

        path, data = self._node(registration)
        session = self._user.session(registration.ttl)
        ours = session.client.client_id
        try:
            found, status = session.ask("get", path)
            if ours is not None and status.ephemeralOwner == ours[0]:
                if found != data:
                    session.ask("set", path, data)
                return
            # Of a session that has ended, or is about to: the node would go with it.
            session.ask("delete", path)
        except NoNodeError:
            pass
        try:
            session.ask("create", path, data, ephemeral=True, makepath=True)
        except NodeExistsError:
            raise DiscoveryError(f"{path}: another process announces the same address") from None

    def withdraw(self, registration: Registration) -> None:
        """Remove the node. Raises DiscoveryError."""
        from kazoo.exceptions import NoNodeError

        path, _ = self._node(registration)
        try:
            self._user.session(registration.ttl).ask("delete", path)
        except NoNodeError:
            pass

    def close(self) -> None:
        """End the session; what is announced goes with it."""
        self._user.close()

    def _node(self, registration: Registration) -> tuple[str, bytes]:
        instance = registration.instance
        scheme, _, name = instance.address.partition("://")
        if scheme != "tcp":  # a path would be a node below nodes, and Kitex's resolver fails at what is no host:port
            raise DiscoveryError(f"{instance.address} cannot be announced in ZooKeeper: only tcp://host:port can")
        return f"{_folder(self.url, registration.service)}/{name}", data_of(instance)

    def __repr__(self) -> str:
        return f"<ZookeeperRegistry {self.url.text}>"


class ZookeeperResolver:
    """Finds the instances of the service that `url` names: ``zookeeper://host:port,host:port/echo``. UsageError for a wrong one."""

    interval = INTERVAL

    def __init__(self, url: str) -> None:
        self.url = read_url(url)
        if not self.url.service:
            raise UsageError(f"{self.url.text} names no service; write it like {EXAMPLE}")
        try:
            self._folder = _folder(self.url, self.url.service)
        except DiscoveryError as error:
            raise UsageError(str(error)) from None
        self.source = f"{self.url.text}/{self.url.service}"
        self._user = _User(self.url)
        self._known: list[Instance] | None = None
        """What the watch that is at work has seen; None while none is."""
        self._is_closed = False
        self._wake: Callable[[], Any] = lambda: None

    def resolve(self) -> Sequence[Instance]:
        """All that are there. Raises DiscoveryError."""
        known = self._known
        return self._list(None) if known is None else known

    def watch(self, publish: Callable[[Sequence[Instance]], None]) -> None:
        """Publish all, then all at each change. Raises DiscoveryError."""
        session = self._user.session()
        changed = session.client.handler.event_object()
        hub = session.hub
        self._wake = changed.set if hub is None else lambda: in_hub_thread(hub, changed.set)
        try:
            while True:
                changed.clear()
                if self._is_closed:  # after that, or its wake-up is lost
                    return
                self._known = None
                found = self._list(lambda _: changed.set())
                self._known = found
                publish(found)
                changed.wait()  # a lost connection is told to all watches too
        finally:
            self._known = None
            self._wake = lambda: None

    def close(self) -> None:
        """End the watch that is under way, and the session if nobody else has it. From any thread."""
        self._is_closed = True
        self._wake()
        self._user.close()

    def _list(self, watch: Callable[[Any], Any] | None) -> list[Instance]:
        from kazoo.exceptions import NoNodeError

        session = self._user.session()
        found = []
        try:
            names = session.ask("get_children", self._folder, watch=watch)
        except NoNodeError:
            if watch is None or session.ask("exists", self._folder, watch=watch) is None:
                return []
            return self._list(watch)  # it has come since
        for name in sorted(names):
            path = f"{self._folder}/{name}"
            try:
                data, _ = session.ask("get", path, watch=watch)
            except NoNodeError:
                continue  # it has gone since
            try:
                found.append(instance_of(name, data))
            except ValueError as error:
                log.warning("%s at %s is no instance and is passed over: %s", path, self.url.text, error)
        return found

    def __repr__(self) -> str:
        return f"<ZookeeperResolver {self.source}>"


def data_of(instance: Instance) -> bytes:
    """What the node of an instance holds. Other programs read it: the first two names are registry-zookeeper's."""
    plain: dict[str, Any] = {"Weight": instance.weight, "Tags": dict(instance.tags)}
    if instance.zone:
        plain["Zone"] = instance.zone
    if instance.started:
        plain["Started"] = instance.started
    return json.dumps(plain, separators=(",", ":")).encode()


def instance_of(name: str, data: bytes) -> Instance:
    """The instance whose node has this name and data. Raises ValueError that says what is wrong."""
    if len(data) > MOST_BYTES:
        raise ValueError(f"longer than {MOST_BYTES} bytes")
    try:
        plain = json.loads(data)
        address = parse(f"tcp://{name}").text
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UsageError as error:
        raise ValueError(str(error)) from None
    if not isinstance(plain, dict):
        raise ValueError("it is no table")  # noqa: TRY004 -- one error for what others wrote
    small = {key.lower(): value for key, value in plain.items()}  # Go does not look at the case either
    return Instance.from_plain({**small, "address": address})


def _prefix(text: str) -> str:
    return f"/{text.strip('/')}" if text.strip("/") else ""


def _folder(url: RegistryUrl, service: str) -> str:
    if not service or "/" in service or service in (".", ".."):
        raise DiscoveryError(f"{service!r} cannot be the name of a service in ZooKeeper: it is one node's, without /")
    return f"{url.option('prefix', '')}/{service}"
