"""The config centre: [client.…], [governance] and [limits] as somebody changes them elsewhere, applied while the service runs.

    /KitexConfig/item/weego               TOML or JSON: tables over those of the file, for the service item
    /KitexConfig/item/stock/retry         Kitex's own keys (`weego/kitex_config.py`), for item's calls of stock
    /KitexConfig/item/limit               … and for item as a server

A value that cannot be used is refused with a line in the log that says why, and the last good one of its key stays. While the centre is away, what is known
stays in force. What a key said is gone with the key: the file's own values are in force again.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import random
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

from codec.errors import UsageError
from weego import config as configuration
from weego.kitex_config import CLIENT_CATEGORIES, LIMIT, client_table, limit_tables
from weego.tasks import hub_of_this_thread, see_end

__all__ = ["Center", "Source", "register_source", "source_of"]

log = logging.getLogger("weego.governance")

# The last part of the key of our own document.
OWN: Final = "weego"
# A value that is longer was written by mistake.
MOST_BYTES: Final = 1 << 20
# Pauses before the centre is asked again (seconds): twice as long each time, at random between half of that and all.
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 5.0

Values = Mapping[str, bytes]
_Whole = TypeVar("_Whole", bound=configuration.Config | configuration.Program)


class Source(Protocol):
    """Where values are kept, by keys such as ``stock/retry``, for one service."""

    def watch(self, publish: Callable[[Values], None]) -> None:
        """Publish all, then all at each change, for as long as that works. Returns or raises when it cannot go on: it is called again."""

    def list(self) -> Values:
        """All, now. Raises any error when it cannot say."""

    def close(self) -> None:
        """A watch under way returns. May be called from any thread."""


def _etcd(url: str, name: str) -> Source:
    from weego.registries.etcd_center import EtcdSource

    return EtcdSource(url, name)


_sources: dict[str, Callable[[str, str], Source]] = {"etcd": _etcd, "etcds": _etcd}


def register_source(scheme: str, make: Callable[[str, str], Source]) -> None:
    """From now on ``[config_center] url = "scheme://…"`` is the Source ``make(url, name of the service)``."""
    _sources[scheme] = make


def source_of(url: str, name: str) -> Source:
    """The source at a URL for the service `name`. UsageError when there is no such kind."""
    scheme = url.partition("://")[0]
    if scheme not in _sources:
        known = ", ".join(f"{each}://" for each in sorted(_sources))
        raise UsageError(f"{url.partition('?')[0]}: unknown kind of config centre; known are {known}")
    return _sources[scheme](url, name)


class Center(Generic[_Whole]):
    """Keeps `config` in the form that a source's values give it, and calls `apply(changed config)` at each change.

    `apply` runs in the greenlet or thread that watches. `cache` is a file for the last good values.
    """

    def __init__(self, source: Source, config: _Whole, apply: Callable[[_Whole], None], *, cache: str | None = None) -> None:
        self.config = config
        """What the file says."""
        self.effective = config
        """What is in force."""
        self.problems: dict[str, str] = {}
        """Why a key's value is not in force; the key "" is the source itself."""
        self._source = source
        self._apply = apply
        self._cache = cache
        self._values: Values = {}
        self._good: dict[str, bytes] = {}
        self._has_heard = threading.Event()
        self._has_ended = threading.Event()
        self._runner: Any = None
        self._lock = threading.Lock()

    def start(self, wait: float) -> None:
        """From now on. Waits up to `wait` seconds for the first values; without them those of the cache are in force, else the file's."""
        hub = hub_of_this_thread()
        if hub is not None:
            import gevent

            self._runner = gevent.spawn(self._run, gevent.sleep)
            pause: Callable[[float], Any] = gevent.sleep
        else:
            self._runner = threading.Thread(target=self._run, args=(self._has_ended.wait,), name="weego-center", daemon=True)
            self._runner.start()
            pause = time.sleep
        deadline = time.monotonic() + wait
        while not self._has_heard.is_set() and time.monotonic() < deadline:
            pause(0.01)
        if not self._has_heard.is_set():
            cached = self._read_cache()
            log.warning(
                "the config centre does not answer: %s; going on with %s",
                self.problems.get("", "nothing came in time"), "the values of the last time" if cached else "the file's values",
            )  # fmt: skip
            if cached:
                self.take(cached, is_cached=True)

    def rebase(self, config: _Whole) -> None:
        """The file has changed: the same values over another config."""
        self.config = config
        self._settle(dict(self._values))

    def take(self, values: Values, *, is_cached: bool = False) -> None:
        """These are the values now."""
        if not is_cached:
            self._has_heard.set()
            if self.problems.pop("", None) is not None:
                log.info("the config centre answers again")
        if values != self._values or is_cached:
            self._values = values
            self._settle(dict(values))
            if not is_cached:
                self._write_cache()

    def _settle(self, values: dict[str, bytes]) -> None:
        """Put in force what is good of them."""
        with self._lock:
            found, good = self.config, {}
            problems = {"": self.problems[""]} if "" in self.problems else {}
            for key in sorted(values, key=lambda each: (each == OWN, each)):  # our own document has the last word
                try:
                    found = self._over(found, key, values[key])
                    good[key] = values[key]
                except (ValueError, configuration.ConfigError) as error:
                    problems[key] = str(error)
                    if self.problems.get(key) != problems[key]:
                        log.warning("config centre: the value of %s is refused, the one before stays: %s", key, error)
                    with contextlib.suppress(KeyError, ValueError, configuration.ConfigError):
                        found = self._over(found, key, self._good[key])
                        good[key] = self._good[key]
            self._good, self.problems = good, problems
            before, self.effective = self.effective, found
        if found != before:
            self._apply(found)
            log.info("config centre: in force are %s", ", ".join(good) or "the file's values alone")

    def _over(self, config: _Whole, key: str, value: bytes) -> _Whole:
        """`config` with one key's value over it. ValueError or ConfigError says what is wrong."""
        if len(value) > MOST_BYTES:
            raise ValueError(f"it is longer than {MOST_BYTES} bytes")
        if key == OWN:
            return configuration.overlay(config, _document(value), key)
        service, _, category = key.rpartition("/")
        if category in CLIENT_CATEGORIES and service:
            return configuration.overlay(config, {"client": {service: client_table(category, value)}}, key)
        if key == LIMIT:
            if not isinstance(config, configuration.Config):
                raise ValueError("this program is no server, and has no limits")
            tables = limit_tables(value)
            if "governance" in tables:  # beside those of the file
                own: list[Any] = [configuration.plain_table(each) for each in config.governance.limit]
                tables["governance"]["limit"] = own + tables["governance"]["limit"]
            return configuration.overlay(config, tables, key)
        known = ", ".join((OWN, LIMIT, *(f"<service>/{each}" for each in CLIENT_CATEGORIES)))
        raise ValueError(f"nobody reads that; keys here are {known}")

    # ---- watching ----------------------------------------------------------------------------------------------------

    def _run(self, sleep: Callable[[float], Any]) -> None:
        pause = FIRST_PAUSE
        while not self._has_ended.is_set():
            started = time.monotonic()
            problem = "its watch has ended"
            try:
                self._source.watch(self.take)
            except Exception as error:
                problem = str(error) or type(error).__name__
            if self._has_ended.is_set():
                return
            if "" not in self.problems and self._has_heard.is_set():
                log.warning("the config centre does not answer: %s; what is known stays in force", problem)
            self.problems[""] = problem
            pause = FIRST_PAUSE if time.monotonic() - started > LONGEST_PAUSE else min(LONGEST_PAUSE, pause * 2)
            sleep(pause * random.uniform(0.5, 1.0))

    def stop(self) -> None:
        """Watch no longer; what is in force stays."""
        self._has_ended.set()
        greenlets = [] if self._runner is None or isinstance(self._runner, threading.Thread) else [self._runner]
        for each in greenlets:
            each.kill(block=False)
        self._source.close()
        see_end(greenlets)

    # ---- the cache ---------------------------------------------------------------------------------------------------

    def _write_cache(self) -> None:
        if self._cache is None:
            return
        text = json.dumps({key: base64.b64encode(value).decode() for key, value in self._good.items()})
        fresh = f"{self._cache}.{os.getpid()}.new"
        try:
            os.makedirs(os.path.dirname(self._cache), exist_ok=True)
            with open(fresh, "w") as file:
                file.write(text)
            os.replace(fresh, self._cache)
        except OSError as error:
            log.warning("[config_center] cache: cannot write %s: %s", self._cache, error.strerror or error)

    def _read_cache(self) -> Values:
        if self._cache is None:
            return {}
        try:
            with open(self._cache) as file:
                plain = json.load(file)
            return {str(key): base64.b64decode(value, validate=True) for key, value in plain.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, AttributeError) as error:
            log.warning("[config_center] cache: cannot use %s: %s", self._cache, error)
            return {}


def _document(value: bytes) -> dict[str, Any]:
    """TOML, or JSON where it begins with a brace."""
    try:
        text = value.decode()
        found = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # both kinds of syntax errors are ValueErrors
        raise ValueError(f"it is neither TOML nor JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("it is no table")  # noqa: TRY004 -- one error for what others wrote
    return found
