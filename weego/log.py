"""Log lines: text for people, JSON for machines.

Three loggers of the standard library, so that users add handlers as they know how:

    weego.master    the master process
    weego.worker    what a worker says
    weego.access    one line for each call, a logger of its own: `[log] access`, and another handler if you like

`setup` replaces weego's one handler on the "weego" logger and leaves the root logger alone, but gives it the same handler when
it has none, so that a service's own `logging.getLogger(__name__)` lines come out as well.

Rules kept here: nothing ever raises into the caller, or makes it wait (weego.output says how); no lock could be held by a thread that a
fork leaves behind. No import of gevent and none of msgspec: the master uses this file.
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

from weego.output import Output

__all__ = ["Access", "Finished", "LogConfig", "access_log", "dropped", "give_to", "reopen", "set_level", "setup"]

MASTER: Final = "weego.master"
WORKER: Final = "weego.worker"
ACCESS: Final = "weego.access"

# SGR codes: dim for what is rarely read, colour for what must not be missed.
_DIM, _RED, _YELLOW, _PLAIN = "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
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

    @property
    def file(self) -> str | None:
        """Where lines go instead of standard error."""

    @property
    def access_file(self) -> str | None:
        """Where the access log goes instead."""


#: Called after each call: the Call, the request (with its ``size`` in bytes), the code, the bytes of the answer, what went wrong.
Finished = Callable[[Any, Any, int, int, BaseException | None], None]

# Who is given the files that this process makes as root: those that will write to them are not root.
_owner: tuple[int, int] | None = None


def setup(config: LogConfig | Mapping[str, Any] | None, role: str, *, fd: int = 2, threaded: bool = False) -> None:
    """Send the log lines of this process to `[log] file`, else to `fd`, marked with `role` ("master", "worker 3"). May be called again.

    `config` is the [log] table, as the type or as plain values; None means the defaults. `format = "auto"` is text in colour
    on a terminal (without colour where NO_COLOR is set) and JSON lines anywhere else. `threaded`: what cannot be written at once
    waits for a thread, in a process that may have one. Raises OSError if a file cannot be opened; nothing has changed then.
    """
    get = config.get if isinstance(config, Mapping) else lambda key, default: getattr(config, key, default)
    level, style, access = get("level", "info"), get("format", "auto"), get("access", True)
    paths = get("file", None), get("access_file", None)
    owner = get("owner", None) or _owner
    owner = tuple(owner) if owner else None
    main = Output.open(paths[0], owner=owner) if paths[0] else Output(fd)
    calls = None
    if access and paths[1] and paths[1] != paths[0]:
        try:
            calls = Output.open(paths[1], owner=owner)
        except OSError:
            main.close(0)
            raise
    handler = _Handler(main, _formatter(style, role, main.fd))
    logger = logging.getLogger("weego")
    logger.setLevel(level.upper())
    logger.propagate = False
    _replace(logger, handler)
    access_logger = logging.getLogger(ACCESS)
    access_logger.setLevel(logging.INFO if access else logging.CRITICAL + 1)
    access_logger.propagate = calls is None
    _replace(access_logger, _Handler(calls, _formatter(style, role, calls.fd)) if calls is not None else None)
    root = logging.getLogger()
    if all(isinstance(each, _Handler) for each in root.handlers):
        root.setLevel(level.upper())
        _replace(root, handler)
    if threaded:
        for output in _outputs():
            output.spool()
    logging.captureWarnings(capture=True)


def _formatter(style: str, role: str, fd: int) -> _TextFormatter | _JsonFormatter:
    terminal = _is_terminal(fd)
    as_text = style == "text" or (style == "auto" and terminal)
    colour = as_text and terminal and not os.environ.get("NO_COLOR")
    return _TextFormatter(role, colour=colour) if as_text else _JsonFormatter(role)


def _handlers() -> list[_Handler]:
    """Ours: of the main log, and of the access log if it has its own."""
    loggers = (logging.getLogger("weego"), logging.getLogger(ACCESS))
    return [each for logger in loggers for each in logger.handlers if isinstance(each, _Handler)]


def _outputs() -> list[Output]:
    return [each.output for each in _handlers()]


def set_level(level: str) -> None:
    """The least severe lines that are written, from now on: "debug", "info", "warning", "error"."""
    logging.getLogger("weego").setLevel(level.upper())
    root = logging.getLogger()
    if any(isinstance(each, _Handler) for each in root.handlers):
        root.setLevel(level.upper())


def reopen() -> None:
    """Open the log files again: somebody has moved them away. One that cannot be opened goes on where it is, with a line that says so."""
    for output in _outputs():
        try:
            output.reopen(_owner)
        except OSError as error:
            logging.getLogger("weego.log").error("%s cannot be opened again, the old file goes on: %s", output.path, error.strerror)


def dropped() -> int:
    """Lines this process has lost so far, because nobody read them, or a disk was full."""
    return sum(output.dropped for output in _outputs())


def give_to(user: int, group: int) -> None:
    """Let that user, who is not root, write to the files of this process and to those it will open."""
    global _owner
    _owner = user, group
    for output in _outputs():
        if output.path is not None:
            with contextlib.suppress(OSError):
                os.fchown(output.fd, user, group)


def _replace(logger: logging.Logger, handler: _Handler | None) -> None:
    for each in list(logger.handlers):
        if isinstance(each, _Handler):
            logger.removeHandler(each)
            if handler is None or each.output is not handler.output:
                each.close()
    if handler is not None:
        logger.addHandler(handler)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


# How long a process that ends waits for its last lines to be taken (seconds).
LAST_LINES: Final = 1.0


class _Handler(logging.Handler):
    """Formats a record and hands the line to its output: logging never fails a call."""

    formatter: _TextFormatter | _JsonFormatter

    def __init__(self, output: Output, formatter: _TextFormatter | _JsonFormatter) -> None:
        super().__init__()
        self.output = output
        self.formatter = formatter
        output.notice = self._notice

    def _notice(self, count: int, why: str) -> bytes:
        lines = "1 log line was" if count == 1 else f"{count} log lines were"
        return _encoded(self.formatter.notice(f"{lines} dropped: {why}"))

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
        self.output.write(_encoded(line))

    def flush(self) -> None:
        """Wait for the last lines, if somebody takes them; for who is about to exit."""
        self.output.flush(LAST_LINES)

    def close(self) -> None:
        """Write what waits and let go of the file."""
        self.output.close(LAST_LINES)
        super().close()


def _encoded(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace") + b"\n"


def write_line(fd: int, line: str) -> None:
    """One line, one write. A full pipe, a closed terminal or a full disk loses the line, never the call that logged it."""
    data = _encoded(line)
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
            self.parts = _second(second)
            self.second = second
        date, zone = self.parts
        return f"{date}.{int((at - second) * 1000):03d}{zone}"


def _second(second: int) -> tuple[str, str]:
    """Date and time of day, and the offset from UTC."""
    local = time.localtime(second)
    zone = time.strftime("%z", local)
    return time.strftime("%Y-%m-%dT%H:%M:%S", local), f"{zone[:3]}:{zone[3:]}"


def _second_bytes(second: int) -> tuple[bytes, bytes]:
    date, zone = _second(second)
    return date.encode(), zone.encode()


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

    def notice(self, message: str) -> str:
        """A warning that comes from no LogRecord."""
        return f"{self.clock.stamp(time.time())} {self.role} WARNING {message}"


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

    def notice(self, message: str) -> str:
        """A warning that comes from no LogRecord."""
        return _json(
            {
                "time": self.clock.stamp(time.time()),
                "level": "warning",
                "role": self.role,
                "pid": os.getpid(),
                "logger": "weego.log",
                "message": message,
            }
        )


# Made once: json.dumps with options builds an encoder for each call, which takes longer than the line.
_json: Callable[[dict[str, Any]], str] = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=repr).encode

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


def access_log() -> Finished | None:
    """What is to be called after each call, or None when calls are not logged; ask once, when the chain is composed.

    While only weego's own handler listens, the line is made natively (weego.access): a LogRecord for each call would cost more than the
    call. With a handler or filter of the user's on "weego.access" every call becomes a record, whose attribute `access` is
    the Access.
    """
    logger = logging.getLogger(ACCESS)
    if not logger.isEnabledFor(logging.INFO):
        return None
    handlers = [*logger.handlers, *(logging.getLogger("weego").handlers if logger.propagate else ())]
    if len(handlers) == 1 and isinstance(handlers[0], _Handler) and not logger.filters and not handlers[0].filters:
        return _native(handlers[0])
    return _through(logger)


def _native(handler: _Handler) -> Finished:
    from codec.errors import Code
    from weego.access import AccessLog

    formatter, output = handler.formatter, handler.output
    return AccessLog(
        output.lines,
        output.write,
        as_json=isinstance(formatter, _JsonFormatter),
        role=formatter.role,
        colour=isinstance(formatter, _TextFormatter) and formatter.colour,
        clock=_second_bytes,
        told=_told,
        codes={int(code): code.name for code in Code},
        logger=ACCESS,
        pid=os.getpid(),
    )


# Characters of an error, and of a method's name, that the access log repeats.
MOST_TOLD: Final = 200
# What it calls the service of a method that nobody has.
UNKNOWN: Final = "?"


def _through(logger: logging.Logger) -> Finished:
    from codec.errors import Code

    names = {int(code): code.name for code in Code}

    def finished(call: Any, request: Any, code: int, answer_bytes: int, error: BaseException | None) -> None:
        elapsed = call.elapsed
        entry = Access(
            start=time.time() - elapsed,
            service=call.service or UNKNOWN,
            method=call.method[:MOST_TOLD],
            protocol=call.protocol,
            peer=call.peer,
            bytes_in=request.size,
            bytes_out=answer_bytes,
            code=names.get(code, str(code)),
            elapsed=elapsed,
            error=_told(error) if error is not None else "",
            caller=call.caller,
        )
        facts = {name: getattr(entry, name) for name in Access.__slots__ if name not in ("start", "error")}
        try:
            logger.info("%s.%s %s", entry.service, entry.method, entry.code, extra={**facts, "access": entry})
        except Exception:
            logging.getLogger(WORKER).exception("access log line cannot be written")

    return finished


def _told(error: BaseException) -> str:
    """What went wrong, for one log line."""
    try:
        text = getattr(error, "message", None) or str(error)
    except Exception:  # the user's own __str__
        text = "(its text cannot be made)"
    told = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return told if len(told) <= MOST_TOLD else f"{told[:MOST_TOLD]}…"


def stderr_line(message: str) -> None:
    """One line for a person who just typed a command: no time, no role; control characters stay visible."""
    sys.stderr.flush()
    write_line(2, _one_line(message))
