"""Log lines: text for people, JSON for machines, one `write` for each.

Three loggers of the standard library, so that users add handlers as they know how:

    weego.master    the master process
    weego.worker    what a worker says
    weego.access    one line for each call, a logger of its own: `[log] access`, and another handler if you like

`setup` replaces weego's one handler on the "weego" logger and leaves the root logger alone, but gives it the same handler when
it has none, so that a service's own `logging.getLogger(__name__)` lines come out as well.

Rules kept here: a line leaves in a single write(2), so that lines of several processes never mix (whole up to PIPE_BUF on a
pipe, always on a file opened for appending); nothing ever raises into the caller; nothing is buffered that a fork could
double. No import of ours and none of msgspec: the master uses this file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

__all__ = ["Access", "LogConfig", "access_log", "format_access_json", "format_access_text", "setup"]

MASTER: Final = "weego.master"
WORKER: Final = "weego.worker"
ACCESS: Final = "weego.access"

# SGR codes: dim for what is rarely read, colour for what must not be missed.
_DIM, _RED, _YELLOW, _GREEN, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"
_LEVEL_COLOUR = {"WARNING": _YELLOW, "ERROR": _RED, "CRITICAL": _RED, "DEBUG": _DIM}

# Attributes every LogRecord has; whatever else a record carries came in by `extra=` and goes into the JSON line.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LogConfig(Protocol):
    """What `setup` reads: weego.config.Log has this shape."""

    @property
    def level(self) -> str:
        """Debug, info, warning or error."""

    @property
    def format(self) -> str:
        """Auto, text or json."""

    @property
    def access(self) -> bool:
        """Whether calls are logged."""


def setup(config: LogConfig | Mapping[str, Any] | None, role: str, *, fd: int = 2) -> None:
    """Send the log lines of this process to `fd`, marked with `role` ("master", "worker 3"). May be called again.

    `config` is the [log] table, as the type or as plain values; None means the defaults. `format = "auto"` is text in colour
    on a terminal (without colour where NO_COLOR is set) and JSON lines anywhere else.
    """
    get = config.get if isinstance(config, Mapping) else lambda key, default: getattr(config, key, default)
    level, style, access = get("level", "info"), get("format", "auto"), get("access", True)
    terminal = _is_terminal(fd)
    as_text = style == "text" or (style == "auto" and terminal)
    colour = as_text and terminal and not os.environ.get("NO_COLOR")
    handler = _Handler(fd, _TextFormatter(role, colour=colour) if as_text else _JsonFormatter(role))

    logger = logging.getLogger("weego")
    logger.setLevel(level.upper())
    logger.propagate = False
    _replace(logger, handler)
    logging.getLogger(ACCESS).setLevel(logging.INFO if access else logging.CRITICAL + 1)
    root = logging.getLogger()
    if all(isinstance(each, _Handler) for each in root.handlers):
        root.setLevel(level.upper())
        _replace(root, handler)
    logging.captureWarnings(capture=True)


def _replace(logger: logging.Logger, handler: _Handler) -> None:
    for each in list(logger.handlers):
        if isinstance(each, _Handler):
            logger.removeHandler(each)
    logger.addHandler(handler)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


class _Handler(logging.Handler):
    """Formats a record and writes it with one system call, or drops it: logging never fails a call."""

    formatter: _TextFormatter | _JsonFormatter

    def __init__(self, fd: int, formatter: _TextFormatter | _JsonFormatter) -> None:
        super().__init__()
        self.fd = fd
        self.formatter = formatter

    def createLock(self) -> None:  # noqa: N802 -- the base class's name
        """No lock: a single write needs none, and a lock could be held by a thread that a fork leaves behind."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit, as the base class does, without its lock."""
        passed = bool(self.filter(record))
        if passed:
            self.emit(record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record as one line; one that cannot be formatted says so itself."""
        try:
            line = self.formatter.format(record)
        except Exception as error:
            where = f"{record.pathname}:{record.lineno}"
            text = f"log message at {where} cannot be formatted: {type(error).__name__}"
            line = self.formatter.format(logging.LogRecord(record.name, logging.ERROR, record.pathname, record.lineno, text, None, None))
        write_line(self.fd, line)


def write_line(fd: int, line: str) -> None:
    """One line, one write. A full pipe, a closed terminal or a full disk loses the line, never the call that logged it."""
    data = line.encode("utf-8", "backslashreplace") + b"\n"
    with contextlib.suppress(OSError):
        written = os.write(fd, data)
        while written < len(data):  # a pipe or disk that took a part: the rest is better late than missing
            data = data[written:]
            written = os.write(fd, data)


# ---------------------------------------------------------------- formats


class _Clock:
    """ISO 8601 local time to the millisecond; the part that changes once a second is made once a second."""

    def __init__(self) -> None:
        self.second = -1
        self.parts = ("", "")

    def stamp(self, at: float) -> str:
        second = int(at)
        if second != self.second:
            local = time.localtime(second)
            zone = time.strftime("%z", local)
            self.parts = (time.strftime("%Y-%m-%dT%H:%M:%S", local), f"{zone[:3]}:{zone[3:]}")
            self.second = second
        date, zone = self.parts
        return f"{date}.{int((at - second) * 1000):03d}{zone}"


class _TextFormatter(logging.Formatter):
    """`time role LEVEL logger: message`; a traceback follows, indented, in the same write."""

    def __init__(self, role: str, *, colour: bool) -> None:
        super().__init__()
        self.role = role
        self.colour = colour
        self.clock = _Clock()

    def format(self, record: logging.LogRecord) -> str:
        message = _one_line(record.getMessage())
        level, name = record.levelname, _short(record.name)
        head = f"{self.clock.stamp(record.created)} {self.role} "
        if self.colour:
            head = f"{_DIM}{head}{_PLAIN}"
            if tone := _LEVEL_COLOUR.get(level):
                level = f"{tone}{level}{_PLAIN}"
        line = f"{head}{level} {name}: {message}" if name else f"{head}{level} {message}"
        details = [text for text in (_traceback(record), record.stack_info) if text]
        return "\n".join([line, *("    " + row for text in details for row in text.splitlines())])

    def access(self, entry: Access) -> str:
        return format_access_text(entry, self.clock.stamp(entry.start), self.role, colour=self.colour)


class _JsonFormatter(logging.Formatter):
    """One JSON object: time, level, role, logger, message, exception, and whatever `extra=` added."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self.role = role
        self.clock = _Clock()

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": self.clock.stamp(record.created),
            "level": record.levelname.lower(),
            "role": self.role,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if exception := _traceback(record):
            values["exception"] = exception
        if record.stack_info:
            values["stack"] = record.stack_info
        for key, value in vars(record).items():
            if key not in _STANDARD:
                values.setdefault(key, value)
        return _json(values)

    def access(self, entry: Access) -> str:
        return format_access_json(entry, self.clock.stamp(entry.start), self.role)


# Made once: json.dumps with options builds an encoder for each call, which takes longer than the line.
_json: Callable[[dict[str, Any]], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=repr).encode
_quoted: Callable[[str], str] = json.encoder.encode_basestring


def _short(name: str) -> str:
    """Weego's own two process loggers add nothing to the role."""
    return "" if name in (MASTER, WORKER) else name


def _one_line(message: str) -> str:
    """A message of several lines, or with control characters of a peer's, stays one line."""
    if message.isprintable():
        return message
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in message)


def _traceback(record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[1] is not None:
        return "".join(traceback.format_exception(record.exc_info[1])).rstrip()
    return record.exc_text or ""


# ---------------------------------------------------------------- access log


class Access:
    """The facts of one finished call.

    `start` is wall-clock seconds, `elapsed` seconds, `bytes_in` and `bytes_out` the size of the messages on the wire, `code`
    the name of the status ("OK", "DEADLINE_EXCEEDED"), `error` one line about a failure, `peer` the address of the caller and
    `caller` the service name it gave.
    """

    __slots__ = ("bytes_in", "bytes_out", "caller", "code", "elapsed", "error", "method", "peer", "protocol", "service", "start")

    def __init__(
        self,
        start: float,
        service: str,
        method: str,
        protocol: str,
        peer: str,
        bytes_in: int,
        bytes_out: int,
        code: str,
        elapsed: float,
        error: str = "",
        caller: str = "",
    ) -> None:
        self.start = start
        self.service = service
        self.method = method
        self.protocol = protocol
        self.peer = peer
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.code = code
        self.elapsed = elapsed
        self.error = error
        self.caller = caller


def access_log() -> Callable[[Access], None] | None:
    """The function that logs one call, or None when calls are not logged; ask once, when the chain is composed.

    While only weego's own handler listens, the line goes straight to it: a LogRecord for each call would cost more than the
    line. With a handler or filter of the user's on "weego.access" every call becomes a record, whose attribute `access` is
    the Access.
    """
    logger = logging.getLogger(ACCESS)
    if not logger.isEnabledFor(logging.INFO):
        return None
    handlers = [*logger.handlers, *(logging.getLogger("weego").handlers if logger.propagate else ())]
    if len(handlers) == 1 and isinstance(handlers[0], _Handler) and not logger.filters and not handlers[0].filters:
        return _direct(handlers[0])
    return _through(logger)


def _direct(handler: _Handler) -> Callable[[Access], None]:
    fd, line = handler.fd, handler.formatter.access

    def write(entry: Access) -> None:
        try:
            write_line(fd, line(entry))
        except Exception:  # a field that is not what Access says: the line is lost, the call is not
            logging.getLogger(WORKER).exception("access log line cannot be formatted")

    return write


def _through(logger: logging.Logger) -> Callable[[Access], None]:
    def write(entry: Access) -> None:
        facts = {name: getattr(entry, name) for name in Access.__slots__ if name not in ("start", "error")}
        try:
            logger.info("%s.%s %s", entry.service, entry.method, entry.code, extra={**facts, "access": entry})
        except Exception:
            logging.getLogger(WORKER).exception("access log line cannot be written")

    return write


def format_access_text(entry: Access, stamp: str, role: str, *, colour: bool = False) -> str:
    """`time role Echo.echo OK 0.123ms 1050>1062 ttheader 127.0.0.1:4242`, then caller and error if there are any."""
    code = entry.code
    if colour:
        code = f"{_GREEN if code == 'OK' else _RED}{code}{_PLAIN}"
        head = f"{_DIM}{stamp} {role}{_PLAIN}"
    else:
        head = f"{stamp} {role}"
    line = (
        f"{head} {_one_line(entry.service)}.{_one_line(entry.method)} {code} {entry.elapsed * 1e3:.3f}ms "
        f"{entry.bytes_in}>{entry.bytes_out} {entry.protocol} {entry.peer}"
    )
    if entry.caller:
        line += f" from={_one_line(entry.caller)}"
    if entry.error:
        line += f" error={_one_line(entry.error)}"
    return line


def format_access_json(entry: Access, stamp: str, role: str) -> str:
    """The same facts as one JSON object; `elapsed` in seconds. Written out by hand: half the time of an encoder."""
    line = (
        f'{{"time":"{stamp}","level":"info","role":{_quoted(role)},"logger":"{ACCESS}",'
        f'"service":{_quoted(entry.service)},"method":{_quoted(entry.method)},"code":{_quoted(entry.code)},'
        f'"elapsed":{entry.elapsed:.6f},"bytes_in":{entry.bytes_in:d},"bytes_out":{entry.bytes_out:d},'
        f'"protocol":{_quoted(entry.protocol)},"peer":{_quoted(entry.peer)}'
    )
    if entry.caller:
        line += f',"caller":{_quoted(entry.caller)}'
    if entry.error:
        line += f',"error":{_quoted(entry.error)}'
    return line + "}"


def stderr_line(message: str) -> None:
    """One line for a person who just typed a command: no time, no role; control characters stay visible."""
    sys.stderr.flush()
    write_line(2, _one_line(message))
